//! Push, from source through all tiers to done or DLQ: every record arrives once, in time, and
//! unchanged.

use std::time::Duration;

use crate::support::broker;
use crate::support::checker::{self, FAILURE, Hops, Observed};
use crate::support::clock::{self, PATIENCE};
use crate::support::handler::{Answer, Call, Handler};
use crate::support::process::Kladder;
use crate::support::raw::{NewRecord, RawProducer};
use crate::support::records;
use crate::support::scene::Scene;

const PARTITIONS: i32 = 6;

/// A third fails once, a third twice, a third always.
fn thirds(number: usize) -> u32 {
    [1, 2, u32::MAX][number % 3]
}

/// The record number follows from its position: records are written to the partitions in turn.
fn number_at(call: &Call) -> usize {
    usize::try_from(call.offset * i64::from(PARTITIONS) + i64::from(call.partition)).expect("a place")
}

fn fails_by_plan(call: &Call) -> Answer {
    if call.attempt <= thirds(number_at(call)) { Answer::fail(503, FAILURE) } else { Answer::ok() }
}

struct Totals {
    calls: usize,
    dead: usize,
}

fn totals(scene: &Scene, records: usize) -> Totals {
    let shape = scene.shape();
    let per_record = |n| usize::try_from(shape.calls(thirds(n))).expect("a small number");
    let dead = (0..records).filter(|n| thirds(*n) >= shape.attempts).count();
    let calls = (0..records).map(per_record).sum();
    Totals { calls, dead }
}

#[test]
fn records_climb_the_ladder_and_end_done_or_dead_exactly_once() {
    const RECORDS: usize = 2_000;
    let scene_with_handler = |url: &str| {
        let mut scene = Scene::with_source("push", &["1s", "2s", "4s"], PARTITIONS);
        scene.handler = url.to_owned();
        scene
    };
    let handler = Handler::start(fails_by_plan);
    let scene = scene_with_handler(handler.url());
    let config = scene.set_up();
    let written: Vec<NewRecord> = (0..RECORDS).map(|n| records::hostile(n, PARTITIONS, &scene.ladder)).collect();
    RawProducer::new(&scene.brokers).write(&scene.source, &written);
    let planned = totals(&scene, RECORDS);

    let mut kladder = Kladder::run(&config);
    clock::eventually("the source's lag is 0", PATIENCE, || {
        kladder.assert_running();
        broker::lag(&scene.group, &scene.source) == 0
    });
    let calls_then = handler.count();
    assert!(calls_then < planned.calls, "the source was behind until the last record had left the ladder");
    clock::eventually("the ladder is empty", PATIENCE * 2, || {
        kladder.assert_running();
        handler.count() >= planned.calls && broker::read(&scene.dlq_topic()).len() >= planned.dead
    });

    clock::eventually("all is committed", PATIENCE, || broker::lag(&scene.group, &scene.redeliver_topic()) == 0);
    honest(&scene, &scene.observe(&handler), planned.dead);
    let ended = kladder.terminate(PATIENCE);
    assert_eq!(ended.code(), Some(0), "exit code after SIGTERM; its log:\n{}", kladder.log());
    let report = checker::check(&scene.shape(), Hops::ExactlyOnce, &scene.observe(&handler), thirds);
    report.assert_no_faults();
    assert_eq!(report.extra_calls, 0, "the handler was called more often than planned");
    assert!(handler.most_open() <= scene.max_in_flight, "{} deliveries were open at once", handler.most_open());
    check_requests(&handler.calls(), &scene);
}

/// kladder's metrics agree with the topics and the handler's requests.
fn honest(scene: &Scene, observed: &Observed, dead: usize) {
    let metric = |name: &str, label: &str| scene.metric(name, label);
    let tier = |topic: &str| format!("tier=\"{topic}\"");
    for (delay, records) in scene.tiers.iter().zip(&observed.tiers) {
        let moved = Some(as_f64(records.len()));
        assert_eq!(metric("kladder_hops_total", &tier(delay)), moved, "hops to {delay}");
        assert_eq!(metric("kladder_lateness_seconds_count", &tier(delay)), moved, "lateness of {delay}");
        assert_eq!(metric("kladder_redelivery_delay_seconds_count", &tier(delay)), moved, "redeliveries of {delay}");
        assert_eq!(metric("kladder_tier_waiting_records", &tier(delay)), Some(0.0), "waiting in {delay}");
    }
    assert_eq!(metric("kladder_hops_total", &tier("redeliver")), Some(as_f64(observed.redeliver.len())));
    assert_eq!(metric("kladder_lateness_seconds_count", ""), Some(as_f64(observed.redeliver.len())));
    assert_eq!(metric("kladder_hops_total", &tier("dlq")), Some(as_f64(observed.dlq.len())));
    assert_eq!(metric("kladder_dead_letters_total", "exhausted"), Some(as_f64(observed.dlq.len())));
    assert_eq!(metric("kladder_dead_letters_total", ""), Some(as_f64(dead)), "no other reason");
    let verdict = |kind: &str| metric("kladder_deliveries_total", &format!("verdict=\"{kind}\""));
    let refused = observed.calls.iter().filter(|call| call.attempt <= thirds(number_at(call))).count();
    assert_eq!(verdict("done"), Some(as_f64(observed.calls.len() - refused)));
    assert_eq!(verdict("retry"), Some(as_f64(refused)));
    assert_eq!(metric("kladder_deliveries_total", ""), Some(as_f64(observed.calls.len())), "no other verdict");
    assert_eq!(metric("kladder_handler_seconds_count", ""), Some(as_f64(observed.calls.len())));
    for never in ["kladder_early_total", "kladder_malformed_headers_total", "kladder_partitions_stopped"] {
        assert_eq!(metric(never, ""), Some(0.0), "{never}");
    }
}

/// What the handler receives besides the record itself.
fn check_requests(calls: &[Call], scene: &Scene) {
    for call in calls {
        let left = scene.shape().attempts - call.attempt;
        assert_eq!(call.header("kladder-attempts-left"), Some(left.to_string().as_str()), "{call:?}");
        assert_eq!(call.header("kladder-header-x-id"), Some(format!("r-{}", number_at(call)).as_str()), "{call:?}");
        assert!(call.header("kladder-timestamp").is_some_and(|t| t.parse::<u64>().is_ok()), "{call:?}");
        match number_at(call) % 5 {
            0 => assert_eq!(call.header("kladder-key"), None, "{call:?}"),
            2 | 3 => assert_eq!(call.header("kladder-key-encoding"), Some("base64"), "{call:?}"),
            4 => assert_eq!(call.header("kladder-key"), Some(format!("key-{}", number_at(call)).as_str()), "{call:?}"),
            _ => {}
        }
    }
}

#[test]
fn at_least_once_loses_nothing() {
    const RECORDS: usize = 300;
    let handler = Handler::start(fails_by_plan);
    let mut scene = Scene::with_source("at-least", &["1s", "2s"], PARTITIONS);
    scene.handler = handler.url().to_owned();
    scene.ask_for(Hops::AtLeastOnce);
    let config = scene.set_up();
    let written: Vec<NewRecord> = (0..RECORDS).map(|n| records::hostile(n, PARTITIONS, &scene.ladder)).collect();
    RawProducer::new(&scene.brokers).write(&scene.source, &written);
    let planned = totals(&scene, RECORDS);

    let mut kladder = Kladder::run(&config);
    clock::eventually("the ladder is empty", PATIENCE, || {
        kladder.assert_running();
        handler.count() >= planned.calls && broker::read(&scene.dlq_topic()).len() >= planned.dead
    });
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0));
    checker::check(&scene.shape(), Hops::AtLeastOnce, &scene.observe(&handler), thirds).assert_no_faults();
}

#[test]
fn a_rejected_record_is_a_dead_letter_at_once() {
    let handler = Handler::start(|call| if call.offset == 0 { Answer::fail(422, "no such order") } else { Answer::ok() });
    let mut scene = Scene::with_source("reject", &["1s"], 1);
    scene.handler = handler.url().to_owned();
    let config = scene.set_up();
    RawProducer::new(&scene.brokers).write(&scene.source, &[records::plain(0, 1), records::plain(1, 1)]);
    let _kladder = Kladder::run(&config);
    clock::eventually("the record is in the DLQ", PATIENCE, || !broker::read(&scene.dlq_topic()).is_empty());
    let dlq = broker::read(&scene.dlq_topic());
    let said: Vec<_> = ["reason", "attempts", "error-status", "error-message"]
        .map(|name| dlq[0].text(&format!("kladder-{name}")).unwrap_or_default())
        .to_vec();
    assert_eq!(said, ["rejected", "1", "422", "no such order"]);
    assert_eq!(dlq.len(), 1);
}

#[test]
fn work_in_flight_is_finished_before_it_ends() {
    // Each call lasts longer than sending the signal; records in flight must be answered and committed.
    let handler = Handler::start(|_| Answer::ok().after(Duration::from_millis(1500)));
    let mut scene = Scene::with_source("drain-stop", &["1s"], 1);
    scene.handler = handler.url().to_owned();
    scene.max_in_flight = 4;
    let config = scene.set_up();
    RawProducer::new(&scene.brokers).write(&scene.source, &(0..40).map(|n| records::plain(n, 1)).collect::<Vec<_>>());
    let mut kladder = Kladder::run(&config);
    clock::eventually("four deliveries are open", PATIENCE, || handler.count() >= 4);
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
    let answered = handler.count();

    let again = Kladder::run(&config);
    clock::eventually("all are delivered", PATIENCE, || handler.count() >= 40);
    drop(again);
    let mut offsets: Vec<i64> = handler.calls().iter().map(|c| c.offset).collect();
    let first: Vec<i64> = offsets.drain(..answered).collect();
    assert!(first.iter().all(|o| !offsets.contains(o)), "delivered again after a graceful end: {first:?} and {offsets:?}");
}

fn as_f64(count: usize) -> f64 {
    f64::from(u32::try_from(count).expect("a small number"))
}

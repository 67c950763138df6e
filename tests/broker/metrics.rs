//! `/metrics` is correct: each value is compared with what an independent reader finds in the topics and with the handler's
//! requests.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rdkafka::producer::Producer;

use crate::support::broker;
use crate::support::checker::Hops;
use crate::support::clock::{self, PATIENCE};
use crate::support::handler::{Answer, Call, Handler};
use crate::support::independent;
use crate::support::process::{self, Kladder};
use crate::support::raw::{NewRecord, RawProducer};
use crate::support::records;
use crate::support::scene::{Scene, path};

const PARTITIONS: i32 = 3;
const RECORDS: usize = 120;

/// Of four records one is done at once, one at its second attempt, one never, and one is rejected.
fn by_plan(call: &Call) -> Answer {
    let number = usize::try_from(call.offset * i64::from(PARTITIONS) + i64::from(call.partition)).expect("a place");
    match number % 4 {
        1 if call.attempt < 2 => Answer::fail(503, "not yet"),
        2 => Answer::fail(503, "never"),
        3 => Answer::fail(422, "no such order"),
        _ => Answer::ok(),
    }
}

#[test]
fn when_all_is_quiet_each_figure_is_what_others_count() {
    let handler = Handler::start(by_plan);
    let mut scene = Scene::with_source("figures", &["1s", "2s"], PARTITIONS);
    scene.handler = handler.url().to_owned();
    let config = scene.set_up();
    let written: Vec<NewRecord> = (0..RECORDS).map(|n| records::plain(n, PARTITIONS)).collect();
    RawProducer::new(&scene.brokers).write(&scene.source, &written);
    let mut kladder = Kladder::run(&config);

    // Updated every 15 seconds, so it may be outdated when the ladder is empty.
    let round_trips = Cell::new(false);
    let look = || {
        let rtt = scene.metric("kladder_broker_rtt_seconds", "role=\"deliverer\"");
        round_trips.set(round_trips.get() || rtt.is_some_and(|seconds| seconds > 0.0));
    };
    let quarter = RECORDS / 4;
    clock::eventually("the ladder is empty", PATIENCE * 2, || {
        kladder.assert_running();
        look();
        handler.count() >= quarter * 7 && broker::read(&scene.dlq_topic()).len() >= quarter * 2
    });
    clock::eventually("the producer's round trips are told", PATIENCE, || {
        look();
        round_trips.get()
    });
    let sources = format!("topic=\"{}\"", scene.source);
    let back = format!("topic=\"{}\"", scene.redeliver_topic());
    for topic in [&sources, &back] {
        clock::eventually("nothing lags", PATIENCE, || scene.metric("kladder_consumer_lag_records", topic) == Some(0.0));
    }
    for gauge in ["kladder_tier_waiting_records", "kladder_tier_due_records", "kladder_tier_oldest_overdue_seconds"] {
        clock::eventually(gauge, PATIENCE, || scene.metric(gauge, "") == Some(0.0));
    }

    let seen = independent::observe(&scene, &handler);
    assert_eq!((seen.dlq.len(), seen.calls.len()), (quarter * 2, quarter * 7), "all went by plan");
    let count = |name: &str, label: &str, expected: usize| {
        assert_eq!(scene.metric(name, label), Some(as_f64(expected)), "{name} {label}");
    };
    for (delay, records) in scene.tiers.iter().zip(&seen.tiers) {
        let tier = format!("tier=\"{delay}\"");
        count("kladder_hops_total", &tier, records.len());
        count("kladder_tier_left_total", &tier, records.len());
        count("kladder_lateness_seconds_count", &tier, records.len());
        count("kladder_redelivery_delay_seconds_count", &tier, records.len());
    }
    count("kladder_hops_total", "tier=\"redeliver\"", seen.redeliver.len());
    count("kladder_hops_total", "tier=\"dlq\"", seen.dlq.len());
    for reason in ["exhausted", "rejected", "expired", "poison", "oversize", "no-origin", "refused"] {
        let dead = seen.dlq.iter().filter(|record| record.text("kladder-reason") == Some(reason)).count();
        count("kladder_dead_letters_total", &format!("reason=\"{reason}\""), dead);
    }
    let said = |status: u16| seen.calls.iter().filter(|call| by_plan(call).status == status).count();
    for (verdict, calls) in [("done", said(200)), ("retry", said(503)), ("reject", said(422)), ("retry_after", 0), ("unsent", 0)]
    {
        count("kladder_deliveries_total", &format!("verdict=\"{verdict}\""), calls);
    }
    count("kladder_handler_seconds_count", "", seen.calls.len());
    for bound in [1, 2, 3, 21] {
        let done = seen.calls.iter().filter(|call| call.attempt <= bound && by_plan(call).status == 200).count();
        count("kladder_attempts_until_done_bucket", &format!("le=\"{bound}\""), done);
    }
    count("kladder_attempts_until_done_count", "", said(200));
    let attempts: u32 = seen.calls.iter().filter(|call| by_plan(call).status == 200).map(|call| call.attempt).sum();
    assert_eq!(scene.metric("kladder_attempts_until_done_sum", ""), Some(f64::from(attempts)));
    for never in [
        "kladder_early_total",
        "kladder_malformed_headers_total",
        "kladder_partitions_stopped",
        "kladder_producer_rebuilds_total",
        "kladder_redrive_jobs",
        "kladder_client_queued_records",
    ] {
        clock::eventually(never, PATIENCE, || scene.metric(never, "") == Some(0.0));
    }
    // Counted every few seconds by the index.
    clock::eventually("open dead letters are counted", PATIENCE, || {
        scene.metric("kladder_dlq_open_records", "") == Some(as_f64(seen.dlq.len()))
    });
    clock::eventually("the cluster is what was asked for", PATIENCE, || scene.metric("kladder_topology_drift", "") == Some(0.0));
    let threads = scene.metric("process_threads", "").expect("the process tells of itself");
    assert!(threads > 1.0 && scene.metric("process_resident_memory_bytes", "") > Some(1e6), "{threads} threads");
}

/// Without transactions, since markers count as offsets, by which waiting records are estimated.
#[test]
fn while_records_wait_as_many_are_told_as_an_independent_reader_counts() {
    let handler = Handler::start(|_| Answer::fail(503, "down"));
    let mut scene = Scene::with_source("waiting", &["30m"], PARTITIONS);
    scene.handler = handler.url().to_owned();
    scene.ask_for(Hops::AtLeastOnce);
    let config = scene.set_up();
    let written: Vec<NewRecord> = (0..RECORDS).map(|n| records::plain(n, PARTITIONS)).collect();
    RawProducer::new(&scene.brokers).write(&scene.source, &written);
    let mut kladder = Kladder::run(&config);
    clock::eventually("all wait", PATIENCE, || {
        kladder.assert_running();
        scene.metric("kladder_hops_total", "tier=\"30m\"") == Some(as_f64(RECORDS))
    });
    let seen = independent::observe(&scene, &handler);
    assert_eq!(seen.tiers[0].len(), RECORDS);
    // Partitions whose heads wait for long are paused, and their ends queried now and then.
    clock::eventually("as many are told to wait", PATIENCE, || {
        scene.metric("kladder_tier_waiting_records", "tier=\"30m\"") == Some(as_f64(seen.tiers[0].len()))
    });
    for zero in ["kladder_tier_due_records", "kladder_tier_left_total", "kladder_tier_oldest_overdue_seconds"] {
        assert_eq!(scene.metric(zero, "tier=\"30m\""), Some(0.0), "{zero}");
    }
}

#[test]
fn what_is_behind_while_the_ladder_is_held_is_told_as_lag() {
    let handler = Handler::start(|_| Answer::ok());
    let mut scene = Scene::with_source("lag", &["1s"], PARTITIONS);
    scene.handler = handler.url().to_owned();
    let config = scene.set_up();
    process::kladder(&["hold", "-c", path(&config), "--why", "a test"]).succeeds();
    let mut kladder = Kladder::run(&config);
    clock::eventually("it is held", PATIENCE, || scene.metric("kladder_held", "") == Some(1.0));
    let written: Vec<NewRecord> = (0..RECORDS).map(|n| records::plain(n, PARTITIONS)).collect();
    RawProducer::new(&scene.brokers).write(&scene.source, &written);
    let source = format!("topic=\"{}\"", scene.source);
    clock::eventually("the lag is told", PATIENCE, || {
        kladder.assert_running();
        scene.metric("kladder_consumer_lag_records", &source) == Some(as_f64(RECORDS))
    });
    assert_eq!(handler.count(), 0);
}

#[test]
fn a_redrive_is_told_while_it_runs() {
    let is_mended = Arc::new(AtomicBool::new(false));
    let mended = is_mended.clone();
    let answer = move |_: &Call| if mended.load(Ordering::Acquire) { Answer::ok() } else { Answer::fail(422, "no such order") };
    let handler = Handler::start(answer);
    let mut scene = Scene::with_source("redriving", &["1s"], 1);
    scene.handler = handler.url().to_owned();
    let config = scene.set_up();
    let written: Vec<NewRecord> = (0..40).map(|n| records::plain(n, 1)).collect();
    RawProducer::new(&scene.brokers).write(&scene.source, &written);
    let mut kladder = Kladder::run(&config);
    clock::eventually("dead letters are counted", PATIENCE, || {
        kladder.assert_running();
        scene.metric("kladder_dlq_open_records", "") == Some(40.0)
    });
    is_mended.store(true, Ordering::Release);

    let arguments = ["dlq", "redrive", "-c", path(&config), "--all", "--rate", "2", "--yes"];
    let redrive = std::thread::scope(|scope| {
        let redrive = scope.spawn(|| process::kladder(&arguments));
        let figure = |name: &str| scene.metric(name, "");
        clock::eventually("the job is told, with what it has sent and what is left", PATIENCE, || {
            let (sent, left) = (figure("kladder_redrive_sent_records"), figure("kladder_redrive_left_records"));
            let is_so = |(sent, left): (f64, f64)| sent >= 1.0 && (sent + left - 40.0).abs() < 0.5;
            figure("kladder_redrive_jobs") == Some(1.0) && sent.zip(left).is_some_and(is_so)
        });
        redrive.join().expect("it ends")
    });
    redrive.succeeds();
    for gauge in ["kladder_redrive_jobs", "kladder_redrive_sent_records", "kladder_redrive_left_records"] {
        clock::eventually(gauge, PATIENCE, || scene.metric(gauge, "") == Some(0.0));
    }
}

#[test]
fn a_setting_that_was_changed_is_drift() {
    let handler = Handler::start(|_| Answer::ok());
    let mut scene = Scene::with_source("drift", &["1s"], 1);
    scene.handler = handler.url().to_owned();
    let config = scene.set_up();
    broker::alter_topic(&scene.tier_topic("1s"), "retention.ms=3600000");
    let _kladder = Kladder::run(&config);
    clock::eventually("one difference is told", PATIENCE, || scene.metric("kladder_topology_drift", "") == Some(1.0));
}

#[test]
fn a_transaction_that_stays_open_is_told_as_a_stall_until_it_ends() {
    let handler = Handler::start(|_| Answer::ok());
    let mut scene = Scene::with_source("stall", &["1s"], 1);
    scene.handler = handler.url().to_owned();
    let config = scene.set_up();
    let _kladder = Kladder::run(&config);
    let stall = || scene.metric("kladder_last_stable_offset_stall_seconds", "");
    clock::eventually("nothing stalls", PATIENCE, || stall() == Some(0.0));

    let id = format!("{}.open", scene.ladder);
    let properties = [("transactional.id", id.as_str()), ("transaction.timeout.ms", "600000")];
    let producer = RawProducer::with(&scene.brokers, &properties);
    producer.transactions().init_transactions(PATIENCE).expect("transactions");
    producer.transactions().begin_transaction().expect("a transaction");
    producer.write(&scene.source, &[records::plain(0, 1)]);
    clock::eventually("the stall is told", PATIENCE * 2, || stall().is_some_and(|seconds| seconds > 0.0));
    assert_eq!(handler.count(), 0, "what is not committed is not delivered");

    producer.transactions().commit_transaction(PATIENCE).expect("a commit");
    clock::eventually("nothing stalls any more", PATIENCE, || stall() == Some(0.0));
    clock::eventually("the record is delivered", PATIENCE, || handler.count() == 1);
}

fn as_f64(count: usize) -> f64 {
    f64::from(u32::try_from(count).expect("a small number"))
}

//! Workers that join and leave: one continues where another stopped, and no record is delivered twice.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::broker;
use crate::support::checker::{self, FAILURE, Hops};
use crate::support::clock::{self, PATIENCE};
use crate::support::handler::{Answer, Handler};
use crate::support::independent;
use crate::support::load;
use crate::support::process::Kladder;
use crate::support::raw::RawProducer;
use crate::support::records;
use crate::support::rude::{Pieces, RudeHandler};
use crate::support::scene::{self, Scene};

const PARTITIONS: i32 = 6;

fn failures(number: usize) -> u32 {
    [0, 1, 0, 2, u32::MAX, 1][number % 6]
}

#[test]
fn workers_that_join_and_leave_under_load_double_nothing_and_ask_nobody_twice() {
    let handler = Handler::start(|call| {
        let fails = call.attempt <= failures(load::number_of(call, PARTITIONS));
        let answer = if fails { Answer::fail(503, FAILURE) } else { Answer::ok() };
        answer.after(Duration::from_millis(20))
    });
    let mut scene = Scene::with_source("rebalance", &["500ms", "1s", "2s"], PARTITIONS);
    scene.handler = handler.url().to_owned();
    scene.max_in_flight = 16;
    scene.set_up();
    let (first_config, first_health) = scene.write_worker("first");
    let (second_config, second_health) = scene.write_worker("second");
    let delivers = |worker: &str, health: u16| {
        let before = scene::metric_at(health, "kladder_deliveries_total", "").unwrap_or(0.0);
        clock::eventually(&format!("the {worker} worker delivers"), PATIENCE, || {
            scene::metric_at(health, "kladder_deliveries_total", "").is_some_and(|now| now > before + 20.0)
        });
    };

    let (mut last, sent) = load::under_load(&scene, PARTITIONS, Duration::from_millis(40), || {
        let mut first = Kladder::run(&first_config);
        delivers("first", first_health);
        let second = Kladder::run(&second_config);
        delivers("second", second_health);
        delivers("first", first_health);
        assert_eq!(first.terminate(PATIENCE).code(), Some(0), "its log:\n{}", first.log());
        // With the same name, so that it gets the partitions still reserved for it.
        let mut first = Kladder::run(&first_config);
        delivers("first", first_health);
        delivers("second", second_health);
        assert_eq!(first.terminate(PATIENCE).code(), Some(0), "its log:\n{}", first.log());
        second
    });
    // Now it stays away: its partitions are reserved until its session expires, and then go to the other
    // one.
    let shape = scene.shape();
    let planned: usize = (0..sent).map(|n| usize::try_from(shape.calls(failures(n))).expect("a small number")).sum();
    clock::eventually("every record is done or dead", PATIENCE, || {
        last.assert_running();
        handler.count() >= planned
            && broker::lag(&scene.group, &scene.redeliver_topic()) == 0
            && broker::lag(&scene.group, &scene.source) == 0
            && scene.tiers.iter().all(|tier| broker::lag(&scene.mover_group(), &scene.tier_topic(tier)) == 0)
    });
    assert_eq!(last.terminate(PATIENCE).code(), Some(0), "its log:\n{}", last.log());

    let observed = independent::observe(&scene, &handler);
    assert_eq!(observed.source.len(), sent);
    let report = checker::check(&shape, Hops::ExactlyOnce, &observed, failures);
    report.assert_no_faults();
    assert_eq!(report.extra_calls, 0, "deliveries were repeated although every worker had time to finish");
}

#[test]
fn a_connection_lost_while_other_partitions_are_given_away_is_a_failed_attempt() {
    const RECORDS: usize = 8;
    let hang_up = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&hang_up);
    let calls = Mutex::new(BTreeMap::<(i32, i64), u32>::new());
    // The first calls hang until the handler drops them all. Their records are then delivered alone, and dropped once more.
    let handler = RudeHandler::start(move |asked| {
        let times = {
            let mut calls = calls.lock().expect("nobody panicked");
            let times = calls.entry((asked.partition, asked.offset)).or_default();
            *times += 1;
            *times
        };
        if asked.attempt > 1 || times > 2 {
            return Pieces::answer("200 OK", "");
        }
        clock::poll(Duration::from_secs(25), || told.load(Ordering::SeqCst).then_some(()));
        Pieces::none()
    });
    let mut scene = Scene::with_source("lost-giving", &["500ms"], 4);
    // With one partition of redeliver, some of the source must stay with the first worker.
    scene.settings += "\ntopics.partitions = 1";
    scene.handler = handler.url().to_owned();
    scene.timeout = "30s";
    scene.drain = "30s";
    scene.set_up();
    let (first_config, first_health) = scene.write_worker("first");
    let (second_config, _) = scene.write_worker("second");
    RawProducer::new(&scene.brokers).write(&scene.source, &(0..RECORDS).map(|n| records::plain(n, 4)).collect::<Vec<_>>());

    let mut first = Kladder::run(&first_config);
    clock::eventually("all are in the handler's hands", PATIENCE, || handler.asked().len() == RECORDS);
    let rebalances = || scene::metric_at(first_health, "kladder_rebalances_total", "deliverer").unwrap_or(0.0);
    let before = rebalances();
    let mut second = Kladder::run(&second_config);
    clock::eventually("the first worker is asked to give some away", PATIENCE, || rebalances() > before);
    hang_up.store(true, Ordering::SeqCst);

    clock::eventually("every record is done", PATIENCE, || {
        first.assert_running();
        second.assert_running();
        broker::lag(&scene.group, &scene.source) == 0 && broker::lag(&scene.group, &scene.redeliver_topic()) == 0
    });
    // For partitions that stayed it was a failed attempt; for revoked ones it was not, though the next owner may lose the connection,
    // too.
    let attempts = |partition: i32, offset: i64| -> Vec<u32> {
        handler.asked().iter().filter(|a| (a.partition, a.offset) == (partition, offset)).map(|a| a.attempt).collect()
    };
    for (partition, offset) in (0..4).flat_map(|partition| [(partition, 0), (partition, 1)]) {
        clock::eventually("it was asked for until it was answered", PATIENCE, || attempts(partition, offset).len() > 2);
        let attempts = attempts(partition, offset);
        assert!(
            matches!(attempts.as_slice(), [1, 1, 1 | 2] | [1, 1, 1, 2]),
            "partition {partition}, offset {offset}: {attempts:?}"
        );
    }
    let asked = handler.asked();
    assert!(asked.iter().any(|a| a.attempt == 2), "no partition stayed with the first worker: {asked:?}");
}

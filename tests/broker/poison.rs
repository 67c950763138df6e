//! A record on which kladder itself dies: identified by the deaths, at no cost for other records.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use crate::support::broker;
use crate::support::clock::{self, PATIENCE};
use crate::support::handler::{Answer, ClosedPort, Handler};
use crate::support::load;
use crate::support::process::Kladder;
use crate::support::raw::RawProducer;
use crate::support::records;
use crate::support::scene::Scene;

const PARTITIONS: i32 = 3;
const RECORDS: usize = 60;
/// Two of them, in different partitions, so that one kills while the other waits for its turn.
const DEADLY: [usize; 2] = [13, 29];

#[test]
fn a_record_on_which_the_sidecar_dies_ends_in_the_dlq_and_the_others_are_done() {
    let worker = Arc::new(AtomicU32::new(0));
    let victim = worker.clone();
    let handler = Handler::start(move |call| {
        if DEADLY.contains(&load::number_of(call, PARTITIONS)) {
            let id = victim.swap(0, Ordering::AcqRel);
            // The worker may be dead already, killed by the other one.
            if id != 0 {
                assert!(Command::new("kill").args(["-9", &id.to_string()]).status().expect("kill").success());
            }
        }
        Answer::ok().after(Duration::from_millis(5))
    });
    let mut scene = Scene::with_source("poison", &["500ms"], PARTITIONS);
    scene.handler = handler.url().to_owned();
    scene.max_in_flight = 8;
    let config = scene.set_up();
    let all: Vec<_> = (0..RECORDS).map(|n| records::plain(n, PARTITIONS)).collect();
    RawProducer::new(&scene.brokers).write(&scene.source, &all);

    let mut deaths = 0;
    let mut kladder = loop {
        let mut kladder = Kladder::run(&config);
        worker.store(kladder.id(), Ordering::Release);
        let mut died = false;
        clock::eventually("it dies, or all is done", PATIENCE, || {
            died = kladder.ended(Duration::ZERO).is_some();
            died || broker::lag(&scene.group, &scene.source) == 0
        });
        if !died {
            break kladder;
        }
        deaths += 1;
        // A call that the dead worker made must not kill the next one, if the handler gets to it late.
        let mut before = usize::MAX;
        clock::eventually("the handler has nothing in hand", PATIENCE, || {
            clock::pause(Duration::from_millis(100));
            std::mem::replace(&mut before, handler.count()) == handler.count()
        });
        // Five for each, and at first three until it is identified, once for each record that it was hidden behind.
        assert!(deaths < 40, "it dies for ever; its log:\n{}", kladder.log());
    };
    kladder.assert_running();
    println!("{deaths} deaths, {} calls for {RECORDS} records", handler.count());

    let dead = broker::read(&scene.dlq_topic());
    let mut numbers: Vec<usize> =
        dead.iter().map(|record| records::number_of(record.text(records::ID).expect("an id")).expect("a number")).collect();
    numbers.sort_unstable();
    for record in &dead {
        assert_eq!(record.text("kladder-reason"), Some("poison"));
        assert_eq!(record.text("kladder-error-class"), Some("worker-died"));
    }
    let calls = handler.calls();
    let times = |number: usize| calls.iter().filter(|call| load::number_of(call, PARTITIONS) == number).count();
    for number in (0..RECORDS).filter(|number| !DEADLY.contains(number)) {
        assert!(times(number) > 0, "record {number} was never delivered");
    }
    assert_eq!(dead.len(), DEADLY.len(), "dead letters: {numbers:?}");
    let beyond = calls.len() - (RECORDS - DEADLY.len());
    let bound = deaths * (scene.max_in_flight + scene.max_unsettled);
    assert!(beyond <= bound, "{beyond} calls beyond the plan, at most {bound} are excused");
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
}

#[test]
fn a_worker_that_ends_in_good_order_counts_nothing_against_the_record_it_leaves() {
    // The first record hangs, so it stays the first for the next owner.
    let hangs = Arc::new(AtomicBool::new(true));
    let still = hangs.clone();
    let handler = Handler::start(move |_| {
        let answer = Answer::ok();
        if still.load(Ordering::Acquire) { answer.after(Duration::from_secs(30)) } else { answer }
    });
    let mut scene = Scene::with_source("no-poison", &["500ms"], 1);
    scene.handler = handler.url().to_owned();
    scene.drain = "100ms";
    scene.timeout = "60s";
    let config = scene.set_up();
    RawProducer::new(&scene.brokers).write(&scene.source, &[records::plain(0, 1)]);
    for restart in 1..=8 {
        let mut kladder = Kladder::run(&config);
        clock::eventually("the record is counted", PATIENCE, || {
            broker::committed(&scene.group, &scene.source, 0) == (Some(0), "v1;;starts=1".to_owned())
        });
        assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
        assert_eq!(broker::committed(&scene.group, &scene.source, 0), (Some(0), String::new()), "after restart {restart}");
    }
    hangs.store(false, Ordering::Release);
    let _kladder = Kladder::run(&config);
    clock::eventually("it is delivered in the end", PATIENCE, || broker::lag(&scene.group, &scene.source) == 0);
    assert!(broker::read(&scene.dlq_topic()).is_empty());
}

#[test]
fn a_record_that_was_never_called_is_not_buried_however_often_its_worker_is_killed() {
    // Nothing listens, so no handler has ever seen it.
    let port = ClosedPort::reserve();
    let mut scene = Scene::with_source("uncalled", &["500ms"], 1);
    scene.handler = port.url();
    // It is killed while its breaker is open.
    scene.breaker = "open_for = \"1s\"";
    let config = scene.set_up();
    RawProducer::new(&scene.brokers).write(&scene.source, &[records::plain(0, 1)]);
    for _ in 0..7 {
        let kladder = Kladder::run(&config);
        clock::eventually("the breaker opens", PATIENCE, || scene.metric("kladder_breaker_state", "") == Some(2.0));
        kladder.kill_dash_nine();
    }
    let handler = port.open(|_| Answer::ok());
    let mut kladder = Kladder::run(&config);
    clock::eventually("it is delivered in the end", PATIENCE, || broker::lag(&scene.group, &scene.source) == 0);
    assert_eq!(handler.count(), 1);
    assert!(broker::read(&scene.dlq_topic()).is_empty());
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
}

//! The DLQ breaker: when most records would become dead letters, they wait, and none is lost or duplicated.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::broker;
use crate::support::clock::{self, PATIENCE};
use crate::support::handler::{Answer, Handler};
use crate::support::load;
use crate::support::process::{self, Kladder};
use crate::support::raw::{RawProducer, Record};
use crate::support::records;
use crate::support::scene::{Scene, path};

const PARTITIONS: i32 = 3;
/// This many dead letters open it in these tests; the last of them is already held.
const MINIMUM: usize = 20;
const BREAKER: &str = "minimum = 20\nhold_for = \"1h\"";

fn scene(theme: &str, tiers: &[&'static str], handler: &Handler) -> Scene {
    let mut scene = Scene::with_source(theme, tiers, PARTITIONS);
    handler.url().clone_into(&mut scene.handler);
    scene.dlq_breaker = BREAKER;
    scene
}

fn write(scene: &Scene, records: usize) {
    let all: Vec<_> = (0..records).map(|n| records::plain(n, PARTITIONS)).collect();
    RawProducer::new(&scene.brokers).write(&scene.source, &all);
}

/// The number of records that the worker has held.
fn held(scene: &Scene) -> Option<usize> {
    scene.metric("kladder_dead_letters_held_total", "").map(|count| format!("{count:.0}").parse().expect("a count"))
}

/// How often each record is in a topic.
fn numbers(records: &[Record]) -> BTreeMap<usize, usize> {
    let mut times = BTreeMap::new();
    for record in records {
        let number = records::number_of(record.text(records::ID).expect("an id")).expect("a number");
        *times.entry(number).or_default() += 1;
    }
    times
}

#[test]
fn an_outage_of_what_the_handler_needs_waits_and_does_not_pour_into_the_dlq() {
    const RECORDS: usize = 200;
    let mended = Arc::new(AtomicBool::new(false));
    let works = mended.clone();
    let handler = Handler::start(move |_| if works.load(Ordering::Acquire) { Answer::ok() } else { Answer::fail(422, "no") });
    let scene = scene("dlq-breaker", &["500ms", "1s"], &handler);
    let config = scene.set_up();
    // Deliverer and mover are separate processes: what one finds, the other obeys.
    let (other, _) = scene.write_worker("worker-2");
    let mut deliverer = Kladder::start(&["run", "-c", path(&config), "--role", "deliverer"], &config.with_extension("log"));
    let mut mover = Kladder::start(&["run", "-c", path(&other), "--role", "mover"], &other.with_extension("log"));
    clock::eventually("the mover has joined", PATIENCE, || mover.log().contains("partitions assigned"));
    write(&scene, RECORDS);
    clock::eventually("all have been delivered once", PATIENCE, || handler.count() == RECORDS);
    clock::eventually("they are held", PATIENCE, || held(&scene) == Some(RECORDS - MINIMUM + 1));
    // A few rounds through the largest tier: the handler is not called meanwhile.
    clock::eventually("they wait on", PATIENCE, || broker::read(&scene.tier_topic("1s")).len() > RECORDS * 3);
    assert_eq!(handler.count(), RECORDS, "no handler is called for what is held");
    assert!(broker::read(&scene.redeliver_topic()).is_empty());
    let dead = numbers(&broker::read(&scene.dlq_topic()));
    assert_eq!(dead.len(), MINIMUM - 1);
    for held in broker::read(&scene.tier_topic("1s")) {
        assert_eq!((held.text("kladder-held"), held.text("kladder-attempts")), (Some("1"), Some("0")));
        assert_eq!((held.text("kladder-error-status"), held.text("kladder-reason")), (Some("422"), None));
    }
    assert_eq!(scene.metric("kladder_dlq_breaker_open", ""), Some(1.0));
    let (code, ready) = scene.get("/readyz").expect("an answer");
    assert!(
        code == 200 && ready.contains("DLQ breaker of") && ready.contains("dead letters wait in the largest tier"),
        "{ready}"
    );
    let status = process::kladder(&["status", "-c", path(&config)]).succeeds().stdout;
    assert!(status.contains("DEAD LETTERS HELD for"), "{status}");

    mended.store(true, Ordering::Release);
    let resumed = process::kladder(&["resume", "-c", path(&config), "--why", "the account service is back"]).succeeds();
    assert!(resumed.stderr.contains("are released"), "{resumed}");
    clock::eventually("all are done", PATIENCE, || handler.count() == 2 * RECORDS - (MINIMUM - 1));
    clock::eventually("nothing is left", PATIENCE, || broker::lag(&scene.group, &scene.redeliver_topic()) == 0);
    let back = numbers(&broker::read(&scene.redeliver_topic()));
    assert_eq!(numbers(&broker::read(&scene.dlq_topic())), dead, "no further dead letter");
    for number in 0..RECORDS {
        let times = back.get(&number).copied().unwrap_or(0) + dead.get(&number).copied().unwrap_or(0);
        assert_eq!(times, 1, "record {number}");
    }
    assert!(handler.calls().iter().all(|call| call.attempt == 1), "no attempt is burned");
    let again = process::kladder(&["resume", "-c", path(&config)]).succeeds();
    assert!(!again.stderr.contains("released"), "{again}");
    assert!(mover.log().contains("dead letters are released"), "{}", mover.log());
    assert_eq!(scene.metric("kladder_dlq_breaker_open", ""), Some(0.0));
    assert_eq!(deliverer.terminate(PATIENCE).code(), Some(0), "its log:\n{}", deliverer.log());
    assert_eq!(mover.terminate(PATIENCE).code(), Some(0), "its log:\n{}", mover.log());
}

#[test]
fn an_application_that_rejects_much_by_right_is_held_up_no_longer_once_that_is_said() {
    const RECORDS: usize = 400;
    // Three of five are always rejected.
    let is_rejected = |number: usize| number % 5 < 3;
    let handler = Handler::start(move |call| {
        let answer =
            if is_rejected(load::number_of(call, PARTITIONS)) { Answer::fail(422, "no such customer") } else { Answer::ok() };
        answer.after(Duration::from_millis(10))
    });
    let mut scene = scene("dlq-breaker-rejects", &["500ms", "1s"], &handler);
    scene.dlq_breaker = "minimum = 20\nhold_for = \"3s\"";
    scene.max_in_flight = 4;
    let config = scene.set_up();
    let mut kladder = Kladder::run(&config);
    write(&scene, RECORDS);
    // It opens, closes, and opens again: each time after at most the configured number.
    let openings = |log: &str| log.matches("DLQ breaker is open").count();
    clock::eventually("it has opened three times", PATIENCE, || openings(&kladder.log()) >= 3);
    let dead = broker::read(&scene.dlq_topic()).len();
    let opened = openings(&kladder.log());
    assert!(dead <= (opened + 1) * (MINIMUM - 1), "{dead} dead letters although it opened {opened} times");

    let said = ["resume", "-c", path(&config), "--accept-dead-letters", "1h", "--why", "they are none of our customers"];
    let accepted = process::kladder(&said).succeeds();
    assert!(accepted.stderr.contains("are accepted for 1h"), "{accepted}");
    let rejected = (0..RECORDS).filter(|number| is_rejected(*number)).count();
    clock::eventually("all that is rejected is dead", PATIENCE, || broker::read(&scene.dlq_topic()).len() >= rejected);
    clock::eventually("nothing is left", PATIENCE, || {
        broker::lag(&scene.group, &scene.source) == 0 && broker::lag(&scene.group, &scene.redeliver_topic()) == 0
    });
    let dead = numbers(&broker::read(&scene.dlq_topic()));
    assert!(dead.len() == rejected && dead.values().all(|times| *times == 1), "{dead:?}");
    assert_eq!(scene.metric("kladder_dlq_breaker_open", ""), Some(0.0));
    let status = process::kladder(&["status", "-c", path(&config)]).succeeds().stdout;
    assert!(status.contains("dead letters are accepted for ") && status.contains("they are none of our customers"), "{status}");
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
}

#[test]
fn killed_while_it_holds_it_loses_and_doubles_nothing() {
    const RECORDS: usize = 240;
    const KILLS: usize = 3;
    let mended = Arc::new(AtomicBool::new(false));
    let works = mended.clone();
    let handler = Handler::start(move |_| {
        let answer = if works.load(Ordering::Acquire) { Answer::ok() } else { Answer::fail(503, "down") };
        answer.after(Duration::from_millis(5))
    });
    let mut scene = scene("dlq-breaker-kill", &["500ms", "1s"], &handler);
    scene.max_in_flight = 16;
    let config = scene.set_up();
    write(&scene, RECORDS);
    let held = || broker::read(&scene.tier_topic("1s")).iter().filter(|record| record.text("kladder-held").is_some()).count();
    for kill in 1..=KILLS {
        let kladder = Kladder::run(&config);
        clock::eventually("some are held", PATIENCE, || held() > kill * 40);
        // A worker's counts are lost when it is killed; that letters are held is in the state topic.
        clock::eventually("it is on record", PATIENCE, || {
            process::kladder(&["status", "-c", path(&config)]).succeeds().stdout.contains("DEAD LETTERS HELD for")
        });
        kladder.kill_dash_nine();
    }
    let mut kladder = Kladder::run(&config);
    clock::eventually("all are held or dead", PATIENCE, || {
        let topic = broker::read(&scene.tier_topic("1s"));
        let held: Vec<Record> = topic.into_iter().filter(|record| record.text("kladder-held").is_some()).collect();
        numbers(&held).len() + broker::read(&scene.dlq_topic()).len() == RECORDS
    });
    let dead = numbers(&broker::read(&scene.dlq_topic()));
    assert_eq!(dead.len(), MINIMUM - 1);
    mended.store(true, Ordering::Release);
    process::kladder(&["resume", "-c", path(&config)]).succeeds();
    clock::eventually("nothing is left", PATIENCE, || {
        let back = broker::read(&scene.redeliver_topic());
        let last: Vec<Record> = back.into_iter().filter(|record| record.text("kladder-held").is_some()).collect();
        last.len() == RECORDS - dead.len() && broker::lag(&scene.group, &scene.redeliver_topic()) == 0
    });
    assert_eq!(numbers(&broker::read(&scene.dlq_topic())), dead);
    assert!(dead.values().all(|times| *times == 1), "{dead:?}");
    let back = broker::read(&scene.redeliver_topic());
    let last: Vec<Record> = back.into_iter().filter(|record| record.text("kladder-held").is_some()).collect();
    let let_go = numbers(&last);
    assert!(let_go.values().all(|times| *times == 1) && let_go.keys().all(|number| !dead.contains_key(number)), "{let_go:?}");
    for record in &last {
        assert_eq!(record.text("kladder-attempts"), Some("2"), "the third attempt is the one to be made again");
    }
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
}

#[test]
fn a_few_bad_records_among_many_are_dead_letters_at_once() {
    const RECORDS: usize = 300;
    let handler = Handler::start(|call| match load::number_of(call, PARTITIONS) % 5 {
        0 => Answer::fail(422, "no"),
        _ => Answer::ok(),
    });
    let scene = scene("dlq-breaker-few", &["500ms"], &handler);
    let config = scene.set_up();
    write(&scene, RECORDS);
    let _kladder = Kladder::run(&config);
    clock::eventually("all are done or dead", PATIENCE, || {
        broker::lag(&scene.group, &scene.source) == 0 && broker::read(&scene.dlq_topic()).len() == RECORDS / 5
    });
    // Their number is sufficient, but not their share.
    const { assert!(RECORDS / 5 > 2 * MINIMUM) };
    assert!(broker::read(&scene.tier_topic("500ms")).is_empty());
    assert_eq!(scene.metric("kladder_dlq_breaker_open", ""), Some(0.0));
}

#[test]
fn a_relay_ladder_holds_them_too_and_lets_them_go_after_the_time() {
    const RECORDS: usize = 60;
    let mut scene = Scene::of_relay("dlq-breaker-relay", &["500ms", "1s"], PARTITIONS);
    scene.settings.push_str("\nattempts = 1");
    scene.dlq_breaker = "minimum = 20\nhold_for = \"8s\"";
    let config = scene.set_up();
    let _kladder = Kladder::run(&config);
    let all: Vec<_> = (0..RECORDS).map(|n| records::plain(n, PARTITIONS)).collect();
    RawProducer::new(&scene.brokers).write(&scene.inbox_topic(), &all);
    clock::eventually("they are held", PATIENCE, || held(&scene) == Some(RECORDS - MINIMUM + 1));
    assert!(broker::read(&scene.redeliver_topic()).is_empty(), "the application is not bothered");
    clock::eventually("they are released", PATIENCE, || broker::read(&scene.redeliver_topic()).len() == RECORDS - MINIMUM + 1);
    let (dead, back) = (numbers(&broker::read(&scene.dlq_topic())), numbers(&broker::read(&scene.redeliver_topic())));
    assert_eq!(dead.len(), MINIMUM - 1);
    assert_eq!((0..RECORDS).filter(|number| dead.contains_key(number) != back.contains_key(number)).count(), RECORDS);
    for record in broker::read(&scene.redeliver_topic()) {
        assert_eq!((record.text("kladder-attempts"), record.text("kladder-held")), (Some("0"), Some("1")));
    }
    assert_eq!(scene.metric("kladder_dlq_breaker_open", ""), Some(0.0));
}

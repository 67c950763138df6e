//! Batches for the handler: what fails in one, and what fails one as a whole.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::broker;
use crate::support::checker::Hops;
use crate::support::clock::{self, PATIENCE};
use crate::support::handler::{Answer, Call, Handler};
use crate::support::process::Kladder;
use crate::support::raw::{NewRecord, RawProducer, Record};
use crate::support::records;
use crate::support::scene::Scene;

const PARTITIONS: i32 = 3;
const RECORDS: usize = 300;

/// The events of a batch.
fn events(call: &Call) -> Vec<Value> {
    let batch: Vec<Value> = serde_json::from_slice(&call.body).expect("a batch of events");
    assert_eq!(call.header("kladder-batch"), Some(batch.len().to_string().as_str()));
    batch
}

/// The number of a record, from its headers.
fn number_of(event: &Value) -> usize {
    let headers: Vec<(String, String)> = serde_json::from_str(event["kladderheaders"].as_str().expect("headers")).expect("text");
    let id = headers.iter().find(|(name, _)| name == records::ID).expect("an id");
    records::number_of(&id.1).expect("a number")
}

fn attempt_of(event: &Value) -> u64 {
    event["kladderattempt"].as_u64().expect("a number")
}

/// How often each record was delivered at each attempt.
type Seen = Arc<Mutex<BTreeMap<(usize, u64), usize>>>;

fn scene_of(theme: &str, handler: &Handler) -> Scene {
    let mut scene = Scene::with_source(theme, &["500ms"], PARTITIONS);
    handler.url().clone_into(&mut scene.handler);
    scene.max_in_flight = 4;
    scene.handler_settings = "batch = { max = 50, wait = \"50ms\" }";
    scene
}

fn write(scene: &Scene) {
    let all: Vec<NewRecord> = (0..RECORDS).map(|n| records::plain(n, PARTITIONS)).collect();
    RawProducer::new(&scene.brokers).write(&scene.source, &all);
}

fn await_all(scene: &Scene, kladder: &mut Kladder, dead: usize) -> Vec<Record> {
    clock::eventually("every record is done or dead", PATIENCE, || {
        kladder.assert_running();
        broker::read(&scene.dlq_topic()).len() >= dead
            && broker::lag(&scene.group, &scene.source) == 0
            && broker::lag(&scene.group, &scene.redeliver_topic()) == 0
    });
    broker::read(&scene.dlq_topic())
}

/// One in ten fails at its first attempt, number 7 always, number 8 is rejected.
fn some_fail(hops: Hops, theme: &str) {
    let seen = Seen::default();
    let noted = seen.clone();
    let handler = Handler::start(move |call| {
        let mut failures = Vec::new();
        for event in events(call) {
            let (number, attempt) = (number_of(&event), attempt_of(&event));
            *noted.lock().expect("a lock").entry((number, attempt)).or_default() += 1;
            let failure = match number {
                8 => json!({"id": event["id"], "verdict": "reject", "error_class": "Broken"}),
                7 => json!({"id": event["id"], "error_class": "Busy", "error_message": "no stock"}),
                n if n % 10 == 0 && attempt == 1 => json!({"id": event["id"]}),
                _ => continue,
            };
            failures.push(failure);
        }
        Answer::fail(200, &json!({"failures": failures}).to_string())
    });
    let mut scene = scene_of(theme, &handler);
    scene.ask_for(hops);
    let config = scene.set_up();
    write(&scene);
    let mut kladder = Kladder::run(&config);
    let dead = await_all(&scene, &mut kladder, 2);
    let mut told: Vec<_> = dead
        .iter()
        .map(|r| {
            [records::ID, "kladder-reason", "kladder-error-class", "kladder-attempts"]
                .map(|name| r.text(name).unwrap_or_default())
        })
        .collect();
    told.sort_unstable();
    assert_eq!(told, [["r-7", "exhausted", "Busy", "2"], ["r-8", "rejected", "Broken", "1"]]);
    let seen = seen.lock().expect("a lock").clone();
    for number in 0..RECORDS {
        let again = usize::from(number == 7 || number % 10 == 0);
        assert_eq!(seen.get(&(number, 1)), Some(&1), "record {number}");
        assert_eq!(seen.get(&(number, 2)).copied().unwrap_or(0), again, "record {number}");
    }
    assert!(handler.count() < RECORDS / 5, "{} requests", handler.count());
    let requests = f64::from(u32::try_from(handler.count()).expect("few"));
    assert_eq!(scene.metric("kladder_batches_total", ""), Some(requests));
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
}

#[test]
fn an_answer_says_what_became_of_each_record() {
    some_fail(Hops::ExactlyOnce, "batches");
}

#[test]
fn at_least_once_the_same() {
    some_fail(Hops::AtLeastOnce, "batches-alo");
}

/// A handler that fails each batch with one of these records in it.
fn one_fails_the_batch(theme: &str, answer: fn() -> Answer, class: &str) {
    const AT_FAULT: [usize; 2] = [17, 140];
    let seen = Seen::default();
    let noted = seen.clone();
    let handler = Handler::start(move |call| {
        let batch = events(call);
        let mut noted = noted.lock().expect("a lock");
        for event in &batch {
            *noted.entry((number_of(event), attempt_of(event))).or_default() += 1;
        }
        if batch.iter().any(|event| AT_FAULT.contains(&number_of(event))) { answer() } else { Answer::ok() }
    });
    let scene = scene_of(theme, &handler);
    let config = scene.set_up();
    write(&scene);
    let mut kladder = Kladder::run(&config);
    let dead = await_all(&scene, &mut kladder, AT_FAULT.len());
    let mut numbers: Vec<usize> =
        dead.iter().map(|r| records::number_of(r.text(records::ID).expect("an id")).expect("a number")).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, AT_FAULT, "its log:\n{}", kladder.log());
    assert!(dead.iter().all(|record| record.text("kladder-error-class") == Some(class)));
    let seen = seen.lock().expect("a lock").clone();
    for number in (0..RECORDS).filter(|number| !AT_FAULT.contains(number)) {
        let (first, second) = (seen.get(&(number, 1)), seen.get(&(number, 2)));
        assert!(first.is_some_and(|calls| *calls <= 12) && second.is_none(), "record {number}: {first:?}, {second:?}");
    }
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
}

#[test]
fn a_record_that_fails_its_batch_is_found_and_costs_the_others_no_attempt() {
    one_fails_the_batch("batches-500", || Answer::fail(500, "cannot"), "HTTP 500");
}

#[test]
fn a_record_for_which_the_batch_is_refused_is_rejected_alone() {
    one_fails_the_batch("batches-400", || Answer::fail(400, "cannot"), "HTTP 400");
}

#[test]
fn an_answer_that_names_a_stranger_counts_nothing_as_done() {
    let answer = || Answer::fail(200, r#"{"failures": [{"id": "a stranger"}]}"#);
    one_fails_the_batch("batches-stranger", answer, "unreadable answer");
}

#[test]
fn killed_in_the_middle_of_batches_it_loses_nothing_and_repeats_a_bounded_number() {
    let seen = Seen::default();
    let noted = seen.clone();
    let handler = Handler::start(move |call| {
        for event in events(call) {
            *noted.lock().expect("a lock").entry((number_of(&event), attempt_of(&event))).or_default() += 1;
        }
        Answer::ok().after(Duration::from_millis(40))
    });
    let mut scene = scene_of("batches-kill", &handler);
    scene.max_in_flight = 2;
    scene.max_unsettled = 20;
    scene.handler_settings = "batch = { max = 10, wait = \"10ms\" }";
    let config = scene.set_up();
    write(&scene);
    let mut kills = 0;
    let mut kladder = Kladder::run(&config);
    for _ in 0..3 {
        let before = handler.count();
        clock::eventually("batches are delivered", PATIENCE, || handler.count() > before + 4);
        kladder.kill_dash_nine();
        kills += 1;
        kladder = Kladder::run(&config);
    }
    await_all(&scene, &mut kladder, 0);
    let seen = seen.lock().expect("a lock").clone();
    assert_eq!(seen.len(), RECORDS, "each was delivered, at its first attempt");
    let repeated: usize = seen.values().map(|calls| calls - 1).sum();
    assert!(repeated <= kills * (2 * 10 + 20), "{repeated} deliveries were repeated");
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
}

#[test]
fn while_another_worker_joins_batches_that_wait_go_back_and_nothing_is_lost() {
    let seen = Seen::default();
    let noted = seen.clone();
    let handler = Handler::start(move |call| {
        for event in events(call) {
            *noted.lock().expect("a lock").entry((number_of(&event), attempt_of(&event))).or_default() += 1;
        }
        Answer::ok().after(Duration::from_millis(100))
    });
    let mut scene = scene_of("batches-join", &handler);
    scene.max_in_flight = 1;
    scene.handler_settings = "batch = { max = 5, wait = \"100ms\" }";
    let config = scene.set_up();
    write(&scene);
    let mut first = Kladder::run(&config);
    clock::eventually("batches are delivered", PATIENCE, || handler.count() > 3);
    let mut second = Kladder::run(&scene.write_worker("worker-2").0);
    await_all(&scene, &mut first, 0);
    let seen = seen.lock().expect("a lock").clone();
    assert_eq!(seen.len(), RECORDS, "each was delivered, at its first attempt");
    assert!(seen.values().all(|calls| *calls == 1), "nothing was repeated: {seen:?}");
    for kladder in [&mut first, &mut second] {
        assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
    }
}

#[test]
fn a_record_that_fails_in_a_batch_is_repeated_in_place_as_often_as_asked_and_no_more() {
    let seen = Seen::default();
    let noted = seen.clone();
    let handler = Handler::start(move |call| {
        let mut failures = Vec::new();
        for event in events(call) {
            *noted.lock().expect("a lock").entry((number_of(&event), attempt_of(&event))).or_default() += 1;
            if number_of(&event) == 7 {
                failures.push(json!({"id": event["id"]}));
            }
        }
        Answer::fail(200, &json!({"failures": failures}).to_string())
    });
    let mut scene = scene_of("batches-immediate", &handler);
    scene.settings.push_str("\nimmediate = { attempts = 2, backoff = \"10ms\" }");
    let config = scene.set_up();
    write(&scene);
    let mut kladder = Kladder::run(&config);
    let dead = await_all(&scene, &mut kladder, 1);
    assert_eq!(dead[0].text("kladder-attempts"), Some("2"));
    let seen = seen.lock().expect("a lock").clone();
    let calls: Vec<usize> = [1, 2].map(|attempt| seen.get(&(7, attempt)).copied().unwrap_or(0)).to_vec();
    assert_eq!(calls, [3, 3], "each attempt once, and twice in place");
    assert!(seen.iter().all(|((number, _), calls)| *number == 7 || *calls == 1));
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
}

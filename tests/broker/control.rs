//! Controls of a running process: quiesce before the application stops, and another log filter; and what the log must never
//! contain.

use std::time::Duration;

use crate::support::broker;
use crate::support::clock::{self, PATIENCE};
use crate::support::handler::{Answer, Call, Handler};
use crate::support::load;
use crate::support::process::Kladder;
use crate::support::raw::{NewRecord, RawProducer};
use crate::support::records;
use crate::support::scene::Scene;

const PARTITIONS: i32 = 3;

fn slow(_: &Call) -> Answer {
    Answer::ok().after(Duration::from_millis(100))
}

/// No record has been moved, and none was delivered twice.
fn assert_no_attempt_was_burned(scene: &Scene, calls: &[Call], sent: usize) {
    assert!(broker::read(&scene.tier_topic(scene.tiers[0])).is_empty(), "an attempt was burned");
    assert!(broker::read(&scene.dlq_topic()).is_empty());
    let mut numbers: Vec<usize> = calls.iter().map(|call| load::number_of(call, PARTITIONS)).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..sent).collect::<Vec<_>>(), "each is delivered once");
}

/// As when a pod stops: the application is quiesced and stopped, then the sidecar.
#[test]
fn an_application_that_is_quiesced_before_it_ends_costs_no_attempt_and_no_record() {
    let handler = Handler::start(slow);
    let mut scene = Scene::with_source("quiesced", &["1s"], PARTITIONS);
    handler.url().clone_into(&mut scene.handler);
    scene.max_in_flight = 16;
    let config = scene.set_up();
    let (mut calls, sent) = load::under_load(&scene, PARTITIONS, Duration::from_millis(20), || {
        let mut kladder = Kladder::run(&config);
        clock::eventually("deliveries are in flight", PATIENCE, || handler.count() > 20);
        let (status, text) = scene.control("POST", "/quiesce?wait=1ms", "").expect("an answer");
        assert!(status == 504 && text.contains("in flight") || (status, text.as_str()) == (200, "quiet\n"), "{status} {text}");
        assert_eq!(scene.control("POST", "/quiesce", ""), Some((200, "quiet\n".to_owned())));
        assert_eq!(handler.open(), 0, "it answers when the last one is over");
        clock::eventually("/readyz tells, and the mover joins all the same", PATIENCE, || {
            scene
                .get("/readyz")
                .is_some_and(|(status, text)| status == 200 && text.contains("quiesced: no delivery is in flight"))
        });
        let before = handler.count();
        clock::pause(Duration::from_secs(1));
        assert_eq!(handler.count(), before, "none begins any more");
        // The application is gone, and new records still arrive.
        let calls = handler.calls();
        drop(handler);
        clock::pause(Duration::from_millis(500));
        assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
        calls
    });
    // The next pod completes the rest.
    let handler = Handler::start(|_| Answer::ok());
    handler.url().clone_into(&mut scene.handler);
    let _kladder = Kladder::run(&scene.write());
    clock::eventually("all are delivered", PATIENCE, || broker::lag(&scene.group, &scene.source) == 0);
    calls.extend(handler.calls());
    assert_no_attempt_was_burned(&scene, &calls, sent);
}

#[test]
fn what_was_quiesced_delivers_again_when_it_is_released() {
    let handler = Handler::start(|_| Answer::ok());
    let mut scene = Scene::with_source("released", &["1s"], 1);
    handler.url().clone_into(&mut scene.handler);
    let config = scene.set_up();
    let _kladder = Kladder::run(&config);
    clock::eventually("it listens", PATIENCE, || scene.control("POST", "/quiesce", "").is_some_and(|(status, _)| status == 200));
    RawProducer::new(&scene.brokers).write(&scene.source, &[records::plain(0, 1)]);
    clock::eventually("it is ready", PATIENCE, || scene.get("/readyz").is_some_and(|(status, _)| status == 200));
    assert_eq!(scene.control("GET", "/quiesce", ""), Some((200, "quiesced: no delivery is in flight\n".to_owned())));
    assert_eq!(handler.count(), 0);
    assert_eq!(scene.control("DELETE", "/quiesce", ""), Some((200, "delivering\n".to_owned())));
    clock::eventually("it is delivered", PATIENCE, || handler.count() == 1);
    for wait in ["soon", "2h", "18446744073709551615s"] {
        let (status, said) = scene.control("POST", &format!("/quiesce?wait={wait}"), "").expect("an answer");
        assert_eq!(status, 400, "{wait}: {said}");
    }
}

/// The other order: the sidecar stops first, as an ordinary container of the pod does.
#[test]
fn a_sidecar_that_ends_before_the_application_loses_nothing() {
    let handler = Handler::start(slow);
    let mut scene = Scene::with_source("sidecar-first", &["1s"], PARTITIONS);
    handler.url().clone_into(&mut scene.handler);
    let config = scene.set_up();
    let ((), sent) = load::under_load(&scene, PARTITIONS, Duration::from_millis(20), || {
        let mut kladder = Kladder::run(&config);
        clock::eventually("deliveries are in flight", PATIENCE, || handler.count() > 20);
        assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
        assert_eq!(handler.open(), 0, "what was under way is over");
    });
    let _kladder = Kladder::run(&config);
    clock::eventually("all are delivered", PATIENCE, || broker::lag(&scene.group, &scene.source) == 0);
    assert_no_attempt_was_burned(&scene, &handler.calls(), sent);
}

#[test]
fn the_log_filter_is_set_in_a_running_process_and_pages_may_not_do_it() {
    let handler = Handler::start(|_| Answer::fail(503, "later"));
    let mut scene = Scene::with_source("log-filter", &["1s", "10m"], 1);
    handler.url().clone_into(&mut scene.handler);
    let config = scene.set_up();
    let kladder = Kladder::run(&config);
    clock::eventually("it listens", PATIENCE, || scene.control("GET", "/log", "") == Some((200, "info\n".to_owned())));
    let producer = RawProducer::new(&scene.brokers);
    producer.write(&scene.source, &[records::plain(0, 1)]);
    clock::eventually("the first is in its last tier", PATIENCE, || handler.count() == 2);
    assert!(!kladder.log().contains("decided"), "its log:\n{}", kladder.log());

    let (status, text) = scene.control("PUT", "/log", "debgu").expect("an answer");
    assert!(status == 400 && text.contains("`debgu` is not a log filter"), "{status} {text}");
    for headers in ["Host: localhost\r\nOrigin: https://evil.example", "Host: evil.example"] {
        assert_eq!(scene.control_with("PUT", "/log", headers, "trace").map(|(status, _)| status), Some(403));
        assert_eq!(scene.control_with("POST", "/quiesce", headers, "").map(|(status, _)| status), Some(403));
    }
    assert_eq!(scene.control("GET", "/log", ""), Some((200, "info\n".to_owned())));

    let filter = "info,kladder=debug";
    assert_eq!(scene.control("PUT", "/log", filter), Some((200, format!("{filter}\n"))));
    producer.write(&scene.source, &[records::plain(1, 1)]);
    clock::eventually("the decision is logged", PATIENCE, || kladder.log().contains("decided"));
}

/// Payloads belong to users; the log goes to whoever collects it.
#[test]
fn no_key_no_value_and_no_header_is_in_the_log_and_each_line_of_json_is_one_document() {
    let handler = Handler::start(|call| match call.offset % 4 {
        0 => Answer::ok(),
        1 => Answer::fail(422, "canary-answer-body"),
        2 => Answer::fail(503, "canary-answer-body"),
        _ => Answer::fail(500, "x").with("Kladder-Verdict", "canary-verdict"),
    });
    let mut scene = Scene::with_source("discreet", &["500ms"], 1);
    handler.url().clone_into(&mut scene.handler);
    let config = scene.set_up();
    let header = |name: &[u8], value: &[u8]| (name.to_vec(), Some(value.to_vec()));
    let record = |number: usize| NewRecord {
        partition: 0,
        key: Some(format!("canary-key-{number}").into_bytes()),
        value: Some(format!("canary-value-{number}").into_bytes()),
        // Some look like kladder's own headers, and cannot be trusted.
        headers: vec![
            header(b"x-user", b"canary-header"),
            header(b"kladder-attempts", b"canary-many"),
            header(b"ce_specversion", b"canary-version"),
        ],
    };
    let all: Vec<NewRecord> = (0..12).map(record).collect();
    let producer = RawProducer::new(&scene.brokers);
    producer.write(&scene.source, &all);
    // They are redelivered with such headers, too.
    producer.write(&scene.redeliver_topic(), &all);
    let log = config.with_extension("json.log");
    let arguments = ["run", "-c", config.to_str().expect("a path"), "--log", "json"];
    let mut kladder = Kladder::start_with(&arguments, &log, &[("KLADDER_LOG", "trace")]);
    clock::eventually("all are over", PATIENCE, || {
        broker::lag(&scene.group, &scene.source) == 0
            && broker::lag(&scene.group, &scene.redeliver_topic()) == 0
            && broker::lag(&scene.mover_group(), &scene.tier_topic(scene.tiers[0])) == 0
            && broker::read(&scene.dlq_topic()).len() >= 18
    });
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
    let text = kladder.log();
    assert!(text.contains("decided") && text.contains("TRACE"), "it is the log of everything");
    for line in text.lines() {
        assert!(!line.contains("canary"), "of a record: {line}");
        let line: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for field in ["timestamp", "level", "target"] {
            assert!(line[field].is_string(), "no {field}: {line}");
        }
    }
}

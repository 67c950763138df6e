//! Logs: no record content at any level, errors logged once, JSON that machines can read, and `kladder log`.

use std::fmt;

use base64::Engine;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use crate::support::broker;
use crate::support::clock::{self, PATIENCE};
use crate::support::handler::{Answer, Handler};
use crate::support::process::{self, Kladder};
use crate::support::raw::{NewRecord, RawProducer};
use crate::support::records;
use crate::support::scene::{Scene, path};

/// The canaries in key, value, headers and in the handler's responses.
const CANARY: &str = "c4n4ry";

/// A JSON object with its keys as written, so that duplicates are found.
struct Line(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Line {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Line;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Line, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Line(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

impl Line {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name)?.1.as_str()
    }

    fn says(&self, level: &str, message: &str) -> bool {
        self.get("level") == Some(level) && self.get("message").is_some_and(|text| text.contains(message))
    }
}

/// Each line of a JSON log: one object with the common fields, none of them twice.
fn lines(log: &str) -> Vec<Line> {
    let read = |text: &str| {
        let line: Line = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        for field in ["timestamp", "level", "target"] {
            assert!(line.get(field).is_some(), "no {field}: {text}");
        }
        // Lines of libraries do not have all fields.
        assert!(
            line.get("message").is_some() || !line.get("target").is_some_and(|t| t.starts_with("kladder")),
            "no message: {text}"
        );
        let mut names: Vec<&String> = line.0.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "a field twice: {text}");
        line
    };
    log.lines().map(read).collect()
}

fn assert_no_canary(log: &str) {
    let encoded = base64::engine::general_purpose::STANDARD.encode(CANARY);
    // Of base64 that starts in the middle, this part does not depend on its neighbours.
    for hidden in [CANARY.to_owned(), encoded, CANARY.to_uppercase(), format!("{:?}", CANARY.as_bytes())] {
        let found = log.lines().find(|line| line.contains(hidden.trim_matches(['[', ']'])));
        assert!(found.is_none(), "something of a record is in the log: {found:?}");
    }
}

/// A record full of canaries, whose value tells the handler what to do.
fn canary(number: usize, what: &str) -> NewRecord {
    let mut record = records::plain(number, 1);
    record.key = Some(format!("key-{CANARY}-{number}").into_bytes());
    record.value = Some(format!("{what} {CANARY}").into_bytes());
    record.headers.push((b"x-secret".to_vec(), Some(format!("header-{CANARY}").into_bytes())));
    record.headers.push((format!("x-{CANARY}").into_bytes(), None));
    record
}

#[test]
fn at_trace_nothing_of_a_record_is_in_the_log_whatever_becomes_of_it() {
    let handler = Handler::start(|call| {
        let body = String::from_utf8_lossy(&call.body);
        let said = format!("cannot handle {body}");
        match body.split(' ').next() {
            Some("retry") if call.attempt == 1 => Answer::fail(503, &said).with("kladder-error-class", "acme.Busy"),
            Some("later") if call.attempt == 1 => Answer::fail(429, &said).with("retry-after", "1"),
            Some("exhaust") => Answer::fail(500, &said),
            Some("reject") => Answer::fail(422, &said),
            Some("verdict") => Answer::ok().with("kladder-verdict", "c4n4ry-is-no-verdict"),
            _ => Answer::ok(),
        }
    });
    let mut scene = Scene::with_source("canary", &["500ms"], 1);
    scene.handler = handler.url().to_owned();
    let config = scene.set_up();
    // Also one that cannot be written anywhere: its partition stops in the end, and the log must not leak it either.
    broker::alter_topic(&scene.dlq_topic(), "max.message.bytes=2000");
    let mut all: Vec<NewRecord> =
        ["done", "retry", "later", "exhaust", "reject", "verdict"].iter().enumerate().map(|(n, what)| canary(n, what)).collect();
    let mut oversize = canary(6, "reject");
    oversize.value = Some(format!("reject {}", CANARY.repeat(2_000)).into_bytes());
    oversize
        .headers
        .push((b"noise".to_vec(), Some((0..60_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect())));
    all.push(oversize);
    let producer = RawProducer::new(&scene.brokers);
    producer.write(&scene.source, &all);
    let mut malformed = canary(7, "done");
    for (name, value) in [("kladder-ladder", scene.ladder.as_str()), ("kladder-v", "1"), ("kladder-attempts", CANARY)] {
        malformed.headers.push((name.into(), Some(value.into())));
    }
    producer.write(&scene.redeliver_topic(), &[malformed]);

    let log = config.with_extension("log");
    let mut kladder = Kladder::start_with(&["run", "-c", path(&config), "--log", "json"], &log, &[("KLADDER_LOG", "trace")]);
    clock::eventually("each has come to its end", PATIENCE, || {
        kladder.assert_running();
        // Done, two records per retry or dead letter, rejected, and the malformed one.
        handler.count() >= 11 && broker::read(&scene.dlq_topic()).len() >= 2
    });
    clock::eventually("the largest one is told of, and tried again", PATIENCE, || {
        kladder.log().contains("record still cannot be written")
    });
    kladder.signal("TERM");
    assert_eq!(kladder.ended(PATIENCE).and_then(|status| status.code()), Some(0), "its log:\n{}", kladder.log());

    let log = kladder.log();
    assert_no_canary(&log);
    let lines = lines(&log);
    let has =
        |level: &str, message: &str| assert!(lines.iter().any(|line| line.says(level, message)), "no {level} {message}:\n{log}");
    has("INFO", "kladder started");
    has("DEBUG", "decided");
    has("TRACE", "hopped");
    has("WARN", "envelope is not trusted");
    has("ERROR", "cannot be written anywhere");
    has("INFO", "partitions assigned");
    let decisions: Vec<&str> =
        lines.iter().filter(|line| line.says("DEBUG", "decided")).filter_map(|line| line.get("decision")).collect();
    for decision in ["complete", "hop", "dead-letter"] {
        assert!(decisions.contains(&decision), "{decision} is not among {decisions:?}");
    }
    let told = lines.iter().filter(|line| line.says("ERROR", "cannot be written anywhere")).count();
    assert_eq!(told, 1, "an error is told once");
}

#[test]
fn in_relay_too_nothing_of_a_record_is_in_the_log() {
    let scene = Scene::of_relay("canary-relay", &["500ms"], 1);
    let config = scene.set_up();
    let failed = |number: usize, more: &[(&str, &str)]| {
        let mut record = canary(number, "failed");
        record.headers.extend(more.iter().map(|(name, value)| (name.as_bytes().to_vec(), Some(value.as_bytes().to_vec()))));
        record
    };
    let said = format!("cannot handle {CANARY}");
    let producer = RawProducer::new(&scene.brokers);
    producer.write(
        &scene.inbox_topic(),
        &[
            failed(0, &[("kladder-error-class", "acme.Busy"), ("kladder-error-message", &said), ("kladder-error-stack", &said)]),
            failed(1, &[("kladder-verdict", "reject"), ("kladder-error-message", &said)]),
            failed(2, &[("kladder-verdict", CANARY), ("kladder-retry-after", CANARY)]),
            failed(3, &[("kladder-ladder", &scene.ladder), ("kladder-v", "1"), ("kladder-attempts", CANARY)]),
        ],
    );
    let log = config.with_extension("log");
    let mut kladder = Kladder::start_with(&["run", "-c", path(&config), "--log", "json"], &log, &[("KLADDER_LOG", "trace")]);
    clock::eventually("three are redelivered, one is dead", PATIENCE, || {
        kladder.assert_running();
        broker::read(&scene.redeliver_topic()).len() + broker::read(&scene.dlq_topic()).len() == 4
    });
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
    let log = kladder.log();
    assert_no_canary(&log);
    assert!(lines(&log).iter().any(|line| line.says("DEBUG", "decided")), "{log}");
}

#[test]
fn the_level_changes_while_the_worker_runs() {
    let handler = Handler::start(|_| Answer::ok());
    let mut scene = Scene::with_source("log-level", &["500ms"], 1);
    scene.handler = handler.url().to_owned();
    let config = scene.set_up();
    let producer = RawProducer::new(&scene.brokers);
    let mut kladder = Kladder::run(&config);
    let mut sent = 0;
    let mut deliver = || {
        producer.write(&scene.source, &[records::plain(sent, 1)]);
        sent += 1;
        clock::eventually("it is done", PATIENCE, || {
            broker::committed(&scene.group, &scene.source, 0).0 == i64::try_from(sent).ok()
        });
    };
    let decided = |kladder: &Kladder| kladder.log().matches("decided").count();
    let log = |arguments: &[&str]| process::kladder(&[&["log", "-c", path(&config)], arguments].concat());
    deliver();
    assert_eq!(decided(&kladder), 0, "at info no record is told of");
    assert_eq!(log(&[]).succeeds().stdout, "info\n");

    assert_eq!(log(&["info,kladder::worker=debug"]).succeeds().stdout.trim(), log(&[]).succeeds().stdout.trim());
    deliver();
    clock::eventually("the decision is told", PATIENCE, || decided(&kladder) == 1);

    log(&["debgu"]).refuses(1, &["`debgu` is not a log filter: write a level"]);
    log(&["kladder=loud"]).refuses(1, &["is not a log filter"]);
    deliver();
    clock::eventually("what is no filter changes nothing", PATIENCE, || decided(&kladder) == 2);

    assert_eq!(log(&["error"]).succeeds().stdout, "error\n");
    deliver();
    let told = kladder.log();
    assert!(decided(&kladder) == 2 && told.contains("log filter set on request by=\""), "its log:\n{told}");
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0));
    assert_eq!(kladder.log(), told, "at error a worker that ends well says nothing");
}

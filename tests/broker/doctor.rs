//! `kladder doctor`: it names each hazard that the test creates, and reports a ladder in order as such.

use std::path::Path;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;

use crate::support::broker;
use crate::support::clock::{self, PATIENCE};
use crate::support::handler::{Answer, Handler};
use crate::support::process::{self, Finished, Kladder};
use crate::support::raw::{NewRecord, RawProducer};
use crate::support::scene::{Scene, path};

const DONE: i32 = 0;
const USAGE: i32 = 2;
const HAZARD: i32 = 4;

fn doctor(config: &Path, more: &[&str]) -> Finished {
    process::kladder(&[&["doctor", "-c", path(config)], more].concat())
}

/// Its findings for the only ladder: severity, check, subject and problem.
fn findings(config: &Path, code: i32) -> Vec<[String; 4]> {
    let said = doctor(config, &["-o", "json"]);
    assert_eq!(said.code, Some(code), "{said}");
    let report: Value = serde_json::from_str(&said.stdout).expect("JSON");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let found = report["ladders"][0]["findings"].as_array().expect("findings");
    found.iter().map(|f| ["severity", "check", "subject", "problem"].map(|field| text(&f[field]))).collect()
}

#[track_caller]
fn assert_found(found: &[[String; 4]], severity: &str, check: &str, subject: &str, words: &str) {
    let is_it = |f: &[String; 4]| f[0] == severity && f[1] == check && f[2] == subject && f[3].contains(words);
    assert!(found.iter().any(is_it), "no {severity} {check} of {subject} with {words:?} in {found:#?}");
}

/// A record with a producer timestamp ten minutes ago.
fn write_old(topic: &str) {
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", broker::brokers()).create().expect("a producer");
    let old = i64::try_from(clock::epoch_millis()).expect("a time") - 600_000;
    producer.send(BaseRecord::to(topic).partition(0).key("a").payload("b").timestamp(old)).map_err(|(e, _)| e).expect("sent");
    producer.flush(PATIENCE).expect("written");
}

/// A group member that is not a worker.
fn stranger(group: &str, topic: &str) -> BaseConsumer {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", broker::brokers())
        .set("group.id", group)
        .set("client.id", "the-old-billing-app")
        .set("enable.auto.commit", "false")
        .create()
        .expect("a consumer");
    consumer.subscribe(&[topic]).expect("a subscription");
    clock::eventually("the stranger is a member", PATIENCE, || {
        let _ = consumer.poll(Duration::from_millis(100));
        consumer.assignment().is_ok_and(|list| list.count() > 0)
    });
    consumer
}

#[test]
fn of_a_ladder_in_order_no_hazard_is_told_whether_it_runs_or_not() {
    let handler = Handler::start(|call| if call.attempt == 1 { Answer::fail(503, "not yet") } else { Answer::ok() });
    let mut scene = Scene::with_source("healthy", &["1s", "2s"], 3);
    handler.url().clone_into(&mut scene.handler);
    // No pause is longer than the tiers allow.
    scene.settings.push_str("\nmax_not_before = \"1m\"");
    let config = scene.write();
    doctor(&config, &[]).refuses(HAZARD, &["HAZARD", "the ladder is not set up", "kladder setup"]);
    scene.set_up();
    // One broker, so one replica: as weak as the source, which is a note and no more.
    let note = "replication factor 1 (that of the source)";
    let found = findings(&config, DONE);
    assert_found(&found, "note", "setup", &scene.ladder, note);
    assert_eq!(found.len(), 1, "{found:#?}");

    let mut kladder = Kladder::run(&config);
    let records: Vec<_> = (0..30).map(|n| crate::support::records::plain(n, 3)).collect();
    RawProducer::new(&scene.brokers).write(&scene.source, &records);
    clock::eventually("all have come back", PATIENCE, || {
        kladder.assert_running();
        handler.count() >= 60
    });
    assert_eq!(findings(&config, DONE).len(), 1);
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
    let said = doctor(&config, &["--ladder", &scene.ladder]).succeeds();
    assert!(said.stdout.contains(note) && said.stdout.contains("1 note"), "{said}");
    doctor(&config, &["--ladder", "none"]).refuses(USAGE, &["no ladder `none`", &scene.ladder]);
}

#[test]
fn hazards_of_topics_groups_and_tiers_are_each_named() {
    let mut scene = Scene::with_source("hazards", &["1s", "2s", "3s", "4s"], 2);
    scene.set_up();
    let [create_time, above, lost, removed] = ["1s", "2s", "3s", "4s"].map(|tier| scene.tier_topic(tier));
    let mover = scene.mover_group();
    broker::alter_topic(&create_time, "message.timestamp.type=CreateTime,retention.bytes=1000000");
    broker::alter_topic(&scene.redeliver_topic(), "cleanup.policy=compact");
    broker::alter_topic(&above, "retention.ms=3600000");
    write_old(&create_time);
    broker::commit(&mover, &above, 0, 100, "");
    broker::delete_offsets(&mover, Some(&lost));
    write_old(&scene.source);
    broker::delete_records(&scene.source, 0, 1);
    let gone = stranger(&scene.group, &scene.source);
    RawProducer::new(&scene.brokers).write(&removed, &[crate::support::records::plain(0, 2)]);
    scene.tiers.pop();
    let config = scene.write();
    process::kladder(&["hold", "-c", path(&config), "--why", "the handler is being replaced"]).succeeds();

    let found = findings(&config, HAZARD);
    let hazard = |check: &str, subject: &str, words: &str| assert_found(&found, "hazard", check, subject, words);
    hazard("settings", &create_time, "message.timestamp.type is CreateTime");
    hazard("settings", &create_time, "retention.bytes is 1000000");
    hazard("settings", &scene.redeliver_topic(), "cleanup.policy is compact");
    hazard("settings", &above, "retention.ms is 3600000");
    hazard("overdue", &create_time, &format!("and group {mover} has no members"));
    hazard("offsets", &above, &format!("group {mover} has offset 100 on partition 0, which ends at 0"));
    hazard("offsets", &lost, &format!("group {mover} has no offsets on it"));
    hazard("offsets", &scene.source, &format!("group {} has offset 0 on partition 0, which begins at 1", scene.group));
    hazard("members", &scene.group, "client.id `the-old-billing-app`");
    hazard("held", &scene.ladder, "the handler is being replaced");
    assert_found(&found, "note", "retry-after", &scene.ladder, "is moved 28800 times, once each 3s");
    assert_found(&found, "note", "setup", &removed, "is no longer configured, holds about 1 waiting records");
    doctor(&config, &[])
        .refuses(HAZARD, &["HAZARD", "--reset-offsets", "kladder resume", "message.timestamp.type=LogAppendTime"]);
    drop(gone);
}

#[test]
fn a_hold_of_the_router_is_told_as_the_application_that_drops_the_headers() {
    let scene = Scene::of_relay("doctor-relay", &["1s"], 1);
    let config = scene.set_up();
    let state = format!("{}.state", scene.ladder);
    let write = |key: &str, value: Option<String>| {
        let value = value.map(String::into_bytes);
        let record = NewRecord { partition: 0, key: Some(key.into()), value, headers: Vec::new() };
        RawProducer::new(&scene.brokers).write(&state, &[record]);
    };
    let said = doctor(&config, &[]).succeeds();
    assert!(said.stderr.contains("no worker answered"), "{said}");
    let held = format!(
        r#"{{"v":1,"held":true,"by":"router worker-1 of {}","at":{},"why":"headers are lost"}}"#,
        scene.ladder,
        clock::epoch_millis()
    );
    write("hold", Some(held));
    assert_found(&findings(&config, HAZARD), "hazard", "headers-dropped", &scene.group, "so the ladder is held since ");
    doctor(&config, &[]).refuses(HAZARD, &["copy all headers", &format!("kladder resume --ladder {}", scene.ladder)]);

    write("hold", Some(r#"{"v":9,"held":"softly"}"#.to_owned()));
    assert_found(&findings(&config, HAZARD), "hazard", "held", &scene.ladder, "cannot be read");
    process::kladder(&["resume", "-c", path(&config)]).succeeds();
    doctor(&config, &[]).succeeds();

    write("owner", None);
    assert_found(&findings(&config, HAZARD), "hazard", "owner", &state, "the ladder has no owner record");
    write("owner", Some(r#"{"v":1,"group":"shipping","at":1}"#.to_owned()));
    assert_found(&findings(&config, HAZARD), "hazard", "owner", &state, "belongs to group shipping");
}

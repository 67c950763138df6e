//! The contents of topics by a reader that shares no code with kladder or these tests.

use std::process::Command;

use base64::Engine;
use serde_json::Value;

use super::broker;
use super::checker::Observed;
use super::handler::Handler;
use super::raw::Record;
use super::scene::Scene;

/// The Python that has the independent client.
pub fn python() -> std::ffi::OsString {
    std::env::var_os("KLADDER_TEST_PYTHON").unwrap_or(broker::in_house(".venv/bin/python").into())
}

/// The topics as seen by a reader that shares no code with kladder.
pub fn observe(scene: &Scene, handler: &Handler) -> Observed {
    let mut topics = vec![scene.source.clone(), scene.redeliver_topic(), scene.dlq_topic()];
    topics.extend(scene.tiers.iter().map(|tier| scene.tier_topic(tier)));
    let python = python();
    let output = Command::new(&python)
        .arg(broker::in_house("tests/broker/reader.py"))
        .arg(&scene.cluster)
        .args(&topics)
        .output()
        .unwrap_or_else(|error| panic!("{} cannot be run ({error}); scripts/install test makes it", python.display()));
    assert!(output.status.success(), "reader.py failed: {}", String::from_utf8_lossy(&output.stderr));
    let all: Vec<Record> = String::from_utf8(output.stdout).expect("JSON").lines().map(parse).collect();
    let of = |topic: String| all.iter().filter(|r| r.topic == topic).cloned().collect::<Vec<_>>();
    Observed {
        source: of(scene.source.clone()),
        tiers: scene.tiers.iter().map(|tier| of(scene.tier_topic(tier))).collect(),
        redeliver: of(scene.redeliver_topic()),
        dlq: of(scene.dlq_topic()),
        calls: handler.calls(),
    }
}

fn parse(line: &str) -> Record {
    let value: Value = serde_json::from_str(line).expect("JSON");
    let bytes =
        |value: &Value| value.as_str().map(|text| base64::engine::general_purpose::STANDARD.decode(text).expect("base64"));
    let number = |name: &str| value[name].as_i64().expect("a number");
    let headers = value["headers"].as_array().expect("a list").iter();
    Record {
        topic: value["topic"].as_str().expect("a name").to_owned(),
        partition: i32::try_from(number("partition")).expect("a partition"),
        offset: number("offset"),
        timestamp: number("timestamp"),
        key: bytes(&value["key"]),
        value: bytes(&value["value"]),
        headers: headers.map(|h| (h[0].as_str().expect("a name").into(), bytes(&h[1]))).collect(),
    }
}

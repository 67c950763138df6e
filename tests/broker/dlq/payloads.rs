//! Letters whose values name a schema of a real registry are shown as JSON, changed, and encoded again under the same schema.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use super::{Letters, id_of};
use crate::registry::{payload, read_back};
use crate::support::broker;
use crate::support::clock;
use crate::support::process;
use crate::support::raw::{NewRecord, RawProducer};
use crate::support::scene::path;

#[test]
fn values_that_name_a_schema_are_shown_edited_and_transformed() {
    let names = ["avro", "json", "proto Order"];
    let letters = Letters::empty("dlq-schema");
    let text = format!("{}\n[schema_registry]\nurl = \"{}\"\n", letters.scene.toml(), broker::registry());
    let config = letters.scene.write_text(&text);
    assert_eq!(config, letters.config);
    let records: Vec<NewRecord> = (0..)
        .zip(names)
        .map(|(number, name)| NewRecord { value: Some(payload(name).to_vec()), ..letters.record(number) })
        .collect();
    RawProducer::new(&letters.scene.brokers).write(&letters.scene.dlq_topic(), &records);
    let all = letters.read();
    let id = |name: &str| id_of(all.iter().find(|record| record.value.as_deref() == Some(payload(name))).expect("its letter"));

    let shown = letters.dlq(&["show", &id("avro")]).succeeds();
    assert!(shown.stdout.contains("value (avro, schema ") && shown.stdout.contains("\"city\": \"Köln\""), "{shown}");
    let shown = letters.json(&["show", &id("proto Order")]);
    assert_eq!((&shown["letters"][0]["format"], &shown["letters"][0]["json"]), (&json!("protobuf"), &json!({"orderId": "5"})));

    let transformed = letters.dlq(&["redrive", &format!("id:{}", id("json")), "--transform", ".id += 1", "--yes"]).succeeds();
    assert!(transformed.stderr.contains("+   \"id\": 8"), "{transformed}");
    let transform = ".id += 2 | .price = \"0.07\"";
    letters.dlq(&["redrive", &format!("id:{}", id("avro")), "--transform", transform, "--yes"]).succeeds();
    let editor = letters.state.path().join("editor");
    std::fs::write(&editor, "#!/bin/sh\nsed -i 's/\"orderId\": \"5\"/\"orderId\": \"6\"/' \"$1\"\n").expect("a file");
    std::fs::set_permissions(&editor, std::fs::Permissions::from_mode(0o755)).expect("rights");
    let proto = id("proto Order");
    let mut command = letters.command(&["edit", "--yes", &proto]);
    command.env("EDITOR", path(&editor)).env_remove("VISUAL");
    process::finish(command, clock::PATIENCE).succeeds();

    let sent = letters.sent();
    let value = |name: &str| {
        let framing = &payload(name)[..5];
        let record = sent.iter().find(|record| record.value.as_deref().is_some_and(|value| value.starts_with(framing)));
        read_back(name, record.expect("it was sent").value.as_deref().expect("a value"))
    };
    assert_eq!(value("json"), json!({"name": "x", "id": 8}));
    let order = value("avro");
    assert_eq!((&order["id"], &order["price"]), (&json!(9_007_199_254_740_995_i64), &json!("0.07")));
    assert_eq!(value("proto Order"), json!({"orderId": "6"}));
}

//! Payloads with a real schema registry: written by Confluent's serializers, decoded and encoded by kladder, and read by
//! Confluent's deserializers.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use kladder::internals::{Decoded, Decoder, EncodeError, PayloadFormat, Registry, RegistryConfig};
use serde_json::{Value, json};

use crate::support::broker;
use crate::support::independent::python;

/// Payloads made by Confluent's serializers, by name: their topic and bytes.
struct Written {
    prefix: String,
    payloads: BTreeMap<String, (String, Vec<u8>)>,
}

/// Once for all tests of this file.
fn written() -> &'static Written {
    static WRITTEN: OnceLock<Written> = OnceLock::new();
    WRITTEN.get_or_init(|| {
        let prefix = broker::unique("registry");
        let lines = serializers(&prefix, "write", "");
        let payloads = lines.iter().map(|line| {
            let text = |name: &str| line[name].as_str().expect("text").to_owned();
            (text("name"), (text("topic"), from_hex(&text("payload"))))
        });
        Written { payloads: payloads.collect(), prefix }
    })
}

pub(crate) fn payload(name: &str) -> &'static [u8] {
    &written().payloads[name].1
}

/// The result of Confluent's deserializer for a payload that replaces the named one.
pub(crate) fn read_back(name: &str, payload: &[u8]) -> Value {
    let topic = &written().payloads[name].0;
    let hex: Vec<String> = payload.iter().map(|byte| format!("{byte:02x}")).collect();
    let line = json!({"name": name, "topic": topic, "payload": hex.concat()}).to_string();
    serializers(&written().prefix, "read", &line).remove(0)
}

fn serializers(prefix: &str, verb: &str, stdin: &str) -> Vec<Value> {
    let mut command = Command::new(python());
    command.arg(broker::in_house("tests/broker/serializers.py")).args([broker::registry(), prefix, verb]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("Python");
    // The script may end without reading its input.
    let _ = child.stdin.take().expect("a pipe").write_all(stdin.as_bytes());
    let output = child.wait_with_output().expect("its end");
    assert!(output.status.success(), "serializers.py failed: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
}

fn decoder() -> Decoder {
    decoder_of(broker::registry())
}

fn decoder_of(url: &str) -> Decoder {
    Decoder::new(Some(Registry::new(&RegistryConfig { url: url.to_owned(), credentials: None }).expect("a client")))
}

/// Decodes it without a note, and encodes it unchanged.
#[track_caller]
fn decoded(decoder: &mut Decoder, name: &str, format: PayloadFormat) -> (Decoded, Value) {
    let decoded = decoder.decode(Some(payload(name)), None);
    assert_eq!((decoded.format, &decoded.note), (format, &None), "{name}: {}", decoded.text);
    let json = decoded.json.clone().expect("JSON");
    assert_eq!(decoder.encode(&decoded, &json).expect("the same bytes"), payload(name));
    (decoded, json)
}

#[test]
fn avro_with_references_unions_and_decimals_is_decoded_changed_and_read_again() {
    let mut decoder = decoder();
    let (order, mut json) = decoded(&mut decoder, "avro", PayloadFormat::Avro);
    let schema = order.schema.clone().unwrap();
    let subject = format!("{}-avro-value", written().prefix);
    assert_eq!((schema.subject, schema.version, schema.name.as_deref()), (Some(subject), Some(1), Some("com.acme.Order")));
    assert_eq!(
        json,
        json!({
            "id": 9_007_199_254_740_993_i64, "ship": {"city": "Köln"}, "price": "-12345.60", "raw": "\u{0}\u{ff}A",
            "either": {"string": "text"}, "lines": [{"weight": 0.1}, {"weight": 2.5}], "tags": {"a": "x"}, "state": "SENT",
            "hash": "\u{80}\u{81}\u{82}",
        })
    );

    json["id"] = json!(9_007_199_254_740_995_i64);
    json["ship"] = Value::Null;
    json["price"] = json!("0.07");
    json["either"] = json!({"int": -1});
    json["raw"] = json!("\u{fe}");
    json["tags"] = json!({"b": "2", "a": "1"});
    json["lines"] = json!([]);
    // Via text, as from an editor.
    let edited: Value = serde_json::from_str(&json.to_string()).unwrap();
    let changed = decoder.encode(&order, &edited).unwrap();
    assert_eq!(changed[..5], payload("avro")[..5]);
    assert_eq!(
        read_back("avro", &changed),
        json!({
            "id": 9_007_199_254_740_995_i64, "ship": null, "price": "0.07", "raw": "fe", "either": -1, "lines": [],
            "tags": {"a": "1", "b": "2"}, "state": "SENT", "hash": "808182",
        })
    );

    json["state"] = json!("LOST");
    let refused = decoder.encode(&order, &json).unwrap_err();
    assert!(matches!(refused, EncodeError::DoesNotFit { .. }) && refused.to_string().contains(".state: \"LOST\""), "{refused}");
}

#[test]
fn json_schema_keeps_its_frame() {
    let mut decoder = decoder();
    let (order, mut json) = decoded(&mut decoder, "json", PayloadFormat::JsonSchema);
    assert_eq!(json, json!({"name": "x", "id": 7}));
    json["id"] = json!(8);
    let changed = decoder.encode(&order, &json).unwrap();
    assert_eq!(read_back("json", &changed), json!({"name": "x", "id": 8}));
}

#[test]
fn protobuf_messages_are_found_by_their_indexes_in_texts_and_in_descriptors() {
    let mut decoder = decoder();
    for kind in ["proto", "descriptor"] {
        let name = |message: &str| format!("{kind} {message}");
        let (order, json) = decoded(&mut decoder, &name("Order"), PayloadFormat::Protobuf);
        assert_eq!((order.schema.clone().unwrap().name.as_deref(), json), (Some("shop.Order"), json!({"orderId": "5"})));
        let changed = decoder.encode(&order, &json!({"orderId": "6"})).unwrap();
        assert_eq!(read_back(&name("Order"), &changed), json!({"orderId": "6"}));

        let (shipment, mut json) = decoded(&mut decoder, &name("Shipment"), PayloadFormat::Protobuf);
        assert_eq!(shipment.schema.clone().unwrap().name.as_deref(), Some("shop.Shipment"));
        let parcel = json!({"line": {"item": "nail", "price": {"cents": "99"}}, "at": "2020-01-02T03:04:05Z"});
        assert_eq!(json, json!({"parcels": [parcel, {}]}));
        json["parcels"][1] = json!({"line": {"item": "screw"}, "at": "1999-12-31T23:59:59.5Z"});
        let changed = decoder.encode(&shipment, &json).unwrap();
        let mut seen = read_back(&name("Shipment"), &changed);
        assert_eq!(seen["parcels"][1]["at"].take(), json!("1999-12-31T23:59:59.500Z"));
        json["parcels"][1]["at"] = Value::Null;
        assert_eq!(seen, json);

        let (parcel, json) = decoded(&mut decoder, &name("Shipment.Parcel"), PayloadFormat::Protobuf);
        assert_eq!(parcel.schema.clone().unwrap().name.as_deref(), Some("shop.Shipment.Parcel"));
        let changed = decoder.encode(&parcel, &json!({"line": {"item": "bolt"}})).unwrap();
        assert_eq!(
            (read_back(&name("Shipment.Parcel"), &changed), json),
            (json!({"line": {"item": "bolt"}}), json!({"line": {"item": "screw"}}))
        );
    }
}

#[test]
fn a_protobuf_message_of_a_newer_schema_is_shown_but_not_changed() {
    let mut decoder = decoder();
    // Field 9, a varint.
    let newer = [payload("proto Order"), &[0x48, 1]].concat();
    let order = decoder.decode(Some(&newer), None);
    assert_eq!((order.format, order.json.clone()), (PayloadFormat::Protobuf, Some(json!({"orderId": "5"}))));
    assert!(order.note.as_ref().unwrap().contains("field 9 is not in the schema"), "{order:?}");
    assert_eq!(decoder.encode(&order, &json!({"orderId": "5"})).unwrap(), newer);
    assert!(matches!(decoder.encode(&order, &json!({"orderId": "6"})), Err(EncodeError::WouldLose(_))));
}

#[test]
fn what_the_registry_does_not_know_or_the_schema_does_not_fit_is_shown_as_bytes() {
    let mut decoder = decoder();
    let unknown = decoder.decode(Some(b"\0\x7f\xff\xff\xffabc"), None);
    assert_eq!(
        (unknown.format, unknown.text.as_str()),
        (PayloadFormat::Binary, "00000000  00 7f ff ff ff 61 62 63                           |.....abc|")
    );
    assert_eq!(unknown.note.as_deref(), Some("schema 2147483647: the schema registry does not know it"));
    let broken = decoder.decode(Some(&payload("avro")[..18]), None);
    assert_eq!(broken.format, PayloadFormat::Binary);
    assert!(broken.note.unwrap().ends_with("ends too early"));
}

#[test]
fn a_registry_that_is_away_leaves_bytes_and_a_note() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let away = decoder_of(&format!("http://{free}/apis/ccompat/v7")).decode(Some(payload("avro")), None);
    assert_eq!((away.format, away.json, away.schema), (PayloadFormat::Binary, None, None));
    let note = away.note.unwrap();
    assert!(note.contains("the schema registry cannot be reached") && note.contains("refused"), "{note}");
    // A server that is not a registry: here the registry itself, at a wrong path.
    let url = broker::registry().replace("/apis/ccompat/v7", "/nowhere");
    let wrong = decoder_of(&url).decode(Some(payload("avro")), None);
    assert_eq!(wrong.format, PayloadFormat::Binary);
    assert!(wrong.note.is_some());
}

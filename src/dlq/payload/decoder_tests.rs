//! Payloads of each format; schemas come from the cache, or there is no registry.

use std::net::TcpListener;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::core::leader_clock::LocalTime;
use crate::dlq::payload::registry::Referred;
use crate::dlq::payload::registry::tests::{registry, server};

const ORDER: &str = r#"{"type":"record","name":"com.acme.Order","fields":[
    {"name":"id","type":"long"},{"name":"tags","type":{"type":"map","values":"int"}}]}"#;
const PROTO: &str =
    r#"syntax = "proto3"; import "money.proto"; message A { int32 x = 1; } message B { Money m = 1; string s = 2; }"#;
const MONEY: &str = r#"syntax = "proto3"; message Money { int64 cents = 1; }"#;

/// A decoder with schemas 1 (Avro), 2 (JSON Schema), 3 (Protobuf) and 4 (broken) in its cache; its registry
/// is not reachable.
fn decoder() -> Decoder {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut decoder = Decoder::with_clock(Some(registry(free)), Clock::manual(LocalTime::from_micros(0)));
    let mut know = |id, schema_type, text: &str| {
        let references = vec![Referred { name: "money.proto".into(), text: MONEY.into() }];
        let references = if schema_type == SchemaType::Protobuf { references } else { Vec::new() };
        let subject_version = Some(("orders-value".to_owned(), 2));
        let schema = compile(Registered { schema_type, text: text.into(), references, subject_version });
        decoder.schemas.insert(SchemaName::Id(id), CachedSchema::Known(Arc::new(schema)));
    };
    know(1, SchemaType::Avro, ORDER);
    know(2, SchemaType::Json, r#"{"type":"object"}"#);
    know(3, SchemaType::Protobuf, PROTO);
    know(4, SchemaType::Avro, "{");
    decoder
}

fn framed(id: u8, body: &[u8]) -> Vec<u8> {
    [&[0, 0, 0, 0, id], body].concat()
}

#[test]
fn plain_payloads_are_told_apart() {
    let mut decoder = Decoder::new(None);
    let mut is = |bytes: Option<&[u8]>| {
        let decoded = decoder.decode(bytes, None);
        assert_eq!((&decoded.schema, &decoded.note), (&None, &None));
        (decoded.format, decoded.json, decoded.text)
    };
    assert_eq!(is(None), (PayloadFormat::Null, None, "null".into()));
    assert_eq!(is(Some(b"")), (PayloadFormat::Text, None, String::new()));
    assert_eq!(is(Some(b"null")), (PayloadFormat::Json, Some(json!(null)), "null".into()));
    assert_eq!(
        is(Some(b"{\"b\":1,\"a\":2}")),
        (PayloadFormat::Json, Some(json!({"a": 2, "b": 1})), "{\n  \"b\": 1,\n  \"a\": 2\n}".into())
    );
    assert_eq!(is(Some("grüße\n".as_bytes())), (PayloadFormat::Text, None, "grüße\n".into()));
    assert_eq!(is(Some(b"\x1b[31m")).0, PayloadFormat::Binary);
    assert_eq!(is(Some(b"\xff\x00")).2, format!("00000000  ff 00{:45}|..|", ""));
}

#[test]
fn a_frame_without_a_registry_is_bytes_with_a_note() {
    let decoded = Decoder::new(None).decode(Some(&framed(9, b"x")), None);
    assert_eq!((decoded.format, decoded.json), (PayloadFormat::Binary, None));
    assert!(decoded.note.unwrap().contains("schema 9 of a registry; configure it in [schema_registry]"));
}

fn by_header(id: u32, indexes: Option<Vec<usize>>) -> Named {
    Named { schema: SchemaName::Id(id), indexes }
}

#[test]
fn what_a_header_names_is_decoded_without_a_frame_even_if_it_begins_with_zero() {
    let mut decoder = decoder();
    // The number 0 and no tags; and one that would also be a frame of schema 2, whose body is not
    // JSON.
    for (body, json) in [(&b"\0\0"[..], json!({"id": 0, "tags": {}})), (b"\0\x02\0\0\0", json!({"id": 0, "tags": {"": 0}}))] {
        let decoded = decoder.decode(Some(body), Some(&by_header(1, None)));
        assert_eq!((decoded.format, decoded.json.clone(), decoded.note.clone()), (PayloadFormat::Avro, Some(json), None));
        assert_eq!(decoder.encode(&decoded, &json!({"id": 43, "tags": {}})).unwrap(), b"\x56\x00");
    }
    let message = decoder.decode(Some(b"\x0a\x02\x08\x07"), Some(&by_header(3, Some(vec![1]))));
    assert_eq!(message.json, Some(json!({"m": {"cents": "7"}})));
    assert_eq!(decoder.encode(&message, &json!({"s": "x"})).unwrap(), b"\x12\x01x");
    let first = decoder.decode(Some(b"\x08\x05"), Some(&by_header(3, None)));
    assert_eq!(first.json, Some(json!({"x": 5})));
    let plain = decoder.decode(Some(b"{\"a\":1}"), Some(&by_header(2, None)));
    assert_eq!((plain.format, plain.json), (PayloadFormat::JsonSchema, Some(json!({"a": 1}))));
}

#[test]
fn what_a_header_names_and_nobody_knows_is_not_taken_for_a_frame() {
    let guid = Named { schema: SchemaName::Guid([7; 16]), indexes: None };
    // It could also be a frame of schema 1.
    let body = framed(1, b"\x54\x02\x02k\x02\x00");
    let decoded = decoder().decode(Some(&body), Some(&guid));
    assert_eq!((decoded.format, &decoded.schema), (PayloadFormat::Binary, &None));
    assert!(decoded.note.unwrap().contains("schema 07070707-0707-0707-0707-070707070707: "));
    let decoded = Decoder::new(None).decode(Some(b"\0\0"), Some(&guid));
    assert!(decoded.note.unwrap().contains("a header names schema 07070707"));
}

#[test]
fn avro_is_decoded_and_encoded_under_the_same_id() {
    let mut decoder = decoder();
    let bytes = framed(1, b"\x54\x02\x02k\x02\x00");
    let decoded = decoder.decode(Some(&bytes), None);
    assert_eq!((decoded.format, decoded.note.clone()), (PayloadFormat::Avro, None));
    assert_eq!(decoded.text, "{\n  \"id\": 42,\n  \"tags\": {\n    \"k\": 1\n  }\n}");
    let schema = decoded.schema.clone().unwrap();
    assert_eq!((schema.to_string().as_str(), schema.name.as_deref()), ("schema 1 (orders-value v2)", Some("com.acme.Order")));
    assert_eq!(decoder.encode(&decoded, &json!({"id": 43, "tags": {}})).unwrap(), framed(1, b"\x56\x00"));
    let error = decoder.encode(&decoded, &json!({"id": "43", "tags": {}})).unwrap_err();
    assert_eq!(error.to_string(), "the JSON does not fit schema 1 (orders-value v2): .id: is a string, not a long");
}

#[test]
fn unchanged_json_gives_the_very_bytes_even_in_an_unusual_layout() {
    let mut decoder = decoder();
    // A map with unsorted keys, in a block with a size; plain JSON with spaces.
    let map = framed(1, b"\x54\x03\x0c\x02k\x02\x02a\x02\x00");
    let decoded = decoder.decode(Some(&map), None);
    assert!(decoded.note.as_ref().unwrap().contains("another byte layout"));
    assert_eq!(decoder.encode(&decoded, decoded.json.as_ref().unwrap()).unwrap(), map);
    for text in [&b"{ \"b\": 1.0,\n \"a\": 2 }"[..], &framed(2, b"{ \"b\": 1.0,\n \"a\": 2 }")] {
        let decoded = decoder.decode(Some(text), None);
        assert_eq!(decoder.encode(&decoded, &json!({"a": 2, "b": 1.0})).unwrap(), text);
        let changed = decoder.encode(&decoded, &json!({"a": 3, "b": 1.0})).unwrap();
        assert!(changed.ends_with(b"{\"a\":3,\"b\":1.0}"));
        assert_eq!(changed.starts_with(b"\0\0\0\0\x02"), text.starts_with(b"\0"));
    }
}

#[test]
fn what_json_cannot_carry_is_noted_and_not_changed() {
    let mut decoder = decoder();
    for bytes in [
        &b"{\"a\":1,\"big\":123456789012345678901234567890.5}"[..],
        b"{\"a\":1,\"a\":2}",
        &framed(2, b"{\"a\":0.12345678901234567891}"),
        &framed(3, b"\x00\x08\x01\x18\x01"),
        &framed(1, b"\x54\x04\x02k\x02\x02k\x02\x00"),
    ] {
        let decoded = decoder.decode(Some(bytes), None);
        assert!(decoded.note.as_ref().unwrap().starts_with("cannot be changed without a loss: "), "{decoded:?}");
        assert_eq!(decoder.encode(&decoded, decoded.json.as_ref().unwrap()).unwrap(), bytes);
        assert!(matches!(decoder.encode(&decoded, &json!({"a": 5})), Err(EncodeError::WouldLose(_))));
    }
}

#[test]
fn the_way_to_a_protobuf_message_is_kept_as_it_was() {
    let mut decoder = decoder();
    for (before, after, name) in
        [(&b"\x00\x08\x05"[..], &b"\x00\x08\x06"[..], "A"), (b"\x02\x00\x08\x05", b"\x02\x00\x08\x06", "A")]
    {
        let decoded = decoder.decode(Some(&framed(3, before)), None);
        assert_eq!((decoded.format, decoded.json.clone()), (PayloadFormat::Protobuf, Some(json!({"x": 5}))));
        assert_eq!(decoded.schema.as_ref().unwrap().name.as_deref(), Some(name));
        assert_eq!(decoder.encode(&decoded, &json!({"x": 6})).unwrap(), framed(3, after));
    }
    let decoded = decoder.decode(Some(&framed(3, b"\x02\x02\x0a\x02\x08\x07")), None);
    assert_eq!(decoded.json, Some(json!({"m": {"cents": "7"}})));
    assert_eq!(decoder.encode(&decoded, &json!({"s": "x"})).unwrap(), framed(3, b"\x02\x02\x12\x01x"));
}

#[test]
fn what_does_not_fit_its_schema_is_shown_as_bytes_with_the_schema_and_the_reason() {
    let mut decoder = decoder();
    for (id, body, why) in [
        (1, &b"\x54"[..], "truncated"),
        (2, b"{", "not JSON"),
        (3, b"\x02\x09", "no message indexes"),
        (3, b"\x02\x08", "no message at [4]"),
        (4, b"", "cannot be compiled"),
    ] {
        let decoded = decoder.decode(Some(&framed(id, body)), None);
        assert_eq!((decoded.format, decoded.schema.map(|s| s.id)), (PayloadFormat::Binary, Some(SchemaName::Id(u32::from(id)))));
        let note = decoded.note.unwrap();
        assert!(note.starts_with(&format!("schema {id} (orders-value v2): ")) && note.contains(why), "{note}");
        assert!(decoded.text.starts_with("00000000  00 00 00 00"));
    }
}

#[test]
fn what_has_no_json_is_not_encoded() {
    let mut decoder = Decoder::new(None);
    for bytes in [None, Some(&b"text"[..]), Some(b"\xff"), Some(b"\0\0\0\0\x01x")] {
        let decoded = decoder.decode(bytes, None);
        assert!(matches!(decoder.encode(&decoded, &json!("x")), Err(EncodeError::NoJson(_))));
    }
}

#[test]
fn a_registry_that_is_away_is_asked_again_after_a_while() {
    let (address, asked) = server(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n".to_vec());
    let clock = Clock::manual(LocalTime::from_micros(0));
    let mut decoder = Decoder::with_clock(Some(registry(address)), clock.clone());
    for id in [1, 1, 2] {
        let decoded = decoder.decode(Some(&framed(id, b"x")), None);
        assert!(decoded.note.unwrap().contains("answers 503"));
    }
    assert_eq!(asked.lock().unwrap().len(), 1);
    clock.advance(ASK_AGAIN_AFTER);
    decoder.decode(Some(&framed(2, b"x")), None);
    assert_eq!(asked.lock().unwrap().len(), 2);
}

#[test]
fn an_unknown_id_is_asked_for_once_and_does_not_stand_in_the_way_of_others() {
    let (address, asked) = server(b"HTTP/1.1 404 None\r\nContent-Length: 0\r\n\r\n".to_vec());
    let mut decoder = Decoder::with_clock(Some(registry(address)), Clock::manual(LocalTime::from_micros(0)));
    for id in [1, 1, 2, 2] {
        let decoded = decoder.decode(Some(&framed(id, b"x")), None);
        assert_eq!(decoded.note, Some(format!("schema {id}: the schema registry does not know it")));
    }
    assert_eq!(asked.lock().unwrap().len(), 2);
}

proptest! {
    #[test]
    fn looking_never_fails_and_unchanged_json_is_the_payload(frame in 0_u8..6, bytes in proptest::collection::vec(any::<u8>(), 0..60), text in ".{0,20}") {
        let mut decoder = decoder();
        for bytes in [framed(frame, &bytes), bytes, text.into_bytes()] {
            let decoded = decoder.decode(Some(&bytes), None);
            prop_assert!(decoded.text.chars().all(|c| !c.is_control() || "\n\r\t".contains(c)));
            if let Some(json) = &decoded.json {
                prop_assert_eq!(&decoder.encode(&decoded, json).unwrap(), &bytes);
            }
        }
    }
}

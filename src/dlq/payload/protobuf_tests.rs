//! Hand-written bodies, with schemas given as text.

use proptest::prelude::*;
use serde_json::json;

use super::*;

const SHOP: &str = r#"
    syntax = "proto3";
    package shop;
    import "shop/money.proto";
    import "google/protobuf/timestamp.proto";
    import "google/protobuf/any.proto";
    message Order {
      map<string, int32> counts = 4;
      message Line { string item = 1; Money price = 2; }
      message Deep { message Deeper { bool yes = 1; } }
      int64 order_id = 1;
      repeated Line lines = 2;
      google.protobuf.Timestamp at = 3;
      State state = 5;
      google.protobuf.Any extra = 6;
      oneof paid { string card = 7; bytes coin = 8; }
    }
    message Cancelled { double share = 1; }
    enum State { NEW = 0; SENT = 1; }
"#;
const MONEY: &str = r#"syntax = "proto3"; package shop; message Money { int64 cents = 1; }"#;

fn shop() -> ProtobufSchema {
    ProtobufSchema::compile(SHOP, &[("shop/money.proto", MONEY)]).unwrap()
}

#[track_caller]
fn both_ways(indexes: &[usize], bytes: &[u8], name: &str, json: Value) {
    let body = shop().decode(indexes, bytes).unwrap();
    let expected = ProtobufBody { name: name.to_owned(), json: json.clone(), loss: None, is_laid_out_otherwise: false };
    assert_eq!(body, expected);
    assert_eq!(shop().encode(indexes, &json).unwrap(), bytes);
}

#[test]
fn messages_go_both_ways_also_nested_and_imported_ones() {
    let order = b"\x08\x05\x12\x08\x0a\x01x\x12\x03\x08\xe2\x09\x1a\x02\x08\x01\x22\x05\x0a\x01k\x10\x02\x28\x01\x42\x02\x00\xff";
    let json = json!({
        "orderId": "5", "lines": [{"item": "x", "price": {"cents": "1250"}}], "at": "1970-01-01T00:00:01Z",
        "counts": {"k": 2}, "state": "SENT", "coin": "AP8=",
    });
    both_ways(&[0], order, "shop.Order", json);
    both_ways(&[1], b"\x09\0\0\0\0\0\0\xe0\x3f", "shop.Cancelled", json!({"share": 0.5}));
    // For the compiler, a map entry is a message of its own.
    both_ways(&[0, 0], b"\x0a\x01x", "shop.Order.Line", json!({"item": "x"}));
    both_ways(&[0, 1, 0], b"\x08\x01", "shop.Order.Deep.Deeper", json!({"yes": true}));
    both_ways(&[0], b"", "shop.Order", json!({}));
}

#[test]
fn a_field_that_the_schema_does_not_know_is_named() {
    for (bytes, number) in [(&b"\x08\x05\x50\x07"[..], "field 10"), (b"\x12\x04\x0a\x00\x48\x01", "field 9")] {
        let loss = shop().decode(&[0], bytes).unwrap().loss.unwrap();
        assert!(loss.contains(number), "{loss}");
    }
}

#[test]
fn numbers_without_a_name_in_an_enum_are_kept() {
    let body = shop().decode(&[0], &[0x28, 9]).unwrap();
    assert_eq!((body.json, body.loss), (json!({"state": 9}), None));
}

#[test]
fn an_any_of_an_unknown_type_is_told() {
    let any = b"\x32\x06\x0a\x04x/yy";
    assert!(shop().decode(&[0], any).unwrap_err().contains("no JSON form"));
}

#[test]
fn another_layout_of_the_same_message_is_told_apart_from_a_loss() {
    // Fields in another order, and one written twice: the later one counts.
    let body = shop().decode(&[0], b"\x28\x01\x08\x04\x08\x05").unwrap();
    assert_eq!((body.json, body.loss, body.is_laid_out_otherwise), (json!({"orderId": "5", "state": "SENT"}), None, true));
}

#[test]
fn a_descriptor_in_base64_is_a_schema_too() {
    // shop.proto: message A { int64 x = 1; } message B { string y_y = 1; }
    let text = "CgpzaG9wLnByb3RvEgRzaG9wIg4KAUESCQoBeBgBIAEoAyIQCgFCEgsKA3lfeRgBIAEoCWIGcHJvdG8z";
    let schema = ProtobufSchema::compile(text, &[]).unwrap();
    let body = schema.decode(&[1], b"\x0a\x03hey").unwrap();
    assert_eq!((body.name.as_str(), body.json), ("shop.B", json!({"yY": "hey"})));
}

#[test]
fn files_that_confluent_knows_need_no_reference() {
    let text = r#"syntax = "proto3"; import "confluent/meta.proto"; import "confluent/type/decimal.proto";
        message M { confluent.type.Decimal d = 1 [(confluent.field_meta) = { doc: "x" }]; }"#;
    let schema = ProtobufSchema::compile(text, &[]).unwrap();
    assert_eq!(schema.decode(&[0], b"\x0a\x02\x10\x04").unwrap().json, json!({"d": {"precision": 4}}));
}

#[test]
fn what_does_not_fit_is_told() {
    let schema = shop();
    for (json, told) in
        [(json!({"lines": [{}, {"price": {"cents": "five"}}]}), ".lines[1].price.cents: "), (json!({"nothing": 1}), "nothing")]
    {
        let error = schema.encode(&[0], &json).unwrap_err();
        assert!(error.contains(told), "{error}");
    }
    assert!(schema.encode(&[0], &json!([])).is_err());
    for indexes in [&[7][..], &[0, 9], &[]] {
        assert!(schema.decode(indexes, b"").unwrap_err().contains("no message at"), "{indexes:?}");
    }
    assert!(schema.decode(&[0], b"\x12\x7f").is_err());
    // Nested without end.
    assert!(schema.decode(&[0], &[0x12; 10_000]).is_err());
    assert!(ProtobufSchema::compile(SHOP, &[]).unwrap_err().contains("money.proto"));
    assert!(ProtobufSchema::compile("message {", &[]).is_err());
}

proptest! {
    #[test]
    fn no_body_panics_and_what_is_read_without_loss_comes_back(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let schema = shop();
        if let Ok(body) = schema.decode(&[0], &bytes) && body.loss.is_none() {
            let again = schema.encode(&[0], &body.json).unwrap();
            prop_assert_eq!(schema.decode(&[0], &again).unwrap().json, body.json);
        }
    }
}

//! Hand-written bodies as in the Avro specification, and bodies that must be refused.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn schema(text: &str) -> AvroSchema {
    AvroSchema::parse(text, &[]).unwrap()
}

/// Decodes to this JSON, and encodes back to these bytes.
#[track_caller]
fn both_ways(schema: &AvroSchema, bytes: &[u8], json: Value) {
    let body = schema.decode(bytes).unwrap();
    assert_eq!(body, AvroBody { json: json.clone(), loss: None });
    assert_eq!(schema.encode(&json).unwrap(), bytes, "{json}");
}

#[test]
fn the_record_of_the_specification_goes_both_ways() {
    let schema = schema(r#"{"type":"record","name":"test","fields":[{"name":"a","type":"long"},{"name":"b","type":"string"}]}"#);
    both_ways(&schema, b"\x36\x06foo", json!({"a": 27, "b": "foo"}));
    assert_eq!(schema.name(), Some("test"));
}

#[test]
fn each_primitive_goes_both_ways() {
    let long_extremes = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    for (text, bytes, json) in [
        (r#""null""#, &[][..], json!(null)),
        (r#""boolean""#, &[1], json!(true)),
        (r#""int""#, &[0xff, 0xff, 0xff, 0xff, 0xf], json!(i32::MIN)),
        (r#""long""#, &long_extremes, json!(i64::MIN)),
        (r#""float""#, &[0xcd, 0xcc, 0xcc, 0x3d], json!(0.1)),
        (r#""float""#, &[0, 0, 0xc0, 0x7f], json!("NaN")),
        (r#""double""#, &[0, 0, 0, 0, 0, 0, 0xf0, 0xff], json!("-Infinity")),
        (r#""double""#, &[0x9a, 0x99, 0x99, 0x99, 0x99, 0x99, 0xb9, 0x3f], json!(0.1)),
        (r#""bytes""#, &[6, 0, 0x41, 0xff], json!("\u{0}A\u{ff}")),
        (r#""string""#, "\u{6}€".as_bytes(), json!("€")),
        (r#"{"type":"fixed","name":"f","size":2}"#, &[0x80, 0x41], json!("\u{80}A")),
        (r#"{"type":"enum","name":"e","symbols":["A","B"]}"#, &[2], json!("B")),
        (r#"{"type":"array","items":"int"}"#, &[4, 2, 4, 0], json!([1, 2])),
        (r#"{"type":"array","items":"int"}"#, &[0], json!([])),
        (r#"{"type":"map","values":"int"}"#, b"\x04\x02a\x02\x02b\x04\x00", json!({"a": 1, "b": 2})),
        (r#"{"type":"long","logicalType":"timestamp-millis"}"#, &[2], json!(-1 + 2)),
        (r#"{"type":"int","logicalType":"date"}"#, &[1], json!(-1)),
    ] {
        both_ways(&schema(text), bytes, json);
    }
}

#[test]
fn decimals_are_strings_with_the_places_of_their_scale() {
    let of_bytes = schema(r#"{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}"#);
    for (bytes, text) in [
        (&[4, 0x04, 0xe2][..], "12.50"),
        (&[4, 0xfb, 0x1e], "-12.50"),
        (&[2, 5], "0.05"),
        (&[2, 0xff], "-0.01"),
        (&[2, 0], "0.00"),
    ] {
        both_ways(&of_bytes, bytes, json!(text));
    }
    assert_eq!(of_bytes.encode(&json!("12.5")), of_bytes.encode(&json!("12.50")));
    assert_eq!(of_bytes.encode(&json!("12")), of_bytes.encode(&json!("12.00")));
    for wrong in ["12.505", "", ".5", "1e3", "+1", "1.", "0x1", "-"] {
        assert!(of_bytes.encode(&json!(wrong)).is_err(), "{wrong}");
    }
    let fixed = schema(r#"{"type":"fixed","name":"d","size":4,"logicalType":"decimal","precision":9,"scale":0}"#);
    both_ways(&fixed, &[0xff, 0xff, 0xff, 0xfe], json!("-2"));
    both_ways(&fixed, &[0, 0, 1, 0], json!("256"));
    assert!(fixed.encode(&json!("4294967296")).unwrap_err().contains("4 bytes"));
}

#[test]
fn uuids_are_written_as_uuids() {
    let fixed = schema(r#"{"type":"fixed","name":"u","size":16,"logicalType":"uuid"}"#);
    let bytes: Vec<u8> = (0xf0..=0xff).collect();
    both_ways(&fixed, &bytes, json!("f0f1f2f3-f4f5-f6f7-f8f9-fafbfcfdfeff"));
    assert!(fixed.encode(&json!("f0f1")).unwrap_err().contains("UUID"));
    both_ways(&schema(r#"{"type":"string","logicalType":"uuid"}"#), b"\x02x", json!("x"));
}

#[test]
fn a_union_with_one_branch_beside_null_needs_no_tag() {
    let nullable = schema(r#"["null","string"]"#);
    both_ways(&nullable, &[0], json!(null));
    both_ways(&nullable, b"\x02\x02a", json!("a"));
    let other_order = schema(r#"["string","null"]"#);
    both_ways(&other_order, &[2], json!(null));
    both_ways(&other_order, b"\x00\x02a", json!("a"));
}

#[test]
fn other_unions_are_tagged_with_the_type() {
    let union = schema(
        r#"["null","int","string",{"type":"record","name":"a.b.R","fields":[{"name":"x","type":"int"}]},{"type":"bytes","logicalType":"decimal","precision":4,"scale":1}]"#,
    );
    both_ways(&union, &[0], json!(null));
    both_ways(&union, &[2, 2], json!({"int": 1}));
    both_ways(&union, b"\x04\x021", json!({"string": "1"}));
    both_ways(&union, &[6, 2], json!({"a.b.R": {"x": 1}}));
    both_ways(&union, &[8, 2, 15], json!({"bytes": "1.5"}));
    for wrong in [json!(1), json!({"long": 1}), json!({"int": 1, "string": "x"}), json!({"null": null})] {
        assert!(union.encode(&wrong).unwrap_err().contains("null, int, string, a.b.R, bytes"), "{wrong}");
    }
}

#[test]
fn references_are_found_in_any_order_and_types_may_hold_themselves() {
    let order = r#"{"type":"record","name":"Order","namespace":"com.acme","fields":[
        {"name":"ship","type":"Address"},{"name":"bill","type":"com.acme.Address"},{"name":"next","type":["null","Order"]}]}"#;
    let address = r#"{"type":"record","name":"com.acme.Address","fields":[{"name":"in","type":"com.acme.geo.Country"}]}"#;
    let country = r#"{"type":"enum","name":"Country","namespace":"com.acme.geo","symbols":["DE","FR"]}"#;
    for references in [[address, country], [country, address]] {
        let schema = AvroSchema::parse(order, &references).unwrap();
        both_ways(
            &schema,
            &[0, 2, 2, 2, 2, 0],
            json!({"ship": {"in": "DE"}, "bill": {"in": "FR"}, "next": {"ship": {"in": "FR"}, "bill": {"in": "FR"}, "next": null}}),
        );
    }
    assert!(AvroSchema::parse(order, &[country]).is_err());
}

#[test]
fn what_does_not_fit_is_told_with_its_place() {
    let schema = schema(
        r#"{"type":"record","name":"R","fields":[{"name":"list","type":{"type":"array","items":{"type":"map","values":"int"}}},
           {"name":"maybe","type":["null","boolean"]}]}"#,
    );
    for (json, told) in [
        (json!({"list": [{}, {"k": "x"}], "maybe": null}), ".list[1].k: is a string, not an int"),
        (json!({"list": [{"k": 1.5}], "maybe": null}), ".list[0].k: 1.5 is not a 32-bit int"),
        (json!({"list": [{"k": 3_000_000_000_u64}], "maybe": null}), ".list[0].k: 3000000000 is not a 32-bit int"),
        (json!({"list": []}), "the field maybe is missing"),
        (json!({"list": [], "maybe": null, "more": 1}), "R has no field more"),
        (json!({"list": [], "maybe": 1}), ".maybe: is a number, not true or false"),
        (json!([]), "is an array, not an object"),
    ] {
        let error = schema.encode(&json).unwrap_err();
        assert!(error.contains(told), "{error}");
    }
    assert_eq!(schema.encode(&json!({"list": [{"k": 2.0}], "maybe": true})).unwrap(), b"\x02\x02\x02k\x04\x00\x00\x02\x01");
}

#[test]
fn broken_and_hostile_bodies_are_refused() {
    let list = r#"{"type":"record","name":"L","fields":[{"name":"next","type":["null","L"]}]}"#;
    for (text, body, told) in [
        (r#""string""#, &[6, b'a'][..], "too early"),
        (r#""string""#, &[1], "not a length"),
        (r#""string""#, &[2, 0xff], "UTF-8"),
        (r#""int""#, &[2, 2], "1 bytes are left"),
        (r#""int""#, &[0x80], "truncated"),
        (r#""int""#, &[0xff, 0xff, 0xff, 0xff, 0x7f], "32 bits"),
        (r#""boolean""#, &[2], "neither true nor false"),
        (r#"["null","int"]"#, &[4, 0], "no branch 2"),
        (r#"{"type":"enum","name":"e","symbols":["A"]}"#, &[1], "no symbol -1"),
        // A billion nulls.
        (r#"{"type":"array","items":"null"}"#, &[0x80, 0xa8, 0xd6, 0xb9, 7, 0], "too many values"),
        (r#"{"type":"array","items":"int"}"#, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0], "truncated"),
        (list, &[2; 10_000], "nested deeper"),
    ] {
        let error = schema(text).decode(body).map(|body| body.json).unwrap_err();
        assert!(error.contains(told), "{text}: {error}");
    }
}

#[test]
fn blocks_with_sizes_are_read_and_doubled_keys_are_told() {
    let array = schema(r#"{"type":"array","items":"int"}"#);
    assert_eq!(array.decode(&[3, 4, 2, 4, 2, 6, 0]).unwrap().json, json!([1, 2, 3]));
    let map = schema(r#"{"type":"map","values":"int"}"#);
    let body = map.decode(b"\x04\x02a\x02\x02a\x04\x00").unwrap();
    assert_eq!(body.json, json!({"a": 2}));
    assert!(body.loss.unwrap().contains("duplicate key"));
}

#[test]
fn what_is_no_schema_is_told() {
    for text in ["", "{", r#""strng""#, r#"{"type":"record","name":"R"}"#] {
        assert!(!AvroSchema::parse(text, &[]).unwrap_err().is_empty(), "{text}");
    }
}

const EVERYTHING: &str = r#"{"type":"record","name":"E","fields":[
    {"name":"long","type":"long"},{"name":"float","type":"float"},{"name":"double","type":"double"},{"name":"bytes","type":"bytes"},
    {"name":"union","type":["int","string",{"type":"array","items":["null","E"]}]},
    {"name":"map","type":{"type":"map","values":{"type":"bytes","logicalType":"decimal","precision":40,"scale":3}}}]}"#;

fn everything() -> impl Strategy<Value = Value> {
    let decimal = (any::<bool>(), "[1-9][0-9]{0,30}", "[0-9]{3}")
        .prop_map(|(minus, whole, part)| format!("{}{whole}.{part}", if minus { "-" } else { "" }));
    let leaf = (
        any::<i64>(),
        any::<u32>(),
        any::<u64>(),
        proptest::collection::vec(any::<u8>(), 0..9),
        proptest::collection::btree_map(".{0,3}", decimal, 0..3),
    );
    let leaf = leaf.prop_map(|(long, float, double, bytes, map)| {
        let float = Some(f32::from_bits(float)).filter(|f| !f.is_nan()).unwrap_or(f32::NAN);
        let double = Some(f64::from_bits(double)).filter(|f| !f.is_nan()).unwrap_or(f64::NAN);
        json!({"long": long, "float": from_float(widen(float)), "double": from_float(double), "bytes": to_characters(&bytes), "union": {"int": 1}, "map": map})
    });
    leaf.prop_recursive(4, 20, 4, |inner| {
        (inner.clone(), proptest::collection::vec(proptest::option::of(inner), 0..4)).prop_map(|(mut record, items)| {
            record["union"] = json!({ "array": items });
            record
        })
    })
}

proptest! {
    #[test]
    fn values_and_their_bytes_come_back(json in everything()) {
        let schema = schema(EVERYTHING);
        let bytes = schema.encode(&json).unwrap();
        let body = schema.decode(&bytes).unwrap();
        prop_assert_eq!(&body.json, &json);
        // Also through text, as an editor returns it.
        let edited: Value = serde_json::from_str(&body.json.to_string()).unwrap();
        prop_assert_eq!(schema.encode(&edited).unwrap(), bytes);
    }

    #[test]
    fn no_body_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = schema(EVERYTHING).decode(&bytes);
    }

    #[test]
    fn a_float_comes_back(bits in any::<u32>()) {
        let float = f32::from_bits(bits);
        prop_assume!(!float.is_nan());
        prop_assert_eq!(narrow(widen(float)).to_bits(), bits);
    }
}

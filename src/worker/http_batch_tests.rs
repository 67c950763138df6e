//! Bodies of batches, and answers to them.

use serde_json::{Value, json};

use super::*;
use crate::core::coordinates::Coordinates;
use crate::core::envelope::Envelope;
use crate::core::ladder::Ladder;
use crate::core::time::Timestamp;

fn delivery(offset: i64, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[(&str, &[u8])]) -> Delivery {
    let ladder = Ladder::builder("billing", "g").source("orders").tiers(["5s"]).build().unwrap();
    let origin =
        Coordinates { topic: "orders".into(), partition: 3, offset, timestamp: Timestamp::from_millis(1_700_000_000_007) };
    let mut all = Headers::new();
    for (name, value) in headers {
        all.push(*name, Some(*value));
    }
    let bytes = |bytes: Option<&[u8]>| bytes.map(Bytes::copy_from_slice);
    Delivery::new(&Envelope::fresh("billing", &origin), &ladder, bytes(key), bytes(value), all)
}

fn events(batch: &[Delivery]) -> Vec<Value> {
    let (content_type, body) = body(BatchFormat::CloudEvents, batch);
    assert_eq!(content_type, "application/cloudevents-batch+json; charset=utf-8");
    serde_json::from_slice(&body).unwrap()
}

#[test]
fn a_batch_of_cloud_events_has_json_as_it_is_and_bytes_as_base64() {
    let json = delivery(1, Some(b"k"), Some(br#"{"price": 1.10}"#), &[("content-type", b"application/json")]);
    let bytes = delivery(2, Some(b"\xff"), Some(b"\x00\x01"), &[("a", b"1"), ("a", b"\xfe")]);
    let tombstone = delivery(3, None, None, &[]);
    let all = events(&[json.clone(), bytes, tombstone]);
    assert_eq!(all.len(), 3);
    assert_eq!(all[0]["specversion"], "1.0");
    assert_eq!(all[0]["id"], json.id());
    assert_eq!(all[0]["time"], "2023-11-14T22:13:20.007Z");
    assert_eq!((&all[0]["source"], &all[0]["type"]), (&json!("/kafka/orders"), &json!("kladder.delivery")));
    assert_eq!(all[0]["data"], json!({"price": 1.10}));
    assert_eq!(all[0]["datacontenttype"], "application/json");
    assert_eq!(all[0]["partitionkey"], "k");
    assert_eq!(all[0]["kladderoffset"], "1");
    assert_eq!((&all[0]["kladderattempt"], &all[0]["kladderattemptsleft"]), (&json!(1), &json!(1)));
    assert_eq!((&all[1]["data_base64"], &all[1]["datacontenttype"]), (&json!("AAE="), &json!("application/octet-stream")));
    assert_eq!(all[1]["kladderkeybase64"], "/w==");
    let headers: Value = serde_json::from_str(all[1]["kladderheaders"].as_str().unwrap()).unwrap();
    assert_eq!(headers, json!([["a", "1"], ["a", {"base64": "/g=="}]]));
    assert!(all[2].get("data").is_none() && all[2].get("data_base64").is_none() && all[2].get("partitionkey").is_none());
    // As it stands: numbers keep their digits.
    let (_, body) = body(BatchFormat::CloudEvents, &[json]);
    assert!(String::from_utf8_lossy(&body).contains(r#""data":{"price": 1.10}"#));
}

#[test]
fn a_record_that_is_a_cloud_event_keeps_its_attributes_but_not_its_id() {
    let record = delivery(
        1,
        None,
        Some(b"text"),
        &[
            ("ce_specversion", b"1.0"),
            ("ce_id", b"theirs"),
            ("ce_type", b"order.made"),
            ("ce_source", b"/shop"),
            ("ce_kladderid", b"no"),
            ("ce_Not-One", b"no"),
            ("content-type", b"text/plain"),
            ("traceparent", b"00-1"),
        ],
    );
    let event = &events(std::slice::from_ref(&record))[0];
    assert_eq!(event["id"], record.id());
    assert_eq!((&event["ceid"], &event["type"], &event["source"]), (&json!("theirs"), &json!("order.made"), &json!("/shop")));
    assert_eq!((&event["datacontenttype"], &event["data_base64"]), (&json!("text/plain"), &json!("dGV4dA==")));
    assert_eq!(event["traceparent"], "00-1");
    assert!(event.get("kladderid").is_none() && event.get("Not-One").is_none());
}

#[test]
fn a_batch_of_lines_has_one_object_a_line_whatever_the_values_contain() {
    let batch = [
        delivery(1, Some(b"k"), Some(b"{\n\"a\":1}"), &[]),
        delivery(2, None, None, &[("h", b"v")]),
        delivery(3, None, Some(b""), &[]),
    ];
    let (content_type, body) = body(BatchFormat::Ndjson, &batch);
    assert_eq!(content_type, "application/x-ndjson");
    let lines: Vec<Value> =
        body.strip_suffix(b"\n").unwrap().split(|b| *b == b'\n').map(|l| serde_json::from_slice(l).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    assert_eq!((&lines[0]["key"], &lines[0]["value_base64"]), (&json!("k"), &json!("ewoiYSI6MX0=")));
    assert_eq!((&lines[1]["value"], &lines[1]["headers"]), (&Value::Null, &json!([["h", "v"]])));
    assert_eq!(lines[2]["value_base64"], "");
    assert_eq!((&lines[2]["topic"], &lines[2]["offset"]), (&json!("orders"), &json!(3)));
}

#[test]
fn a_part_has_the_bytes_and_headers_of_a_single_delivery() {
    let value = b"\r\n--kladder-\x00\xff";
    let batch = [delivery(1, Some(b"k"), Some(value), &[("content-type", b"text/plain")]), delivery(2, None, None, &[])];
    let (content_type, body) = body(BatchFormat::Multipart, &batch);
    let boundary = content_type.to_str().unwrap().strip_prefix("multipart/mixed; boundary=").unwrap().to_owned();
    let text = String::from_utf8_lossy(&body).into_owned();
    assert_eq!(text.matches(&format!("--{boundary}\r\n")).count(), 2);
    assert!(text.ends_with(&format!("--{boundary}--\r\n")));
    assert!(text.contains(&format!("idempotency-key: \"{}\"\r\n", batch[0].id())), "{text}");
    assert!(
        text.contains("kladder-key: k\r\n")
            && text.contains("content-type: text/plain\r\n")
            && text.contains("kladder-value: null")
    );
    assert!(body.windows(value.len()).any(|window| window == value));
    // A value that contains the boundary makes for another one.
    let hostile = delivery(1, Some(b"k"), Some(boundary.as_bytes()), &[]);
    let (other, _) = super::body(BatchFormat::Multipart, &[hostile]);
    assert_ne!(other, content_type);
}

#[test]
fn an_answer_names_the_records_that_failed() {
    let batch = [delivery(1, None, None, &[]), delivery(2, None, None, &[]), delivery(3, None, None, &[])];
    let said = |failures: Value| failures_of(&json!({"failures": failures}).to_string(), &batch);
    for done in ["", "OK", " \n", "\"done\""] {
        assert_eq!(failures_of(done, &batch), Ok(Vec::new()), "{done:?}");
    }
    assert_eq!(said(json!([])), Ok(Vec::new()));
    let told = said(json!([
        {"id": batch[2].id(), "verdict": "retry", "retry_after": "30s", "error_class": "Busy", "error_message": "x".repeat(2_000)},
        {"id": batch[0].id(), "verdict": "reject"},
    ]))
    .unwrap();
    assert_eq!((told[0].0, told[1].0), (2, 0));
    assert_eq!(told[0].1.disposition(), Disposition::Retry { after: Some(Duration::from_secs(30)) });
    assert_eq!((told[0].1.error().class.as_str(), told[0].1.error().message.as_ref().unwrap().len()), ("Busy", 1024));
    assert_eq!(told[1].1.disposition(), Disposition::Reject);
    let again = said(json!([{"id": batch[1].id(), "retry_after": "90"}])).unwrap();
    assert_eq!(again[0].1.disposition(), Disposition::Retry { after: Some(Duration::from_secs(90)) });
}

#[test]
fn an_answer_that_cannot_be_right_is_refused_as_a_whole() {
    let batch = [delivery(1, None, None, &[])];
    let id = batch[0].id();
    for wrong in [
        json!({"failures": [{"id": "unknown"}]}),
        json!({"failures": [{"id": id}, {"id": id}]}),
        json!({"failures": [{"id": id, "verdict": "done"}]}),
        json!({"failures": [{"id": id, "retry_after": "soon"}]}),
        json!({"failures": [{"id": id, "status": 500}]}),
        json!({"failures": "none"}),
        // What a handler for another system would answer.
        json!({"batchItemFailures": [{"itemIdentifier": id}]}),
        json!({"ok": true}),
    ] {
        assert!(failures_of(&wrong.to_string(), &batch).is_err(), "{wrong}");
    }
    assert!(failures_of("{\"failures\": [", &batch).is_err(), "cut off");
    assert!(failures_of(&json!([{"id": id}]).to_string(), &batch).is_err(), "a list");
    let marked = format!("\u{feff}{}", json!({"failures": [{"id": id, "retry_after": 30}]}));
    let told = failures_of(&marked, &batch).unwrap();
    assert_eq!(told[0].1.disposition(), Disposition::Retry { after: Some(Duration::from_secs(30)) });
}

fn failures_of(body: &str, batch: &[Delivery]) -> Result<Vec<(usize, Failure)>, String> {
    failures(body.as_bytes(), batch)
}

#[test]
fn a_timestamp_beyond_all_years_and_two_partition_keys_make_an_event_nevertheless() {
    let record = delivery(1, Some(b"k"), None, &[("ce_specversion", b"1.0"), ("ce_partitionkey", b"theirs")]);
    let (_, text) = body(BatchFormat::CloudEvents, std::slice::from_ref(&record));
    assert_eq!(String::from_utf8_lossy(&text).matches("\"partitionkey\"").count(), 1);
    assert_eq!(events(&[record])[0]["partitionkey"], "k");
    assert_eq!(Timestamp::from_millis(i64::MAX).to_rfc3339_millis(), "9999-12-31T23:59:59.999Z");
}

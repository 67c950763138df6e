//! The trace of a record: each handler call, each hop and each wait, as children of the span that it came with.

use std::time::Duration;

use serde_json::Value;

use crate::support::broker;
use crate::support::clock::{self, PATIENCE};
use crate::support::handler::{Answer, Handler};
use crate::support::process::Kladder;
use crate::support::raw::{NewRecord, RawProducer};
use crate::support::records;
use crate::support::scene::{Scene, path};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";
const STATE: &str = "vendor=kept";

/// What the collector received, by time.
fn spans(collector: &Handler) -> Vec<Value> {
    let mut spans = Vec::new();
    for call in collector.calls() {
        let sent: Value = serde_json::from_slice(&call.body).expect("JSON");
        for resource in sent["resourceSpans"].as_array().expect("a list") {
            let service =
                resource["resource"]["attributes"].as_array().expect("a list").iter().find(|a| a["key"] == "service.name");
            assert_eq!(service.expect("its service")["value"]["stringValue"], "billing-ladder");
            for scope in resource["scopeSpans"].as_array().expect("a list") {
                spans.extend(scope["spans"].as_array().expect("a list").iter().cloned());
            }
        }
    }
    spans.sort_by_key(|span| (nanos(&span["endTimeUnixNano"]), nanos(&span["startTimeUnixNano"])));
    spans
}

fn nanos(value: &Value) -> u64 {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).expect("a time")
}

fn attribute(span: &Value, key: &str) -> Option<String> {
    let value = &span["attributes"].as_array()?.iter().find(|attribute| attribute["key"] == key)?["value"];
    let text = value["stringValue"].as_str().map(str::to_owned);
    text.or_else(|| value["intValue"].as_i64().map(|n| n.to_string())).or_else(|| value["intValue"].as_str().map(str::to_owned))
}

fn run(config: &std::path::Path, endpoint: &str) -> Kladder {
    let environment = [
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_SERVICE_NAME", "billing-ladder"),
        ("OTEL_BSP_SCHEDULE_DELAY", "200"),
    ];
    Kladder::start_with(&["run", "-c", path(config)], &config.with_extension("log"), &environment)
}

#[test]
fn a_trace_shows_the_ladder() {
    let collector = Handler::start(|_| Answer::ok());
    let handler = Handler::start(|_| Answer::fail(503, "down"));
    let mut scene = Scene::with_source("spans", &["500ms", "1s"], 1);
    scene.handler = handler.url().to_owned();
    let config = scene.set_up();
    let traceparent = format!("00-{TRACE}-{PARENT}-01");
    let mut traced = records::plain(0, 1);
    traced.headers.push((b"traceparent".to_vec(), Some(traceparent.clone().into_bytes())));
    traced.headers.push((b"tracestate".to_vec(), Some(STATE.into())));
    let unsampled = NewRecord {
        headers: vec![(b"traceparent".to_vec(), Some(format!("00-{}-{PARENT}-00", "ab".repeat(16)).into_bytes()))],
        ..records::plain(2, 1)
    };
    RawProducer::new(&scene.brokers).write(&scene.source, &[traced, records::plain(1, 1), unsampled]);
    let mut kladder = run(&config, collector.url());
    clock::eventually("all are dead", PATIENCE, || broker::read(&scene.dlq_topic()).len() == 3);
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());

    let all = spans(&collector);
    let expected = ["deliver", "hop", "wait", "deliver", "hop", "wait", "deliver", "dead-letter"];
    let of = |trace: &str| -> Vec<Value> { all.iter().filter(|span| span["traceId"] == trace).cloned().collect() };
    let traced = of(TRACE);
    let names =
        |spans: &[Value]| -> Vec<String> { spans.iter().map(|s| s["name"].as_str().expect("a name").to_owned()).collect() };
    assert_eq!(names(&traced), expected);
    for span in &traced {
        assert_eq!((&span["parentSpanId"], &span["traceState"]), (&PARENT.into(), &STATE.into()), "{span}");
        assert_eq!(attribute(span, "kladder.ladder").as_deref(), Some(scene.ladder.as_str()));
        assert_eq!(attribute(span, "messaging.system").as_deref(), Some("kafka"));
    }
    let attempts: Vec<_> = traced.iter().filter_map(|span| attribute(span, "kladder.attempt")).collect();
    assert_eq!(attempts, ["1", "2", "3"]);
    let topics: Vec<_> =
        [1, 2, 4, 5, 7].map(|index| attribute(&traced[index], "messaging.destination.name").expect("a topic")).into();
    let wanted =
        [scene.tier_topic("500ms"), scene.redeliver_topic(), scene.tier_topic("1s"), scene.redeliver_topic(), scene.dlq_topic()];
    assert_eq!(topics, wanted);
    let waited = |index: usize| nanos(&traced[index]["endTimeUnixNano"]) - nanos(&traced[index]["startTimeUnixNano"]);
    assert!(waited(2) >= 500_000_000 && waited(5) >= 1_000_000_000, "{} and {}", waited(2), waited(5));
    assert_eq!(attribute(&traced[7], "kladder.reason").as_deref(), Some("exhausted"));
    assert_eq!(attribute(&traced[0], "error.type").as_deref(), Some("HTTP 503"));

    // The one without a header has its own trace; the one with an unsampled trace has none.
    let others: Vec<Value> = all.iter().filter(|span| span["traceId"] != TRACE).cloned().collect();
    assert_eq!(names(&others), expected);
    assert!(
        others.iter().all(|span| span["traceId"] == others[0]["traceId"] && span["parentSpanId"] == others[0]["parentSpanId"])
    );

    // The header belongs to the record on all topics.
    let dead = broker::read(&scene.dlq_topic());
    let own = dead.iter().find(|record| record.text(records::ID) == Some("r-0")).expect("its dead letter");
    assert_eq!((own.text("traceparent"), own.text("tracestate")), (Some(traceparent.as_str()), Some(STATE)));
    let calls = handler.calls();
    assert_eq!(calls.iter().filter(|call| call.header("traceparent") == Some(&traceparent)).count(), 3);
    assert_eq!(calls.iter().filter(|call| call.header("traceparent").is_none()).count(), 3);
}

#[test]
fn a_collector_that_is_away_holds_nobody_up() {
    const RECORDS: usize = 3_000;
    let handler = Handler::start(|_| Answer::ok());
    let mut scene = Scene::with_source("spans-away", &["500ms"], 1);
    scene.handler = handler.url().to_owned();
    let config = scene.set_up();
    // One that never answers, and one that is down.
    let silent = Handler::start(|_| Answer::ok().after(Duration::from_secs(600)));
    for (run_number, endpoint) in [silent.url(), "http://127.0.0.1:9/v1/traces"].into_iter().enumerate() {
        let all: Vec<NewRecord> = (0..RECORDS).map(|n| records::plain(n, 1)).collect();
        RawProducer::new(&scene.brokers).write(&scene.source, &all);
        let mut kladder = run(&config, endpoint);
        clock::eventually("all are done", PATIENCE, || {
            handler.count() == RECORDS * (run_number + 1) && broker::lag(&scene.group, &scene.source) == 0
        });
        assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
    }
}

//! The harness itself: it reads what it writes, sees what happens, and the checker finds the defects planted here.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method};
use rdkafka::producer::Producer;

use crate::support::broker::{self, GroupLine};
use crate::support::checker::{self, FAILURE, Hops, Observed, Shape};
use crate::support::handler::{Answer, Call, ClosedPort};
use crate::support::process;
use crate::support::raw::{self, NewRecord, RawProducer, Record};
use crate::support::records;
use crate::support::scene::sum_metric;

#[test]
fn hostile_records_are_read_as_they_were_written() {
    let topic = broker::unique("harness-raw");
    broker::create_topic(&topic, 3, &[]);
    let written: Vec<NewRecord> = (0..560).map(|n| records::hostile(n, 3, "some-ladder")).collect();
    RawProducer::new(broker::brokers()).write(&topic, &written);
    let read = broker::read(&topic);
    for partition in 0..3 {
        let written: Vec<&NewRecord> = written.iter().filter(|r| r.partition == partition).collect();
        let read: Vec<NewRecord> = read
            .iter()
            .filter(|r| r.partition == partition)
            .map(|r| NewRecord { partition, key: r.key.clone(), value: r.value.clone(), headers: r.headers.clone() })
            .collect();
        assert_eq!(read.iter().collect::<Vec<_>>(), written);
    }
    broker::delete_topics(&[&topic]);
}

#[test]
fn what_was_aborted_is_not_read_as_committed() {
    let topic = broker::unique("harness-txn");
    broker::create_topic(&topic, 1, &[]);
    let producer = RawProducer::with(broker::brokers(), &[("transactional.id", &topic)]);
    let timeout = Duration::from_secs(20);
    producer.transactions().init_transactions(timeout).unwrap();
    for (number, commit) in [(1, true), (2, false), (3, true)] {
        producer.transactions().begin_transaction().unwrap();
        producer.write(&topic, &[records::plain(number, 1)]);
        let ended = if commit {
            producer.transactions().commit_transaction(timeout)
        } else {
            producer.transactions().abort_transaction(timeout)
        };
        ended.unwrap();
    }
    let ids = |records: Vec<Record>| records.iter().map(|r| r.text("x-id").unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(ids(broker::read(&topic)), ["r-1", "r-3"]);
    assert_eq!(ids(raw::read_with(broker::brokers(), &topic, "read_uncommitted")), ["r-1", "r-2", "r-3"]);
    broker::delete_topics(&[&topic]);
}

#[test]
fn lag_counts_what_a_group_has_not_committed() {
    let topic = broker::unique("harness-lag");
    broker::create_topic(&topic, 2, &[]);
    RawProducer::new(broker::brokers()).write(&topic, &(0..10).map(|n| records::plain(n, 2)).collect::<Vec<_>>());
    assert_eq!(broker::lag(&topic, &topic), 10);
    broker::delete_topics(&[&topic]);
}

#[test]
fn kafkas_own_group_listing_is_understood() {
    let text = "\nGROUP TOPIC PARTITION CURRENT-OFFSET LOG-END-OFFSET LAG CONSUMER-ID HOST CLIENT-ID\n\
                g     t     0         12             12             0   -           -    -\n\
                g     t     1         -              7              -   -           -    -\n";
    let line = |partition, committed, end, lag| GroupLine { topic: "t".into(), partition, committed, end, lag };
    assert_eq!(broker::parse_group(text), [line(0, Some(12), Some(12), Some(0)), line(1, None, Some(7), None)]);
}

#[test]
fn metrics_are_summed_over_their_series() {
    let page = "# TYPE a_total counter\na_total{tier=\"1\"} 3\na_total{tier=\"2\"} 4\na_total_more 9\nb 1.5\n";
    assert_eq!(sum_metric(page, "a_total", ""), Some(7.0));
    assert_eq!(sum_metric(page, "a_total", "tier=\"2\""), Some(4.0));
    assert_eq!(sum_metric(page, "b", ""), Some(1.5));
    assert_eq!(sum_metric(page, "c", ""), None);
}

#[test]
fn the_handler_refuses_until_opened_then_answers_and_remembers() {
    let closed = ClosedPort::reserve();
    let url = closed.url();
    let post = |attempt: &str| {
        use std::io::{Read, Write};
        let address = url.strip_prefix("http://").unwrap().strip_suffix("/handle").unwrap();
        let mut stream = std::net::TcpStream::connect(address).ok()?;
        write!(stream, "POST /handle HTTP/1.0\r\nKladder-Topic: t\r\nKladder-Partition: 2\r\nKladder-Offset: 5\r\n").ok()?;
        write!(stream, "Kladder-Attempt: {attempt}\r\nContent-Length: 4\r\n\r\nbody").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    };
    assert_eq!(post("1"), None);
    let handler = closed.open(|call| if call.attempt < 2 { Answer::fail(503, FAILURE) } else { Answer::ok() });
    let first = post("1").unwrap();
    assert!(first.contains(" 503 ") && first.ends_with(FAILURE), "{first}");
    assert!(post("2").unwrap().contains(" 200 "));
    let calls = handler.calls();
    let seen: Vec<_> = calls.iter().map(|c| (c.topic.as_str(), c.partition, c.offset, c.attempt, &c.body[..])).collect();
    assert_eq!(seen, [("t", 2, 5, 1, &b"body"[..]), ("t", 2, 5, 2, &b"body"[..])]);
    assert_eq!(handler.most_open(), 1);
}

#[test]
fn the_binary_can_be_run() {
    process::kladder(&["--version"]).succeeds();
}

/// A small ladder that ran without a fault: record 0 is done at once, 1 fails once, 2 always.
fn faultless() -> (Shape, Observed) {
    let shape = Shape { ladder: "l".into(), delays: vec![Duration::from_secs(1), Duration::from_secs(2)], attempts: 3 };
    let mut observed = Observed { tiers: vec![Vec::new(); 2], ..Observed::default() };
    for number in 0..3 {
        let new = records::plain(number, 1);
        let offset = i64::try_from(number).expect("valid");
        let origin = Record {
            topic: "s".into(),
            partition: 0,
            offset,
            timestamp: 50,
            key: new.key,
            value: new.value,
            headers: new.headers,
        };
        let hop = |topic: &str, attempts: i64, timestamp: i64| {
            let mut headers = origin.headers.clone();
            let mut add = |name: &str, value: String| headers.push((format!("kladder-{name}").into(), Some(value.into())));
            add("ladder", "l".into());
            add("v", "1".into());
            add("id", format!("l/s/0/{offset}/50"));
            add("origin-topic", "s".into());
            add("origin-partition", "0".into());
            add("origin-offset", offset.to_string());
            add("origin-timestamp", "50".into());
            add("attempts", attempts.to_string());
            add("tier", attempts.min(2).to_string());
            add("first-failed-at", "100".into());
            add("last-failed-at", timestamp.to_string());
            add("error-class", "HTTP 503".into());
            add("error-status", "503".into());
            add("error-message", FAILURE.into());
            add("redrives", "0".into());
            add("history", vec!["100,0,HTTP 503"; usize::try_from(attempts).expect("valid")].join(";"));
            if topic == "dlq" {
                add("reason", "exhausted".into());
            }
            Record { topic: topic.into(), timestamp, headers, ..origin.clone() }
        };
        let failures = failures(number);
        if failures >= 1 {
            observed.tiers[0].push(hop("retry-1s", 1, 100));
            observed.redeliver.push(hop("redeliver", 1, 1100));
        }
        if failures >= 2 {
            observed.tiers[1].push(hop("retry-2s", 2, 1200));
            observed.redeliver.push(hop("redeliver", 2, 3200));
            observed.dlq.push(hop("dlq", 3, 3300));
        }
        for attempt in 1..=shape.calls(failures) {
            let mut headers = HeaderMap::new();
            headers.insert("idempotency-key", HeaderValue::from_str(&format!("\"l/s/0/{offset}/50\"")).expect("valid"));
            observed.calls.push(Call {
                method: Method::POST,
                headers,
                body: origin.value.clone().expect("valid").into(),
                topic: "s".into(),
                partition: 0,
                offset,
                attempt,
            });
        }
        observed.source.push(origin);
    }
    (shape, observed)
}

fn failures(number: usize) -> u32 {
    [0, 1, u32::MAX][number]
}

#[test]
fn the_checker_is_content_with_a_faultless_run() {
    let (shape, observed) = faultless();
    let report = checker::check(&shape, Hops::ExactlyOnce, &observed, failures);
    report.assert_no_faults();
    assert_eq!(report.extra_calls, 0);
}

#[test]
fn the_checker_finds_every_planted_defect() {
    fn set(record: &mut Record, name: &str, value: Option<&str>) {
        record.headers.retain(|(n, _)| n != name.as_bytes());
        record.headers.extend(value.map(|v| (name.into(), Some(v.into()))));
    }
    type Plant = fn(&mut Observed);
    let defects: [(&str, &str, Plant); 20] = [
        ("lost in a tier", "tier 1: r-1 is missing", |o| o.tiers[0].retain(|r| r.offset != 1)),
        ("lost on its way back", "redeliver: r-2 is missing after attempt 2", |o| drop(o.redeliver.pop())),
        ("lost at the end", "dlq: r-2 is missing", |o| o.dlq.clear()),
        ("doubled in a tier", "tier 2: r-2 stands there 2 times", |o| o.tiers[1].extend_from_within(0..1)),
        ("doubled in the DLQ", "dlq: r-2 stands there 2 times", |o| o.dlq.extend_from_within(0..1)),
        ("a tier skipped", "tier 2: r-1 must not be there", |o| {
            let skipped = o.tiers[0].remove(0);
            o.tiers[1].push(skipped);
        }),
        ("dead-lettered without need", "dlq: r-1 must not be there", |o| o.dlq.push(o.redeliver[0].clone())),
        ("early", "r-1 is early after attempt 1: 999 ms of 1000", |o| o.redeliver[0].timestamp -= 1),
        ("attempts lost", "redeliver: r-2 is missing after attempt 2", |o| {
            set(&mut o.redeliver[2], "kladder-attempts", Some("1"));
        }),
        ("attempts unreadable", "no readable kladder-attempts", |o| set(&mut o.dlq[0], "kladder-attempts", None)),
        ("null became empty", "redeliver: r-1 has another value", |o| o.redeliver[0].value = None),
        ("another key", "tier 1: r-1 has another key", |o| o.tiers[0][0].key = None),
        ("a user header dropped", "r-2 has other user headers", |o| {
            for topic in [&mut o.source, &mut o.dlq] {
                let record = topic.last_mut().unwrap();
                record.headers.insert(0, (b"\xff".to_vec(), None));
            }
            o.dlq[0].headers.remove(0);
        }),
        ("headers appended, not replaced", "has kladder-attempts twice", |o| {
            o.dlq[0].headers.push((b"kladder-attempts".to_vec(), Some(b"3".to_vec())));
        }),
        ("a wrong origin", "kladder-origin-offset", |o| set(&mut o.tiers[0][0], "kladder-origin-offset", Some("9"))),
        ("no reason", "dlq: r-2 has kladder-reason None", |o| set(&mut o.dlq[0], "kladder-reason", None)),
        ("no error message", "dlq: r-2 has kladder-error-message None", |o| {
            set(&mut o.dlq[0], "kladder-error-message", None);
        }),
        ("an attempt that never was", "never called for r-2, attempt 3", |o| drop(o.calls.pop())),
        ("an attempt too many", "called for r-0, attempt 2", |o| {
            let call = Call { attempt: 2, ..o.calls[0].clone() };
            o.calls.push(call);
        }),
        ("another body", "r-0 came with another body", |o| o.calls[0].body = "x".into()),
    ];
    for (name, expected, plant) in defects {
        let (shape, mut observed) = faultless();
        plant(&mut observed);
        let faults = checker::check(&shape, Hops::ExactlyOnce, &observed, failures).faults;
        assert!(faults.iter().any(|f| f.contains(expected)), "{name} was not found as {expected:?}, but: {faults:#?}");
    }
}

#[test]
fn the_checker_allows_doubles_only_at_least_once_and_counts_calls_beyond_the_plan() {
    let (shape, mut observed) = faultless();
    observed.dlq.extend_from_within(0..1);
    observed.calls.push(observed.calls[0].clone());
    let report = checker::check(&shape, Hops::AtLeastOnce, &observed, failures);
    report.assert_no_faults();
    assert_eq!(report.extra_calls, 1);
}

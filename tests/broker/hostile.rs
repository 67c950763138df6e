//! Headers written by others: another ladder's, malformed ones, those of other frameworks. They neither cost nor add attempts, and
//! users' headers are unchanged.

use std::collections::{BTreeMap, HashMap};

use crate::support::broker;
use crate::support::checker::{self, FAILURE, Hops};
use crate::support::clock::{self, PATIENCE};
use crate::support::handler::{Answer, Call, Handler};
use crate::support::process::Kladder;
use crate::support::raw::{Headers, NewRecord, RawProducer, Record};
use crate::support::records;
use crate::support::scene::Scene;

const PARTITIONS: i32 = 3;
const TIERS: [&str; 2] = ["500ms", "1s"];
const FULL: [u32; 3] = [1, 2, 3];

#[test]
fn whatever_headers_a_source_carries_each_record_gets_its_full_attempts() {
    climb_with_all_headers("hostile-source", 300, Hops::ExactlyOnce);
}

#[test]
fn at_least_once_whatever_headers_a_source_carries_nothing_is_lost() {
    // Two of each kind.
    climb_with_all_headers("hostile-alo", 96, Hops::AtLeastOnce);
}

fn climb_with_all_headers(theme: &str, count: usize, hops: Hops) {
    let handler = Handler::start(|_| Answer::fail(503, FAILURE));
    let mut scene = Scene::with_source(theme, &TIERS, PARTITIONS);
    scene.ask_for(hops);
    handler.url().clone_into(&mut scene.handler);
    let config = scene.set_up();
    let cases = cases(&scene.ladder);
    let written: Vec<NewRecord> = (0..count).map(|n| record(n, &cases[n % cases.len()].headers)).collect();
    RawProducer::new(&scene.brokers).write(&scene.source, &written);
    let mut kladder = Kladder::run(&config);
    clock::eventually("all are dead", PATIENCE * 2, || {
        kladder.assert_running();
        broker::read(&scene.dlq_topic()).len() >= count && broker::lag(&scene.group, &scene.redeliver_topic()) == 0
    });
    assert_eq!(scene.metric("kladder_malformed_headers_total", ""), Some(0.0), "on a source they are not looked at");
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
    let observed = scene.observe(&handler);
    assert_eq!(observed.source.len(), count);
    let report = checker::check(&scene.shape(), hops, &observed, |_| u32::MAX);
    report.assert_no_faults();
    assert_eq!(report.extra_calls, 0);
    println!("{count} records with {} kinds of headers on the source: {} calls", cases.len(), observed.calls.len());
}

#[test]
fn in_the_ladders_own_topics_only_a_sound_envelope_of_this_ladder_counts() {
    let handler = Handler::start(|_| Answer::fail(503, FAILURE));
    let mut scene = Scene::with_source("hostile-tier", &TIERS, PARTITIONS);
    scene.handler = handler.url().to_owned();
    let config = scene.set_up();
    let cases = cases(&scene.ladder);
    let places = [scene.tier_topic(TIERS[0]), scene.tier_topic(TIERS[1]), scene.redeliver_topic()];
    let mut written: Vec<(&Case, NewRecord)> = Vec::new();
    for place in &places {
        let numbers = written.len()..written.len() + cases.len();
        written.extend(cases.iter().zip(numbers).map(|(case, number)| (case, record(number, &case.headers))));
        let here: Vec<NewRecord> = written[written.len() - cases.len()..].iter().map(|(_, record)| record.clone()).collect();
        RawProducer::new(&scene.brokers).write(place, &here);
    }
    let mut kladder = Kladder::run(&config);
    clock::eventually("all are dead", PATIENCE * 2, || {
        kladder.assert_running();
        broker::read(&scene.dlq_topic()).len() >= written.len()
            && broker::lag(&scene.group, &scene.redeliver_topic()) == 0
            && TIERS.iter().all(|tier| broker::lag(&scene.mover_group(), &scene.tier_topic(tier)) == 0)
    });
    let malformed = written.iter().filter(|(case, _)| case.malformed).count();
    let told = scene.metric("kladder_malformed_headers_total", "").expect("a metric");
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());

    let mut attempts: HashMap<String, Vec<u32>> = HashMap::new();
    let calls = handler.calls();
    for call in &calls {
        attempts.entry(id_of(call)).or_default().push(call.attempt);
        assert!(!call.headers.contains_key("x-injected"), "a record wrote a header of its own into the request: {call:?}");
    }
    let dlq = broker::read(&scene.dlq_topic());
    let mut found: BTreeMap<String, Vec<Record>> = BTreeMap::new();
    for topic in places.iter().chain([&scene.dlq_topic()]) {
        for record in broker::read(topic) {
            found.entry(record.text(records::ID).expect("an id").to_owned()).or_default().push(record);
        }
    }
    let mut faults = Vec::new();
    for (number, (case, record)) in written.iter().enumerate() {
        let (id, place) = (format!("r-{number}"), &places[number / cases.len()]);
        let mut fault = |what: String| faults.push(format!("{} on {place}: {what}", case.name));
        if attempts.get(&id).map(Vec::as_slice) != Some(case.attempts) {
            fault(format!("attempts {:?}, not {:?}", attempts.get(&id), case.attempts));
        }
        for copy in &found[&id] {
            if copy.key != record.key || copy.value != record.value || users(&copy.headers) != users(&record.headers) {
                fault(format!("is another record in {}", copy.topic));
            }
        }
        let dead: Vec<&Record> = dlq.iter().filter(|r| r.text(records::ID) == Some(&id)).collect();
        let [dead] = dead.as_slice() else {
            fault(format!("stands {} times in the DLQ", dead.len()));
            continue;
        };
        let last = case.attempts.last().map(|last| i64::from(*last));
        if dead.text("kladder-reason") != Some("exhausted") || dead.number("kladder-attempts") != last {
            fault(format!("is dead with {:?}, not after {last:?} attempts", dead.text("kladder-attempts")));
        }
        let mut own: Vec<&[u8]> = dead.headers.iter().map(|(n, _)| n.as_slice()).filter(|n| n.starts_with(b"kladder-")).collect();
        own.sort_unstable();
        let all = own.len();
        own.dedup();
        if own.len() != all || dead.text("kladder-ladder") != Some(&scene.ladder) || own.contains(&&b"kladder-future-name"[..]) {
            fault("keeps control headers that are not its own".to_owned());
        }
    }
    assert!(faults.is_empty(), "{} faults: {faults:#?}", faults.len());
    assert!((told - f64::from(u32::try_from(malformed).expect("few"))).abs() < 0.5, "{malformed} malformed, {told} told");
    println!("{} records in {} kinds, {malformed} of them malformed: {} calls", written.len(), cases.len(), calls.len());
}

fn id_of(call: &Call) -> String {
    call.header("kladder-header-x-id").expect("an id").to_owned()
}

fn users(headers: &Headers) -> Vec<(&[u8], Option<&[u8]>)> {
    headers.iter().map(|(n, v)| (n.as_slice(), v.as_deref())).filter(|(n, _)| !n.starts_with(b"kladder-")).collect()
}

/// A plain record with these headers around its id.
fn record(number: usize, headers: &Headers) -> NewRecord {
    let plain = records::plain(number, PARTITIONS);
    let (before, after) = headers.split_at(headers.len().min(1));
    NewRecord { headers: [before, &plain.headers, after].concat(), ..plain }
}

/// Headers, and what happens to the record on a topic of the ladder.
struct Case {
    name: &'static str,
    headers: Headers,
    attempts: &'static [u32],
    /// Counted as malformed.
    malformed: bool,
}

fn cases(ladder: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name, headers, attempts, malformed| cases.push(Case { name, headers, attempts, malformed });
    let own = || envelope(ladder);

    add("none", Headers::new(), &FULL[..], false);
    add("another ladder's", envelope("another-ladder"), &FULL, false);
    add("another ladder's, malformed", with(envelope("another-ladder"), "v", b"99"), &FULL, false);
    add("without a ladder", without(own(), "ladder"), &FULL, false);
    add("of a ladder whose name begins alike", envelope(&format!("{ladder}-2")), &FULL, false);
    add("this ladder's, then another's", twice(own(), "ladder", b"another-ladder"), &FULL, false);

    add("sound", own(), &[2, 3], false);
    add("sound, of names to come", twice(own(), "future-name", b"?"), &[2, 3], false);
    add("a tier that is gone", with(own(), "tier", b"99"), &[2, 3], false);
    add("more attempts than any ladder has", with(own(), "attempts", b"32767"), &[32768], false);
    add("the most attempts that can be counted", with(own(), "attempts", b"4294967295"), &[u32::MAX], false);
    add("not before the beginning of time", with(own(), "not-before", b"-9223372036854775808"), &[2, 3], false);
    add("failed at the end of time", with(own(), "last-failed-at", b"9223372036854775807"), &[2, 3], false);
    add("from the end of time", with(own(), "origin-timestamp", b"9223372036854775807"), &[2, 3], false);
    add("an id that would be more headers", with(own(), "id", "a\"\r\nX-Injected: yes\r\n\\\u{fc}".as_bytes()), &[2, 3], false);
    add("an origin that would be more headers", with(own(), "origin-topic", b"a\r\nX-Injected: yes"), &[2, 3], false);

    let unsound: [(&str, &str, &[u8]); 18] = [
        ("attempts of -1", "attempts", b"-1"),
        ("more attempts than can be counted", "attempts", b"4294967296"),
        ("attempts with a sign", "attempts", b"+1"),
        ("attempts with a zero before", "attempts", b"01"),
        ("attempts with a blank", "attempts", b"1 "),
        ("attempts in binary", "attempts", &[0, 0, 0, 1]),
        ("no digits", "attempts", b""),
        ("bytes that are no text", "error-message", b"\xff\xfe"),
        ("another version", "v", b"2"),
        ("no version", "v", b""),
        ("not before the day after the limit", "not-before", b"99999999999999"),
        ("not before the end of time", "not-before", b"9223372036854775807"),
        ("a partition too many", "origin-partition", b"2147483648"),
        ("no id", "id", b""),
        ("an id longer than a server's patience", "id", &[b'i'; 16_000]),
        ("an origin longer than a topic's name", "origin-topic", &[b't'; 16_000]),
        ("a reason that is none", "reason", b"because"),
        ("a history that is none", "history", b"1,2"),
    ];
    for (name, header, value) in unsound {
        add(name, with(own(), header, value), &FULL, true);
    }
    add("a null", null(own(), "attempts"), &FULL, true);
    add("a null for the ladder", null(own(), "ladder"), &FULL, true);
    add("attempts missing", without(own(), "attempts"), &FULL, true);
    add("doubled", twice(own(), "attempts", b"1"), &FULL, true);
    add("doubled whole", [own(), own()].concat(), &FULL, true);
    add("another ladder's, then this one's", [envelope("another-ladder"), own()].concat(), &FULL, true);
    let many = |name: &dyn Fn(usize) -> String| -> Headers { (0..10_000).map(|n| (name(n).into(), some(b"1"))).collect() };
    add("10,000 headers", [own(), many(&|n| format!("h-{}", n % 9_000))].concat(), &[2, 3], false);
    add("10,000 times the same", [own(), many(&|_| "kladder-attempts".to_owned())].concat(), &FULL, true);
    add("10,000 of names to come", [own(), many(&|n| format!("kladder-{n}"))].concat(), &[2, 3], false);

    add("Spring's retry topics", spring_retry(&3_i32.to_be_bytes(), &[0x01, 0x93, 0x5f, 0x2c, 0x40, 0x00]), &FULL, false);
    add("Spring's, of old", spring_retry(&[3], &i64::MAX.to_be_bytes()), &FULL, false);
    add("Spring's, malformed", spring_retry(&[0xff; 9], b"soon"), &FULL, false);
    add("Spring's beside our own", [own(), spring_retry(&30_000_i32.to_be_bytes(), &[0x7f; 8])].concat(), &[2, 3], false);
    add("Spring's dead letters", spring_dead_letter(), &FULL, false);
    cases
}

/// A valid envelope of a record that has failed once.
fn envelope(ladder: &str) -> Headers {
    let fields = [
        ("ladder", ladder),
        ("v", "1"),
        ("id", "elsewhere/7/70/700"),
        ("origin-topic", "elsewhere"),
        ("origin-partition", "7"),
        ("origin-offset", "70"),
        ("origin-timestamp", "700"),
        ("attempts", "1"),
        ("tier", "1"),
        ("first-failed-at", "700"),
        ("last-failed-at", "700"),
        ("error-class", "HTTP 503"),
        ("error-status", "503"),
        ("redrives", "0"),
        ("history", "700,0,HTTP 503"),
    ];
    fields.map(|(name, value)| (own_name(name), some(value.as_bytes()))).to_vec()
}

fn own_name(name: &str) -> Vec<u8> {
    format!("kladder-{name}").into_bytes()
}

#[expect(clippy::unnecessary_wraps, reason = "the value of a header may be null")]
fn some(value: &[u8]) -> Option<Vec<u8>> {
    Some(value.to_vec())
}

fn without(mut headers: Headers, name: &str) -> Headers {
    headers.retain(|(n, _)| *n != own_name(name));
    headers
}

fn with(headers: Headers, name: &str, value: &[u8]) -> Headers {
    twice(without(headers, name), name, value)
}

fn twice(mut headers: Headers, name: &str, value: &[u8]) -> Headers {
    headers.push((own_name(name), some(value)));
    headers
}

fn null(headers: Headers, name: &str) -> Headers {
    let mut headers = without(headers, name);
    headers.push((own_name(name), None));
    headers
}

fn spring_retry(attempts: &[u8], backoff: &[u8]) -> Headers {
    let named = |name: &str, value: &[u8]| (name.into(), some(value));
    vec![
        named("retry_topic-attempts", attempts),
        named("retry_topic-backoff-timestamp", backoff),
        named("retry_topic-original-timestamp", &[0x01, 0x93, 0x5f, 0x2c, 0x00, 0x00]),
        named("kafka_original-topic", b"orders"),
        named("kafka_original-partition", &7_i32.to_be_bytes()),
        named("kafka_original-offset", &70_i64.to_be_bytes()),
        named("kafka_original-timestamp", &700_i64.to_be_bytes()),
        named("kafka_original-timestamp-type", b"CreateTime"),
        named("kafka_dlt-original-consumer-group", b"billing"),
        named("kafka_exception-fqcn", b"org.springframework.kafka.listener.ListenerExecutionFailedException"),
        named("kafka_exception-message", b"listener failed"),
        named("retry_topic-attempts", attempts),
        named("retry_topic-backoff-timestamp", backoff),
    ]
}

fn spring_dead_letter() -> Headers {
    let named = |name: &str, value: &[u8]| (name.into(), some(value));
    vec![
        named("kafka_dlt-original-topic", b"orders"),
        named("kafka_dlt-original-partition", &7_i32.to_be_bytes()),
        named("kafka_dlt-original-offset", &70_i64.to_be_bytes()),
        named("kafka_dlt-original-timestamp", &700_i64.to_be_bytes()),
        named("kafka_dlt-original-timestamp-type", b"LogAppendTime"),
        named("kafka_dlt-original-consumer-group", b"billing"),
        named("kafka_dlt-exception-fqcn", b"java.lang.IllegalStateException"),
        named("kafka_dlt-exception-cause-fqcn", b"java.lang.NullPointerException"),
        named("kafka_dlt-exception-stacktrace", "\tat a.B.c(B.java:1)\n".repeat(200).as_bytes()),
        (b"kafka_dlt-key-exception-message".to_vec(), None),
    ]
}

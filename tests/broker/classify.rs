//! Rules of the configuration: what happens to records depends on their failures.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use crate::support::broker;
use crate::support::clock::{self, PATIENCE};
use crate::support::handler::{Answer, Handler};
use crate::support::process::{self, Kladder};
use crate::support::raw::{NewRecord, RawProducer, Record};
use crate::support::records;
use crate::support::scene::Scene;

/// One rule of each kind.
const RULES: &str = r#"
classify = [
  { name = "unparseable", when = { status = 422, header = { kind = "refund" } }, then = "reject", dlq = "parse" },
  { when = { error_class = { prefix = "Bank" }, message = "closed until [0-9]+" }, then = "retry", from_tier = 2, attempts = 2 },
  { when = { status = ["404", "410-411"] }, then = "done" },
  { when = { error_class = "Overworked" }, then = "reject" },
]"#;

/// Number, attempts, reason and tier of the records of a topic, by their ids.
fn seen(topic: &str) -> BTreeMap<String, (Option<i64>, Option<String>)> {
    let told = |r: &Record| (r.number("kladder-attempts"), r.text("kladder-reason").map(str::to_owned));
    broker::read(topic).iter().map(|r| (r.text(records::ID).expect("an id").to_owned(), told(r))).collect()
}

fn dead(id: &str, attempts: i64, reason: &str) -> (String, (Option<i64>, Option<String>)) {
    (id.to_owned(), (Some(attempts), Some(reason.to_owned())))
}

fn refund(number: usize) -> NewRecord {
    let mut record = records::plain(number, 1);
    record.headers.push(("kind".into(), Some(b"refund".to_vec())));
    record
}

#[test]
fn the_first_rule_that_holds_decides_what_becomes_of_an_answer() {
    let handler = Handler::start(|call| match (call.offset, call.attempt) {
        // The first with the header that the rule matches, the second without.
        (0 | 1, _) => Answer::fail(422, "no JSON"),
        (2, _) => Answer::fail(503, "closed until 9").with("kladder-error-class", "BankClosed"),
        (3, _) => Answer::fail(404, "no such order"),
        (4, 1) => Answer::fail(500, "closed until 9"),
        (5, _) => Answer::fail(500, "too much").with("kladder-verdict", "retry").with("kladder-error-class", "Overworked"),
        _ => Answer::ok(),
    });
    let mut scene = Scene::with_source("classify", &["500ms", "1s"], 1);
    scene.handler = handler.url().to_owned();
    scene.settings.push_str(RULES);
    let config = scene.set_up();
    let written: Vec<NewRecord> = [refund(0)].into_iter().chain((1..6).map(|n| records::plain(n, 1))).collect();
    RawProducer::new(&scene.brokers).write(&scene.source, &written);
    let mut kladder = Kladder::run(&config);
    clock::eventually("all are done or dead", PATIENCE, || {
        handler.count() >= 8
            && broker::read(&scene.dlq_topic()).len() >= 3
            && broker::lag(&scene.group, &scene.redeliver_topic()) == 0
            && broker::lag(&scene.group, &scene.source) == 0
    });
    let attempts: Vec<usize> = (0..6).map(|offset| handler.calls().iter().filter(|c| c.offset == offset).count()).collect();
    assert_eq!(attempts, [1, 1, 2, 1, 2, 1]);
    let own = format!("{}.dlq-parse", scene.ladder);
    assert_eq!(seen(&own), BTreeMap::from([dead("r-0", 1, "rejected")]));
    let expected = [dead("r-1", 1, "rejected"), dead("r-2", 2, "exhausted"), dead("r-5", 1, "rejected")];
    assert_eq!(seen(&scene.dlq_topic()), BTreeMap::from(expected));
    let waited = |tier: &str| seen(&scene.tier_topic(tier)).into_keys().collect::<Vec<_>>();
    assert_eq!((waited("500ms"), waited("1s")), (vec!["r-4".to_owned()], vec!["r-2".to_owned()]), "from_tier = 2");
    let counted = |rule: &str, then: &str| {
        assert!(scene.metric("kladder_classified_total", &format!("rule=\"{rule}\",then=\"{then}\"")).is_some(), "{rule} {then}");
        scene.metric("kladder_classified_total", &format!("rule=\"{rule}\"")).unwrap_or(-1.0)
    };
    let counts = [counted("unparseable", "reject"), counted("2", "retry"), counted("3", "done"), counted("4", "reject")];
    assert_eq!(counts.map(|count| count.to_string()), ["1", "2", "1", "1"]);
    let status = process::kladder(&["status", "-c", config.to_str().expect("text")]);
    assert!(status.stdout.contains(&format!("{own} (dead letters)")), "{status}");
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
}

#[test]
fn rules_hold_for_what_an_application_puts_into_the_inbox() {
    let mut scene = Scene::of_relay("classify-relay", &["500ms", "1s"], 1);
    scene.settings.push_str(RULES);
    let config = scene.set_up();
    let failed = |mut record: NewRecord, class: &str, message: &str, status: &str| {
        let said = [("kladder-error-class", class), ("kladder-error-message", message), ("kladder-error-status", status)];
        record.headers.extend(said.map(|(name, value)| (name.into(), Some(value.as_bytes().to_vec()))));
        record
    };
    let inbox = [
        failed(refund(0), "ParseError", "no JSON", "422"),
        failed(records::plain(1, 1), "BankClosed", "closed until 9", "503"),
        failed(records::plain(2, 1), "NoSuchOrder", "", "411"),
        failed(records::plain(3, 1), "Timeout", "no answer", "504"),
    ];
    RawProducer::new(&scene.brokers).write(&scene.inbox_topic(), &inbox);
    let mut kladder = Kladder::run(&config);
    clock::eventually("two come back", PATIENCE, || {
        broker::read(&scene.redeliver_topic()).len() == 2
            && broker::lag(&format!("{}.router", scene.ladder), &scene.inbox_topic()) == 0
    });
    assert_eq!(seen(&format!("{}.dlq-parse", scene.ladder)), BTreeMap::from([dead("r-0", 1, "rejected")]));
    assert!(broker::read(&scene.dlq_topic()).is_empty());
    let waited = |tier: &str| seen(&scene.tier_topic(tier)).into_keys().collect::<Vec<_>>();
    assert_eq!((waited("500ms"), waited("1s")), (vec!["r-3".to_owned()], vec!["r-1".to_owned()]));
    assert_eq!(scene.metric("kladder_classified_total", "rule=\"3\",then=\"done\""), Some(1.0));
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
}

#[test]
fn what_would_come_back_too_late_is_dead_as_expired() {
    let handler = Handler::start(|_| Answer::fail(503, "busy"));
    let mut scene = Scene::with_source("max-age", &["500ms", "1s"], 1);
    scene.handler = handler.url().to_owned();
    scene.settings.push_str("\nattempts = 100\nmax_age = \"4s\"");
    let config = scene.set_up();
    let mut kladder = Kladder::run(&config);
    scene.await_ready();
    RawProducer::new(&scene.brokers).write(&scene.source, &[records::plain(0, 1)]);
    clock::eventually("it has expired", PATIENCE, || broker::read(&scene.dlq_topic()).len() == 1);
    let letter = &broker::read(&scene.dlq_topic())[0];
    assert_eq!(letter.text("kladder-reason"), Some("expired"));
    // At 0 s, 0.5 s, 1.5 s, 2.5 s and 3.5 s, or a little later; a failure after 3 s would be due after 4.
    let (attempts, first) = (letter.number("kladder-attempts").expect("attempts"), letter.number("kladder-first-failed-at"));
    assert!((4..=5).contains(&attempts), "{attempts} attempts");
    let last = letter.number("kladder-last-failed-at").expect("a time");
    assert!(last + 1_000 > first.expect("a time") + 4_000, "given up although there was time");
    assert_eq!(scene.metric("kladder_dead_letters_total", "reason=\"expired\""), Some(1.0));
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
}

#[test]
fn a_backlog_comes_back_no_faster_than_max_rate_allows() {
    const RECORDS: usize = 400;
    let mut scene = Scene::of_relay("max-rate", &["500ms"], 3);
    scene.settings.push_str("\nmax_rate = \"100/s\"");
    let config = scene.set_up();
    let records: Vec<NewRecord> = (0..RECORDS).map(|n| records::plain(n, 3)).collect();
    RawProducer::new(&scene.brokers).write(&scene.tier_topic("500ms"), &records);
    std::thread::sleep(Duration::from_millis(600));
    // The limit applies to both together.
    let (other, _) = scene.write_worker("worker-2");
    let mut movers = [&config, &other].map(|config| Kladder::run(config));
    clock::eventually("all come back", PATIENCE, || broker::read(&scene.redeliver_topic()).len() == RECORDS);
    let mut times: Vec<i64> = broker::read(&scene.redeliver_topic()).iter().map(|r| r.timestamp).collect();
    times.sort_unstable();
    // A tenth of a second's records go at once, for each mover and again when partitions move; beyond that the rate
    // applies.
    let within = |from: i64| times.iter().filter(|at| (from..from + 1_000).contains(*at)).count();
    let most = times.iter().map(|from| within(*from)).max().expect("records");
    assert!(most <= 150, "{most} within a second");
    let took = times[RECORDS - 1] - times[0];
    assert!(took >= 3_000, "{took} ms");
    for mover in &mut movers {
        assert_eq!(mover.terminate(PATIENCE).code(), Some(0), "its log:\n{}", mover.log());
    }
}

#[test]
fn a_blip_is_tried_again_in_place_and_burns_no_attempt() {
    let calls = Mutex::new(BTreeMap::<i64, u32>::new());
    let handler = Handler::start(move |call| {
        let mut calls = calls.lock().expect("nobody panicked");
        let tries = calls.entry(call.offset).or_default();
        *tries += 1;
        match (call.offset, *tries) {
            // Expired at once; retried for one attempt; with a retry time; rejected.
            (0, 1 | 2) | (1, 1..=3) => Answer::fail(503, "busy"),
            (2, 1) => Answer::fail(503, "busy").with("retry-after", "1"),
            (3, _) => Answer::fail(400, "bad"),
            _ => Answer::ok(),
        }
    });
    let mut scene = Scene::with_source("immediate", &["500ms", "1s"], 1);
    scene.handler = handler.url().to_owned();
    scene.settings.push_str("\nimmediate = { attempts = 2, backoff = \"50ms\" }");
    let config = scene.set_up();
    RawProducer::new(&scene.brokers).write(&scene.source, &(0..4).map(|n| records::plain(n, 1)).collect::<Vec<_>>());
    let mut kladder = Kladder::run(&config);
    clock::eventually("all are done or dead", PATIENCE, || {
        handler.count() >= 10 && broker::lag(&scene.group, &scene.redeliver_topic()) == 0
    });
    let attempts = |offset: i64| handler.calls().iter().filter(|c| c.offset == offset).map(|c| c.attempt).collect::<Vec<u32>>();
    assert_eq!([0, 1, 2, 3].map(attempts), [vec![1, 1, 1], vec![1, 1, 1, 2], vec![1, 2], vec![1]]);
    let waited = broker::read(&scene.tier_topic("500ms"));
    let told: Vec<_> =
        waited.iter().map(|r| (r.text(records::ID), r.number("kladder-attempts"), r.number("kladder-immediate"))).collect();
    assert_eq!(told, [(Some("r-1"), Some(1), Some(2))]);
    let asked = broker::read(&scene.tier_topic("1s"));
    assert_eq!((asked.len(), asked[0].text(records::ID), asked[0].text("kladder-immediate")), (1, Some("r-2"), None));
    assert_eq!(scene.metric("kladder_immediate_retries_total", ""), Some(4.0));
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
}

//! Relay to the origin: what is due goes back to the topic and partition that it came from, or, where it has none, to the DLQ.

use std::path::PathBuf;

use crate::support::broker;
use crate::support::clock::{self, PATIENCE};
use crate::support::process::{self, Kladder};
use crate::support::raw::{Headers, NewRecord, RawProducer, Record};
use crate::support::records;
use crate::support::scene::{Scene, path};

const DELAY_MILLIS: i64 = 1_000;

/// What other frameworks would act on.
const FOREIGN: [&str; 7] = [
    "retry_topic-attempts",
    "kafka_dlt-original-topic",
    "kafka_original-offset",
    "__connect.errors.topic",
    "__streams.errors.message",
    "__dlq.errors.group",
    "delayed-retry-count",
];

/// A relay ladder that redelivers to the origin.
struct Relay {
    scene: Scene,
    config: PathBuf,
}

impl Relay {
    fn set_up(theme: &str, partitions: i32, source: &[(&str, &str)], settings: &str) -> Self {
        let mut scene = Scene::new(theme, &["1s", "2s"]);
        broker::create_topic(&scene.source, partitions, source);
        scene.settings =
            format!("mode = \"relay\"\nredeliver = \"origin\"\nreaches_all_groups = true\ntopics.partitions = 2\n{settings}");
        // So that a larger record needs more room for certain.
        scene.kafka.push_str("producer.compression.type = \"none\"");
        let text = scene.toml();
        let handler = text.find(&format!("[ladder.{}.handler]", scene.ladder)).expect("a handler");
        let config = scene.write_text(&text[..handler]);
        process::kladder(&["setup", "-c", path(&config), "--yes"]).succeeds();
        Self { scene, config }
    }

    fn run_mover(&self) -> Kladder {
        Kladder::start(&["run", "-c", path(&self.config), "--role", "mover"], &self.config.with_extension("log"))
    }

    fn write(&self, tier: &str, records: &[NewRecord]) {
        RawProducer::new(&self.scene.brokers).write(&self.scene.tier_topic(tier), records);
    }

    /// The ladder's envelope of a record that failed once.
    fn envelope(&self, origin_topic: &str, origin_partition: i32, number: usize) -> Headers {
        let ladder = &self.scene.ladder;
        [
            ("ladder", ladder.clone()),
            ("v", "1".to_owned()),
            ("id", format!("{ladder}/{origin_topic}/{origin_partition}/{number}/50")),
            ("origin-topic", origin_topic.to_owned()),
            ("origin-partition", origin_partition.to_string()),
            ("origin-offset", number.to_string()),
            ("origin-timestamp", "50".to_owned()),
            ("attempts", "1".to_owned()),
            ("tier", "1".to_owned()),
            ("first-failed-at", "100".to_owned()),
            ("last-failed-at", "100".to_owned()),
            ("error-class", "Timeout".to_owned()),
            ("redrives", "0".to_owned()),
            ("error-message", "too slow".to_owned()),
            ("history", "100,0,Timeout".to_owned()),
            ("error-stack", "at a\nat b".to_owned()),
        ]
        .into_iter()
        .map(|(name, value)| (format!("kladder-{name}").into_bytes(), Some(value.into_bytes())))
        .collect()
    }

    fn await_empty(&self, kladder: &mut Kladder) {
        for tier in ["1s", "2s"] {
            clock::eventually("the tier is empty", PATIENCE, || {
                kladder.assert_running();
                broker::lag(&self.scene.mover_group(), &self.scene.tier_topic(tier)) == 0
            });
        }
    }

    fn dead_letters(&self) -> Vec<Record> {
        broker::read(&self.scene.dlq_topic())
    }
}

fn is_kladders(name: &[u8]) -> bool {
    name.starts_with(b"kladder-")
}

fn without(headers: &Headers, unwanted: impl Fn(&[u8]) -> bool) -> Headers {
    headers.iter().filter(|(name, _)| !unwanted(name)).cloned().collect()
}

fn id_of(record: &Record) -> usize {
    record.text(records::ID).and_then(records::number_of).expect("an id")
}

/// Records of all kinds from more partitions than the source has by now go back byte for byte.
fn goes_back(theme: &str, settings: &str) {
    let relay = Relay::set_up(theme, 3, &[], settings);
    let source = relay.scene.source.clone();
    let written: Vec<NewRecord> = (0..280)
        .map(|number| {
            // Of the kinds whose headers look like kladder's own the application's copy is no part of this.
            let mut record = records::hostile(number, 2, "another");
            record.headers = without(&record.headers, is_kladders);
            record.headers.insert(0, (FOREIGN[number % FOREIGN.len()].into(), Some(b"\0\0\0\x02".to_vec())));
            record.headers.extend(relay.envelope(&source, i32::try_from(number % 5).expect("few"), number));
            record
        })
        .collect();
    relay.write("1s", &written);
    let mut kladder = relay.run_mover();
    clock::eventually("all are back", PATIENCE, || {
        kladder.assert_running();
        broker::read(&source).len() >= written.len()
    });
    relay.await_empty(&mut kladder);

    let waited = broker::read(&relay.scene.tier_topic("1s"));
    let back = broker::read(&source);
    assert_eq!(back.len(), written.len(), "each once");
    for record in &back {
        let number = id_of(record);
        let before = &written[number];
        assert_eq!((&record.key, &record.value), (&before.key, &before.value), "{number}");
        let unchanged = without(&before.headers, |name| FOREIGN.iter().any(|f| f.as_bytes() == name) || is_kladders(name));
        assert_eq!(without(&record.headers, is_kladders), unchanged, "{number}");
        let envelope = without(&before.headers, |name| !is_kladders(name));
        let kept = without(&record.headers, |name| !is_kladders(name));
        let sorted = |mut headers: Headers| {
            headers.sort();
            headers
        };
        assert_eq!(sorted(kept), sorted(envelope), "a copy of it counts on: {number}");
        assert_eq!(record.partition, i32::try_from(number % 5 % 3).expect("few"), "its own partition, modulo what there is");
        let stood = waited.iter().find(|r| id_of(r) == number).expect("it waited");
        assert!(record.timestamp - stood.timestamp >= DELAY_MILLIS, "{number} is early");
    }
    assert!(relay.dead_letters().is_empty());
    let metric = |name: &str, label: &str| relay.scene.metric(name, label);
    assert_eq!(metric("kladder_hops_total", "tier=\"redeliver\""), Some(280.0));
    assert_eq!(metric("kladder_lateness_seconds_count", ""), Some(280.0));
    assert_eq!(metric("kladder_early_total", ""), Some(0.0));
    assert_eq!(metric("kladder_dead_letters_total", ""), Some(0.0));
    assert_eq!(metric("kladder_malformed_headers_total", ""), Some(0.0));
    let redeliver = relay.scene.redeliver_topic();
    assert!(!broker::topics().contains_key(&redeliver), "nobody would read it");
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0));
}

#[test]
fn what_is_due_goes_back_where_it_came_from() {
    goes_back("origin", "");
}

#[test]
fn what_is_due_goes_back_where_it_came_from_at_least_once() {
    goes_back("origin-alo", "hops = \"at-least-once\"");
}

#[test]
fn what_has_no_origin_is_a_dead_letter() {
    let relay = Relay::set_up("no-origin", 2, &[], "");
    let scene = &relay.scene;
    let elsewhere = format!("{}.elsewhere", scene.ladder);
    broker::create_topic(&elsewhere, 1, &[]);
    let mut written: Vec<NewRecord> = Vec::new();
    let mut add = |headers: Headers| {
        let mut record = records::plain(written.len(), 2);
        record.headers.push((FOREIGN[0].into(), Some(b"\x02".to_vec())));
        record.headers.extend(headers);
        written.push(record);
    };
    let changed = |name: &str, value: &str| {
        let mut headers = relay.envelope(&scene.source, 0, 1);
        headers.iter_mut().filter(|(n, _)| n == name.as_bytes()).for_each(|(_, v)| *v = Some(value.into()));
        headers
    };
    add(Headers::new());
    add(relay.envelope(&elsewhere, 0, 1));
    for own in [scene.tier_topic("1s"), scene.dlq_topic(), format!("{}.inbox", scene.ladder), scene.redeliver_topic()] {
        add(relay.envelope(&own, 0, 1));
    }
    add(changed("kladder-ladder", "another"));
    add(changed("kladder-attempts", "many"));
    // One that has an origin goes back in the midst of them.
    add(relay.envelope(&scene.source, 1, 99));
    let count = written.len() - 1;
    relay.write("1s", &written);
    let mut kladder = relay.run_mover();
    relay.await_empty(&mut kladder);

    let dead = relay.dead_letters();
    let mut ids: Vec<usize> = dead.iter().map(id_of).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..count).collect::<Vec<_>>(), "each once");
    for record in &dead {
        assert_eq!(record.text("kladder-reason"), Some("no-origin"));
        assert_eq!(record.text("kladder-ladder"), Some(scene.ladder.as_str()));
        assert_eq!(record.all(FOREIGN[0]), [Some(&b"\x02"[..])], "what is kept for people keeps all of theirs");
        let attempts = i64::from((1..6).contains(&id_of(record)));
        assert_eq!(record.number("kladder-attempts"), Some(attempts), "nothing was delivered: {}", id_of(record));
    }
    let back: Vec<usize> = broker::read(&scene.source).iter().map(id_of).collect();
    assert_eq!(back, [count]);
    assert!(broker::read(&elsewhere).is_empty());
    #[expect(clippy::cast_precision_loss, reason = "few records")]
    let expected = count as f64;
    assert_eq!(scene.metric("kladder_dead_letters_total", "reason=\"no-origin\""), Some(expected));
    assert_eq!(scene.metric("kladder_hops_total", "tier=\"dlq\""), Some(expected));
    assert_eq!(scene.metric("kladder_hops_total", "tier=\"redeliver\""), Some(1.0));
    assert_eq!(scene.metric("kladder_malformed_headers_total", ""), Some(1.0));
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0));
}

#[test]
fn what_is_too_large_for_its_origin_gives_up_diagnostics_and_then_goes_to_the_dlq() {
    const LIMIT: usize = 6_000;
    let limit = LIMIT.to_string();
    let relay = Relay::set_up("origin-large", 1, &[("max.message.bytes", &limit)], "");
    let stack = "s".repeat(2_000);
    let sized = |number: usize, size: usize| {
        let mut record = NewRecord { partition: 0, value: Some(vec![b'v'; size]), ..records::plain(number, 1) };
        let mut envelope = relay.envelope(&relay.scene.source, 0, number);
        envelope.iter_mut().filter(|(n, _)| n == b"kladder-error-stack").for_each(|(_, v)| *v = Some(stack.clone().into()));
        record.headers.extend(envelope);
        record
    };
    // With all headers, without the stack, without any of the diagnostics that can go, and not even then.
    for record in [sized(0, 1_000), sized(1, LIMIT - 1_500), sized(2, LIMIT - 100), sized(3, 1_000)] {
        // One by one: a batch of them all would be too large for the tier.
        relay.write("1s", &[record]);
    }
    let mut kladder = relay.run_mover();
    relay.await_empty(&mut kladder);

    let back = broker::read(&relay.scene.source);
    let told: Vec<(usize, Option<i64>, bool)> =
        back.iter().map(|r| (id_of(r), r.number("kladder-attempts"), r.text("kladder-error-stack").is_some())).collect();
    assert_eq!(
        told,
        [(0, Some(1), true), (1, Some(1), false), (3, Some(1), true)],
        "in order, and the next one keeps all of its own"
    );
    let dead = relay.dead_letters();
    let told: Vec<_> = dead.iter().map(|r| (id_of(r), r.text("kladder-reason"), r.text("kladder-error-stack"))).collect();
    assert_eq!(told, [(2, Some("oversize"), Some(stack.as_str()))]);
    assert_eq!(relay.scene.metric("kladder_dead_letters_total", "reason=\"oversize\""), Some(1.0));
    assert!(!kladder.log().contains("can be written nowhere"), "{}", kladder.log());
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0));
}

#[test]
fn a_source_made_anew_with_fewer_partitions_stops_nothing_for_long() {
    let relay = Relay::set_up("origin-anew", 4, &[], "");
    let source = relay.scene.source.clone();
    let record = |number: usize, origin: i32| {
        let mut record = records::plain(number, 2);
        record.headers.extend(relay.envelope(&source, origin, number));
        record
    };
    let mut kladder = relay.run_mover();
    relay.write("1s", &[record(0, 3)]);
    relay.await_empty(&mut kladder);
    clock::eventually("it is back", PATIENCE, || broker::read(&source).iter().any(|r| r.partition == 3));
    broker::delete_topics(&[&source]);
    clock::eventually("the source is gone", PATIENCE, || !broker::topics().contains_key(&source));
    broker::create_topic(&source, 2, &[]);
    relay.write("1s", &[record(1, 3)]);
    relay.await_empty(&mut kladder);
    let back: Vec<(usize, i32)> = broker::read(&source).iter().map(|r| (id_of(r), r.partition)).collect();
    assert_eq!(back, [(1, 1)]);
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0));
}

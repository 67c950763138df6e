//! Relay to the origin: due records go back to the topic and partition of their origin, or, without one, to the DLQ.

use std::path::PathBuf;

use crate::support::broker;
use crate::support::checker::Hops;
use crate::support::clock::{self, PATIENCE};
use crate::support::process::{self, Kladder};
use crate::support::raw::{Headers, NewRecord, RawProducer, Record};
use crate::support::records;
use crate::support::scene::{Scene, path};

const DELAY_MILLIS: i64 = 1_000;

/// Headers that other frameworks would act on.
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
        // So that a larger record certainly needs more space.
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

/// Records of all kinds from more partitions than the source has now go back byte for byte.
fn goes_back(theme: &str, settings: &str) {
    let relay = Relay::set_up(theme, 3, &[], settings);
    let source = relay.scene.source.clone();
    let written: Vec<NewRecord> = (0..280)
        .map(|number| {
            // Of the kinds whose headers look like kladder's own, the application's copy is excluded.
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
    // One with an origin goes back among them.
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
    // With all headers, without the stack, without any of the optional diagnostics, and not even then.
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
    assert!(!kladder.log().contains("cannot be written anywhere"), "{}", kladder.log());
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0));
}

/// The fate of records some of which their origin refuses: the redelivered ones, and the dead ones with their
/// reasons.
fn refused(theme: &str, source: &[(&str, &str)], hops: Hops, key: impl Fn(usize) -> bool) -> (Vec<usize>, Vec<(usize, String)>) {
    const COUNT: usize = 60;
    let settings = if hops == Hops::AtLeastOnce { "hops = \"at-least-once\"" } else { "" };
    let relay = Relay::set_up(theme, 2, source, settings);
    let written: Vec<NewRecord> = (0..COUNT)
        .map(|number| {
            let mut record = records::plain(number, 2);
            record.key = record.key.filter(|_| key(number));
            record.headers.extend(relay.envelope(&relay.scene.source, i32::try_from(number % 2).expect("few"), number));
            record
        })
        .collect();
    relay.write("1s", &written);
    let mut kladder = relay.run_mover();
    relay.await_empty(&mut kladder);
    let back: Vec<usize> = broker::read(&relay.scene.source).iter().map(id_of).collect();
    let dead = relay.dead_letters();
    for record in &dead {
        assert_eq!(record.text("kladder-reason"), Some("refused"));
        assert_eq!(record.text("kladder-error-class"), Some("Timeout"), "what the handler said stays");
        assert_eq!((record.number("kladder-attempts"), record.number("kladder-tier")), (Some(1), Some(1)));
    }
    let told = |record: &Record| (id_of(record), record.text("kladder-refusal").unwrap_or_default().to_owned());
    let dead: Vec<(usize, String)> = dead.iter().map(told).collect();
    let mut all: Vec<usize> = back.iter().copied().chain(dead.iter().map(|(id, _)| *id)).collect();
    all.sort_unstable();
    if hops == Hops::AtLeastOnce {
        all.dedup();
    }
    assert_eq!(all, (0..COUNT).collect::<Vec<_>>(), "each ends in one place, once");
    #[expect(clippy::cast_precision_loss, reason = "few records")]
    let count = dead.len() as f64;
    assert_eq!(relay.scene.metric("kladder_dead_letters_total", "reason=\"refused\""), Some(count));
    // It is told once a second.
    clock::eventually("no partition stands still", PATIENCE, || {
        relay.scene.metric("kladder_partitions_stopped", "role=\"mover\"") == Some(0.0)
    });
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0));
    // A log is complete once its process has ended.
    let log = kladder.log();
    assert!(!log.contains("cannot be written anywhere") && !log.contains("max.message.bytes"), "{log}");
    let warnings = log.lines().filter(|line| line.contains("WARN") && line.contains("origin refuses a record")).count();
    assert!((1..=2).contains(&warnings), "once a partition: {log}");
    (back, dead)
}

#[test]
fn what_its_compacted_origin_refuses_without_a_key_is_a_dead_letter_and_holds_up_nothing() {
    // One alone, two in a row, and one at the end.
    let keyless = [5, 20, 22, 59];
    let (_, dead) =
        refused("origin-compacted", &[("cleanup.policy", "compact")], Hops::ExactlyOnce, |number| !keyless.contains(&number));
    let mut ids: Vec<usize> = dead.iter().map(|(id, _)| *id).collect();
    ids.sort_unstable();
    assert_eq!(ids, keyless, "and none of those that were sent along with them");
    for (_, refusal) in dead {
        assert!(refusal.contains(": INVALID_RECORD") && refusal.ends_with("this record has no key"), "{refusal}");
    }
}

#[test]
fn what_its_origin_refuses_for_its_time_is_a_dead_letter_and_holds_up_nothing() {
    // Whatever arrives later than this is too old. (So would be the marker that ends a transaction.)
    let source = [("message.timestamp.before.max.ms", "0")];
    let (_, dead) = refused("origin-time", &source, Hops::AtLeastOnce, |_| true);
    assert!(!dead.is_empty());
    assert!(dead.iter().all(|(_, refusal)| refusal.contains(": INVALID_TIMESTAMP")), "{dead:?}");
    assert!(dead.iter().all(|(_, refusal)| !refusal.contains("no key")), "{dead:?}");
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

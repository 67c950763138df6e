//! Dead letters on a real broker: the output is compared with what an independent reader finds in the topics.

mod cli;
mod foreign;
mod ladder;
mod payloads;
mod redrive;
mod search;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::broker;
use crate::support::clock;
use crate::support::process::{self, Finished, Kladder};
use crate::support::raw::{NewRecord, RawProducer, Record};
use crate::support::scene::{Scene, path};

/// A ladder that is set up and without running workers, with dead letters written by the test.
pub struct Letters {
    pub scene: Scene,
    pub config: PathBuf,
    pub state: TempDir,
}

pub const PARTITIONS: i32 = 3;

/// Eight kinds: class, reason, status, and a message with varying parts.
pub fn kind(number: usize) -> (&'static str, &'static str, &'static str, String) {
    match number % 8 {
        0 => ("Timeout", "exhausted", "504", format!("no answer within {number} ms")),
        1 => ("Refused", "exhausted", "503", format!("connection to 10.0.0.{} refused", number % 200)),
        2 => ("Invalid", "rejected", "422", format!("no account {number}")),
        3 => ("Invalid", "rejected", "422", format!("amount \"{number}.10\" is no number")),
        4 => ("java.lang.IllegalStateException", "exhausted", "500", format!("order '{number}' is locked")),
        5 => ("java.lang.NullPointerException", "exhausted", "500", "value is null".to_owned()),
        6 => ("Malformed", "rejected", "400", format!("trace {:032x}: bad payload", number * 7_919)),
        _ => ("Expired", "expired", "503", format!("older than {number}s")),
    }
}

impl Letters {
    /// This many letters of eight kinds.
    pub fn of(theme: &str, count: usize) -> Self {
        let letters = Self::empty(theme);
        letters.write(0..count);
        letters
    }

    pub fn empty(theme: &str) -> Self {
        Self::of_scene(Scene::with_source(theme, &["500ms", "1s"], PARTITIONS))
    }

    /// For a ladder with this setup.
    pub fn of_scene(scene: Scene) -> Self {
        let config = scene.set_up();
        Self { scene, config, state: tempfile::tempdir().expect("a folder") }
    }

    pub fn write(&self, numbers: std::ops::Range<usize>) {
        let records: Vec<NewRecord> = numbers.map(|number| self.record(number)).collect();
        RawProducer::new(&self.scene.brokers).write(&self.scene.dlq_topic(), &records);
    }

    /// A dead letter as kladder writes it.
    pub fn record(&self, number: usize) -> NewRecord {
        let (class, reason, status, message) = kind(number);
        let (ladder, source) = (&self.scene.ladder, &self.scene.source);
        let partition = i32::try_from(number).expect("few") % PARTITIONS;
        let id = format!("{ladder}/{source}/{partition}/{number}/1760000000000");
        let history = format!("1760000000000,0,{class};1760000001000,1,{class}");
        let own = [
            ("kladder-ladder", ladder.as_str()),
            ("kladder-v", "1"),
            ("kladder-id", &id),
            ("kladder-origin-topic", source),
            ("kladder-origin-partition", &partition.to_string()),
            ("kladder-origin-offset", &number.to_string()),
            ("kladder-origin-timestamp", "1760000000000"),
            ("kladder-attempts", if reason == "rejected" { "1" } else { "3" }),
            ("kladder-error-class", class),
            ("kladder-error-status", status),
            ("kladder-reason", reason),
            ("kladder-redrives", "0"),
            ("kladder-error-message", &message),
            ("kladder-history", &history),
        ]
        .map(|(name, value)| (name.as_bytes().to_vec(), Some(value.as_bytes().to_vec())));
        let mut headers = vec![
            (b"number".to_vec(), Some(number.to_string().into_bytes())),
            (b"region".to_vec(), Some(if number.is_multiple_of(3) { b"eu".to_vec() } else { b"us".to_vec() })),
            (vec![0xff, 0xfe], Some(vec![0, 0xff])),
            (b"region".to_vec(), None),
        ];
        headers.extend(own);
        NewRecord {
            partition,
            key: (!number.is_multiple_of(10)).then(|| format!("customer-{}", number % 100).into_bytes()),
            value: (number % 50 != 7).then(|| format!("{{\"id\":{number},\"amount\":\"{number}.10\"}}").into_bytes()),
            headers,
        }
    }

    /// `kladder dlq …` with the ladder's configuration and this test's own state directory.
    pub fn dlq(&self, arguments: &[&str]) -> Finished {
        process::finish(self.command(arguments), clock::PATIENCE)
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        process::command(&self.all(arguments))
    }

    /// The same in the background; killed when dropped.
    pub fn start(&self, arguments: &[&str]) -> Kladder {
        Kladder::start(&self.all(arguments), &self.config.with_extension("dlq.log"))
    }

    fn all<'a>(&'a self, arguments: &[&'a str]) -> Vec<&'a str> {
        let mut all = vec!["dlq"];
        all.extend(arguments);
        all.extend(["-c", path(&self.config), "--state-dir", path(self.state.path())]);
        all
    }

    /// The JSON that a command prints.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let mut all = arguments.to_vec();
        all.extend(["-o", "json"]);
        let finished = self.dlq(&all).succeeds();
        serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished}"))
    }

    /// The letters that match a filter, as `PARTITION/OFFSET`, in order.
    #[track_caller]
    pub fn found(&self, filter: &str) -> Vec<String> {
        let listed = self.json(&["list", "-n", "0", filter]);
        let mut ids: Vec<String> =
            listed["letters"].as_array().expect("letters").iter().map(|l| l["id"].as_str().expect("an id").to_owned()).collect();
        ids.sort_unstable();
        ids
    }

    /// How many letters are in each state.
    #[track_caller]
    pub fn states(&self) -> BTreeMap<String, usize> {
        let all = "state:open,redriven,succeeded,failed-again,resolved,discarded,parked";
        let listed = self.json(&["list", "-n", "0", all]);
        let mut counts = BTreeMap::new();
        for letter in listed["letters"].as_array().expect("letters") {
            *counts.entry(letter["state"].as_str().expect("a state").to_owned()).or_default() += 1;
        }
        counts
    }

    /// All letters, as an independent reader finds them.
    pub fn read(&self) -> Vec<Record> {
        broker::read(&self.scene.dlq_topic())
    }

    /// The redriven records.
    pub fn sent(&self) -> Vec<Record> {
        broker::read(&self.scene.redeliver_topic())
    }

    /// Every letter was sent once, unchanged, and is marked as sent.
    #[track_caller]
    pub fn assert_each_sent_once(&self, letters: &[&Record]) {
        let sent = self.sent();
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for record in &sent {
            *counts.entry(record.text("kladder-id").expect("an id")).or_default() += 1;
        }
        let doubled: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
        assert!(doubled.is_empty(), "{} were doubled, as {:?}", doubled.len(), doubled.first());
        let missing = letters.iter().filter(|letter| !counts.contains_key(letter.text("kladder-id").expect("an id"))).count();
        assert_eq!((missing, sent.len()), (0, letters.len()), "missing, and how many were sent");
        let by_id: BTreeMap<&str, &Record> =
            sent.iter().map(|record| (record.text("kladder-id").expect("an id"), record)).collect();
        for letter in letters {
            let record = by_id[letter.text("kladder-id").expect("an id")];
            assert_eq!((&record.key, &record.value), (&letter.key, &letter.value));
            let user = |record: &Record| -> Vec<_> {
                record.headers.iter().filter(|(name, _)| !name.starts_with(b"kladder-")).cloned().collect()
            };
            assert_eq!(user(record), user(letter));
            assert_eq!(record.text("kladder-attempts"), Some("0"));
            assert_eq!(record.text("kladder-redrives"), Some("1"));
            assert!(record.all("kladder-reason").is_empty());
            assert_eq!(i64::from(record.partition), letter.number("kladder-origin-partition").expect("a partition"));
        }
    }
}

/// The position of a letter, as commands show it.
pub fn id_of(record: &Record) -> String {
    format!("{}/{}", record.partition, record.offset)
}

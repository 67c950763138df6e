//! Reads all topics of the demo into the ledger while it runs, with a consumer without a group.
//!
//! During the run and not afterwards: the embedded broker keeps only the latest 5 MiB of a
//! partition.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;

use crate::cli::demo::ledger::{Ledger, LedgerEntry, RecordPosition, Topic};
use crate::config::KafkaConfig;
use crate::core::envelope::{Envelope, Reason};
use crate::core::ladder::Ladder;
use crate::core::topics::mover_group;
use crate::kafka::consumer::ConsumerRecord;
use crate::kafka::group_offsets::GroupOffsets;
use crate::kafka::partition::TopicPartition;
use crate::kafka::tail::{ASK_WITHIN, TailFrom, TopicTail};

/// Time limit for reading the rest at the end.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(60);

/// The reading thread.
pub struct Watcher {
    ledger: Arc<Mutex<Ledger>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl Watcher {
    /// Reads the ladder's topics from their beginning, once they exist.
    pub fn start(kafka: &KafkaConfig, ladder: &Ladder) -> anyhow::Result<Self> {
        let topics = topics(ladder);
        let names: Vec<String> = topics.keys().cloned().collect();
        let mut tail = TopicTail::open(kafka, &names, TailFrom::Beginning)?;
        let delays = ladder.tiers().iter().map(|tier| tier.delay().duration()).collect();
        let (ledger, stop) = (Arc::new(Mutex::new(Ledger::new(delays))), Arc::new(AtomicBool::new(false)));
        let (ladder, written, stopping) = (ladder.clone(), ledger.clone(), stop.clone());
        let watch = move || {
            let mut saw = |tp: &TopicPartition, record: &ConsumerRecord| {
                if let Some(topic) = topics.get(&*tp.topic) {
                    locked(&written).saw(entry(&ladder, *topic, tp, record));
                }
            };
            while !stopping.load(Ordering::Acquire) {
                tail.poll(Duration::from_millis(100), &mut saw)?;
            }
            Ok(tail.catch_up(CATCH_UP_WITHIN, &mut saw)?)
        };
        let thread = std::thread::Builder::new().name("demo-watcher".to_owned()).spawn(watch).context("cannot start a thread")?;
        Ok(Self { ledger, stop, thread })
    }

    /// What was read so far.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        locked(&self.ledger)
    }

    /// Reads to the current end of the topics. Nothing may be written any more.
    pub fn end(self) -> anyhow::Result<Ledger> {
        self.stop.store(true, Ordering::Release);
        match self.thread.join() {
            Ok(read) => read.context("reading the topics for the summary")?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
        let nothing = Ledger::new(Vec::new());
        Ok(std::mem::replace(&mut *locked(&self.ledger), nothing))
    }
}

fn locked(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The ladder's topics by name.
fn topics(ladder: &Ladder) -> BTreeMap<String, Topic> {
    let sources = ladder.sources().iter().map(|source| (source.clone(), Topic::Source));
    let tiers = ladder.tiers().iter().enumerate().map(|(number, tier)| (tier.topic().to_owned(), Topic::Tier(number)));
    let ends = [(ladder.redeliver_topic(), Topic::Redeliver), (ladder.dlq_topic(), Topic::Dlq)];
    sources.chain(tiers).chain(ends).collect()
}

/// The committed offsets of the groups: below that offset, a partition's records are finished.
pub fn committed(kafka: &KafkaConfig, ladder: &Ladder) -> anyhow::Result<BTreeMap<(Topic, i32), i64>> {
    let mover = mover_group(ladder.name());
    let mut read_by: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let topics = topics(ladder);
    for (name, topic) in &topics {
        let group = match topic {
            Topic::Source | Topic::Redeliver => ladder.group(),
            Topic::Tier(_) => &mover,
            Topic::Dlq => continue,
        };
        read_by.entry(group).or_default().push(name.clone());
    }
    let mut found = BTreeMap::new();
    for (group, names) in read_by {
        for (tp, offset) in GroupOffsets::new(kafka, group)?.on_topics(&names, ASK_WITHIN)? {
            found.extend(topics.get(&*tp.topic).map(|topic| ((*topic, tp.partition), offset)));
        }
    }
    Ok(found)
}

fn entry(ladder: &Ladder, topic: Topic, tp: &TopicPartition, record: &ConsumerRecord) -> LedgerEntry {
    let at = RecordPosition { partition: tp.partition, offset: record.offset() };
    let appended = record.timestamp();
    if topic == Topic::Source {
        return LedgerEntry { topic, at, appended, order: at, attempts: 0, reason: None };
    }
    let envelope = Envelope::read(ladder, &record.coordinates(tp), record.headers()).envelope;
    let order = RecordPosition { partition: envelope.origin.partition, offset: envelope.origin.offset };
    LedgerEntry { topic, at, appended, order, attempts: envelope.attempts, reason: envelope.reason.map(Reason::as_str) }
}

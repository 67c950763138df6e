//! Keeps an index up to date with its topics: reads on from its position, and removes letters deleted
//! by retention.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use thiserror::Error;

use crate::config::KafkaConfig;
use crate::core::dead_letter::{DeadLetterEntry, LetterKey};
use crate::core::envelope::LADDER;
use crate::core::leader_clock::LocalTime;
use crate::core::time::Timestamp;
use crate::dlq::index::{Index, IndexError, Spot, Taken};
use crate::dlq::letter::Letter;
use crate::dlq::queue::Queue;
use crate::kafka::admin::KafkaCluster;
use crate::kafka::clock::Clock;
use crate::kafka::consumer::ConsumerRecord;
use crate::kafka::error::ClientError;
use crate::kafka::isolation::Isolation;
use crate::kafka::partition::TopicPartition;
use crate::kafka::tail::{TailFrom, TopicTail};
use crate::topology::ClusterError;

/// Number of records added to the index at once.
const BATCH: usize = 20_000;

/// Interval of removing letters deleted by retention.
const PRUNE_INTERVAL: Duration = Duration::from_secs(60);

/// Time limit for finding a topic.
const ASK_WITHIN: Duration = Duration::from_secs(15);

/// Maximum silence while records remain to be read.
const SILENCE: Duration = Duration::from_secs(30);

/// Why an index cannot be updated.
#[derive(Debug, Error)]
pub enum FeedError {
    /// The index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A topic cannot be read.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The cluster does not answer.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

/// How far an index is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Offsets read, of those in the topics.
    pub read: u64,
    /// Offsets in the topics.
    pub of: u64,
}

impl Progress {
    /// Whether the index is complete.
    #[must_use]
    pub fn is_complete(self) -> bool {
        self.read >= self.of
    }
}

/// Time limit for reading uncommitted records.
const LOOK_FOR_FIRST: Duration = Duration::from_secs(2);

/// An open transaction on the dead-letter topic: records after its first one are invisible until it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenTransaction {
    /// The partition.
    pub tp: TopicPartition,
    /// Its first record there.
    pub offset: i64,
    /// Number of offsets from there on.
    pub behind: i64,
    /// When that record was written.
    pub since: Option<Timestamp>,
    /// The ladder of that record, if it names one.
    pub ladder: Option<String>,
}

impl fmt::Display for OpenTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tp, offset, behind, since, ladder } = self;
        write!(f, "a transaction is open on {tp} at offset {offset}")?;
        if let Some(since) = since {
            write!(f, " since {}", since.to_rfc3339())?;
        }
        match ladder {
            Some(ladder) => write!(f, ", by a worker of ladder {ladder} (its transactional.id begins with `{ladder}.`): ")?,
            None => write!(f, ", by a producer other than kladder: ")?,
        }
        write!(
            f,
            "{behind} offsets from there on are invisible until it ends (`kafka-transactions.sh --bootstrap-server … describe-producers \
             --topic {topic} --partition {partition}` shows its producer; if that is gone, `kafka-transactions.sh --bootstrap-server … \
             abort --topic {topic} --partition {partition} --start-offset {offset}` ends it)",
            topic = tp.topic,
            partition = tp.partition
        )
    }
}

/// Updates one index.
pub struct Feed {
    queue: Queue,
    cluster: KafkaCluster,
    kafka: KafkaConfig,
    tail: TopicTail,
    index: Index,
    clock: Clock,
    lows: Vec<i64>,
    prune_at: LocalTime,
}

impl Feed {
    /// Opens the index of a queue, and its topics from the index's position on.
    ///
    /// # Errors
    /// A topic cannot be read, or the index cannot be opened.
    pub fn open(kafka: &KafkaConfig, cluster: KafkaCluster, queue: &Queue, mut index: Index) -> Result<Self, FeedError> {
        let bounds = cluster.bounds(&queue.topic)?;
        forget_what_was_made_anew(&mut index, queue, &cluster)?;
        let tail = tail_of(kafka, std::iter::once((queue, &index)))?;
        let clock = Clock::system();
        let mut feed = Self {
            queue: queue.clone(),
            cluster,
            kafka: kafka.clone(),
            tail,
            index,
            prune_at: clock.now(),
            clock,
            lows: bounds.iter().map(|marks| marks.low).collect(),
        };
        feed.prune()?;
        Ok(feed)
    }

    /// The index.
    #[must_use]
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The queue.
    #[must_use]
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> &KafkaCluster {
        &self.cluster
    }

    /// The oldest offset of each partition of the dead-letter topic.
    #[must_use]
    pub fn lows(&self) -> &[i64] {
        &self.lows
    }

    /// Adds the available records to the index, waiting at most `timeout` for the first. Returns the number of records.
    ///
    /// # Errors
    /// See [`FeedError`].
    pub fn poll(&mut self, timeout: Duration) -> Result<usize, FeedError> {
        let mut timeout = timeout;
        let (mut batch, mut count) = (Vec::new(), 0);
        while batch.len() < BATCH {
            let polled = self.tail.poll(timeout, |tp, record| batch.extend(taken(&self.queue, tp, record)))?;
            if polled == 0 {
                break;
            }
            count += polled;
            timeout = Duration::ZERO;
        }
        match self.index.take(&batch, &keep(&self.tail, &self.queue)) {
            Err(IndexError::MadeAnew) => self.begin_anew()?,
            other => drop(other?),
        }
        if self.clock.now() >= self.prune_at {
            self.prune()?;
        }
        Ok(count)
    }

    /// The topic was recreated: all of it is read again.
    fn begin_anew(&mut self) -> Result<(), FeedError> {
        tracing::info!(topic = self.queue.topic, "topic was recreated: rebuilding its index");
        self.index.clear()?;
        self.read_on()
    }

    /// Reads from the index's position; records read but not added yet are read again.
    fn read_on(&mut self) -> Result<(), FeedError> {
        self.tail = tail_of(&self.kafka, std::iter::once((&self.queue, &self.index)))?;
        Ok(())
    }

    fn prune(&mut self) -> Result<(), FeedError> {
        let bounds = self.cluster.bounds(&self.queue.topic)?;
        self.lows = bounds.iter().map(|marks| marks.low).collect();
        for (partition, low) in (0..).zip(&self.lows) {
            let gone = self.index.forget_below(partition, *low)?;
            if gone > 0 {
                tracing::debug!(topic = self.queue.topic, partition, gone, "removed dead letters deleted by retention");
            }
        }
        self.prune_at = self.clock.now().later(PRUNE_INTERVAL);
        Ok(())
    }

    /// The current ends of the topics for read-committed consumers: records of open transactions are invisible to everyone, and
    /// waiting for them could take as long as a foreign transaction. A partition whose leader does not answer ends where it was read
    /// to.
    ///
    /// # Errors
    /// No broker answers.
    pub fn ends(&self) -> Result<Vec<(String, i32, i64)>, FeedError> {
        let ends = self.tail.ends_by_partition(ASK_WITHIN)?;
        Ok(ends.into_iter().map(|(tp, end)| (tp.topic.to_string(), tp.partition, end)).collect())
    }

    /// The transactions on the dead-letter topic that have been open for at least this long, if that can be
    /// determined.
    ///
    /// # Errors
    /// No broker answers.
    pub fn open_transactions(&self, since: Duration) -> Result<Vec<OpenTransaction>, FeedError> {
        // In this order, commits in between make a partition look as if no transaction were open, never the reverse.
        let all = self.ends_of(&self.queue.topic)?;
        let stable = self.tail.ends_by_partition(ASK_WITHIN)?;
        let mut held_up = Vec::new();
        for (topic, partition, end) in all {
            let tp = TopicPartition { topic: topic.as_str().into(), partition };
            if let Some(stable) = stable.get(&tp).filter(|stable| **stable < end) {
                held_up.push((tp, *stable, end - *stable));
            }
        }
        if held_up.is_empty() {
            return Ok(Vec::new());
        }
        let mut open = self.first_of(&held_up)?;
        let now = self.clock.now().timestamp();
        open.retain(|open| open.since.is_some_and(|begun| now.since(begun) >= since));
        Ok(open)
    }

    /// Reads uncommitted: the first record after a last stable offset belongs to the longest open transaction.
    fn first_of(&self, held_up: &[(TopicPartition, i64, i64)]) -> Result<Vec<OpenTransaction>, FeedError> {
        let from = held_up.iter().map(|(tp, stable, _)| (tp.clone(), *stable)).collect();
        let mut tail = TopicTail::new(&self.kafka, TailFrom::Offsets(from), Isolation::Uncommitted)?;
        tail.add(&self.queue.topic, ASK_WITHIN)?;
        let mut first: BTreeMap<TopicPartition, (Timestamp, Option<String>)> = BTreeMap::new();
        let deadline = self.clock.now().later(LOOK_FOR_FIRST);
        while self.clock.now() < deadline && held_up.iter().any(|(tp, ..)| !first.contains_key(tp)) {
            tail.poll(Duration::from_millis(50), |tp, record| {
                if held_up.iter().any(|(known, stable, _)| known == tp && record.offset() >= *stable) && !first.contains_key(tp) {
                    let names = record.headers().filter(|(name, _)| *name == LADDER.as_bytes());
                    let ladder = names.last().and_then(|(_, value)| Some(String::from_utf8_lossy(value?).into_owned()));
                    first.insert(tp.clone(), (record.timestamp(), ladder));
                }
            })?;
        }
        let of = |(tp, offset, behind): &(TopicPartition, i64, i64)| {
            let (since, ladder) = first.get(tp).cloned().unzip();
            OpenTransaction { tp: tp.clone(), offset: *offset, behind: *behind, since, ladder: ladder.flatten() }
        };
        Ok(held_up.iter().map(of).collect())
    }

    /// The current ends of a topic's partitions, including uncommitted records.
    ///
    /// # Errors
    /// The cluster does not answer.
    pub fn ends_of(&self, topic: &str) -> Result<Vec<(String, i32, i64)>, FeedError> {
        let bounds = self.cluster.bounds(topic)?;
        Ok((0..).zip(bounds).map(|(partition, marks)| (topic.to_owned(), partition, marks.high)).collect())
    }

    /// Up to which offset each partition of the dead-letter topic is indexed: later letters were not shown to anyone.
    ///
    /// # Errors
    /// The index fails.
    pub fn letters_below(&self) -> Result<Vec<(i32, i64)>, FeedError> {
        let positions = self.index.positions()?;
        let read = |partition: i32| {
            let is_meant = |(topic, p, _): &&(String, i32, i64)| *topic == self.queue.topic && *p == partition;
            positions.iter().find(is_meant).map(|(_, _, next)| *next)
        };
        Ok((0..).zip(&self.lows).map(|(partition, low)| (partition, read(partition).unwrap_or(*low).max(*low))).collect())
    }

    /// Reads until everything below these ends is indexed, the time limit is reached, or nothing arrives for 30 s; with [`None`] there is no time
    /// limit. Reading and parsing run in parallel to the database.
    ///
    /// # Errors
    /// See [`FeedError`]; without a time limit also if nothing arrives for 30 s.
    pub fn catch_up(
        &mut self,
        ends: &[(String, i32, i64)],
        within: Option<Duration>,
        mut tell: impl FnMut(Progress),
    ) -> Result<Progress, FeedError> {
        let begun = self.clock.now();
        let progress = progress_of(&self.tail, &self.queue, &self.lows, ends);
        if progress.is_complete() {
            return Ok(progress);
        }
        let (tail, index) = (&mut self.tail, &mut self.index);
        let (queue, lows, clock) = (&self.queue, &self.lows, &self.clock);
        let outcome = std::thread::scope(|scope| {
            let (sender, receiver) = sync_channel::<Read>(1);
            let reading = scope.spawn(move || read_to(tail, queue, lows, clock, ends, within.is_some(), &sender));
            let mut reached = progress;
            let mut taken = Ok(());
            for read in receiver {
                if let Err(error) = index.take(&read.batch, &read.positions) {
                    taken = Err(error);
                    break;
                }
                reached = read.progress;
                tell(reached);
                if within.is_some_and(|within| clock.now().since(begun) >= within) {
                    break;
                }
            }
            // The channel is closed by now, which ends the reading thread.
            let read = reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            taken.map_err(FeedError::from).and(read.map_err(FeedError::from)).map(|()| reached)
        });
        match outcome {
            Err(FeedError::Index(IndexError::MadeAnew)) => {
                self.begin_anew()?;
                self.catch_up(ends, within, tell)
            }
            Ok(reached) if !reached.is_complete() => {
                self.read_on()?;
                Ok(reached)
            }
            outcome => outcome,
        }
    }
}

/// A batch of records, and the position after it.
struct Read {
    batch: Vec<Taken>,
    positions: Vec<(String, i32, i64)>,
    progress: Progress,
}

/// Reads and parses until the ends are reached, or the receiver is gone.
fn read_to(
    tail: &mut TopicTail,
    queue: &Queue,
    lows: &[i64],
    clock: &Clock,
    ends: &[(String, i32, i64)],
    ends_in_silence: bool,
    sender: &SyncSender<Read>,
) -> Result<(), ClientError> {
    let mut heard = clock.now();
    let mut before = Progress::default();
    loop {
        let mut batch = Vec::new();
        let mut timeout = Duration::from_millis(100);
        while tail.poll(timeout, |tp, record| batch.extend(taken(queue, tp, record)))? > 0 && batch.len() < BATCH {
            timeout = Duration::ZERO;
        }
        let progress = progress_of(tail, queue, lows, ends);
        let read = Read { batch, positions: keep(tail, queue), progress };
        if sender.send(read).is_err() || progress.is_complete() {
            return Ok(());
        }
        if progress != before {
            (before, heard) = (progress, clock.now());
        } else if clock.now().since(heard) > SILENCE {
            if ends_in_silence {
                return Ok(());
            }
            let doing = format!("reading {} to the end", queue.topics().join(" and "));
            return Err(ClientError::text(doing, "no records arrive: a transaction is open, or a broker does not answer"));
        }
    }
}

/// How far the topics are read, in relation to these ends.
fn progress_of(tail: &TopicTail, queue: &Queue, lows: &[i64], ends: &[(String, i32, i64)]) -> Progress {
    let mut progress = Progress::default();
    for (topic, partition, end) in ends {
        let tp = TopicPartition { topic: topic.as_str().into(), partition: *partition };
        let is_letters = *topic == queue.topic;
        let low = usize::try_from(*partition).ok().filter(|_| is_letters).and_then(|p| lows.get(p)).copied().unwrap_or(0);
        let position = tail.position(&tp).unwrap_or(0).clamp(low, (*end).max(low));
        progress.read += u64::try_from(position - low).unwrap_or(0);
        progress.of += u64::try_from(*end - low).unwrap_or(0);
    }
    progress
}

/// What a record adds to the index of a queue; `None` if nothing.
pub(super) fn taken(queue: &Queue, tp: &TopicPartition, record: &ConsumerRecord) -> Option<Taken> {
    if *tp.topic == *queue.topic {
        return Some(Taken::letter(Letter::of(tp, record, queue.dialect)));
    }
    if queue.state_topic.as_deref() != Some(&*tp.topic) {
        return None;
    }
    let at = Spot { topic: tp.topic.clone(), partition: tp.partition, offset: record.offset() };
    match DeadLetterEntry::read(&queue.prefix, record.key(), record.value())? {
        Ok(entry) => Some(Taken::Entry(Box::new(entry), at)),
        Err(error) => {
            tracing::warn!(topic = %tp.topic, offset = at.offset, %error, "unreadable state of a letter");
            let unreadable = DeadLetterEntry::of_unreadable(&queue.prefix, record.key())?;
            Some(Taken::Entry(Box::new(unreadable), at))
        }
    }
}

/// How far the topics of a queue are read.
pub(super) fn keep(tail: &TopicTail, queue: &Queue) -> Vec<(String, i32, i64)> {
    let topics = queue.topics();
    let partitions = tail.partitions().into_iter().filter(|tp| topics.iter().any(|topic| **topic == *tp.topic));
    partitions.filter_map(|tp| Some((tp.topic.to_string(), tp.partition, tail.position(&tp)?))).collect()
}

/// If the topic of this name was recreated since it was indexed, the index is cleared.
pub(super) fn forget_what_was_made_anew(index: &mut Index, queue: &Queue, cluster: &KafkaCluster) -> Result<(), FeedError> {
    let positions = index.positions()?;
    for of in queue.topics() {
        if !positions.iter().any(|(topic, ..)| *topic == of) {
            continue;
        }
        let bounds = cluster.bounds(&of)?;
        let is_beyond = |(topic, partition, next): &(String, i32, i64)| {
            let end = usize::try_from(*partition).ok().and_then(|p| bounds.get(p)).map_or(0, |marks| marks.high);
            *topic == of && *next > end
        };
        if positions.iter().any(is_beyond) {
            tracing::info!(topic = of, "topic was recreated: rebuilding the index");
            return Ok(index.clear()?);
        }
    }
    Ok(())
}

/// Reads the topics of queues from their indexes' positions.
pub(super) fn tail_of<'a>(
    kafka: &KafkaConfig,
    queues: impl Iterator<Item = (&'a Queue, &'a Index)>,
) -> Result<TopicTail, FeedError> {
    // A state topic may belong to several queues: the lowest position counts, and one without a position is at the start.
    let mut read: BTreeMap<(String, i32), Vec<i64>> = BTreeMap::new();
    let mut topics: BTreeMap<String, usize> = BTreeMap::new();
    for (queue, index) in queues {
        queue.topics().into_iter().for_each(|topic| *topics.entry(topic).or_default() += 1);
        for (topic, partition, next) in index.positions()? {
            // The last letter is read again: if it differs, the topic was recreated.
            let last = if topic == queue.topic { index.last_letter(partition)? } else { None };
            let offset = last.map_or(next, |last: LetterKey| last.offset.min(next));
            read.entry((topic, partition)).or_default().push(offset);
        }
    }
    let from = read.into_iter().filter_map(|((topic, partition), offsets)| {
        let all_have = topics.get(&topic) == Some(&offsets.len());
        let offset = offsets.into_iter().min().filter(|_| all_have)?;
        Some((TopicPartition { topic: topic.as_str().into(), partition }, offset))
    });
    let mut tail = TopicTail::hasty(kafka, from.collect())?;
    for topic in topics.keys() {
        tail.add(topic, ASK_WITHIN)?;
    }
    Ok(tail)
}

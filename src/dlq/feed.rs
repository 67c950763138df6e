//! Keeps an index as young as its topics: reads on where it ends, and forgets what retention has taken.

use std::collections::BTreeMap;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use thiserror::Error;

use crate::config::KafkaConfig;
use crate::core::dead_letter::{Entry, LetterKey};
use crate::core::leader_clock::LocalTime;
use crate::dlq::index::{Index, IndexError, Spot, Taken};
use crate::dlq::letter::Letter;
use crate::dlq::queue::Queue;
use crate::kafka::admin::KafkaCluster;
use crate::kafka::clock::Clock;
use crate::kafka::consumer::Record;
use crate::kafka::error::ClientError;
use crate::kafka::partition::TopicPartition;
use crate::kafka::tail::TopicTail;
use crate::topology::ClusterError;

/// What is taken into the index at once.
const BATCH: usize = 20_000;

/// How often what retention has taken is looked for.
const PRUNE_INTERVAL: Duration = Duration::from_secs(60);

/// How long a topic may take to be found.
const ASK_WITHIN: Duration = Duration::from_secs(15);

/// How long nothing may come while there is something to come.
const SILENCE: Duration = Duration::from_secs(30);

/// Why an index cannot be fed.
#[derive(Debug, Error)]
pub enum FeedError {
    /// The index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A topic cannot be read.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The cluster cannot be asked.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

/// How far an index is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Offsets that were read, of those that the topics hold.
    pub read: u64,
    /// Offsets that the topics hold.
    pub of: u64,
}

impl Progress {
    /// Whether nothing is missing.
    #[must_use]
    pub fn is_complete(self) -> bool {
        self.read >= self.of
    }
}

/// Feeds one index.
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
    /// Opens the index of a queue and the topics from where it ends.
    ///
    /// # Errors
    /// When a topic cannot be read, or the index not opened.
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

    /// What is known.
    #[must_use]
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Whose letters they are.
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

    /// Takes in what there is, waiting for the first of it no longer than this. How many records there were is returned.
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

    /// The topic is another one of the same name: all of it is read.
    fn begin_anew(&mut self) -> Result<(), FeedError> {
        tracing::info!(topic = self.queue.topic, "topic was made anew: its index is too");
        self.index.clear()?;
        self.read_on()
    }

    /// Reads from where the index ends, whatever was read and not taken.
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
                tracing::debug!(topic = self.queue.topic, partition, gone, "dead letters that retention has taken are forgotten");
            }
        }
        self.prune_at = self.clock.now().later(PRUNE_INTERVAL);
        Ok(())
    }

    /// Where the topics end now, committed or not.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub fn ends(&self) -> Result<Vec<(String, i32, i64)>, FeedError> {
        let ends = self.queue.topics().into_iter().map(|topic| self.ends_of(&topic));
        Ok(ends.collect::<Result<Vec<_>, _>>()?.concat())
    }

    /// The same of one of them.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub fn ends_of(&self, topic: &str) -> Result<Vec<(String, i32, i64)>, FeedError> {
        let bounds = self.cluster.bounds(topic)?;
        Ok((0..).zip(bounds).map(|(partition, marks)| (topic.to_owned(), partition, marks.high)).collect())
    }

    /// Below which offset each partition of the dead-letter topic is in the index: what came later was shown to nobody.
    ///
    /// # Errors
    /// When the index fails.
    pub fn letters_below(&self) -> Result<Vec<(i32, i64)>, FeedError> {
        let positions = self.index.positions()?;
        let read = |partition: i32| {
            let is_meant = |(topic, p, _): &&(String, i32, i64)| *topic == self.queue.topic && *p == partition;
            positions.iter().find(is_meant).map(|(_, _, next)| *next)
        };
        Ok((0..).zip(&self.lows).map(|(partition, low)| (partition, read(partition).unwrap_or(*low).max(*low))).collect())
    }

    /// Reads until everything below these ends is in the index, or the time is over or nothing comes for 30 s (a transaction may be
    /// open); [`None`] waits as long as something comes. Reading and parsing go on beside the database.
    ///
    /// # Errors
    /// See [`FeedError`]; without a time also when nothing comes for 30 s.
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
            // The channel is gone by now, which ends the reading.
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

/// What was read at a time, and how far that is.
struct Read {
    batch: Vec<Taken>,
    positions: Vec<(String, i32, i64)>,
    progress: Progress,
}

/// Reads and parses until the ends are reached, or nobody takes it any more.
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
            return Err(ClientError::text(doing, "nothing comes: a transaction is open, or a broker does not answer"));
        }
    }
}

/// How far below these ends the topics are read.
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

/// What a record is to the index of a queue; `None` where it is nothing.
pub(super) fn taken(queue: &Queue, tp: &TopicPartition, record: &Record) -> Option<Taken> {
    if *tp.topic == *queue.topic {
        return Some(Taken::letter(Letter::of(tp, record, queue.dialect)));
    }
    if queue.state_topic.as_deref() != Some(&*tp.topic) {
        return None;
    }
    let at = Spot { topic: tp.topic.clone(), partition: tp.partition, offset: record.offset() };
    match Entry::read(&queue.prefix, record.key(), record.value())? {
        Ok(entry) => Some(Taken::Entry(Box::new(entry), at)),
        Err(error) => {
            tracing::warn!(topic = %tp.topic, offset = at.offset, %error, "unreadable state of a letter");
            let unreadable = Entry::of_unreadable(&queue.prefix, record.key())?;
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

/// Where the topic of this name is not the one that was indexed, everything is read again.
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
            tracing::info!(topic = of, "topic was made anew: the index is too");
            return Ok(index.clear()?);
        }
    }
    Ok(())
}

/// Reads the topics of queues from where their indexes end.
pub(super) fn tail_of<'a>(
    kafka: &KafkaConfig,
    queues: impl Iterator<Item = (&'a Queue, &'a Index)>,
) -> Result<TopicTail, FeedError> {
    // A state topic may belong to several: the one that is furthest behind counts, and one that has read nothing of it is.
    let mut read: BTreeMap<(String, i32), Vec<i64>> = BTreeMap::new();
    let mut topics: BTreeMap<String, usize> = BTreeMap::new();
    for (queue, index) in queues {
        queue.topics().into_iter().for_each(|topic| *topics.entry(topic).or_default() += 1);
        for (topic, partition, next) in index.positions()? {
            // The last letter is read once more: if another one stands there, the topic was made anew.
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

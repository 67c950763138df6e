//! Reads whole topics without a group: all partitions, from a place on, and whatever comes later.
//!
//! Nothing is committed and nobody is a member of anything, so that reading takes no right but Read on the topics. Where a tail
//! stands is counted in offsets, those of transaction markers included: a partition is at its end when the client says so, which
//! may be past its last record.
//!
//! A tail outlives outages: it yields nothing meanwhile and goes on where it was. A partition whose place the broker has lost (by
//! retention, or because the topic was made anew) goes on with its oldest record; its offsets then jump, perhaps back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::topic_partition_list::Offset;

use crate::config::KafkaConfig;
use crate::core::leader_clock::LocalTime;
use crate::core::time::Timestamp;
use crate::kafka::asker::Asker;
use crate::kafka::clock::Clock;
use crate::kafka::consumer::Record;
use crate::kafka::error::{ClientError, is_denial};
use crate::kafka::ffi::{Polled, RawReader};
use crate::kafka::isolation::Isolation;
use crate::kafka::lookup;
use crate::kafka::partition::TopicPartition;
use crate::kafka::reader;
use crate::kafka::watch::Watch;

/// How long one question to the brokers may take, unless said otherwise.
pub const ASK_WITHIN: Duration = Duration::from_secs(15);

/// How often partitions are looked for that were added meanwhile, and how long a look may hold the tail up.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);
const LOOK_WITHIN: Duration = Duration::from_secs(1);

/// How a tail fetches, unless the configuration says otherwise: what one fetch brings, of a partition and of all, and what may lie
/// fetched and not yet taken, all partitions together.
const SPARING: [(&str, &str); 3] =
    [("fetch.message.max.bytes", "1048576"), ("fetch.max.bytes", "1048576"), ("queued.max.messages.kbytes", "2048")];

/// The same where much is read at once. Where nothing more is, the broker says so after the wait.
const HASTY: [(&str, &str); 4] = [
    ("fetch.message.max.bytes", "1048576"),
    ("fetch.max.bytes", "4194304"),
    ("queued.max.messages.kbytes", "8192"),
    ("fetch.wait.max.ms", "50"),
];

/// In either case.
const AT_ONCE: [(&str, &str); 2] = [("fetch.queue.backoff.ms", "10"), ("socket.nagle.disable", "true")];

/// No call hands over more than that, so that its caller can look after something else in between.
const MOST_AT_ONCE: usize = 2_000;

/// Where a tail begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TailFrom {
    /// With the oldest record that there is.
    Beginning,
    /// With what is written from now on.
    End,
    /// With these offsets, or the oldest record where that is younger or no offset is given.
    Offsets(Vec<(TopicPartition, i64)>),
    /// With the first record that was written at this moment or later, or at these offsets where they are lower.
    Time(Timestamp, Vec<(TopicPartition, i64)>),
}

/// Where partitions end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ends(Vec<(TopicPartition, i64)>);

/// Reads topics without a group.
pub struct TopicTail {
    // Before the client that it came from.
    reader: RawReader,
    client: Arc<BaseConsumer<Watch>>,
    asker: Asker,
    clock: Clock,
    from: TailFrom,
    topics: BTreeMap<String, Vec<Partition>>,
    look_at: LocalTime,
}

struct Partition {
    tp: TopicPartition,
    /// Below it, everything was handed over.
    position: i64,
    denied: Option<ClientError>,
}

impl TopicTail {
    /// Reads what is committed in these topics.
    ///
    /// # Errors
    /// When a topic does not exist or may not be seen, or the brokers do not answer within 15 s.
    pub fn open(kafka: &KafkaConfig, topics: &[String], from: TailFrom) -> Result<Self, ClientError> {
        let mut tail = Self::new(kafka, from, Isolation::Committed)?;
        for topic in topics {
            tail.add(topic, ASK_WITHIN)?;
        }
        Ok(tail)
    }

    /// Reads no topic yet.
    ///
    /// # Errors
    /// When the client cannot be made.
    pub fn new(kafka: &KafkaConfig, from: TailFrom, isolation: Isolation) -> Result<Self, ClientError> {
        Self::fetching(kafka, from, isolation, &SPARING)
    }

    /// Reads what is committed from these offsets on, for somebody who waits until it has come to the end.
    ///
    /// # Errors
    /// When the client cannot be made.
    pub fn hasty(kafka: &KafkaConfig, from: Vec<(TopicPartition, i64)>) -> Result<Self, ClientError> {
        Self::fetching(kafka, TailFrom::Offsets(from), Isolation::Committed, &HASTY)
    }

    fn fetching(
        kafka: &KafkaConfig,
        from: TailFrom,
        isolation: Isolation,
        fetching: &[(&str, &str)],
    ) -> Result<Self, ClientError> {
        let (reader, client) = reader::make(kafka, isolation, &[fetching, &AT_ONCE].concat())?;
        let asker = Asker::new(kafka, isolation)?;
        let clock = Clock::system();
        let look_at = clock.now().later(LOOK_INTERVAL);
        Ok(Self { reader, client, asker, clock, from, topics: BTreeMap::new(), look_at })
    }

    /// Reads one more topic. Nothing is read of it after a failure, so that it can be tried again.
    ///
    /// # Errors
    /// When it does not exist or may not be seen, or the brokers do not answer in time.
    pub fn add(&mut self, topic: &str, within: Duration) -> Result<(), ClientError> {
        if self.topics.contains_key(topic) {
            return Ok(());
        }
        let count = self.asker.partition_count(topic, within)?;
        let all: Vec<TopicPartition> = (0..count).map(|partition| TopicPartition { topic: topic.into(), partition }).collect();
        let at = match &self.from {
            TailFrom::Beginning => self.asker.offsets(&all, Offset::Beginning, within)?,
            TailFrom::End => self.asker.offsets(&all, Offset::End, within)?,
            TailFrom::Offsets(known) => {
                let oldest = self.asker.offsets(&all, Offset::Beginning, within)?;
                let known = |tp: &TopicPartition| known.iter().find(|(at, _)| at == tp).map_or(0, |(_, offset)| *offset);
                oldest.into_iter().zip(&all).map(|(oldest, tp)| oldest.max(known(tp))).collect()
            }
            TailFrom::Time(moment, lower) => {
                // Where nothing is as young as that, the end is the place.
                let ends = self.asker.offsets(&all, Offset::End, within)?;
                let found = self.asker.offsets(&all, Offset::Offset(moment.as_millis().max(0)), within)?;
                let by_time = found.into_iter().zip(ends).map(|(found, end)| if found < 0 { end } else { found });
                let lower = |tp: &TopicPartition| lower.iter().find(|(known, _)| known == tp).map(|(_, offset)| *offset);
                by_time.zip(&all).map(|(offset, tp)| lower(tp).map_or(offset, |lower| lower.min(offset))).collect()
            }
        };
        let mut partitions = Vec::with_capacity(all.len());
        for (tp, offset) in all.into_iter().zip(at) {
            partitions.push(self.start(tp, offset)?);
        }
        self.topics.insert(topic.to_owned(), partitions);
        Ok(())
    }

    fn start(&mut self, tp: TopicPartition, offset: i64) -> Result<Partition, ClientError> {
        let started = self.reader.start(self.client.client().native_ptr(), &tp.topic, tp.partition, offset);
        started.map_err(|code| ClientError::code(format!("reading {tp}"), code))?;
        Ok(Partition { tp, position: offset, denied: None })
    }

    /// Hands over what is there, waiting for the first of it no longer than the timeout (in whole milliseconds). How many records
    /// there were is returned.
    ///
    /// # Errors
    /// While a partition may not be read, on every call; the records of the others are handed over nevertheless.
    pub fn poll(&mut self, timeout: Duration, mut each: impl FnMut(&TopicPartition, &Record)) -> Result<usize, ClientError> {
        lookup::serve(&self.client);
        self.asker.serve();
        self.look_for_partitions();
        let (mut records, mut timeout) = (0, timeout);
        for _ in 0..MOST_AT_ONCE {
            let topics = &mut self.topics;
            let was_something = self.reader.poll(timeout, |topic, partition, polled| {
                let index = usize::try_from(partition).unwrap_or(usize::MAX);
                let Some(known) = topics.get_mut(topic).and_then(|partitions| partitions.get_mut(index)) else { return };
                match polled {
                    Polled::Message(raw) => {
                        let record = Record::from(raw);
                        known.position = record.offset() + 1;
                        known.denied = None;
                        each(&known.tp, &record);
                        records += 1;
                    }
                    Polled::End(offset) => {
                        known.position = offset;
                        known.denied = None;
                    }
                    Polled::Error(code) if is_denial(code) => {
                        known.denied = Some(ClientError::code(format!("reading {}", known.tp), code));
                    }
                    Polled::Error(code) => tracing::debug!(partition = %known.tp, %code, "partition error that passes"),
                }
            });
            if !was_something {
                break;
            }
            timeout = Duration::ZERO;
        }
        let denied = self.topics.values().flatten().find_map(|partition| partition.denied.clone());
        denied.map_or(Ok(records), Err)
    }

    /// Asks the brokers once where the topics end now, and hands over what there is until it has all been read.
    ///
    /// # Errors
    /// When the brokers do not answer, a partition may not be read, or the end is not reached in time.
    pub fn catch_up(&mut self, within: Duration, mut each: impl FnMut(&TopicPartition, &Record)) -> Result<(), ClientError> {
        let deadline = self.clock.now().later(within);
        let topics: Vec<String> = self.topics.keys().cloned().collect();
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        let ends = self.ends(&topics, within)?;
        while !self.has_reached(&ends) {
            if self.clock.now() >= deadline {
                let doing = format!("reading {} to the end", topics.join(", "));
                return Err(ClientError::code(doing, RDKafkaErrorCode::OperationTimedOut));
            }
            self.poll(Duration::from_millis(100), &mut each)?;
        }
        Ok(())
    }

    /// Where these of the topics end now, by one question to the brokers: what is committed, or written, as the tail shows it.
    ///
    /// # Errors
    /// When the brokers do not answer in time.
    pub fn ends(&self, topics: &[&str], within: Duration) -> Result<Ends, ClientError> {
        let known = topics.iter().filter_map(|topic| self.topics.get(*topic)).flatten();
        let all: Vec<TopicPartition> = known.map(|partition| partition.tp.clone()).collect();
        Ok(Ends(self.ends_of(&all, within)?))
    }

    /// Where any partitions end now, whether they are read or not.
    ///
    /// # Errors
    /// When the brokers do not answer in time.
    pub fn ends_of(&self, partitions: &[TopicPartition], within: Duration) -> Result<Vec<(TopicPartition, i64)>, ClientError> {
        let ends = self.asker.offsets(partitions, Offset::End, within)?;
        Ok(partitions.iter().cloned().zip(ends).collect())
    }

    /// Whether everything below these ends was handed over.
    #[must_use]
    pub fn has_reached(&self, ends: &Ends) -> bool {
        ends.0.iter().all(|(tp, end)| self.position(tp).is_some_and(|position| position >= *end))
    }

    /// All partitions that are read.
    #[must_use]
    pub fn partitions(&self) -> Vec<TopicPartition> {
        self.topics.values().flatten().map(|partition| partition.tp.clone()).collect()
    }

    /// Below which offset everything of a partition was handed over; `None` where it is not read.
    #[must_use]
    pub fn position(&self, tp: &TopicPartition) -> Option<i64> {
        let partitions = self.topics.get(&*tp.topic)?;
        Some(partitions.get(usize::try_from(tp.partition).ok()?)?.position)
    }

    /// Why a topic may not be read, while it may not.
    #[must_use]
    pub fn denied(&self, topic: &str) -> Option<&ClientError> {
        self.topics.get(topic)?.iter().find_map(|partition| partition.denied.as_ref())
    }

    /// What is added later is read from its oldest record on, wherever the tail began: all of it is new.
    fn look_for_partitions(&mut self) {
        if self.clock.now() < self.look_at {
            return;
        }
        let known: Vec<(String, usize)> = self.topics.iter().map(|(name, partitions)| (name.clone(), partitions.len())).collect();
        for (topic, have) in known {
            // What cannot be told now is asked for again the next time; one that is away must not hold the others up.
            let Ok(count) = self.asker.partition_count(&topic, LOOK_WITHIN) else { continue };
            for partition in i32::try_from(have).unwrap_or(i32::MAX)..count {
                let tp = TopicPartition { topic: topic.as_str().into(), partition };
                match self.start(tp, 0) {
                    Ok(started) => self.topics.entry(topic.clone()).or_default().push(started),
                    Err(error) => {
                        tracing::warn!(%error, "added partition is not read yet");
                        break;
                    }
                }
            }
        }
        self.look_at = self.clock.now().later(LOOK_INTERVAL);
    }
}

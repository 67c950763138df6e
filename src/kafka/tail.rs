//! Reads whole topics without a group: all partitions, from a position on, including later records.
//!
//! Nothing is committed and there is no group membership, so that reading needs only the permission Read on the topics.
//! Positions are offsets, including those of transaction markers: a partition is at its end when the client reports it, which
//! may be beyond its last record.
//!
//! A tail survives outages: it yields nothing meanwhile and continues where it was. If the broker has lost a partition's position
//! (by retention, or because the topic was recreated), it continues with the oldest record; its offsets then jump, perhaps back.

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
use crate::kafka::consumer::ConsumerRecord;
use crate::kafka::error::{ClientError, is_denial};
use crate::kafka::ffi::{Polled, RawReader};
use crate::kafka::isolation::Isolation;
use crate::kafka::lookup;
use crate::kafka::partition::TopicPartition;
use crate::kafka::reader::{self, LostPlace};
use crate::kafka::watch::Watch;

/// Default time limit of a request to the brokers.
pub const ASK_WITHIN: Duration = Duration::from_secs(15);

/// Interval of looking for new partitions, and maximum time of such a lookup.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);
const LOOK_WITHIN: Duration = Duration::from_secs(1);

/// The same while a partition has no leader, so that it is not read.
const LEADER_INTERVAL: Duration = Duration::from_secs(2);

/// Fetch settings of a tail, unless configured: the size of a fetch, per partition and in total, and of fetched records that were
/// not taken, over all partitions.
const SPARING: [(&str, &str); 3] =
    [("fetch.message.max.bytes", "1048576"), ("fetch.max.bytes", "1048576"), ("queued.max.messages.kbytes", "2048")];

/// The same for reading much at once. If there are no more records, the broker answers after the
/// wait.
const HASTY: [(&str, &str); 4] = [
    ("fetch.message.max.bytes", "1048576"),
    ("fetch.max.bytes", "4194304"),
    ("queued.max.messages.kbytes", "8192"),
    ("fetch.wait.max.ms", "50"),
];

/// In either case.
const AT_ONCE: [(&str, &str); 2] = [("fetch.queue.backoff.ms", "10"), ("socket.nagle.disable", "true")];

/// Maximum number of records per call, so that its caller can do other work in between.
const MOST_AT_ONCE: usize = 2_000;

/// Start position of a tail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TailFrom {
    /// The oldest record.
    Beginning,
    /// The end: only records written from now on.
    End,
    /// These offsets; the oldest record if that is younger or no offset is given.
    Offsets(Vec<(TopicPartition, i64)>),
    /// The first record written at or after this time, or these offsets if they are lower.
    Time(Timestamp, Vec<(TopicPartition, i64)>),
}

/// The ends of partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ends(Vec<(TopicPartition, i64)>);

/// Reads topics without a group.
pub struct TopicTail {
    // Declared before its client, so that it is dropped first.
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
    /// Everything below it was passed on.
    position: i64,
    /// It had a leader, so it is being read.
    is_read: bool,
    denied: Option<ClientError>,
}

impl Partition {
    fn without_leader(tp: TopicPartition) -> Self {
        Self { tp, position: -1, is_read: false, denied: None }
    }
}

impl TopicTail {
    /// Reads committed records of these topics.
    ///
    /// # Errors
    /// A topic does not exist, may not be described, or the brokers do not answer within 15 s.
    pub fn open(kafka: &KafkaConfig, topics: &[String], from: TailFrom) -> Result<Self, ClientError> {
        let mut tail = Self::new(kafka, from, Isolation::Committed)?;
        for topic in topics {
            tail.add(topic, ASK_WITHIN)?;
        }
        Ok(tail)
    }

    /// Without topics.
    ///
    /// # Errors
    /// The client cannot be created.
    pub fn new(kafka: &KafkaConfig, from: TailFrom, isolation: Isolation) -> Result<Self, ClientError> {
        Self::fetching(kafka, from, isolation, &SPARING)
    }

    /// Reads committed records from these offsets on, for a caller that waits for the end.
    ///
    /// # Errors
    /// The client cannot be created.
    pub fn hasty(kafka: &KafkaConfig, from: Vec<(TopicPartition, i64)>) -> Result<Self, ClientError> {
        Self::fetching(kafka, TailFrom::Offsets(from), Isolation::Committed, &HASTY)
    }

    fn fetching(
        kafka: &KafkaConfig,
        from: TailFrom,
        isolation: Isolation,
        fetching: &[(&str, &str)],
    ) -> Result<Self, ClientError> {
        let (reader, client) = reader::make(kafka, isolation, LostPlace::Oldest, &[fetching, &AT_ONCE].concat())?;
        let asker = Asker::new(kafka, isolation)?;
        let clock = Clock::system();
        let look_at = clock.now().later(LOOK_INTERVAL);
        Ok(Self { reader, client, asker, clock, from, topics: BTreeMap::new(), look_at })
    }

    /// Adds a topic. After a failure nothing is read of it, so that it can be tried again; a partition without leader is read once it
    /// has one.
    ///
    /// # Errors
    /// It does not exist, may not be described, or the brokers do not answer in time.
    pub fn add(&mut self, topic: &str, within: Duration) -> Result<(), ClientError> {
        if self.topics.contains_key(topic) {
            return Ok(());
        }
        let led = self.asker.leaders(topic, within)?;
        let topic_partition = |partition| TopicPartition { topic: topic.into(), partition };
        let all = (0..).zip(&led).map(|(partition, _)| Partition::without_leader(topic_partition(partition)));
        let mut partitions: Vec<Partition> = all.collect();
        self.place(&mut partitions, &led, within)?;
        if partitions.iter().any(|partition| !partition.is_read) {
            self.look_at = self.look_at.min(self.clock.now().later(LEADER_INTERVAL));
        }
        self.topics.insert(topic.to_owned(), partitions);
        Ok(())
    }

    /// Begins to read partitions of a topic that have a leader and are not read yet. The lookup of one without leader would use up all of the
    /// time.
    fn place(&mut self, partitions: &mut [Partition], led: &[bool], within: Duration) -> Result<(), ClientError> {
        let mut begun: Vec<&mut Partition> =
            partitions.iter_mut().zip(led).filter(|(p, is_led)| !p.is_read && **is_led).map(|(p, _)| p).collect();
        let all: Vec<TopicPartition> = begun.iter().map(|p| p.tp.clone()).collect();
        let at = match &self.from {
            TailFrom::Beginning => self.asker.offsets(&all, Offset::Beginning, within)?,
            TailFrom::End => self.asker.offsets(&all, Offset::End, within)?,
            TailFrom::Offsets(known) => {
                let oldest = self.asker.offsets(&all, Offset::Beginning, within)?;
                let known = |tp: &TopicPartition| known.iter().find(|(at, _)| at == tp).map_or(0, |(_, offset)| *offset);
                oldest.into_iter().zip(&all).map(|(oldest, tp)| oldest.max(known(tp))).collect()
            }
            TailFrom::Time(moment, lower) => {
                // If no record is that young, the position is the end.
                let ends = self.asker.offsets(&all, Offset::End, within)?;
                let found = self.asker.offsets(&all, Offset::Offset(moment.as_millis().max(0)), within)?;
                let by_time = found.into_iter().zip(ends).map(|(found, end)| if found < 0 { end } else { found });
                let lower = |tp: &TopicPartition| lower.iter().find(|(known, _)| known == tp).map(|(_, offset)| *offset);
                by_time.zip(&all).map(|(offset, tp)| lower(tp).map_or(offset, |lower| lower.min(offset))).collect()
            }
        };
        for (partition, offset) in begun.iter_mut().zip(at) {
            **partition = self.start(partition.tp.clone(), offset)?;
        }
        Ok(())
    }

    fn start(&mut self, tp: TopicPartition, offset: i64) -> Result<Partition, ClientError> {
        let started = self.reader.start(self.client.client().native_ptr(), &tp.topic, tp.partition, offset);
        started.map_err(|code| ClientError::code(format!("reading {tp}"), code))?;
        Ok(Partition { tp, position: offset, is_read: true, denied: None })
    }

    /// Passes on available records, waiting at most the timeout (in whole milliseconds) for the first. Returns the number of
    /// records.
    ///
    /// # Errors
    /// A partition may not be read: on every call meanwhile; the records of the others are passed on
    /// nevertheless.
    pub fn poll(
        &mut self,
        timeout: Duration,
        mut each: impl FnMut(&TopicPartition, &ConsumerRecord),
    ) -> Result<usize, ClientError> {
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
                        let record = ConsumerRecord::from(raw);
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

    /// Asks the brokers once for the ends of the topics, and passes on records until all are read up to there.
    ///
    /// # Errors
    /// The brokers do not answer, a partition may not be read, or the end is not reached in time.
    pub fn catch_up(
        &mut self,
        within: Duration,
        mut each: impl FnMut(&TopicPartition, &ConsumerRecord),
    ) -> Result<(), ClientError> {
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

    /// The current ends of these topics, in one request: of committed or of all records, according to the tail's isolation.
    ///
    /// # Errors
    /// The brokers do not answer in time.
    pub fn ends(&self, topics: &[&str], within: Duration) -> Result<Ends, ClientError> {
        let known = topics.iter().filter_map(|topic| self.topics.get(*topic)).flatten();
        let all: Vec<TopicPartition> = known.map(|partition| partition.tp.clone()).collect();
        Ok(Ends(self.ends_of(&all, within)?))
    }

    /// The current ends of any partitions, whether they are read or not.
    ///
    /// # Errors
    /// The brokers do not answer in time.
    pub fn ends_of(&self, partitions: &[TopicPartition], within: Duration) -> Result<Vec<(TopicPartition, i64)>, ClientError> {
        let ends = self.asker.offsets(partitions, Offset::End, within)?;
        Ok(partitions.iter().cloned().zip(ends).collect())
    }

    /// The current ends of all partitions being read, individually; without those whose leaders do not answer, or that have none.
    ///
    /// # Errors
    /// No broker answers in time.
    pub fn ends_by_partition(&self, within: Duration) -> Result<BTreeMap<TopicPartition, i64>, ClientError> {
        let all = self.partitions();
        let ends = self.asker.ends(&all, within)?;
        Ok(all.into_iter().zip(ends).filter_map(|(tp, end)| Some((tp, end?))).collect())
    }

    /// Whether everything below these ends was passed on.
    #[must_use]
    pub fn has_reached(&self, ends: &Ends) -> bool {
        ends.0.iter().all(|(tp, end)| self.position(tp).is_some_and(|position| position >= *end))
    }

    /// All partitions being read.
    #[must_use]
    pub fn partitions(&self) -> Vec<TopicPartition> {
        self.topics.values().flatten().map(|partition| partition.tp.clone()).collect()
    }

    /// The offset below which everything of a partition was passed on; `None` if it is not read.
    #[must_use]
    pub fn position(&self, tp: &TopicPartition) -> Option<i64> {
        let partitions = self.topics.get(&*tp.topic)?;
        Some(partitions.get(usize::try_from(tp.partition).ok()?)?.position)
    }

    /// Whether a partition may not be read.
    #[must_use]
    pub fn is_denied(&self, tp: &TopicPartition) -> bool {
        let known = self.topics.get(&*tp.topic).and_then(|all| all.get(usize::try_from(tp.partition).ok()?));
        known.is_some_and(|partition| partition.denied.is_some())
    }

    /// Why a topic may not be read, while it may not.
    #[must_use]
    pub fn denied(&self, topic: &str) -> Option<&ClientError> {
        self.topics.get(topic)?.iter().find_map(|partition| partition.denied.as_ref())
    }

    /// New partitions are read from their oldest record on, wherever the tail began: all of it is new.
    fn look_for_partitions(&mut self) {
        if self.clock.now() < self.look_at {
            return;
        }
        let known: Vec<(String, usize)> = self.topics.iter().map(|(name, partitions)| (name.clone(), partitions.len())).collect();
        let mut are_read = true;
        for (topic, have) in known {
            let waits = self.topics[&topic].iter().any(|partition| !partition.is_read);
            // A failed lookup is repeated the next time; an unreachable topic must not delay the others.
            let Ok(led) = self.asker.leaders(&topic, LOOK_WITHIN) else {
                are_read &= !waits;
                continue;
            };
            if waits {
                let mut partitions = self.topics.remove(&topic).unwrap_or_default();
                let placed = self.place(&mut partitions, &led, LOOK_WITHIN);
                are_read &= placed.is_ok() && partitions.iter().all(|partition| partition.is_read);
                self.topics.insert(topic.clone(), partitions);
            }
            for (partition, _) in (0..).zip(&led).skip(have) {
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
        self.look_at = self.clock.now().later(if are_read { LOOK_INTERVAL } else { LEADER_INTERVAL });
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::config::ClientConfig;
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

    use super::*;

    #[test]
    fn a_partition_without_leader_keeps_nobody_from_beginning_and_is_read_when_it_has_one() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("orders", 2, 1).unwrap();
        let servers = cluster.bootstrap_servers();
        let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", &servers).create().unwrap();
        for partition in 0..2 {
            let record = BaseRecord::<(), str>::to("orders").partition(partition).payload("it");
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(Duration::from_secs(30)).unwrap();
        cluster.partition_leader("orders", 1, None).unwrap();
        let mut tail = TopicTail::open(&KafkaConfig::new(&servers), &["orders".to_owned()], TailFrom::Beginning).unwrap();
        let clock = Clock::system();
        let deadline = clock.now().later(Duration::from_secs(60));
        let read_from = |tail: &mut TopicTail, wanted: i32| {
            let mut found = Vec::new();
            while found.is_empty() {
                assert!(clock.now() < deadline, "nothing of partition {wanted} is read");
                tail.poll(Duration::from_millis(50), |tp, _| found.push(tp.partition)).unwrap();
            }
            assert_eq!(found, [wanted]);
        };
        read_from(&mut tail, 0);
        let without = TopicPartition { topic: "orders".into(), partition: 1 };
        assert_eq!(tail.position(&without), Some(-1));
        let ends = tail.ends_by_partition(Duration::from_secs(20)).unwrap();
        assert_eq!(ends.into_iter().map(|(tp, end)| (tp.partition, end)).collect::<Vec<_>>(), [(0, 1)]);
        cluster.partition_leader("orders", 1, Some(1)).unwrap();
        read_from(&mut tail, 1);
        assert_eq!(tail.position(&without), Some(1));
    }
}

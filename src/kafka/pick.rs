//! Reads single records of any partitions by offset, in any order.
//!
//! One client serves all of them, and no partition waits for another: a partition without leader, or without permission, is reported
//! individually. Partitions without wanted records are not fetched.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::topic_partition_list::Offset;

use crate::config::KafkaConfig;
use crate::core::leader_clock::LocalTime;
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

/// Number of records that are read and dropped rather than skipped, which costs a round trip.
const NEAR: i64 = 1_000;

/// Maximum silence of a partition before its wanted records have failed.
const PATIENCE: Duration = Duration::from_secs(5);

/// Time limit of a request to the brokers; meanwhile nothing else is read.
const ASK_WITHIN: Duration = Duration::from_secs(2);

/// How long a topic's partition count, or a failure to get it, is cached.
const COUNT_STANDS: Duration = Duration::from_secs(30);
const NO_COUNT_STANDS: Duration = Duration::from_secs(1);

/// Maximum number of records per call, so that its caller can do other work in between.
const MOST_AT_ONCE: usize = 500;

/// The result for a wanted record.
pub enum Picked {
    /// The record.
    Found(ConsumerRecord),
    /// It was deleted, or never existed.
    Gone,
    /// It could not be read, but may exist.
    Unread(ClientError),
}

/// Reads single records.
pub struct Picker {
    // Declared before its client, so that it is dropped first.
    reader: RawReader,
    client: Arc<BaseConsumer<Watch>>,
    /// Looks up partition ends, including uncommitted records.
    asker: Asker,
    clock: Clock,
    wanted: BTreeMap<TopicPartition, Wanted>,
    counts: BTreeMap<Arc<str>, (Result<i32, ClientError>, LocalTime)>,
}

/// The wanted offsets of one partition.
#[derive(Default)]
struct Wanted {
    offsets: BTreeSet<i64>,
    open: Option<Open>,
}

/// A partition being read.
struct Open {
    /// The next offset.
    next: i64,
    heard: LocalTime,
}

/// An event of a partition that needs handling outside of the queue's callback.
enum Event {
    /// Nothing is visible from this offset on.
    End(i64),
    /// The requested offset does not exist.
    NoSuchOffset,
    Failed(RDKafkaErrorCode),
}

impl Picker {
    /// Connects when the first record is wanted.
    ///
    /// # Errors
    /// The client cannot be created.
    pub fn new(kafka: &KafkaConfig) -> Result<Self, ClientError> {
        // Only one record of a fetch may be wanted, and fetching the last one of a partition blocks the broker's
        // connection.
        let defaults = [
            ("fetch.queue.backoff.ms", "10"),
            ("fetch.wait.max.ms", "20"),
            ("queued.max.messages.kbytes", "8192"),
            ("fetch.message.max.bytes", "262144"),
        ];
        let (reader, client) = reader::make(kafka, Isolation::Committed, LostPlace::Told, &defaults)?;
        let asker = Asker::new(kafka, Isolation::Uncommitted)?;
        Ok(Self { reader, client, asker, clock: Clock::system(), wanted: BTreeMap::new(), counts: BTreeMap::new() })
    }

    /// Whether no record is wanted.
    #[cfg(test)]
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Requests a record; [`Picker::poll`] returns its result once.
    pub fn want(&mut self, tp: &TopicPartition, offset: i64) {
        self.wanted.entry(tp.clone()).or_default().offsets.insert(offset);
    }

    /// Passes on results, waiting at most the timeout (in whole milliseconds) for the first.
    pub fn poll(&mut self, timeout: Duration, mut each: impl FnMut(&TopicPartition, i64, Picked)) {
        lookup::serve(&self.client);
        self.asker.serve();
        self.open_what_is_wanted(&mut each);
        let mut timeout = timeout;
        for _ in 0..MOST_AT_ONCE {
            if !self.poll_once(timeout, &mut each) {
                break;
            }
            timeout = Duration::ZERO;
        }
        self.give_up_silent(&mut each);
    }

    /// Returns whether there was anything.
    fn poll_once(&mut self, timeout: Duration, each: &mut impl FnMut(&TopicPartition, i64, Picked)) -> bool {
        let (wanted, clock, mut event) = (&mut self.wanted, &self.clock, None);
        let was_something = self.reader.poll(timeout, |topic, partition, polled| {
            let tp = TopicPartition { topic: topic.into(), partition };
            let Some(Wanted { offsets, open: Some(open) }) = wanted.get_mut(&tp) else { return };
            match polled {
                Polled::Message(raw) => {
                    let record = ConsumerRecord::from(raw);
                    let offset = record.offset();
                    (open.next, open.heard) = (offset.saturating_add(1), clock.now());
                    let rest = offsets.split_off(&offset);
                    for gone in std::mem::replace(offsets, rest) {
                        each(&tp, gone, Picked::Gone);
                    }
                    if offsets.remove(&offset) {
                        each(&tp, offset, Picked::Found(record));
                    }
                }
                Polled::End(offset) => {
                    (open.next, open.heard) = (offset, clock.now());
                    event = Some((tp, Event::End(offset)));
                }
                Polled::Error(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                    event = Some((tp, Event::NoSuchOffset));
                }
                Polled::Error(code) if is_denial(code) => event = Some((tp, Event::Failed(code))),
                Polled::Error(code) => tracing::debug!(partition = %tp, %code, "partition error that passes"),
            }
        });
        match event {
            Some((tp, Event::End(offset))) => self.reached_end(&tp, offset, each),
            Some((tp, Event::NoSuchOffset)) => self.look_where_it_begins(&tp, each),
            Some((tp, Event::Failed(code))) => self.fail(&tp, &ClientError::code(format!("reading {tp}"), code), each),
            None => {}
        }
        was_something
    }

    /// Starts reading partitions with wanted records, moves those where the next one is far away, and stops those without.
    fn open_what_is_wanted(&mut self, each: &mut impl FnMut(&TopicPartition, i64, Picked)) {
        let all: Vec<TopicPartition> = self.wanted.keys().cloned().collect();
        for tp in all {
            // Negative offsets have a special meaning to the client: end and beginning.
            self.end_with(&tp, |offset| offset < 0, || Picked::Gone, each);
            let Some(Wanted { offsets, open }) = self.wanted.get(&tp) else { continue };
            let Some(first) = offsets.first().copied() else {
                self.close(&tp);
                self.wanted.remove(&tp);
                continue;
            };
            if open.as_ref().is_some_and(|open| (open.next..=open.next.saturating_add(NEAR)).contains(&first)) {
                continue;
            }
            self.close(&tp);
            if let Err(picked) = self.open(&tp, first) {
                match picked {
                    None => self.end_with(&tp, |_| true, || Picked::Gone, each),
                    Some(error) => self.fail(&tp, &error, each),
                }
            }
        }
    }

    /// # Errors
    /// It cannot be started; without an error if the offset does not exist.
    fn open(&mut self, tp: &TopicPartition, offset: i64) -> Result<(), Option<ClientError>> {
        if tp.partition < 0 || !self.has_partition(tp)? {
            return Err(None);
        }
        let started = self.reader.start(self.client.client().native_ptr(), &tp.topic, tp.partition, offset);
        started.map_err(|code| ClientError::code(format!("reading {tp}"), code))?;
        if let Some(wanted) = self.wanted.get_mut(tp) {
            wanted.open = Some(Open { next: offset, heard: self.clock.now() });
        }
        Ok(())
    }

    fn has_partition(&mut self, tp: &TopicPartition) -> Result<bool, ClientError> {
        let now = self.clock.now();
        let is_known = |(count, until): &(Result<i32, ClientError>, LocalTime)| {
            now < *until || count.as_ref().is_ok_and(|count| tp.partition < *count)
        };
        if !self.counts.get(&tp.topic).is_some_and(is_known) {
            let count = self.asker.partition_count(&tp.topic, ASK_WITHIN);
            let stands = if count.is_ok() { COUNT_STANDS } else { NO_COUNT_STANDS };
            self.counts.insert(tp.topic.clone(), (count, self.clock.now().later(stands)));
        }
        self.counts[&tp.topic].0.clone().map(|count| tp.partition < count)
    }

    /// There is nothing beyond the end, unless a transaction is open there.
    fn reached_end(&mut self, tp: &TopicPartition, end: i64, each: &mut impl FnMut(&TopicPartition, i64, Picked)) {
        self.end_with(tp, |offset| offset < end, || Picked::Gone, each);
        if self.wanted.get(tp).is_none_or(|wanted| wanted.offsets.is_empty()) {
            return;
        }
        match self.asker.offsets(std::slice::from_ref(tp), Offset::End, ASK_WITHIN) {
            Ok(ends) => {
                let written = ends[0].max(end);
                self.end_with(tp, |offset| offset >= written, || Picked::Gone, each);
                let open = ClientError::text(format!("reading {tp}"), format!("a transaction is open there since offset {end}"));
                self.fail(tp, &open, each);
            }
            Err(error) => self.fail(tp, &error, each),
        }
    }

    /// The requested offset does not exist: it is before the first one or after the last one.
    fn look_where_it_begins(&mut self, tp: &TopicPartition, each: &mut impl FnMut(&TopicPartition, i64, Picked)) {
        self.close(tp);
        let ask = |at| self.asker.offsets(std::slice::from_ref(tp), at, ASK_WITHIN).map(|found| found[0]);
        match ask(Offset::Beginning).and_then(|begin| Ok((begin, ask(Offset::End)?))) {
            Ok((begin, end)) => self.end_with(tp, |offset| !(begin..end).contains(&offset), || Picked::Gone, each),
            Err(error) => self.fail(tp, &error, each),
        }
    }

    /// Nothing has come from these for too long, for example without a leader.
    fn give_up_silent(&mut self, each: &mut impl FnMut(&TopicPartition, i64, Picked)) {
        let now = self.clock.now();
        let is_silent = |wanted: &Wanted| {
            wanted.open.as_ref().is_some_and(|open| !wanted.offsets.is_empty() && now.since(open.heard) > PATIENCE)
        };
        let silent: Vec<TopicPartition> =
            self.wanted.iter().filter(|(_, wanted)| is_silent(wanted)).map(|(tp, _)| tp.clone()).collect();
        for tp in silent {
            let error = ClientError::code(format!("reading {tp}"), RDKafkaErrorCode::OperationTimedOut);
            self.fail(&tp, &error, each);
        }
    }

    fn fail(&mut self, tp: &TopicPartition, error: &ClientError, each: &mut impl FnMut(&TopicPartition, i64, Picked)) {
        self.close(tp);
        // The topic may have been recreated with fewer partitions.
        if self.counts.get(&tp.topic).is_some_and(|(count, _)| count.is_ok()) {
            self.counts.remove(&tp.topic);
        }
        self.end_with(tp, |_| true, || Picked::Unread(error.clone()), each);
    }

    fn end_with(
        &mut self,
        tp: &TopicPartition,
        which: impl Fn(i64) -> bool,
        picked: impl Fn() -> Picked,
        each: &mut impl FnMut(&TopicPartition, i64, Picked),
    ) {
        let Some(wanted) = self.wanted.get_mut(tp) else { return };
        let (ended, rest): (BTreeSet<i64>, BTreeSet<i64>) = wanted.offsets.iter().partition(|offset| which(**offset));
        wanted.offsets = rest;
        for offset in ended {
            each(tp, offset, picked());
        }
    }

    fn close(&mut self, tp: &TopicPartition) {
        if self.wanted.get_mut(tp).and_then(|wanted| wanted.open.take()).is_some() {
            self.reader.stop(&tp.topic, tp.partition);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rdkafka::config::ClientConfig;
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

    use super::*;

    /// Results by position: the value, or why there is none.
    type Became = BTreeMap<(i32, i64), Result<String, String>>;

    fn became(picker: &mut Picker, count: usize) -> Became {
        let mut became = Became::new();
        let clock = Clock::system();
        let deadline = clock.now().later(Duration::from_secs(60));
        while became.len() < count {
            assert!(clock.now() < deadline, "only {became:?}");
            picker.poll(Duration::from_millis(50), |tp, offset, picked| {
                let value = match picked {
                    Picked::Found(record) => Ok(String::from_utf8_lossy(record.value().unwrap_or_default()).into_owned()),
                    Picked::Gone => Err("gone".to_owned()),
                    Picked::Unread(error) => Err(error.to_string()),
                };
                assert!(became.insert((tp.partition, offset), value).is_none(), "told twice");
            });
        }
        became
    }

    #[test]
    fn a_partition_without_leader_is_told_of_by_itself_and_read_when_it_has_one() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("orders", 2, 1).unwrap();
        let servers = cluster.bootstrap_servers();
        let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", &servers).create().unwrap();
        for number in 0..3_000 {
            let value = number.to_string();
            for partition in 0..2 {
                let record = BaseRecord::<(), str>::to("orders").partition(partition).payload(&value);
                producer.send(record).map_err(|(error, _)| error).unwrap();
            }
        }
        producer.flush(Duration::from_secs(30)).unwrap();
        cluster.partition_leader("orders", 1, None).unwrap();
        let mut picker = Picker::new(&KafkaConfig::new(&servers)).unwrap();
        let tp = |partition| TopicPartition { topic: "orders".into(), partition };
        for (partition, offset) in
            [(1, 7), (0, 2_900), (0, 3), (0, 4), (0, 900_000), (0, i64::MAX), (0, -5), (-1, 0), (7, 0), (1, 8)]
        {
            picker.want(&tp(partition), offset);
        }
        let said = became(&mut picker, 10);
        for (partition, offset) in [(0, 3), (0, 4), (0, 2_900)] {
            assert_eq!(said[&(partition, offset)], Ok(offset.to_string()));
        }
        for nowhere in [(0, 900_000), (0, i64::MAX), (0, -5), (-1, 0), (7, 0)] {
            assert_eq!(said[&nowhere], Err("gone".to_owned()), "{nowhere:?}");
        }
        for offset in [7, 8] {
            assert!(said[&(1, offset)].as_ref().is_err_and(|why| why.contains("orders[1]")), "{said:?}");
        }
        cluster.partition_leader("orders", 1, Some(1)).unwrap();
        let clock = Clock::system();
        let deadline = clock.now().later(Duration::from_secs(60));
        loop {
            picker.want(&tp(1), 7);
            if became(&mut picker, 1)[&(1, 7)] == Ok("7".to_owned()) {
                break;
            }
            assert!(clock.now() < deadline);
        }
        picker.poll(Duration::ZERO, |_, _, _| {});
        assert!(picker.is_idle());
    }
}

//! The brokers of the model: logs in which transaction markers and aborted records take up offsets, and the transaction
//! coordinator.
//!
//! What the brokers were seen to do: a reader sees records up to the last stable offset; offsets of a transaction are applied when
//! it is committed, over whatever was committed plainly meanwhile; a new producer under a name ends what its predecessor left
//! open; a transaction that stays open for too long is aborted and its producer fenced.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::core::ack_tracker::CommitPoint;
use crate::core::chance::Chance;
use crate::core::due::{self, Move};
use crate::core::envelope::{Coordinates, Envelope};
use crate::core::ladder::Ladder;
use crate::core::leader_clock::LocalTime;
use crate::core::time::Timestamp;
use crate::kafka::NativeHeaders;
use crate::kafka::consumer::TopicPartition;
use crate::worker::committer::model::check::{At, Check, Life, Seen, Tp};
use crate::worker::committer::model::group::Group;

const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);

/// The source, by number.
pub(super) const SOURCE: usize = 0;
/// The redeliver topic, by number.
pub(super) const REDELIVER: usize = 1;
/// The first tier, by number; the DLQ comes after the last.
pub(super) const TIERS: usize = 2;

/// The user header that says from which place a record came.
const PLACE: &[u8] = b"place";

/// A record in a log.
pub(super) struct Stored {
    pub(super) value: Vec<u8>,
    pub(super) headers: NativeHeaders,
    pub(super) appended: Timestamp,
}

enum Entry {
    Record { stored: Rc<Stored>, transaction: Option<usize> },
    Marker,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Committed,
    Aborted,
}

struct Transaction {
    state: State,
    life: Life,
    since: LocalTime,
    written: Vec<(usize, i32, Rc<Stored>)>,
    offsets: BTreeMap<Tp, CommitPoint>,
}

/// What the coordinator knows of a transactional.id.
#[derive(Default)]
struct Producer {
    epoch: u64,
    open: Option<usize>,
    /// An end of transaction that is still under way, and whether it commits.
    delayed: Option<u64>,
}

/// A plain commit as it was sent.
struct PlainCommit {
    life: Life,
    generation: u64,
    points: Vec<(Tp, CommitPoint)>,
}

/// What reading on gives.
pub(super) enum Fetched {
    Record(i64, Rc<Stored>),
    /// Nothing more is there below the last stable offset.
    End(i64),
}

/// The brokers.
pub(super) struct Cluster {
    pub(super) ladder: Arc<Ladder>,
    names: Vec<Arc<str>>,
    logs: BTreeMap<Tp, Vec<Entry>>,
    transactions: Vec<Transaction>,
    producers: [Producer; 2],
    /// Plain commits that are still on their way, with the generation that they were sent under.
    on_the_way: [Vec<PlainCommit>; 2],
    moved: BTreeMap<Tp, usize>,
    /// Before when a waiting record may not come back, by its tier's partition and offset.
    asked: BTreeMap<At, Timestamp>,
    pub(super) group: Group,
    pub(super) check: Check,
}

impl Cluster {
    pub(super) fn new(ladder: Arc<Ladder>, partitions: i32, check: Check) -> Self {
        let mut names: Vec<Arc<str>> = vec![ladder.sources()[0].as_str().into(), ladder.redeliver_topic().into()];
        names.extend(ladder.tiers().iter().map(|tier| Arc::from(tier.topic())));
        names.push(ladder.dlq_topic().into());
        let all = |topic| (0..partitions).map(move |partition| (topic, partition));
        let logs = (0..names.len()).flat_map(all).map(|tp| (tp, Vec::new())).collect();
        let group = Group::new([SOURCE, REDELIVER].into_iter().flat_map(all));
        let moved = (TIERS..names.len() - 1).flat_map(all).map(|tp| (tp, 0)).collect();
        let (transactions, producers, asked) = (Vec::new(), Default::default(), BTreeMap::new());
        let on_the_way = Default::default();
        Self { ladder, names, logs, transactions, producers, on_the_way, moved, asked, group, check }
    }

    pub(super) fn dlq(&self) -> usize {
        self.names.len() - 1
    }

    pub(super) fn named(&self, tp: Tp) -> TopicPartition {
        TopicPartition { topic: self.names[tp.0].clone(), partition: tp.1 }
    }

    pub(super) fn numbered(&self, tp: &TopicPartition) -> Tp {
        let topic = self.names.iter().position(|name| *name == tp.topic).expect("a topic of the model");
        (topic, tp.partition)
    }

    /// Puts a record into the source, or something that takes up offsets and is no record.
    pub(super) fn produce(&mut self, partition: i32, record: Option<usize>, now: LocalTime) {
        let log = self.logs.get_mut(&(SOURCE, partition)).expect("a partition");
        let Some(record) = record else { return log.push(Entry::Marker) };
        let at = ((SOURCE, partition), offset_of(log.len()));
        let value = u16::try_from(record).expect("few records").to_be_bytes().to_vec();
        let stored = Stored { value, headers: placed(&NativeHeaders::new(), at), appended: now.timestamp() };
        log.push(Entry::Record { stored: Rc::new(stored), transaction: None });
        self.check.arrived(at, record, 0, Timestamp::default());
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: LocalTime, chance: &mut Chance) {
        self.group.tick(now, chance);
        for member in 0..self.on_the_way.len() {
            if !self.on_the_way[member].is_empty() && chance.per_mille(100) {
                self.arrive_plainly(member);
            }
        }
        for id in 0..self.producers.len() {
            let Some(open) = self.producers[id].open else { continue };
            if now > self.transactions[open].since.later(TRANSACTION_TIMEOUT) {
                self.end(id, false);
                self.producers[id].epoch += 1;
            } else if self.producers[id].delayed.is_some() && chance.per_mille(100) {
                self.arrive_late(id);
            }
        }
        self.move_due(now);
    }

    /// A delayed end of transaction reaches the coordinator, which takes it from the epoch that it knows only.
    fn arrive_late(&mut self, id: usize) {
        let producer = &mut self.producers[id];
        if producer.delayed.take() == Some(producer.epoch) && producer.open.is_some() {
            self.end(id, true);
        }
    }

    /// Reads on from an offset, as `read_committed`.
    pub(super) fn fetch(&self, tp: Tp, from: i64) -> Fetched {
        let log = &self.logs[&tp];
        let start = usize::try_from(from).expect("an offset");
        for (index, entry) in log.iter().enumerate().skip(start) {
            if let Entry::Record { stored, transaction } = entry {
                match transaction.map_or(State::Committed, |txn| self.transactions[txn].state) {
                    State::Open => return Fetched::End(offset_of(index)),
                    State::Committed => return Fetched::Record(offset_of(index), stored.clone()),
                    State::Aborted => {}
                }
            }
        }
        Fetched::End(offset_of(log.len()))
    }

    pub(super) fn end_of(&self, tp: Tp) -> i64 {
        offset_of(self.logs[&tp].len())
    }

    /// A producer says under which name it writes: what was open under it ends, and whoever had the name is fenced.
    pub(super) fn init(&mut self, id: usize) -> u64 {
        if self.producers[id].open.is_some() {
            self.end(id, false);
        }
        self.producers[id].epoch += 1;
        self.producers[id].epoch
    }

    pub(super) fn is_current(&self, id: usize, epoch: u64) -> bool {
        self.producers[id].epoch == epoch
    }

    /// Writes a record, in the open transaction of the producer or outside of any.
    pub(super) fn append(&mut self, life: Life, target: Tp, stored: Stored, transactional: bool, now: LocalTime) {
        let stored = Rc::new(stored);
        let transaction = transactional.then(|| self.opened(life, now));
        let log = self.logs.get_mut(&target).expect("a partition");
        let at = (target, offset_of(log.len()));
        log.push(Entry::Record { stored: stored.clone(), transaction });
        match transaction {
            Some(transaction) => self.transactions[transaction].written.push((target.0, target.1, stored)),
            None => {
                self.see(at.0, &stored, life);
            }
        }
    }

    /// Puts offsets into the open transaction of the producer.
    pub(super) fn put_offsets(&mut self, life: Life, points: Vec<(Tp, CommitPoint)>, now: LocalTime) {
        let transaction = self.opened(life, now);
        self.transactions[transaction].offsets.extend(points);
    }

    fn opened(&mut self, life: Life, now: LocalTime) -> usize {
        *self.producers[life.0].open.get_or_insert_with(|| {
            let (written, offsets) = (Vec::new(), BTreeMap::new());
            self.transactions.push(Transaction { state: State::Open, life, since: now, written, offsets });
            self.transactions.len() - 1
        })
    }

    /// Ends what a producer has open.
    pub(super) fn end(&mut self, id: usize, commit: bool) {
        let Some(number) = self.producers[id].open.take() else { return };
        let transaction = &mut self.transactions[number];
        transaction.state = if commit { State::Committed } else { State::Aborted };
        let (life, written) = (transaction.life, std::mem::take(&mut transaction.written));
        let offsets = std::mem::take(&mut transaction.offsets);
        let touched: BTreeSet<Tp> = written.iter().map(|(topic, partition, _)| (*topic, *partition)).collect();
        if commit {
            let left: Vec<At> =
                written.iter().filter_map(|(topic, partition, stored)| self.see((*topic, *partition), stored, life)).collect();
            for (tp, point) in offsets {
                self.commit_point(tp, point, life);
            }
            for at in left {
                self.check.consumed(at, &self.group.committed[&at.0]);
            }
        }
        for tp in touched {
            self.logs.get_mut(&tp).expect("a partition").push(Entry::Marker);
        }
    }

    /// The end of a transaction is under way for long.
    pub(super) fn delay_commit(&mut self, id: usize) {
        self.producers[id].delayed = Some(self.producers[id].epoch);
    }

    /// What is still under way arrives now.
    pub(super) fn hurry(&mut self, id: usize) {
        self.arrive_late(id);
    }

    /// Whether some transaction that is still open carries offsets of this partition.
    pub(super) fn is_unstable(&self, tp: Tp) -> bool {
        let open = self.producers.iter().filter_map(|producer| producer.open);
        open.into_iter().any(|txn| self.transactions[txn].offsets.contains_key(&tp))
    }

    /// A plain commit is sent and takes its time.
    pub(super) fn delay_plainly(&mut self, life: Life, points: &[(TopicPartition, CommitPoint)]) {
        let Some(generation) = self.group.members[life.0].generation else { return };
        let points = points.iter().map(|(tp, point)| (self.numbered(tp), point.clone())).collect();
        self.on_the_way[life.0].push(PlainCommit { life, generation, points });
    }

    /// The plain commits of a member arrive that are still on their way. What is stale by then is refused.
    pub(super) fn arrive_plainly(&mut self, member: usize) {
        for PlainCommit { life, generation, points } in std::mem::take(&mut self.on_the_way[member]) {
            if self.group.takes(life, generation) {
                for (tp, point) in points {
                    self.commit_point(tp, point, life);
                }
            }
        }
    }

    /// Commits a position.
    pub(super) fn commit_point(&mut self, tp: Tp, point: CommitPoint, life: Life) {
        let before = self.group.committed.get_mut(&tp).expect("a partition of the group");
        self.check.committing(tp, before, &point, life);
        *before = point;
    }

    /// A hop has become visible: tells the checker, and gives the place that it left.
    fn see(&mut self, target: Tp, stored: &Rc<Stored>, life: Life) -> Option<At> {
        let from = place_of(&stored.headers)?;
        let envelope = self.envelope(target, stored);
        let tier = (target.0 != self.dlq()).then(|| u32::try_from(target.0 - TIERS + 1).unwrap_or(0));
        let asked = self.check.hopped(&Seen { from, tier, envelope, value: record_of(&stored.value) }, life);
        let log = &self.logs[&target];
        let is_it = |entry: &Entry| matches!(entry, Entry::Record { stored: other, .. } if Rc::ptr_eq(other, stored));
        if let Some(index) = log.iter().rposition(is_it) {
            self.asked.insert((target, offset_of(index)), asked);
        }
        Some(from)
    }

    fn envelope(&self, tp: Tp, stored: &Stored) -> Envelope {
        let topic = self.names[tp.0].to_string();
        let at = Coordinates { topic, partition: tp.1, offset: 0, timestamp: stored.appended };
        Envelope::read(&self.ladder, &at, stored.headers.iter()).envelope
    }

    /// The mover, which is taken to be right: whatever is due comes back, or waits on, in one step.
    fn move_due(&mut self, now: LocalTime) {
        let tiers: Vec<Tp> = self.moved.keys().copied().collect();
        for tp in tiers {
            let delay = self.ladder.tiers()[tp.0 - TIERS].delay();
            loop {
                let from = offset_of(self.moved[&tp]);
                let Fetched::Record(offset, stored) = self.fetch(tp, from) else { break };
                let due = due::due_time(stored.appended, delay);
                if due > now.timestamp() {
                    break;
                }
                self.moved.insert(tp, usize::try_from(offset + 1).expect("an offset"));
                let asked = self.asked.get(&(tp, offset)).copied().unwrap_or_default();
                let envelope = self.envelope(tp, &stored);
                let target = match due::next_move(&self.ladder, envelope.not_before, now.timestamp()) {
                    Move::Redeliver => (REDELIVER, tp.1),
                    Move::WaitOn(tier) => (TIERS + tier.number() as usize - 1, tp.1),
                };
                let log = self.logs.get_mut(&target).expect("a partition");
                let at = (target, offset_of(log.len()));
                let back = target.0 == REDELIVER;
                let headers = if back { placed(&stored.headers, at) } else { stored.headers.clone() };
                let record = record_of(&stored.value);
                let stored = Stored { value: stored.value.clone(), headers, appended: now.timestamp() };
                log.push(Entry::Record { stored: Rc::new(stored), transaction: None });
                log.push(Entry::Marker);
                if back {
                    self.check.arrived(at, record, envelope.attempts, due.max(asked));
                } else {
                    self.asked.insert(at, asked);
                }
            }
        }
    }

    /// Whether nothing waits in a tier and all that was delivered is committed.
    pub(super) fn is_at_rest(&self) -> bool {
        let waits = |(tp, from): (&Tp, &usize)| matches!(self.fetch(*tp, offset_of(*from)), Fetched::Record(..));
        !self.moved.iter().any(waits)
            && self.producers.iter().all(|producer| producer.open.is_none())
            && self.check.unfinished(&self.group.committed).is_empty()
    }
}

fn offset_of(index: usize) -> i64 {
    i64::try_from(index).expect("a short log")
}

fn record_of(value: &[u8]) -> usize {
    value.try_into().map_or(usize::MAX, |bytes| usize::from(u16::from_be_bytes(bytes)))
}

fn placed(headers: &NativeHeaders, ((topic, partition), offset): At) -> NativeHeaders {
    let mut headers = headers.clone();
    headers.remove_if(|name| name == PLACE);
    headers.push(PLACE, Some(format!("{topic}/{partition}/{offset}").as_bytes()));
    headers
}

fn place_of(headers: &NativeHeaders) -> Option<At> {
    let (_, value) = headers.iter().find(|(name, _)| *name == PLACE)?;
    let text = std::str::from_utf8(value?).ok()?;
    let mut parts = text.split('/');
    Some(((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?), parts.next()?.parse().ok()?))
}

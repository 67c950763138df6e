//! The brokers of the model: logs in which transaction markers and aborted records take up offsets, and the transaction
//! coordinator.
//!
//! Observed broker behaviour: a consumer sees records up to the last stable offset; offsets of a transaction are applied when it
//! is committed, over any plain commit meanwhile; a new producer with the same name ends its predecessor's open transaction; a
//! transaction that stays open for too long is aborted and its producer fenced. A transaction with a partition without leader ends
//! in all others, and until it has ended there too, nothing else can be done with its name.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::core::ack_tracker::CommitPoint;
use crate::core::chance::Chance;
use crate::core::coordinates::Coordinates;
use crate::core::envelope::Envelope;
use crate::core::ladder::Ladder;
use crate::core::leader_clock::LocalTime;
use crate::core::time::Timestamp;
use crate::kafka::NativeHeaders;
use crate::kafka::partition::TopicPartition;
use crate::worker::model::check::{At, Check, CommittedHop, Invariant, Life, Tp};
use crate::worker::model::group::Group;

const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);

/// The source's topic number.
pub(super) const SOURCE: usize = 0;
/// The redeliver topic's number.
pub(super) const REDELIVER: usize = 1;
/// The first tier's number; the DLQ follows the last tier, then the state topic.
pub(super) const TIERS: usize = 2;

/// Number of processes: two deliverers and two movers.
pub(super) const PROCESSES: usize = 4;

/// The number of names of a producer: its own and the spare ones. Those of a process are numbered `PROCESSES` apart.
pub(super) const NAMES: usize = 3;

/// The user header with a record's original place.
const PLACE: &[u8] = b"place";

/// A record in a log.
pub(super) struct Stored {
    /// The place that it left, if any.
    from: Option<At>,
    pub(super) value: Vec<u8>,
    pub(super) headers: NativeHeaders,
    pub(super) appended: Timestamp,
}

enum LogEntry {
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
    written: Vec<(At, Rc<Stored>)>,
    /// The partitions it wrote or tried to write to; once it has ended, those that have no marker of it yet.
    partitions: BTreeSet<Tp>,
    offsets: BTreeMap<Tp, CommitPoint>,
}

/// The coordinator's state of a transactional.id.
#[derive(Default)]
struct Producer {
    epoch: u64,
    open: Option<usize>,
    /// An end of transaction still on its way, and whether it commits.
    delayed: Option<u64>,
    /// The transaction that has ended last.
    last: Option<usize>,
}

/// A plain commit as sent.
struct PlainCommit {
    life: Life,
    generation: u64,
    points: Vec<(Tp, CommitPoint)>,
}

/// The result of reading.
pub(super) enum Fetched {
    Record(i64, Rc<Stored>),
    /// There are no more records below the last stable offset.
    End(i64),
}

/// The brokers.
pub(super) struct Cluster {
    pub(super) ladder: Arc<Ladder>,
    names: Vec<Arc<str>>,
    logs: BTreeMap<Tp, Vec<LogEntry>>,
    transactions: Vec<Transaction>,
    producers: [Producer; PROCESSES * NAMES],
    /// The partition without leader, and until when.
    leaderless: Option<(Tp, LocalTime)>,
    now: LocalTime,
    /// Plain commits still on their way, with the generation under which they were sent.
    on_the_way: [Vec<PlainCommit>; PROCESSES],
    /// Those of the deliverers and of the movers.
    groups: [Group; 2],
    pub(super) check: Check,
}

impl Cluster {
    pub(super) fn new(ladder: Arc<Ladder>, partitions: i32, check: Check, now: LocalTime) -> Self {
        let mut names: Vec<Arc<str>> = vec![ladder.sources()[0].as_str().into(), ladder.redeliver_topic().into()];
        names.extend(ladder.tiers().iter().map(|tier| Arc::from(tier.topic())));
        names.extend([Arc::from(ladder.dlq_topic()), Arc::from(ladder.state_topic())]);
        let all = |topic| (0..partitions).map(move |partition| (topic, partition));
        let logs = (0..names.len()).flat_map(all).map(|tp| (tp, Vec::new())).collect();
        let tiers = TIERS..TIERS + ladder.tiers().len();
        let groups = [Group::new([SOURCE, REDELIVER].into_iter().flat_map(all)), Group::new(tiers.flat_map(all))];
        let (transactions, on_the_way, leaderless) = (Vec::new(), Default::default(), None);
        let producers = std::array::from_fn(|_| Producer::default());
        Self { ladder, names, logs, transactions, producers, leaderless, now, on_the_way, groups, check }
    }

    /// The group of a process.
    pub(super) fn group(&mut self, life: Life) -> &mut Group {
        &mut self.groups[life.0 / 2]
    }

    /// A random group.
    pub(super) fn any_group(&mut self, chance: &mut Chance) -> &mut Group {
        &mut self.groups[chance.index(2)]
    }

    /// The committed position of the group that consumes a partition.
    pub(super) fn committed(&self, tp: Tp) -> &CommitPoint {
        self.groups.iter().find_map(|group| group.committed.get(&tp)).expect("a partition of a group")
    }

    /// The committed positions of all groups.
    pub(super) fn all_committed(&self) -> BTreeMap<Tp, CommitPoint> {
        self.groups.iter().flat_map(|group| group.committed.clone()).collect()
    }

    pub(super) fn state(&self) -> usize {
        self.names.len() - 1
    }

    pub(super) fn dlq(&self) -> usize {
        self.names.len() - 2
    }

    pub(super) fn named(&self, tp: Tp) -> TopicPartition {
        TopicPartition { topic: self.names[tp.0].clone(), partition: tp.1 }
    }

    pub(super) fn numbered(&self, tp: &TopicPartition) -> Tp {
        let topic = self.names.iter().position(|name| *name == tp.topic).expect("a topic of the model");
        (topic, tp.partition)
    }

    /// Writes a record to the source, or something that takes up offsets without being a record.
    pub(super) fn produce(&mut self, partition: i32, record: Option<usize>, now: LocalTime) {
        let log = self.logs.get_mut(&(SOURCE, partition)).expect("a partition");
        let Some(record) = record else { return log.push(LogEntry::Marker) };
        let at = ((SOURCE, partition), offset_of(log.len()));
        let value = u16::try_from(record).expect("few records").to_be_bytes().to_vec();
        let stored = Stored { from: None, value, headers: placed(&NativeHeaders::new(), at), appended: now.timestamp() };
        log.push(LogEntry::Record { stored: Rc::new(stored), transaction: None });
        self.check.arrived(at, record, 0, Timestamp::default());
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: LocalTime, chance: &mut Chance) {
        self.now = now;
        self.groups.iter_mut().for_each(|group| group.tick(now, chance));
        (0..self.producers.len()).for_each(|id| self.mark(id));
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
    }

    /// A partition loses its leader for a while.
    pub(super) fn lose_leader(&mut self, tp: Tp, until: LocalTime) {
        self.leaderless = Some((tp, until));
    }

    /// Whether a partition has no leader, so that nothing can be written to it.
    pub(super) fn is_leaderless(&self, tp: Tp) -> bool {
        self.leaderless.is_some_and(|(which, until)| which == tp && until > self.now)
    }

    /// Writes a transaction's markers to the partitions with a leader.
    fn mark(&mut self, id: usize) {
        let Some(last) = self.producers[id].last else { return };
        let unmarked = std::mem::take(&mut self.transactions[last].partitions);
        let (without, led) = unmarked.into_iter().partition::<BTreeSet<Tp>, _>(|tp| self.is_leaderless(*tp));
        for tp in led {
            self.logs.get_mut(&tp).expect("a partition").push(LogEntry::Marker);
        }
        self.transactions[last].partitions = without;
    }

    /// Whether the last transaction of a name has not ended in all partitions.
    pub(super) fn is_stuck(&self, id: usize) -> bool {
        self.producers[id].last.is_some_and(|last| !self.transactions[last].partitions.is_empty())
    }

    /// A delayed end of transaction reaches the coordinator, which accepts it only from the epoch that it
    /// knows.
    fn arrive_late(&mut self, id: usize) {
        let producer = &mut self.producers[id];
        if producer.delayed.take() == Some(producer.epoch) && producer.open.is_some() {
            self.end(id, true);
        }
    }

    /// Reads from an offset with `read_committed`.
    pub(super) fn fetch(&self, tp: Tp, from: i64) -> Fetched {
        let log = &self.logs[&tp];
        let start = usize::try_from(from).expect("an offset");
        for (index, entry) in log.iter().enumerate().skip(start) {
            if let LogEntry::Record { stored, transaction } = entry {
                let state = |txn: usize| {
                    let transaction = &self.transactions[txn];
                    if transaction.partitions.contains(&tp) { State::Open } else { transaction.state }
                };
                match transaction.map_or(State::Committed, state) {
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

    /// A producer initialises its name: an open transaction under it is ended, and its predecessor is fenced. `None` while that end
    /// cannot be written to all partitions.
    pub(super) fn init(&mut self, id: usize) -> Option<u64> {
        if self.producers[id].open.is_some() {
            self.end(id, false);
            self.producers[id].epoch += 1;
        }
        if self.is_stuck(id) {
            return None;
        }
        self.producers[id].epoch += 1;
        Some(self.producers[id].epoch)
    }

    pub(super) fn is_current(&self, id: usize, epoch: u64) -> bool {
        self.producers[id].epoch == epoch
    }

    /// Writes a record, in the open transaction of the producer or outside of any.
    pub(super) fn append(
        &mut self,
        (life, id): (Life, usize),
        target: Tp,
        (value, headers): (Vec<u8>, &NativeHeaders),
        transactional: bool,
        now: LocalTime,
    ) {
        let transaction = transactional.then(|| self.opened((life, id), target, now));
        let log = self.logs.get_mut(&target).expect("a partition");
        let at = (target, offset_of(log.len()));
        let stored = Rc::new(Stored { from: place_of(headers), value, headers: placed(headers, at), appended: now.timestamp() });
        log.push(LogEntry::Record { stored: stored.clone(), transaction });
        match transaction {
            Some(transaction) => self.transactions[transaction].written.push((at, stored)),
            None => {
                self.see(at, &stored, life);
            }
        }
    }

    /// Adds offsets to the producer's open transaction.
    pub(super) fn put_offsets(&mut self, (life, id): (Life, usize), points: Vec<(Tp, CommitPoint)>, now: LocalTime) {
        let transaction = self.open((life, id), now);
        self.transactions[transaction].offsets.extend(points);
    }

    /// The open transaction of a producer, to which a partition is added.
    pub(super) fn opened(&mut self, producer: (Life, usize), tp: Tp, now: LocalTime) -> usize {
        let transaction = self.open(producer, now);
        self.transactions[transaction].partitions.insert(tp);
        transaction
    }

    fn open(&mut self, (life, id): (Life, usize), now: LocalTime) -> usize {
        *self.producers[id].open.get_or_insert_with(|| {
            let (written, partitions, offsets) = (Vec::new(), BTreeSet::new(), BTreeMap::new());
            self.transactions.push(Transaction { state: State::Open, life, since: now, written, partitions, offsets });
            self.transactions.len() - 1
        })
    }

    /// Ends a producer's transaction.
    pub(super) fn end(&mut self, id: usize, commit: bool) {
        let Some(number) = self.producers[id].open.take() else { return };
        let transaction = &mut self.transactions[number];
        transaction.state = if commit { State::Committed } else { State::Aborted };
        let (life, written) = (transaction.life, std::mem::take(&mut transaction.written));
        let offsets = std::mem::take(&mut transaction.offsets);
        self.producers[id].last = Some(number);
        if commit {
            let left: Vec<At> = written.iter().filter_map(|(at, stored)| self.see(*at, stored, life)).collect();
            for (tp, point) in offsets {
                self.commit_point(tp, point, life);
            }
            for at in left {
                let committed = self.committed(at.0).clone();
                self.check.consumed(at, &committed);
            }
        }
        self.mark(id);
    }

    /// The end of the transaction takes long to arrive.
    pub(super) fn delay_commit(&mut self, id: usize) {
        self.producers[id].delayed = Some(self.producers[id].epoch);
    }

    /// A delayed end of transaction arrives now.
    pub(super) fn hurry(&mut self, id: usize) {
        self.arrive_late(id);
    }

    /// Whether any open transaction contains offsets of this partition.
    pub(super) fn is_unstable(&self, tp: Tp) -> bool {
        let open = self.producers.iter().filter_map(|producer| producer.open);
        open.into_iter().any(|txn| self.transactions[txn].offsets.contains_key(&tp))
    }

    /// A plain commit is sent and delayed.
    pub(super) fn delay_plainly(&mut self, life: Life, points: &[(TopicPartition, CommitPoint)]) {
        let Some(generation) = self.group(life).member(life).generation else { return };
        let points = points.iter().map(|(tp, point)| (self.numbered(tp), point.clone())).collect();
        self.on_the_way[life.0].push(PlainCommit { life, generation, points });
    }

    /// A member's delayed plain commits arrive. Stale ones are refused.
    pub(super) fn arrive_plainly(&mut self, member: usize) {
        for PlainCommit { life, generation, points } in std::mem::take(&mut self.on_the_way[member]) {
            if self.group(life).takes(life, generation) {
                for (tp, point) in points {
                    self.commit_point(tp, point, life);
                }
            }
        }
    }

    /// Commits a position.
    pub(super) fn commit_point(&mut self, tp: Tp, point: CommitPoint, life: Life) {
        // Commits for a partition of another group change nothing that anyone reads.
        let Some(before) = self.groups[life.0 / 2].committed.get_mut(&tp) else {
            let text = format!("{life:?} commits {point:?} for {tp:?}, which its group does not consume");
            return self.check.fail(Invariant::Conservation, text);
        };
        self.check.committing(tp, before, &point, life);
        *before = point;
    }

    /// A hop has become visible: informs the checker, and returns the place that it left.
    fn see(&mut self, at: At, stored: &Stored, life: Life) -> Option<At> {
        let from = stored.from?;
        let envelope = self.envelope(at.0, stored);
        let tier = (at.0.0 >= TIERS && at.0.0 < self.dlq()).then(|| u32::try_from(at.0.0 - TIERS + 1).unwrap_or(0));
        let seen = CommittedHop { from, to: at, tier, envelope, value: record_of(&stored.value), appended: stored.appended };
        let is_due = from.0.0 >= TIERS;
        if is_due {
            self.check.moved(&seen, life);
        } else {
            self.check.hopped(&seen, life);
        }
        Some(from)
    }

    fn envelope(&self, tp: Tp, stored: &Stored) -> Envelope {
        let topic = self.names[tp.0].to_string();
        let at = Coordinates { topic, partition: tp.1, offset: 0, timestamp: stored.appended };
        Envelope::read(&self.ladder, &at, stored.headers.iter()).envelope
    }

    /// Whether no record waits in a tier and all deliveries are committed.
    pub(super) fn is_at_rest(&self) -> bool {
        (0..self.producers.len()).all(|id| self.producers[id].open.is_none() && !self.is_stuck(id))
            && self.check.unfinished(&self.all_committed()).is_empty()
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

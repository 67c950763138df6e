//! The partitions of the tiers that a mover owns: due records, order of turns, and content of a transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::core::ack_tracker::CommitPoint;
use crate::core::backoff::Doubling;
use crate::core::delay::Delay;
use crate::core::ladder::Ladder;
use crate::core::leader_clock::LocalTime;
use crate::core::rate::RateLimit;
use crate::core::time::Timestamp;
use crate::kafka::budget::Budget;
use crate::kafka::clock::Clock;
use crate::kafka::outgoing::TopicId;
use crate::kafka::partition::TopicPartition;
use crate::kafka::transaction::{Transaction, Writer};
use crate::telemetry::events::MoverMetrics;
#[cfg(feature = "otlp")]
use crate::telemetry::spans;
use crate::worker::error::WorkError;
use crate::worker::hold::Hold;
use crate::worker::hop::barred::TransactionScope;
use crate::worker::hop::content::tell_unfit;
use crate::worker::hop::engine::{ClusterState, Load};
use crate::worker::hop::leaders::Leaders;
use crate::worker::hop::ports::HopSink;
use crate::worker::hop::targets::{Target, Targets};
use crate::worker::mover::lane::{HeldRecord, TakeOutcome};
use crate::worker::mover::rest::RestTimes;
use crate::worker::mover::route::Route;
use crate::worker::mover::{LaneOf, Ports};

/// Maximum number of target partitions: the cost of a transaction grows with them (measured: 2.5 ms with 1, 10 ms with 20, 19 ms
/// with 50, 83 ms with 200), so they take turns; the cost per partition is lowest with about 50.
const MOST_TARGETS: usize = 48;

/// Maximum number of records in a transaction while only a backlog is due. Its end costs about 10 to 20 ms regardless of size, so
/// large transactions drain a backlog faster; read-committed consumers are blocked as long as one is filled.
const MOST_RECORDS: usize = 100_000;

/// Number of a partition's records before the next one's turn.
const TURN: usize = 128;

/// Maximum time of filling a transaction: the shorter one for the first of a backlog, since nobody can read it before the
/// commit, doubling with each further one.
const FIRST_FILL_TIME: Duration = Duration::from_millis(100);
const LONGEST_FILL_TIME: Duration = Duration::from_secs(1);

/// The same while records have just become due, which must not wait for a backlog; and the maximum size then in bytes, since
/// everything handed over must be written before the transaction can end. (Measured, 500 such records a second beside a backlog:
/// half of them within 50 ms and 99 of 100 within 75 to 180 ms; within 240 and 680 ms without the limit in bytes.)
const SHARED_FILL_TIME: Duration = Duration::from_millis(25);
const SHARED_BYTES: usize = 500_000;

/// A record with more headers than this is the first in its transaction, so that rebuilding them delays no read-committed consumer.
/// (Kafka's producers rarely set more than twenty.)
const MANY_HEADERS: usize = 1_000;

/// Minimum interval of looking up a source that seems to lack a record's origin partition.
const RECOUNT_INTERVAL: Duration = Duration::from_secs(10);

/// Records due for longer than this are a backlog; others might become due while a transaction is filled.
const BACKLOG: Duration = Duration::from_secs(1);

/// Whether records are currently becoming due that have not waited for long, as seen by all movers that share this: those of a process
/// share its processors and brokers.
///
/// A transaction of a backlog delays records that become due while it is open, so beside fresh records it is kept
/// short.
#[derive(Debug, Clone, Default)]
pub(crate) struct Freshness(Arc<AtomicI64>);

impl Freshness {
    /// There is a fresh record.
    fn note(&self, now: LocalTime) {
        self.0.store(now.as_micros(), Ordering::Relaxed);
    }

    /// Whether there was one within the last second.
    fn was_recent(&self, now: LocalTime) -> bool {
        now.since(LocalTime::from_micros(self.0.load(Ordering::Relaxed))) < BACKLOG
    }
}

/// A record handed to the producer. Its content has been released: if it must be sent again, its queue yields it again.
#[derive(Clone, Copy)]
pub(super) struct Sent {
    pub(super) lane: usize,
    token: u64,
    pub(super) offset: i64,
    pub(super) appended: Timestamp,
    pub(super) broker: i32,
    pub(super) target: Target,
    pub(super) to: (TopicId, i32),
}

/// The content of a mover's transaction.
#[derive(Default)]
pub(super) struct Moving {
    pub(super) sent: Vec<Sent>,
    bytes: usize,
    scope: Option<TransactionScope>,
    /// Assignments whose records cannot be included.
    left: BTreeSet<u64>,
}

impl Moving {
    fn is_full(&self, budget: &Budget) -> bool {
        self.sent.len() >= MOST_RECORDS || self.bytes >= budget.bytes()
    }

    /// The partitions that it has records of.
    pub(super) fn lanes(&self) -> BTreeSet<usize> {
        self.sent.iter().map(|sent| sent.lane).collect()
    }
}

impl Load for Moving {
    fn records(&self) -> usize {
        self.sent.len()
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn token(&self, tag: usize) -> u64 {
        self.sent[tag].token
    }

    fn target(&self, tag: usize) -> (TopicId, i32) {
        self.sent[tag].to
    }
}

/// The partitions that a mover owns, and what it needs to move their due records.
pub(super) struct Tiers<P: Ports> {
    pub(super) ladder: Arc<Ladder>,
    pub(super) group: String,
    pub(super) clock: Clock,
    pub(super) lanes: Vec<LaneOf<P>>,
    pub(super) targets: Targets,
    /// Rate limits of the tiers, by delay; empty if not limited.
    pub(super) limits: BTreeMap<Delay, RateLimit>,
    pub(super) metrics: MoverMetrics,
    pub(super) hold: Hold,
    pub(super) rest: RestTimes,
    fresh: Freshness,
    /// Time for filling the next transaction, if only a backlog is due.
    fill_time: Doubling,
    recount_at: LocalTime,
    /// A source to look up again.
    recount: Option<Target>,
    /// Spans of the transaction being filled.
    #[cfg(feature = "otlp")]
    pub(super) spans: Vec<crate::telemetry::spans::Span>,
}

/// Which partitions may be in one transaction.
pub(super) struct Turn {
    lanes: Vec<usize>,
    /// The target partitions, as far as known.
    written: BTreeSet<i32>,
}

impl Turn {
    pub(super) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }
}

impl<P: Ports> Tiers<P> {
    pub(super) fn new(
        ladder: Arc<Ladder>,
        group: String,
        clock: Clock,
        targets: Targets,
        metrics: MoverMetrics,
        fresh: Freshness,
    ) -> Self {
        Self {
            ladder,
            group,
            clock,
            lanes: Vec::new(),
            targets,
            limits: BTreeMap::new(),
            metrics,
            hold: Hold::none(),
            rest: RestTimes::default(),
            fresh,
            fill_time: Doubling::new(FIRST_FILL_TIME, LONGEST_FILL_TIME),
            recount_at: LocalTime::from_micros(0),
            recount: None,
            #[cfg(feature = "otlp")]
            spans: Vec::new(),
        }
    }

    /// Looks up again what seems to have changed.
    pub(super) fn look_up_again(&mut self, sink: &mut impl HopSink) {
        if let Some(target) = self.recount.take() {
            self.targets.recount(target, sink);
            self.recount_at = self.clock.now().later(RECOUNT_INTERVAL);
        }
    }

    /// The lanes with due heads, oldest due first, as many as have few enough target partitions.
    pub(super) fn next_turn(&self, cluster: &ClusterState, is_transactional: bool) -> Turn {
        let mut turn = Turn { lanes: Vec::new(), written: BTreeSet::new() };
        self.add_to(&mut turn, cluster, is_transactional);
        turn
    }

    fn add_to(&self, turn: &mut Turn, cluster: &ClusterState, is_transactional: bool) {
        let now = self.clock.now();
        let mut due: Vec<(Timestamp, usize)> = Vec::new();
        for (index, lane) in self.lanes.iter().enumerate() {
            let may_go = self.limits.get(&lane.delay).is_none_or(|limit| limit.worthwhile_at() <= now);
            let rests = lane.rests_until(&cluster.barred).is_some_and(|until| until > now);
            if !may_go || rests || !lane.is_due(&cluster.leaders, now) || cluster.is_in_doubt(lane.tp()) {
                continue;
            }
            due.extend(lane.due().map(|moment| (moment, index)));
        }
        due.sort_unstable();
        // The search for a refused record runs alone: others would fail together with it.
        if let Some((_, index)) = due.iter().find(|(_, index)| self.lanes[*index].limit(&cluster.bisect).is_some()) {
            turn.lanes = vec![*index];
            return;
        }
        let written = &mut turn.written;
        turn.lanes = due
            .into_iter()
            .filter(|(_, index)| {
                if !is_transactional {
                    return true;
                }
                let partition = self.targets.likely_partition(self.lanes[*index].tp().partition);
                written.contains(&partition) || (written.len() < MOST_TARGETS && written.insert(partition))
            })
            .map(|(_, index)| index)
            .collect();
    }

    /// Hands over due records in turns, directly from the fetch buffers. Records that become due meanwhile are
    /// included.
    pub(super) fn fill(
        &mut self,
        mut turn: Turn,
        began: LocalTime,
        transaction: &mut Transaction<'_, P::Sink>,
        cluster: &mut ClusterState,
    ) -> Result<Moving, WorkError> {
        #[cfg(feature = "otlp")]
        self.spans.clear();
        let mut moving = Moving::default();
        while !turn.is_empty() && !transaction.is_refused() {
            let shared = self.is_shared(&cluster.leaders);
            let (time, bytes) = if shared { (SHARED_FILL_TIME, SHARED_BYTES) } else { (self.fill_time.current(), usize::MAX) };
            for index in std::mem::take(&mut turn.lanes) {
                self.fill_from(index, began, &mut moving, transaction, cluster)?;
            }
            if moving.is_full(&cluster.budget) || moving.bytes >= bytes || self.clock.now().since(began) >= time {
                if shared {
                    self.fill_time.reset();
                } else {
                    self.fill_time.double();
                }
                return Ok(moving);
            }
            // The search for a refused record runs alone, once per transaction.
            if moving.sent.first().is_some_and(|sent| self.lanes[sent.lane].limit(&cluster.bisect).is_some()) {
                break;
            }
            // Also lanes without a head at the start: records that become due there must not wait for
            // a backlog.
            self.take_heads(&mut cluster.leaders)?;
            self.add_to(&mut turn, cluster, transaction.writer().is_transactional());
            let stays_out = |lane: &LaneOf<P>| moving.left.contains(&lane.token) || lane.limit(&cluster.bisect).is_some();
            turn.lanes.retain(|index| !stays_out(&self.lanes[*index]));
        }
        // The whole backlog is included.
        self.fill_time.reset();
        Ok(moving)
    }

    /// Whether records are due that have not waited for long, or were or will be in a moment.
    fn is_shared(&self, leaders: &Leaders) -> bool {
        let now = self.clock.now();
        let is_fresh = |wait: i64| Duration::from_micros(wait.unsigned_abs()) < BACKLOG;
        if self.lanes.iter().any(|lane| lane.wait(leaders, now).is_some_and(is_fresh)) {
            self.fresh.note(now);
        }
        self.fresh.was_recent(now)
    }

    /// One partition's turn.
    fn fill_from(
        &mut self,
        index: usize,
        began: LocalTime,
        moving: &mut Moving,
        transaction: &mut Transaction<'_, P::Sink>,
        cluster: &mut ClusterState,
    ) -> Result<(), WorkError> {
        let now = self.clock.now();
        let holds_dead_letters = self.hold.holds_dead_letters(now.timestamp());
        for _ in 0..self.lanes[index].limit(&cluster.bisect).unwrap_or(TURN) {
            let lane = &mut self.lanes[index];
            if moving.is_full(&cluster.budget) || !lane.is_due(&cluster.leaders, now) {
                break;
            }
            // The client's queue is bounded, so handing over may take as long as writing.
            if !moving.sent.is_empty() && self.clock.now().since(began) >= Budget::fill_time() {
                break;
            }
            let mut held = lane.pop().expect("a due head");
            let size = held.size();
            let leader_now = Timestamp::from_millis(cluster.leaders.now(held.broker, now).div_euclid(1_000));
            let route = Route::of(&self.ladder, &mut held, lane, leader_now, holds_dead_letters);
            // A source that has more partitions than when it was looked up, or was recreated.
            let is_covered = now < self.recount_at || self.targets.cover(route.target, route.partition);
            let to = self.targets.resolve(route.target, route.partition);
            let scope = cluster.barred.scope(to);
            // The transaction begins when the headers of its first record are rebuilt.
            let is_quick = moving.sent.is_empty() || route.headers.len() <= MANY_HEADERS;
            let may_go = is_covered
                && is_quick
                && moving.scope.is_none_or(|others| others == scope)
                && !cluster.barred.rests(to, now)
                && self.limits.get_mut(&lane.delay).is_none_or(|limit| limit.take(now));
            if !may_go {
                if !is_covered {
                    self.recount = Some(route.target);
                }
                held.give_headers_back(route.headers);
                lane.put_back(held, to);
                moving.left.insert(lane.token);
                break;
            }
            if let Some(fault) = held.fault {
                tell_unfit(lane.tp(), held.offset, fault);
            }
            moving.scope = Some(scope);
            moving.bytes += size;
            if route.is_malformed {
                self.metrics.worker.malformed_headers();
            }
            let (target, token) = (route.target, lane.token);
            let headers = route.into_headers();
            #[cfg(feature = "otlp")]
            if spans::are_made() {
                let tp = lane.tp();
                let from = (&*tp.topic, tp.partition, held.offset);
                let topic = transaction.writer().topic_name(to.0);
                self.spans.extend(spans::wait(&self.ladder, headers.iter(), from, held.appended, topic));
            }
            transaction.send(to, held.outgoing(), headers, moving.sent.len());
            let HeldRecord { offset, appended, broker, .. } = held;
            moving.sent.push(Sent { lane: index, token, offset, appended, broker, target, to });
            self.take_head(index, now, &mut cluster.leaders)?;
        }
        Ok(())
    }

    /// Makes sure that each partition has a head, if its queue has one.
    pub(super) fn take_heads(&mut self, leaders: &mut Leaders) -> Result<(), WorkError> {
        let now = self.clock.now();
        for index in 0..self.lanes.len() {
            if self.lanes[index].head().is_none() {
                self.take_head(index, now, leaders)?;
            }
        }
        Ok(())
    }

    fn take_head(&mut self, index: usize, now: LocalTime, leaders: &mut Leaders) -> Result<(), WorkError> {
        let lane = &mut self.lanes[index];
        match lane.take(now) {
            TakeOutcome::Head => {
                // Read after the record was taken: with an earlier time its leader would seem to be ahead, and other records would seem due
                // too early.
                let now = self.clock.now();
                lane.head().expect("just taken").tell_clock(leaders, now);
                if let Some(wait) = lane.wait(leaders, now).filter(|wait| *wait > 0) {
                    lane.settle_to_wait();
                    self.rest.has_to_wait(wait);
                }
                Ok(())
            }
            TakeOutcome::Nothing => Ok(()),
            TakeOutcome::OffsetLost => Err(WorkError::offset_lost(lane.tp(), &self.group)),
        }
    }

    /// The commit points of these records.
    pub(super) fn points_of(&self, moving: &Moving) -> Vec<(TopicPartition, CommitPoint)> {
        let last: BTreeMap<usize, i64> = moving.sent.iter().map(|record| (record.lane, record.offset + 1)).collect();
        let point = |(index, moved): (usize, i64)| {
            let lane = &self.lanes[index];
            (lane.tp().clone(), CommitPoint { offset: lane.commit_position(moved), metadata: String::new() })
        };
        last.into_iter().map(point).collect()
    }

    pub(super) fn note_committed(&mut self, points: impl IntoIterator<Item = (TopicPartition, CommitPoint)>) {
        for (tp, point) in points {
            if let Some(lane) = self.lanes.iter_mut().find(|lane| *lane.tp() == tp) {
                lane.committed = point.offset;
            }
        }
    }

    /// A tier's limit applies to all its movers together: each gets the share of its partitions.
    pub(super) fn share_limits(&mut self, partitions: &BTreeMap<Delay, i32>) {
        for (delay, limit) in &mut self.limits {
            let own = self.lanes.iter().filter(|lane| lane.delay == *delay).count();
            let all = partitions.get(delay).and_then(|all| usize::try_from(*all).ok()).unwrap_or(own).max(own);
            if own > 0 {
                #[expect(clippy::cast_precision_loss, reason = "a count of partitions")]
                limit.share(own as f64 / all as f64);
            }
        }
    }
}

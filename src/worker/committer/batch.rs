//! Hops in batches: failed records are written in a transaction together with the offsets that they
//! consume.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::core::ack_tracker::CommitPoint;
use crate::core::envelope::Reason;
use crate::kafka::NativeHeaders;
use crate::kafka::budget::Budget;
use crate::kafka::error::WriteFault;
use crate::kafka::outgoing::{Outgoing, TopicId};
use crate::kafka::partition::TopicPartition;
use crate::kafka::transaction::{Transaction, Writer};
#[cfg(feature = "otlp")]
use crate::telemetry::spans;
use crate::worker::committer::hop::Hop;
use crate::worker::committer::lane::Lane;
use crate::worker::committer::{Committer, Work};
use crate::worker::error::WorkError;
use crate::worker::hop::content::RecordId;
use crate::worker::hop::engine::{Load, TransactionOutcome};
use crate::worker::hop::ports::{HopSink, RecordSource};
use crate::worker::hop::targets::Target;

/// Maximum number of target partitions: the cost of a transaction grows with them.
const MOST_TARGETS: usize = 16;

/// Maximum number of records in a transaction.
const MOST_HOPS: usize = 2_000;

/// The hops of one transaction, each with its target.
struct Batch<P> {
    hops: Vec<(Hop<P>, (TopicId, i32))>,
    bytes: usize,
}

impl<P> Load for Batch<P> {
    fn records(&self) -> usize {
        self.hops.len()
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn token(&self, tag: usize) -> u64 {
        self.hops[tag].0.id.token
    }

    fn target(&self, tag: usize) -> (TopicId, i32) {
        self.hops[tag].1
    }
}

impl<W: Work> Committer<W> {
    /// Carries out hops until none can be written now. After a temporary error they stay queued.
    pub(in crate::worker) fn run_hops(&mut self) -> Result<(), WorkError> {
        if !self.hops.is_empty() {
            self.engine.look_after_barred();
        }
        while !self.hops.is_empty() && self.engine.may_begin() {
            let batch = self.next_batch();
            if batch.hops.is_empty() {
                break;
            }
            self.run_batch(batch)?;
        }
        self.note_standstills();
        Ok(())
    }

    /// How long queued hops wait for the markers of the last transaction; records that fail meanwhile join them.
    pub(in crate::worker) fn markers_wait(&self) -> Option<Duration> {
        let (now, ready) = (self.clock.now(), self.engine.sink.ready_at());
        (self.moving() > 0 && ready > now).then(|| ready.since(now))
    }

    pub(super) fn target_of(&self, hop: &Hop<W::Place>) -> (TopicId, i32) {
        self.targets.resolve(hop.target, hop.envelope.origin.partition)
    }

    /// Whether a hop waits for an operator. It may be retried, but it has not been written yet.
    pub(super) fn is_stopped(&self, hop: &Hop<W::Place>) -> bool {
        hop.rest.is_some() || self.engine.cluster.barred.is_barred(self.target_of(hop))
    }

    /// The partitions of stopped hops take no new records.
    fn note_standstills(&mut self) {
        let mut hops = std::mem::take(&mut self.hops);
        let mut tokens = BTreeSet::new();
        self.standing = 0;
        for hop in &mut hops {
            if self.is_stopped(hop) {
                self.standing += 1;
                // It may wait for long, and others are to be delivered meanwhile.
                hop.place = W::Place::default();
                tokens.insert(hop.id.token);
            }
        }
        self.hops = hops;
        self.lanes.iter_mut().for_each(|lane| lane.standstill = tokens.contains(&lane.token));
    }

    /// Selects the hops of the next transaction. Records of revoked partitions are dropped: their next owner has them.
    fn next_batch(&mut self) -> Batch<W::Place> {
        let now = self.clock.now();
        let lanes: BTreeSet<u64> = self.lanes.iter().map(|lane| lane.token).collect();
        let in_doubt = |lane: &&Lane<W>| self.engine.cluster.is_in_doubt(lane.tp());
        let doubtful: BTreeSet<u64> = self.lanes.iter().filter(in_doubt).map(|lane| lane.token).collect();
        let rests = |hop: &Hop<W::Place>, target| {
            doubtful.contains(&hop.id.token)
                || hop.rest.is_some_and(|rest| rest.until() > now)
                || self.engine.cluster.barred.rests(target, now)
        };
        // A record refused by its target is searched for only among those of its partition.
        let isolated = |hop: &&Hop<W::Place>| {
            let is_looked_for = self.engine.cluster.bisect.limit(hop.id.token).is_some();
            is_looked_for && lanes.contains(&hop.id.token) && !hop.goes_alone() && !rests(hop, self.target_of(hop))
        };
        let only = self.hops.iter().find(isolated).map(|hop| hop.id.token);
        let most = only.and_then(|token| self.engine.cluster.bisect.limit(token)).unwrap_or(MOST_HOPS);
        let most_bytes = self.engine.cluster.budget.bytes();
        let mut targets = BTreeSet::new();
        let mut scope = None;
        let mut batch = Batch { hops: Vec::new(), bytes: 0 };
        let mut left = Vec::with_capacity(self.hops.len());
        for hop in std::mem::take(&mut self.hops) {
            if !lanes.contains(&hop.id.token) {
                continue;
            }
            let target = self.target_of(&hop);
            let its_scope = self.engine.cluster.barred.scope(target);
            let size = hop.content.size();
            let fits = match batch.hops.first() {
                None => true,
                Some((first, _)) => {
                    !first.goes_alone()
                        && !hop.goes_alone()
                        && scope == Some(its_scope)
                        && batch.hops.len() < most
                        && batch.bytes + size <= most_bytes
                        && (targets.contains(&target) || targets.len() < MOST_TARGETS)
                }
            };
            let is_asked_for = only.is_none_or(|token| token == hop.id.token && !hop.goes_alone());
            if fits && is_asked_for && !rests(&hop, target) {
                scope = Some(its_scope);
                targets.insert(target);
                batch.bytes += size;
                batch.hops.push((hop, target));
            } else {
                left.push(hop);
            }
        }
        self.hops = left;
        batch
    }

    fn run_batch(&mut self, mut batch: Batch<W::Place>) -> Result<(), WorkError> {
        let Some(group) = self.source.live_group() else {
            self.hops.extend(batch.hops.into_iter().map(|(hop, _)| hop));
            self.engine.has_no_group();
            return Ok(());
        };
        // Before the transaction begins: many headers take time.
        let headers: Vec<NativeHeaders> = batch.hops.iter().map(|(hop, _)| hop.headers()).collect();
        let began = self.clock.now();
        let mut transaction = Transaction::new(&mut self.engine.sink);
        let mut unsent = batch.hops.len();
        for (tag, ((hop, target), headers)) in batch.hops.iter().zip(headers).enumerate() {
            // The client's queue is bounded, so handing over may take as long as writing.
            if tag > 0 && self.clock.now().since(began) >= Budget::fill_time() {
                unsent = tag;
                break;
            }
            let out = Outgoing { key: hop.content.key.as_deref(), value: hop.content.value.as_deref() };
            transaction.send(*target, out, headers, tag);
        }
        for (hop, _) in batch.hops.drain(unsent..) {
            batch.bytes -= hop.content.size();
            self.hops.push(hop);
        }
        let mut points = points_with(&self.lanes, batch.hops.iter().map(|(hop, _)| hop.id));
        points.retain(|(tp, _)| !self.engine.cluster.is_in_doubt(tp));
        let ended = transaction.commit(Some((&group, &points)));
        let (source, lanes) = (&self.source, &self.lanes);
        let outcome = self.engine.conclude(ended, &batch, began, || {
            let owned: Vec<TopicPartition> = lanes.iter().map(|lane| lane.tp().clone()).collect();
            let committed = source.committed(&owned)?;
            Ok(owned.into_iter().zip(committed).collect())
        })?;
        match outcome {
            TransactionOutcome::Committed(_) => {
                if self.engine.sink.is_transactional() {
                    self.note_committed(points);
                    self.unsettled.clear();
                }
                batch.hops.iter().for_each(|(hop, _)| self.note_hopped(hop));
            }
            TransactionOutcome::Back(fault) => {
                for (mut hop, _) in batch.hops {
                    if let Some(fault) = fault {
                        self.could_not_be_written(&mut hop, fault);
                    }
                    self.hops.push(hop);
                }
            }
            TransactionOutcome::Known(committed) => {
                self.note_committed(committed.into_iter().collect());
                for (hop, _) in batch.hops {
                    match self.lane_of(hop.id.token) {
                        Some(lane) if lane.committed.finishes(hop.id.offset) => self.note_hopped(&hop),
                        Some(_) => self.hops.push(hop),
                        None => {}
                    }
                }
            }
        }
        Ok(())
    }

    /// It was sent alone. If it is too large, it drops diagnostics step by step; otherwise its partition stops.
    fn could_not_be_written(&self, hop: &mut Hop<W::Place>, fault: WriteFault) {
        if let Some(trim) = hop.trim.next().filter(|_| fault == WriteFault::TooLarge) {
            hop.trim = trim;
        } else if let Some(lane) = self.lane_of(hop.id.token) {
            hop.rest = Some(self.engine.stop(lane.tp(), hop.id.offset, (self.target_of(hop).0, fault), hop.rest));
        }
    }

    pub(super) fn note_hopped(&mut self, hop: &Hop<W::Place>) {
        self.finish(hop.id);
        #[cfg(feature = "otlp")]
        if spans::are_made() && hop.target != Target::Outcome {
            let topic = self.engine.sink.topic_name(self.target_of(hop).0);
            spans::end(spans::hop(&self.ladder, &hop.envelope, hop.content.headers.iter(), topic, self.broker_now()));
        }
        match hop.target {
            Target::Tier(number) => {
                self.hop_metrics.to_tier(number, 1);
                if hop.envelope.held {
                    self.hop_metrics.held(1);
                }
            }
            Target::Dlq(reason, _) => {
                if reason == Reason::NoOrigin {
                    self.no_way_back.seen(&self.ladder, 1, Some(&hop.envelope.origin));
                }
                self.hop_metrics.dead_lettered(reason);
            }
            Target::Outcome | Target::Redeliver | Target::Source(_) => {}
        }
        tracing::trace!(ladder = self.ladder.name(), to = ?hop.target, attempts = hop.envelope.attempts, "hopped");
    }
}

/// The commit points that finish these records, and all others that have finished.
pub(super) fn points_with<W: Work>(
    lanes: &[Lane<W>],
    finished: impl Iterator<Item = RecordId>,
) -> Vec<(TopicPartition, CommitPoint)> {
    let mut also: BTreeMap<u64, Vec<i64>> = BTreeMap::new();
    for id in finished {
        also.entry(id.token).or_default().push(id.offset);
    }
    let point = |lane: &Lane<W>| {
        let point = lane.tracker.commit_point_with(also.get(&lane.token).map_or(&[], Vec::as_slice));
        (point != lane.committed).then(|| (lane.tp().clone(), point))
    };
    lanes.iter().filter_map(point).collect()
}

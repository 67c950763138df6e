//! The committer: commits the outcomes of records so that none is lost and no hop duplicated, for any worker.
//!
//! It owns the consumer, the producer and the state of every partition, on one thread. So building a batch, taking the group
//! metadata, sending offsets, committing and answering a rebalance happen one after the other, and no lock can be forgotten. Its
//! invariants:
//!
//! - A hop is written in one transaction with its own offset: below the committed prefix, or in the finished set.
//! - Each assignment of a partition has a token, which each record carries. Events for an outdated token are dropped: the
//!   partition's next owner has the record.
//! - For failed transactions, and those of unknown outcome, see [`crate::worker::hop::engine`].
//! - All attempt state is in the record. Nothing kept here outlives an assignment.
//! - Poison records are detected by a start counter in the offset metadata ([`poison`]), not by a file.
//!
//! Generic over the two ports, so that the model of the workers (`worker::model`) runs the same code in virtual time.

mod batch;
mod hop;
mod lag;
mod lane;
mod poison;
mod release;

use std::sync::Arc;
use std::time::Duration;

pub(super) use crate::worker::committer::lane::{Lane, Polled};
pub(super) use crate::worker::committer::poison::StartOutcome;
pub use crate::worker::committer::poison::Starts;
pub(super) use crate::worker::committer::release::{Draining, Released};

use crate::core::ack_tracker::{ArrivalState, CommitPoint};
use crate::core::decide::{Decision, Judgement};
use crate::core::envelope::Envelope;
use crate::core::failure::{Failure, Verdict};
use crate::core::ladder::Ladder;
use crate::core::leader_clock::LocalTime;
use crate::core::role::Role;
use crate::core::time::Timestamp;
use crate::kafka::NativeHeaders;
use crate::kafka::clock::Clock;
use crate::kafka::consumer::Next;
use crate::kafka::partition::TopicPartition;
use crate::telemetry::events::{HopMetrics, WorkerMetrics};
use crate::telemetry::standing::LagMetrics;
use crate::worker::committer::batch::points_with;
use crate::worker::committer::hop::Hop;
use crate::worker::committer::lag::Lag;
use crate::worker::dlq_breaker::DlqBreaker;
use crate::worker::error::WorkError;
use crate::worker::hop::content::{Content, RecordId};
use crate::worker::hop::engine::{Engine, by_topic};
use crate::worker::hop::held::{HeldBytes, MOST_BYTES};
use crate::worker::hop::ports::{HopSink, RecordQueue, RecordSource, SourceRecord, Wake};
use crate::worker::hop::positions::committed_positions;
use crate::worker::hop::targets::{Target, Targets};
use crate::worker::no_way_back::NoWayBack;

/// Finished records are committed after at most this time.
const COMMIT_INTERVAL: Duration = Duration::from_millis(200);

/// The types of a worker: its two ports, and its own state.
pub(super) trait Work {
    /// The record source.
    type Source: RecordSource;
    /// The hop sink.
    type Sink: HopSink<Group = <Self::Source as RecordSource>::Group>;
    /// The worker's own state of each partition.
    type Lane;
    /// A resource held by a record until its outcome is committed.
    type Place: Default;
}

/// The parts of a committer.
pub(super) struct Parts<W: Work> {
    pub(super) ladder: Arc<Ladder>,
    /// The role in messages.
    pub(super) role: Role,
    pub(super) clock: Clock,
    pub(super) source: W::Source,
    pub(super) sink: W::Sink,
    pub(super) targets: Targets,
    pub(super) metrics: WorkerMetrics,
    pub(super) hop_metrics: HopMetrics,
    pub(super) starts: Starts,
    pub(super) dlq_breaker: Option<Arc<DlqBreaker>>,
}

/// Commits the outcomes of records.
pub(super) struct Committer<W: Work> {
    ladder: Arc<Ladder>,
    role: Role,
    clock: Clock,
    pub(super) source: W::Source,
    pub(super) engine: Engine<W::Sink>,
    targets: Targets,
    pub(super) lanes: Vec<Lane<W>>,
    next_token: u64,
    hops: Vec<Hop<W::Place>>,
    /// Bytes of records that were taken and are neither done nor written elsewhere.
    pub(super) held: HeldBytes,
    /// The limit of bytes was reached, and logged.
    was_full: bool,
    /// Number of partitions that are stopped.
    standing: usize,
    /// Resources of records that are done and not committed yet.
    unsettled: Vec<W::Place>,
    metrics: WorkerMetrics,
    hop_metrics: HopMetrics,
    starts: Starts,
    dlq_breaker: Option<Arc<DlqBreaker>>,
    /// The partition whose turn it was first.
    turn: usize,
    /// Whether any partition was suspected when their order was last determined; checking all of them for each record would be too
    /// slow.
    is_suspicious: bool,
    commit_at: LocalTime,
    lag: Lag,
    no_way_back: NoWayBack,
}

impl<W: Work> Committer<W> {
    pub(super) fn new(parts: Parts<W>) -> Self {
        let Parts { ladder, role, clock, source, sink, targets, metrics, hop_metrics, starts, dlq_breaker } = parts;
        let lag = Lag::new(LagMetrics::new(&ladder));
        let engine = Engine::new(ladder.clone(), role, clock.clone(), sink, metrics.clone());
        Self {
            ladder,
            role,
            clock,
            source,
            engine,
            targets,
            lanes: Vec::new(),
            next_token: 1,
            hops: Vec::new(),
            held: HeldBytes::default(),
            was_full: false,
            standing: 0,
            unsettled: Vec::new(),
            metrics,
            hop_metrics,
            starts,
            dlq_breaker,
            turn: 0,
            is_suspicious: false,
            commit_at: LocalTime::from_micros(0),
            lag,
            no_way_back: NoWayBack::default(),
        }
    }

    /// Takes over partitions at their committed positions; `lane` creates the worker's state of one, given its token.
    pub(super) fn take_over(
        &mut self,
        partitions: Vec<TopicPartition>,
        wake: Option<Wake<'_>>,
        mut lane: impl FnMut(&TopicPartition, u64) -> W::Lane,
    ) -> Result<(), WorkError> {
        let positions = committed_positions(&self.source, &partitions)?;
        let at: Vec<(TopicPartition, i64)> = partitions.into_iter().zip(&positions).map(|(tp, p)| (tp, p.offset)).collect();
        let queues = self.source.start(&at, wake)?;
        for (queue, position) in queues.into_iter().zip(positions) {
            let own = lane(queue.partition(), self.next_token);
            self.lanes.push(Lane::new(queue, self.next_token, position, own));
            self.next_token += 1;
        }
        Ok(())
    }

    /// All assigned partitions.
    pub(super) fn owned(&self) -> Vec<TopicPartition> {
        self.lanes.iter().map(|lane| lane.tp().clone()).collect()
    }

    pub(super) fn lane_of(&self, token: u64) -> Option<&Lane<W>> {
        self.lanes.iter().find(|lane| lane.token == token)
    }

    fn lane_of_mut(&mut self, token: u64) -> Option<&mut Lane<W>> {
        self.lanes.iter_mut().find(|lane| lane.token == token)
    }

    /// Whether a partition takes a record now: its finished set will still fit, it is not stopped, and there is memory for it.
    pub(super) fn has_room(&self, index: usize) -> bool {
        let lane = &self.lanes[index];
        let is_first = lane.tracker.in_flight() == 0;
        !lane.is_stopped() && lane.tracker.has_room() && self.held.has_room(is_first) && self.may_be_worked_on(index)
    }

    /// The partitions in the order of polling, with another first each time. Suspected ones come before the others.
    pub(super) fn in_turn(&mut self) -> Vec<usize> {
        let lanes = self.lanes.len();
        self.turn = (self.turn + 1).checked_rem(lanes).unwrap_or(0);
        let mut order: Vec<usize> = (self.turn..lanes).chain(0..self.turn).collect();
        self.is_suspicious = self.lanes.iter().any(|lane| lane.alone > 0);
        if self.is_suspicious {
            self.look_after_exclusive();
            order.sort_by_key(|index| self.lanes[*index].alone == 0);
        }
        order
    }

    /// The next record of a partition.
    pub(super) fn poll(&mut self, index: usize) -> Result<Polled<Box<Record<W>>>, WorkError> {
        let lane = &mut self.lanes[index];
        let next = lane.queue.poll();
        if let Some(Next::Record(_) | Next::End(_)) = &next {
            lane.denied.may_be_read(lane.queue.partition());
        }
        Ok(match next {
            None => Polled::Empty,
            Some(Next::Record(record)) => {
                let is_new = lane.tracker.arrive(record.offset()) == ArrivalState::New;
                if is_new { Polled::New(record) } else { Polled::Nothing }
            }
            Some(Next::End(offset)) => {
                lane.tracker.reach_end(offset);
                // There is nothing after the counted record.
                if lane.tracker.in_flight() == 0 {
                    lane.alone = 0;
                }
                Polled::Nothing
            }
            Some(Next::OffsetLost) => return Err(WorkError::offset_lost(lane.tp(), self.source.group())),
            Some(Next::Denied) => {
                lane.denied.may_not_be_read(lane.queue.partition(), self.role);
                Polled::Nothing
            }
            Some(Next::Passing) => Polled::Nothing,
        })
    }

    /// Whether everything of a partition below this offset was taken; true if it is not assigned (any more).
    pub(super) fn has_read(&self, tp: &TopicPartition, end: i64) -> bool {
        self.lanes.iter().find(|lane| lane.tp() == tp).is_none_or(|lane| lane.tracker.next_offset() >= end)
    }

    /// The brokers' time, as far as known.
    pub(super) fn broker_now(&self) -> Timestamp {
        Timestamp::from_millis(self.engine.cluster.leaders.now(-1, self.clock.now()).div_euclid(1_000))
    }

    /// A record waits in a tier to make room for others while the handler is down; no attempt is counted.
    pub(super) fn postpone(&mut self, id: RecordId, envelope: &Envelope, content: Content) {
        if self.lane_of(id.token).is_some() {
            self.carry_out(id, self.ladder.postponed(envelope), content, W::Place::default());
        }
    }

    /// Handles the verdict of the handler or the application: decides, marks finished records and queues hops. Verdicts for
    /// revoked partitions are dropped.
    pub(super) fn judge(&mut self, id: RecordId, envelope: &Envelope, content: Content, verdict: &Verdict, place: W::Place) {
        if self.lane_of(id.token).is_none() {
            tracing::debug!(ladder = self.ladder.name(), "late verdict for a revoked partition");
            return;
        }
        // A requested delay must not be too short by any broker's clock.
        let now = Timestamp::from_millis(self.engine.cluster.leaders.latest(self.clock.now()).div_euclid(1_000) + 1);
        let header = |name: &str| last_text(&content.headers, name);
        let Judgement { decision, rule } = self.ladder.judge(envelope, verdict, &header, now);
        tracing::debug!(
            ladder = self.ladder.name(),
            id = envelope.id,
            attempt = envelope.attempts + 1,
            decision = decision.name(),
            rule,
            "decided"
        );
        if let Some(rule) = rule {
            self.hop_metrics.classified(rule);
        }
        // Before anything is written.
        let decision = match &self.dlq_breaker {
            Some(breaker) => breaker.pass(envelope, decision),
            None => decision,
        };
        if decision == Decision::Complete && envelope.redrives > 0 {
            self.hops.push(Hop::outcome(id, envelope.clone(), now, place));
            return;
        }
        self.carry_out(id, decision, content, place);
    }

    /// A foreign dead letter whose record cannot be found goes to the DLQ as it is: it must not be redelivered as null.
    pub(super) fn without_record(&mut self, id: RecordId, envelope: &Envelope, content: Content, failure: &Failure) {
        if self.lane_of(id.token).is_some() {
            let decision = self.ladder.without_record(envelope, failure.error(), self.broker_now());
            self.carry_out(id, decision, content, W::Place::default());
        }
    }

    fn carry_out(&mut self, id: RecordId, decision: Decision, content: Content, place: W::Place) {
        match decision {
            Decision::Complete => {
                self.finish(id);
                self.unsettled.push(place);
            }
            Decision::Hop { tier, envelope } => self.hops.push(Hop::new(id, Target::Tier(tier), *envelope, content, place)),
            Decision::DeadLetter { reason, topic, envelope } => {
                let which = self.ladder.dlq_topics().iter().position(|t| *t == topic).unwrap_or(0);
                self.hops.push(Hop::new(id, Target::Dlq(reason, which), *envelope, content, place));
            }
        }
    }

    /// Number of queued hops that can be written.
    pub(super) fn moving(&self) -> usize {
        self.hops.len().saturating_sub(self.standing)
    }

    /// Commits what has finished since the last commit, if it is time, or `at_once`, or if `most_unsettled` records are waiting
    /// for it.
    pub(super) fn commit(&mut self, at_once: bool, most_unsettled: usize) -> Result<(), WorkError> {
        let now = self.clock.now();
        // Under suspicion, what is finished must not be blamed for the death of what follows.
        let is_pressing = self.is_suspicious || self.lanes.iter().any(Lane::is_under_watch);
        let enough = if is_pressing { 1 } else { most_unsettled };
        if !at_once && now < self.commit_at && self.unsettled.len() < enough {
            return Ok(());
        }
        self.commit_at = now.later(COMMIT_INTERVAL);
        let points = points_with(&self.lanes, std::iter::empty());
        self.metrics.partitions_stopped(self.lanes.iter().filter(|lane| lane.is_stopped() || lane.denied.is_so()).count());
        if self.source.live_group().is_none() {
            return Ok(());
        }
        if points.is_empty() {
            self.unsettled.clear();
            return self.engine.commit_doubtful(&self.source);
        }
        if self.commit_points(points)? {
            self.unsettled.clear();
        }
        Ok(())
    }

    /// Returns whether these points are committed now.
    fn commit_points(&mut self, points: Vec<(TopicPartition, CommitPoint)>) -> Result<bool, WorkError> {
        let mut are_committed = true;
        for part in by_topic(points) {
            if self.engine.commit(&self.source, &part)? {
                self.note_committed(part);
            } else {
                are_committed = false;
            }
        }
        Ok(are_committed)
    }

    fn note_committed(&mut self, points: Vec<(TopicPartition, CommitPoint)>) {
        for (tp, point) in points {
            if let Some(lane) = self.lanes.iter_mut().find(|lane| *lane.tp() == tp) {
                lane.committed = point;
            }
        }
    }

    fn report_in_hand(&mut self) {
        let bytes = self.held.bytes();
        self.metrics.in_hand(bytes);
        let is_full = bytes >= MOST_BYTES;
        if is_full && !std::mem::replace(&mut self.was_full, true) {
            tracing::info!(
                ladder = self.ladder.name(),
                role = self.role.as_str(),
                bytes,
                "records in hand have reached their memory limit: no more are taken until some are finished"
            );
        }
        // Logged again only after it was half empty.
        self.was_full &= bytes > MOST_BYTES / 2;
    }

    /// Serves the producer between transactions, and exports the lag.
    pub(super) fn idle(&mut self) {
        self.engine.sink.idle();
        self.tell_lag();
        self.report_in_hand();
        self.no_way_back.log(&self.ladder, self.role, self.clock.now());
    }
}

/// The last value of a header as text, as most clients read it.
fn last_text(headers: &NativeHeaders, name: &str) -> Option<String> {
    let value = headers.iter().filter(|(known, _)| *known == name.as_bytes()).last()?.1?;
    Some(String::from_utf8_lossy(value).into_owned())
}

/// The record type of a worker's source.
pub(super) type Record<W> = <<<W as Work>::Source as RecordSource>::Queue as RecordQueue>::Record;

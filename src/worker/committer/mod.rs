//! The committer: what becomes of records is committed so that nothing is lost and no hop doubled, whoever delivers them.
//!
//! It owns the consumer, the producer and the state of every partition, on one thread. So building a batch, taking the group
//! metadata, sending offsets, committing and answering a rebalance happen one after the other, and no lock can be forgotten. What
//! it keeps to:
//!
//! - A hop is written in one transaction with its own offset: below the committed prefix, or in the finished set beside it.
//! - Each assignment of a partition has a token and each record carries it. What comes for a token that has gone is dropped: the
//!   partition's next owner has the record.
//! - What follows when a transaction fails, or nobody knows what became of it, stands at the engine ([`crate::worker::hop::engine`]).
//! - All attempt state is in the record. Nothing that is kept here outlives an assignment.
//! - A record on which workers die is known by the count beside its offset ([`poison`]), not by a file.
//!
//! Generic over the two ports, so that the model of the workers (`worker::model`) runs this very code in virtual time.

mod batch;
mod hop;
mod lag;
mod lane;
mod poison;

use std::sync::Arc;
use std::time::Duration;

pub(super) use crate::worker::committer::lane::{Lane, Polled};
pub(super) use crate::worker::committer::poison::Start;
pub use crate::worker::committer::poison::Starts;

use crate::core::ack_tracker::{Arrival, CommitPoint};
use crate::core::decide::{Decision, Judgement};
use crate::core::envelope::Envelope;
use crate::core::failure::Verdict;
use crate::core::ladder::Ladder;
use crate::core::leader_clock::LocalTime;
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
use crate::worker::hop::ports::{HopSink, RecordQueue, RecordSource, SourceRecord, Wake};
use crate::worker::hop::positions::committed_positions;
use crate::worker::hop::targets::{Target, Targets};

/// What is done is committed at the latest after this.
const COMMIT_INTERVAL: Duration = Duration::from_millis(200);

/// What a worker brings along: its two ports, and what it keeps itself.
pub(super) trait Work {
    /// Where its records come from.
    type Source: RecordSource;
    /// Where its hops go.
    type Sink: HopSink<Group = <Self::Source as RecordSource>::Group>;
    /// What the worker keeps of each partition, beside what the committer does.
    type Lane;
    /// What a record takes up until what became of it is committed.
    type Place: Default;
}

/// What a committer is made of.
pub(super) struct Parts<W: Work> {
    pub(super) ladder: Arc<Ladder>,
    /// The role, as messages name it.
    pub(super) role: &'static str,
    pub(super) clock: Clock,
    pub(super) source: W::Source,
    pub(super) sink: W::Sink,
    pub(super) targets: Targets,
    pub(super) metrics: WorkerMetrics,
    pub(super) hop_metrics: HopMetrics,
    pub(super) starts: Starts,
    pub(super) dlq_breaker: Option<Arc<DlqBreaker>>,
}

/// Commits what becomes of records.
pub(super) struct Committer<W: Work> {
    ladder: Arc<Ladder>,
    role: &'static str,
    clock: Clock,
    pub(super) source: W::Source,
    pub(super) engine: Engine<W::Sink>,
    targets: Targets,
    pub(super) lanes: Vec<Lane<W>>,
    next_token: u64,
    hops: Vec<Hop<W::Place>>,
    /// How many of them stand still.
    standing: usize,
    /// Of records that are done with and not committed yet.
    unsettled: Vec<W::Place>,
    metrics: WorkerMetrics,
    hop_metrics: HopMetrics,
    starts: Starts,
    dlq_breaker: Option<Arc<DlqBreaker>>,
    /// The partition that was first in turn.
    turn: usize,
    /// Whether any was under suspicion when it was looked last in which order they are: at each record that would be a look at each.
    is_suspicious: bool,
    commit_at: LocalTime,
    lag: Lag,
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
        }
    }

    /// Takes partitions over, each where its group has committed; `lane` makes what the worker keeps of one, given its token.
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

    /// Gives partitions back after what became of their records is committed, or could not be. What is left of them is their next
    /// owner's.
    pub(super) fn give_back(&mut self, partitions: &[TopicPartition]) -> Result<(), WorkError> {
        let gone = self.tokens_of(partitions);
        self.lanes.retain(|lane| !gone.contains(&lane.token));
        self.hops.retain(|hop| !gone.contains(&hop.id.token));
        self.engine.forget(partitions, |token| !gone.contains(&token));
        // Those of partitions that stay are as good as settled: a drain has committed them, or the next commit will.
        self.unsettled.clear();
        self.source.release(partitions)?;
        Ok(())
    }

    /// The tokens under which these partitions are owned.
    pub(super) fn tokens_of(&self, partitions: &[TopicPartition]) -> Vec<u64> {
        self.lanes.iter().filter(|lane| partitions.contains(lane.tp())).map(|lane| lane.token).collect()
    }

    /// All partitions that are owned.
    pub(super) fn owned(&self) -> Vec<TopicPartition> {
        self.lanes.iter().map(|lane| lane.tp().clone()).collect()
    }

    pub(super) fn lane_of(&self, token: u64) -> Option<&Lane<W>> {
        self.lanes.iter().find(|lane| lane.token == token)
    }

    fn lane_of_mut(&mut self, token: u64) -> Option<&mut Lane<W>> {
        self.lanes.iter_mut().find(|lane| lane.token == token)
    }

    /// Whether a partition takes a record now: its finished set will still fit, and nothing of it stands still.
    pub(super) fn has_room(&self, index: usize) -> bool {
        let lane = &self.lanes[index];
        !lane.standstill && lane.tracker.has_room() && self.may_be_worked_on(index)
    }

    /// The partitions in the order in which they are looked at for records, another first each time. Those under suspicion come before
    /// the others.
    pub(super) fn in_turn(&mut self) -> Vec<usize> {
        let lanes = self.lanes.len();
        self.turn = (self.turn + 1).checked_rem(lanes).unwrap_or(0);
        let mut order: Vec<usize> = (self.turn..lanes).chain(0..self.turn).collect();
        self.is_suspicious = self.lanes.iter().any(|lane| lane.alone > 0);
        if self.is_suspicious {
            self.look_after_quiet();
            order.sort_by_key(|index| self.lanes[*index].alone == 0);
        }
        order
    }

    /// The next record of a partition that is to be worked on.
    pub(super) fn poll(&mut self, index: usize) -> Result<Polled<Box<Record<W>>>, WorkError> {
        let lane = &mut self.lanes[index];
        let next = lane.queue.poll();
        if let Some(Next::Record(_) | Next::End(_)) = &next {
            lane.denied.may_be_read(lane.queue.partition());
        }
        Ok(match next {
            None => Polled::Empty,
            Some(Next::Record(record)) => {
                let is_new = lane.tracker.arrive(record.offset()) == Arrival::New;
                if is_new { Polled::New(record) } else { Polled::Nothing }
            }
            Some(Next::End(offset)) => {
                lane.tracker.reach_end(offset);
                // Nothing is behind the record that was counted.
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

    /// Whether everything of a partition below this offset was taken; so it is of one that is not owned (any more).
    pub(super) fn has_read(&self, tp: &TopicPartition, end: i64) -> bool {
        self.lanes.iter().find(|lane| lane.tp() == tp).is_none_or(|lane| lane.tracker.next_offset() >= end)
    }

    /// The brokers' time, as far as it is known.
    pub(super) fn broker_now(&self) -> Timestamp {
        Timestamp::from_millis(self.engine.known.leaders.now(-1, self.clock.now()).div_euclid(1_000))
    }

    /// A record waits in a tier because it makes room for others while the handler is down; no attempt is counted.
    pub(super) fn postpone(&mut self, id: RecordId, envelope: &Envelope, content: Content) {
        if self.lane_of(id.token).is_some() {
            self.carry_out(id, self.ladder.postponed(envelope), content, W::Place::default());
        }
    }

    /// What the handler, or the application, said of a record: decides, notes what is finished and queues what has to hop. What
    /// comes for a partition that has moved is dropped.
    pub(super) fn judge(&mut self, id: RecordId, envelope: &Envelope, content: Content, verdict: &Verdict, place: W::Place) {
        if self.lane_of(id.token).is_none() {
            tracing::debug!(ladder = self.ladder.name(), "late verdict for a partition that has moved");
            return;
        }
        // A pause that the handler asks for must not be too short by whichever broker's clock.
        let now = Timestamp::from_millis(self.engine.known.leaders.latest(self.clock.now()).div_euclid(1_000) + 1);
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

    /// Hops that are on their way and can go.
    pub(super) fn moving(&self) -> usize {
        self.hops.len().saturating_sub(self.standing)
    }

    /// Whether partitions still have hops on their way that can go; what can be written nowhere is their next owner's.
    pub(super) fn is_moving(&self, tokens: &[u64]) -> bool {
        self.hops.iter().any(|hop| tokens.contains(&hop.id.token) && !self.stands_still(hop))
    }

    /// Commits what has finished since the last time, when it is time, or `at_once`, or when `most_unsettled` are waiting for it.
    pub(super) fn commit(&mut self, at_once: bool, most_unsettled: usize) -> Result<(), WorkError> {
        let now = self.clock.now();
        if !at_once && now < self.commit_at && self.unsettled.len() < most_unsettled {
            return Ok(());
        }
        self.commit_at = now.later(COMMIT_INTERVAL);
        let points = points_with(&self.lanes, std::iter::empty());
        self.metrics.partitions_stopped(self.lanes.iter().filter(|lane| lane.standstill || lane.denied.is_so()).count());
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

    /// Whether a commit of these partitions has been sent and not been answered.
    pub(super) fn has_commit_on_its_way(&self, partitions: &[TopicPartition]) -> bool {
        partitions.iter().any(|tp| self.engine.known.is_in_doubt(tp))
    }

    /// Whether these points are committed now.
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

    /// Serves the producer between transactions, and tells how far the worker is behind.
    pub(super) fn idle(&mut self) {
        self.engine.sink.idle();
        self.tell_lag();
    }
}

/// The last value of a header, as most clients read it, as text.
fn last_text(headers: &NativeHeaders, name: &str) -> Option<String> {
    let value = headers.iter().filter(|(known, _)| *known == name.as_bytes()).last()?.1?;
    Some(String::from_utf8_lossy(value).into_owned())
}

/// A record as the source of a worker gives it.
pub(super) type Record<W> = <<<W as Work>::Source as RecordSource>::Queue as RecordQueue>::Record;

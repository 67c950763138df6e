//! Handles the end of a transaction of hops: committed, refused, failed, or of unknown outcome.
//!
//! - **Committed**: the backoff is reset, and so are suspicions about its targets.
//! - **Refused**, since some of its records could not be written: everything is sent again. If a topic is denied, or a partition is not
//!   available at the moment, that target is barred and all others continue ([`BarredTargets`]). If a record is faulty, it is searched for
//!   ([`Bisect`]), and then only its partition stops.
//! - **Failed**: everything is sent again after a pause.
//! - **Unknown**: the producer reconnects, which ends the open transaction under its name one way or the other (being fenced means that it
//!   has already ended); the offsets that the group has committed then decide. The worker is told those, and each record whose offset is
//!   committed has been moved.
//!
//! Plain commits and transactions of a partition never overlap: mixed, they move offsets back. So after a plain commit without an answer,
//! which may still be on its way, no transaction contains an offset of its partitions until a later commit was answered: requests of one
//! client arrive in order.
//!
//! Only a rival with the same name ends the worker: continuing would fence that one in turn.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::core::ack_tracker::CommitPoint;
use crate::core::backoff::Backoff;
use crate::core::ladder::Ladder;
use crate::core::leader_clock::LocalTime;
use crate::core::role::Role;
use crate::kafka::NativeHeaders;
use crate::kafka::budget::Budget;
use crate::kafka::clock::Clock;
use crate::kafka::consumer::Committed;
use crate::kafka::error::{ClientError, TxnError, WriteFault};
use crate::kafka::outgoing::{Outgoing, TopicId};
use crate::kafka::partition::TopicPartition;
use crate::kafka::transaction::{Ended, Transaction, TransactionRefusal, Written};
use crate::telemetry::events::WorkerMetrics;
use crate::worker::error::WorkError;
use crate::worker::hop::barred::BarredTargets;
use crate::worker::hop::bisect::Bisect;
use crate::worker::hop::leaders::Leaders;
use crate::worker::hop::ports::{HopSink, RecordSource};

/// Initial and maximum pause before a record refused by its target is tried again.
const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(60);

/// Pause before the write that reads a broker's clock is tried again after it was denied.
const DENIED_CLOCK_INTERVAL: Duration = Duration::from_secs(5);

/// What mover, deliverer and router share: the producer, and what is known about brokers and targets.
pub(in crate::worker) struct Engine<S: HopSink> {
    ladder: Arc<Ladder>,
    /// The role in messages.
    role: Role,
    clock: Clock,
    metrics: WorkerMetrics,
    pub(in crate::worker) sink: S,
    pub(in crate::worker) cluster: ClusterState,
    /// Backoff after failed transactions.
    backoff: Backoff,
    /// Whether the client failed the last transaction without a cause; the first time, it is
    /// retried at once.
    given_up: bool,
    /// No write to read a clock before then.
    clock_at: LocalTime,
}

/// What is known about brokers and targets, which decides the content of a transaction.
pub(in crate::worker) struct ClusterState {
    pub(in crate::worker) leaders: Leaders,
    pub(in crate::worker) barred: BarredTargets,
    pub(in crate::worker) bisect: Bisect,
    pub(in crate::worker) budget: Budget,
    /// The points of plain commits that were not answered yet.
    in_doubt: Vec<(TopicPartition, CommitPoint)>,
}

impl ClusterState {
    /// Whether a plain commit of this partition may still be on its way: no transaction may contain an offset of
    /// it.
    pub(in crate::worker) fn is_in_doubt(&self, tp: &TopicPartition) -> bool {
        self.in_doubt.iter().any(|(doubtful, _)| doubtful == tp)
    }
}

/// The content of a transaction, as far as the engine needs it. A tag is the index of a record in it.
pub(in crate::worker) trait Load {
    /// Number of records.
    fn records(&self) -> usize;
    /// Size of their keys and values.
    fn bytes(&self) -> usize;
    /// The assignment of a record's partition.
    fn token(&self, tag: usize) -> u64;
    /// The target of a record.
    fn target(&self, tag: usize) -> (TopicId, i32);
}

/// The outcome of a transaction.
pub(in crate::worker) enum TransactionOutcome {
    /// Everything is written.
    Committed(Written),
    /// Nothing is written, and everything is sent again. A fault means that the record, which was sent alone, can be written nowhere as
    /// it is.
    Back(Option<WriteFault>),
    /// Resolved from the offsets that the group has committed: a record is written if its offset is finished by them, and
    /// otherwise not.
    Known(BTreeMap<TopicPartition, CommitPoint>),
}

impl<S: HopSink> Engine<S> {
    /// Without any transaction yet.
    pub(in crate::worker) fn new(ladder: Arc<Ladder>, role: Role, clock: Clock, sink: S, metrics: WorkerMetrics) -> Self {
        Self {
            ladder,
            role,
            clock,
            metrics,
            sink,
            cluster: ClusterState {
                leaders: Leaders::default(),
                barred: BarredTargets::default(),
                bisect: Bisect::default(),
                budget: Budget::new(),
                in_doubt: Vec::new(),
            },
            backoff: Backoff::of_transactions(),
            given_up: false,
            clock_at: LocalTime::from_micros(0),
        }
    }

    /// No record is moved before then.
    pub(in crate::worker) fn not_before(&self) -> LocalTime {
        self.backoff.until().max(self.sink.ready_at())
    }

    /// Whether a transaction may begin.
    pub(in crate::worker) fn may_begin(&self) -> bool {
        self.clock.now() >= self.not_before()
    }

    /// There is no live membership, so no offset may be sent; the group will report what comes
    /// next.
    pub(in crate::worker) fn has_no_group(&mut self) {
        self.backoff.failed(self.clock.now());
    }

    /// Checks barred targets whose pause is over, or which may have recovered. Those without a leader, or with too few replicas, stay
    /// barred: testing them by a write would delay everything else until the write times out, and its transaction would not end before
    /// the partition is well.
    pub(in crate::worker) fn look_after_barred(&mut self) {
        let now = self.clock.now();
        for topic in self.cluster.barred.next_lookups(now) {
            for look in self.sink.look_again(topic) {
                let target = (topic, look.partition);
                if self.cluster.barred.recovered(target, look, now) {
                    tracing::info!(topic = self.sink.topic_name(topic), ?look, "partition has recovered");
                } else if !self.cluster.barred.rests(target, now) && self.cluster.barred.is_hopeless(target, look) {
                    let retry_in = self.cluster.barred.pass_over(target, now);
                    tracing::debug!(topic = self.sink.topic_name(topic), ?look, ?retry_in, "target is still not available");
                }
            }
        }
    }

    /// Handles the end of a transaction. `committed` reads the offsets that the group has committed for the partitions in it.
    pub(in crate::worker) fn conclude(
        &mut self,
        ended: Result<Ended, TxnError>,
        load: &impl Load,
        began: LocalTime,
        committed: impl FnOnce() -> Result<Vec<(TopicPartition, Option<Committed>)>, ClientError>,
    ) -> Result<TransactionOutcome, WorkError> {
        let now = self.clock.now();
        match ended {
            Ok(Ended::Committed(written)) => {
                if let Some(reading) = &written.clock {
                    self.cluster.leaders.read(reading);
                }
                self.cluster.budget.committed(load.bytes(), began, now);
                self.written(load);
                self.metrics.transaction_committed(now.since(began));
                self.succeeded();
                Ok(TransactionOutcome::Committed(written))
            }
            Ok(Ended::Refused(mut refusal)) => {
                // Faults of earlier records may be reported as late as now.
                refusal.faults.retain(|(tag, _)| *tag < load.records());
                if let Some(reading) = &refusal.clock {
                    self.cluster.leaders.read(reading);
                }
                self.cluster.budget.failed(load.bytes(), began, now);
                Ok(TransactionOutcome::Back(self.refused(load, &refusal)))
            }
            Err(error) => {
                self.cluster.budget.failed(load.bytes(), began, now);
                let (is_unknown, is_fenced) = (matches!(error, TxnError::Unknown(_)), error.cause().is_fenced());
                self.survive(error)?;
                if !is_unknown {
                    return Ok(TransactionOutcome::Back(None));
                }
                if !is_fenced {
                    self.sink.connect()?;
                }
                let point = |committed: Committed| CommitPoint { offset: committed.offset, metadata: committed.metadata };
                let known = committed()?.into_iter().filter_map(|(tp, committed)| Some((tp, point(committed?)))).collect();
                Ok(TransactionOutcome::Known(known))
            }
        }
    }

    fn succeeded(&mut self) {
        self.backoff.reset();
        self.given_up = false;
    }

    fn written(&mut self, load: &impl Load) {
        if self.cluster.barred.is_empty() && !self.cluster.bisect.is_under_way() {
            return;
        }
        let targets: BTreeSet<(TopicId, i32)> = (0..load.records()).map(|tag| load.target(tag)).collect();
        for target in targets {
            if self.cluster.barred.written(target) {
                tracing::info!(topic = self.sink.topic_name(target.0), "topic may be written to again");
            }
        }
        if self.cluster.bisect.is_under_way() && load.records() > 0 {
            self.cluster.bisect.written(load.token(0));
        }
    }

    /// Some records could not be written. Returns the fault of a record that was sent alone, if it is
    /// faulty.
    fn refused(&mut self, load: &impl Load, refusal: &TransactionRefusal) -> Option<WriteFault> {
        self.metrics.transaction_aborted();
        let now = self.clock.now();
        let mut has_cause = self.bar_denied(load, refusal, now);
        let passing = refusal.faults.iter().filter(|(_, fault)| fault.is_passing());
        let passing: BTreeMap<(TopicId, i32), WriteFault> = passing.map(|(tag, fault)| (load.target(*tag), *fault)).collect();
        has_cause |= !passing.is_empty();
        for (target, fault) in passing {
            self.pass_over(target, fault, now);
        }
        let mut at_fault = None;
        let lasting = refusal.faults.iter().filter(|(_, fault)| fault.lasts());
        let lasting: BTreeMap<u64, WriteFault> = lasting.map(|(tag, fault)| (load.token(*tag), *fault)).collect();
        has_cause |= !lasting.is_empty();
        for (token, fault) in lasting {
            if load.records() == 1 {
                self.cluster.bisect.found(token);
                at_fault = Some(fault);
            } else {
                let records = (0..load.records()).filter(|tag| load.token(*tag) == token).count();
                self.cluster.bisect.refused(token, records);
            }
        }
        if has_cause {
            self.succeeded();
        } else if std::mem::replace(&mut self.given_up, true) {
            // If failed by the client without a cause, a transaction is retried at once; the second time after a pause.
            self.backoff.failed(now);
            tracing::info!(
                ladder = self.ladder.name(),
                retry_in = ?self.backoff.pause(),
                "the client keeps failing {}'s transactions without a cause",
                self.role
            );
        }
        at_fault
    }

    /// Bars a partition that is not available at the moment. Logged once.
    fn pass_over(&mut self, target: (TopicId, i32), fault: WriteFault, now: LocalTime) {
        let was_barred = self.cluster.barred.is_barred(target);
        let retry_in = self.cluster.barred.pass_over(target, now);
        let (topic, partition) = (self.sink.topic_name(target.0), target.1);
        if was_barred {
            tracing::debug!(topic, partition, %fault, ?retry_in, "partition still cannot be written to");
        } else {
            tracing::warn!(
                ladder = self.ladder.name(),
                topic,
                partition,
                %fault,
                ?retry_in,
                "partition cannot be written to now: its records wait, all others continue"
            );
        }
    }

    /// Bars the topics that were denied. If it is unknown which of them it was, all are suspected. Returns whether there were any.
    fn bar_denied(&mut self, load: &impl Load, refusal: &TransactionRefusal, now: LocalTime) -> bool {
        let told = refusal.faults.iter().filter(|(_, fault)| *fault == WriteFault::Denied);
        let mut denied: BTreeSet<TopicId> = told.map(|(tag, _)| load.target(*tag).0).collect();
        if refusal.denied {
            let topics: BTreeSet<TopicId> = (0..load.records()).map(|tag| load.target(tag).0).collect();
            if topics.len() == 1 {
                denied = topics;
            } else {
                for topic in topics {
                    self.cluster.barred.suspect(topic);
                }
            }
        }
        for topic in &denied {
            // Logged once as an error; a metric shows that it persists.
            let was_denied = self.cluster.barred.is_denied(*topic);
            let retry_in = self.cluster.barred.deny(*topic, now);
            let name = self.sink.topic_name(*topic);
            if was_denied {
                tracing::debug!(topic = name, ?retry_in, "still not authorised to write to the topic");
                continue;
            }
            let records = (0..load.records()).filter(|tag| load.target(*tag).0 == *topic).count();
            tracing::error!(
                ladder = self.ladder.name(),
                topic = name,
                records,
                ?retry_in,
                "not authorised to write to the topic: its records and their partitions wait, the others continue; \
                 grant Write on it (`kladder generate acls --role {}` prints the rules), and they will be written",
                self.role
            );
        }
        refusal.denied || !denied.is_empty()
    }

    /// A record can be written nowhere, since its target topic refuses it: its partition stops, longer each time. `before` are its
    /// failures before this one.
    pub(in crate::worker) fn stop(
        &self,
        tp: &TopicPartition,
        offset: i64,
        (topic, fault): (TopicId, WriteFault),
        before: Option<Backoff>,
    ) -> Backoff {
        let mut rest = before.unwrap_or(Backoff::new(FIRST_REST, LONGEST_REST));
        let retry_in = rest.failed(self.clock.now());
        // Logged once as an error; a metric shows that it persists.
        if before.is_some() {
            tracing::debug!(partition = %tp, offset, %fault, ?retry_in, "record still cannot be written");
        } else {
            let (topic, remedy) = (self.sink.topic_name(topic), fault.remedy());
            tracing::error!(
                partition = %tp, offset, topic, %fault, ?retry_in,
                "record cannot be written anywhere, so its partition stops; the others continue ({remedy})"
            );
        }
        rest
    }

    /// A transaction failed: waits a little longer each time. Only a rival ends the worker.
    pub(in crate::worker) fn survive(&mut self, error: TxnError) -> Result<(), WorkError> {
        self.metrics.transaction_aborted();
        if error.cause().is_rival() {
            return Err(error.into());
        }
        self.backoff.failed(self.clock.now());
        let (ladder, role, retry_in) = (self.ladder.name(), self.role, self.backoff.pause());
        if self.backoff.was_logged() {
            tracing::debug!(ladder, %error, ?retry_in, "{role}'s transaction failed again");
        } else if error.cause().is_denied() && self.backoff.is_to_be_told() {
            tracing::error!(ladder, %error, ?retry_in, "{role} lacks a permission");
        } else if self.backoff.is_longest() && self.backoff.is_to_be_told() {
            tracing::warn!(ladder, %error, ?retry_in, "{role}'s transactions keep failing: no record leaves it meanwhile");
        } else {
            tracing::info!(ladder, %error, ?retry_in, "{role}'s transaction failed");
        }
        Ok(())
    }

    /// Commits outside of a transaction. Returns whether these points are committed now.
    pub(in crate::worker) fn commit(
        &mut self,
        source: &impl RecordSource,
        points: &[(TopicPartition, CommitPoint)],
    ) -> Result<bool, WorkError> {
        match source.commit(points) {
            Ok(()) => {
                // Only requests of the same member arrive in order, and there may be one member per topic.
                self.cluster.in_doubt.retain(|(tp, _)| points.iter().all(|(answered, _)| answered.topic != tp.topic));
                return Ok(true);
            }
            Err(error) if error.is_outage() => {
                // Logged once; during a rebalance it is answered within seconds.
                let is_told = points.iter().any(|(tp, _)| self.cluster.is_in_doubt(tp));
                self.cluster.in_doubt.retain(|(tp, _)| points.iter().all(|(later, _)| later != tp));
                if !is_told {
                    tracing::info!(ladder = self.ladder.name(), %error, "cannot commit offsets now; retrying");
                }
                self.cluster.in_doubt.extend_from_slice(points);
                return Ok(false);
            }
            // The group will report what comes next; uncommitted records are processed again by their next
            // owner.
            Err(error) if error.is_group_change() => tracing::debug!(%error, "offsets not committed"),
            Err(error) if error.is_fatal() || error.is_fenced() => return Err(error.into()),
            Err(error) => tracing::info!(ladder = self.ladder.name(), %error, "cannot commit offsets now; retrying"),
        }
        self.cluster.in_doubt.retain(|(tp, _)| points.iter().all(|(answered, _)| answered.topic != tp.topic));
        Ok(false)
    }

    /// These partitions are revoked: requests for them on their way are refused from now on, or their next owner
    /// has read the result.
    pub(in crate::worker) fn forget(&mut self, partitions: &[TopicPartition], is_owned: impl Fn(u64) -> bool) {
        self.cluster.in_doubt.retain(|(tp, _)| !partitions.contains(tp));
        self.cluster.bisect.retain(is_owned);
    }

    /// There is nothing new to commit. Commits without an answer are repeated, since any answer proves that the earlier one has
    /// arrived.
    pub(in crate::worker) fn commit_doubtful(&mut self, source: &impl RecordSource) -> Result<(), WorkError> {
        for points in by_topic(self.cluster.in_doubt.clone()) {
            self.commit(source, &points)?;
        }
        Ok(())
    }

    /// Reads a broker's clock by writing a record, unless it was read otherwise within this time. The state topic is compacted, so only
    /// one record under this key remains. Returns whether it was read now.
    pub(in crate::worker) fn read_clock(&mut self, within: Duration, state: TopicId, key: &str) -> Result<bool, WorkError> {
        let now = self.clock.now();
        if self.cluster.leaders.was_read_within(within, now) || now < self.backoff.until().max(self.clock_at) {
            return Ok(false);
        }
        let value = now.timestamp().to_string();
        let mut transaction = Transaction::new(&mut self.sink);
        let record = Outgoing { key: Some(key.as_bytes()), value: Some(value.as_bytes()) };
        transaction.send((state, 0), record, NativeHeaders::new(), 0);
        let ended = transaction.commit(None);
        let topic = self.ladder.state_topic();
        let fault = match ended {
            Ok(Ended::Committed(Written { clock: Some(reading), .. })) => {
                self.cluster.leaders.read(&reading);
                self.backoff.reset();
                return Ok(true);
            }
            Ok(Ended::Committed(_)) => "its broker does not set append times".to_owned(),
            Ok(Ended::Refused(refusal)) if refusal.denied || refusal.fault() == WriteFault::Denied => {
                if self.backoff.is_to_be_told() {
                    tracing::error!(
                        topic,
                        "not authorised to write to the topic, so that the broker's clock cannot be read, without which nothing is \
                         moved; grant Write on it (`kladder generate acls --role {}` prints the rules)",
                        self.role
                    );
                }
                // If a hop has read it, hops need not wait for that.
                self.clock_at = now.later(DENIED_CLOCK_INTERVAL);
                return Ok(false);
            }
            Ok(Ended::Refused(refusal)) => refusal.fault().to_string(),
            Err(error) => {
                self.survive(error)?;
                return Ok(false);
            }
        };
        tracing::warn!(topic, fault, "broker's clock could not be read, trying again");
        self.backoff.failed(self.clock.now());
        Ok(false)
    }
}

/// Points by topic: a worker may have one member per topic, and a problem with one must not delay the others.
pub(in crate::worker) fn by_topic(points: Vec<(TopicPartition, CommitPoint)>) -> Vec<Vec<(TopicPartition, CommitPoint)>> {
    let mut parts: Vec<Vec<(TopicPartition, CommitPoint)>> = Vec::new();
    for point in points {
        match parts.iter_mut().find(|part| part[0].0.topic == point.0.topic) {
            Some(part) => part.push(point),
            None => parts.push(vec![point]),
        }
    }
    parts
}

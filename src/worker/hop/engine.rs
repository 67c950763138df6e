//! What follows when a transaction of hops is committed, is refused, fails, or nobody knows what became of it.
//!
//! - **Committed**: the pause after failures is over, and so is what was suspected of its targets.
//! - **Refused**, since records of it could not be written: everything goes again. Where a topic is denied, or a partition takes nothing at
//!   the moment, that target is barred and all others go on ([`BarredTargets`]). Where a record is at fault, it is looked for
//!   ([`Bisect`]), and then only its partition stops.
//! - **Failed**: everything goes again after a pause.
//! - **Unknown**: the producer is connected anew, which ends what was open under its name one way or the other (a fence says that it has been
//!   ended already); what the group has committed then is the truth. So the worker is given that, and each record whose offset is committed
//!   has been moved.
//!
//! Plain commits and transactions of a partition never overlap: mixed, they move offsets back. So after a plain commit that nobody answered,
//! and which may still be on its way, no transaction carries an offset of its partitions until a later one was answered: requests of one
//! client arrive in their order.
//!
//! Only a rival of the same name is not outlived: to go on would fence that one in turn.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::core::ack_tracker::CommitPoint;
use crate::core::ladder::Ladder;
use crate::core::leader_clock::LocalTime;
use crate::kafka::NativeHeaders;
use crate::kafka::clock::Clock;
use crate::kafka::consumer::Committed;
use crate::kafka::error::{ClientError, TxnError, WriteFault};
use crate::kafka::partition::TopicPartition;
use crate::kafka::producer::{Outgoing, TopicId};
use crate::kafka::transaction::{Ended, Refusal, Transaction, Written};
use crate::telemetry::events::WorkerMetrics;
use crate::worker::error::WorkError;
use crate::worker::hop::backoff::Backoff;
use crate::worker::hop::barred::BarredTargets;
use crate::worker::hop::bisect::Bisect;
use crate::worker::hop::budget::Budget;
use crate::worker::hop::leaders::Leaders;
use crate::worker::hop::ports::{HopSink, RecordSource};

/// How long a partition stands still at first, and at most, before the record is tried again that no target takes.
const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(60);

/// When a broker did not allow the write that reads its clock, it is tried again after this.
const DENIED_CLOCK_INTERVAL: Duration = Duration::from_secs(5);

/// What mover, deliverer and router have in common: the producer, and what is known of brokers and targets.
pub(in crate::worker) struct Engine<S: HopSink> {
    ladder: Arc<Ladder>,
    /// The role, as messages name it.
    role: &'static str,
    clock: Clock,
    metrics: WorkerMetrics,
    pub(in crate::worker) sink: S,
    pub(in crate::worker) known: Known,
    /// No transaction before then, after one failed.
    backoff: Backoff,
    /// The client gave the last transaction up; the first time, it is begun again at once.
    given_up: bool,
    /// No write to read a clock before then.
    clock_at: LocalTime,
}

/// What is known of brokers and targets, by which it is decided what goes into a transaction.
pub(in crate::worker) struct Known {
    pub(in crate::worker) leaders: Leaders,
    pub(in crate::worker) barred: BarredTargets,
    pub(in crate::worker) bisect: Bisect,
    pub(in crate::worker) budget: Budget,
    /// What plain commits carried that nobody has answered yet.
    in_doubt: Vec<(TopicPartition, CommitPoint)>,
}

impl Known {
    /// Whether a plain commit of this partition may still be on its way: no transaction may carry an offset of it.
    pub(in crate::worker) fn is_in_doubt(&self, tp: &TopicPartition) -> bool {
        self.in_doubt.iter().any(|(doubtful, _)| doubtful == tp)
    }
}

/// What a transaction carries, as far as the engine has to know it. A tag is the place of a record in it.
pub(in crate::worker) trait Load {
    /// How many records.
    fn records(&self) -> usize;
    /// The bytes of their keys and values.
    fn bytes(&self) -> usize;
    /// The assignment of the partition that a record comes from.
    fn token(&self, tag: usize) -> u64;
    /// Where a record goes.
    fn target(&self, tag: usize) -> (TopicId, i32);
}

/// What became of a transaction.
pub(in crate::worker) enum Outcome {
    /// Everything is written.
    Committed(Written),
    /// Nothing is written, and everything goes again. The record that was alone in it can be written nowhere as it is, where there is a
    /// fault.
    Back(Option<WriteFault>),
    /// Nobody knew. This is what the group has committed: a record whose offset that finishes is written, all others are not.
    Known(BTreeMap<TopicPartition, CommitPoint>),
}

/// A record that can be written nowhere is not tried before then.
#[derive(Debug, Clone, Copy)]
pub(in crate::worker) struct Rest {
    pub(in crate::worker) until: LocalTime,
    pause: Duration,
}

impl<S: HopSink> Engine<S> {
    /// One that has done nothing yet.
    pub(in crate::worker) fn new(ladder: Arc<Ladder>, role: &'static str, clock: Clock, sink: S, metrics: WorkerMetrics) -> Self {
        Self {
            ladder,
            role,
            clock,
            metrics,
            sink,
            known: Known {
                leaders: Leaders::default(),
                barred: BarredTargets::default(),
                bisect: Bisect::default(),
                budget: Budget::new(),
                in_doubt: Vec::new(),
            },
            backoff: Backoff::new(),
            given_up: false,
            clock_at: LocalTime::from_micros(0),
        }
    }

    /// Nothing is moved before then.
    pub(in crate::worker) fn not_before(&self) -> LocalTime {
        self.backoff.until().max(self.sink.ready_at())
    }

    /// Whether a transaction may begin.
    pub(in crate::worker) fn may_begin(&self) -> bool {
        self.clock.now() >= self.not_before()
    }

    /// There is no live membership, so no offset may be sent; the group will say what comes next.
    pub(in crate::worker) fn has_no_group(&mut self) {
        self.backoff.failed(self.clock.now());
    }

    /// Looks again at what was barred for long enough. What has no leader yet goes on resting: to find that out by a write would hold up
    /// everything else until the write times out.
    pub(in crate::worker) fn look_after_barred(&mut self) {
        let now = self.clock.now();
        for topic in self.known.barred.rested(now) {
            for partition in self.sink.look_again(topic) {
                if self.known.barred.is_barred((topic, partition)) && !self.known.barred.rests((topic, partition), now) {
                    let retry_in = self.known.barred.pass_over((topic, partition), now);
                    tracing::debug!(topic = self.sink.topic_name(topic), partition, ?retry_in, "still without leader");
                }
            }
        }
    }

    /// What follows when a transaction has ended. `committed` asks for what the group has committed of the partitions that it carried
    /// offsets of.
    pub(in crate::worker) fn conclude(
        &mut self,
        ended: Result<Ended, TxnError>,
        load: &impl Load,
        began: LocalTime,
        committed: impl FnOnce() -> Result<Vec<(TopicPartition, Option<Committed>)>, ClientError>,
    ) -> Result<Outcome, WorkError> {
        let now = self.clock.now();
        match ended {
            Ok(Ended::Committed(written)) => {
                if let Some(reading) = &written.clock {
                    self.known.leaders.read(reading);
                }
                self.known.budget.committed(load.bytes(), began, now);
                self.written(load);
                self.metrics.transaction_committed(now.since(began));
                self.succeeded();
                Ok(Outcome::Committed(written))
            }
            Ok(Ended::Refused(mut refusal)) => {
                // What was given up before may be told as late as now.
                refusal.faults.retain(|(tag, _)| *tag < load.records());
                if let Some(reading) = &refusal.clock {
                    self.known.leaders.read(reading);
                }
                self.known.budget.failed(load.bytes(), began, now);
                Ok(Outcome::Back(self.refused(load, &refusal)))
            }
            Err(error) => {
                self.known.budget.failed(load.bytes(), began, now);
                let (is_unknown, is_fenced) = (matches!(error, TxnError::Unknown(_)), error.cause().is_fenced());
                self.survive(error)?;
                if !is_unknown {
                    return Ok(Outcome::Back(None));
                }
                if !is_fenced {
                    self.sink.connect()?;
                }
                let point = |committed: Committed| CommitPoint { offset: committed.offset, metadata: committed.metadata };
                let known = committed()?.into_iter().filter_map(|(tp, committed)| Some((tp, point(committed?)))).collect();
                Ok(Outcome::Known(known))
            }
        }
    }

    fn succeeded(&mut self) {
        self.backoff.reset();
        self.given_up = false;
    }

    fn written(&mut self, load: &impl Load) {
        if self.known.barred.is_empty() && !self.known.bisect.is_under_way() {
            return;
        }
        let targets: BTreeSet<(TopicId, i32)> = (0..load.records()).map(|tag| load.target(tag)).collect();
        for target in targets {
            if self.known.barred.written(target) {
                tracing::info!(topic = self.sink.topic_name(target.0), "topic may be written to again");
            }
        }
        if self.known.bisect.is_under_way() && load.records() > 0 {
            self.known.bisect.written(load.token(0));
        }
    }

    /// Some could not be written. The fault of the record that was alone is given back, if it was at fault.
    fn refused(&mut self, load: &impl Load, refusal: &Refusal) -> Option<WriteFault> {
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
                self.known.bisect.found(token);
                at_fault = Some(fault);
            } else {
                let records = (0..load.records()).filter(|tag| load.token(*tag) == token).count();
                self.known.bisect.refused(token, records);
            }
        }
        if has_cause {
            self.succeeded();
        } else if std::mem::replace(&mut self.given_up, true) {
            // Given up without any fault of its own, a transaction is begun again at once; the second time it is left alone for a while.
            self.backoff.failed(now);
            tracing::info!(
                ladder = self.ladder.name(),
                retry_in = ?self.backoff.pause(),
                "{}'s transactions are given up by the client",
                self.role
            );
        }
        at_fault
    }

    /// Bars a partition that takes nothing at the moment. It is told once.
    fn pass_over(&mut self, target: (TopicId, i32), fault: WriteFault, now: LocalTime) {
        let was_barred = self.known.barred.is_barred(target);
        let retry_in = self.known.barred.pass_over(target, now);
        let (topic, partition) = (self.sink.topic_name(target.0), target.1);
        if was_barred {
            tracing::debug!(topic, partition, %fault, ?retry_in, "still not written to");
        } else {
            tracing::warn!(
                ladder = self.ladder.name(),
                topic,
                partition,
                %fault,
                ?retry_in,
                "partition cannot be written to now: what has to go there waits, everything else goes on"
            );
        }
    }

    /// Bars the topics that were denied. Where it is not told which of them it was, all are suspected. Whether there was any is returned.
    fn bar_denied(&mut self, load: &impl Load, refusal: &Refusal, now: LocalTime) -> bool {
        let told = refusal.faults.iter().filter(|(_, fault)| *fault == WriteFault::Denied);
        let mut denied: BTreeSet<TopicId> = told.map(|(tag, _)| load.target(*tag).0).collect();
        if refusal.denied {
            let topics: BTreeSet<TopicId> = (0..load.records()).map(|tag| load.target(tag).0).collect();
            if topics.len() == 1 {
                denied = topics;
            } else {
                for topic in topics {
                    self.known.barred.suspect(topic);
                }
            }
        }
        for topic in &denied {
            // An error is told once; that it goes on is a metric.
            let was_denied = self.known.barred.is_denied(*topic);
            let retry_in = self.known.barred.deny(*topic, now);
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
                "not authorised to write to the topic: what has to go there waits, and the partitions that it comes from, the others go on; \
                 grant Write on it (`kladder generate acls --role {}` prints the rules), and it will be written",
                self.role
            );
        }
        refusal.denied || !denied.is_empty()
    }

    /// A record can be written nowhere: its partition stands still, longer each time. `before` is how long it has rested for that.
    pub(in crate::worker) fn stop(&self, tp: &TopicPartition, offset: i64, fault: WriteFault, before: Option<Rest>) -> Rest {
        let pause = before.map_or(FIRST_REST, |rest| (rest.pause * 2).min(LONGEST_REST));
        // An error is told once; that it goes on is a metric.
        if before.is_some() {
            tracing::debug!(partition = %tp, offset, %fault, retry_in = ?pause, "still written nowhere");
        } else {
            tracing::error!(
                partition = %tp, offset, %fault, retry_in = ?pause,
                "record can be written nowhere, so its partition stands still; the others go on (raise max.message.bytes of the \
                 ladder's topics: `kladder setup` says how)"
            );
        }
        Rest { until: self.clock.now().later(pause), pause }
    }

    /// A transaction failed: waits a little longer each time. Only a rival is not outlived.
    pub(in crate::worker) fn survive(&mut self, error: TxnError) -> Result<(), WorkError> {
        self.metrics.transaction_aborted();
        if error.cause().is_rival() {
            return Err(error.into());
        }
        self.backoff.failed(self.clock.now());
        let (ladder, role, retry_in) = (self.ladder.name(), self.role, self.backoff.pause());
        if self.backoff.was_told() {
            tracing::debug!(ladder, %error, ?retry_in, "{role}'s transaction failed again");
        } else if error.cause().is_denied() && self.backoff.is_to_be_told() {
            tracing::error!(ladder, %error, ?retry_in, "{role} is not allowed what it needs");
        } else if self.backoff.is_longest() && self.backoff.is_to_be_told() {
            tracing::warn!(ladder, %error, ?retry_in, "{role}'s transactions keep failing: no record leaves it meanwhile");
        } else {
            tracing::info!(ladder, %error, ?retry_in, "{role}'s transaction failed");
        }
        Ok(())
    }

    /// Commits outside of a transaction. Whether these points are committed now is returned.
    pub(in crate::worker) fn commit(
        &mut self,
        source: &impl RecordSource,
        points: &[(TopicPartition, CommitPoint)],
    ) -> Result<bool, WorkError> {
        match source.commit(points) {
            Ok(()) => {
                // Only what the same member has sent after it has arrived after it, and a member is one of a topic.
                self.known.in_doubt.retain(|(tp, _)| points.iter().all(|(answered, _)| answered.topic != tp.topic));
                return Ok(true);
            }
            Err(error) if error.is_outage() => {
                // It is told once; while the group changes it is answered within seconds.
                let is_told = points.iter().any(|(tp, _)| self.known.is_in_doubt(tp));
                self.known.in_doubt.retain(|(tp, _)| points.iter().all(|(later, _)| later != tp));
                if !is_told {
                    tracing::info!(ladder = self.ladder.name(), %error, "offsets are committed later");
                }
                self.known.in_doubt.extend_from_slice(points);
                return Ok(false);
            }
            // The group will say what comes next; what is not committed is worked on again by its next owner.
            Err(error) if error.is_group_change() => tracing::debug!(%error, "offsets not committed"),
            Err(error) if error.is_fatal() || error.is_fenced() => return Err(error.into()),
            Err(error) => tracing::info!(ladder = self.ladder.name(), %error, "offsets are committed later"),
        }
        self.known.in_doubt.retain(|(tp, _)| points.iter().all(|(answered, _)| answered.topic != tp.topic));
        Ok(false)
    }

    /// These partitions go: what is on its way for them is refused from now on, or their next owner has read it.
    pub(in crate::worker) fn forget(&mut self, partitions: &[TopicPartition], is_owned: impl Fn(u64) -> bool) {
        self.known.in_doubt.retain(|(tp, _)| !partitions.contains(tp));
        self.known.bisect.retain(is_owned);
    }

    /// There is nothing new to commit. What may still be on its way is committed once more, since any answer says that it has arrived.
    pub(in crate::worker) fn commit_doubtful(&mut self, source: &impl RecordSource) -> Result<(), WorkError> {
        for points in by_topic(self.known.in_doubt.clone()) {
            self.commit(source, &points)?;
        }
        Ok(())
    }

    /// Reads a broker's clock by a write of our own, where nothing else has within this time. The state topic is compacted, so one record
    /// under this key stays of it. Whether it was read now is returned.
    pub(in crate::worker) fn read_clock(&mut self, within: Duration, state: TopicId, key: &str) -> Result<bool, WorkError> {
        let now = self.clock.now();
        if self.known.leaders.was_read_within(within, now) || now < self.backoff.until().max(self.clock_at) {
            return Ok(false);
        }
        let value = now.timestamp().to_string();
        let ended = Transaction::begin(&mut self.sink).and_then(|mut transaction| {
            let record = Outgoing { key: Some(key.as_bytes()), value: Some(value.as_bytes()) };
            transaction.send((state, 0), record, NativeHeaders::new(), 0);
            transaction.commit(None)
        });
        let topic = self.ladder.state_topic();
        let fault = match ended {
            Ok(Ended::Committed(Written { clock: Some(reading), .. })) => {
                self.known.leaders.read(&reading);
                self.backoff.reset();
                return Ok(true);
            }
            Ok(Ended::Committed(_)) => "its broker does not note when it appends".to_owned(),
            Ok(Ended::Refused(refusal)) if refusal.denied || refusal.fault() == WriteFault::Denied => {
                if self.backoff.is_to_be_told() {
                    tracing::error!(
                        topic,
                        "not authorised to write to the topic, so that the broker's clock cannot be read, before which nothing is \
                         moved; grant Write on it (`kladder generate acls --role {}` prints the rules)",
                        self.role
                    );
                }
                // Where a hop has read it, hops need not wait for that.
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

/// Points by their topics: a worker may have a member of its group for each, and what holds one up is not to hold up the others.
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

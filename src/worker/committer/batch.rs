//! Hops in batches: failed records leave in a transaction together with the offsets that they consume.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::core::ack_tracker::CommitPoint;
use crate::core::leader_clock::LocalTime;
use crate::kafka::consumer::TopicPartition;
use crate::kafka::error::TxnError;
use crate::kafka::producer::Outgoing;
#[cfg(feature = "otlp")]
use crate::telemetry::spans;
use crate::worker::committer::hop::{Hop, Target};
use crate::worker::committer::planted::{self, Bug};
use crate::worker::committer::{Committer, Work};
use crate::worker::error::WorkError;
use crate::worker::ports::{HopSink, RecordSource};

/// A transaction costs by the partitions that it writes to.
const MOST_TARGETS: usize = 16;

/// The most records of a transaction.
const MOST_HOPS: usize = 2_000;

impl<W: Work> Committer<W> {
    /// Carries out hops until none is left that can go now. An error that passes leaves them for later.
    pub(in crate::worker) fn run_hops(&mut self) -> Result<(), WorkError> {
        let in_doubt = self.in_doubt && !planted::is(Bug::TransactionInDoubt);
        while !self.hops.is_empty() && !in_doubt && self.clock.now() >= self.backoff.until().max(self.sink.ready_at()) {
            let batch = self.next_batch();
            if batch.is_empty() {
                break;
            }
            self.run_batch(batch)?;
        }
        self.note_standstills();
        Ok(())
    }

    /// How long hops that can go wait for the markers of the last transaction; those that fail meanwhile go along with them.
    pub(in crate::worker) fn markers_wait(&self) -> Option<Duration> {
        let (now, ready) = (self.clock.now(), self.sink.ready_at());
        (self.moving() > 0 && ready > now).then(|| ready.since(now))
    }

    /// Whether a hop waits for somebody to mend something. It may be on its way again, but it has not been written yet.
    pub(super) fn stands_still(&self, hop: &Hop<W::Place>) -> bool {
        hop.resting.is_some() || self.barred.is_barred(self.targets.resolve(hop).0)
    }

    /// The partitions of hops that stand still take nothing new.
    fn note_standstills(&mut self) {
        let mut hops = std::mem::take(&mut self.hops);
        let mut tokens = BTreeSet::new();
        self.standing = 0;
        for hop in &mut hops {
            if self.stands_still(hop) {
                self.standing += 1;
                // It may rest for long, and others are to be delivered meanwhile.
                hop.place = W::Place::default();
                tokens.insert(hop.id.token);
            }
        }
        self.hops = hops;
        self.lanes.iter_mut().for_each(|lane| lane.standstill = tokens.contains(&lane.token));
    }

    /// What goes into the next transaction. Records of partitions that have gone are dropped here: their next owner has them.
    fn next_batch(&mut self) -> Vec<Hop<W::Place>> {
        let now = self.clock.now();
        let lanes: BTreeSet<u64> = self.lanes.iter().map(|lane| lane.token).collect();
        let mut targets = BTreeSet::new();
        let mut batch: Vec<Hop<W::Place>> = Vec::new();
        let mut left = Vec::with_capacity(self.hops.len());
        for hop in std::mem::take(&mut self.hops) {
            if !lanes.contains(&hop.id.token) && !planted::is(Bug::LateVerdict) {
                continue;
            }
            let target = self.targets.resolve(&hop);
            let rests = hop.resting.is_some_and(|(until, _)| until > now) || self.barred.rests(target.0, now);
            let fits = match batch.first() {
                None => true,
                Some(first) => {
                    let topic = self.targets.resolve(first).0;
                    let may_mix = !self.barred.goes_alone(topic) && !self.barred.goes_alone(target.0);
                    !first.alone && !hop.alone && batch.len() < MOST_HOPS && (topic == target.0 || may_mix)
                }
            };
            if !rests && fits && (targets.contains(&target) || targets.len() < MOST_TARGETS) {
                targets.insert(target);
                batch.push(hop);
            } else {
                left.push(hop);
            }
        }
        self.hops = left;
        batch
    }

    fn run_batch(&mut self, batch: Vec<Hop<W::Place>>) -> Result<(), WorkError> {
        let began = self.clock.now();
        let Some(group) = self.source.live_group() else {
            // No offset may be sent now; the group will say what comes next.
            self.hops.extend(batch);
            self.backoff.failed(self.clock.now());
            return Ok(());
        };
        let outcome = self.sink.begin().and_then(|()| {
            let mut faults = Vec::new();
            for topic in self.topics_of(&batch).into_iter().filter(|topic| self.barred.is_barred(*topic)) {
                self.sink.look_again(topic);
            }
            for (tag, hop) in batch.iter().enumerate() {
                let (topic, partition) = self.targets.resolve(hop);
                let out = Outgoing { key: hop.content.key.as_deref(), value: hop.content.value.as_deref() };
                if let Err(fault) = self.sink.send(topic, partition, out, hop.headers(), tag) {
                    faults.push((tag, fault));
                }
            }
            let settled = self.sink.settle()?;
            if let Some(reading) = settled.clock {
                self.leaders.read(&reading);
            }
            faults.extend(settled.faults);
            if !faults.is_empty() {
                self.sink.abort();
                return Ok((faults, settled.denied, Vec::new()));
            }
            let points = self.points_with(if planted::is(Bug::HopWithoutItsOffset) { &[] } else { &batch });
            if planted::is(Bug::PlainCommitInTransaction) {
                self.source.commit(&points).map_err(TxnError::Abort)?;
            }
            if self.sink.is_transactional() {
                self.sink.send_offsets(&group, &points)?;
                self.sink.commit()?;
            }
            Ok((faults, false, points))
        });
        match outcome {
            Ok((faults, _, points)) if faults.is_empty() => self.hopped(&batch, points, began),
            Ok((faults, denied, _)) => self.refused(batch, &faults, denied),
            Err(error) => self.undo(batch, error)?,
        }
        Ok(())
    }

    /// What a commit of this batch carries: its own offsets as finished, and along with them whatever else has finished.
    pub(super) fn points_with(&self, batch: &[Hop<W::Place>]) -> Vec<(TopicPartition, CommitPoint)> {
        let mut also: BTreeMap<u64, Vec<i64>> = BTreeMap::new();
        for hop in batch {
            also.entry(hop.id.token).or_default().push(hop.id.offset);
        }
        self.lanes
            .iter()
            .filter_map(|lane| {
                let point = lane.tracker.commit_point_with(also.get(&lane.token).map_or(&[], Vec::as_slice));
                (point != lane.committed).then(|| (lane.tp().clone(), point))
            })
            .collect()
    }

    fn hopped(&mut self, batch: &[Hop<W::Place>], points: Vec<(TopicPartition, CommitPoint)>, began: LocalTime) {
        for hop in batch {
            self.note_hopped(hop);
        }
        if self.sink.is_transactional() {
            self.note_committed(points);
            self.unsettled.clear();
        }
        for topic in self.topics_of(batch) {
            if self.barred.written(topic) {
                tracing::info!(topic = self.sink.topic_name(topic), "topic may be written to again");
            }
        }
        self.metrics.transaction_committed(self.clock.now().since(began));
        self.backoff.reset();
        self.given_up = false;
    }

    pub(super) fn note_hopped(&mut self, hop: &Hop<W::Place>) {
        self.finish(hop.id);
        #[cfg(feature = "otlp")]
        if spans::are_made() && hop.target != Target::Outcome {
            let topic = self.sink.topic_name(self.targets.resolve(hop).0);
            spans::end(spans::hop(&self.ladder, &hop.envelope, hop.content.headers.iter(), topic, self.broker_now()));
        }
        match hop.target {
            Target::Tier(number) => {
                self.hop_metrics.to_tier(number, 1);
                if hop.envelope.held {
                    self.hop_metrics.held(1);
                }
            }
            Target::Dlq(reason, _) => self.hop_metrics.dead_lettered(reason),
            Target::Outcome => {}
        }
        tracing::trace!(ladder = self.ladder.name(), to = ?hop.target, attempts = hop.envelope.attempts, "hopped");
    }
}

//! One transaction of the mover: due records, with the offsets that they consume.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::core::due::due_time;
use crate::core::envelope::Reason;
use crate::core::time::Timestamp;
use crate::kafka::error::WriteFault;
use crate::kafka::partition::TopicPartition;
use crate::kafka::transaction::{Transaction, Writer};
#[cfg(feature = "otlp")]
use crate::telemetry::spans;
use crate::worker::error::WorkError;
use crate::worker::hop::engine::{Engine, TransactionOutcome};
use crate::worker::hop::ports::{HopSink, RecordSource, TierSource};
use crate::worker::hop::targets::Target;
use crate::worker::mover::tiers::Sent;
use crate::worker::mover::{Mover, Ports};

impl<P: Ports> Mover<P> {
    /// Moves due records, if there are any.
    pub(super) fn move_due(&mut self) -> Result<(), WorkError> {
        self.engine.look_after_barred();
        self.tiers.look_up_again(&mut self.engine.sink);
        let turn = self.tiers.next_turn(&self.engine.cluster, self.engine.sink.is_transactional());
        if turn.is_empty() {
            return Ok(());
        }
        let Some(group) = self.consumer.live_group() else {
            self.engine.has_no_group();
            return Ok(());
        };
        let began = self.clock.now();
        let Engine { sink, cluster, .. } = &mut self.engine;
        let mut transaction = Transaction::new(sink);
        let moving = self.tiers.fill(turn, began, &mut transaction, cluster)?;
        if moving.sent.is_empty() {
            return Ok(());
        }
        let points = self.tiers.points_of(&moving);
        let ended = transaction.commit(Some((&group, &points)));
        let (consumer, tiers) = (&self.consumer, &self.tiers);
        let outcome = self.engine.conclude(ended, &moving, began, || {
            let touched: Vec<TopicPartition> = moving.lanes().into_iter().map(|index| tiers.lanes[index].tp().clone()).collect();
            let committed = consumer.committed(&touched)?;
            Ok(touched.into_iter().zip(committed).collect())
        })?;
        match outcome {
            TransactionOutcome::Committed(written) => {
                if self.engine.cluster.leaders.has_append_times() {
                    self.look_for_early(&moving.sent, &written.appended);
                }
                self.moved(&moving.sent);
                if self.engine.sink.is_transactional() || self.engine.commit(&self.consumer, &points)? {
                    self.tiers.note_committed(points);
                }
            }
            TransactionOutcome::Back(fault) => {
                if let (Some(fault), Some(sent)) = (fault, moving.sent.first()) {
                    self.could_not_be_written(*sent, fault);
                }
                self.put_back(&moving.sent)?;
            }
            TransactionOutcome::Known(committed) => {
                let lanes = &self.tiers.lanes;
                let is_moved = |sent: &Sent| {
                    let point = committed.get(lanes[sent.lane].tp());
                    point.is_some_and(|point| point.finishes(sent.offset))
                };
                let (moved, left): (Vec<Sent>, Vec<Sent>) = moving.sent.iter().copied().partition(is_moved);
                self.put_back(&left)?;
                self.moved(&moved);
                self.tiers.note_committed(committed);
            }
        }
        Ok(())
    }

    /// Checks the brokers' timestamps: no redelivered record may have been appended before it was due. (Sources may have
    /// producers' timestamps; then only the local clock could tell, and nothing is reported.)
    fn look_for_early(&self, sent: &[Sent], appended: &[(usize, Timestamp)]) {
        for (tag, appended) in appended {
            let Some(record) = sent.get(*tag).filter(|record| record.target.is_back()) else { continue };
            let lane = &self.tiers.lanes[record.lane];
            if *appended < due_time(record.appended, lane.delay) {
                self.tiers.metrics.early();
                tracing::error!(partition = %lane.tp(), offset = record.offset, "record was redelivered early: brokers' clocks differ");
            }
        }
    }

    /// These records were moved.
    fn moved(&mut self, sent: &[Sent]) {
        let now = self.clock.now();
        let mut counts: BTreeMap<Target, u64> = BTreeMap::new();
        let mut by_lane: BTreeMap<usize, (i64, u64)> = BTreeMap::new();
        for record in sent {
            *counts.entry(record.target).or_default() += 1;
            let lane = &self.tiers.lanes[record.lane];
            let entry = by_lane.entry(record.lane).or_default();
            *entry = (record.offset + 1, entry.1 + 1);
            if record.target.is_back() {
                let due = due_time(record.appended, lane.delay).as_micros();
                let late = self.engine.cluster.leaders.now(record.broker, now).saturating_sub(due);
                lane.metrics.redelivered(Duration::from_micros(u64::try_from(late).unwrap_or(0)));
            }
        }
        #[cfg(feature = "otlp")]
        self.tiers.spans.drain(..).for_each(|span| spans::end(Some(span.until(now.timestamp()))));
        for (index, (position, records)) in by_lane {
            let lane = &mut self.tiers.lanes[index];
            lane.moved_to(position, records);
            lane.metrics.left(records);
        }
        let hops = &self.tiers.metrics.hops;
        for (target, records) in counts {
            match target {
                Target::Redeliver | Target::Source(_) => hops.to_redeliver(records),
                Target::Tier(number) => hops.to_tier(number, records),
                Target::Dlq(reason, _) => {
                    if reason == Reason::NoOrigin {
                        self.no_way_back.seen(&self.ladder, records, None);
                    }
                    (0..records).for_each(|_| hops.dead_lettered(reason));
                }
                Target::Outcome => {}
            }
        }
    }

    /// It was sent alone. If it is too large for its origin, it drops diagnostics step by step and finally goes to the DLQ; if its origin
    /// refuses it, it goes to the DLQ at once; otherwise its partition stops.
    fn could_not_be_written(&mut self, sent: Sent, fault: WriteFault) {
        let lane = &mut self.tiers.lanes[sent.lane];
        if fault == WriteFault::TooLarge && lane.give_up_more(sent.offset, sent.target) {
            tracing::debug!(partition = %lane.tp(), offset = sent.offset, "record is too large for its origin with all headers");
            return;
        }
        if let WriteFault::Refused(words) = fault
            && lane.is_refused(sent.offset, (sent.target, self.engine.sink.topic_name(sent.to.0)), words)
        {
            return;
        }
        if fault == WriteFault::Missing {
            self.tiers.targets.recount(sent.target, &mut self.engine.sink);
        }
        let before = lane.rest.filter(|(offset, _)| *offset == sent.offset).map(|(_, rest)| rest);
        lane.rest = Some((sent.offset, self.engine.stop(lane.tp(), sent.offset, (sent.to.0, fault), before)));
    }

    /// None of these records was moved: their partitions go back.
    fn put_back(&mut self, sent: &[Sent]) -> Result<(), WorkError> {
        let mut to = BTreeMap::new();
        for record in sent {
            let lane = &mut self.tiers.lanes[record.lane];
            lane.go_back();
            to.insert(lane.tp().clone(), lane.position);
        }
        let to: Vec<(TopicPartition, i64)> = to.into_iter().collect();
        if to.is_empty() { Ok(()) } else { Ok(self.consumer.go_back(&to)?) }
    }
}

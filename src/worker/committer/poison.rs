//! Poison records: records that crash the worker, detected by a start counter in the group's offset
//! metadata.
//!
//! Before the first record of a partition is processed (by a deliverer: before the handler is called for it), its offset is committed
//! again, with the number of times that it has been the first. A worker that survives processing it, or shuts down in order, reverts that,
//! and a finished record leaves it behind; so the counter counts deaths. It follows the partition to its next owner.
//!
//! After one death, a worker keeps only a few records of the partition in flight until the first one is finished; after two, one at a time
//! of all suspected partitions, the first before the others, until those are done that may have been in flight at the last death. So
//! suspicion ends after a few records, and other partitions continue meanwhile. If it dies nevertheless, perhaps of a record of another
//! partition, the first record is processed with nothing beside it at all: so no record is dead-lettered for the death of another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::core::envelope::Envelope;
use crate::core::leader_clock::LocalTime;
use crate::kafka::headers::HeaderFault;
use crate::kafka::partition::TopicPartition;
use crate::worker::committer::batch::points_with;
use crate::worker::committer::lane::{ALONE_FROM, ExclusiveTurn, FEW};
use crate::worker::committer::{Committer, Work};
use crate::worker::error::WorkError;
use crate::worker::hop::content::{Content, RecordId, tell_unfit};
use crate::worker::hop::ports::RecordSource;

/// From this number of starts, the first record is no longer processed.
const POISON_FROM: u32 = 6;

/// Nothing else runs for at most this long: the record may not arrive, or hang.
const LONGEST_EXCLUSIVE: Duration = Duration::from_secs(5);

/// The starts counted by this process, over all its workers: a worker that is recreated after an error has not
/// died.
#[derive(Clone, Default)]
pub struct Starts(Arc<Mutex<HashMap<TopicPartition, i64>>>);

impl Starts {
    /// Records that a start was counted; returns whether it had been before.
    fn note(&self, tp: &TopicPartition, offset: i64) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(tp.clone(), offset) == Some(offset)
    }

    fn forget(&self, tp: &TopicPartition) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(tp);
    }
}

/// Whether a record is processed, after its start was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum StartOutcome {
    /// It is.
    Begins,
    /// It goes to the DLQ: workers have died of it this often.
    Buried(u32),
    /// Its partition was revoked.
    Gone,
    /// The count cannot be committed now, for example during a rebalance: try again. If the worker died of it uncounted, the death would
    /// count for the record before it.
    Later,
}

impl<W: Work> Committer<W> {
    /// Whether one more record of a partition may be in flight, as far as suspicion allows.
    pub(super) fn may_be_worked_on(&self, index: usize) -> bool {
        let lane = &self.lanes[index];
        let in_hand = lane.tracker.in_flight();
        if lane.is_under_watch() && in_hand >= FEW {
            return false;
        }
        if let Some(exclusive) = self.lanes.iter().position(|lane| matches!(lane.exclusive, Some(ExclusiveTurn::Until(_)))) {
            return exclusive == index && self.lanes.iter().all(|any| any.is_stopped() || any.tracker.in_flight() == 0);
        }
        // A record processed beside a suspect that kills the worker would be counted too, and finally be dead-lettered with
        // it.
        lane.alone == 0 || self.lanes.iter().all(|other| other.is_stopped() || other.alone == 0 || other.tracker.in_flight() == 0)
    }

    /// Gives priority, for a while, to partitions whose first record must be processed with nothing beside it.
    pub(super) fn look_after_exclusive(&mut self) {
        let now = self.clock.now();
        for lane in &mut self.lanes {
            lane.exclusive = match lane.exclusive {
                Some(_) if lane.is_stopped() || lane.denied.is_so() => None,
                Some(ExclusiveTurn::Wanted) => Some(ExclusiveTurn::Until(now.later(LONGEST_EXCLUSIVE))),
                Some(ExclusiveTurn::Until(until)) if now >= until => None,
                other => other,
            };
        }
    }

    /// Whether to count the start of the record just taken: of the first of an assignment, and of each while records are processed one
    /// at a time.
    pub(in crate::worker) fn is_to_be_counted(&mut self, index: usize) -> bool {
        let lane = &mut self.lanes[index];
        let is_first = !std::mem::replace(&mut lane.has_first, true);
        is_first || lane.alone > 0
    }

    /// Counts, before it is processed, that a record is the first of its partition.
    pub(in crate::worker) fn count_start(&mut self, id: RecordId) -> Result<StartOutcome, WorkError> {
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.token == id.token) else { return Ok(StartOutcome::Gone) };
        let tp = lane.tp().clone();
        let least = if lane.alone > 0 { ALONE_FROM } else { 1 };
        let starts = lane.tracker.begin(id.offset, self.starts.note(&tp, id.offset), least);
        if starts >= POISON_FROM {
            return Ok(StartOutcome::Buried(starts));
        }
        let point = lane.tracker.commit_point();
        if point != lane.committed {
            // Under suspicion, the previous record is finished only when that is committed: it must not be blamed for the death of
            // this one.
            let points =
                if self.is_suspicious { points_with(&self.lanes, std::iter::empty()) } else { vec![(tp.clone(), point)] };
            let is_committed = self.source.live_group().is_some() && self.commit_points(points)?;
            if self.is_suspicious && !is_committed {
                return Ok(StartOutcome::Later);
            }
        }
        if starts >= ALONE_FROM {
            tracing::warn!(
                ladder = self.ladder.name(), partition = %tp, offset = id.offset, starts,
                "workers have died while this was the first record of its partition: processing it alone"
            );
        }
        Ok(StartOutcome::Begins)
    }

    /// The worker has survived processing a record whose start was counted.
    pub(in crate::worker) fn survived(&mut self, id: RecordId) {
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.token == id.token) else { return };
        if lane.tracker.counted() == Some(id.offset) {
            lane.tracker.take_back();
            self.starts.forget(lane.tp());
            // Until that is committed, another record's death of the worker would count for this one.
            self.commit_at = LocalTime::from_micros(0);
        }
    }

    /// Sends a poison record to the DLQ without processing it.
    pub(in crate::worker) fn bury(&mut self, id: RecordId, envelope: &Envelope, content: Content, starts: u32) {
        tracing::warn!(
            ladder = self.ladder.name(),
            id = envelope.id,
            starts,
            "workers have died on this record too often: it goes to the DLQ, reason poison"
        );
        let decision = self.ladder.bury(envelope, starts, self.broker_now());
        self.carry_out(id, decision, content, W::Place::default());
    }

    /// Sends a record that cannot be moved with all its headers to the DLQ without processing it.
    pub(in crate::worker) fn unfit(&mut self, id: RecordId, envelope: Envelope, content: Content, fault: HeaderFault) {
        let Some(lane) = self.lane_of(id.token) else { return };
        tell_unfit(lane.tp(), id.offset, fault);
        let decision = self.ladder.unfit(envelope, &fault.to_string());
        self.carry_out(id, decision, content, W::Place::default());
    }

    /// Before the last commit of released partitions, and of all at shutdown: the records in progress did not kill the worker.
    pub(super) fn end_in_good_order(&mut self, tokens: &[u64]) {
        for lane in self.lanes.iter_mut().filter(|lane| tokens.contains(&lane.token)) {
            lane.tracker.take_back();
        }
    }

    /// A record is finished; while records are processed one at a time, one fewer is left.
    pub(super) fn finish(&mut self, id: RecordId) {
        if let Some(lane) = self.lane_of_mut(id.token) {
            lane.tracker.finish(id.offset);
            lane.alone = lane.alone.saturating_sub(1);
            if lane.alone == 0 {
                lane.exclusive = None;
            }
        }
    }
}

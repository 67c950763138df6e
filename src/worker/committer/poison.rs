//! A record on which the worker itself dies, found by what the group's offsets say of it.
//!
//! Before the first record of a partition is worked on (by a deliverer: before the handler is called for it), its offset is committed once
//! more, with how often it has been the first. A worker that survives its work on it, or ends in good order, takes that back, and a record
//! that is finished leaves it behind; so what counts up are deaths. The count follows the partition to whoever takes it over.
//!
//! After one death a worker has but a few records of the partition in hand while that one is not finished, and after two one at a time of
//! all partitions that are under suspicion, the first before the others, until those are done that may have been in hand at the last death.
//! So suspicion ends after a few records, and partitions that are under none go on beside it. If it dies even so, perhaps over a record of
//! one of those, the first record is worked on with nothing beside it at all: so none is buried for the death of another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::core::envelope::Envelope;
use crate::kafka::partition::TopicPartition;
use crate::worker::committer::batch::points_with;
use crate::worker::committer::lane::Quiet;
use crate::worker::committer::{Committer, Work};
use crate::worker::error::WorkError;
use crate::worker::hop::content::{Content, RecordId};
use crate::worker::hop::ports::RecordSource;

/// From this many starts on a partition is under suspicion: one record at a time is worked on, of all that are.
pub(super) const ALONE_FROM: u32 = 3;

/// From this many starts on the first record is not worked on any more.
const POISON_FROM: u32 = 6;

/// Nothing else is worked on for longer than this: the record may not come, or hang.
const LONGEST_QUIET: Duration = Duration::from_secs(5);

/// So many records of a partition are in hand at most when a worker has died over its first one; as many are worked on alone after the next
/// death.
pub(super) const FEW: usize = 8;

/// What this process has counted, whoever of its workers did: one that is made anew after an error has not died.
#[derive(Clone, Default)]
pub struct Starts(Arc<Mutex<HashMap<TopicPartition, i64>>>);

impl Starts {
    /// Notes that a record was counted, and tells whether it had been before.
    fn note(&self, tp: &TopicPartition, offset: i64) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(tp.clone(), offset) == Some(offset)
    }

    fn forget(&self, tp: &TopicPartition) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(tp);
    }
}

/// Whether a record is worked on, once its start is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum Start {
    /// It is.
    Begins,
    /// It is buried: workers have died over it so often.
    Buried(u32),
    /// Its partition has gone.
    Gone,
    /// That it begins cannot be committed now, say while the group changes: it is to be asked again. If the worker died over it uncounted,
    /// that would be held against the one before it.
    Later,
}

impl<W: Work> Committer<W> {
    /// Whether one record more of a partition may be in hand, as far as suspicion goes.
    pub(super) fn may_be_worked_on(&self, index: usize) -> bool {
        let lane = &self.lanes[index];
        let in_hand = lane.tracker.in_flight();
        if lane.few_until.is_some_and(|offset| lane.tracker.prefix() <= offset) && in_hand >= FEW {
            return false;
        }
        if let Some(quiet) = self.lanes.iter().position(|lane| matches!(lane.quiet, Some(Quiet::Until(_)))) {
            return quiet == index && self.lanes.iter().all(|any| any.standstill || any.tracker.in_flight() == 0);
        }
        // What is worked on beside a suspect when it kills the worker would be counted with it, and at last be buried with it.
        lane.alone == 0 || self.lanes.iter().all(|other| other.standstill || other.alone == 0 || other.tracker.in_flight() == 0)
    }

    /// Partitions of which the first record is to be worked on with nothing beside it come first, for a while.
    pub(super) fn look_after_quiet(&mut self) {
        let now = self.clock.now();
        for lane in &mut self.lanes {
            lane.quiet = match lane.quiet {
                Some(_) if lane.standstill || lane.denied.is_so() => None,
                Some(Quiet::Wanted) => Some(Quiet::Until(now.later(LONGEST_QUIET))),
                Some(Quiet::Until(until)) if now >= until => None,
                other => other,
            };
        }
    }

    /// Whether the starts of the record that was just taken are to be counted: of the first of an assignment, and of each while they are
    /// worked on one at a time.
    pub(in crate::worker) fn is_to_be_counted(&mut self, index: usize) -> bool {
        let lane = &mut self.lanes[index];
        let is_first = !std::mem::replace(&mut lane.has_first, true);
        is_first || lane.alone > 0
    }

    /// Counts, before it is worked on, that a record is the first of its partition.
    pub(in crate::worker) fn count_start(&mut self, id: RecordId) -> Result<Start, WorkError> {
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.token == id.token) else { return Ok(Start::Gone) };
        let tp = lane.tp().clone();
        let least = if lane.alone > 0 { ALONE_FROM } else { 1 };
        let starts = lane.tracker.begin(id.offset, self.starts.note(&tp, id.offset), least);
        if starts >= POISON_FROM {
            return Ok(Start::Buried(starts));
        }
        let point = lane.tracker.commit_point();
        if point != lane.committed {
            // Under suspicion the one before it is done with only when that is committed: it must not be counted for the death of this
            // one.
            let points =
                if self.is_suspicious { points_with(&self.lanes, std::iter::empty()) } else { vec![(tp.clone(), point)] };
            let is_committed = self.source.live_group().is_some() && self.commit_points(points)?;
            if self.is_suspicious && !is_committed {
                return Ok(Start::Later);
            }
        }
        if starts >= ALONE_FROM {
            tracing::warn!(
                ladder = self.ladder.name(), partition = %tp, offset = id.offset, starts,
                "workers have died while this was the first record of its partition: it is worked on alone"
            );
        }
        Ok(Start::Begins)
    }

    /// The worker lives although it has worked on a record whose start was counted.
    pub(in crate::worker) fn survived(&mut self, id: RecordId) {
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.token == id.token) else { return };
        if lane.tracker.counted() == Some(id.offset) {
            lane.tracker.take_back();
            self.starts.forget(lane.tp());
        }
    }

    /// Sends a record on which workers die to the DLQ, without working on it.
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

    /// Before the last commit of partitions that are given back, and of all at the end: what was begun with did not kill the worker.
    pub(in crate::worker) fn end_in_good_order(&mut self, tokens: &[u64]) {
        for lane in self.lanes.iter_mut().filter(|lane| tokens.contains(&lane.token)) {
            lane.tracker.take_back();
        }
    }

    /// A record is finished; while records are worked on one at a time, one fewer is left.
    pub(super) fn finish(&mut self, id: RecordId) {
        if let Some(lane) = self.lane_of_mut(id.token) {
            lane.tracker.finish(id.offset);
            lane.alone = lane.alone.saturating_sub(1);
            if lane.alone == 0 {
                lane.quiet = None;
            }
        }
    }
}

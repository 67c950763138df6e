//! The decisions that determine fairness, each a pure function, so that the model can show the effect of a wrong one.

use crate::core::dispatch::standing::Trouble;

/// The state of the slots when a partition asks for one more.
#[derive(Debug, Clone, Copy)]
pub struct LaneUse {
    /// Number of the partition's running calls.
    pub running: usize,
    /// Its share while others have something to deliver.
    pub share: usize,
    /// Number of its calls that have recently come back, which may be higher.
    pub window: usize,
    /// Number of free slots.
    pub free: usize,
    /// Number of slots.
    pub places: usize,
    /// Whether another partition has something to deliver now.
    pub others_wait: bool,
}

/// A number of calls, or its limit: of all, or of one kind.
#[derive(Debug, Clone, Copy)]
pub struct SlotUse {
    /// Number of running calls.
    pub running: usize,
    /// Those, and the calls that have ended and wait for their commit.
    pub occupied: usize,
}

/// The decisions.
pub trait Policy {
    /// Whether one more call may begin: neither more than the handler carries, nor more than a crash may repeat.
    fn may_begin(&self, slots: SlotUse, most: SlotUse) -> bool;

    /// Whether a partition may take one more slot.
    fn lane_may_take(&self, lane: LaneUse) -> bool;

    /// Whether a failure of this kind says nothing about the handler, because the record has failed like that
    /// before.
    fn says_nothing(&self, failed_before: Option<Trouble>, now: Trouble) -> bool;

    /// Whether a record whose probe has failed goes to the end of its queue.
    fn probe_goes_to_the_end(&self) -> bool;
}

/// The production policy.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fair;

impl Policy for Fair {
    fn may_begin(&self, slots: SlotUse, most: SlotUse) -> bool {
        slots.running < most.running && slots.occupied < most.occupied
    }

    /// Always up to its share. Beyond it only while no other partition waits, and then as far as its own calls come back or half of the
    /// slots are free: hanging calls never take all of them.
    fn lane_may_take(&self, lane: LaneUse) -> bool {
        lane.running < lane.share || (!lane.others_wait && (lane.running < lane.window || lane.free * 2 > lane.places))
    }

    fn says_nothing(&self, failed_before: Option<Trouble>, now: Trouble) -> bool {
        failed_before == Some(now)
    }

    fn probe_goes_to_the_end(&self) -> bool {
        true
    }
}

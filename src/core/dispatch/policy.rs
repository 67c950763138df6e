//! The decisions on which fairness hangs, each a pure function of its own, so that the model can show what follows where one is wrong.

use crate::core::dispatch::standing::Trouble;

/// How the places stand where a partition wants one more.
#[derive(Debug, Clone, Copy)]
pub struct LaneUse {
    /// How many calls of the partition run.
    pub running: usize,
    /// What it has a right to while others have something to deliver.
    pub share: usize,
    /// As many as its calls have come back lately, which may be more.
    pub window: usize,
    /// How many places are free.
    pub free: usize,
    /// How many there are.
    pub places: usize,
    /// Whether another partition has something to deliver now.
    pub others_wait: bool,
}

/// The decisions.
pub trait Policy {
    /// Whether a partition may take one more place.
    fn lane_may_take(&self, lane: LaneUse) -> bool;

    /// Whether trouble of this kind says nothing of the handler, because the record has failed like that before.
    fn says_nothing(&self, failed_before: Option<Trouble>, now: Trouble) -> bool;

    /// Whether a record whose probe has failed goes to the end of its row.
    fn probe_goes_to_the_end(&self) -> bool;
}

/// What is shipped.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fair;

impl Policy for Fair {
    /// Its share always. Beyond it only while no other waits, and then as far as its own calls come back, or half of the places are free:
    /// calls that hang never take all of them.
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

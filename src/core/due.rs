//! When a waiting record is due, and where it goes.

use crate::core::delay::Delay;
use crate::core::ladder::{Ladder, Tier};
use crate::core::time::Timestamp;

/// The due time: always the broker's append time plus the tier's delay.
///
/// A tier has one fixed delay and `LogAppendTime`, so the records of a partition are due in order and only the head matters.
#[must_use]
pub fn due_time(appended: Timestamp, delay: Delay) -> Timestamp {
    appended + delay.duration()
}

/// Where a due record goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move<'a> {
    /// Back to the handler.
    Redeliver,
    /// To another tier, attempts unchanged, since it must not be redelivered yet.
    WaitOn(&'a Tier),
}

/// Where a record that came due at `now` goes: back to the handler, or if its `not-before` is later, to the largest tier that
/// fits the remaining time.
#[must_use]
pub fn next_move(ladder: &Ladder, not_before: Option<Timestamp>, now: Timestamp) -> Move<'_> {
    match not_before {
        Some(moment) if moment > now => Move::WaitOn(ladder.tier_within(moment.since(now))),
        _ => Move::Redeliver,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_further_off_hops_by_the_largest_tier_that_fits() {
        let ladder = Ladder::builder("l", "g").source("s").tiers(["5s", "1m", "10m"]).build().unwrap();
        let now = Timestamp::from_millis(1_000_000);
        let tier = |millis: i64| match next_move(&ladder, Some(Timestamp::from_millis(1_000_000 + millis)), now) {
            Move::Redeliver => 0,
            Move::WaitOn(tier) => tier.number(),
        };
        assert_eq!(tier(0), 0);
        assert_eq!(tier(1), 1, "less than the smallest tier waits in the smallest");
        assert_eq!(tier(59_999), 1);
        assert_eq!(tier(60_000), 2);
        assert_eq!(tier(86_400_000), 3);
        assert_eq!(next_move(&ladder, None, now), Move::Redeliver);
    }
}

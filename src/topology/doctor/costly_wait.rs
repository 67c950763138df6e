//! The cost of a pause that a handler may ask for, if no tier is nearly as long.

use crate::core::delay::format_duration;
use crate::core::ladder::{Ladder, Mode};

/// Number of moves for one pause above which it is reported.
const MANY: u128 = 100;

/// Problem and remedy: a record with a not-before time is moved each time the largest tier's delay has passed, each time with the cost of
/// a transaction.
#[must_use]
pub fn costly_wait(ladder: &Ladder) -> Option<(String, String)> {
    // No handler asks for a pause in relay mode.
    let largest = ladder.tiers().iter().map(|tier| tier.delay().duration()).max().filter(|_| ladder.mode() == Mode::Push)?;
    let limit = ladder.max_not_before();
    let moves = limit.as_millis().div_ceil(largest.as_millis().max(1));
    (moves > MANY).then(|| {
        let (limit, largest) = (format_duration(limit), format_duration(largest));
        (
            format!(
                "a record whose handler asks for a pause of max_not_before ({limit}) is moved {moves} times, once each {largest}"
            ),
            "add a longer tier, or lower max_not_before".to_owned(),
        )
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn told(tiers: &[&str], limit: Option<u64>) -> Option<String> {
        let builder = Ladder::builder("a", "g").source("s").tiers(tiers.iter().copied());
        let builder = limit.map_or_else(|| builder.clone(), |secs| builder.clone().max_not_before(Duration::from_secs(secs)));
        costly_wait(&builder.build().unwrap()).map(|(problem, _)| problem)
    }

    #[test]
    fn more_than_a_hundred_moves_for_one_pause_are_told() {
        let problem = "a record whose handler asks for a pause of max_not_before (2h) is moved 1800 times, once each 4s";
        assert_eq!(told(&["1s", "2s", "4s"], Some(7_200)).as_deref(), Some(problem));
        assert!(told(&["5s", "1m"], None).unwrap().contains("(1d) is moved 1440 times, once each 1m"));
        assert_eq!(told(&["1s"], Some(100)), None);
        assert!(told(&["1s"], Some(101)).is_some());
        assert_eq!(told(&["5s", "1h"], None), None);
    }
}

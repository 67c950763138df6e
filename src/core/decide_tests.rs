//! Decisions climb one tier an attempt and always end.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::core::envelope::Coordinates;
use crate::core::failure::Failure;

fn ladder(attempts: u32) -> Ladder {
    Ladder::builder("l", "g").source("s").tiers(["5s", "1m", "10m"]).attempts(attempts).build().unwrap()
}

fn fresh() -> Envelope {
    let at = Coordinates { topic: "s".into(), partition: 3, offset: 42, timestamp: Timestamp::from_millis(7) };
    Envelope::fresh("l", &at)
}

fn now() -> Timestamp {
    Timestamp::from_millis(1_000_000)
}

#[test]
fn done_completes() {
    assert_eq!(ladder(4).decide(&fresh(), &Ok(()), now()), Decision::Complete);
}

#[test]
fn rejected_goes_to_the_dlq_at_once() {
    let Decision::DeadLetter { reason, envelope } = ladder(4).decide(&fresh(), &Err(Failure::retry("Bad", "no").reject()), now())
    else {
        panic!("dead-lettered")
    };
    assert_eq!((reason, envelope.reason, envelope.attempts), (Reason::Rejected, Some(Reason::Rejected), 1));
}

#[test]
fn an_asked_delay_is_met_by_the_smallest_tier_that_is_long_enough() {
    let tier_for = |seconds: u64| {
        let failure = Failure::retry("Busy", "").after(Duration::from_secs(seconds));
        match ladder(4).decide(&fresh(), &Err(failure), now()) {
            Decision::Hop { tier, envelope } => (tier, envelope.not_before.map(Timestamp::as_millis)),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(tier_for(1), (1, None));
    assert_eq!(tier_for(5), (1, None));
    assert_eq!(tier_for(6), (2, None));
    assert_eq!(tier_for(600), (3, None));
    assert_eq!(tier_for(601), (3, Some(1_601_000)));
    assert_eq!(tier_for(10 * 86_400), (3, Some(1_000_000 + 86_400_000)), "capped at a day");
}

#[test]
fn an_asked_delay_is_never_below_the_earned_tier() {
    let mut envelope = fresh();
    envelope.attempts = 2;
    let failure = Failure::retry("Busy", "").after(Duration::from_secs(1));
    assert!(matches!(ladder(9).decide(&envelope, &Err(failure), now()), Decision::Hop { tier: 3, .. }));
}

proptest! {
    /// Whatever a handler answers, each attempt raises the count by exactly one and the earned tier by at most one, and after
    /// the last attempt the record is done or dead-lettered.
    #[test]
    fn a_record_climbs_one_tier_an_attempt_and_arrives(
        attempts in 1..50_u32,
        answers in proptest::collection::vec((0..4_u8, 0..100_000_u64), 50),
    ) {
        let ladder = ladder(attempts);
        let mut envelope = fresh();
        for (made, (answer, seconds)) in (1_u32..).zip(answers) {
            let asked = (answer == 3).then(|| Duration::from_secs(seconds));
            let failure = asked.map_or_else(|| Failure::retry("E", "m"), |d| Failure::retry("E", "m").after(d));
            match ladder.decide(&envelope, &Err(failure), now()) {
                Decision::Complete => unreachable!("a failure never completes"),
                Decision::DeadLetter { reason, envelope } => {
                    prop_assert_eq!(reason, Reason::Exhausted);
                    prop_assert_eq!((made, envelope.attempts), (attempts, attempts));
                    return Ok(());
                }
                Decision::Hop { tier, envelope: next } => {
                    prop_assert!(made < attempts);
                    prop_assert_eq!(next.attempts, made);
                    prop_assert_eq!(next.tier, Some(tier));
                    let earned = made.min(3);
                    match asked {
                        None => prop_assert_eq!(tier, earned),
                        Some(_) => prop_assert!(tier >= earned),
                    }
                    if let Some(asked) = asked {
                        let waits = ladder.tier(tier).unwrap().delay().duration();
                        let until = next.not_before.map_or(Duration::ZERO, |t| t.since(now()));
                        prop_assert!(waits.max(until) >= asked.min(ladder.max_not_before()));
                    }
                    envelope = *next;
                }
            }
        }
        prop_assert!(false, "the record never arrived");
    }
}

//! Decisions climb one tier per attempt and always end.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::core::coordinates::Coordinates;
use crate::core::failure::{ErrorInfo, Failure};
use crate::core::ladder::LadderBuilder;
use crate::core::rules::{Rule, When};

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
    let Decision::DeadLetter { reason, topic, envelope } =
        ladder(4).decide(&fresh(), &Err(Failure::retry("Bad", "no").reject()), now())
    else {
        panic!("dead-lettered")
    };
    assert_eq!((reason, envelope.reason, envelope.attempts), (Reason::Rejected, Some(Reason::Rejected), 1));
    assert_eq!(topic, "l.dlq");
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
    /// Whatever a handler answers, each attempt increases the count by exactly one and the earned tier by at most one, and
    /// after the last attempt the record is done or dead-lettered.
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
                Decision::DeadLetter { reason, envelope, .. } => {
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

/// A ladder with these rules on statuses.
fn ruled<const N: usize>(rules: [(&str, Then); N]) -> Ladder {
    let builder = Ladder::builder("l", "g").source("s").tiers(["5s", "1m", "10m"]);
    let rule = |(status, then): (&str, Then)| Rule {
        name: None,
        when: When { status: vec![status.parse().unwrap()], ..When::default() },
        then,
    };
    rules.into_iter().map(rule).fold(builder, LadderBuilder::rule).build().unwrap()
}

fn answered(status: u16) -> Failure {
    Failure::new(
        Disposition::Retry { after: None },
        ErrorInfo { class: format!("HTTP {status}"), status: Some(status), ..ErrorInfo::default() },
    )
}

fn after_attempts(made: u32) -> Envelope {
    Envelope { attempts: made, ..fresh() }
}

#[test]
fn the_first_rule_that_holds_decides() {
    let ladder =
        ruled([("404", Then::Done), ("4xx", Then::Reject { dlq: Some("gone".into()) }), ("500-599", Then::Reject { dlq: None })]);
    let judged = |status: u16| {
        let judged = ladder.judge(&fresh(), &Err(answered(status)), &|_| None, now());
        let what = match judged.decision {
            Decision::DeadLetter { topic, .. } => topic,
            other => other.name().to_owned(),
        };
        (what, judged.rule)
    };
    assert_eq!(judged(404), ("complete".into(), Some(0)));
    assert_eq!(judged(410), ("l.dlq-gone".into(), Some(1)));
    assert_eq!(judged(503), ("l.dlq".into(), Some(2)));
    assert_eq!(judged(302), ("hop".into(), None));
    assert_eq!(ladder.judge(&fresh(), &Ok(()), &|_| None, now()).rule, None, "a success matches no rule");
}

#[test]
fn a_rule_may_retry_what_the_handler_rejects_later_and_more_or_less_often() {
    let ladder = ruled([
        ("422", Then::Retry { from_tier: 2, attempts: Some(2) }),
        ("423", Then::Retry { from_tier: 1, attempts: Some(6) }),
    ]);
    let tiers = |status: u16| -> Vec<u32> {
        let decided = |made: u32| ladder.decide(&after_attempts(made), &Err(answered(status).reject()), now());
        (0..10).map_while(|made| if let Decision::Hop { tier, .. } = decided(made) { Some(tier) } else { None }).collect()
    };
    assert_eq!(tiers(422), [2]);
    assert_eq!(tiers(423), [1, 2, 3, 3, 3]);
    assert!(tiers(400).is_empty(), "no rule matches, so the handler's verdict stands");
}

#[test]
fn what_would_be_due_too_late_has_expired() {
    let ladder =
        Ladder::builder("l", "g").source("s").tiers(["5s", "1m"]).attempts(99).max_age(Duration::from_secs(60)).build().unwrap();
    let decided = |age: u64, failure: Failure| {
        let first = Timestamp::from_millis(now().as_millis() - i64::try_from(age).unwrap() * 1_000);
        let envelope = Envelope { first_failed_at: (age > 0).then_some(first), ..after_attempts(u32::from(age > 0)) };
        match ladder.decide(&envelope, &Err(failure), now()) {
            Decision::Hop { tier, .. } => Ok(tier),
            Decision::DeadLetter { reason, .. } => Err(reason),
            Decision::Complete => panic!("it failed"),
        }
    };
    let failed = || Failure::retry("C", "m");
    assert_eq!(decided(0, failed()), Ok(1));
    assert_eq!(decided(0, failed().after(Duration::from_secs(60))), Ok(2));
    assert_eq!(decided(0, failed().after(Duration::from_secs(61))), Err(Reason::Expired));
    assert_eq!(decided(1, failed()), Err(Reason::Expired));
    assert_eq!(decided(1, failed().reject()), Err(Reason::Rejected), "a rejection does not depend on age");
}

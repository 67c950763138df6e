//! Simulates a record's climb, without Kafka and without waiting: for tests of handlers.
//!
//! The handler gets the same deliveries as from a worker, and its verdicts go through the same decisions ([`Ladder::judge`],
//! `next_move`). Only time is virtual: it stands still while the handler runs, and jumps to the time at which the record is due.

use std::time::Duration;

use bytes::Bytes;

use crate::core::backoff::Doubling;
use crate::core::coordinates::Coordinates;
use crate::core::decide::Decision;
use crate::core::due::{Move, due_time, next_move};
use crate::core::envelope::Envelope;
use crate::core::failure::Verdict;
use crate::core::ladder::Ladder;
use crate::core::record::Record;
use crate::core::time::Timestamp;
use crate::worker::delivery::Delivery;
use crate::worker::handler::{self, Handler};

/// Start of the climb, so that times look realistic: 2026-01-01.
const START: Timestamp = Timestamp::from_millis(1_767_225_600_000);

/// Initial pause between in-place retries, and their maximum number in a row; a worker has no
/// maximum.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
const MOST_IN_PLACE: usize = 100;

/// One delivery of the climb, and its outcome.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Step {
    /// Attempt, from 1.
    pub attempt: u32,
    /// Time since the first delivery.
    pub at: Duration,
    /// The tiers that the record has waited in since the delivery before, by number; several if it had to wait longer than the
    /// largest.
    pub waited_in: Vec<u32>,
    /// The handler's verdict.
    pub verdict: Verdict,
    /// The ladder's decision; `None` for an in-place retry without a counted attempt: nothing was reached
    /// ([`Failure::unsent`](crate::Failure::unsent)), or failed attempts are retried at once
    /// ([`LadderBuilder::immediate`](crate::LadderBuilder::immediate)).
    pub decision: Option<Decision>,
}

impl Step {
    /// The tier that the record came from, counted from 1; `None` for the first delivery.
    #[must_use]
    pub fn tier(&self) -> Option<u32> {
        self.waited_in.last().copied()
    }

    /// Whether the climb ended with success.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.decision == Some(Decision::Complete)
    }

    /// Whether the climb ended in the dead-letter topic.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        matches!(self.decision, Some(Decision::DeadLetter { .. }))
    }
}

/// Simulates a record until it is done or dead, and returns all its deliveries. Its topic and partition are its origin.
///
/// If the handler reports a hundred times in a row that it reached nothing, the climb ends
/// undecided.
///
/// ```
/// use kladder::{Delivery, Failure, Ladder, Record, testing};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), kladder::LadderErrors> {
/// let ladder = Ladder::builder("billing", "billing").source("orders").tiers(["5s", "1m"]).build()?;
/// let handler = |delivery: Delivery| async move {
///     if delivery.attempt() < 3 { Err(Failure::retry("Timeout", "no answer from the bank")) } else { Ok(()) }
/// };
/// let steps = testing::climb(&ladder, &handler, Record::to("orders").value("{}")).await;
/// let seconds: Vec<u64> = steps.iter().map(|step| step.at.as_secs()).collect();
/// assert_eq!(seconds, [0, 5, 65]);
/// assert!(steps[2].is_done());
/// # Ok(())
/// # }
/// ```
pub async fn climb<H: Handler>(ladder: &Ladder, handler: &H, record: Record) -> Vec<Step> {
    let origin = Coordinates { topic: record.topic, partition: record.partition.unwrap_or(0), offset: 0, timestamp: START };
    let (key, value) = (record.key.map(Bytes::from), record.value.map(Bytes::from));
    let mut envelope = Envelope::fresh(ladder.name(), &origin);
    let (mut now, mut waited_in) = (START, Vec::new());
    let (mut pauses, mut in_place, mut repeats) = (Doubling::new(FIRST_PAUSE, LONGEST_PAUSE), 0, 0);
    let mut steps = Vec::new();
    loop {
        let delivery = Delivery::new(&envelope, ladder, key.clone(), value.clone(), record.headers.clone());
        let (attempt, at) = (delivery.attempt(), now.since(START));
        let verdict = handler::call(handler, delivery).await.map_err(|failure| failure.repeated(repeats));
        let unsent = verdict.as_ref().is_err_and(crate::core::failure::Failure::is_unsent);
        let header = |name: &str| record.headers.last_text(name);
        let backoff = verdict
            .as_ref()
            .err()
            .filter(|_| !unsent)
            .and_then(|failure| ladder.repeats_in_place(failure, &origin.topic, &header));
        let decision = (!unsent && backoff.is_none()).then(|| ladder.judge(&envelope, &verdict, &header, now).decision);
        let goes_on = match (&decision, backoff) {
            (None, Some(backoff)) => {
                repeats += 1;
                now = now + backoff;
                true
            }
            (None, None) => {
                in_place += 1;
                now = now + pauses.take();
                in_place < MOST_IN_PLACE
            }
            (Some(Decision::Hop { envelope: next, .. }), _) => {
                envelope = (**next).clone();
                pauses.reset();
                (in_place, repeats) = (0, 0);
                true
            }
            (Some(Decision::Complete | Decision::DeadLetter { .. }), _) => false,
        };
        let hops = matches!(decision, Some(Decision::Hop { .. }));
        let waited = std::mem::take(&mut waited_in);
        steps.push(Step { attempt, at, waited_in: waited, verdict, decision });
        if !goes_on {
            return steps;
        }
        if hops {
            (now, waited_in) = wait(ladder, &mut envelope, now);
        }
    }
}

/// Waits as in the mover, and returns until when and in which tiers.
fn wait(ladder: &Ladder, envelope: &mut Envelope, mut now: Timestamp) -> (Timestamp, Vec<u32>) {
    let mut waited_in = Vec::new();
    let mut tier = envelope.tier.and_then(|number| ladder.tier(number)).unwrap_or(ladder.last_tier());
    loop {
        waited_in.push(tier.number());
        envelope.tier = Some(tier.number());
        now = due_time(now, tier.delay());
        match next_move(ladder, envelope.not_before, now) {
            Move::Redeliver => return (now, waited_in),
            Move::WaitOn(next) => tier = next,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::core::envelope::Reason;
    use crate::core::failure::Failure;

    fn ladder() -> Ladder {
        Ladder::builder("l", "g").source("orders").tiers(["5s", "1m", "10m"]).build().unwrap()
    }

    fn climbed<H: Handler>(handler: H) -> Vec<Step> {
        let record = Record::to("orders").key("k").header("a", "1").header("kladder-attempts", "9").value("v");
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(climb(&ladder(), &handler, record))
    }

    fn reason(step: &Step) -> Option<Reason> {
        if let Some(Decision::DeadLetter { reason, .. }) = &step.decision { Some(*reason) } else { None }
    }

    #[test]
    fn a_record_that_always_fails_sees_every_tier_and_ends_dead() {
        let steps = climbed(async |_: Delivery| Err(Failure::retry("C", "m")));
        let seen: Vec<_> = steps.iter().map(|s| (s.attempt, s.at.as_secs(), s.tier())).collect();
        assert_eq!(seen, [(1, 0, None), (2, 5, Some(1)), (3, 65, Some(2)), (4, 665, Some(3))]);
        assert_eq!(reason(&steps[3]), Some(Reason::Exhausted));
    }

    #[test]
    fn the_handler_gets_what_a_worker_would_give_it() {
        let steps = climbed(async |delivery: Delivery| {
            assert_eq!((delivery.key(), delivery.value(), delivery.topic()), (Some(&b"k"[..]), Some(&b"v"[..]), "orders"));
            assert_eq!((delivery.headers().len(), delivery.tier().unwrap_or(0)), (1, delivery.attempt() - 1));
            assert_eq!(delivery.attempts_left(), 4 - delivery.attempt());
            assert_eq!(delivery.id(), format!("l/orders/0/0/{}", START.as_millis()));
            if delivery.attempt() == 1 { Err(Failure::retry("C", "m")) } else { Ok(()) }
        });
        assert!(steps.len() == 2 && steps[1].is_done(), "{steps:?}");
    }

    #[test]
    fn an_asked_delay_is_waited_for_also_beyond_the_largest_tier() {
        let asks = |seconds: u64| {
            climbed(move |delivery: Delivery| async move {
                let asked = Failure::retry("C", "m").after(Duration::from_secs(seconds));
                if delivery.attempt() == 1 { Err(asked) } else { Ok(()) }
            })
        };
        assert_eq!((asks(30)[1].at.as_secs(), asks(30)[1].waited_in.clone()), (60, vec![2]));
        let beyond = &asks(1_500)[1];
        // Ten minutes twice leave five, which are five times one.
        assert_eq!((beyond.at.as_secs(), beyond.waited_in.clone()), (1_500, vec![3, 3, 2, 2, 2, 2, 2]));
        assert_eq!(asks(1_000_000)[1].at, Ladder::DEFAULT_MAX_NOT_BEFORE);
    }

    #[test]
    fn rejections_and_panics_are_what_they_are_under_a_worker() {
        let rejected = climbed(async |_: Delivery| Err(Failure::retry("C", "m").reject()));
        assert_eq!((rejected.len(), reason(&rejected[0])), (1, Some(Reason::Rejected)));
        let panicked = climbed(|delivery: Delivery| {
            assert!(delivery.attempt() > 1, "at the first attempt");
            async move { if delivery.attempt() > 2 { Ok(()) } else { panic!("at the second") } }
        });
        let messages: Vec<_> = panicked.iter().filter_map(|s| s.verdict.as_ref().err()?.error().message.clone()).collect();
        assert_eq!(messages, ["the handler panicked: at the first attempt", "the handler panicked: at the second"]);
        assert!(panicked[2].is_done());
    }

    #[test]
    fn a_blip_is_tried_again_in_place_and_what_goes_on_failing_climbs() {
        let ladder =
            Ladder::builder("l", "g").source("orders").tiers(["5s"]).immediate(2, Duration::from_millis(100)).build().unwrap();
        let climbed = |failure: fn() -> Failure| {
            let handler = move |_: Delivery| async move { Err(failure()) };
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let steps = runtime.block_on(climb(&ladder, &handler, Record::to("orders")));
            steps.iter().map(|s| (s.attempt, s.at.as_millis(), s.decision.is_some())).collect::<Vec<_>>()
        };
        let thrice = |attempt: u32, at: u128| [(attempt, at, false), (attempt, at + 100, false), (attempt, at + 200, true)];
        assert_eq!(climbed(|| Failure::retry("C", "m")), [thrice(1, 0), thrice(2, 5_200)].concat());
        assert_eq!(climbed(|| Failure::retry("C", "m").after(Duration::from_secs(1))).len(), 2, "it said when");
        assert_eq!(climbed(|| Failure::retry("C", "m").reject()).len(), 1);
    }

    #[test]
    fn what_reached_nobody_is_tried_again_in_place_and_burns_no_attempt() {
        let tries = AtomicU32::new(0);
        let steps = climbed(move |_: Delivery| {
            let unsent = tries.fetch_add(1, Ordering::Relaxed) < 3;
            async move { if unsent { Err(Failure::unsent("refused", "m")) } else { Ok(()) } }
        });
        let seen: Vec<_> = steps.iter().map(|s| (s.attempt, s.at.as_millis())).collect();
        assert_eq!(seen, [(1, 0), (1, 100), (1, 300), (1, 700)]);
        let never = climbed(async |_: Delivery| Err(Failure::unsent("refused", "m")));
        assert!(never.len() == MOST_IN_PLACE && never.iter().all(|s| s.decision.is_none()));
    }
}

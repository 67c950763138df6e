//! Decides what the ladder does with a verdict.

use std::time::Duration;

use crate::core::coordinates::Coordinates;
use crate::core::envelope::{Envelope, Reason};
use crate::core::failure::{Disposition, ErrorInfo, Failure, Verdict};
use crate::core::ladder::{Ladder, Redelivery, Tier};
use crate::core::rules::{Failed, Then};
use crate::core::time::Timestamp;
use crate::core::topics;

/// A decision. The envelope is the record's from here on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The record is done with.
    Complete,
    /// The record waits in the tier of this number.
    Hop {
        /// Counted from 1.
        tier: u32,
        /// The record's envelope from here on.
        envelope: Box<Envelope>,
    },
    /// The record goes to a dead-letter topic.
    DeadLetter {
        /// Why.
        reason: Reason,
        /// The topic: the ladder's own, or that of the rule that rejected it.
        topic: String,
        /// The record's envelope from here on.
        envelope: Box<Envelope>,
    },
}

impl Decision {
    /// Its kind, for logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Hop { .. } => "hop",
            Self::DeadLetter { .. } => "dead-letter",
        }
    }
}

/// A decision, and the rule that caused it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// The decision.
    pub decision: Decision,
    /// The matching rule, by its index in [`Ladder::rules`]; `None` if the ladder's defaults decided.
    pub rule: Option<usize>,
}

impl Ladder {
    /// Decides on a verdict. Rules about the record's headers see none: use [`Ladder::judge`] for those.
    #[must_use]
    pub fn decide(&self, envelope: &Envelope, verdict: &Verdict, now: Timestamp) -> Decision {
        self.judge(envelope, verdict, &|_| None, now).decision
    }

    /// Decides on a verdict for a record with these headers (the last value of a name, as text), and returns the matching
    /// rule.
    #[must_use]
    pub fn judge(
        &self,
        envelope: &Envelope,
        verdict: &Verdict,
        header: &dyn Fn(&str) -> Option<String>,
        now: Timestamp,
    ) -> Judgement {
        let Err(failure) = verdict else { return Judgement { decision: Decision::Complete, rule: None } };
        let failed = Failed { error: failure.error(), topic: &envelope.origin.topic, header };
        let rule = self.rule_for(&failed);
        Judgement { decision: decide(envelope, failure, rule.map(|index| &self.rules()[index].then), self, now), rule }
    }
}

impl Ladder {
    /// The dead letter for a record that was the first of its partition at this many starts of a worker, all of which but this one
    /// ended without a shutdown.
    #[must_use]
    pub fn bury(&self, envelope: &Envelope, starts: u32, now: Timestamp) -> Decision {
        let error = ErrorInfo {
            class: "worker-died".to_owned(),
            message: Some(format!(
                "workers ended {} times while this was the first record of its partition",
                starts.saturating_sub(1)
            )),
            status: None,
            stack: None,
        };
        dead_letter(envelope.failed(&error, now), Reason::Poison, self.dlq_topic())
    }

    /// The dead letter for a record that cannot be moved as it is, for this reason. It was not delivered, so no attempt is counted.
    #[must_use]
    pub fn unfit(&self, envelope: Envelope, why: &str) -> Decision {
        dead_letter(unfit(envelope, why), Reason::Poison, self.dlq_topic())
    }

    /// The dead letter for a foreign dead letter without its record, which is also missing at its origin.
    #[must_use]
    pub fn without_record(&self, envelope: &Envelope, error: &ErrorInfo, now: Timestamp) -> Decision {
        dead_letter(envelope.failed(error, now), Reason::NoOrigin, self.dlq_topic())
    }

    /// What a dead letter becomes while there are too many: it waits in the largest tier, and the failed attempt will be repeated.
    /// `before` is the envelope before that attempt.
    #[must_use]
    pub fn held_back(&self, before: &Envelope, dead: &Envelope) -> Decision {
        let tier = self.tiers().last().map_or(1, Tier::number);
        let envelope = Envelope { attempts: before.attempts, tier: Some(tier), reason: None, held: true, ..dead.clone() };
        Decision::Hop { tier, envelope: Box::new(envelope) }
    }

    /// What becomes of a record that makes room for others while the handler is down: it waits in the tier that it came from, or in the
    /// first one, unchanged.
    #[must_use]
    pub fn postponed(&self, envelope: &Envelope) -> Decision {
        let tier = envelope.tier.and_then(|number| self.tier(number)).or_else(|| self.tiers().first()).map_or(1, Tier::number);
        Decision::Hop { tier, envelope: Box::new(Envelope { tier: Some(tier), not_before: None, ..envelope.clone() }) }
    }

    /// How long after this failure the attempt is retried in place; `None` if it counts as failed now. Only answered failures that both handler and
    /// rules want retried are retried in place: a handler that dropped the connection or timed out may still be working, and one that asks for a
    /// delay has set the time.
    #[must_use]
    pub fn repeats_in_place(&self, failure: &Failure, topic: &str, header: &dyn Fn(&str) -> Option<String>) -> Option<Duration> {
        let immediate = self.immediate().filter(|immediate| failure.repeats() < immediate.attempts)?;
        let rule = self.rule_for(&Failed { error: failure.error(), topic, header });
        let may = rule.is_none_or(|index| matches!(self.rules()[index].then, Then::Retry { .. }));
        let asks = failure.is_answered() && failure.disposition() == Disposition::Retry { after: None };
        (may && asks).then_some(immediate.backoff)
    }
}

/// Decides on a failure: a failed attempt n earns tier min(n, last), and after the last attempt follows the DLQ. A rule takes
/// precedence over the handler.
///
/// A delay requested by the handler is served by the smallest tier that is long enough, but never below the earned one; a delay
/// longer than the largest tier is written as `not-before`. A record that would come back only after `max_age` expires now.
/// `now` is the tier leader's clock as far as known.
fn decide(envelope: &Envelope, failure: &Failure, then: Option<&Then>, ladder: &Ladder, now: Timestamp) -> Decision {
    let mut next = Envelope { immediate: failure.repeats(), ..envelope.failed(failure.error(), now) };
    let dead = |envelope: Envelope, reason: Reason| dead_letter(envelope, reason, ladder.dlq_topic());
    let (from_tier, attempts) = match (then, failure.disposition()) {
        (Some(Then::Done), _) => return Decision::Complete,
        (Some(Then::Reject { dlq: Some(name) }), _) => {
            return dead_letter(next, Reason::Rejected, topics::own_dlq_topic(ladder.name(), name));
        }
        (Some(Then::Reject { dlq: None }), _) | (None, Disposition::Reject) => return dead(next, Reason::Rejected),
        (Some(Then::Retry { from_tier, attempts }), _) => (*from_tier, attempts.unwrap_or(ladder.attempts())),
        (None, Disposition::Retry { .. }) => (1, ladder.attempts()),
    };
    if next.attempts >= attempts {
        return dead(next, Reason::Exhausted);
    }
    // Decided now, while it can be noticed, and not after it has waited.
    if !comes_back(ladder, &next) {
        return dead(next, Reason::NoOrigin);
    }
    let after = match failure.disposition() {
        Disposition::Retry { after } => after.map(|a| a.min(ladder.max_not_before())),
        Disposition::Reject => None,
    };
    let earned = ladder.tier_after(next.attempts.max(from_tier));
    let tier = match after {
        Some(after) if after > earned.delay().duration() => ladder.tier_at_least(after),
        _ => earned,
    };
    next.not_before = after.filter(|a| *a > tier.delay().duration()).map(|a| now + a);
    let due = next.not_before.unwrap_or(now + tier.delay().duration());
    if let (Some(max_age), Some(first)) = (ladder.max_age(), next.first_failed_at)
        && due.since(first) > max_age
    {
        next.not_before = None;
        return dead(next, Reason::Expired);
    }
    next.tier = Some(tier.number());
    Decision::Hop { tier: tier.number(), envelope: Box::new(next) }
}

/// Whether there is a topic to which the record can be redelivered.
fn comes_back(ladder: &Ladder, envelope: &Envelope) -> bool {
    ladder.redelivery() == Redelivery::Topic || ladder.origin_of(&envelope.origin).is_ok()
}

/// The envelope of a record that cannot be moved as it is, with the position of the complete record as far as known.
#[must_use]
pub fn unfit(envelope: Envelope, why: &str) -> Envelope {
    let Coordinates { topic, partition, offset, .. } = &envelope.origin;
    let message = format!("{why}; the complete record is at {topic} [{partition}] @ {offset}");
    let error = ErrorInfo { class: "too-many-headers".to_owned(), message: Some(message), status: None, stack: None };
    Envelope { error: Some(error), reason: Some(Reason::Poison), ..envelope }
}

fn dead_letter(mut envelope: Envelope, reason: Reason, topic: String) -> Decision {
    envelope.reason = Some(reason);
    Decision::DeadLetter { reason, topic, envelope: Box::new(envelope) }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;

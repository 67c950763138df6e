//! What the ladder does with a verdict.

use crate::core::envelope::{Envelope, Reason};
use crate::core::failure::{Disposition, Verdict};
use crate::core::ladder::{Ladder, Redelivery};
use crate::core::time::Timestamp;

/// What the ladder does with a verdict. The envelope is the one that the record carries from here on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The record is done with.
    Complete,
    /// The record waits in the tier of this number.
    Hop {
        /// Counted from 1.
        tier: u32,
        /// What the record carries from here on.
        envelope: Box<Envelope>,
    },
    /// The record goes to the DLQ.
    DeadLetter {
        /// Why.
        reason: Reason,
        /// What the record carries from here on.
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

impl Ladder {
    /// What follows from a verdict; see [`decide`].
    #[must_use]
    pub fn decide(&self, envelope: &Envelope, verdict: &Verdict, now: Timestamp) -> Decision {
        decide(envelope, verdict, self, now)
    }
}

/// What follows from a verdict: attempt n that fails earns tier min(n, last), and after the last attempt comes the DLQ.
///
/// A delay that the handler asked for is met by the smallest tier that is long enough, never below the earned one; what lies
/// beyond the largest tier is written as `not-before`. `now` is the tier leader's clock as far as it is known.
#[must_use]
pub fn decide(envelope: &Envelope, verdict: &Verdict, ladder: &Ladder, now: Timestamp) -> Decision {
    let Err(failure) = verdict else { return Decision::Complete };
    let mut next = envelope.failed(failure.error(), now);
    let after = match failure.disposition() {
        Disposition::Reject => return dead_letter(next, Reason::Rejected),
        Disposition::Retry { .. } if next.attempts >= ladder.attempts() => return dead_letter(next, Reason::Exhausted),
        // Told now, while somebody looks, and not after it has waited.
        Disposition::Retry { .. } if !comes_back(ladder, &next) => return dead_letter(next, Reason::NoOrigin),
        Disposition::Retry { after } => after.map(|a| a.min(ladder.max_not_before())),
    };
    let earned = ladder.tier_after(next.attempts);
    let tier = match after {
        Some(after) if after > earned.delay().duration() => ladder.tier_at_least(after),
        _ => earned,
    };
    next.not_before = after.filter(|a| *a > tier.delay().duration()).map(|a| now + a);
    next.tier = Some(tier.number());
    Decision::Hop { tier: tier.number(), envelope: Box::new(next) }
}

/// Whether there is a topic in which the record may come back.
fn comes_back(ladder: &Ladder, envelope: &Envelope) -> bool {
    ladder.redelivery() == Redelivery::Topic || ladder.origin_of(&envelope.origin).is_ok()
}

fn dead_letter(mut envelope: Envelope, reason: Reason) -> Decision {
    envelope.reason = Some(reason);
    Decision::DeadLetter { reason, envelope: Box::new(envelope) }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;

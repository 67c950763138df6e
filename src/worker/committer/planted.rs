//! Bugs that a test can plant, to see that the model of the committer finds them.
//!
//! They exist only with the feature `planted-bugs`, which nothing but that test switches on: in every other build the calls below
//! are what they stand for and nothing else.

use crate::core::decide::Judgement;
use crate::core::envelope::Envelope;
use crate::core::failure::Verdict;
use crate::core::ladder::Ladder;
use crate::core::time::Timestamp;

/// A bug that can be planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bug {
    /// A hop whose offset is neither below the committed prefix nor in the finished set.
    HopWithoutItsOffset,
    /// A late verdict is written for a partition that has moved.
    LateVerdict,
    /// A plain commit is made while a transaction is open.
    PlainCommitInTransaction,
    /// A transaction begins although a plain commit may still be on its way.
    TransactionInDoubt,
    /// Attempts are counted in the worker's memory, not in the record.
    #[cfg(feature = "planted-bugs")]
    AttemptsInMemory,
    /// A record waits in the tier after the one that its attempt has earned.
    #[cfg(feature = "planted-bugs")]
    SkippedTier,
}

#[cfg(feature = "planted-bugs")]
pub(super) use on::{Memory, is, judge};

#[cfg(all(test, feature = "planted-bugs"))]
pub(super) use on::plant;

#[cfg(not(feature = "planted-bugs"))]
pub(super) use off::{Memory, is, judge};

#[cfg(not(feature = "planted-bugs"))]
mod off {
    use super::{Bug, Envelope, Judgement, Ladder, Timestamp, Verdict};

    #[derive(Default)]
    pub(in super::super) struct Memory {}

    pub(in super::super) const fn is(_: Bug) -> bool {
        false
    }

    pub(in super::super) fn judge(
        _: &mut Memory,
        ladder: &Ladder,
        envelope: &Envelope,
        verdict: &Verdict,
        header: &dyn Fn(&str) -> Option<String>,
        now: Timestamp,
    ) -> Judgement {
        ladder.judge(envelope, verdict, header, now)
    }
}

#[cfg(feature = "planted-bugs")]
mod on {
    use std::cell::Cell;
    use std::collections::HashMap;

    use super::{Bug, Envelope, Judgement, Ladder, Timestamp, Verdict};
    use crate::core::decide::Decision;
    use crate::core::ladder::Tier;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// The failed attempts by the ids of records.
    #[derive(Default)]
    pub(in super::super) struct Memory(HashMap<String, u32>);

    /// Plants a bug in what this thread runs from now on, or removes it.
    #[cfg(test)]
    pub(in super::super) fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    pub(in super::super) fn is(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }

    pub(in super::super) fn judge(
        memory: &mut Memory,
        ladder: &Ladder,
        envelope: &Envelope,
        verdict: &Verdict,
        header: &dyn Fn(&str) -> Option<String>,
        now: Timestamp,
    ) -> Judgement {
        let mut envelope = envelope.clone();
        if is(Bug::AttemptsInMemory) && verdict.is_err() {
            let made = memory.0.entry(envelope.id.clone()).or_default();
            envelope.attempts = *made;
            *made += 1;
        }
        let Judgement { decision, rule } = ladder.judge(&envelope, verdict, header, now);
        let decision = match decision {
            Decision::Hop { tier, mut envelope } if is(Bug::SkippedTier) => {
                let tier = ladder.tier(tier + 1).map_or(tier, Tier::number);
                envelope.tier = Some(tier);
                Decision::Hop { tier, envelope }
            }
            decision => decision,
        };
        Judgement { decision, rule }
    }
}

//! Planted bugs, each of which must be found as a violation of the right invariant. A model that cannot find a known bug proves
//! nothing by finding none.
//!
//! They are implemented behind the ports, in what the model's cluster does for a process ([`World::has`]): the workers are the
//! real ones.

use std::collections::BTreeMap;

use crate::core::ladder::Hops;
use crate::worker::model::check::Invariant;
use crate::worker::model::world::World;

const SEEDS: u64 = 600;

/// A bug that can be planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bug {
    /// A hop is written without its offset.
    HopWithoutItsOffset,
    /// A deliverer is not told of a revocation, and continues with the partitions.
    RevocationUnheard,
    /// A plain commit is made while a transaction is open.
    PlainCommitInTransaction,
    /// A plain commit that may still be on its way counts as refused.
    CommitOnItsWayForgotten,
    /// Attempts are counted in the worker's memory, not in the record.
    AttemptsInMemory,
    /// A record waits in the tier after the one that it has earned.
    SkippedTier,
    /// The head of a tier is moved before it is due.
    HeadMovedEarly,
    /// A mover commits an offset for another tier than the record's.
    OffsetOfAnotherTier,
    /// After a commit of unknown outcome a mover moves the same records again.
    MovedOnceMore,
    /// A record refused by a denied target counts as written.
    DeniedTargetDropsItsRecord,
    /// After a commit of unknown outcome a deliverer continues with another name although the transaction may still be open with the first,
    /// and trusts the offsets committed meanwhile.
    LeftOpenUnderAnotherName,
}

impl Bug {
    /// Whether it is a bug of movers; all others are of deliverers.
    pub(super) fn is_of_movers(self) -> bool {
        use Bug::{DeniedTargetDropsItsRecord, HeadMovedEarly, MovedOnceMore, OffsetOfAnotherTier};
        matches!(self, HeadMovedEarly | OffsetOfAnotherTier | MovedOnceMore | DeniedTargetDropsItsRecord)
    }
}

/// Runs seeds with a bug and counts the first violation of each: one of them must violate this invariant, and be fine without
/// the bug.
#[track_caller]
fn assert_found(bug: Bug, by: Invariant) {
    let mut found: BTreeMap<Invariant, u64> = BTreeMap::new();
    let mut first = None;
    for seed in 0..SEEDS {
        let Err(violation) = World::run(seed, Hops::ExactlyOnce, Some(bug), false) else { continue };
        *found.entry(violation.invariant).or_default() += 1;
        if violation.invariant == by {
            first.get_or_insert((seed, violation));
        }
    }
    let (seed, violation) = first.unwrap_or_else(|| panic!("{bug:?}: {SEEDS} seeds did not break {by:?}, but {found:?}"));
    println!("{bug:?}: found first by seed {seed}: {violation}\n  of {SEEDS} seeds, by what they break: {found:?}");
    assert!(World::run(seed, Hops::ExactlyOnce, None, false).is_ok(), "seed {seed} fails without the bug too");
}

#[test]
fn a_hop_without_its_offset_is_found() {
    assert_found(Bug::HopWithoutItsOffset, Invariant::Atomicity);
}

#[test]
fn a_revocation_that_is_not_heard_is_found() {
    assert_found(Bug::RevocationUnheard, Invariant::Fencing);
}

#[test]
fn a_plain_commit_during_a_transaction_is_found() {
    assert_found(Bug::PlainCommitInTransaction, Invariant::Atomicity);
}

#[test]
fn a_transaction_while_a_plain_commit_is_on_its_way_is_found() {
    assert_found(Bug::CommitOnItsWayForgotten, Invariant::OffsetsForward);
}

#[test]
fn an_attempt_counted_in_memory_is_found() {
    assert_found(Bug::AttemptsInMemory, Invariant::Attempts);
}

#[test]
fn a_skipped_tier_is_found() {
    assert_found(Bug::SkippedTier, Invariant::Tiers);
}

#[test]
fn a_head_that_is_moved_early_is_found() {
    assert_found(Bug::HeadMovedEarly, Invariant::NotEarly);
}

#[test]
fn an_offset_that_is_committed_for_another_tier_is_found() {
    assert_found(Bug::OffsetOfAnotherTier, Invariant::Atomicity);
}

#[test]
fn a_record_that_is_moved_once_more_is_found() {
    assert_found(Bug::MovedOnceMore, Invariant::HopOnce);
}

#[test]
fn a_denied_target_that_drops_its_record_is_found() {
    assert_found(Bug::DeniedTargetDropsItsRecord, Invariant::Atomicity);
}

#[test]
fn a_transaction_left_open_under_another_name_is_found() {
    assert_found(Bug::LeftOpenUnderAnotherName, Invariant::HopOnce);
}

//! Bugs that are planted, each to be found under its right name. A model that finds no bug that is there proves nothing where none
//! is found.

use std::collections::BTreeMap;

use crate::core::ladder::Hops;
use crate::worker::committer::model::check::Invariant;
use crate::worker::committer::model::world::World;
use crate::worker::committer::planted::{self, Bug};

const SEEDS: u64 = 500;

/// Runs seeds with a bug and counts what they break first: one of them has to break this invariant, and hold without the bug.
#[track_caller]
fn assert_found(bug: Bug, by: Invariant) {
    let mut found: BTreeMap<Invariant, u64> = BTreeMap::new();
    let mut first = None;
    for seed in 0..SEEDS {
        planted::plant(Some(bug));
        let outcome = World::run(seed, Hops::ExactlyOnce, false);
        planted::plant(None);
        let Err(violation) = outcome else { continue };
        *found.entry(violation.invariant).or_default() += 1;
        if violation.invariant == by {
            first.get_or_insert((seed, violation));
        }
    }
    let (seed, violation) = first.unwrap_or_else(|| panic!("{bug:?}: {SEEDS} seeds did not break {by:?}, but {found:?}"));
    println!("{bug:?}: found first by seed {seed}: {violation}\n  of {SEEDS} seeds, by what they break: {found:?}");
    assert!(World::run(seed, Hops::ExactlyOnce, false).is_ok(), "seed {seed} fails without the bug too");
}

#[test]
fn a_hop_without_its_offset_is_found() {
    assert_found(Bug::HopWithoutItsOffset, Invariant::Atomicity);
}

#[test]
fn a_late_verdict_for_a_partition_that_has_moved_is_found() {
    assert_found(Bug::LateVerdict, Invariant::Fencing);
}

#[test]
fn a_plain_commit_during_a_transaction_is_found() {
    assert_found(Bug::PlainCommitInTransaction, Invariant::Atomicity);
}

#[test]
fn a_transaction_while_a_plain_commit_is_on_its_way_is_found() {
    assert_found(Bug::TransactionInDoubt, Invariant::OffsetsForward);
}

#[test]
fn an_attempt_counted_in_memory_is_found() {
    assert_found(Bug::AttemptsInMemory, Invariant::Attempts);
}

#[test]
fn a_skipped_tier_is_found() {
    assert_found(Bug::SkippedTier, Invariant::Tiers);
}

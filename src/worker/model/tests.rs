//! Thousands of seeds, and bugs that they must find.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::core::ladder::Hops;
use crate::kafka::clock::Clock;
use crate::worker::model::check::Violation;
use crate::worker::model::world::World;

const SEEDS: u64 = 20_000;

/// Runs seeds on all processors and returns the first failure.
fn first_failure(seeds: u64, hops: Hops) -> (Option<(u64, Violation)>, Duration) {
    let began = Clock::system().monotonic();
    let next = AtomicU64::new(0);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return None;
            }
            if let Err(violation) = World::run(seed, hops, None, false) {
                next.store(seeds, Ordering::Relaxed);
                return Some((seed, violation));
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let failures: Vec<_> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        handles.into_iter().filter_map(|handle| handle.join().expect("no panic")).collect()
    });
    (failures.into_iter().min_by_key(|(seed, _)| *seed), Clock::system().monotonic().saturating_sub(began))
}

fn assert_seeds_hold(seeds: u64, hops: Hops) {
    let (failure, took) = first_failure(seeds, hops);
    if let Some((seed, violation)) = failure {
        panic!(
            "seed {seed}, {hops:?}: {violation}\nrun it alone with `KLADDER_MODEL_SEED={seed} cargo test --lib \
             model::tests::a_seed_alone -- --nocapture`"
        );
    }
    let a_second = u128::from(seeds) * 1_000 / took.as_millis().max(1);
    println!("{seeds} seeds of {hops:?} in {took:.1?}: {a_second} a second");
}

#[test]
fn seeds_hold_exactly_once() {
    assert_seeds_hold(SEEDS, Hops::ExactlyOnce);
}

#[test]
fn seeds_hold_at_least_once() {
    assert_seeds_hold(SEEDS / 4, Hops::AtLeastOnce);
}

#[test]
fn a_seed_alone() {
    let told = std::env::var("KLADDER_MODEL_SEED").ok();
    let seed = told.as_deref().map_or(0, |text| text.parse().expect("KLADDER_MODEL_SEED is a number"));
    for hops in [Hops::ExactlyOnce, Hops::AtLeastOnce] {
        if told.is_some() {
            println!("{hops:?}");
        }
        if let Err(violation) = World::run(seed, hops, None, told.is_some()) {
            panic!("seed {seed}, {hops:?}: {violation}");
        }
    }
}

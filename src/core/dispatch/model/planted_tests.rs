//! Decisions that are wrong, each of which the mixes have to find. A model that finds no bug that is there proves nothing where none is
//! found.

use crate::core::dispatch::model::mix::{Mix, Nature, Weather, ms, s};
use crate::core::dispatch::model::report::Report;
use crate::core::dispatch::model::world::{run, run_with};
use crate::core::dispatch::{Fair, LaneUse, Policy, Trouble};

/// First come, first served at the door: whose probe has failed is the next one again.
#[derive(Clone, Copy)]
struct FirstCome;

impl Policy for FirstCome {
    fn lane_may_take(&self, lane: LaneUse) -> bool {
        Fair.lane_may_take(lane)
    }

    fn says_nothing(&self, failed_before: Option<Trouble>, now: Trouble) -> bool {
        Fair.says_nothing(failed_before, now)
    }

    fn probe_goes_to_the_end(&self) -> bool {
        false
    }
}

/// A record that fails as it has failed before counts against the handler, and lengthens an outage.
#[derive(Clone, Copy)]
struct DoubtfulCounts;

impl Policy for DoubtfulCounts {
    fn lane_may_take(&self, lane: LaneUse) -> bool {
        Fair.lane_may_take(lane)
    }

    fn says_nothing(&self, _: Option<Trouble>, _: Trouble) -> bool {
        false
    }

    fn probe_goes_to_the_end(&self) -> bool {
        Fair.probe_goes_to_the_end()
    }
}

/// One partition takes all places that are free.
#[derive(Clone, Copy)]
struct OneLane;

impl Policy for OneLane {
    fn lane_may_take(&self, _: LaneUse) -> bool {
        true
    }

    fn says_nothing(&self, failed_before: Option<Trouble>, now: Trouble) -> bool {
        Fair.says_nothing(failed_before, now)
    }

    fn probe_goes_to_the_end(&self) -> bool {
        Fair.probe_goes_to_the_end()
    }
}

const SEEDS: u64 = 20;

/// Runs seeds of a mix with a wrong decision: one of them has to break what all of them keep to without it.
#[track_caller]
fn assert_found<P: Policy + Copy>(mix: &Mix, policy: P, holds: impl Fn(&Report) -> bool) {
    for seed in 0..SEEDS {
        assert!(holds(&run(mix, seed)), "seed {seed} fails without the bug too");
    }
    let found = (0..SEEDS).find(|seed| !holds(&run_with(mix, *seed, policy, false)));
    println!("found by seed {:?}", found.expect("a seed that finds it"));
}

#[test]
fn first_come_first_served_at_the_door_is_found() {
    let mix = Mix { partitions: 2, ..Mix::usual(50.0, ms(5), s(60)) }.with_share(Nature::Errors, 3).with_outage(
        Weather::Errors,
        s(20),
        s(10),
    );
    assert_found(&mix, FirstCome, |report| report.first_after(s(30)) <= s(6));
}

#[test]
fn doubtful_trouble_that_counts_is_found() {
    // It restarts, and answers with errors for long. All that waits has failed before, and most of it always will; a few would succeed,
    // once the handler is well.
    let few = Mix { afterwards: 0, ..Mix::usual(60.0, ms(5), s(10)) };
    let outage = few.with_outage(Weather::Away, ms(10_100), s(2)).with_outage(Weather::Errors, ms(12_100), s(198));
    let mix = outage.with_share(Nature::FailsOnce, 20).with_share(Nature::Errors, 2);
    assert_found(&mix, DoubtfulCounts, |report| report.first_done_after(ms(210_100)) <= s(12));
}

#[test]
fn one_partition_that_takes_all_places_is_found() {
    let mix = Mix::usual(60.0, ms(5), s(60)).with_run(Nature::Hangs, s(10), 150);
    assert_found(&mix, OneLane, |report| report.longest_gap(s(1), s(59), |partition| partition != 0) <= s(1));
}

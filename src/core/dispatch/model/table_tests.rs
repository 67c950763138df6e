//! Mixes that once starved healthy records, each with the properties that must hold.

use std::time::Duration;

use crate::core::dispatch::model::mix::{Mix, Nature, Weather, ms, s};
use crate::core::dispatch::model::report::RunReport;
use crate::core::dispatch::model::world::run;

const SEEDS: u64 = 40;

fn each_seed(mix: &Mix, check: impl Fn(&RunReport, u64)) {
    for seed in 0..SEEDS {
        check(&run(mix, seed), seed);
    }
}

fn anywhere(_: usize) -> bool {
    true
}

#[test]
fn after_an_outage_a_third_that_always_fails_holds_nobody_up() {
    let mix = Mix::usual(100.0, ms(5), s(60)).with_share(Nature::Errors, 3).with_outage(Weather::Errors, s(20), s(10));
    each_seed(&mix, |report, seed| {
        let first = report.first_after(s(30));
        assert!(first <= mix.breaker.open_for + s(1), "seed {seed}: {first:?}");
        let rate = report.rate(s(30) + first + s(10), s(60));
        assert!(rate >= 0.95, "seed {seed}: {rate}");
        assert_eq!((report.dead_healthy(), report.left()), (0, 0), "seed {seed}");
    });
}

#[test]
fn many_errors_in_a_row_of_one_partition_hold_no_other_up() {
    let mix = Mix::usual(60.0, ms(5), s(60)).with_run(Nature::Errors, s(10), 300);
    each_seed(&mix, |report, seed| {
        let gap = report.longest_gap(s(1), s(59), |partition| partition != 0);
        assert!(gap <= s(1), "seed {seed}: {gap:?}");
        assert_eq!((report.burnt(), report.left()), (0, 0), "seed {seed}");
    });
}

#[test]
fn many_hanging_records_in_a_row_of_one_partition_hold_no_other_up() {
    let mix = Mix::usual(60.0, ms(5), s(90)).with_run(Nature::Hangs, s(10), 150);
    each_seed(&mix, |report, seed| {
        let gap = report.longest_gap(s(1), s(89), |partition| partition != 0);
        assert!(gap <= s(1), "seed {seed}: {gap:?}");
        let rate = report.rate(s(15), s(75));
        assert!(rate >= 0.9, "seed {seed}: {rate}");
        assert_eq!((report.burnt(), report.left()), (0, 0), "seed {seed}");
    });
}

#[test]
fn many_dropped_connections_in_a_row_of_one_partition_hold_no_other_up() {
    let mix = Mix::usual(60.0, ms(5), s(60)).with_run(Nature::Drops, s(10), 30);
    each_seed(&mix, |report, seed| {
        let gap = report.longest_gap(s(1), s(59), |partition| partition != 0);
        assert!(gap <= s(1), "seed {seed}: {gap:?}");
        assert_eq!((report.burnt(), report.left()), (0, 0), "seed {seed}");
    });
}

fn one_in_a_hundred_drops(rate: f64, takes: Duration, share: f64) {
    let mix = Mix::usual(rate, takes, s(120)).with_share(Nature::Drops, 100);
    each_seed(&mix, |report, seed| {
        let gap = report.longest_gap(s(5), s(119), anywhere);
        assert!(gap <= s(2), "seed {seed}: {gap:?}");
        let got = report.rate(s(5), s(120));
        assert!(got >= share, "seed {seed}: {got}");
        assert_eq!((report.burnt(), report.left()), (0, 0), "seed {seed}");
    });
}

#[test]
fn one_in_a_hundred_that_drops_its_connection_costs_the_others_nothing() {
    one_in_a_hundred_drops(100.0, ms(5), 0.95);
}

#[test]
fn nor_does_it_where_calls_are_slow() {
    one_in_a_hundred_drops(40.0, s(1), 0.9);
}

#[test]
fn one_that_drops_and_one_that_hangs_in_a_hundred_leave_the_others_their_places() {
    for (rate, takes) in [(100.0, ms(5)), (40.0, s(1))] {
        let mix = Mix::usual(rate, takes, s(120)).with_share(Nature::Drops, 100).with_share(Nature::Hangs, 101);
        each_seed(&mix, |report, seed| {
            let got = report.rate(s(5), s(120));
            assert!(got >= 0.8, "seed {seed}: {got}");
            assert_eq!((report.burnt(), report.left()), (0, 0), "seed {seed}");
        });
    }
}

#[test]
fn one_in_five_hundred_that_kills_the_handler_costs_little_more_than_its_revival() {
    let mix = Mix::usual(50.0, ms(200), s(120)).with_share(Nature::Kills, 500);
    each_seed(&mix, |report, seed| {
        let deaths = u32::try_from(report.deaths).expect("few");
        let away = f64::from(deaths) * 0.5;
        // Each of the twelve kills it three times until it is found, and once or twice at each later attempt.
        assert!(deaths <= 12 * 10, "seed {seed}: {deaths} deaths");
        let done = report.done_a_second(s(5), s(120));
        assert!(done >= 50.0 * 0.8 * (1.0 - away / 120.0), "seed {seed}: {done} a second, away for {away} s");
        assert_eq!((report.dead_healthy(), report.left()), (0, 0), "seed {seed}");
        assert!(report.burnt() <= 2, "seed {seed}: {}", report.burnt());
    });
}

#[test]
fn a_restart_of_the_handler_is_a_short_gap() {
    for takes in [s(1), s(3)] {
        let rate = if takes == s(1) { 40.0 } else { 15.0 };
        let mix = Mix { timeout: s(10), ..Mix::usual(rate, takes, s(60)) }.with_outage(Weather::Away, s(10), s(2));
        each_seed(&mix, |report, seed| {
            let gap = report.longest_gap(s(1), s(59), anywhere);
            assert!(gap <= s(2) + takes + s(2), "seed {seed}: {gap:?}");
            assert_eq!((report.burnt(), report.left()), (0, 0), "seed {seed}");
        });
    }
}

#[test]
fn a_restart_every_twenty_seconds_costs_a_tenth() {
    let mut mix = Mix { timeout: s(10), ..Mix::usual(50.0, s(1), s(120)) };
    for restart in 0..6 {
        mix = mix.with_outage(Weather::Away, s(10 + restart * 20), s(2));
    }
    each_seed(&mix, |report, seed| {
        let done = report.done_a_second(s(10), s(110));
        assert!(done >= 0.9 * 50.0, "seed {seed}: {done}");
        assert!(report.burnt() <= 63, "seed {seed}: {}", report.burnt());
        assert_eq!((report.dead_healthy(), report.left()), (0, 0), "seed {seed}");
    });
}

#[test]
fn an_outage_burns_no_attempt_whatever_it_is_like() {
    for weather in [Weather::Errors, Weather::Hangs, Weather::Away] {
        for rate in [0.5, 5.0, 100.0] {
            let mix = Mix::usual(rate, ms(5), s(1_000)).with_outage(weather, s(100), s(600));
            for seed in 0..4 {
                let report = run(&mix, seed);
                assert_eq!((report.dead(), report.left()), (0, 0), "{weather:?}, {rate}, seed {seed}");
                // If records are rare, the first ones of a partition are alone with their failures for a while.
                assert!(report.burnt() <= 4, "{weather:?}, {rate}, seed {seed}: {}", report.burnt());
            }
        }
    }
}

#[test]
fn a_few_records_in_an_outage_are_not_run_down_by_probes() {
    let few = Mix { afterwards: 0, ..Mix::usual(20.0, ms(5), ms(1_500)) };
    let mut mix = few.with_outage(Weather::Errors, s(0), s(600));
    (mix.breaker.open_for, mix.breaker.open_most) = (s(1), s(1));
    each_seed(&mix, |report, seed| {
        assert_eq!((report.dead(), report.left(), report.burnt()), (0, 0, 0), "seed {seed}");
    });
}

#[test]
fn a_lonely_record_that_always_fails_climbs_and_dies() {
    for nature in [Nature::Errors, Nature::Hangs, Nature::Drops, Nature::Kills] {
        let mix = Mix { afterwards: 0, ..Mix::usual(0.001, ms(5), s(1)) }.with_run(nature, s(2), 1);
        let report = run(&mix, 0);
        assert_eq!(report.dead(), 1, "{nature:?}");
    }
}

#[test]
fn records_behind_three_hundred_errors_of_the_only_partition_come_through() {
    let mix = Mix { partitions: 1, ..Mix::usual(20.0, ms(5), s(120)) }.with_run(Nature::Errors, s(10), 300);
    each_seed(&mix, |report, seed| {
        let gap = report.longest_gap(s(1), s(119), anywhere);
        assert!(gap <= s(40), "seed {seed}: {gap:?}");
        assert_eq!(report.left(), 0, "seed {seed}");
    });
}

//! The rules of the dispatch one by one, each in its own situation.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::core::dispatch::{
    Begun, BreakerSettings, BreakerState, CallId, CallOutcome, Departure, Dispatch, DispatchSettings, Kind, Standing, Ticket,
    Trouble,
};
use crate::core::leader_clock::LocalTime;

/// A dispatch, its clock, and the running calls by record.
struct Desk {
    dispatch: Dispatch<u64>,
    now: LocalTime,
    calls: BTreeMap<u64, CallId>,
}

fn settings(places: usize) -> DispatchSettings {
    DispatchSettings { places, unsettled: 0, redeliver_share: 0.5, breaker: Some(BreakerSettings::default()) }
}

fn ticket(record: u64, partition: u64) -> Ticket {
    Ticket { lane: partition, partition, record, key: record, failed_before: None, count_start: false }
}

const GOOD: CallOutcome = CallOutcome::Good(None);
const ERROR: CallOutcome = CallOutcome::Trouble(Trouble::Errors, None);
const TIMEOUT: CallOutcome = CallOutcome::Trouble(Trouble::Timeouts, None);
const LOST: CallOutcome = CallOutcome::Trouble(Trouble::LostConnections, None);
const UNREACHABLE: CallOutcome = CallOutcome::Trouble(Trouble::Unreachable, None);

const SECOND: Duration = Duration::from_secs(1);

impl Desk {
    fn new(settings: DispatchSettings, partitions: u64) -> Self {
        let mut dispatch = Dispatch::new(settings);
        (0..partitions).for_each(|partition| dispatch.open_lane(partition, Kind::Source));
        Self { dispatch, now: LocalTime::from_micros(1_000_000), calls: BTreeMap::new() }
    }

    fn arrive(&mut self, record: u64, partition: u64) {
        self.dispatch.arrive(ticket(record, partition), record);
    }

    /// Begins all calls that may begin, and returns the records.
    fn begin(&mut self) -> Vec<u64> {
        let mut begun = Vec::new();
        while let Some(Begun { call, job, .. }) = self.dispatch.next(self.now) {
            self.calls.insert(job, call);
            begun.push(job);
        }
        begun
    }

    fn end(&mut self, record: u64, outcome: CallOutcome) {
        let call = self.calls.remove(&record).expect("a call that runs");
        self.dispatch.ended(call, record, outcome, self.now);
    }

    /// Ends all running calls.
    fn end_all(&mut self, outcome: CallOutcome) -> usize {
        let records: Vec<u64> = self.calls.keys().copied().collect();
        for record in &records {
            self.end(*record, outcome);
        }
        records.len()
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now.later(time);
    }

    /// The records that have left, and how. Their slots are free again.
    fn over(&mut self) -> Vec<(u64, Departure)> {
        let over = self.dispatch.take_over();
        let left = over.into_iter().map(|over| {
            over.place.into_iter().for_each(|kind| self.dispatch.release(kind, 1));
            (over.job, over.fate)
        });
        left.collect()
    }

    fn is(&self) -> BreakerState {
        self.dispatch.standing().breaker()
    }
}

/// Two partitions of which everything fails, until the handler is down.
fn down(outcome: CallOutcome) -> Desk {
    let mut desk = Desk::new(settings(8), 2);
    for record in 0..8 {
        desk.arrive(record, record % 2);
    }
    for _ in 0..30 {
        desk.begin();
        desk.end_all(outcome);
        desk.pass(Duration::from_millis(100));
        if desk.is() == BreakerState::Open {
            break;
        }
    }
    assert_eq!(desk.is(), BreakerState::Open);
    desk
}

#[test]
fn partitions_take_turns_and_have_equal_shares() {
    let mut desk = Desk::new(settings(7), 2);
    for record in 0..20 {
        desk.arrive(record, 0);
    }
    (20..24).for_each(|record| desk.arrive(record, 1));
    let begun = desk.begin();
    assert_eq!(begun.iter().filter(|record| **record < 20).count(), 3, "{begun:?}");
    assert_eq!(begun.iter().filter(|record| **record >= 20).count(), 3, "{begun:?}");
}

#[test]
fn a_failure_counts_once_a_call_that_began_later_is_answered_well() {
    let mut desk = Desk::new(settings(8), 2);
    desk.arrive(1, 0);
    desk.arrive(2, 1);
    desk.begin();
    desk.pass(Duration::from_millis(10));
    desk.end(1, ERROR);
    // It began before the failure, but not before the failed call.
    desk.end(2, GOOD);
    assert_eq!(desk.over(), [(2, Departure::Counts)]);
    desk.arrive(3, 1);
    desk.begin();
    desk.pass(Duration::from_millis(10));
    desk.end(3, GOOD);
    assert_eq!(desk.over(), [(3, Departure::Counts), (1, Departure::Counts)]);
}

#[test]
fn a_lonely_failure_counts_when_nothing_has_spoken_for_an_outage() {
    let mut desk = Desk::new(settings(8), 1);
    desk.arrive(1, 0);
    desk.begin();
    desk.end(1, ERROR);
    assert_eq!(desk.over(), []);
    desk.pass(SECOND);
    desk.begin();
    assert_eq!((desk.over(), desk.is()), (vec![(1, Departure::Counts)], BreakerState::Closed));
}

#[test]
fn nothing_fails_that_fails_while_the_handler_goes_down() {
    for outcome in [ERROR, TIMEOUT, UNREACHABLE] {
        let mut desk = down(outcome);
        assert_eq!(desk.over(), [], "{outcome:?}");
        assert_eq!(desk.begin(), Vec::<u64>::new());
    }
}

#[test]
fn one_partition_that_fails_says_nothing_of_the_handler_while_another_is_answered() {
    let mut desk = Desk::new(settings(16), 2);
    for round in 0..200 {
        desk.arrive(round, 0);
        if round % 50 == 0 {
            desk.arrive(1_000 + round, 1);
        }
        for record in desk.begin() {
            desk.end(record, if record < 1_000 { ERROR } else { GOOD });
        }
        desk.over();
        desk.pass(Duration::from_millis(20));
        assert_eq!(desk.is(), BreakerState::Closed, "in round {round}");
    }
}

#[test]
fn probes_are_of_different_partitions_and_a_good_one_ends_the_outage() {
    let mut desk = down(ERROR);
    desk.pass(SECOND * 5);
    let probes = desk.begin();
    assert_eq!((probes.len(), probes[0] % 2 + probes[1] % 2), (2, 1), "one of each partition: {probes:?}");
    assert_eq!(desk.is(), BreakerState::HalfOpen);
    desk.end(probes[0], GOOD);
    assert!(matches!(desk.dispatch.standing(), Standing::Degraded { .. }), "{:?}", desk.dispatch.standing());
    desk.end(probes[1], GOOD);
    // More with each good answer.
    assert!(desk.begin().len() > 1);
}

#[test]
fn the_time_between_rounds_grows_with_the_outage_to_its_most() {
    let mut desk = down(ERROR);
    let mut pauses = Vec::new();
    let mut opened_at = desk.now;
    while pauses.len() < 9 {
        desk.pass(Duration::from_millis(50));
        let was_open = desk.is() == BreakerState::Open;
        desk.begin();
        if was_open && desk.is() == BreakerState::HalfOpen {
            pauses.push(desk.now.since(opened_at).as_secs());
        }
        desk.end_all(ERROR);
        desk.begin();
        if desk.is() == BreakerState::Open && !was_open {
            opened_at = desk.now;
        }
    }
    assert!(pauses.is_sorted(), "{pauses:?}");
    assert!(pauses[0] <= 6 && (58..=61).contains(&pauses[8]), "{pauses:?}");
}

#[test]
fn a_record_that_fails_as_before_says_nothing_of_the_handler() {
    let mut desk = Desk::new(settings(64), 2);
    for record in 0..60 {
        desk.dispatch.arrive(Ticket { failed_before: Some(Trouble::Errors), ..ticket(record, record % 2) }, record);
    }
    for _ in 0..40 {
        desk.begin();
        desk.end_all(ERROR);
        desk.pass(Duration::from_millis(100));
        assert_eq!(desk.is(), BreakerState::Closed);
    }
}

#[test]
fn what_timed_out_before_has_a_small_budget() {
    let mut desk = Desk::new(settings(64), 2);
    for record in 0..60 {
        desk.dispatch.arrive(Ticket { failed_before: Some(Trouble::Timeouts), ..ticket(record, 0) }, record);
    }
    (100..110).for_each(|record| desk.arrive(record, 1));
    let begun = desk.begin();
    assert_eq!(begun.iter().filter(|record| **record < 100).count(), 8);
    assert_eq!(begun.iter().filter(|record| **record >= 100).count(), 10);
}

#[test]
fn a_connection_lost_alone_is_tried_once_more_and_then_has_failed() {
    let mut desk = Desk::new(settings(8), 2);
    desk.arrive(1, 0);
    desk.begin();
    for round in 0..2 {
        desk.end(1, LOST);
        desk.pass(Duration::from_millis(60));
        assert_eq!(desk.begin(), if round == 0 { vec![1] } else { vec![] });
    }
    desk.arrive(2, 1);
    desk.begin();
    desk.pass(Duration::from_millis(1));
    desk.end(2, GOOD);
    assert_eq!(desk.over(), [(2, Departure::Counts), (1, Departure::Counts)]);
}

#[test]
fn a_loss_that_is_noticed_late_belongs_to_the_death_of_its_time() {
    let mut desk = Desk::new(settings(8), 2);
    (0..6).for_each(|record| desk.arrive(record, record % 2));
    let first = desk.begin();
    for record in first {
        desk.end(record, LOST);
    }
    desk.pass(Duration::from_millis(60));
    let suspect = desk.begin();
    assert_eq!(suspect.len(), 1, "one of them at a time");
    desk.pass(Duration::from_millis(5));
    (6..8).for_each(|record| desk.arrive(record, record % 2));
    desk.begin();
    desk.pass(Duration::from_millis(5));
    // The handler dies of one of these two, beside which the suspect is called.
    (6..8).for_each(|record| desk.end(record, LOST));
    desk.pass(Duration::from_millis(60));
    desk.arrive(8, 0);
    desk.begin();
    desk.pass(Duration::from_millis(100));
    desk.end(suspect[0], LOST);
    desk.pass(Duration::from_millis(60));
    desk.begin();
    // It answers, so failures count.
    let mut over = desk.over();
    for _ in 0..20 {
        desk.end_all(GOOD);
        over.extend(desk.over());
        desk.pass(Duration::from_millis(60));
        desk.begin();
    }
    assert_eq!(over.iter().filter(|(record, _)| *record == suspect[0]).count(), 1);
    assert_eq!(over.len(), 9, "all have come back well: {over:?}");
    assert!(desk.begin().is_empty());
}

#[test]
fn of_several_lost_together_only_the_one_over_which_the_handler_dies_pays() {
    let mut desk = Desk::new(settings(8), 2);
    (0..6).for_each(|record| desk.arrive(record, record % 2));
    let mut calls: BTreeMap<u64, u32> = BTreeMap::new();
    let (mut over, mut deaths) = (Vec::new(), 0);
    for round in 0..400 {
        // One more now and then, so that it is known to answer.
        if round % 20 == 0 {
            desk.arrive(100 + round, round % 2);
        }
        let begun = desk.begin();
        for record in begun {
            *calls.entry(record).or_default() += 1;
        }
        desk.pass(Duration::from_millis(5));
        if desk.calls.contains_key(&3) {
            deaths += 1;
            desk.end_all(LOST);
        } else {
            desk.end_all(GOOD);
        }
        over.extend(desk.over());
        desk.pass(Duration::from_millis(20));
    }
    assert!(deaths <= 4, "the handler died {deaths} times");
    over.sort_by_key(|(record, _)| *record);
    assert!(over.iter().all(|(_, fate)| *fate == Departure::Counts), "{over:?}");
    assert_eq!(over.iter().filter(|(record, _)| *record < 6).count(), 6);
    assert!(calls.iter().all(|(record, calls)| *calls <= 4 || *record == 3), "{calls:?}");
}

#[test]
fn what_cannot_be_sent_never_fails_unless_there_is_no_breaker() {
    for (breaker, most) in [(Some(BreakerSettings::default()), None), (None, Some(31))] {
        let mut desk = Desk::new(DispatchSettings { breaker, ..settings(8) }, 2);
        desk.arrive(1, 0);
        let mut failed_after = None;
        for step in 0..6_000 {
            desk.begin();
            desk.end_all(UNREACHABLE);
            if !desk.over().is_empty() {
                failed_after = Some(step / 100);
                break;
            }
            desk.pass(Duration::from_millis(10));
        }
        assert_eq!(failed_after.is_some(), most.is_some(), "{breaker:?}");
        assert!(failed_after.unwrap_or(0) <= most.unwrap_or(0));
    }
}

#[test]
fn without_a_breaker_a_failure_counts_at_once() {
    let mut desk = Desk::new(DispatchSettings { breaker: None, ..settings(8) }, 1);
    (0..100).for_each(|record| desk.arrive(record, 0));
    for _ in 0..30 {
        desk.begin();
        desk.end_all(ERROR);
        desk.over();
    }
    assert_eq!((desk.is(), desk.calls.len()), (BreakerState::Closed, 0));
}

#[test]
fn a_partition_that_goes_takes_along_what_has_not_begun() {
    let mut desk = Desk::new(settings(2), 1);
    (0..4).for_each(|record| desk.arrive(record, 0));
    let begun = desk.begin();
    assert_eq!(begun, [0]);
    desk.dispatch.close_lane(0);
    assert_eq!(desk.over(), [(1, Departure::Dropped), (2, Departure::Dropped), (3, Departure::Dropped)]);
    desk.end(0, ERROR);
    assert_eq!(desk.over(), [(0, Departure::Counts)], "its answer was an answer");
    // Late arrivals are dropped.
    desk.arrive(9, 0);
    assert_eq!(desk.over(), [(9, Departure::Dropped)]);
}

#[test]
fn a_connection_lost_while_its_partition_goes_is_the_next_owners() {
    let mut desk = Desk::new(settings(2), 1);
    desk.arrive(0, 0);
    desk.begin();
    desk.dispatch.close_lane(0);
    desk.end(0, LOST);
    assert_eq!(desk.over(), [(0, Departure::Dropped)]);
}

#[test]
fn many_that_cannot_be_delivered_make_room_for_those_behind_them() {
    let mut desk = down(ERROR);
    let mut over = Vec::new();
    for record in 100..20_000 {
        if desk.dispatch.has_room(record % 2) {
            desk.arrive(record, record % 2);
        }
        desk.begin();
        desk.end_all(ERROR);
        over.extend(desk.over());
        desk.pass(SECOND);
    }
    assert!(!over.is_empty(), "it accepts no more records");
    assert!(over.iter().all(|(_, fate)| *fate == Departure::Postponed));
}

#[test]
fn a_failed_attempt_is_repeated_in_place_after_its_pause() {
    let mut desk = Desk::new(settings(8), 1);
    desk.arrive(1, 0);
    desk.begin();
    desk.end(1, CallOutcome::Good(Some(SECOND)));
    assert_eq!((desk.begin(), desk.over()), (vec![], vec![]));
    assert_eq!(desk.dispatch.wake_at(desk.now), Some(desk.now.later(SECOND)));
    desk.pass(SECOND);
    assert_eq!(desk.begin(), [1]);
}

#[test]
fn timeouts_of_most_partitions_halve_the_number_of_calls_and_good_answers_raise_it() {
    let mut desk = Desk::new(settings(64), 4);
    let mut least = 64;
    for record in 0..400 {
        desk.arrive(record, record % 4);
        for record in desk.begin() {
            desk.end(record, if record % 4 == 0 || record > 300 { GOOD } else { TIMEOUT });
        }
        desk.over();
        if let Standing::Degraded { allowed } = desk.dispatch.standing() {
            least = least.min(allowed);
        }
        desk.pass(Duration::from_millis(20));
    }
    assert!(least < 64, "it was never degraded");
    for record in 1_000..3_000 {
        desk.arrive(record, record % 4);
        desk.begin();
        desk.end_all(GOOD);
        desk.over();
        desk.pass(Duration::from_millis(50));
    }
    assert_eq!(desk.dispatch.standing(), Standing::Up);
}

#[test]
fn calls_hang_that_run_for_much_longer_than_calls_usually_do() {
    let mut desk = Desk::new(settings(8), 2);
    (0..4).for_each(|record| desk.arrive(record, record % 2));
    desk.begin();
    desk.pass(SECOND);
    // Records 0 and 2 belong to the first partition.
    for record in [1, 2, 3] {
        desk.end(record, GOOD);
    }
    assert_eq!((desk.dispatch.all_hang(&[0], desk.now), desk.dispatch.all_hang(&[1], desk.now)), (None, Some(0)));
    // They usually take a second.
    desk.pass(SECOND * 4);
    assert_eq!(desk.dispatch.all_hang(&[0], desk.now), Some(1));
    desk.arrive(4, 0);
    desk.begin();
    assert_eq!(desk.dispatch.all_hang(&[0, 1], desk.now), None);
}

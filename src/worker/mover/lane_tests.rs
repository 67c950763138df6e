//! A lane with queues that yield events in any order.

use std::cell::RefCell;

use super::*;
use crate::core::ladder::Ladder;
use crate::telemetry::events::MoverMetrics;

/// A record with an append time.
struct Stub(i64);

impl SourceRecord for Stub {
    fn offset(&self) -> i64 {
        self.0
    }

    fn timestamp(&self) -> Timestamp {
        Timestamp::from_millis(1_000)
    }

    fn key(&self) -> Option<&[u8]> {
        None
    }

    fn value(&self) -> Option<&[u8]> {
        None
    }

    fn header_fault(&self) -> Option<HeaderFault> {
        None
    }

    fn copy_headers(&self) -> NativeHeaders {
        NativeHeaders::new()
    }

    fn take_headers(&mut self) -> NativeHeaders {
        NativeHeaders::new()
    }

    fn broker(&self) -> i32 {
        1
    }

    fn has_append_time(&self) -> bool {
        true
    }
}

/// Yields these one after the other; `None` for nothing, as after the last.
struct StubQueue(TopicPartition, RefCell<VecDeque<Option<Next<Box<Stub>>>>>);

impl RecordQueue for StubQueue {
    type Record = Stub;

    fn poll(&self) -> Option<Next<Box<Stub>>> {
        self.1.borrow_mut().pop_front().flatten()
    }

    fn partition(&self) -> &TopicPartition {
        &self.0
    }
}

fn stub(offset: i64) -> Next<Box<Stub>> {
    Next::Record(Box::new(Stub(offset)))
}

fn lane(given: impl IntoIterator<Item = Option<Next<Box<Stub>>>>) -> Lane<StubQueue> {
    let ladder = Ladder::builder("billing", "g").source("orders").tiers(["5s"]).build().unwrap();
    let delay = ladder.tiers()[0].delay();
    let tp = TopicPartition { topic: "billing.retry-5s".into(), partition: 0 };
    let queue = StubQueue(tp, RefCell::new(given.into_iter().collect()));
    Lane::new(queue, 1, delay, MoverMetrics::new(&ladder).tier(delay), 0)
}

/// Takes the next record, and returns whether it had just been appended.
fn is_next_fresh(lane: &mut Lane<StubQueue>) -> bool {
    for turn in 1..10 {
        if lane.take(LocalTime::from_micros(turn * 1_000_000)) == TakeOutcome::Head {
            return lane.pop().expect("a head").is_fresh;
        }
    }
    panic!("nothing came");
}

#[test]
fn what_comes_to_an_end_at_which_there_was_nothing_is_fresh_and_nothing_else_is() {
    let mut lane = lane([
        // Nothing was fetched yet, and then records that had waited.
        None,
        Some(stub(0)),
        Some(stub(1)),
        // The end was reported while nobody polled, and the next record follows directly.
        Some(Next::End(2)),
        Some(stub(2)),
        Some(Next::End(3)),
        None,
        None,
        Some(stub(3)),
        Some(stub(4)),
        // An error in between: unknown what was there.
        Some(Next::End(5)),
        None,
        Some(Next::Passing),
        Some(stub(5)),
    ]);
    let fresh: Vec<bool> = (0..6).map(|_| is_next_fresh(&mut lane)).collect();
    assert_eq!(fresh, [false, false, false, true, false, false]);
}

#[test]
fn what_comes_again_after_it_was_not_moved_is_not_fresh() {
    let mut lane = lane([Some(Next::End(0)), None, Some(stub(0)), Some(stub(0))]);
    assert!(is_next_fresh(&mut lane));
    lane.go_back();
    assert!(!is_next_fresh(&mut lane));
}

#[test]
fn of_a_paused_partition_nothing_vanishes_that_is_told_but_once() {
    let mut lost = lane([Some(Next::OffsetLost)]);
    assert_eq!(lost.drop_fetched(), TakeOutcome::OffsetLost);
    let mut denied = lane([Some(Next::Denied)]);
    assert_eq!((denied.drop_fetched(), denied.is_stopped(&BarredTargets::default())), (TakeOutcome::Nothing, true));
    let mut given = lane([Some(stub(0)), Some(stub(0)), Some(Next::End(1)), None]);
    assert_eq!(given.drop_fetched(), TakeOutcome::Head);
    assert_eq!(given.head().map(|head| head.offset), Some(0), "a record that is given is kept");
    let rest = [given.drop_fetched(), given.drop_fetched(), given.drop_fetched()];
    assert_eq!(rest, [TakeOutcome::Nothing; 3], "what comes once more, the end, and nothing");
}

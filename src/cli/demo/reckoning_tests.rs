//! Tests of the summary: a run without faults, and each fault that it must find.

use std::time::Duration;

use super::*;
use crate::cli::demo::ledger::LedgerEntry;

/// Everything happens on partition 0 of each topic; times are in milliseconds.
struct Run {
    ledger: Ledger,
    calls: Vec<Call>,
    next: i64,
    committed: i64,
}

fn at(offset: i64) -> RecordPosition {
    RecordPosition { partition: 0, offset }
}

impl Run {
    fn new() -> Self {
        let delays = [1, 3].map(Duration::from_secs).to_vec();
        Self { ledger: Ledger::new(delays), calls: Vec::new(), next: 0, committed: i64::MAX }
    }

    fn sent(&mut self, order: i64, time: i64) -> &mut Self {
        self.ledger.saw(LedgerEntry {
            topic: Topic::Source,
            at: at(order),
            appended: Timestamp::from_millis(time),
            order: at(order),
            attempts: 0,
            reason: None,
        });
        self
    }

    fn wrote(&mut self, topic: Topic, order: i64, attempts: u32, time: i64) -> &mut Self {
        let reason = (topic == Topic::Dlq).then_some("exhausted");
        let appended = Timestamp::from_millis(time);
        self.ledger.saw(LedgerEntry { topic, at: at(self.next), appended, order: at(order), attempts, reason });
        self.next += 1;
        self
    }

    fn called(&mut self, order: i64, attempt: u32, time: i64, answer: DemoAnswer) -> &mut Self {
        self.calls.push(Call { place: at(order), attempt, at: Timestamp::from_millis(time), answer });
        self
    }

    /// One order done at once, one after a retry, one dead-lettered.
    fn in_order() -> Self {
        let mut run = Self::new();
        run.sent(0, 0).called(0, 1, 5, DemoAnswer::Done);
        run.sent(1, 10).called(1, 1, 15, DemoAnswer::Fails).wrote(Topic::Tier(0), 1, 1, 20).wrote(Topic::Redeliver, 1, 1, 1_027);
        run.called(1, 2, 1_030, DemoAnswer::Done);
        run.sent(2, 10).called(2, 1, 40, DemoAnswer::Rejected).wrote(Topic::Dlq, 2, 1, 50);
        run
    }

    fn reckoned(&self) -> Reckoning {
        let outage = Some([2_000, 3_000].map(Timestamp::from_millis));
        let (confirmed, committed) = (count(self.ledger.sent.len()), |_, _| self.committed);
        reckon(
            &self.ledger,
            &ReckoningInput {
                confirmed,
                calls: &self.calls,
                committed: &committed,
                attempts: 3,
                outage,
                ended: Timestamp::from_millis(9_000),
            },
        )
    }
}

#[test]
fn what_ended_once_and_in_time_is_in_order() {
    let reckoning = Run::in_order().reckoned();
    assert!(reckoning.in_order, "{reckoning:#?}");
    assert_eq!([reckoning.sent, reckoning.done, reckoning.dead_lettered, reckoning.waiting], [3, 2, 1, 0]);
    assert_eq!(reckoning.lateness_ms, Some(Lateness { p50: 7, p99: 7, max: 7 }));
    // The third order was there at 10, the second delivered at 15.
    assert_eq!(reckoning.longest_stall_ms, StallMs { handler_up: 25, outage: 0 });
    assert_eq!((reckoning.calls, reckoning.repeated_calls, reckoning.hops.as_slice()), (4, 0, &[1, 0][..]));
    assert!(reckoning.text().contains("in order: sent = done + dead-lettered + waiting"), "{}", reckoning.text());
}

#[test]
fn an_order_that_is_never_delivered_stalls_its_partition_until_the_end() {
    let mut run = Run::in_order();
    run.sent(3, 4_000);
    run.committed = 3;
    assert_eq!(run.reckoned().longest_stall_ms.handler_up, 5_000, "{:#?}", run.reckoned());
}

#[test]
fn what_nobody_has_committed_waits_and_what_is_committed_is_lost() {
    let mut run = Run::in_order();
    run.sent(3, 60).called(3, 1, 70, DemoAnswer::Fails).wrote(Topic::Tier(0), 3, 1, 80);
    run.committed = run.next - 1;
    assert_eq!((run.reckoned().waiting, run.reckoned().lost, run.reckoned().in_order), (1, 0, true));
    run.committed = run.next;
    assert_eq!((run.reckoned().waiting, run.reckoned().lost, run.reckoned().in_order), (0, 1, false));
    assert!(run.reckoned().text().contains("lost: order at 0/3"), "{}", run.reckoned().text());
}

#[test]
fn a_record_that_stands_twice_or_ends_twice_is_doubled() {
    for topic in [Topic::Tier(0), Topic::Redeliver] {
        let mut run = Run::in_order();
        run.wrote(topic, 1, 1, 2_000);
        assert_eq!((run.reckoned().doubled, run.reckoned().in_order), (1, false), "{topic:?}");
    }
    let mut run = Run::in_order();
    run.called(1, 3, 2_000, DemoAnswer::Done);
    assert_eq!((run.reckoned().doubled, run.reckoned().in_order), (1, false));
    let mut run = Run::in_order();
    run.wrote(Topic::Dlq, 0, 1, 2_000);
    assert_eq!((run.reckoned().doubled, run.reckoned().in_order), (1, false));
}

#[test]
fn a_call_that_was_repeated_is_told_and_no_fault() {
    let mut run = Run::in_order();
    run.called(1, 2, 1_040, DemoAnswer::Done);
    assert_eq!((run.reckoned().repeated_calls, run.reckoned().in_order), (1, true));
}

#[test]
fn a_record_before_its_time_is_early() {
    let mut run = Run::in_order();
    run.sent(3, 0).called(3, 1, 5, DemoAnswer::Fails).wrote(Topic::Tier(1), 3, 1, 10).wrote(Topic::Redeliver, 3, 1, 3_009);
    run.called(3, 2, 3_010, DemoAnswer::Done);
    assert_eq!((run.reckoned().early, run.reckoned().in_order), (1, false));
}

#[test]
fn what_was_not_sent_or_not_kept_is_a_fault() {
    let mut run = Run::in_order();
    run.called(9, 1, 5, DemoAnswer::Done);
    assert!(!run.reckoned().in_order);
    let run = Run::in_order();
    let facts = ReckoningInput {
        confirmed: 4,
        calls: &run.calls,
        committed: &|_, _| i64::MAX,
        attempts: 3,
        outage: None,
        ended: Timestamp::from_millis(0),
    };
    assert_eq!(reckon(&run.ledger, &facts).faults, ["4 orders were confirmed by the broker, but 3 are on the source"]);
    let mut run = Run::in_order();
    run.wrote(Topic::Redeliver, 0, 1, 500);
    assert!(!run.reckoned().in_order);
}

#[test]
fn what_stands_still_over_the_outage_is_told_apart() {
    let mut run = Run::in_order();
    run.sent(3, 1_990).called(3, 1, 3_400, DemoAnswer::Done).sent(4, 3_300).called(4, 1, 3_430, DemoAnswer::Done);
    assert_eq!(run.reckoned().longest_stall_ms, StallMs { handler_up: 30, outage: 1_410 });
}

//! How long a transaction's markers take to be written, which delays the next transaction.
//!
//! A commit is confirmed before its markers are written. Until they are, the coordinator answers the next transaction's first request with
//! `CONCURRENT_TRANSACTIONS`, and librdkafka repeats it after 20 ms, regardless of configuration (`rd_kafka_txn_handle_AddPartitionsToTxn`
//! in 2.12). So it pays to begin a little later: a gap that is just long enough costs some milliseconds instead of 20. Its length depends
//! on the broker and its load, and is not reported; it is found by trial, like a congestion window: a request that met the markers widens
//! the gap by a step, every other one narrows it by a fraction of one.

use std::time::Duration;

/// Minimum duration of a first delivery whose request met the markers of the previous transaction.
const REPEATED: Duration = Duration::from_millis(20);

/// Increase of the gap after that: with 64 transactions between two such ones, half of it is given back.
const STEP: Duration = Duration::from_millis(1);

/// Decrease of the gap after a transaction that met none.
const GIVEN_BACK: Duration = Duration::from_micros(8);

/// The gap never exceeds the cost of a repetition.
const WIDEST: Duration = Duration::from_millis(20);

/// The gap between one transaction's commit and the next one's beginning.
#[derive(Debug, Default)]
pub(crate) struct MarkerGap(Duration);

impl MarkerGap {
    /// Reports how long the first delivery of a transaction took that was begun after this gap.
    pub(crate) fn first_delivery(&mut self, took: Duration) {
        self.0 = if took >= REPEATED { (self.0 + STEP).min(WIDEST) } else { self.0.saturating_sub(GIVEN_BACK) };
    }

    /// How long to wait after a commit.
    pub(crate) fn width(&self) -> Duration {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Transactions of a broker that needs this long for its markers: how many of them met markers, and the final width.
    fn after(transactions: usize, markers: Duration) -> (usize, Duration) {
        let mut gap = MarkerGap::default();
        let mut met = 0;
        for _ in 0..transactions {
            let meets = gap.width() < markers;
            met += usize::from(meets);
            gap.first_delivery(Duration::from_millis(if meets { 23 } else { 3 }));
        }
        (met, gap.width())
    }

    #[test]
    fn the_gap_becomes_as_wide_as_the_markers_take_and_few_meet_them() {
        let (met, width) = after(2_000, Duration::from_millis(4));
        assert!(met < 30, "{met} of 2000");
        assert!((4_000..=5_000).contains(&width.as_micros()), "{width:?}");
    }

    #[test]
    fn a_broker_whose_markers_are_there_at_once_is_not_waited_for() {
        assert_eq!(after(100, Duration::ZERO), (0, Duration::ZERO));
    }

    #[test]
    fn the_gap_is_never_wider_than_what_it_saves() {
        assert_eq!(after(500, Duration::from_secs(1)).1, WIDEST);
    }
}

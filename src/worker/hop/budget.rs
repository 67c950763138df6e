//! How much goes into one transaction: no more than can be written well before the coordinator ends it.

use std::time::Duration;

use crate::core::leader_clock::LocalTime;
use crate::kafka::producer::TRANSACTION_TIMEOUT;

/// The most bytes of keys and values of a transaction.
const MOST_BYTES: usize = 128 * 1024 * 1024;

/// What no transaction is bounded below.
const LEAST_BYTES: usize = 64 * 1024;

/// A transaction is to be over in this part of the time that it may take.
const SHARE: u32 = 4;

/// Of fewer bytes the time says nothing of how fast they were written: it is what a transaction takes in any case.
const TELLING_BYTES: usize = 4 * 1024 * 1024;

/// One that failed after this part of its time has most likely failed for that.
const LATE: Duration = Duration::from_secs(TRANSACTION_TIMEOUT.as_secs() * 3 / 5);

/// The bound of the next transaction.
#[derive(Debug)]
pub(in crate::worker) struct Budget {
    bytes: usize,
}

impl Budget {
    pub(in crate::worker) fn new() -> Self {
        Self { bytes: MOST_BYTES }
    }

    /// The most bytes of keys and values of the next transaction. A single record goes in any case.
    pub(in crate::worker) fn bytes(&self) -> usize {
        self.bytes
    }

    /// For how long a transaction is filled at most.
    pub(in crate::worker) fn fill_time() -> Duration {
        TRANSACTION_TIMEOUT / SHARE
    }

    /// So many bytes were written and committed.
    pub(in crate::worker) fn committed(&mut self, bytes: usize, began: LocalTime, now: LocalTime) {
        let grown = self.bytes.saturating_mul(2);
        let took = now.since(began).max(Duration::from_millis(1));
        let measured = (bytes >= TELLING_BYTES).then(|| {
            let most = bytes as u128 * Self::fill_time().as_micros() / took.as_micros();
            usize::try_from(most).unwrap_or(usize::MAX)
        });
        self.bytes = measured.map_or(grown, |most| grown.min(most)).clamp(LEAST_BYTES, MOST_BYTES);
    }

    /// So many bytes were not written, and whether that took too long.
    pub(in crate::worker) fn failed(&mut self, bytes: usize, began: LocalTime, now: LocalTime) {
        if now.since(began) >= LATE {
            self.bytes = (self.bytes.min(bytes) / 2).max(LEAST_BYTES);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    #[test]
    fn on_a_slow_link_the_bound_is_halved_until_it_fits_and_then_follows_the_rate() {
        let mut budget = Budget::new();
        let began = LocalTime::from_micros(0);
        let at = |seconds: u64| began.later(Duration::from_secs(seconds));
        // 3 MB a second.
        let mut rounds = 0;
        loop {
            let bytes = budget.bytes();
            let seconds = (bytes / 3_000_000) as u64;
            if seconds < 8 {
                budget.committed(bytes, began, at(seconds.max(1)));
                break;
            }
            budget.failed(bytes, began, at(8));
            rounds += 1;
        }
        assert_eq!(rounds, 3, "128, 64 and 32 MiB");
        assert!((6 * MIB..9 * MIB).contains(&budget.bytes()), "{}", budget.bytes());
        // What fails at once fails for another reason.
        let before = budget.bytes();
        budget.failed(before, began, at(1));
        assert_eq!(budget.bytes(), before);
        (0..9).for_each(|_| budget.committed(1_000, began, at(1)));
        assert_eq!(budget.bytes(), MOST_BYTES, "and it comes back");
    }
}

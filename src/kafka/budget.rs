//! The size of a transaction: small enough to be written well before the coordinator would abort it.

use std::time::Duration;

use crate::core::leader_clock::LocalTime;
use crate::kafka::producer::TRANSACTION_TIMEOUT;

/// Maximum size of keys and values of a transaction.
const MOST_BYTES: usize = 128 * 1024 * 1024;

/// Minimum limit of a transaction.
const LEAST_BYTES: usize = 64 * 1024;

/// A transaction should take at most this part of its timeout.
const SHARE: u32 = 4;

/// With fewer bytes the time says nothing about the speed: it is what any transaction takes.
const TELLING_BYTES: usize = 4 * 1024 * 1024;

/// A transaction that failed after this part of its timeout probably failed because of that.
const LATE: Duration = Duration::from_secs(TRANSACTION_TIMEOUT.as_secs() * 3 / 5);

/// The limit of the next transaction.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes: usize,
}

impl Budget {
    /// Before the first transaction.
    pub(crate) fn new() -> Self {
        Self { bytes: MOST_BYTES }
    }

    /// Maximum size of keys and values of the next transaction. A single larger record is allowed.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Maximum time of filling a transaction.
    pub(crate) fn fill_time() -> Duration {
        TRANSACTION_TIMEOUT / SHARE
    }

    /// This many bytes were written and committed.
    pub(crate) fn committed(&mut self, bytes: usize, began: LocalTime, now: LocalTime) {
        let grown = self.bytes.saturating_mul(2);
        let took = now.since(began).max(Duration::from_millis(1));
        let measured = (bytes >= TELLING_BYTES).then(|| {
            let most = bytes as u128 * Self::fill_time().as_micros() / took.as_micros();
            usize::try_from(most).unwrap_or(usize::MAX)
        });
        self.bytes = measured.map_or(grown, |most| grown.min(most)).clamp(LEAST_BYTES, MOST_BYTES);
    }

    /// This many bytes were not written; determines whether that took too long. With few bytes the time is no evidence: it was
    /// an outage, or the transaction has not even begun.
    pub(crate) fn failed(&mut self, bytes: usize, began: LocalTime, now: LocalTime) {
        if bytes > LEAST_BYTES && now.since(began) >= LATE {
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
        // 3 MB per second.
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
        // A failure at once has another cause.
        let before = budget.bytes();
        budget.failed(before, began, at(1));
        assert_eq!(budget.bytes(), before);
        // An outage does not depend on the few bytes that it met.
        budget.failed(0, began, at(50));
        budget.failed(1_000, began, at(50));
        assert_eq!(budget.bytes(), before);
        (0..9).for_each(|_| budget.committed(1_000, began, at(1)));
        assert_eq!(budget.bytes(), MOST_BYTES, "and it comes back");
    }
}

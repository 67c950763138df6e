//! Estimates the offset between a broker's clock and the worker's.
//!
//! Due times are in the broker's time, waiting is done in the worker's. The protocol has no request for a broker's clock, but
//! every append time is a reading of it: a fetched record was appended before now, and a record whose write was just confirmed
//! was appended between sending and confirmation. Each reading bounds the offset between the clocks from below, a confirmed
//! write also from above.
//!
//! The estimate is the lower bound: with it a worker never assumes that a leader's clock is further ahead than it is, so it
//! is never early by that clock, and late by at most the fastest round trip seen.

use std::time::Duration;

use crate::core::time::Timestamp;

/// The worker's own clock: microseconds since the Unix epoch at the start of the process, advanced by the monotonic clock, so
/// that a jump of the machine's wall clock does not affect it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalTime(i64);

impl LocalTime {
    /// From epoch microseconds.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// As epoch microseconds.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// As a Kafka timestamp, truncated to milliseconds.
    #[must_use]
    pub fn timestamp(self) -> Timestamp {
        Timestamp::from_millis(self.0.div_euclid(1_000))
    }

    /// A moment that much later.
    #[must_use]
    pub fn later(self, by: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)))
    }

    /// The time since `earlier`; zero when that is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0 - earlier.0).unwrap_or(0))
    }
}

/// Two clocks drift by up to 100 parts per million, so a bound weakens by 1 µs per 10 ms.
const DRIFT_DIVISOR: i64 = 10_000;

#[derive(Debug, Clone, Copy)]
struct Bound {
    /// Leader minus worker, in microseconds.
    offset: i64,
    seen: LocalTime,
}

/// The known bounds of one leader's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct LeaderClock {
    lower: Option<Bound>,
    upper: Option<Bound>,
    /// The lower bound comes from a record that had just been appended, or from a better source.
    is_fresh: bool,
}

impl LeaderClock {
    /// A record appended at `appended` was fetched at `now`.
    pub fn fetched(&mut self, appended: Timestamp, now: LocalTime) {
        let offset = appended.as_micros().saturating_sub(now.0);
        let weaker = self.lower_at(now).is_none_or(|known| known < offset);
        if weaker {
            self.lower = Some(Bound { offset, seen: now });
        }
        // Below the lower bound: the leader's clock was set forward since.
        if self.upper_at(now).is_some_and(|upper| upper < offset) {
            self.upper = None;
        }
    }

    /// The same for a record beyond the previous end of its partition: it was appended just before it was fetched, so the bound is close.
    pub fn fetched_fresh(&mut self, appended: Timestamp, now: LocalTime) {
        self.fetched(appended, now);
        self.is_fresh = true;
    }

    /// A record sent at `sent` was confirmed at `confirmed` with this append time.
    pub fn written(&mut self, sent: LocalTime, appended: Timestamp, confirmed: LocalTime) {
        // The append time is truncated to milliseconds, so the true one is up to 1 ms later.
        let upper = appended.as_micros().saturating_add(1_000).saturating_sub(sent.0);
        if self.lower_at(confirmed).is_some_and(|lower| lower > upper) {
            // The leader's clock was set back since.
            self.lower = None;
        }
        if self.upper_at(confirmed).is_none_or(|known| known > upper) {
            self.upper = Some(Bound { offset: upper, seen: confirmed });
        }
        self.fetched(appended, confirmed);
    }

    /// Leader minus worker in microseconds, as the highest certain value; `None` until a confirmed write, or a record that had just been
    /// appended, has made the lower bound current.
    #[must_use]
    pub fn offset(&self, now: LocalTime) -> Option<i64> {
        self.lower_at(now).filter(|_| self.upper.is_some() || self.is_fresh)
    }

    /// The lower bound alone, in microseconds, even if it comes from old records.
    #[must_use]
    pub fn lower_at(&self, now: LocalTime) -> Option<i64> {
        self.lower.map(|b| b.offset - (now.0 - b.seen.0).max(0) / DRIFT_DIVISOR)
    }

    /// The upper bound alone, in microseconds: the lowest certain value.
    #[must_use]
    pub fn upper_at(&self, now: LocalTime) -> Option<i64> {
        self.upper.map(|b| b.offset + (now.0 - b.seen.0).max(0) / DRIFT_DIVISOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> LocalTime {
        LocalTime::from_micros(millis * 1_000)
    }

    #[test]
    fn a_confirmed_write_brackets_the_offset() {
        let mut clock = LeaderClock::default();
        // The leader is 30 s behind; the write took 4 ms.
        clock.written(at(100_000), Timestamp::from_millis(70_002), at(100_004));
        let offset = clock.offset(at(100_004)).unwrap();
        assert!((-30_002_000..=-29_998_000).contains(&offset), "{offset}");
    }

    #[test]
    fn old_records_do_not_spoil_the_estimate() {
        let mut clock = LeaderClock::default();
        clock.fetched(Timestamp::from_millis(10_000), at(600_000));
        assert_eq!(clock.offset(at(600_000)), None, "a record that waited for ten minutes says nothing about the clock");
        clock.written(at(600_000), Timestamp::from_millis(600_001), at(600_002));
        assert_eq!(clock.offset(at(600_002)), Some(-1_000));
    }

    #[test]
    fn a_clock_that_is_set_back_is_followed() {
        let mut clock = LeaderClock::default();
        clock.written(at(1_000), Timestamp::from_millis(31_000), at(1_002));
        assert!(clock.offset(at(1_002)).unwrap() > 29_000_000);
        clock.written(at(2_000), Timestamp::from_millis(2_001), at(2_002));
        assert!(clock.offset(at(2_002)).unwrap() < 1_000_000);
    }
}

//! The brokers' clocks, as far as known to this process.

use std::collections::HashMap;
use std::time::Duration;

use crate::core::leader_clock::{LeaderClock, LocalTime};
use crate::core::time::Timestamp;
use crate::kafka::outgoing::ClockReading;

/// The source of the brokers' time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BrokersClock {
    /// The append time of each record, with any offset.
    #[default]
    Theirs,
    /// The worker's own clock: the broker is embedded in this process. Its append times are not real (it answers with 1234), so
    /// they are ignored.
    Own,
}

/// What is known about the brokers' clocks.
#[derive(Debug, Default)]
pub struct Leaders {
    by_broker: HashMap<i32, LeaderClock>,
    /// The clock of the broker that last confirmed a write: assumed for brokers without a confirmed
    /// write.
    any: LeaderClock,
    last_reading: Option<LocalTime>,
    clock: BrokersClock,
}

impl Leaders {
    /// For brokers with such a clock; nothing was read yet.
    #[must_use]
    pub fn with(clock: BrokersClock) -> Self {
        Self { clock, ..Self::default() }
    }

    /// A record was fetched.
    pub fn fetched(&mut self, broker: i32, appended: Timestamp, now: LocalTime) {
        if self.clock == BrokersClock::Own {
            return;
        }
        self.by_broker.entry(broker).or_default().fetched(appended, now);
    }

    /// A record was fetched that had just been appended: it directly follows the previous end of its partition.
    pub fn fetched_fresh(&mut self, broker: i32, appended: Timestamp, now: LocalTime) {
        if self.clock == BrokersClock::Own {
            return;
        }
        self.by_broker.entry(broker).or_default().fetched_fresh(appended, now);
    }

    /// A write was confirmed.
    pub fn read(&mut self, reading: &ClockReading) {
        if self.clock == BrokersClock::Own {
            return;
        }
        self.by_broker.entry(reading.broker).or_default().written(reading.sent, reading.appended, reading.confirmed);
        self.any.written(reading.sent, reading.appended, reading.confirmed);
        self.last_reading = Some(reading.confirmed);
    }

    /// Whether a broker's clock was read within this time, or is the worker's own.
    #[must_use]
    pub fn was_read_within(&self, time: Duration, now: LocalTime) -> bool {
        self.clock == BrokersClock::Own || self.last_reading.is_some_and(|at| now.since(at) < time)
    }

    /// Whether the brokers' append times can be trusted.
    #[must_use]
    pub fn has_append_times(&self) -> bool {
        self.clock == BrokersClock::Theirs
    }

    /// Whether the brokers' time is known at all.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.clock == BrokersClock::Own || self.last_reading.is_some()
    }

    /// Leader minus worker, in microseconds: never more than the true value, so that no record is early by the
    /// leader's clock.
    #[must_use]
    pub fn offset(&self, broker: i32, now: LocalTime) -> i64 {
        let own = self.by_broker.get(&broker);
        own.and_then(|clock| clock.offset(now)).unwrap_or_else(|| {
            // A record appended "in the future" proves that its leader is ahead; one from the past proves nothing.
            let known = self.any.offset(now).unwrap_or(0);
            own.and_then(|clock| clock.lower_at(now)).map_or(known, |lower| lower.max(known))
        })
    }

    /// The broker's time now, in epoch microseconds.
    #[must_use]
    pub fn now(&self, broker: i32, now: LocalTime) -> i64 {
        now.as_micros() + self.offset(broker, now)
    }

    /// An upper bound of all brokers' times now, in epoch microseconds, as far as read: a delay counted from then is not too short.
    #[must_use]
    pub fn latest(&self, now: LocalTime) -> i64 {
        let most = self.by_broker.values().filter_map(|clock| clock.upper_at(now)).max();
        now.as_micros() + most.unwrap_or_else(|| self.any.offset(now).unwrap_or(0))
    }

    /// The offset that deviates most from zero, in microseconds.
    #[must_use]
    pub fn furthest_offset(&self, now: LocalTime) -> i64 {
        self.by_broker.values().filter_map(|clock| clock.offset(now)).max_by_key(|o| o.abs()).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> LocalTime {
        LocalTime::from_micros(millis * 1_000)
    }

    /// A write to broker 1 that took 4 ms, when the brokers' clocks were at `appended`.
    fn reading(sent: i64, appended: i64) -> ClockReading {
        ClockReading { broker: 1, sent: at(sent), appended: Timestamp::from_millis(appended), confirmed: at(sent + 4) }
    }

    #[test]
    fn a_worker_whose_clock_is_30_s_off_waits_by_the_brokers() {
        for skew in [-30_000, 30_000] {
            let mut leaders = Leaders::default();
            leaders.read(&reading(1_000_000 + skew, 1_000_002));
            let now = at(1_005_000 + skew);
            for broker in [1, 2] {
                let late = now.as_micros() - skew * 1_000 - leaders.now(broker, now);
                assert!((0..=4_000).contains(&late), "broker {broker}, worker off by {skew} ms: {late} µs late");
            }
        }
    }

    #[test]
    fn a_clock_that_is_the_workers_own_needs_no_reading() {
        assert!(!Leaders::default().is_known() && !Leaders::default().was_read_within(Duration::MAX, at(5)));
        let mut leaders = Leaders::with(BrokersClock::Own);
        leaders.read(&reading(4, 1_234));
        leaders.fetched(1, Timestamp::from_millis(9_999), at(4));
        assert!(leaders.is_known() && leaders.was_read_within(Duration::ZERO, at(5)));
        assert_eq!(leaders.now(1, at(5)), 5_000);
    }

    #[test]
    fn a_broker_that_was_never_written_to_is_not_presumed_ahead_once_a_fresh_record_of_it_was_seen() {
        const BEHIND: i64 = 30_000;
        let mut leaders = Leaders::default();
        leaders.read(&reading(1_000_000, 1_000_002));
        // The clock of broker 2 is half a minute behind. A record that has waited for long does not show
        // that.
        leaders.fetched(2, Timestamp::from_millis(400_000), at(1_001_000));
        assert!(leaders.offset(2, at(1_001_000)) > -BEHIND * 1_000, "until then nothing better is known than of the others");
        // A record appended 40 ms before it was fetched does.
        leaders.fetched_fresh(2, Timestamp::from_millis(1_002_000 - 40 - BEHIND), at(1_002_000));
        let now = at(1_003_000);
        let late = now.as_micros() - BEHIND * 1_000 - leaders.now(2, now);
        assert!((0..=41_000).contains(&late), "{late} µs late, and never early");
        // A better one improves the bound, and one that took long does not worsen it.
        leaders.fetched_fresh(2, Timestamp::from_millis(1_003_000 - 2 - BEHIND), now);
        leaders.fetched_fresh(2, Timestamp::from_millis(1_004_000 - 900 - BEHIND), at(1_004_000));
        let now = at(1_005_000);
        let late = now.as_micros() - BEHIND * 1_000 - leaders.now(2, now);
        assert!((0..=3_000).contains(&late), "{late} µs late");
    }

    #[test]
    fn old_records_do_not_set_the_clock_back_and_new_ones_may_set_it_forward() {
        let mut leaders = Leaders::default();
        leaders.read(&reading(1_000_000, 1_000_002));
        leaders.fetched(2, Timestamp::from_millis(400_000), at(1_001_000));
        assert_eq!(leaders.offset(2, at(1_001_000)), leaders.offset(1, at(1_001_000)));
        leaders.fetched(2, Timestamp::from_millis(1_004_000), at(1_002_000));
        assert_eq!(leaders.offset(2, at(1_002_000)), 2_000_000, "its leader is at least that far ahead");
    }
}

//! A rate limit that holds over any period, with a small burst.
//!
//! The generic cell rate algorithm (ITU-T I.371): a theoretical arrival time runs ahead of the clock by one interval per record,
//! but by at most the burst.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use crate::core::leader_clock::LocalTime;

/// The burst after a pause: a tenth of a second's worth, at least one record.
const BURST: Duration = Duration::from_millis(100);

/// The highest rate, in records per second.
const HIGHEST: u32 = 1_000_000;

/// A number of records per time unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    records: u32,
    unit: Unit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Second,
    Minute,
    Hour,
}

impl Unit {
    fn seconds(self) -> u32 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3_600,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Second => "s",
            Self::Minute => "m",
            Self::Hour => "h",
        }
    }
}

/// A text that is not a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("is not a rate: write it as \"500/s\", \"30/m\" or \"1000/h\", between 1/h and 1000000/s")]
pub struct RateError;

impl Rate {
    /// Records per second.
    #[must_use]
    pub fn per_second(self) -> f64 {
        f64::from(self.records) / f64::from(self.unit.seconds())
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let (records, unit) = text.split_once('/').ok_or(RateError)?;
        let unit = [Unit::Second, Unit::Minute, Unit::Hour].into_iter().find(|u| u.as_str() == unit.trim()).ok_or(RateError)?;
        let records: u32 = records.trim().parse().map_err(|_| RateError)?;
        if records == 0 || records > HIGHEST { Err(RateError) } else { Ok(Self { records, unit }) }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.records, self.unit.as_str())
    }
}

/// Lets records pass at a rate.
#[derive(Debug, Clone, Copy)]
pub struct RateLimit {
    rate: Rate,
    /// The time between two records, in nanoseconds.
    interval: i64,
    /// The theoretical arrival time of the next record, in nanoseconds.
    next: i64,
}

impl RateLimit {
    /// An unused limit.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        Self { rate, interval: interval(rate.per_second()), next: 0 }
    }

    /// From now on, allows only this share of the rate (above 0, at most 1): other workers use the rest.
    pub fn share(&mut self, share: f64) {
        self.interval = interval(self.rate.per_second() * share);
    }

    /// The time from which the next record may pass.
    #[must_use]
    pub fn ready_at(&self) -> LocalTime {
        let burst = i64::try_from(BURST.as_nanos()).unwrap_or(0).max(self.interval) - self.interval;
        // Rounded up: not a microsecond early.
        LocalTime::from_micros(-(burst - self.next).div_euclid(1_000))
    }

    /// The time from which half of the burst may pass: one write per record of a backlog would cost more than it moves.
    #[must_use]
    pub fn worthwhile_at(&self) -> LocalTime {
        let half = i64::try_from(BURST.as_nanos() / 2).unwrap_or(0);
        LocalTime::from_micros(-(half - self.next).div_euclid(1_000)).max(self.ready_at())
    }

    /// Lets a record pass, if one may pass now.
    pub fn take(&mut self, now: LocalTime) -> bool {
        let is_ready = self.ready_at() <= now;
        if is_ready {
            self.next = self.next.max(now.as_micros().saturating_mul(1_000)).saturating_add(self.interval);
        }
        is_ready
    }
}

#[expect(clippy::cast_possible_truncation, reason = "between a microsecond and some years, in nanoseconds")]
fn interval(per_second: f64) -> i64 {
    (1e9 / per_second).ceil().clamp(1_000.0, 1e17) as i64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// How many pass within this many milliseconds, with a try every `step` microseconds.
    fn gone(limit: &mut RateLimit, from: i64, millis: i64, step: i64) -> u32 {
        let moments = (0..millis * 1_000 / step).map(|n| LocalTime::from_micros(from + n * step));
        moments.map(|now| std::iter::from_fn(|| limit.take(now).then_some(())).count()).map(|n| u32::try_from(n).unwrap()).sum()
    }

    const START: i64 = 1_700_000_000_000_000;

    #[test]
    fn rates_are_written_by_the_second_the_minute_or_the_hour() {
        let seconds = |text: &str| text.parse::<Rate>().map(Rate::per_second);
        assert_eq!((seconds("500/s"), seconds("30/m"), seconds(" 900 / h ")), (Ok(500.0), Ok(0.5), Ok(0.25)));
        assert_eq!("90/m".parse::<Rate>().unwrap().to_string(), "90/m");
        for text in ["", "500", "500/d", "0/s", "-1/s", "1.5/s", "1000001/s", "/s"] {
            assert_eq!(seconds(text), Err(RateError), "{text}");
        }
    }

    #[test]
    fn a_tenth_of_a_second_s_worth_goes_at_once_and_then_the_rate() {
        let mut limit = RateLimit::new("500/s".parse().unwrap());
        assert_eq!(gone(&mut limit, START, 1, 1_000), 50);
        assert_eq!(gone(&mut limit, START + 1_000, 2_000, 1_000), 1_000);
        // A long pause saves nothing up.
        assert_eq!(gone(&mut limit, START + 60_000_000, 1, 1_000), 50);
    }

    #[test]
    fn a_slow_rate_lets_one_through_at_once() {
        let mut limit = RateLimit::new("60/m".parse().unwrap());
        assert_eq!(gone(&mut limit, START, 999, 1_000), 1);
        assert_eq!(gone(&mut limit, START + 999_000, 1_500, 1_000), 2);
    }

    #[test]
    fn a_backlog_goes_in_halves_of_the_burst_and_what_trickles_at_once() {
        let mut limit = RateLimit::new("500/s".parse().unwrap());
        let now = LocalTime::from_micros(START);
        assert!(limit.worthwhile_at() <= now);
        for _ in 0..50 {
            assert!(limit.take(now));
        }
        assert_eq!(limit.worthwhile_at(), now.later(Duration::from_millis(50)));
        let slow = RateLimit::new("1/s".parse().unwrap());
        assert_eq!(slow.worthwhile_at(), slow.ready_at());
    }

    #[test]
    fn a_share_of_it_is_so_much_slower() {
        let mut limit = RateLimit::new("400/s".parse().unwrap());
        limit.share(0.25);
        assert_eq!(gone(&mut limit, START, 1_000, 1_000), 10 + 99);
    }

    proptest! {
        #[test]
        fn it_is_never_more_than_the_rate_and_a_burst(rate in 1_u32..100_000, millis in 1_i32..5_000, step in 50_i64..100_000) {
            let mut limit = RateLimit::new(Rate { records: rate, unit: Unit::Second });
            let most = f64::from(rate) * (f64::from(millis) / 1_000.0 + 0.1) + 1.0;
            prop_assert!(f64::from(gone(&mut limit, START, i64::from(millis), step)) <= most);
        }
    }
}

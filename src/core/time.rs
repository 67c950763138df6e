//! Kafka timestamps.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch, as in Kafka record timestamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From epoch milliseconds.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// As epoch milliseconds.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// As epoch microseconds, saturating.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0.saturating_mul(1_000)
    }

    /// The time from `earlier` to this moment; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl Timestamp {
    /// In RFC 3339: `2026-01-31T12:00:00Z`.
    #[must_use]
    pub fn to_rfc3339(self) -> String {
        humantime::format_rfc3339_seconds(self.within_four_digits()).to_string()
    }

    /// The same with milliseconds: `2026-01-31T12:00:00.000Z`.
    #[must_use]
    pub fn to_rfc3339_millis(self) -> String {
        humantime::format_rfc3339_millis(self.within_four_digits()).to_string()
    }

    /// Years beyond 9999 have no such form.
    fn within_four_digits(self) -> SystemTime {
        let last = Duration::from_millis(253_402_300_799_999);
        UNIX_EPOCH + Duration::from_millis(u64::try_from(self.0).unwrap_or(0)).min(last)
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

//! A tier's delay and its canonical text form, from which topic names derive.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

/// The delay of a tier: at least 1 ms, at most 365 days, in whole milliseconds.
///
/// `Display` yields the canonical form (`5s`, `1m30s`, `1d`), which is part of topic names and therefore never
/// changes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Delay(Duration);

/// Why a delay was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DelayError {
    /// Not a duration.
    #[error("`{0}` is not a duration: write it as `5s`, `1m30s` or `250ms`")]
    NotADuration(String),
    /// The delay is zero.
    #[error("a delay is at least 1ms")]
    Zero,
    /// The delay is not in whole milliseconds.
    #[error("a delay is in whole milliseconds")]
    BelowMillisecond,
    /// The delay is longer than a year.
    #[error("a delay is at most 365d")]
    TooLong,
}

impl Delay {
    /// The longest delay: 365 days.
    pub const MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

    /// Validates a duration.
    ///
    /// # Errors
    /// It is zero, longer than [`Delay::MAX`] or not in whole milliseconds.
    pub fn try_new(duration: Duration) -> Result<Self, DelayError> {
        if duration.is_zero() {
            return Err(DelayError::Zero);
        }
        if !duration.subsec_nanos().is_multiple_of(1_000_000) {
            return Err(DelayError::BelowMillisecond);
        }
        if duration > Self::MAX {
            return Err(DelayError::TooLong);
        }
        Ok(Self(duration))
    }

    /// The delay as a duration.
    #[must_use]
    pub fn duration(self) -> Duration {
        self.0
    }

    /// The delay in milliseconds.
    #[must_use]
    pub fn as_millis(self) -> u64 {
        whole_millis(self.0)
    }
}

impl FromStr for Delay {
    type Err = DelayError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let duration = humantime::parse_duration(text.trim()).map_err(|_| DelayError::NotADuration(text.to_owned()))?;
        Self::try_new(duration)
    }
}

impl fmt::Display for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format_duration(self.0))
    }
}

impl fmt::Debug for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A duration in whole milliseconds, at most the largest number.
#[must_use]
pub fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A duration in d, h, m, s and ms (`90s` → `1m30s`, `24h` → `1d`), truncated to milliseconds.
///
/// Own code instead of a library's: topic names depend on it, so it must never change with an
/// update.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    use fmt::Write;

    let mut rest = duration.as_millis();
    if rest == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, millis) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        let count = rest / millis;
        rest %= millis;
        if count > 0 {
            let _ = write!(text, "{count}{unit}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_written_form_is_frozen() {
        for (given, written) in [
            ("5s", "5s"),
            ("90s", "1m30s"),
            ("24h", "1d"),
            ("60m", "1h"),
            ("250ms", "250ms"),
            ("1500ms", "1s500ms"),
            ("36h", "1d12h"),
            ("7d", "7d"),
            ("1m 30s", "1m30s"),
            ("1week", "7d"),
        ] {
            assert_eq!(given.parse::<Delay>().unwrap().to_string(), written, "{given}");
        }
    }

    #[test]
    fn the_written_form_reads_back() {
        for millis in [1, 999, 1_000, 61_001, 86_400_000, 90_061_001] {
            let delay = Delay::try_new(Duration::from_millis(millis)).unwrap();
            assert_eq!(delay.to_string().parse::<Delay>().unwrap(), delay);
        }
    }

    #[test]
    fn what_is_no_delay_is_refused() {
        assert_eq!("0s".parse::<Delay>(), Err(DelayError::Zero));
        assert_eq!("366d".parse::<Delay>(), Err(DelayError::TooLong));
        assert_eq!("1ns".parse::<Delay>(), Err(DelayError::BelowMillisecond));
        assert!(matches!("soon".parse::<Delay>(), Err(DelayError::NotADuration(_))));
    }
}

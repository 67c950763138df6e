//! The rate of sending: a number of letters per second, optionally with a ramp.

use std::time::Duration;

use crate::core::leader_clock::LocalTime;

/// The share of the rate that a ramp begins with.
const RAMP_FROM: f64 = 0.1;

/// Unused allowance is kept for at most this long.
const BURST: Duration = Duration::from_millis(250);

/// Limits the rate.
#[derive(Debug)]
pub(super) struct Pace {
    rate: Option<f64>,
    ramp: Duration,
    begun: LocalTime,
    counted: LocalTime,
    saved: f64,
}

impl Pace {
    /// With at most this rate, or without a limit.
    pub fn new(rate: Option<f64>, ramp: Duration, now: LocalTime) -> Self {
        Self { rate, ramp, begun: now, counted: now, saved: 0.0 }
    }

    /// Restarts the ramp, as after a pause.
    pub fn begin_again(&mut self, now: LocalTime) {
        (self.begun, self.counted, self.saved) = (now, now, 0.0);
    }

    fn rate_at(&self, now: LocalTime) -> Option<f64> {
        let rate = self.rate?;
        let gone = now.since(self.begun);
        if gone >= self.ramp {
            return Some(rate);
        }
        let share = gone.as_secs_f64() / self.ramp.as_secs_f64();
        Some(rate * (RAMP_FROM + (1.0 - RAMP_FROM) * share))
    }

    /// How many of these may be sent now.
    pub fn allow(&mut self, wanted: usize, now: LocalTime) -> usize {
        let Some(rate) = self.rate_at(now) else { return wanted };
        let most = (rate * BURST.as_secs_f64()).max(1.0);
        self.saved = (self.saved + rate * now.since(self.counted).as_secs_f64()).min(most);
        self.counted = now;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and not negative")]
        let whole = self.saved as usize;
        // Small allowances would make many transactions: the allowance of a beat is used at once.
        if self.saved + 1e-9 < most.min(rate * 0.1).max(1.0) && whole < wanted { 0 } else { whole.min(wanted) }
    }

    /// Counts sent letters.
    #[expect(clippy::cast_precision_loss, reason = "small")]
    pub fn took(&mut self, count: usize) {
        if self.rate.is_some() {
            self.saved -= count as f64;
        }
    }

    /// Time until more may be sent.
    pub fn wait(&self, now: LocalTime) -> Duration {
        self.rate_at(now).map_or(Duration::ZERO, |rate| Duration::from_secs_f64((0.1_f64).max(1.0 / rate.max(0.01)).min(1.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> LocalTime {
        LocalTime::from_micros(millis * 1_000)
    }

    fn sent_by(pace: &mut Pace, from: i64, to: i64) -> usize {
        let mut sent = 0;
        for millis in from..to {
            let now = at(millis);
            let some = pace.allow(10_000, now);
            pace.took(some);
            sent += some;
        }
        sent
    }

    #[test]
    fn no_more_go_than_the_rate_says() {
        for rate in [0.5, 1.0, 7.0, 100.0, 5_000.0] {
            let mut pace = Pace::new(Some(rate), Duration::ZERO, at(0));
            let sent = sent_by(&mut pace, 0, 20_000);
            #[expect(clippy::cast_precision_loss, reason = "small")]
            let share = sent as f64 / (rate * 20.0);
            assert!((0.85..=1.001).contains(&share), "{sent} at {rate}/s");
        }
        assert_eq!(Pace::new(None, Duration::ZERO, at(0)).allow(17, at(0)), 17);
    }

    #[test]
    fn a_ramp_rises_from_a_tenth() {
        let mut pace = Pace::new(Some(1_000.0), Duration::from_secs(10), at(0));
        let (first, last) = (sent_by(&mut pace, 0, 1_000), sent_by(&mut pace, 1_000, 10_000));
        assert!((100..200).contains(&first), "{first}");
        assert!((4_500..6_000).contains(&last), "{last}");
        let full = sent_by(&mut pace, 10_000, 11_000);
        assert!((950..=1_250).contains(&full), "{full}");
    }

    #[test]
    fn a_pause_saves_nothing_up() {
        let mut pace = Pace::new(Some(100.0), Duration::ZERO, at(0));
        assert!(pace.allow(10_000, at(3_600_000)) <= 25);
    }
}

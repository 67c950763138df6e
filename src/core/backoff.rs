//! A pause that grows with each consecutive failure.

use std::time::Duration;

use crate::core::leader_clock::LocalTime;

/// When something may be tried again after failures: each pause is twice the one before it, up to a limit.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    pause: Duration,
    until: LocalTime,
    told: bool,
}

impl Backoff {
    /// For transactions: from 50 ms to 2 s.
    #[must_use]
    pub fn of_transactions() -> Self {
        Self::new(Duration::from_millis(50), Duration::from_secs(2))
    }

    /// Without failures; with the first pause, and the longest one.
    #[must_use]
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, pause: Duration::ZERO, until: LocalTime::from_micros(0), told: false }
    }

    /// Notes a failure.
    pub fn failed(&mut self, now: LocalTime) {
        self.pause = (self.pause * 2).clamp(self.first, self.longest);
        self.until = now.later(self.pause);
    }

    /// The next failure counts as the first.
    pub fn reset(&mut self) {
        self.pause = Duration::ZERO;
        self.told = false;
    }

    /// Whether to log a problem that needs action: once while failures continue.
    pub fn is_to_be_told(&mut self) -> bool {
        !std::mem::replace(&mut self.told, true)
    }

    /// Whether it was logged.
    #[must_use]
    pub fn was_logged(&self) -> bool {
        self.told
    }

    /// The pause after the last failure.
    #[must_use]
    pub fn pause(&self) -> Duration {
        self.pause
    }

    /// The end of the pause.
    #[must_use]
    pub fn until(&self) -> LocalTime {
        self.until
    }

    /// Whether failures have continued for so long that the pause no longer grows.
    #[must_use]
    pub fn is_longest(&self) -> bool {
        self.pause == self.longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_its_limit_and_begins_anew() {
        let mut backoff = Backoff::of_transactions();
        let now = LocalTime::from_micros(7);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            backoff.failed(now);
            pauses.push(backoff.pause().as_millis());
        }
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1_600, 2_000, 2_000]);
        assert!(backoff.is_longest());
        assert_eq!(backoff.until(), now.later(Duration::from_secs(2)));
        assert!(backoff.is_to_be_told() && !backoff.is_to_be_told());
        backoff.reset();
        assert!(backoff.is_to_be_told());
        backoff.failed(now);
        assert_eq!(backoff.pause(), Duration::from_millis(50));
    }
}

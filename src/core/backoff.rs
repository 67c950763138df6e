//! Pauses that grow with each consecutive failure.

use std::time::Duration;

use crate::core::leader_clock::LocalTime;

/// A time, mostly a pause, that doubles step by step up to a limit.
#[derive(Debug, Clone, Copy)]
pub struct Doubling {
    first: Duration,
    longest: Duration,
    current: Duration,
}

impl Doubling {
    /// With the first value, and the longest one.
    #[must_use]
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, current: first }
    }

    /// The current value.
    #[must_use]
    pub const fn current(&self) -> Duration {
        self.current
    }

    /// Returns the current value, and doubles it for the next time.
    pub fn take(&mut self) -> Duration {
        let current = self.current;
        self.double();
        current
    }

    /// Doubles it, to the longest at most.
    pub fn double(&mut self) {
        self.current = (self.current * 2).min(self.longest);
    }

    /// Lowers it to this, if it is longer.
    pub fn shorten_to(&mut self, most: Duration) {
        self.current = self.current.min(most);
    }

    /// Begins anew with the first value.
    pub fn reset(&mut self) {
        self.current = self.first;
    }
}

/// When something may be tried again after failures: each pause is twice the one before it, up to a limit.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    next: Doubling,
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
        let next = Doubling::new(first, longest);
        Self { next, pause: Duration::ZERO, until: LocalTime::from_micros(0), told: false }
    }

    /// Notes a failure, and returns the pause after it.
    pub fn failed(&mut self, now: LocalTime) -> Duration {
        self.pause = self.next.take();
        self.until = now.later(self.pause);
        self.pause
    }

    /// The next failure counts as the first.
    pub fn reset(&mut self) {
        self.next.reset();
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

    /// Ends the pause; the next one is longer nevertheless.
    pub fn end_pause(&mut self, now: LocalTime) {
        self.until = now;
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
        self.pause == self.next.longest
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

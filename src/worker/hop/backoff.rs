//! A pause that grows with each failure in a row.

use std::time::Duration;

use crate::core::leader_clock::LocalTime;

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(2);

/// When transactions may be begun again, after some failed: 50 ms, then twice as long each time, up to 2 s.
#[derive(Debug)]
pub(in crate::worker) struct Backoff {
    pause: Duration,
    until: LocalTime,
    told: bool,
}

impl Backoff {
    /// Nothing has failed yet.
    pub(in crate::worker) fn new() -> Self {
        Self { pause: Duration::ZERO, until: LocalTime::from_micros(0), told: false }
    }

    /// Notes a failure.
    pub(in crate::worker) fn failed(&mut self, now: LocalTime) {
        self.pause = (self.pause * 2).clamp(FIRST, LONGEST);
        self.until = now.later(self.pause);
    }

    /// The next failure is the first again.
    pub(in crate::worker) fn reset(&mut self) {
        self.pause = Duration::ZERO;
        self.told = false;
    }

    /// Whether what somebody must act upon is to be told: once while failures go on.
    pub(in crate::worker) fn is_to_be_told(&mut self) -> bool {
        !std::mem::replace(&mut self.told, true)
    }

    /// Whether it was told.
    pub(in crate::worker) fn was_told(&self) -> bool {
        self.told
    }

    /// How long the last failure is waited for.
    pub(in crate::worker) fn pause(&self) -> Duration {
        self.pause
    }

    /// Until when.
    pub(in crate::worker) fn until(&self) -> LocalTime {
        self.until
    }

    /// Whether failures have gone on for so long that the pause no longer grows.
    pub(in crate::worker) fn is_longest(&self) -> bool {
        self.pause == LONGEST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_its_limit_and_begins_anew() {
        let mut backoff = Backoff::new();
        let now = LocalTime::from_micros(7);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            backoff.failed(now);
            pauses.push(backoff.pause().as_millis());
        }
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1_600, 2_000, 2_000]);
        assert!(backoff.is_longest());
        assert_eq!(backoff.until(), now.later(LONGEST));
        assert!(backoff.is_to_be_told() && !backoff.is_to_be_told());
        backoff.reset();
        assert!(backoff.is_to_be_told());
        backoff.failed(now);
        assert_eq!(backoff.pause(), FIRST);
    }
}

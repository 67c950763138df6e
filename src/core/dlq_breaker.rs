//! The breaker of the dead-letter topic: when most records end as dead letters, the cause is usually not the records, so they wait
//! instead of filling the dead-letter topic.
//!
//! It counts how records end: done, or dead. When enough of them and a large enough share within the window would be dead letters, it
//! opens, and for a while they are held: they hop to the largest tier instead. Then it closes by itself and starts counting again; a
//! persistent problem opens it again, after at most `minimum` further dead letters. That limit is its guarantee.

use std::collections::VecDeque;
use std::time::Duration;

use crate::core::leader_clock::LocalTime;

/// Number of parts in which the window advances.
const PARTS: u32 = 10;

/// When dead letters are held, and for how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DlqBreakerSettings {
    /// The window (1 s to 24 h); default 10 m.
    pub window: Duration,
    /// Minimum number of dead letters in it (1 to 1,000,000); default 50.
    pub minimum: u64,
    /// Minimum share of dead letters among all finished records (above 0, at most 1); default 0.5.
    pub share: f64,
    /// How long they are held at a time (1 s to 7 d); default 10 m.
    pub hold_for: Duration,
}

impl DlqBreakerSettings {
    /// Whether every value is in its range.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let (second, day) = (Duration::from_secs(1), Duration::from_secs(86_400));
        (second..=day).contains(&self.window)
            && (1..=1_000_000).contains(&self.minimum)
            && self.share > 0.0
            && self.share <= 1.0
            && (second..=day * 7).contains(&self.hold_for)
    }
}

impl Default for DlqBreakerSettings {
    fn default() -> Self {
        let minutes = Duration::from_secs(600);
        Self { window: minutes, minimum: 50, share: 0.5, hold_for: minutes }
    }
}

/// How records have recently ended.
#[derive(Debug)]
pub struct Endings {
    settings: DlqBreakerSettings,
    parts: VecDeque<Part>,
}

#[derive(Debug, Clone, Copy)]
struct Part {
    until: LocalTime,
    done: u64,
    dead: u64,
}

impl Endings {
    /// None yet.
    #[must_use]
    pub fn new(settings: DlqBreakerSettings) -> Self {
        Self { settings, parts: VecDeque::new() }
    }

    /// Counts records that are done.
    pub fn done(&mut self, records: u64, now: LocalTime) {
        self.part(now).done += records;
    }

    /// A record is about to become a dead letter. `true` if there are too many: it is to be held, and counting starts again.
    pub fn dead(&mut self, now: LocalTime) -> bool {
        self.part(now).dead += 1;
        let (done, dead) = self.parts.iter().fold((0, 0), |(done, dead), part| (done + part.done, dead + part.dead));
        #[expect(clippy::cast_precision_loss, reason = "counts of records, for a share")]
        let share = dead as f64 / (done + dead) as f64;
        let too_many = dead >= self.settings.minimum && share >= self.settings.share;
        if too_many {
            self.forget();
        }
        too_many
    }

    /// Resets the counts.
    pub fn forget(&mut self) {
        self.parts.clear();
    }

    /// The current part of the window.
    fn part(&mut self, now: LocalTime) -> &mut Part {
        let window = self.settings.window;
        while self.parts.front().is_some_and(|part| now >= part.until.later(window)) {
            self.parts.pop_front();
        }
        if self.parts.back().is_none_or(|part| now >= part.until) {
            self.parts.push_back(Part { until: now.later(window / PARTS), done: 0, dead: 0 });
        }
        self.parts.back_mut().expect("one was there or was added")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn endings(minimum: u64, share: f64) -> Endings {
        Endings::new(DlqBreakerSettings { window: Duration::from_secs(100), minimum, share, ..DlqBreakerSettings::default() })
    }

    fn at(seconds: i64) -> LocalTime {
        LocalTime::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn the_last_of_too_many_is_told() {
        let mut endings = endings(5, 0.5);
        let told: Vec<bool> = (0..7).map(|second| endings.dead(at(second))).collect();
        assert_eq!(told, [false, false, false, false, true, false, false], "then counting starts again");
    }

    #[test]
    fn few_among_many_are_not_too_many() {
        let mut endings = endings(5, 0.5);
        for second in 0..1_000 {
            endings.done(2, at(second));
            assert!(!endings.dead(at(second)), "a third of all");
        }
    }

    #[test]
    fn what_is_long_ago_does_not_count() {
        let mut endings = endings(5, 0.5);
        // One every 30 s: within 110 s there are never five.
        assert!((0..100).all(|n| !endings.dead(at(n * 30))));
        endings.done(1_000_000, at(10_000));
        // Many good ones are forgotten like any others.
        assert!((0..5).any(|n| endings.dead(at(20_000 + n))));
    }

    #[test]
    fn defaults_are_sound() {
        assert!(DlqBreakerSettings::default().is_sound());
        assert!(!DlqBreakerSettings { share: 0.0, ..DlqBreakerSettings::default() }.is_sound());
    }

    proptest! {
        #[test]
        fn it_is_told_only_of_enough_and_remembers_little(steps in prop::collection::vec((any::<bool>(), 0_i64..40), 1..300)) {
            let mut endings = endings(7, 0.6);
            let (mut now, mut since_told) = (0, 0);
            for (is_dead, pause) in steps {
                now += pause;
                if is_dead {
                    since_told += 1;
                    if endings.dead(at(now)) {
                        prop_assert!(since_told >= 7);
                        since_told = 0;
                    }
                } else {
                    endings.done(1, at(now));
                }
                prop_assert!(endings.parts.len() <= 12);
            }
        }
    }
}

//! What happens in the demo, and when: pure, so that a run of any length follows the same story.
//!
//! The story is written for a minute: a stream of orders until 0:44, a handler outage from 0:15 to 0:25, a bad deployment from 0:30
//! to 0:36 that rejects every third order, and at all times orders that fail once or twice and poison ones that always fail. Another
//! length scales all times. Tier delays are shortened too, but never lengthened.

use std::time::Duration;

/// The length that the story is written for.
pub const MINUTE: Duration = Duration::from_secs(60);
/// In less time the scenes could not be told apart.
pub const SHORTEST: Duration = Duration::from_secs(10);

const STREAM_ENDS: Duration = Duration::from_secs(44);
const OUTAGE: [Duration; 2] = [Duration::from_secs(15), Duration::from_secs(25)];
const BAD_DEPLOYMENT: [Duration; 2] = [Duration::from_secs(30), Duration::from_secs(36)];
const TIERS: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(6)];
const BREAKER_OPEN: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(4)];
/// Delays are whole tenths of a second, for readable topic names.
const TENTH: Duration = Duration::from_millis(100);

/// A scene.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scene {
    /// Some orders fail, as always.
    Usual,
    /// No order is handled.
    Outage,
    /// Orders are rejected by mistake.
    BadDeployment,
    /// No more orders.
    Ending,
}

impl Scene {
    /// The scene in a few words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Usual => "orders come in, a few fail",
            Self::Outage => "OUTAGE: the handler answers 503",
            Self::BadDeployment => "BAD DEPLOYMENT: every third order is rejected",
            Self::Ending => "no more orders, the rest passes the tiers",
        }
    }
}

/// How the handler answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DemoAnswer {
    /// 200
    Done,
    /// 500: this order fails.
    Fails,
    /// 503, for every order.
    Down,
    /// 422
    Rejected,
}

/// The story of a run of some length.
#[derive(Debug, Clone, Copy)]
pub struct Story {
    length: Duration,
}

impl Story {
    /// `length` is at least [`SHORTEST`].
    pub fn new(length: Duration) -> Self {
        Self { length }
    }

    /// Maximum length, from the first order on.
    pub fn length(&self) -> Duration {
        self.length
    }

    /// When the last order is sent.
    pub fn stream_ends(&self) -> Duration {
        self.scaled(STREAM_ENDS)
    }

    /// When the handler is down.
    pub fn outage(&self) -> [Duration; 2] {
        OUTAGE.map(|moment| self.scaled(moment))
    }

    /// The delays of the tiers.
    pub fn tiers(&self) -> [Duration; 3] {
        TIERS.map(|delay| self.squeezed(delay))
    }

    /// How long the breaker opens at first, and at most.
    pub fn breaker_open(&self) -> [Duration; 2] {
        BREAKER_OPEN.map(|delay| self.squeezed(delay))
    }

    /// The scene `at` this time after the first order.
    pub fn scene(&self, at: Duration) -> Scene {
        let within = |span: [Duration; 2]| (self.scaled(span[0])..self.scaled(span[1])).contains(&at);
        if within(OUTAGE) {
            Scene::Outage
        } else if within(BAD_DEPLOYMENT) {
            Scene::BadDeployment
        } else if at >= self.stream_ends() {
            Scene::Ending
        } else {
            Scene::Usual
        }
    }

    /// The handler's answer to this attempt (from 1) at an order, `at` this time after the first
    /// order.
    pub fn answer(&self, order: u64, attempt: u32, at: Duration) -> DemoAnswer {
        let scene = self.scene(at);
        if scene == Scene::Outage {
            return DemoAnswer::Down;
        }
        if scene == Scene::BadDeployment && order.is_multiple_of(3) {
            return DemoAnswer::Rejected;
        }
        if attempt <= fails_for(order) { DemoAnswer::Fails } else { DemoAnswer::Done }
    }

    fn scaled(&self, moment: Duration) -> Duration {
        moment.mul_f64(self.length.as_secs_f64() / MINUTE.as_secs_f64())
    }

    fn squeezed(&self, delay: Duration) -> Duration {
        let tenths = self.scaled(delay).min(delay).as_millis() / TENTH.as_millis();
        TENTH * u32::try_from(tenths.max(1)).unwrap_or(1)
    }
}

/// Number of times an order fails before it is done.
fn fails_for(order: u64) -> u32 {
    match (order % 50, order % 24) {
        // Poison.
        (17, _) => u32::MAX,
        (_, 5 | 13) => 1,
        (_, 21) => 2,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_minute_is_told_as_it_was_written() {
        let story = Story::new(MINUTE);
        let scenes = [(0, Scene::Usual), (15, Scene::Outage), (25, Scene::Usual), (30, Scene::BadDeployment), (36, Scene::Usual)];
        for (at, scene) in scenes {
            assert_eq!(story.scene(secs(at)), scene, "at {at} s");
        }
        assert_eq!(story.scene(secs(44)), Scene::Ending);
        assert_eq!(story.tiers(), [secs(1), secs(3), secs(6)]);
    }

    #[test]
    fn a_shorter_run_squeezes_all_of_it_and_a_longer_one_not_the_tiers() {
        let short = Story::new(secs(20));
        assert_eq!(short.scene(secs(5)), Scene::Outage);
        assert_eq!(short.tiers(), [300, 1_000, 2_000].map(Duration::from_millis));
        assert_eq!(Story::new(SHORTEST).tiers(), [100, 500, 1_000].map(Duration::from_millis));
        let long = Story::new(secs(600));
        assert_eq!((long.scene(secs(160)), long.tiers()[2]), (Scene::Outage, secs(6)));
        // The last order to fail must have time to pass all tiers.
        for length in 10..=600 {
            let story = Story::new(secs(length));
            assert!(story.stream_ends() + story.tiers().iter().sum::<Duration>() < story.length(), "{length} s");
        }
    }

    #[test]
    fn poison_never_succeeds_and_the_outage_spares_nobody() {
        let story = Story::new(MINUTE);
        assert_eq!(story.answer(17, 4, secs(50)), DemoAnswer::Fails);
        assert_eq!(story.answer(1, 1, secs(16)), DemoAnswer::Down);
        assert_eq!(story.answer(3, 1, secs(31)), DemoAnswer::Rejected);
        assert_eq!([1, 2].map(|attempt| story.answer(5, attempt, secs(1))), [DemoAnswer::Fails, DemoAnswer::Done]);
        assert_eq!([2, 3].map(|attempt| story.answer(21, attempt, secs(1))), [DemoAnswer::Fails, DemoAnswer::Done]);
    }
}

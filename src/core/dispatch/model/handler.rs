//! The simulated handler: its answers, and its crashes.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::core::dispatch::model::mix::{Mix, Nature, Weather, ms};
use crate::core::dispatch::{CallOutcome, Trouble};
use crate::core::leader_clock::LocalTime;

/// Duration of an error, and of a refused connection.
const QUICK: Duration = ms(5);
const REFUSED: Duration = ms(1);

/// The outcome of a call, unless the handler dies before.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    pub at: LocalTime,
    pub outcome: CallOutcome,
    /// Whether it reaches the handler.
    pub reached: bool,
    /// Whether the handler then dies.
    pub kills: bool,
}

/// The handler, with the calls in flight.
pub(super) struct Handler {
    began: LocalTime,
    away_until: Option<LocalTime>,
    calls: BTreeSet<usize>,
    pub deaths: usize,
}

impl Handler {
    pub fn new(began: LocalTime) -> Self {
        Self { began, away_until: None, calls: BTreeSet::new(), deaths: 0 }
    }

    /// A call arrives, identified by its number.
    pub fn call(&mut self, mix: &Mix, number: usize, nature: Nature, now: LocalTime) -> Answer {
        let answer = |after: Duration, outcome, reached| Answer { at: now.later(after), outcome, reached, kills: false };
        let trouble = |kind| CallOutcome::Trouble(kind, None);
        let elapsed = now.since(self.began);
        let weather = mix.outages.iter().find(|o| o.from <= elapsed && elapsed < o.until).map(|o| o.weather);
        if weather == Some(Weather::Away) || self.away_until.is_some_and(|until| now < until) {
            return answer(REFUSED, trouble(Trouble::Unreachable), false);
        }
        self.calls.insert(number);
        match (weather, nature) {
            (Some(Weather::Errors), _) | (None, Nature::Errors | Nature::FailsOnce) => {
                answer(QUICK, trouble(Trouble::Errors), true)
            }
            (Some(Weather::Hangs), _) | (None, Nature::Hangs) => answer(mix.timeout, trouble(Trouble::Timeouts), true),
            (Some(Weather::Drops), _) => answer(QUICK, trouble(Trouble::LostConnections), true),
            (_, Nature::Drops) => answer(mix.takes, trouble(Trouble::LostConnections), true),
            (_, Nature::Kills) => Answer { kills: true, ..answer(mix.takes, trouble(Trouble::LostConnections), true) },
            (_, Nature::Healthy | Nature::Rejected) if mix.takes >= mix.timeout => {
                answer(mix.timeout, trouble(Trouble::Timeouts), true)
            }
            (_, Nature::Healthy) => answer(mix.takes, CallOutcome::Good(None), true),
            (_, _) => answer(QUICK, CallOutcome::Good(None), true),
        }
    }

    pub fn ended(&mut self, number: usize) {
        self.calls.remove(&number);
    }

    /// The handler dies, and recovers after a while. Returns the calls in flight.
    pub fn die(&mut self, now: LocalTime, revival: Duration) -> Vec<usize> {
        self.deaths += 1;
        self.away_until = Some(now.later(revival));
        std::mem::take(&mut self.calls).into_iter().collect()
    }
}

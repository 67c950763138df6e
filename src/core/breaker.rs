//! The handler's circuit breaker: when a handler is down, records wait where they are and are not driven into the tiers by it.
//!
//! Closed, it counts the last calls. When too many of them met trouble ([`Failure::is_trouble`](crate::Failure::is_trouble)), in a
//! row or as a share, it opens, and no call is let through for a while. Then it is half open: one call at a time is let through
//! as a probe. One that meets trouble opens it again for twice as long; one that is answered closes it. Then calls are let through a
//! few at a time at first, each good answer making room for one more, so that what has gathered does not run down a handler that has
//! just recovered.

use std::collections::VecDeque;
use std::time::Duration;

use crate::core::failure::Verdict;
use crate::core::leader_clock::LocalTime;

/// How many calls run at the same time after it has closed, until good answers make room for more.
const FIRST_ALLOWED: usize = 2;

/// When a breaker opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BreakerSettings {
    /// How many calls are looked back on (1 to 10,000); default 100.
    pub window: usize,
    /// So many must have been made before their share counts (1 to the window); default 20.
    pub minimum_calls: usize,
    /// It opens when this share of them met trouble (above 0, at most 1); default 0.8.
    pub failure_rate: f64,
    /// It opens when so many in a row met trouble (1 to 10,000); default 20.
    pub consecutive: usize,
    /// For how long it opens at first (100 ms to 1 h); default 5 s.
    pub open_for: Duration,
    /// It opens for twice as long each time that a probe meets trouble, and at most for this; default 1 m.
    pub open_most: Duration,
}

impl BreakerSettings {
    /// Whether every value is in its range.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let hour = Duration::from_secs(3_600);
        (1..=10_000).contains(&self.window)
            && (1..=self.window).contains(&self.minimum_calls)
            && self.failure_rate > 0.0
            && self.failure_rate <= 1.0
            && (1..=10_000).contains(&self.consecutive)
            && (Duration::from_millis(100)..=hour).contains(&self.open_for)
            && (self.open_for..=hour).contains(&self.open_most)
    }
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            window: 100,
            minimum_calls: 20,
            failure_rate: 0.8,
            consecutive: 20,
            open_for: Duration::from_secs(5),
            open_most: Duration::from_secs(60),
        }
    }
}

/// How a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Calls are let through.
    Closed,
    /// None is, until then.
    Open {
        /// When the first probe may go.
        until: LocalTime,
    },
    /// One at a time is, as a probe.
    HalfOpen,
}

/// What came of a call, as the breaker sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The handler works, whatever it says of the record.
    Good,
    /// The handler is in trouble.
    Trouble,
    /// It has answered a record with an error that has failed before: that may be the record's own fault. Most of what climbs is of
    /// that kind, so it opens no breaker; but as a probe it does not close one either.
    Doubtful,
    /// The call was not made after all.
    NotMade,
}

impl Outcome {
    /// Of a delivery that was this attempt (from 1).
    #[must_use]
    pub fn of(verdict: &Verdict, attempt: u32) -> Self {
        match verdict {
            Err(failure) if !failure.is_trouble() => Self::Good,
            Err(failure) if failure.is_answered() && attempt > 1 => Self::Doubtful,
            Err(_) => Self::Trouble,
            Ok(()) => Self::Good,
        }
    }
}

/// A call that was let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// What comes of a call that was begun before the state changed says nothing of the state after it.
    epoch: u64,
}

/// Why a call has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Until then.
    Until(LocalTime),
    /// Until a call that is running has ended.
    ForOthers,
}

/// A circuit breaker.
#[derive(Debug)]
pub struct Breaker {
    settings: BreakerSettings,
    state: BreakerState,
    epoch: u64,
    /// Of the last calls, whether they met trouble, and how many did: counting them anew at each call would take as long as there
    /// are calls in the window.
    window: VecDeque<bool>,
    troubled: usize,
    in_a_row: usize,
    /// How long it opens the next time.
    next_open: Duration,
    /// Calls of this epoch that are running.
    running: usize,
    /// The most of them; none where there is no limit.
    allowed: Option<usize>,
}

impl Breaker {
    /// A closed one.
    #[must_use]
    pub fn new(settings: BreakerSettings) -> Self {
        Self {
            settings,
            state: BreakerState::Closed,
            epoch: 0,
            window: VecDeque::new(),
            troubled: 0,
            in_a_row: 0,
            next_open: settings.open_for,
            running: 0,
            allowed: None,
        }
    }

    /// How it stands.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        self.state
    }

    /// Whether every call is let through, so that none waits for another.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.state == BreakerState::Closed && self.allowed.is_none()
    }

    /// Lets a call through, or says what it has to wait for. Each that is let through ends by [`Breaker::ended`].
    ///
    /// # Errors
    /// What the call has to wait for.
    pub fn admit(&mut self, now: LocalTime) -> Result<Admission, Wait> {
        match self.state {
            BreakerState::Open { until } if now < until => return Err(Wait::Until(until)),
            BreakerState::Open { .. } => self.change(BreakerState::HalfOpen, Some(1)),
            BreakerState::HalfOpen | BreakerState::Closed => {}
        }
        if self.allowed.is_some_and(|allowed| self.running >= allowed) {
            return Err(Wait::ForOthers);
        }
        self.running += 1;
        Ok(Admission { epoch: self.epoch })
    }

    /// A call has ended.
    pub fn ended(&mut self, admission: Admission, outcome: Outcome, now: LocalTime) {
        if admission.epoch != self.epoch {
            return;
        }
        self.running = self.running.saturating_sub(1);
        let trouble = match (self.state, outcome) {
            (_, Outcome::NotMade) | (BreakerState::Closed, Outcome::Doubtful) => return,
            (BreakerState::HalfOpen, Outcome::Good) => {
                self.next_open = self.settings.open_for;
                self.change(BreakerState::Closed, Some(FIRST_ALLOWED));
                return;
            }
            (BreakerState::HalfOpen, _) => {
                self.open(now);
                return;
            }
            (_, outcome) => outcome != Outcome::Good,
        };
        self.in_a_row = if trouble { self.in_a_row + 1 } else { 0 };
        self.window.push_back(trouble);
        self.troubled += usize::from(trouble);
        if self.window.len() > self.settings.window {
            self.troubled -= usize::from(self.window.pop_front() == Some(true));
        }
        if !trouble {
            // Beyond what the window holds there is no more to be careful about.
            self.allowed = self.allowed.map(|allowed| allowed + 1).filter(|allowed| *allowed <= self.settings.window);
        }
        #[expect(clippy::cast_precision_loss, reason = "at most 10,000 calls")]
        let share = self.troubled as f64 / self.window.len() as f64;
        let is_share = self.window.len() >= self.settings.minimum_calls && share >= self.settings.failure_rate;
        if self.in_a_row >= self.settings.consecutive || is_share {
            self.open(now);
        }
    }

    fn open(&mut self, now: LocalTime) {
        let until = now.later(self.next_open);
        self.next_open = (self.next_open * 2).min(self.settings.open_most.max(self.settings.open_for));
        self.change(BreakerState::Open { until }, None);
    }

    fn change(&mut self, state: BreakerState, allowed: Option<usize>) {
        (self.state, self.allowed) = (state, allowed);
        self.epoch += 1;
        self.running = 0;
        self.in_a_row = 0;
        self.window.clear();
        self.troubled = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::failure::{Disposition, ErrorInfo, Failure};

    fn at(millis: i64) -> LocalTime {
        LocalTime::from_micros(millis * 1_000)
    }

    fn breaker() -> Breaker {
        let settings =
            BreakerSettings { window: 10, minimum_calls: 4, failure_rate: 0.5, consecutive: 6, ..BreakerSettings::default() };
        Breaker::new(settings)
    }

    /// Makes a call that ends at once.
    fn call(breaker: &mut Breaker, trouble: bool, millis: i64) -> BreakerState {
        let admission = breaker.admit(at(millis)).expect("let through");
        breaker.ended(admission, if trouble { Outcome::Trouble } else { Outcome::Good }, at(millis));
        breaker.state()
    }

    fn opened(breaker: &mut Breaker, millis: i64) {
        while !matches!(breaker.state(), BreakerState::Open { .. }) {
            call(breaker, true, millis);
        }
    }

    #[test]
    fn a_share_of_the_last_calls_opens_it_once_there_are_enough() {
        let mut breaker = breaker();
        for trouble in [true, false, true] {
            assert_eq!(call(&mut breaker, trouble, 0), BreakerState::Closed, "too few calls to say");
        }
        assert_eq!(call(&mut breaker, true, 0), BreakerState::Open { until: at(5_000) });
        assert_eq!(breaker.admit(at(4_999)), Err(Wait::Until(at(5_000))));
    }

    #[test]
    fn a_third_of_the_calls_in_trouble_leaves_it_closed() {
        let mut breaker = breaker();
        for _ in 0..100 {
            for trouble in [false, false, true] {
                assert_eq!(call(&mut breaker, trouble, 0), BreakerState::Closed);
            }
        }
    }

    #[test]
    fn a_row_of_trouble_opens_it_whatever_the_share() {
        let settings = BreakerSettings { minimum_calls: 100, consecutive: 3, ..BreakerSettings::default() };
        let mut breaker = Breaker::new(settings);
        for trouble in [true, true, false, true, true] {
            assert_eq!(call(&mut breaker, trouble, 0), BreakerState::Closed);
        }
        assert!(matches!(call(&mut breaker, true, 0), BreakerState::Open { .. }));
    }

    #[test]
    fn one_probe_at_a_time_decides_and_trouble_doubles_the_wait() {
        let mut breaker = breaker();
        opened(&mut breaker, 0);
        let mut millis = 0;
        for wait in [5_000, 10_000, 20_000, 40_000, 60_000, 60_000] {
            assert_eq!(breaker.state(), BreakerState::Open { until: at(millis + wait) });
            millis += wait;
            let probe = breaker.admit(at(millis)).expect("a probe");
            assert_eq!((breaker.state(), breaker.admit(at(millis))), (BreakerState::HalfOpen, Err(Wait::ForOthers)));
            breaker.ended(probe, Outcome::Trouble, at(millis));
        }
        millis += 60_000;
        assert_eq!(call(&mut breaker, false, millis), BreakerState::Closed);
        opened(&mut breaker, millis);
        assert_eq!(breaker.state(), BreakerState::Open { until: at(millis + 5_000) }, "from the beginning again");
    }

    #[test]
    fn a_probe_that_was_not_made_lets_another_one_through() {
        let mut breaker = breaker();
        opened(&mut breaker, 0);
        let probe = breaker.admit(at(5_000)).expect("a probe");
        breaker.ended(probe, Outcome::NotMade, at(5_000));
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert_eq!(call(&mut breaker, false, 5_000), BreakerState::Closed);
    }

    #[test]
    fn records_that_have_failed_before_do_not_open_it_and_do_not_close_it() {
        let busy =
            || Err(Failure::new(Disposition::Retry { after: None }, ErrorInfo { status: Some(503), ..ErrorInfo::default() }));
        assert_eq!([Outcome::of(&busy(), 1), Outcome::of(&busy(), 2)], [Outcome::Trouble, Outcome::Doubtful]);
        assert_eq!(Outcome::of(&Err(Failure::timed_out("m")), 2), Outcome::Trouble);
        assert_eq!([Outcome::of(&Ok(()), 1), Outcome::of(&Err(Failure::retry("c", "m")), 1)], [Outcome::Good; 2]);
        let mut breaker = breaker();
        for _ in 0..100 {
            let admission = breaker.admit(at(0)).expect("let through");
            breaker.ended(admission, Outcome::Doubtful, at(0));
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
        opened(&mut breaker, 0);
        let probe = breaker.admit(at(5_000)).expect("a probe");
        breaker.ended(probe, Outcome::Doubtful, at(5_000));
        assert_eq!(breaker.state(), BreakerState::Open { until: at(15_000) });
    }

    #[test]
    fn calls_that_were_begun_before_it_opened_say_nothing_of_the_time_after() {
        let mut breaker = breaker();
        let early: Vec<Admission> = (0..8).map(|_| breaker.admit(at(0)).expect("let through")).collect();
        opened(&mut breaker, 0);
        let until = breaker.state();
        for admission in early {
            breaker.ended(admission, Outcome::Good, at(1));
        }
        assert_eq!(breaker.state(), until);
    }

    #[test]
    fn after_it_has_closed_good_answers_make_room_for_more() {
        let mut breaker = breaker();
        opened(&mut breaker, 0);
        call(&mut breaker, false, 5_000);
        let mut most = Vec::new();
        for _ in 0..4 {
            let running: Vec<Admission> = std::iter::from_fn(|| breaker.admit(at(5_000)).ok()).take(1_000).collect();
            most.push(running.len());
            for admission in running {
                breaker.ended(admission, Outcome::Good, at(5_000));
            }
        }
        assert_eq!(most, [2, 4, 8, 1_000]);
    }
}

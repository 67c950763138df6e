//! Decides when a worker whose handler is down leaves its partitions to other workers, and when it
//! comes back.
//!
//! - When its handler goes down, it notifies the other workers. After a while it leaves, if another worker has not reported the same:
//!   that one then serves its partitions. If all handlers are down, nobody leaves.
//! - It comes back when its handler is reachable again or, if reachability cannot be tested, from time to time to try. Each failed
//!   try doubles the time away, since every try takes partitions from workers that are well.
//! - The others get its partitions when its session has expired, since its members are static (KIP-345): the time away counts from then.
//! - If no other worker is left, it comes back at once.

use std::time::Duration;

use crate::core::backoff::Doubling;
use crate::core::leader_clock::LocalTime;

/// Shorter outages are not reported.
const TELL_AFTER: Duration = Duration::from_secs(3);

/// A handler that has been down for this long will probably not recover soon.
const LEAVE_AFTER: Duration = Duration::from_secs(30);

/// How long a worker stays away at first, and at most, while others have its partitions.
const FIRST_PAUSE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// If the handler is reachable again, the worker waits only this part (one in this many) of it.
const REACHED_PART: u32 = 3;

/// After this long without an outage, the pauses start over.
const WELL_FOR: Duration = Duration::from_secs(300);

/// How long a handler has to prove that it works; joining takes a few seconds of it.
const TRIAL: Duration = Duration::from_secs(20);

/// The other workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peers {
    /// Number of live workers.
    pub live: usize,
    /// Number of them that have not reported their handler as down.
    pub well: usize,
}

/// The current input.
#[derive(Debug, Clone, Copy)]
pub struct AsideInput {
    /// The current time.
    pub now: LocalTime,
    /// Since when the handler is down.
    pub down_since: Option<LocalTime>,
    /// The handler was unreachable and is reachable now: a connection has just succeeded.
    pub is_reachable: bool,
    /// The other workers, if known.
    pub peers: Option<Peers>,
}

/// The action to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AsideAction {
    /// Nothing.
    None,
    /// Tell the others that this worker's handler is down, or up again.
    Tell(bool),
    /// Leave the partitions to others.
    Leave,
    /// Come back.
    Return,
}

/// The state of a worker.
#[derive(Debug)]
pub struct StepAside {
    phase: Phase,
    /// The last report to the others.
    told: bool,
    pause: Doubling,
    /// Time after leaving until others get the partitions.
    session: Duration,
    /// When it last came back.
    returned_at: Option<LocalTime>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It has its partitions.
    Serving,
    /// It came back then, and its handler has not proved itself yet.
    Trial(LocalTime),
    /// It has left them.
    Aside { since: LocalTime, until: LocalTime },
}

impl StepAside {
    /// For a starting worker; `told` is its last report from before, `session` how long the group keeps the partitions of
    /// a member that has left.
    #[must_use]
    pub fn new(told: bool, session: Duration) -> Self {
        let pause = Doubling::new(FIRST_PAUSE, LONGEST_PAUSE);
        Self { session, phase: Phase::Serving, told, pause, returned_at: None }
    }

    /// Since when it has left its partitions to others, and until when at most.
    #[must_use]
    pub fn is_aside(&self) -> Option<(LocalTime, LocalTime)> {
        match self.phase {
            Phase::Aside { since, until } => Some((since, until)),
            Phase::Serving | Phase::Trial(_) => None,
        }
    }

    /// Whether the next action depends on the other workers.
    #[must_use]
    pub fn asks_for_peers(&self, now: LocalTime, down_since: Option<LocalTime>) -> bool {
        match self.phase {
            Phase::Aside { .. } => true,
            Phase::Serving | Phase::Trial(_) => self.told && self.is_long_down(now, down_since),
        }
    }

    /// The report failed.
    pub fn not_told(&mut self) {
        self.told = !self.told;
    }

    /// The action to take now.
    pub fn next(&mut self, look: &AsideInput) -> AsideAction {
        let AsideInput { now, down_since, is_reachable, peers } = *look;
        if let Phase::Aside { since, until } = self.phase {
            let is_back = is_reachable && now >= since.later(self.session + self.pause.current() / REACHED_PART);
            if is_back || now >= until || peers.is_some_and(|peers| peers.live == 0) {
                self.phase = Phase::Trial(now);
                self.returned_at = Some(now);
                self.pause.double();
                return AsideAction::Return;
            }
            return AsideAction::None;
        }
        let Some(since) = down_since else {
            self.phase = Phase::Serving;
            if self.returned_at.is_some_and(|at| now.since(at) >= WELL_FOR) {
                self.pause.reset();
                self.returned_at = None;
            }
            return if std::mem::take(&mut self.told) { AsideAction::Tell(false) } else { AsideAction::None };
        };
        if !self.told && now.since(since) >= TELL_AFTER {
            self.told = true;
            return AsideAction::Tell(true);
        }
        if self.told && self.is_long_down(now, down_since) && peers.is_some_and(|peers| peers.well > 0) {
            self.phase = Phase::Aside { since: now, until: now.later(self.session + self.pause.current()) };
            return AsideAction::Leave;
        }
        AsideAction::None
    }

    fn is_long_down(&self, now: LocalTime, down_since: Option<LocalTime>) -> bool {
        match self.phase {
            Phase::Trial(began) => down_since.is_some() && now.since(began) >= TRIAL,
            Phase::Serving | Phase::Aside { .. } => down_since.is_some_and(|since| now.since(since) >= LEAVE_AFTER),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: Duration = Duration::from_secs(10);

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> LocalTime {
        LocalTime::from_micros(1_000_000).later(SECOND * u32::try_from(seconds).unwrap())
    }

    const ONE_WELL: Option<Peers> = Some(Peers { live: 1, well: 1 });
    const THREE_DOWN: Option<Peers> = Some(Peers { live: 3, well: 0 });
    const NOBODY: Option<Peers> = Some(Peers { live: 0, well: 0 });

    /// The actions from one second to another, each with its second.
    fn run(
        aside: &mut StepAside,
        seconds: std::ops::Range<u64>,
        down_since: Option<u64>,
        reachable_from: u64,
        peers: Option<Peers>,
    ) -> Vec<(u64, AsideAction)> {
        let mut steps = Vec::new();
        for second in seconds {
            let down_since = down_since.map(at);
            let look = AsideInput { now: at(second), down_since, is_reachable: second >= reachable_from, peers };
            let step = aside.next(&look);
            if step != AsideAction::None {
                steps.push((second, step));
            }
        }
        steps
    }

    const NEVER: u64 = u64::MAX;

    #[test]
    fn a_short_outage_is_not_told() {
        let mut aside = StepAside::new(false, SESSION);
        assert_eq!(run(&mut aside, 10..12, Some(10), NEVER, ONE_WELL), []);
        assert_eq!(run(&mut aside, 12..60, None, NEVER, ONE_WELL), []);
    }

    #[test]
    fn a_worker_whose_handler_is_down_leaves_where_another_is_well() {
        let mut aside = StepAside::new(false, SESSION);
        let steps = run(&mut aside, 10..60, Some(10), NEVER, ONE_WELL);
        assert_eq!(steps, [(13, AsideAction::Tell(true)), (40, AsideAction::Leave)]);
        assert_eq!(aside.is_aside(), Some((at(40), at(80))));
    }

    #[test]
    fn nobody_moves_where_all_are_down_or_nobody_else_is_there_or_known() {
        for peers in [THREE_DOWN, NOBODY, None] {
            let mut aside = StepAside::new(false, SESSION);
            assert_eq!(run(&mut aside, 10..2_000, Some(10), NEVER, peers), [(13, AsideAction::Tell(true))]);
        }
    }

    #[test]
    fn it_comes_back_when_its_handler_can_be_reached_and_tells_so_once_it_answers() {
        let mut aside = StepAside::new(false, SESSION);
        run(&mut aside, 10..41, Some(10), NEVER, ONE_WELL);
        assert_eq!(run(&mut aside, 41..66, Some(10), 45, ONE_WELL), [(60, AsideAction::Return)]);
        assert_eq!(run(&mut aside, 66..70, None, 45, ONE_WELL), [(66, AsideAction::Tell(false))]);
    }

    #[test]
    fn each_try_that_fails_doubles_the_time_away() {
        let mut aside = StepAside::new(false, SESSION);
        let steps = run(&mut aside, 10..2_000, Some(10), NEVER, ONE_WELL);
        let away: Vec<u64> = steps[1..].chunks_exact(2).map(|pair| pair[1].0 - pair[0].0).collect();
        assert_eq!(away[..6], [40, 70, 130, 250, 310, 310], "{steps:?}");
        let tries: Vec<u64> = steps[2..].chunks_exact(2).map(|pair| pair[1].0 - pair[0].0).collect();
        assert!(tries.iter().all(|seconds| *seconds == 20), "{steps:?}");
    }

    #[test]
    fn after_a_long_time_without_an_outage_the_next_one_is_the_first_again() {
        let mut aside = StepAside::new(false, SESSION);
        run(&mut aside, 10..90, Some(10), NEVER, ONE_WELL);
        run(&mut aside, 90..500, None, NEVER, ONE_WELL);
        run(&mut aside, 500..531, Some(500), NEVER, ONE_WELL);
        assert_eq!(aside.is_aside(), Some((at(530), at(570))));
    }

    #[test]
    fn where_nobody_else_is_left_it_comes_back_at_once() {
        let mut aside = StepAside::new(false, SESSION);
        run(&mut aside, 10..41, Some(10), NEVER, ONE_WELL);
        assert_eq!(run(&mut aside, 41..43, Some(10), NEVER, NOBODY), [(41, AsideAction::Return)]);
    }

    #[test]
    fn what_was_told_before_a_restart_is_taken_back_and_what_could_not_be_told_is_told_again() {
        let mut aside = StepAside::new(true, SESSION);
        assert_eq!(run(&mut aside, 1..3, None, NEVER, None), [(1, AsideAction::Tell(false))]);
        assert_eq!(run(&mut aside, 10..15, Some(10), NEVER, None), [(13, AsideAction::Tell(true))]);
        aside.not_told();
        assert_eq!(run(&mut aside, 15..16, Some(10), NEVER, ONE_WELL), [(15, AsideAction::Tell(true))]);
    }
}

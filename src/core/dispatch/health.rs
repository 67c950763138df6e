//! The handler's health, derived from its answers: up, degraded, or down.
//!
//! - **Evidence must be independent.** Failed calls are counted by different records (or keys) and partitions. A record that fails as it
//!   has failed before says nothing about the handler, and any good answer proves that it works: all counts are reset.
//! - **Down**: no good answer for a while, and failed calls of several partitions, or of all that have records. If records are few,
//!   time decides instead of their number.
//! - **In doubt**: enough records have met errors or timeouts in a row, until a good answer comes or the time is over: a few calls
//!   continue, from partitions that have not just failed.
//! - **Degraded**: fewer calls than slots run: after a recovery, when a share of the calls of most partitions time out, and when all
//!   connections are lost at once. Then the number of calls rises with good answers and falls with such failures (additive increase,
//!   multiplicative decrease, as in RFC 5681).
//!
//! While it is down, rounds of probes test whether it has recovered: real records of different partitions, a few at a time. The time
//! between rounds grows with the outage, and only by the evidence of probes of different partitions.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use crate::core::backoff::Doubling;
use crate::core::dispatch::load::{Limit, RecentCalls};
use crate::core::dispatch::policy::Policy;
use crate::core::dispatch::present::{Present, Witness};
use crate::core::dispatch::probes::{Admission, Candidate, Doubt, Down, leave};
use crate::core::dispatch::standing::{BreakerSettings, Evidence, Standing, Trouble};
use crate::core::leader_clock::LocalTime;

/// A probe of an unreachable handler that is not refused within this time has reached it; the time doubles whenever that turns out
/// wrong, as it does where connection attempts fail slowly.
const REACHED_AFTER: Duration = Duration::from_millis(250);
const REACHED_AFTER_MOST: Duration = Duration::from_secs(8);

/// Number of calls in a row that could not be sent after which the handler is in doubt.
const UNREACHABLE_CALLS: u64 = 3;

/// The allowed calls fall if at least this many recent ones timed out and most partitions are slow, and when the handler dies.
const DEGRADED_CALLS: usize = 3;

/// However slow and rare good answers are, the handler counts as down after this long without one.
const LONGEST_CALLS: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// More different records than this are not distinguished.
const MOST_RECORDS: usize = 10_000;

/// Which calls may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Allowance {
    /// Any, as long as at most this many run.
    Calls(usize),
    /// Those admitted by [`Health::admits`].
    Some,
}

/// The effect of an answer or of passing time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HealthChange {
    /// None.
    None,
    /// The handler is down now, and not merely unreachable.
    WentDown,
    /// The handler is down and unreachable.
    WentAway,
}

#[derive(Debug)]
enum State {
    Up,
    InDoubt(Doubt),
    Down(Down),
}

#[derive(Debug, Default)]
struct Troubles {
    first: Option<LocalTime>,
    records: HashSet<u64>,
    keys: HashSet<u64>,
    partitions: BTreeSet<u64>,
    calls: [u64; Trouble::ALL.len()],
    last: Option<Trouble>,
    last_at: Option<LocalTime>,
}

/// The health of a ladder's handler, in this process.
#[derive(Debug)]
pub(super) struct Health {
    settings: Option<BreakerSettings>,
    places: usize,
    state: State,
    limit: Option<Limit>,
    last_good: Option<LocalTime>,
    /// When the latest of the calls with good answers began.
    good_began: Option<LocalTime>,
    troubles: Troubles,
    recent: RecentCalls,
    /// When the allowed calls last fell: calls begun before do not reduce them again.
    fell_at: Option<LocalTime>,
    /// Moving averages of the duration of good answers, and of the time between them.
    usual: Duration,
    pause: Duration,
    reached_after: Doubling,
    rounds: u64,
}

impl Health {
    /// A handler that is up. Without settings it is never down or in doubt.
    pub fn new(settings: Option<BreakerSettings>, places: usize) -> Self {
        Self {
            settings,
            places,
            state: State::Up,
            limit: None,
            last_good: None,
            good_began: None,
            troubles: Troubles::default(),
            recent: RecentCalls::default(),
            fell_at: None,
            usual: Duration::ZERO,
            pause: Duration::ZERO,
            reached_after: Doubling::new(REACHED_AFTER, REACHED_AFTER_MOST),
            rounds: 0,
        }
    }

    pub fn standing(&self) -> Standing {
        match (&self.state, self.limit) {
            (State::Up, None) => Standing::Up,
            (State::Up, Some(limit)) => Standing::Degraded { allowed: limit.allowed },
            (State::InDoubt(_), _) => Standing::InDoubt,
            (State::Down(Down { round: Some(_), .. }), _) => Standing::Probing,
            (State::Down(Down { until, .. }), _) => Standing::Down { until: *until },
        }
    }

    pub fn evidence(&self) -> Evidence {
        Evidence {
            since: self.troubles.first,
            calls: self.troubles.calls,
            records: self.troubles.records.len(),
            partitions: self.troubles.partitions.len(),
        }
    }

    /// The usual duration of an answer.
    pub fn usual(&self) -> Duration {
        self.usual
    }

    /// Whether a call that began after this moment was answered well.
    pub fn answers_since(&self, moment: LocalTime) -> bool {
        self.good_began.is_some_and(|began| began > moment)
    }

    pub fn is_down(&self) -> bool {
        matches!(self.state, State::Down(_))
    }

    /// If it is down, the next round of probes may begin now.
    pub fn probe_now(&mut self, now: LocalTime) {
        if let State::Down(down) = &mut self.state {
            down.until = down.until.min(now);
        }
    }

    /// Since when it is down.
    pub fn down_since(&self) -> Option<LocalTime> {
        match &self.state {
            State::Down(down) => Some(down.since),
            State::Up | State::InDoubt(_) => None,
        }
    }

    /// Whether its state may change with time alone.
    pub fn is_restless(&self, now: LocalTime) -> bool {
        let is_open = |first: LocalTime| self.patience().is_some_and(|patience| now.since(first) <= patience * 2);
        !matches!(self.state, State::Up) || self.limit.is_some() || self.troubles.first.is_some_and(is_open)
    }

    /// How long a failure waits for a good answer, or until the handler is known to be down, before it counts. `None` if it counts at
    /// once.
    pub fn patience(&self) -> Option<Duration> {
        let settings = self.settings.as_ref()?;
        let (calls, pauses) = ((self.usual * 2).min(LONGEST_CALLS), (self.pause * 4).min(LONGEST_PAUSE));
        Some(settings.silence.max(calls).max(pauses))
    }

    pub fn allowance(&self) -> Allowance {
        match (&self.state, self.limit) {
            (State::Up, limit) => Allowance::Calls(limit.map_or(self.places, |limit| limit.allowed.min(self.places))),
            _ => Allowance::Some,
        }
    }

    /// Whether a partition has been probed since all had been: the others come first.
    pub fn was_asked(&self, partition: u64) -> bool {
        matches!(&self.state, State::Down(Down { round: Some(round), .. }) if round.asked.contains(&partition))
    }

    /// Whether a call may begin while the handler is in doubt or down.
    pub fn admits(&mut self, candidate: Candidate<'_>, now: LocalTime) -> Option<Admission> {
        let settings = self.settings.as_ref()?;
        match &mut self.state {
            State::Up => Some(Admission::Free),
            State::InDoubt(doubt) => doubt.admits(candidate, settings.probes, now),
            State::Down(down) => {
                let admission = down.admits(candidate, self.rounds + 1, settings, now);
                self.rounds = self.rounds.max(down.round.as_ref().map_or(0, |round| round.number));
                admission
            }
        }
    }

    /// No waiting record is admitted: a round without running probes is over.
    pub fn nothing_admitted(&mut self, has_waiting: bool, present: &Present, now: LocalTime) {
        let (State::Down(down), Some(settings)) = (&mut self.state, &self.settings) else { return };
        let Some(round) = &down.round else { return };
        if !round.running.is_empty() || (round.failed == 0 && !(has_waiting && round.doubtful > 0)) {
            // Still running, or without a candidate yet.
            return;
        }
        let conclusive = present.are_several(&round.partitions, now);
        down.end_round(settings, conclusive, now);
    }

    /// A call that began at `began` has ended with an answer that proves that the handler works.
    pub fn good(&mut self, admission: Admission, witness: &Witness, (began, now): (LocalTime, LocalTime)) {
        self.leave(admission, witness);
        let took = now.since(began);
        self.good_began = self.good_began.max(Some(began));
        self.usual = averaged(self.usual, took);
        if let Some(last) = self.last_good.replace(now).filter(|_| !self.is_down()) {
            self.pause = averaged(self.pause, now.since(last));
        }
        self.reached_after.reset();
        self.troubles = Troubles::default();
        self.recent.note(witness.partition, false, now, self.usual);
        match std::mem::replace(&mut self.state, State::Up) {
            State::Up | State::InDoubt(_) => {}
            State::Down(down) => self.begin_slowly(down.since, now),
        }
        if let Some(limit) = &mut self.limit {
            limit.answered();
        }
        self.lift_limit();
    }

    /// A call has ended without evidence.
    pub fn neutral(&mut self, admission: Admission, witness: &Witness) {
        self.leave(admission, witness);
    }

    /// A call that began at `began` has failed in a way that counts against the handler.
    pub fn trouble<P: Policy>(
        &mut self,
        policy: &P,
        admission: Admission,
        witness: &Witness,
        kind: Trouble,
        (began, now): (LocalTime, LocalTime),
        present: &Present,
    ) -> HealthChange {
        self.leave(admission, witness);
        let says_nothing = policy.says_nothing(witness.failed_before, kind);
        if let (State::InDoubt(Doubt { unreachable: true, .. }), Trouble::Errors, Some(first)) =
            (&self.state, kind, self.troubles.first)
        {
            // It is reachable again; its errors are a separate matter.
            self.is_reached(first, now);
        }
        if !says_nothing {
            self.troubles.note(witness, kind, now);
            if kind == Trouble::Timeouts {
                self.note_late(witness, began, now, present);
            }
        }
        match &mut self.state {
            State::Up => {}
            State::InDoubt(doubt) => {
                doubt.failed.insert(witness.partition, now);
                doubt.unreachable = kind == Trouble::Unreachable;
            }
            State::Down(down) => {
                down.failed.insert(witness.partition);
                if let (Admission::Probe(number), Some(round)) = (admission, &mut down.round)
                    && round.number == number
                {
                    down.unreachable = kind == Trouble::Unreachable;
                    down.one_at_a_time = kind == Trouble::LostConnections;
                    round.failed_one(witness, says_nothing, now.since(began));
                }
                return HealthChange::None;
            }
        }
        self.judge(now, present)
    }

    /// The effect of the time that has passed.
    pub fn pass_time(&mut self, now: LocalTime, present: &Present) -> HealthChange {
        if let Some(since) = self.reached_since(now) {
            self.reached_after.double();
            self.is_reached(since, now);
        }
        if self.is_down() {
            return HealthChange::None;
        }
        if let Some(limit) = &mut self.limit {
            let (timeouts, last) = (self.recent.timeouts, self.troubles.last_at);
            limit.pass_time(now, |since| timeouts == 0 && last.is_none_or(|at| at <= since));
            self.lift_limit();
        }
        self.judge(now, present)
    }

    /// Calls can be sent again, after they could not since `since`.
    fn is_reached(&mut self, since: LocalTime, now: LocalTime) {
        self.state = State::Up;
        self.troubles = Troubles::default();
        self.begin_slowly(since, now);
    }

    /// The time since which the handler was unreachable, if a running call has reached it by now.
    fn reached_since(&self, now: LocalTime) -> Option<LocalTime> {
        let is_under_way =
            |running: &[u64], began: LocalTime| !running.is_empty() && now >= began.later(self.reached_after.current());
        match &self.state {
            State::InDoubt(Doubt { running, unreachable: true, began, .. }) if is_under_way(running, *began) => {
                self.troubles.first
            }
            State::Down(Down { since, unreachable: true, round: Some(round), .. })
                if is_under_way(&round.running, round.began) =>
            {
                Some(*since)
            }
            _ => None,
        }
    }

    fn judge(&mut self, now: LocalTime, present: &Present) -> HealthChange {
        let (Some(settings), Some(patience)) = (self.settings, self.patience()) else { return HealthChange::None };
        let Some(first) = self.troubles.first else {
            return HealthChange::None;
        };
        // Every good answer resets the failures before it, so this is the time without one.
        let silence = now.since(first);
        let is_away = self.troubles.last == Some(Trouble::Unreachable) && silence >= settings.silence;
        let Troubles { partitions, keys, .. } = &self.troubles;
        let several = partitions.len() > 1 || (present.are_several(partitions, now) && present.are_several_keys(keys));
        let is_down = several && self.troubles.records.len() > 1 && silence >= patience;
        if is_away || is_down {
            let unreachable = self.troubles.last == Some(Trouble::Unreachable);
            let failed = self.troubles.partitions.clone();
            self.limit = None;
            self.state = State::Down(Down::new(first, failed, unreachable, &settings, now));
            return if unreachable { HealthChange::WentAway } else { HealthChange::WentDown };
        }
        let last = self.troubles.last;
        let fails = several
            && matches!(last, Some(Trouble::Errors | Trouble::Timeouts))
            && self.troubles.records.len() >= settings.consecutive;
        let unreachable =
            last == Some(Trouble::Unreachable) && self.troubles.calls[Trouble::Unreachable as usize] >= UNREACHABLE_CALLS;
        if (fails || unreachable) && matches!(self.state, State::Up) {
            let failed = self.troubles.partitions.iter().map(|partition| (*partition, now)).collect();
            self.state = State::InDoubt(Doubt::new(failed, unreachable, now));
        }
        HealthChange::None
    }

    fn leave(&mut self, admission: Admission, witness: &Witness) {
        match (admission, &mut self.state) {
            (Admission::InDoubt, State::InDoubt(Doubt { running, .. })) => leave(running, witness.partition),
            (Admission::Probe(0), State::Down(down)) => down.asking = down.asking.saturating_sub(1),
            (Admission::Probe(number), State::Down(Down { round: Some(round), .. })) if round.number == number => {
                leave(&mut round.running, witness.partition);
            }
            _ => {}
        }
    }

    fn begin_slowly(&mut self, since: LocalTime, now: LocalTime) {
        self.recent = RecentCalls::default();
        self.limit = Some(Limit::after_outage(now.since(since), self.places, now));
        self.lift_limit();
    }

    fn lift_limit(&mut self) {
        if self.limit.is_some_and(|limit| limit.allowed >= self.places) {
            self.limit = None;
        }
    }

    /// The handler has died, with all its calls in flight.
    pub fn died(&mut self, now: LocalTime) {
        if self.settings.is_some() && !self.is_down() {
            self.halve(true, now);
        }
    }

    /// Halves the number of allowed calls.
    fn halve(&mut self, by_each: bool, now: LocalTime) {
        let allowed = self.limit.map_or(self.places, |limit| limit.allowed) / 2;
        self.limit = Some(Limit::new(allowed, by_each, now));
        (self.recent, self.fell_at) = (RecentCalls::default(), Some(now));
        self.lift_limit();
    }

    fn note_late(&mut self, witness: &Witness, began: LocalTime, now: LocalTime, present: &Present) {
        if self.fell_at.is_some_and(|fell_at| began < fell_at) {
            return;
        }
        self.recent.note(witness.partition, true, now, self.usual);
        if self.recent.timeouts >= DEGRADED_CALLS
            && self.settings.is_some()
            && self.recent.slow_partitions().is_some_and(|slow| present.are_several(&slow, now))
        {
            self.halve(false, now);
        }
    }
}

impl Troubles {
    fn note(&mut self, witness: &Witness, kind: Trouble, now: LocalTime) {
        self.first.get_or_insert(now);
        (self.last, self.last_at) = (Some(kind), Some(now));
        self.calls[kind as usize] += 1;
        self.partitions.insert(witness.partition);
        if self.records.len() < MOST_RECORDS {
            self.records.insert(witness.record);
            self.keys.insert(witness.key);
        }
    }
}

fn averaged(before: Duration, now: Duration) -> Duration {
    if before.is_zero() { now } else { (before * 7 + now) / 8 }
}

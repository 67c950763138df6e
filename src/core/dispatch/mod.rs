//! Decides which delivery may begin now: one pure model of the handler's health and delivery slots, which is told the outcome of calls
//! and asked for the next one.
//!
//! Its guarantees, whatever some records do to the handler:
//!
//! - **Healthy records flow.** Partitions take turns; none has more than its share of the slots while another has something to deliver,
//!   and hanging calls never take all of them ([`Fair`], `lanes`).
//! - **A failure counts when the handler is known to answer**: when a good answer has come since the call began. Until then it is
//!   pending, and if the handler turns out to be down it does not count. So an outage costs no attempts, however short or long it is, and a
//!   single failing record still climbs, since nothing indicates an outage.
//! - **While the handler is down**, records of different partitions probe it; a failed probe goes to the end of its queue (`health`).
//! - **Only a record that kills the handler pays for that** (`suspects`).
//!
//! It has no clock and makes no calls: its caller (`model` in virtual time, the deliverer for real) takes the next call, makes it,
//! and reports the outcome. Records are jobs of any type; what the dispatch needs to know about one is in its [`Ticket`].

mod calls;
mod health;
mod lanes;
mod load;
mod outcomes;
mod policy;
mod present;
mod probes;
mod standing;
mod suspects;
mod turns;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use crate::core::dispatch::calls::{Begun, CallId, CallOutcome, Departure, DispatchSettings, Kind, Over, Ticket};
#[cfg(test)]
pub use crate::core::dispatch::policy::LaneUse;
pub use crate::core::dispatch::policy::{Fair, Policy, SlotUse};
pub use crate::core::dispatch::standing::{BreakerSettings, BreakerState, Evidence, Standing, Trouble};

use crate::core::dispatch::calls::Row;
use crate::core::dispatch::calls::{Call, DispatchEntry, Pending, Tries, failed_since, left_behind};
use crate::core::dispatch::health::{Allowance, Health, HealthChange};
use crate::core::dispatch::lanes::Lanes;
use crate::core::dispatch::present::Present;
use crate::core::dispatch::suspects::Suspects;
use crate::core::leader_clock::LocalTime;

/// One in so many slots is for records that timed out before; more as they come back well.
const HUNG_SHARE: usize = 8;

/// Interval of checks while something may change with time.
const TICK: Duration = Duration::from_millis(25);

/// The delivery slots of a ladder in this process, and the queues for them.
#[derive(Debug)]
pub struct Dispatch<J, P = Fair> {
    policy: P,
    settings: DispatchSettings,
    /// Maximum number of running calls of each kind, and of unsettled ones beyond that.
    limits: [usize; 2],
    unsettled_limits: [usize; 2],
    health: Health,
    lanes: Lanes<J>,
    suspects: Suspects<J>,
    pending: Vec<Pending<J>>,
    /// Calls to be retried in place, each at its time.
    later: Vec<(LocalTime, DispatchEntry<J>)>,
    calls: Vec<Option<Call>>,
    unused: Vec<usize>,
    running: [usize; 2],
    /// Calls that run, or wait for their commit.
    occupied: [usize; 2],
    tests: usize,
    hung: usize,
    hung_allowed: usize,
    row_turn: usize,
    suspects_turn: bool,
    /// Since when no call begins, so that a suspect can be alone; and since when it is.
    quiet_since: Option<LocalTime>,
    alone_since: Option<LocalTime>,
    /// Connections were lost, and a call that was running then has been answered since.
    outlived: bool,
    /// When a call last could not be sent.
    unreachable_at: Option<LocalTime>,
    /// When it last died, with all its calls in flight.
    died_at: Option<LocalTime>,
    /// The partitions with records, now or recently.
    present: Present,
    over: Vec<Over<J>>,
}

impl<J> Dispatch<J> {
    /// Without any records.
    #[must_use]
    pub fn new(settings: DispatchSettings) -> Self {
        Self::with_policy(settings, Fair)
    }
}

impl<J, P: Policy> Dispatch<J, P> {
    /// With another policy.
    pub fn with_policy(settings: DispatchSettings, policy: P) -> Self {
        let places = settings.places.max(1);
        let [limits, unsettled_limits] = [places, settings.unsettled].map(|all| limits(all, settings.redeliver_share));
        Self {
            policy,
            settings,
            limits,
            unsettled_limits,
            health: Health::new(settings.breaker, places),
            lanes: Lanes::new(limits, unsettled_limits),
            suspects: Suspects::new(),
            pending: Vec::new(),
            later: Vec::new(),
            calls: Vec::new(),
            unused: Vec::new(),
            running: [0; 2],
            occupied: [0; 2],
            tests: 0,
            hung: 0,
            hung_allowed: hung_share(places),
            row_turn: 0,
            suspects_turn: false,
            quiet_since: None,
            alone_since: None,
            outlived: false,
            unreachable_at: None,
            died_at: None,
            present: Present::default(),
            over: Vec::new(),
        }
    }

    /// The handler's state.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.health.standing()
    }

    /// Why it is known to be down or in doubt.
    #[must_use]
    pub fn evidence(&self) -> Evidence {
        self.health.evidence()
    }

    /// Since when it is down.
    #[must_use]
    pub fn down_since(&self) -> Option<LocalTime> {
        self.health.down_since()
    }

    /// If the handler is down, the next probes may begin now.
    pub fn probe_now(&mut self, now: LocalTime) {
        self.health.probe_now(now);
    }

    /// Number of running calls.
    #[cfg(test)]
    #[must_use]
    pub fn running(&self) -> usize {
        self.all_running()
    }

    /// Number of calls that run, or wait for their commit.
    #[cfg(test)]
    #[must_use]
    pub fn occupied(&self) -> usize {
        self.occupied.iter().sum()
    }

    fn all_running(&self) -> usize {
        self.running.iter().sum()
    }

    /// Number of suspects, which were with the handler when it died.
    #[must_use]
    pub fn suspects(&self) -> usize {
        self.suspects.len()
    }

    /// A partition was assigned.
    pub fn open_lane(&mut self, lane: u64, kind: Kind) {
        self.lanes.open(lane, kind);
    }

    /// Whether a partition is assigned.
    #[must_use]
    pub fn is_open(&self, lane: u64) -> bool {
        self.lanes.is_open(lane)
    }

    /// A partition is revoked: its records that have not begun never will.
    pub fn close_lane(&mut self, lane: u64) {
        let is_gone = |entry: &DispatchEntry<J>| entry.ticket.lane == lane;
        let mut gone = self.lanes.close(lane);
        gone.extend(self.suspects.remove(is_gone));
        for (at, entry) in std::mem::take(&mut self.later) {
            if is_gone(&entry) { gone.push(entry) } else { self.later.push((at, entry)) }
        }
        for entry in gone {
            let fate = left_behind(&entry.tries);
            self.leave(entry, fate, None);
        }
        for pending in std::mem::take(&mut self.pending) {
            if is_gone(&pending.entry) { self.leave(pending.entry, Departure::Dropped, None) } else { self.pending.push(pending) }
        }
    }

    /// Whether one more record of a partition may be taken from Kafka.
    #[must_use]
    pub fn has_room(&self, lane: u64) -> bool {
        self.lanes.has_room(lane)
    }

    /// A record was taken. It leaves through [`Dispatch::take_over`].
    pub fn arrive(&mut self, ticket: Ticket, job: J) {
        let mut entry = DispatchEntry { job, ticket, tries: Tries::default() };
        self.present.arrives(&ticket.witness());
        if !self.lanes.is_open(ticket.lane) {
            self.leave(entry, Departure::Dropped, None);
            return;
        }
        self.lanes.take(ticket.lane);
        self.lanes.set_aside(&mut entry, ticket.row() == Row::Hung);
        self.lanes.push_back(ticket.row(), entry);
    }

    /// The next call to make, if one may begin now.
    pub fn next(&mut self, now: LocalTime) -> Option<Begun<J>> {
        self.pass_time(now);
        let slots = SlotUse { running: self.all_running(), occupied: self.occupied.iter().sum() };
        let places = self.settings.places.max(1);
        if !self.policy.may_begin(slots, SlotUse { running: places, occupied: places + self.settings.unsettled }) {
            return None;
        }
        match self.health.allowance() {
            Allowance::Calls(most) if slots.running >= most => None,
            Allowance::Calls(_) if self.keeps_quiet(now) => None,
            Allowance::Calls(most) => self.next_suspect(most, now).or_else(|| self.next_in_turn(most, now)),
            Allowance::Some => self.next_admitted(now),
        }
    }

    /// When to call again even without an event.
    #[must_use]
    pub fn wake_at(&self, now: LocalTime) -> Option<LocalTime> {
        let is_restless = !self.pending.is_empty() || self.suspects.len() > 0 || self.health.is_restless(now);
        let tick = match self.health.standing() {
            Standing::Down { .. } | Standing::Probing if self.all_running() == 0 && !self.has_work() => None,
            Standing::Down { until } if now < until => Some(until.min(now.later(TICK * 4))),
            _ => is_restless.then(|| now.later(TICK)),
        };
        let later = self.later.iter().map(|(at, _)| *at).min();
        tick.into_iter().chain(later).min().map(|at| at.max(now))
    }

    /// Whether there are records that neither run nor wait for a retry.
    fn has_work(&self) -> bool {
        self.lanes.has_waiting() || self.suspects.len() > 0 || !self.pending.is_empty()
    }

    /// Reports the outcome of a call.
    pub fn ended(&mut self, call: CallId, job: J, outcome: CallOutcome, now: LocalTime) {
        let Some(call) = self.remove_call(call) else { return };
        let Call { ticket, tries, kind, row, admission, began } = call;
        let (mut entry, witness) = (DispatchEntry { job, ticket, tries }, ticket.witness());
        let was_answered = matches!(outcome, CallOutcome::Good(_) | CallOutcome::Trouble(Trouble::Errors, _));
        self.outlived |= was_answered && self.suspects.lost_since().is_some_and(|since| began < since);
        let has_hung =
            matches!(outcome, CallOutcome::Trouble(Trouble::Timeouts, _) | CallOutcome::InCompany(Some(Trouble::Timeouts)));
        self.lanes.end(ticket.lane, has_hung);
        if tries.is_suspect {
            self.tests -= 1;
        }
        match outcome {
            CallOutcome::Good(again) => {
                self.health.good(admission, &witness, (began, now));
                self.suspects.came_back(&mut entry);
                self.present.answered_well(ticket.partition, now);
                if row == Row::Hung {
                    self.hung_allowed = (self.hung_allowed + 1).min(self.limits[kind as usize]);
                }
                match again.filter(|_| self.lanes.is_open(ticket.lane)) {
                    Some(pause) => self.repeat(entry, kind, pause, now),
                    None => self.leave(entry, Departure::Counts, Some(kind)),
                }
                // The handler answers, so earlier failures are the records' own.
                for pending in std::mem::take(&mut self.pending) {
                    if self.health.answers_since(failed_since(&pending.entry.tries, pending.trouble)) {
                        self.leave(pending.entry, Departure::Counts, None);
                    } else {
                        self.pending.push(pending);
                    }
                }
            }
            CallOutcome::NotMade => {
                self.health.neutral(admission, &witness);
                self.free(kind);
                if self.lanes.is_open(ticket.lane) {
                    self.back(entry);
                } else {
                    self.leave(entry, left_behind(&tries), None);
                }
            }
            CallOutcome::InCompany(trouble) => {
                let change = if let Some(trouble) = trouble {
                    self.health.trouble(&self.policy, admission, &witness, trouble, (began, now), &self.present)
                } else {
                    self.health.neutral(admission, &witness);
                    HealthChange::None
                };
                self.free(kind);
                if self.lanes.is_open(ticket.lane) {
                    self.failed_in_company(entry, now);
                } else {
                    self.leave(entry, left_behind(&tries), None);
                }
                self.follow(change, now);
            }
            CallOutcome::Trouble(trouble, again) => {
                let change = self.health.trouble(&self.policy, admission, &witness, trouble, (began, now), &self.present);
                if self.lanes.is_open(ticket.lane) {
                    self.in_trouble(entry, trouble, again, (kind, row), now);
                } else {
                    // A shutdown may have stopped the handler too: lost calls are left to the next owner to deliver.
                    let is_answer = matches!(trouble, Trouble::Errors | Trouble::Timeouts) && !self.health.is_down();
                    let fate = if is_answer { Departure::Counts } else { left_behind(&entry.tries) };
                    self.leave(entry, fate, Some(kind));
                }
                self.follow(change, now);
                if self.health.is_down() && trouble != Trouble::Unreachable {
                    // It is reachable and still failing: the cause of its death is unknown.
                    self.pending_are_probes(|_| true, now);
                }
            }
        }
    }

    /// A record about to be called turned out not to be due for one: it leaves without an outcome.
    pub fn withdraw(&mut self, call: CallId, job: J) {
        let Some(Call { ticket, tries, kind, admission, .. }) = self.remove_call(call) else { return };
        self.lanes.end(ticket.lane, false);
        self.health.neutral(admission, &ticket.witness());
        let mut entry = DispatchEntry { job, ticket, tries };
        if tries.is_suspect {
            self.tests -= 1;
            self.suspects.came_back(&mut entry);
        }
        self.free(kind);
        self.lanes.leave(ticket.lane, tries.is_aside);
        self.present.leaves(&ticket.witness());
    }

    /// So many calls that had ended are committed.
    pub fn release(&mut self, kind: Kind, calls: usize) {
        let occupied = &mut self.occupied[kind as usize];
        *occupied = occupied.saturating_sub(calls);
    }

    /// The records that have left since the last call.
    pub fn take_over(&mut self) -> Vec<Over<J>> {
        std::mem::take(&mut self.over)
    }

    fn remove_call(&mut self, CallId(index): CallId) -> Option<Call> {
        let call = self.calls.get_mut(index)?.take()?;
        self.unused.push(index);
        self.running[call.kind as usize] -= 1;
        if self.all_running() == 0 {
            self.alone_since = None;
        }
        self.hung -= usize::from(call.row == Row::Hung);
        Some(call)
    }

    fn free(&mut self, kind: Kind) {
        self.release(kind, 1);
    }
}

/// At least one slot is kept for redeliveries, and they get at most their share: with a half, fresh records keep at least half of the
/// rate that they would have without redeliveries.
#[must_use]
pub fn limits(all: usize, redeliver_share: f64) -> [usize; 2] {
    if all == 0 {
        return [0; 2];
    }
    let source = (all - 1).max(1);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of at most 10,000"
    )]
    let redeliver = ((source as f64 * redeliver_share) as usize).clamp(1, all);
    [source, redeliver]
}

fn hung_share(places: usize) -> usize {
    (places / HUNG_SHARE).max(1)
}

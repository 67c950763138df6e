//! Which delivery may begin now: one pure model of the handler's health and of the places at it, fed by what became of calls and asked
//! for the next one.
//!
//! What it keeps to, whatever some records do to the handler:
//!
//! - **Healthy records flow.** Partitions take turns, none has more than its share of the places while another has something to deliver,
//!   and calls that hang never take all of them ([`Fair`], `lanes`).
//! - **A failure counts when the handler is known to answer**: when a good answer has come since the call began. Until then it waits, and
//!   where the handler turns out to be down it does not count. So an outage burns no attempts, however short or long it is, and a lonely
//!   record that fails climbs nevertheless, since nothing speaks for an outage.
//! - **While the handler is down** records of different partitions probe it; a probe in trouble goes to the end of its row (`health`).
//! - **Nobody pays for a record over which the handler dies**, but that record (`suspects`).
//!
//! It has no clock and makes no calls: whoever runs it (`model` in virtual time, the deliverer for real) takes
//! what may begin, makes the call, and tells what came of it. Records are jobs of whatever type; what the dispatch has to know of one
//! stands on its [`Ticket`].

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

pub use crate::core::dispatch::policy::{Fair, LaneUse, Policy};
pub use crate::core::dispatch::standing::{BreakerSettings, BreakerState, Evidence, Standing, Trouble};

use crate::core::dispatch::health::{Admission, Allowance, Health, Witness};
use crate::core::dispatch::lanes::{Lanes, Row};
use crate::core::dispatch::present::Present;
use crate::core::dispatch::suspects::Suspects;
use crate::core::leader_clock::LocalTime;

/// Until what could not be sent is tried again, at first.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// One in so many places is for records that timed out before; more as they come back well.
const HUNG_SHARE: usize = 8;

/// How often it looks after itself while something may change by time.
const TICK: Duration = Duration::from_millis(25);

/// Where a record comes from, for the budgets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// From a source.
    Source = 0,
    /// From the redeliver topic.
    Redeliver = 1,
}

/// What has to be known of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// The assignment of the partition that it is taken from.
    pub lane: u64,
    /// The partition that it first came from, so that a record and its redelivery are of the same.
    pub partition: u64,
    /// The record.
    pub record: u64,
    /// Its key; the record itself where it has none.
    pub key: u64,
    /// How its last attempt failed, where that was trouble.
    pub failed_before: Option<Trouble>,
    /// Each of its starts is to be counted before it is called.
    pub count_start: bool,
}

impl Ticket {
    fn witness(&self) -> Witness {
        Witness { record: self.record, key: self.key, partition: self.partition, failed_before: self.failed_before }
    }

    fn row(&self) -> Row {
        if self.failed_before == Some(Trouble::Timeouts) { Row::Hung } else { Row::Usual }
    }
}

/// How many calls run, and when the handler counts as down.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DispatchSettings {
    /// How many calls may run, and how many finished ones may wait for their commit, together.
    pub places: usize,
    /// The share of them that redeliveries may take.
    pub redeliver_share: f64,
    /// Without it the handler is never down, and every failure counts at once.
    pub breaker: Option<BreakerSettings>,
}

/// What came of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The handler works, whatever it says of the record. With a time it is to be repeated in place after that.
    Good(Option<Duration>),
    /// It met trouble. With a time it is to be repeated in place after that.
    Trouble(Trouble, Option<Duration>),
    /// It was not made after all.
    NotMade,
}

/// A call that was let through; exactly one [`Dispatch::ended`] or [`Dispatch::withdraw`] follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallId(usize);

/// A call to be made.
#[derive(Debug)]
pub struct Begun<J> {
    /// Its name.
    pub call: CallId,
    /// The record.
    pub job: J,
    /// Its start is to be counted first.
    pub count_start: bool,
    /// A failed attempt of it is repeated in place.
    pub is_repeat: bool,
}

/// What becomes of a record that leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// What came of its last call counts.
    Counts,
    /// It has failed while the handler is down, and makes room for others: it waits in its tier, and no attempt is counted.
    Postponed,
    /// Its partition has gone, and it is as if its last call had not been made.
    Dropped,
}

/// A record that has left.
#[derive(Debug)]
pub struct Over<J> {
    /// The record.
    pub job: J,
    /// What becomes of it.
    pub fate: Fate,
    /// It takes up a place of this kind until [`Dispatch::release`].
    pub place: Option<Kind>,
}

/// What is known of a record since it is here.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, and any may go with any other")]
#[derive(Debug, Clone, Copy, Default)]
struct Tries {
    losses: u8,
    deaths: u8,
    /// When it lost its connection first.
    lost_first: Option<LocalTime>,
    is_suspect: bool,
    is_aside: bool,
    /// When its last call began.
    began: Option<LocalTime>,
    /// The round in which it was a probe last.
    round: u64,
    /// As a probe it lost its connection then, and so often the handler could not be reached afterwards.
    lost_at: Option<LocalTime>,
    lost_probes: u8,
    unsent_since: Option<LocalTime>,
    pause: Duration,
    /// A failed attempt that is being repeated in place.
    has_failed: bool,
    /// It was called, and that did not count: those that were not come before it.
    was_tried: bool,
}

#[derive(Debug)]
struct Entry<J> {
    job: J,
    ticket: Ticket,
    tries: Tries,
}

impl<J> Entry<J> {
    fn row(&self) -> Row {
        if self.tries.was_tried { Row::Tried } else { self.ticket.row() }
    }
}

#[derive(Debug)]
struct Call {
    ticket: Ticket,
    tries: Tries,
    kind: Kind,
    row: Row,
    admission: Admission,
    began: LocalTime,
}

/// A failure that counts when a good answer comes, or when nothing speaks for an outage.
#[derive(Debug)]
struct Pending<J> {
    entry: Entry<J>,
    trouble: Trouble,
    since: LocalTime,
}

/// The places at a ladder's handler in this process, and who is next.
#[derive(Debug)]
pub struct Dispatch<J, P = Fair> {
    policy: P,
    settings: DispatchSettings,
    limits: [usize; 2],
    health: Health,
    lanes: Lanes<J>,
    suspects: Suspects<J>,
    pending: Vec<Pending<J>>,
    /// To be tried again in place, each at its time.
    later: Vec<(LocalTime, Entry<J>)>,
    calls: Vec<Option<Call>>,
    unused: Vec<usize>,
    running: usize,
    occupied: [usize; 2],
    tests: usize,
    hung: usize,
    hung_allowed: usize,
    row_turn: usize,
    suspects_turn: bool,
    /// Since when nothing new begins, so that a suspect may be alone; and since when it is.
    quiet_since: Option<LocalTime>,
    alone_since: Option<LocalTime>,
    /// Connections were lost, and a call that was there then has been answered since.
    outlived: bool,
    /// When a call could not be sent last.
    unreachable_at: Option<LocalTime>,
    /// When it died last, with all calls that were with it.
    died_at: Option<LocalTime>,
    /// The partitions of which there are records, or have been lately.
    present: Present,
    over: Vec<Over<J>>,
}

impl<J> Dispatch<J> {
    /// With nothing to do yet.
    #[must_use]
    pub fn new(settings: DispatchSettings) -> Self {
        Self::with_policy(settings, Fair)
    }
}

impl<J, P: Policy> Dispatch<J, P> {
    /// By decisions of one's own.
    pub fn with_policy(settings: DispatchSettings, policy: P) -> Self {
        let limits = limits(&settings);
        let places = settings.places.max(1);
        Self {
            policy,
            settings,
            limits,
            health: Health::new(settings.breaker, places),
            lanes: Lanes::new(limits),
            suspects: Suspects::new(),
            pending: Vec::new(),
            later: Vec::new(),
            calls: Vec::new(),
            unused: Vec::new(),
            running: 0,
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

    /// How the handler is.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.health.standing()
    }

    /// By what it is known to be down or in doubt.
    #[must_use]
    pub fn evidence(&self) -> Evidence {
        self.health.evidence()
    }

    /// Since when it is down.
    #[must_use]
    pub fn down_since(&self) -> Option<LocalTime> {
        self.health.down_since()
    }

    /// If the handler is down, the next probes may go now.
    pub fn probe_now(&mut self, now: LocalTime) {
        self.health.probe_now(now);
    }

    /// How many calls run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running
    }

    /// How many records are under suspicion, since the handler died while they were with it.
    #[must_use]
    pub fn suspects(&self) -> usize {
        self.suspects.len()
    }

    /// At most this many calls of a kind run.
    #[must_use]
    pub fn limit(&self, kind: Kind) -> usize {
        self.limits[kind as usize]
    }

    /// A partition is worked on from now on.
    pub fn open_lane(&mut self, lane: u64, kind: Kind) {
        self.lanes.open(lane, kind);
    }

    /// A partition goes: what of it has not begun never does.
    pub fn close_lane(&mut self, lane: u64) {
        let is_gone = |entry: &Entry<J>| entry.ticket.lane == lane;
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
            if is_gone(&pending.entry) { self.leave(pending.entry, Fate::Dropped, None) } else { self.pending.push(pending) }
        }
    }

    /// Whether a record more of a partition may be taken from Kafka.
    #[must_use]
    pub fn has_room(&self, lane: u64) -> bool {
        self.lanes.has_room(lane)
    }

    /// A record was taken. It leaves by [`Dispatch::take_over`].
    pub fn arrive(&mut self, ticket: Ticket, job: J) {
        let mut entry = Entry { job, ticket, tries: Tries { pause: FIRST_PAUSE, ..Tries::default() } };
        self.present.arrives(&ticket.witness());
        if !self.lanes.is_open(ticket.lane) {
            self.leave(entry, Fate::Dropped, None);
            return;
        }
        self.lanes.take(ticket.lane);
        self.lanes.set_aside(&mut entry, ticket.row() == Row::Hung);
        self.lanes.push_back(ticket.row(), entry);
    }

    /// The next call to be made, if one may begin now.
    pub fn next(&mut self, now: LocalTime) -> Option<Begun<J>> {
        self.pass_time(now);
        if self.occupied.iter().sum::<usize>() >= self.settings.places.max(1) {
            return None;
        }
        match self.health.allowance() {
            Allowance::Calls(most) if self.running >= most => None,
            Allowance::Calls(_) if self.keeps_quiet(now) => None,
            Allowance::Calls(most) => self.next_suspect(most, now).or_else(|| self.next_in_turn(most, now)),
            Allowance::Some => self.next_admitted(now),
        }
    }

    /// When to ask again although nothing was told.
    #[must_use]
    pub fn wake_at(&self, now: LocalTime) -> Option<LocalTime> {
        let is_restless = !self.pending.is_empty() || self.suspects.len() > 0 || self.health.is_restless(now);
        let tick = match self.health.standing() {
            Standing::Down { .. } | Standing::Probing if self.running == 0 && !self.has_work() => None,
            Standing::Down { until } if now < until => Some(until.min(now.later(TICK * 4))),
            _ => is_restless.then(|| now.later(TICK)),
        };
        let later = self.later.iter().map(|(at, _)| *at).min();
        tick.into_iter().chain(later).min().map(|at| at.max(now))
    }

    /// Whether there are records that do not run and are not to be tried again later.
    fn has_work(&self) -> bool {
        self.lanes.has_waiting() || self.suspects.len() > 0 || !self.pending.is_empty()
    }

    /// What came of a call.
    pub fn ended(&mut self, call: CallId, job: J, outcome: Outcome, now: LocalTime) {
        let Some(call) = self.remove_call(call) else { return };
        let Call { ticket, tries, kind, row, admission, began } = call;
        let (mut entry, witness) = (Entry { job, ticket, tries }, ticket.witness());
        let was_answered = matches!(outcome, Outcome::Good(_) | Outcome::Trouble(Trouble::Errors, _));
        self.outlived |= was_answered && self.suspects.lost_since().is_some_and(|since| began < since);
        self.lanes.end(ticket.lane, matches!(outcome, Outcome::Trouble(Trouble::Timeouts, _)));
        if tries.is_suspect {
            self.tests -= 1;
        }
        match outcome {
            Outcome::Good(again) => {
                self.health.good(admission, &witness, (began, now));
                self.suspects.came_back(&mut entry);
                self.present.answered_well(ticket.partition, now);
                if row == Row::Hung {
                    self.hung_allowed = (self.hung_allowed + 1).min(self.limits[kind as usize]);
                }
                match again.filter(|_| self.lanes.is_open(ticket.lane)) {
                    Some(pause) => self.repeat(entry, kind, pause, now),
                    None => self.leave(entry, Fate::Counts, Some(kind)),
                }
                // The handler answers, so what failed before is the records' own affair.
                for pending in std::mem::take(&mut self.pending) {
                    if self.health.answers_since(failed_since(&pending.entry.tries, pending.trouble)) {
                        self.leave(pending.entry, Fate::Counts, None);
                    } else {
                        self.pending.push(pending);
                    }
                }
            }
            Outcome::NotMade => {
                self.health.neutral(admission, &witness);
                self.free(kind);
                if self.lanes.is_open(ticket.lane) {
                    self.back(entry);
                } else {
                    self.leave(entry, left_behind(&tries), None);
                }
            }
            Outcome::Trouble(trouble, again) => {
                let change = self.health.trouble(&self.policy, admission, &witness, trouble, (began, now), &self.present);
                if self.lanes.is_open(ticket.lane) {
                    self.in_trouble(entry, trouble, again, (kind, row), now);
                } else {
                    // Whoever stops the worker may have stopped the handler, too: what was lost then is the next owner's to deliver.
                    let is_answer = matches!(trouble, Trouble::Errors | Trouble::Timeouts) && !self.health.is_down();
                    let fate = if is_answer { Fate::Counts } else { left_behind(&entry.tries) };
                    self.leave(entry, fate, Some(kind));
                }
                self.follow(change, now);
                if self.health.is_down() && trouble != Trouble::Unreachable {
                    // It can be reached, and is still in trouble: nobody knows what it died over.
                    self.pending_are_probes(|_| true, now);
                }
            }
        }
    }

    /// A record that was about to be called is none that should be: it leaves without a word.
    pub fn withdraw(&mut self, call: CallId, job: J) {
        let Some(Call { ticket, tries, kind, admission, .. }) = self.remove_call(call) else { return };
        self.lanes.end(ticket.lane, false);
        self.health.neutral(admission, &ticket.witness());
        let mut entry = Entry { job, ticket, tries };
        if tries.is_suspect {
            self.tests -= 1;
            self.suspects.came_back(&mut entry);
        }
        self.free(kind);
        self.lanes.leave(ticket.lane, tries.is_aside);
        self.present.leaves(&ticket.witness());
    }

    /// A place is free again.
    pub fn release(&mut self, kind: Kind) {
        self.free(kind);
    }

    /// The records that have left since the last time.
    pub fn take_over(&mut self) -> Vec<Over<J>> {
        std::mem::take(&mut self.over)
    }

    fn remove_call(&mut self, CallId(index): CallId) -> Option<Call> {
        let call = self.calls.get_mut(index)?.take()?;
        self.unused.push(index);
        self.running -= 1;
        if self.running == 0 {
            self.alone_since = None;
        }
        self.hung -= usize::from(call.row == Row::Hung);
        Some(call)
    }

    fn free(&mut self, kind: Kind) {
        let occupied = &mut self.occupied[kind as usize];
        *occupied = occupied.saturating_sub(1);
    }
}

/// What is answered well that began later says that the handler works, and that a failure is the record's own affair. Of lost connections
/// the first counts, also where the handler has died once more since.
fn failed_since(tries: &Tries, trouble: Trouble) -> LocalTime {
    let since = if trouble == Trouble::LostConnections { tries.lost_first } else { tries.began };
    since.unwrap_or(LocalTime::from_micros(i64::MIN))
}

/// What becomes of a record that waits when its partition goes: an attempt that was to be repeated in place has failed as it stands.
fn left_behind(tries: &Tries) -> Fate {
    if tries.has_failed { Fate::Counts } else { Fate::Dropped }
}

/// A place is always kept for redeliveries, and they have no more than their share of what fresh records have without them: with a half,
/// fresh records keep at least half of their rate.
fn limits(settings: &DispatchSettings) -> [usize; 2] {
    let all = settings.places.max(1);
    let source = (all - 1).max(1);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of at most 10,000"
    )]
    let redeliver = ((source as f64 * settings.redeliver_share) as usize).clamp(1, all);
    [source, redeliver]
}

fn hung_share(places: usize) -> usize {
    (places / HUNG_SHARE).max(1)
}

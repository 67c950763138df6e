//! The invariants of every run, checked at each commit and once everything is at rest.
//!
//! A *place* is where a record waits for the handler: an offset of the source or of redeliver. In a tier it waits for its due time. All
//! invariants refer to these two, so that the checks do not depend on the envelopes.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::core::ack_tracker::CommitPoint;
use crate::core::envelope::Envelope;
use crate::core::failure::{Failure, Verdict};
use crate::core::ladder::Ladder;
use crate::core::time::Timestamp;
use crate::worker::model::cluster::REDELIVER;

/// Maximum lag of a broker's clock that a worker may assume.
const SLACK: Duration = Duration::from_secs(600);

/// A partition consumed by a group: topic number and partition.
pub(super) type Tp = (usize, i32);

/// A place: partition and offset.
pub(super) type At = (Tp, i64);

/// An incarnation of a worker: member and incarnation number.
pub(super) type Life = (usize, u64);

/// The invariants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Invariant {
    /// Each record ends in exactly one of done and DLQ (at-least-once: in at least one), and none is skipped unnoticed.
    Conservation,
    /// A hop is committed if and only if its consumed offset is.
    Atomicity,
    /// No place is left twice.
    HopOnce,
    /// No record is delivered before it is due.
    NotEarly,
    /// Attempts rise by exactly one.
    Attempts,
    /// No tier is skipped, and the DLQ comes after the last attempt or a rejection.
    Tiers,
    /// Nothing of a former owner takes effect after the next one has read its positions.
    Fencing,
    /// Committed offsets never go back.
    OffsetsForward,
    /// Once faults stop, everything drains.
    Liveness,
}

/// A violated invariant.
#[derive(Debug, Clone)]
pub(super) struct Violation {
    pub(super) invariant: Invariant,
    pub(super) text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.invariant, self.text)
    }
}

/// The handler's plan for a record.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// Number of failing deliveries before one succeeds.
    pub(super) fails: u32,
    /// Whether the last of them is a rejection.
    pub(super) rejects: bool,
    /// The delay requested by the first one.
    pub(super) after: Option<Duration>,
}

impl Plan {
    /// The verdict on the delivery after this many failed ones.
    pub(super) fn verdict(&self, attempts: u32) -> Verdict {
        let failure = Failure::retry("model", "planned");
        match attempts + 1 {
            n if n > self.fails => Ok(()),
            n if n == self.fails && self.rejects => Err(failure.reject()),
            1 if self.after.is_some() => Err(failure.after(self.after.unwrap_or_default())),
            _ => Err(failure),
        }
    }
}

/// Where a record waits for the handler.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) record: usize,
    /// Failed attempts before.
    pub(super) attempts: u32,
    /// Earliest delivery.
    pub(super) earliest: Timestamp,
    handled: bool,
    hops: u32,
    /// Earliest delivery as requested by the handler.
    asked: Option<Timestamp>,
}

/// A record waiting in a tier: an offset of the tier.
#[derive(Debug, Clone)]
struct Waiting {
    record: usize,
    attempts: u32,
    /// When its tier's delay is over.
    due: Timestamp,
    /// Earliest delivery as requested by the handler.
    asked: Timestamp,
    moves: u32,
}

/// A committed hop.
pub(super) struct CommittedHop {
    /// The place that it left.
    pub(super) from: At,
    /// Its new place.
    pub(super) to: At,
    /// The tier's number, or the DLQ.
    pub(super) tier: Option<u32>,
    pub(super) envelope: Envelope,
    pub(super) value: usize,
    pub(super) appended: Timestamp,
}

/// The checker of one run.
pub(super) struct Check {
    ladder: std::sync::Arc<Ladder>,
    exactly_once: bool,
    plans: Vec<Plan>,
    pub(super) places: BTreeMap<At, Place>,
    waiting: BTreeMap<At, Waiting>,
    /// The last member to read each partition's position.
    readers: BTreeMap<Tp, Life>,
    dead_letters: BTreeMap<usize, usize>,
    violation: Option<Violation>,
}

impl Check {
    pub(super) fn new(ladder: std::sync::Arc<Ladder>, exactly_once: bool, plans: Vec<Plan>) -> Self {
        let (places, waiting, readers) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { ladder, exactly_once, plans, places, waiting, readers, dead_letters: BTreeMap::new(), violation: None }
    }

    /// The first violation.
    pub(super) fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    pub(super) fn fail(&mut self, invariant: Invariant, text: String) {
        self.violation.get_or_insert(Violation { invariant, text });
    }

    /// A record waits for the handler.
    pub(super) fn arrived(&mut self, at: At, record: usize, attempts: u32, earliest: Timestamp) {
        self.places.insert(at, Place { record, attempts, earliest, handled: false, hops: 0, asked: None });
    }

    /// A member has read the positions of partitions that it takes over.
    pub(super) fn read_by(&mut self, tp: Tp, life: Life) {
        self.readers.insert(tp, life);
    }

    /// A record is delivered to the handler.
    pub(super) fn delivered(&mut self, at: At, now: Timestamp) {
        let Some(place) = self.places.get(&at) else {
            return self.fail(Invariant::Conservation, format!("{at:?} was delivered and holds no record"));
        };
        if now < place.earliest {
            let text = format!("{at:?} was delivered at {now}, due at {}", place.earliest);
            self.fail(Invariant::NotEarly, text);
        }
    }

    /// The handler's verdict.
    pub(super) fn verdict(&mut self, at: At, now: Timestamp) -> Verdict {
        let place = self.places.get_mut(&at).expect("what was delivered has a place");
        let plan = &self.plans[place.record];
        let verdict = plan.verdict(place.attempts);
        place.handled |= verdict.is_ok();
        if let Some(after) = plan.after.filter(|_| place.attempts == 0 && verdict.is_err()) {
            place.asked = Some(place.asked.map_or(now + after, |asked| asked.min(now + after)));
        }
        verdict
    }

    /// A hop out of a place was committed by this incarnation.
    pub(super) fn hopped(&mut self, seen: &CommittedHop, by: Life) {
        let from = seen.from;
        let Some(place) = self.places.get_mut(&from) else {
            return self.fail(Invariant::Conservation, format!("a hop out of {from:?}, which holds no record"));
        };
        place.hops += 1;
        let place = place.clone();
        self.fence(from, by);
        let attempts = seen.envelope.attempts;
        if attempts != place.attempts + 1 {
            self.fail(Invariant::Attempts, format!("{from:?} had {} failed attempts, its hop has {attempts}", place.attempts));
        }
        if self.exactly_once && (place.hops > 1 || place.handled) {
            let text = format!("{from:?} was left {} times, handled: {}", place.hops, place.handled);
            self.fail(Invariant::HopOnce, text);
        }
        if seen.value != place.record {
            self.fail(Invariant::Conservation, format!("the hop out of {from:?} carries the value of record {}", seen.value));
        }
        let due = self.tier_of(&place);
        if seen.tier != due || seen.envelope.tier != due && due.is_some() {
            let text = format!("{from:?} after {attempts} attempts: expected tier {due:?}, found {:?}", seen.tier);
            self.fail(Invariant::Tiers, text);
        }
        if seen.tier.is_none() {
            *self.dead_letters.entry(place.record).or_default() += 1;
        }
        if let Some(number) = seen.tier {
            self.wait(seen, number, place.record, attempts, place.asked.unwrap_or_default());
        }
    }

    /// A record has arrived in a tier.
    fn wait(&mut self, seen: &CommittedHop, tier: u32, record: usize, attempts: u32, asked: Timestamp) {
        let delay = self.ladder.tier(tier).map_or(Duration::ZERO, |tier| tier.delay().duration());
        self.waiting.insert(seen.to, Waiting { record, attempts, due: seen.appended + delay, asked, moves: 0 });
    }

    /// A move out of a tier was committed by this incarnation.
    pub(super) fn moved(&mut self, seen: &CommittedHop, by: Life) {
        let from = seen.from;
        let Some(waiting) = self.waiting.get_mut(&from) else {
            return self.fail(Invariant::Conservation, format!("a move out of {from:?}, where no record waits"));
        };
        waiting.moves += 1;
        let waiting = waiting.clone();
        self.fence(from, by);
        if self.exactly_once && waiting.moves > 1 {
            self.fail(Invariant::HopOnce, format!("{from:?} was moved {} times", waiting.moves));
        }
        if seen.value != waiting.record {
            self.fail(Invariant::Conservation, format!("the move out of {from:?} carries the value of record {}", seen.value));
        }
        if seen.envelope.attempts != waiting.attempts {
            let text = format!("{from:?} had {} failed attempts, its move has {}", waiting.attempts, seen.envelope.attempts);
            self.fail(Invariant::Attempts, text);
        }
        if seen.appended < waiting.due {
            self.fail(Invariant::NotEarly, format!("{from:?} was moved at {}, due at {}", seen.appended, waiting.due));
        }
        match seen.tier {
            // It waits longer, since its handler has requested more time than its tiers have; by a clock that may lag.
            Some(tier) if seen.appended < waiting.asked + SLACK => {
                self.wait(seen, tier, waiting.record, waiting.attempts, waiting.asked);
            }
            None if seen.to.0.0 == REDELIVER => {
                let earliest = waiting.due.max(waiting.asked);
                if seen.appended < earliest {
                    self.fail(Invariant::NotEarly, format!("{from:?} came back at {}, asked for {earliest}", seen.appended));
                }
                self.arrived(seen.to, waiting.record, waiting.attempts, earliest);
            }
            _ => self.fail(Invariant::Tiers, format!("{from:?} was moved to {:?}, tier {:?}", seen.to, seen.tier)),
        }
    }

    fn fence(&mut self, from: At, by: Life) {
        if self.exactly_once && self.readers.get(&from.0) != Some(&by) {
            self.fail(Invariant::Fencing, format!("{by:?} hopped out of {from:?}, which is {:?}'s", self.readers.get(&from.0)));
        }
    }

    /// The earned tier of a place, computed independently of the code under test; `None` is the
    /// DLQ.
    fn tier_of(&self, place: &Place) -> Option<u32> {
        let plan = &self.plans[place.record];
        let attempts = place.attempts + 1;
        if attempts >= self.ladder.attempts() || plan.rejects && attempts == plan.fails {
            return None;
        }
        let tiers = self.ladder.tiers();
        let earned = (attempts as usize).min(tiers.len());
        let after = plan.after.filter(|_| attempts == 1).unwrap_or_default();
        let long_enough = tiers.iter().position(|tier| tier.delay().duration() >= after).map_or(tiers.len(), |index| index + 1);
        u32::try_from(earned.max(long_enough)).ok()
    }

    /// A committed position changes.
    pub(super) fn committing(&mut self, tp: Tp, before: &CommitPoint, after: &CommitPoint, by: Life) {
        if self.readers.get(&tp) != Some(&by) {
            let text = format!("{by:?} commits {after:?} for {tp:?}, which is {:?}'s", self.readers.get(&tp));
            self.fail(Invariant::Fencing, text);
        }
        let mut back = after.offset < before.offset;
        let mut faults = Vec::new();
        for (at, place) in self.places.range((tp, i64::MIN)..=(tp, i64::MAX)) {
            let finished = after.finishes(at.1);
            back |= before.finishes(at.1) && !finished;
            if finished && !place.handled && place.hops == 0 {
                let failed = self.plans[place.record].verdict(place.attempts).is_err();
                let invariant = if failed { Invariant::Atomicity } else { Invariant::Conservation };
                faults.push((invariant, format!("{by:?} commits {after:?}: {at:?} is consumed and neither done nor hopped")));
            }
        }
        for (at, waiting) in self.waiting.range((tp, i64::MIN)..=(tp, i64::MAX)) {
            if after.finishes(at.1) && waiting.moves == 0 {
                faults.push((Invariant::Atomicity, format!("{by:?} commits {after:?}: {at:?} is consumed and was not moved")));
            }
        }
        if back {
            self.fail(Invariant::OffsetsForward, format!("{by:?} commits {after:?} for {tp:?} after {before:?}"));
        }
        for (invariant, text) in faults {
            self.fail(invariant, text);
        }
    }

    /// After a transaction: each of its hops must have its offset committed.
    pub(super) fn consumed(&mut self, from: At, committed: &CommitPoint) {
        if self.exactly_once && !committed.finishes(from.1) {
            self.fail(Invariant::Atomicity, format!("a hop out of {from:?} is committed, its offset is not: {committed:?}"));
        }
    }

    /// Places of records that are not finished by the committed positions.
    pub(super) fn unfinished(&self, committed: &BTreeMap<Tp, CommitPoint>) -> Vec<At> {
        self.places.keys().chain(self.waiting.keys()).filter(|at| !committed[&at.0].finishes(at.1)).copied().collect()
    }

    /// Everything is at rest: each record must have ended as its plan says.
    pub(super) fn at_rest(&mut self) {
        for record in 0..self.plans.len() {
            let plan = &self.plans[record];
            let buried = plan.rejects || plan.fails >= self.ladder.attempts();
            let dead = self.dead_letters.get(&record).copied().unwrap_or(0);
            let done = self.places.values().filter(|place| place.record == record && place.handled).count();
            let (right, wrong) = if buried { (dead, done) } else { (done, dead) };
            if wrong > 0 || right == 0 || self.exactly_once && right > 1 {
                self.fail(
                    Invariant::Conservation,
                    format!("record {record} was done {done} times and dead-lettered {dead} times"),
                );
            }
        }
    }
}

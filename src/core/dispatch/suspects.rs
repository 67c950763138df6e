//! Records whose connections were lost, and the search for the one that kills the handler.
//!
//! - A connection lost on its own concerns its record, or the network: the record is delivered once more beside the others, and has
//!   failed if the connection is lost again.
//! - If several are lost together, the handler has died because of one of them, or for another reason, and it is unknown which. They
//!   become suspects and are delivered again in groups, one group at a time, beside everything else. A group that comes back is innocent. A
//!   group during which the handler dies again is split, until a single record is left. That record is then alone with the handler for a
//!   moment, and has failed if its connection is lost again; if calls take long it is not left alone, and has failed when the handler has
//!   died twice during its calls.
//! - A record that has failed before by a lost connection explains a death by itself.
//!
//! Each death costs a restart of the handler, so groups are no larger than needed for all suspects to have their turn soon.

use std::collections::VecDeque;
use std::time::Duration;

use crate::core::dispatch::DispatchEntry;
use crate::core::dispatch::standing::Trouble;
use crate::core::leader_clock::LocalTime;

/// A dying process closes its connections one after the other; those lost within this time are lost together.
const TOGETHER: Duration = Duration::from_millis(50);

/// If other calls have survived the loss, only connections lost within this time belong together: one of several processes may have
/// died. A call begun within this time after the first loss may have reached a dying process.
const AT_ONCE: Duration = Duration::from_millis(3);

/// A call that ran when the handler died, and whose loss is noticed within this time, was lost by that death: on a busy machine the losses
/// of one death are noticed one after the other.
const NOTICED_LATE: Duration = Duration::from_secs(1);

/// Number of calls lost at once, with none surviving, that proves the handler's death.
const DIED_WITH: usize = 4;

/// Time within which approximately all suspects have their turn.
const ROUND: Duration = Duration::from_secs(10);

/// Number of deaths after which a single suspect has failed.
const DEATHS: u8 = 2;

/// Lost connections and suspects.
#[derive(Debug)]
pub(super) struct Suspects<J> {
    /// Lost within the last moment, each with its time.
    lost: Vec<(LocalTime, DispatchEntry<J>)>,
    /// Suspects waiting for their turn; the culprit is most likely among the first `focus`.
    pool: VecDeque<DispatchEntry<J>>,
    focus: usize,
    /// The members of the current group that have not begun.
    turn: VecDeque<DispatchEntry<J>>,
    /// How many of the group have not come back, and its size.
    out: usize,
    size: usize,
    /// When several connections were last lost together.
    died: Option<LocalTime>,
}

/// What to do with a record whose connection was lost.
#[derive(Debug)]
pub(super) enum Lost<J> {
    /// Deliver it again beside the others.
    Again(DispatchEntry<J>),
    /// It has failed.
    Failed(DispatchEntry<J>),
}

impl<J> Suspects<J> {
    pub fn new() -> Self {
        Self { lost: Vec::new(), pool: VecDeque::new(), focus: 0, turn: VecDeque::new(), out: 0, size: 0, died: None }
    }

    /// Number of records here, of all kinds.
    pub fn len(&self) -> usize {
        self.lost.len() + self.pool.len() + self.turn.len()
    }

    /// A connection was lost.
    pub fn lose(&mut self, entry: DispatchEntry<J>, now: LocalTime) {
        self.lost.push((now, entry));
    }

    /// Since when there are undecided lost connections.
    pub fn lost_since(&self) -> Option<LocalTime> {
        self.lost.first().map(|(at, _)| *at)
    }

    /// When to decide about them.
    pub fn due(&self) -> Option<LocalTime> {
        self.lost_since().map(|since| since.later(TOGETHER))
    }

    /// Decides about lost connections; `others_live` says that calls running at the same time have survived. Also returns whether the
    /// handler has died.
    pub fn decide(&mut self, others_live: bool) -> (Vec<Lost<J>>, bool) {
        let mut left = std::mem::take(&mut self.lost);
        let (mut decided, mut has_died) = (Vec::new(), false);
        while let Some(first) = left.first().map(|(at, _)| *at) {
            // A call that had not begun when the first was lost was not lost with it.
            let was_there = |began: Option<LocalTime>| began.is_none_or(|began| began <= first.later(AT_ONCE));
            let is_near = |at: LocalTime| !others_live || at.since(first) <= AT_ONCE;
            let (together, later): (Vec<_>, Vec<_>) =
                left.into_iter().partition(|(at, entry)| *at == first || (was_there(entry.tries.began) && is_near(*at)));
            has_died |= together.len() >= DIED_WITH && !others_live;
            if together.len() > 1 {
                self.died = Some(first);
            } else if self.is_late(first, together.first().and_then(|(_, entry)| entry.tries.began)) {
                decided.extend(together.into_iter().filter_map(|(_, entry)| self.lost_by_the_last_death(entry)));
                left = later;
                continue;
            }
            decided.extend(self.decide_together(together.into_iter().map(|(_, entry)| entry).collect()));
            left = later;
        }
        (decided, has_died)
    }

    /// Whether a call that began then and was lost alone was lost by the last death.
    fn is_late(&self, lost: LocalTime, began: Option<LocalTime>) -> bool {
        let ran_at = |died: LocalTime| began.is_some_and(|began| began < died) && lost < died.later(NOTICED_LATE);
        self.died.is_some_and(ran_at)
    }

    /// It says no more than those that were noticed in time.
    fn lost_by_the_last_death(&mut self, mut entry: DispatchEntry<J>) -> Option<Lost<J>> {
        let was_suspect = std::mem::take(&mut entry.tries.is_suspect);
        self.out -= usize::from(was_suspect);
        if was_suspect {
            self.pool.push_front(entry);
            return None;
        }
        Some(Lost::Again(entry))
    }

    fn decide_together(&mut self, mut lost: Vec<DispatchEntry<J>>) -> Vec<Lost<J>> {
        let has_died = lost.len() > 1;
        for entry in &mut lost {
            entry.tries.losses = entry.tries.losses.saturating_add(1);
        }
        let is_known = |entry: &DispatchEntry<J>| entry.ticket.failed_before == Some(Trouble::LostConnections);
        if !has_died {
            let decided = lost.into_iter().map(|mut entry| {
                let was_suspect = std::mem::take(&mut entry.tries.is_suspect);
                self.out -= usize::from(was_suspect);
                // A suspect was lost before, together with others.
                if was_suspect || entry.tries.losses > 1 || is_known(&entry) { Lost::Failed(entry) } else { Lost::Again(entry) }
            });
            return decided.collect();
        }
        // Lost twice more although a known culprit was assumed to be the cause: there may be another
        // one.
        let is_doubtful = lost.iter().any(|entry| !is_known(entry) && entry.tries.losses > 2);
        match lost.iter().filter(|entry| is_known(entry)).count() {
            1 if !is_doubtful => return self.explained(lost),
            0 | 1 => {}
            _ => return self.known_together(lost),
        }
        let (suspects, others): (Vec<_>, Vec<_>) = lost.into_iter().partition(|entry| entry.tries.is_suspect);
        self.out -= suspects.len();
        if self.size == 1 && suspects.len() == 1 {
            return self.died_over_one(suspects, others);
        }
        if !suspects.is_empty() {
            self.focus = suspects.len();
        }
        for mut entry in suspects.into_iter().rev() {
            entry.tries.is_suspect = false;
            self.pool.push_front(entry);
        }
        self.pool.extend(others);
        Vec::new()
    }

    /// A known culprit was among them: the others are probably innocent.
    fn explained(&mut self, lost: Vec<DispatchEntry<J>>) -> Vec<Lost<J>> {
        let decided = lost.into_iter().map(|mut entry| {
            let was_suspect = std::mem::take(&mut entry.tries.is_suspect);
            self.out -= usize::from(was_suspect);
            let is_known = entry.ticket.failed_before == Some(Trouble::LostConnections);
            if is_known { Lost::Failed(entry) } else { Lost::Again(entry) }
        });
        decided.collect()
    }

    /// Several known culprits were among them: one may have been blamed for another, and they always come back at the same time. They
    /// become the suspects.
    fn known_together(&mut self, lost: Vec<DispatchEntry<J>>) -> Vec<Lost<J>> {
        let mut decided = Vec::new();
        let mut known = Vec::new();
        for mut entry in lost {
            self.out -= usize::from(std::mem::take(&mut entry.tries.is_suspect));
            if entry.ticket.failed_before == Some(Trouble::LostConnections) {
                known.push(entry);
            } else {
                decided.push(Lost::Again(entry));
            }
        }
        self.focus = known.len();
        known.into_iter().rev().for_each(|entry| self.pool.push_front(entry));
        decided
    }

    fn died_over_one(&mut self, suspects: Vec<DispatchEntry<J>>, others: Vec<DispatchEntry<J>>) -> Vec<Lost<J>> {
        let mut decided = Vec::new();
        for mut entry in suspects {
            entry.tries.deaths += 1;
            entry.tries.is_suspect = false;
            if entry.tries.deaths < DEATHS {
                self.pool.push_front(entry);
                self.focus = 1;
                self.pool.extend(others);
                return decided;
            }
            decided.push(Lost::Failed(entry));
        }
        // It was there at each death of the handler: all others are probably innocent.
        self.focus = 0;
        let innocent = others.into_iter().chain(std::mem::take(&mut self.pool));
        decided.extend(innocent.map(|mut entry| {
            entry.tries.losses = 0;
            Lost::Again(entry)
        }));
        decided
    }

    /// A suspect of the group has come back, with any answer.
    pub fn came_back(&mut self, entry: &mut DispatchEntry<J>) {
        if std::mem::take(&mut entry.tries.is_suspect) {
            self.out = self.out.saturating_sub(1);
            (entry.tries.losses, entry.tries.deaths, entry.tries.lost_first) = (0, 0, None);
        }
    }

    /// A suspect of the group is not waited for any longer.
    pub fn let_go(&mut self) {
        self.out = self.out.saturating_sub(1);
    }

    /// A suspect of the group was not called after all.
    pub fn put_back(&mut self, entry: DispatchEntry<J>) {
        self.turn.push_front(entry);
    }

    /// The next suspect to deliver, given the maximum number of calls and the usual duration of an answer.
    pub fn next(&mut self, usual: Duration, allowed: usize) -> Option<DispatchEntry<J>> {
        if self.out == 0 && self.turn.is_empty() {
            self.next_group(usual, allowed);
        }
        self.turn.pop_front()
    }

    /// Whether the handler has died during the next one's call while it was the only suspect: alone with the handler, the proof
    /// is certain.
    pub fn wants_to_be_alone(&self) -> bool {
        let next = self.turn.front().or_else(|| self.pool.front().filter(|_| self.out == 0));
        next.is_some_and(|entry| entry.tries.deaths > 0)
    }

    /// Whether there is a suspect whose turn it is.
    pub fn has_next(&self) -> bool {
        !self.turn.is_empty() || (self.out == 0 && !self.pool.is_empty())
    }

    fn next_group(&mut self, usual: Duration, allowed: usize) {
        let among = if self.focus > 0 { self.focus.min(self.pool.len()) } else { self.pool.len() };
        if among == 0 {
            return;
        }
        let needed = (usual * u32::try_from(among).unwrap_or(u32::MAX)).as_millis().div_ceil(ROUND.as_millis());
        let most = if self.focus > 1 { among.div_ceil(2) } else { among }.min((allowed / 2).max(1));
        let size = usize::try_from(needed).unwrap_or(usize::MAX).clamp(1, most);
        self.focus = self.focus.saturating_sub(size);
        (self.out, self.size) = (size, size);
        self.turn.extend(self.pool.drain(..size).map(|mut entry| {
            entry.tries.is_suspect = true;
            entry
        }));
    }

    /// Clears all suspects: the handler was down.
    pub fn acquit(&mut self) -> Vec<DispatchEntry<J>> {
        self.focus = 0;
        let lost = std::mem::take(&mut self.lost).into_iter().map(|(_, entry)| entry);
        let all: Vec<DispatchEntry<J>> = lost.chain(self.turn.drain(..)).chain(self.pool.drain(..)).collect();
        self.out -= all.iter().filter(|entry| entry.tries.is_suspect).count();
        all.into_iter()
            .map(|mut entry| {
                entry.tries.is_suspect = false;
                entry.tries.losses = 0;
                entry
            })
            .collect()
    }

    /// Removes the records of a revoked partition.
    pub fn remove(&mut self, is_gone: impl Fn(&DispatchEntry<J>) -> bool) -> Vec<DispatchEntry<J>> {
        let mut gone = Vec::new();
        for (at, entry) in std::mem::take(&mut self.lost) {
            if is_gone(&entry) { gone.push(entry) } else { self.lost.push((at, entry)) }
        }
        for row in [&mut self.turn, &mut self.pool] {
            for entry in std::mem::take(row) {
                if is_gone(&entry) { gone.push(entry) } else { row.push_back(entry) }
            }
        }
        for entry in &mut gone {
            self.out -= usize::from(std::mem::take(&mut entry.tries.is_suspect));
        }
        self.focus = self.focus.min(self.pool.len());
        gone
    }
}

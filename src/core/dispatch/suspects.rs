//! Records whose connections were lost, and over which of them the handler dies.
//!
//! - One connection that is lost alone is its own record's affair, or the connection's: it is repeated once beside the others, and lost
//!   again it has failed.
//! - Where several are lost together the handler has died, over one of them, or for a reason of its own, and nobody knows which. They are
//!   suspects, and are delivered again in groups, one group at a time, beside everything else. A group that comes back is innocent. One
//!   over which the handler dies once more is split, until a single record is left. That one is alone with the handler next, for a moment,
//!   and has failed if its connection is lost again; where calls take long it is not left alone, and has failed when the handler died over
//!   it twice.
//! - A record that has failed before by a lost connection explains a death by itself.
//!
//! Each death costs the handler a restart, so groups are no larger than they have to be for all suspects to have their turn soon.

use std::collections::VecDeque;
use std::time::Duration;

use crate::core::dispatch::Entry;
use crate::core::dispatch::standing::Trouble;
use crate::core::leader_clock::LocalTime;

/// A process that dies closes its connections one after the other; what is lost within this is lost together.
const TOGETHER: Duration = Duration::from_millis(50);

/// Where other calls have outlived the loss, only what is lost within this: one of several processes may have died. What begins within
/// this after the first loss may have reached a process that was about to die.
const AT_ONCE: Duration = Duration::from_millis(3);

/// That the handler has died is beyond doubt when so many calls are lost at once, and none is left.
const DIED_WITH: usize = 4;

/// Within about this time all suspects have their turn.
const ROUND: Duration = Duration::from_secs(10);

/// A single suspect over which the handler has died so often has failed.
const DEATHS: u8 = 2;

/// Lost connections, and what is done about them.
#[derive(Debug)]
pub(super) struct Suspects<J> {
    /// Lost within the last moment, each with its time.
    lost: Vec<(LocalTime, Entry<J>)>,
    /// Waiting for their turn; the culprit is most likely among the first `focus`.
    pool: VecDeque<Entry<J>>,
    focus: usize,
    /// Of the group that has its turn: those that have not begun.
    turn: VecDeque<Entry<J>>,
    /// How many of the group have not come back, and how many it had.
    out: usize,
    size: usize,
}

/// What becomes of a record whose connection was lost.
#[derive(Debug)]
pub(super) enum Lost<J> {
    /// It is repeated beside the others.
    Again(Entry<J>),
    /// It has failed.
    Failed(Entry<J>),
}

impl<J> Suspects<J> {
    pub fn new() -> Self {
        Self { lost: Vec::new(), pool: VecDeque::new(), focus: 0, turn: VecDeque::new(), out: 0, size: 0 }
    }

    /// How many records there are here, of all kinds.
    pub fn len(&self) -> usize {
        self.lost.len() + self.pool.len() + self.turn.len()
    }

    /// A connection was lost.
    pub fn lose(&mut self, entry: Entry<J>, now: LocalTime) {
        self.lost.push((now, entry));
    }

    /// Since when connections are lost, of which it is not decided yet.
    pub fn lost_since(&self) -> Option<LocalTime> {
        self.lost.first().map(|(at, _)| *at)
    }

    /// When what was lost together is known.
    pub fn due(&self) -> Option<LocalTime> {
        self.lost_since().map(|since| since.later(TOGETHER))
    }

    /// Decides over what was lost; `others_live` says that calls which were there at the same time have outlived that. Whether the handler
    /// has died is returned along with it.
    pub fn decide(&mut self, others_live: bool) -> (Vec<Lost<J>>, bool) {
        let mut left = std::mem::take(&mut self.lost);
        let (mut decided, mut has_died) = (Vec::new(), false);
        while let Some(first) = left.first().map(|(at, _)| *at) {
            // What had not begun when the first was lost was not lost with it.
            let was_there = |began: Option<LocalTime>| began.is_none_or(|began| began <= first.later(AT_ONCE));
            let is_near = |at: LocalTime| !others_live || at.since(first) <= AT_ONCE;
            let (together, later): (Vec<_>, Vec<_>) =
                left.into_iter().partition(|(at, entry)| *at == first || (was_there(entry.tries.began) && is_near(*at)));
            has_died |= together.len() >= DIED_WITH && !others_live;
            decided.extend(self.decide_together(together.into_iter().map(|(_, entry)| entry).collect()));
            left = later;
        }
        (decided, has_died)
    }

    fn decide_together(&mut self, mut lost: Vec<Entry<J>>) -> Vec<Lost<J>> {
        let has_died = lost.len() > 1;
        for entry in &mut lost {
            entry.tries.losses = entry.tries.losses.saturating_add(1);
        }
        let is_known = |entry: &Entry<J>| entry.ticket.failed_before == Some(Trouble::LostConnections);
        if !has_died {
            let decided = lost.into_iter().map(|mut entry| {
                let was_suspect = std::mem::take(&mut entry.tries.is_suspect);
                self.out -= usize::from(was_suspect);
                // A suspect was lost before, with others.
                if was_suspect || entry.tries.losses > 1 || is_known(&entry) { Lost::Failed(entry) } else { Lost::Again(entry) }
            });
            return decided.collect();
        }
        // Lost twice more although what is known for it was taken for the cause then: it may be another.
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

    /// A record that is known for it was among them: the others are as good as innocent.
    fn explained(&mut self, lost: Vec<Entry<J>>) -> Vec<Lost<J>> {
        let decided = lost.into_iter().map(|mut entry| {
            let was_suspect = std::mem::take(&mut entry.tries.is_suspect);
            self.out -= usize::from(was_suspect);
            let is_known = entry.ticket.failed_before == Some(Trouble::LostConnections);
            if is_known { Lost::Failed(entry) } else { Lost::Again(entry) }
        });
        decided.collect()
    }

    /// Several that are known for it were among them: one may have been blamed for another, and all come back at the same time. They are
    /// the suspects.
    fn known_together(&mut self, lost: Vec<Entry<J>>) -> Vec<Lost<J>> {
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

    fn died_over_one(&mut self, suspects: Vec<Entry<J>>, others: Vec<Entry<J>>) -> Vec<Lost<J>> {
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
        // It was there whenever the handler died: all others are as good as innocent.
        self.focus = 0;
        let innocent = others.into_iter().chain(std::mem::take(&mut self.pool));
        decided.extend(innocent.map(|mut entry| {
            entry.tries.losses = 0;
            Lost::Again(entry)
        }));
        decided
    }

    /// A suspect of the group has come back, with whatever answer.
    pub fn came_back(&mut self, entry: &mut Entry<J>) {
        if std::mem::take(&mut entry.tries.is_suspect) {
            self.out = self.out.saturating_sub(1);
            (entry.tries.losses, entry.tries.deaths, entry.tries.lost_first) = (0, 0, None);
        }
    }

    /// A suspect of the group is waited for no longer.
    pub fn let_go(&mut self) {
        self.out = self.out.saturating_sub(1);
    }

    /// A suspect of the group has not been called after all.
    pub fn put_back(&mut self, entry: Entry<J>) {
        self.turn.push_front(entry);
    }

    /// The next suspect whose turn it is, where at most this many calls may run at a time and an answer takes so long.
    pub fn next(&mut self, usual: Duration, allowed: usize) -> Option<Entry<J>> {
        if self.out == 0 && self.turn.is_empty() {
            self.next_group(usual, allowed);
        }
        self.turn.pop_front()
    }

    /// Whether the handler has died over the next one while it was the only suspect: alone with the handler it will be certain.
    pub fn wants_to_be_alone(&self) -> bool {
        let next = self.turn.front().or_else(|| self.pool.front().filter(|_| self.out == 0));
        next.is_some_and(|entry| entry.tries.deaths > 0)
    }

    /// Whether there is one whose turn it is.
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

    /// Nobody is under suspicion any more: the handler was down.
    pub fn acquit(&mut self) -> Vec<Entry<J>> {
        self.focus = 0;
        let lost = std::mem::take(&mut self.lost).into_iter().map(|(_, entry)| entry);
        let all: Vec<Entry<J>> = lost.chain(self.turn.drain(..)).chain(self.pool.drain(..)).collect();
        self.out -= all.iter().filter(|entry| entry.tries.is_suspect).count();
        all.into_iter()
            .map(|mut entry| {
                entry.tries.is_suspect = false;
                entry.tries.losses = 0;
                entry
            })
            .collect()
    }

    /// Takes away what belongs to a partition that goes.
    pub fn remove(&mut self, is_gone: impl Fn(&Entry<J>) -> bool) -> Vec<Entry<J>> {
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

//! Decides which call may begin next.

use std::time::Duration;

use crate::core::dispatch::calls::Row;
use crate::core::dispatch::policy::{LaneUse, Policy, SlotUse};
use crate::core::dispatch::probes::{Admission, Candidate};
use crate::core::dispatch::{Begun, Call, CallId, Dispatch, DispatchEntry, HUNG_SHARE, Kind};
use crate::core::leader_clock::LocalTime;

/// Maximum time in which no call begins, so that a suspect can be alone with the handler; only if calls usually take at most half of it.
const MOMENT: Duration = Duration::from_millis(400);

/// Maximum time that suspects wait for other calls to be answered.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// A call hangs if it takes longer than this, and longer than four times the usual duration: neither suspects nor revoked partitions
/// wait for it.
const LONG_CALL: Duration = Duration::from_secs(1);

/// Of a partition's turns, one in so many is for records that failed as probes, and one for records that hung.
const ROW_TURNS: usize = 4;

/// While the handler is in doubt or down: fresh records come before those that have failed, failed probes and redeliveries alternate, and
/// records that hung come last, since they take so long.
const PROBED_FIRST: [[(Kind, Row); 6]; 2] = [
    [
        (Kind::Source, Row::Usual),
        (Kind::Redeliver, Row::Usual),
        (Kind::Source, Row::Tried),
        (Kind::Redeliver, Row::Tried),
        (Kind::Source, Row::Hung),
        (Kind::Redeliver, Row::Hung),
    ],
    [
        (Kind::Source, Row::Usual),
        (Kind::Source, Row::Tried),
        (Kind::Redeliver, Row::Tried),
        (Kind::Redeliver, Row::Usual),
        (Kind::Source, Row::Hung),
        (Kind::Redeliver, Row::Hung),
    ],
];

impl<J, P: Policy> Dispatch<J, P> {
    /// Whether no other call may begin, since a suspect is to be alone with the handler, or is: only for a moment.
    pub(super) fn keeps_quiet(&mut self, now: LocalTime) -> bool {
        if let Some(began) = self.alone_since {
            return now < began.later(MOMENT);
        }
        let usual = self.health.usual();
        if !self.suspects.wants_to_be_alone() || usual * 2 > MOMENT {
            self.quiet_since = None;
            return false;
        }
        // If calls hang, it would wait in vain.
        let hangs = |call: &Call| now.since(call.began) > MOMENT;
        let since = *self.quiet_since.get_or_insert(now);
        self.all_running() > 0 && now < since.later(MOMENT) && !self.calls.iter().flatten().any(hangs)
    }

    fn long_call(&self) -> Duration {
        (self.health.usual() * 4).max(LONG_CALL)
    }

    /// Number of running calls of these partitions if all of them hang: each takes longer than four times the usual duration, and than a
    /// second.
    #[must_use]
    pub fn all_hang(&self, lanes: &[u64], now: LocalTime) -> Option<usize> {
        let long = self.long_call();
        let mut hanging = 0;
        for call in self.calls.iter().flatten().filter(|call| lanes.contains(&call.ticket.lane)) {
            if now.since(call.began) <= long {
                return None;
            }
            hanging += 1;
        }
        Some(hanging)
    }

    /// Suspects that have been with the handler for long without killing it: the others need not wait for them.
    fn let_go_of_hanging_suspects(&mut self, now: LocalTime) {
        if self.tests == 0 || self.suspects.has_next() {
            return;
        }
        let long = self.long_call();
        for call in self.calls.iter_mut().flatten().filter(|call| call.tries.is_suspect && now.since(call.began) > long) {
            call.tries.is_suspect = false;
            self.tests -= 1;
            self.suspects.let_go();
        }
    }

    /// Whether other calls should be answered before the handler may die of a suspect again: if calls take long, none would ever finish
    /// otherwise.
    /// to its end otherwise.
    fn others_come_first(&self, now: LocalTime) -> bool {
        let Some(died_at) = self.died_at else { return false };
        let longest = (self.health.usual() * 2).min(LONGEST_WAIT);
        let has_others = self.lanes.has_waiting() || self.all_running() > self.tests;
        has_others && now < died_at.later(longest) && !self.health.answers_since(died_at)
    }

    /// Suspects get at most half of the slots, so that they never block the others.
    pub(super) fn next_suspect(&mut self, most: usize, now: LocalTime) -> Option<Begun<J>> {
        self.let_go_of_hanging_suspects(now);
        if !self.suspects.has_next() || self.tests >= (most / 2).max(1) || self.others_come_first(now) {
            return None;
        }
        let entry = self.suspects.next(self.health.usual(), most)?;
        if self.quiet_since.take().is_some() && self.all_running() == 0 {
            self.alone_since = Some(now);
        }
        Some(self.begin(entry, Admission::Free, now))
    }

    /// Whether no more calls of a kind may begin, however many others may.
    fn is_full(&self, kind: Kind) -> bool {
        let kind = kind as usize;
        let slots = SlotUse { running: self.running[kind], occupied: self.occupied[kind] };
        let most = SlotUse { running: self.limits[kind], occupied: self.limits[kind] + self.unsettled_limits[kind] };
        !self.policy.may_begin(slots, most)
    }

    pub(super) fn next_in_turn(&mut self, most: usize, now: LocalTime) -> Option<Begun<J>> {
        for others_wait in [true, false] {
            for _ in 0..self.lanes.in_turn() {
                let id = self.lanes.rotate()?;
                if let Some(row) = self.may_take(id, most, others_wait) {
                    let entry = self.lanes.pop(id, row)?;
                    return Some(self.begin(entry, Admission::Free, now));
                }
            }
        }
        None
    }

    /// The queue of a partition that may have a slot now, given the maximum number of running
    /// calls.
    fn may_take(&mut self, id: u64, most: usize, others_wait: bool) -> Option<Row> {
        let lane = self.lanes.get(id)?;
        if self.is_full(lane.kind) {
            return None;
        }
        let usual = lane.front(Row::Usual).is_some() || lane.front(Row::Tried).is_some();
        // If few calls may run, records that hung get none of them while there is anything else.
        let hung_allowed = self.hung_allowed.min(if usual { most / HUNG_SHARE } else { most });
        let may = |row: Row| lane.front(row).is_some() && (row != Row::Hung || self.hung < hung_allowed);
        // Records that have failed before must neither block the others of their partition nor wait
        // for ever.
        self.row_turn = self.row_turn.wrapping_add(1);
        let rows = match self.row_turn % ROW_TURNS {
            0 => [Row::Tried, Row::Usual, Row::Hung],
            1 => [Row::Hung, Row::Usual, Row::Tried],
            _ => [Row::Usual, Row::Hung, Row::Tried],
        };
        let row = rows.into_iter().find(|row| may(*row))?;
        let (running, occupied) = (self.all_running(), self.occupied.iter().sum::<usize>());
        let places = self.settings.places.max(1);
        let free = (places.min(most) - running).min((places + self.settings.unsettled).saturating_sub(occupied));
        let lane_use = LaneUse {
            running: lane.running,
            share: self.lanes.share(lane.kind, most),
            window: lane.window,
            free,
            places: most,
            others_wait,
        };
        self.policy.lane_may_take(lane_use).then_some(row)
    }

    /// While the handler is in doubt or down: fresh records first.
    pub(super) fn next_admitted(&mut self, now: LocalTime) -> Option<Begun<J>> {
        let is_everything_there = self.present.is_one_partition();
        // Suspects and others alternate: healthy records may be among either.
        if self.suspects_turn
            && let Some(begun) = self.next_suspect_admitted(is_everything_there, now)
        {
            self.suspects_turn = false;
            return Some(begun);
        }
        if let Some(begun) =
            self.next_probe(is_everything_there, true, now).or_else(|| self.next_probe(is_everything_there, false, now))
        {
            self.suspects_turn = true;
            return Some(begun);
        }
        if let Some(begun) = self.next_suspect_admitted(is_everything_there, now) {
            return Some(begun);
        }
        self.health.nothing_admitted(self.lanes.has_waiting(), &self.present, now);
        None
    }

    /// The next record to call while the handler is in doubt or down; `others` are partitions not probed yet.
    fn next_probe(&mut self, is_everything: bool, others: bool, now: LocalTime) -> Option<Begun<J>> {
        self.row_turn = self.row_turn.wrapping_add(1);
        for (kind, row) in PROBED_FIRST[self.row_turn % 2] {
            if self.is_full(kind) {
                continue;
            }
            for _ in 0..self.lanes.in_turn() {
                let id = self.lanes.rotate()?;
                let Some(entry) = self.lanes.get(id).filter(|lane| lane.kind == kind).and_then(|lane| lane.front(row)) else {
                    continue;
                };
                let (witness, round) = (entry.ticket.witness(), entry.tries.round);
                if others && self.health.was_asked(witness.partition) {
                    continue;
                }
                if let Some(admission) = self.health.admits(Candidate { witness: &witness, round, is_everything }, now) {
                    let entry = self.lanes.pop(id, row)?;
                    return Some(self.begin(entry, admission, now));
                }
            }
        }
        None
    }

    fn next_suspect_admitted(&mut self, is_everything: bool, now: LocalTime) -> Option<Begun<J>> {
        self.let_go_of_hanging_suspects(now);
        if !self.suspects.has_next() || self.others_come_first(now) {
            return None;
        }
        let entry = self.suspects.next(self.health.usual(), 1)?;
        let candidate = Candidate { witness: &entry.ticket.witness(), round: entry.tries.round, is_everything };
        let Some(admission) = self.health.admits(candidate, now) else {
            self.suspects.put_back(entry);
            return None;
        };
        Some(self.begin(entry, admission, now))
    }

    fn begin(&mut self, mut entry: DispatchEntry<J>, admission: Admission, now: LocalTime) -> Begun<J> {
        if let Admission::Probe(round) = admission {
            entry.tries.round = round.max(entry.tries.round);
        }
        entry.tries.began = Some(now);
        if entry.tries.lost_at.take().is_some_and(|lost| self.unreachable_at.is_some_and(|at| at > lost)) {
            entry.tries.lost_probes += 1;
        }
        let DispatchEntry { job, ticket, tries } = entry;
        let kind = self.lanes.get(ticket.lane).map_or(Kind::Source, |lane| lane.kind);
        let row = ticket.row();
        self.lanes.begin(ticket.lane, now);
        self.occupied[kind as usize] += 1;
        self.running[kind as usize] += 1;
        self.tests += usize::from(tries.is_suspect);
        self.hung += usize::from(row == Row::Hung);
        let call = Call { ticket, tries, kind, row, admission, began: now };
        let index = self.unused.pop().unwrap_or(self.calls.len());
        if index == self.calls.len() {
            self.calls.push(Some(call));
        } else {
            self.calls[index] = Some(call);
        }
        Begun {
            call: CallId(index),
            job,
            count_start: ticket.count_start,
            is_repeat: tries.has_failed,
            is_alone: tries.is_suspect || admission != Admission::Free,
            kind,
        }
    }
}

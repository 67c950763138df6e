//! Whose turn it is: which call may begin now.

use std::time::Duration;

use crate::core::dispatch::health::Admission;
use crate::core::dispatch::lanes::Row;
use crate::core::dispatch::policy::{LaneUse, Policy};
use crate::core::dispatch::probes::Candidate;
use crate::core::dispatch::{Begun, Call, CallId, Dispatch, Entry, HUNG_SHARE, Kind};
use crate::core::leader_clock::LocalTime;

/// For no longer than this nothing begins until a suspect can be with the handler alone, and nothing beside it; where calls usually take
/// half as long at most.
const MOMENT: Duration = Duration::from_millis(400);

/// Suspects wait for no longer than this until others have been answered.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// A call hangs that runs for longer than this, and than four times as long as calls usually take: neither suspects nor partitions that
/// change hands wait for it.
const LONG_CALL: Duration = Duration::from_secs(1);

/// Of a partition's records, those that have failed as probes have one turn in so many, and those that hung another.
const ROW_TURNS: usize = 4;

/// While the handler is in doubt or down: fresh records before those that have failed, those that failed as probes and those that come from
/// the tiers in turn, and what hangs last, since it takes so long.
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
    /// Whether nothing else may begin, since a suspect is to be with the handler alone, or is: never for longer than a moment.
    pub(super) fn keeps_quiet(&mut self, now: LocalTime) -> bool {
        if let Some(began) = self.alone_since {
            return now < began.later(MOMENT);
        }
        let usual = self.health.usual();
        if !self.suspects.wants_to_be_alone() || usual * 2 > MOMENT {
            self.quiet_since = None;
            return false;
        }
        // Where calls hang it would wait in vain.
        let hangs = |call: &Call| now.since(call.began) > MOMENT;
        let since = *self.quiet_since.get_or_insert(now);
        self.running > 0 && now < since.later(MOMENT) && !self.calls.iter().flatten().any(hangs)
    }

    fn long_call(&self) -> Duration {
        (self.health.usual() * 4).max(LONG_CALL)
    }

    /// How many calls of these partitions run, if all of them hang: each for longer than calls usually take four times, and than a second.
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

    /// Suspects that have been with the handler for long without having killed it: the others need not wait for them.
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

    /// Whether others are to be answered before the handler may die over a suspect once more: where calls take long, none would ever live
    /// to its end otherwise.
    fn others_come_first(&self, now: LocalTime) -> bool {
        let Some(died_at) = self.died_at else { return false };
        let longest = (self.health.usual() * 2).min(LONGEST_WAIT);
        let has_others = self.lanes.has_waiting() || self.running > self.tests;
        has_others && now < died_at.later(longest) && !self.health.answers_since(died_at)
    }

    /// Suspects have at most half of the places, so that the others are never kept waiting by them.
    pub(super) fn next_suspect(&mut self, most: usize, now: LocalTime) -> Option<Begun<J>> {
        self.let_go_of_hanging_suspects(now);
        if !self.suspects.has_next() || self.tests >= (most / 2).max(1) || self.others_come_first(now) {
            return None;
        }
        let entry = self.suspects.next(self.health.usual(), most)?;
        if self.quiet_since.take().is_some() && self.running == 0 {
            self.alone_since = Some(now);
        }
        Some(self.begin(entry, Admission::Free, now))
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

    /// Which row of a partition may have a place now, where at most that many calls run.
    fn may_take(&mut self, id: u64, most: usize, others_wait: bool) -> Option<Row> {
        let lane = self.lanes.get(id)?;
        let kind = lane.kind as usize;
        if self.occupied[kind] >= self.limits[kind] {
            return None;
        }
        let usual = lane.front(Row::Usual).is_some() || lane.front(Row::Tried).is_some();
        // Where few calls may run, what hangs has none of them while there is anything else.
        let hung_allowed = self.hung_allowed.min(if usual { most / HUNG_SHARE } else { most });
        let may = |row: Row| lane.front(row).is_some() && (row != Row::Hung || self.hung < hung_allowed);
        // What has failed before must neither hold up the others of its partition nor wait for ever.
        self.row_turn = self.row_turn.wrapping_add(1);
        let rows = match self.row_turn % ROW_TURNS {
            0 => [Row::Tried, Row::Usual, Row::Hung],
            1 => [Row::Hung, Row::Usual, Row::Tried],
            _ => [Row::Usual, Row::Hung, Row::Tried],
        };
        let row = rows.into_iter().find(|row| may(*row))?;
        let free = (self.settings.places.max(1) - self.occupied.iter().sum::<usize>()).min(most - self.running);
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
        // Suspects and others in turn: healthy records may be among either.
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

    /// The next record that may be called although the handler is in doubt or down; `others` are partitions that were not asked yet.
    fn next_probe(&mut self, is_everything: bool, others: bool, now: LocalTime) -> Option<Begun<J>> {
        self.row_turn = self.row_turn.wrapping_add(1);
        for (kind, row) in PROBED_FIRST[self.row_turn % 2] {
            if self.occupied[kind as usize] >= self.limits[kind as usize] {
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

    fn begin(&mut self, mut entry: Entry<J>, admission: Admission, now: LocalTime) -> Begun<J> {
        if let Admission::Probe(round) = admission {
            entry.tries.round = round.max(entry.tries.round);
        }
        entry.tries.began = Some(now);
        if entry.tries.lost_at.take().is_some_and(|lost| self.unreachable_at.is_some_and(|at| at > lost)) {
            entry.tries.lost_probes += 1;
        }
        let Entry { job, ticket, tries } = entry;
        let kind = self.lanes.get(ticket.lane).map_or(Kind::Source, |lane| lane.kind);
        let row = ticket.row();
        self.lanes.begin(ticket.lane, now);
        self.occupied[kind as usize] += 1;
        self.running += 1;
        self.tests += usize::from(tries.is_suspect);
        self.hung += usize::from(row == Row::Hung);
        let call = Call { ticket, tries, kind, row, admission, began: now };
        let index = self.unused.pop().unwrap_or(self.calls.len());
        if index == self.calls.len() {
            self.calls.push(Some(call));
        } else {
            self.calls[index] = Some(call);
        }
        Begun { call: CallId(index), job, count_start: ticket.count_start, is_repeat: tries.has_failed }
    }
}

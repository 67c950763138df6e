//! The queues of records that wait for a slot, one per partition, and the order of turns.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::core::dispatch::calls::{DispatchEntry, Kind, Row};
use crate::core::leader_clock::LocalTime;

/// Maximum number of a partition's records that are set aside after a delivery that did not succeed at once: they must not block the
/// records after them.
const MOST_ASIDE: usize = 256;
/// The same for all partitions together.
const MOST_ASIDE_IN_ALL: usize = 4_096;

/// Records taken from Kafka, as a multiple of the slots, so that no slot is idle during a fetch; as many more as may be unsettled, so that
/// none is idle during a commit.
const TAKEN: usize = 3;

/// A partition keeps its share while it has had something to deliver within this time.
const RECENT: Duration = Duration::from_secs(10);
const RECOUNT: Duration = Duration::from_secs(1);

/// One assigned partition.
#[derive(Debug)]
pub(super) struct Lane<J> {
    pub kind: Kind,
    rows: [VecDeque<DispatchEntry<J>>; 3],
    /// Number of running calls.
    pub running: usize,
    /// Number of calls allowed beyond its share, since as many have recently come back.
    pub window: usize,
    /// Number of its records here, and number of those set aside.
    pub taken: usize,
    pub aside: usize,
    in_turn: bool,
    /// When it last had something to deliver.
    active_at: Option<LocalTime>,
    is_recent: bool,
}

/// All assigned partitions.
#[derive(Debug)]
pub(super) struct Lanes<J> {
    all: BTreeMap<u64, Lane<J>>,
    /// Those with waiting records, in order of turns.
    turn: VecDeque<u64>,
    /// Number of partitions of each kind with recent deliveries, and when they were counted.
    recent: [usize; 2],
    counted_at: Option<LocalTime>,
    taken: [usize; 2],
    aside: usize,
    limits: [usize; 2],
    unsettled_limits: [usize; 2],
    waiting: usize,
}

impl<J> Lane<J> {
    pub fn front(&self, row: Row) -> Option<&DispatchEntry<J>> {
        self.rows[row as usize].front()
    }

    pub fn has_waiting(&self) -> bool {
        self.rows.iter().any(|row| !row.is_empty())
    }
}

impl<J> Lanes<J> {
    /// With this maximum number of running calls of each kind, and of unsettled ones beyond that.
    pub fn new(limits: [usize; 2], unsettled_limits: [usize; 2]) -> Self {
        Self {
            all: BTreeMap::new(),
            turn: VecDeque::new(),
            recent: [0; 2],
            counted_at: None,
            taken: [0; 2],
            aside: 0,
            limits,
            unsettled_limits,
            waiting: 0,
        }
    }

    pub fn open(&mut self, id: u64, kind: Kind) {
        let lane = Lane {
            kind,
            rows: [VecDeque::new(), VecDeque::new(), VecDeque::new()],
            running: 0,
            window: 0,
            taken: 0,
            aside: 0,
            in_turn: false,
            active_at: None,
            is_recent: false,
        };
        self.all.insert(id, lane);
    }

    /// Removes a partition and returns its waiting records.
    pub fn close(&mut self, id: u64) -> Vec<DispatchEntry<J>> {
        let Some(lane) = self.all.remove(&id) else { return Vec::new() };
        let kind = lane.kind as usize;
        self.recent[kind] -= usize::from(lane.is_recent);
        self.taken[kind] -= lane.taken - lane.aside;
        self.aside -= lane.aside;
        let gone: Vec<DispatchEntry<J>> = lane.rows.into_iter().flatten().collect();
        self.waiting -= gone.len();
        gone
    }

    pub fn get(&self, id: u64) -> Option<&Lane<J>> {
        self.all.get(&id)
    }

    pub fn is_open(&self, id: u64) -> bool {
        self.all.contains_key(&id)
    }

    pub fn has_waiting(&self) -> bool {
        self.waiting > 0
    }

    /// Maximum number of partitions waiting for their turn.
    pub fn in_turn(&self) -> usize {
        self.turn.len()
    }

    /// The partition whose turn it is; it moves to the end.
    pub fn rotate(&mut self) -> Option<u64> {
        while let Some(id) = self.turn.pop_front() {
            let Some(lane) = self.all.get_mut(&id) else { continue };
            lane.in_turn = lane.has_waiting();
            if lane.in_turn {
                self.turn.push_back(id);
                return Some(id);
            }
        }
        None
    }

    /// The share of a partition of this kind while others have something to deliver, given the maximum number of calls.
    pub fn share(&self, kind: Kind, most: usize) -> usize {
        (self.limits[kind as usize].min(most) / self.recent[kind as usize].max(1)).max(1)
    }

    /// Whether one more record may be taken from Kafka.
    pub fn has_room(&self, id: u64) -> bool {
        let Some(lane) = self.all.get(&id) else { return false };
        let kind = lane.kind as usize;
        let most = TAKEN * self.limits[kind] + self.unsettled_limits[kind];
        let own = lane.taken - lane.aside;
        let recent = self.recent[kind] + usize::from(!lane.is_recent);
        let is_fair = own < (most / recent).max(2) || self.taken[kind] < most / 2;
        let has_room = own < 2 || (is_fair && self.taken[kind] < most);
        has_room && lane.aside < MOST_ASIDE && self.aside < MOST_ASIDE_IN_ALL
    }

    /// Whether so many of a partition's records are set aside that the records after them could not be
    /// taken any more.
    pub fn is_crowded(&self, id: u64) -> bool {
        self.all.get(&id).is_some_and(|lane| lane.aside > MOST_ASIDE / 2) || self.aside > MOST_ASIDE_IN_ALL / 2
    }

    /// A record was taken.
    pub fn take(&mut self, id: u64) {
        if let Some(lane) = self.all.get_mut(&id) {
            lane.taken += 1;
            self.taken[lane.kind as usize] += 1;
            self.recent[lane.kind as usize] += usize::from(!std::mem::replace(&mut lane.is_recent, true));
        }
    }

    /// A record has left.
    pub fn leave(&mut self, id: u64, was_aside: bool) {
        if let Some(lane) = self.all.get_mut(&id) {
            lane.taken -= 1;
            if was_aside {
                lane.aside -= 1;
                self.aside -= 1;
            } else {
                self.taken[lane.kind as usize] -= 1;
            }
        }
    }

    /// Sets a record aside, or no longer.
    pub fn set_aside(&mut self, entry: &mut DispatchEntry<J>, aside: bool) {
        if entry.tries.is_aside == aside {
            return;
        }
        let Some(lane) = self.all.get_mut(&entry.ticket.lane) else { return };
        entry.tries.is_aside = aside;
        let taken = &mut self.taken[lane.kind as usize];
        if aside {
            lane.aside += 1;
            self.aside += 1;
            *taken -= 1;
        } else {
            lane.aside -= 1;
            self.aside -= 1;
            *taken += 1;
        }
    }

    pub fn push_back(&mut self, row: Row, entry: DispatchEntry<J>) {
        self.push(row, entry, VecDeque::push_back);
    }

    pub fn push_front(&mut self, row: Row, entry: DispatchEntry<J>) {
        self.push(row, entry, VecDeque::push_front);
    }

    fn push(&mut self, row: Row, entry: DispatchEntry<J>, push: impl FnOnce(&mut VecDeque<DispatchEntry<J>>, DispatchEntry<J>)) {
        let id = entry.ticket.lane;
        let Some(lane) = self.all.get_mut(&id) else { return };
        push(&mut lane.rows[row as usize], entry);
        self.waiting += 1;
        if !std::mem::replace(&mut lane.in_turn, true) {
            self.turn.push_back(id);
        }
    }

    pub fn pop(&mut self, id: u64, row: Row) -> Option<DispatchEntry<J>> {
        let lane = self.all.get_mut(&id)?;
        let entry = lane.rows[row as usize].pop_front()?;
        self.waiting -= 1;
        Some(entry)
    }

    /// A call has begun.
    pub fn begin(&mut self, id: u64, now: LocalTime) {
        if let Some(lane) = self.all.get_mut(&id) {
            lane.running += 1;
            lane.active_at = Some(now);
        }
    }

    /// A call has ended; `hung` says that it timed out.
    pub fn end(&mut self, id: u64, hung: bool) {
        let share = self.all.get(&id).map_or(1, |lane| self.share(lane.kind, usize::MAX));
        if let Some(lane) = self.all.get_mut(&id) {
            let had = lane.window.max(share);
            if hung {
                lane.window /= 2;
            } else if lane.running >= had {
                lane.window = had + 1;
            }
            lane.running -= 1;
        }
    }

    /// Counts the partitions with recent deliveries, from time to time; returns whether it did.
    pub fn recount(&mut self, now: LocalTime) -> bool {
        if self.counted_at.is_some_and(|at| now < at.later(RECOUNT)) {
            return false;
        }
        self.counted_at = Some(now);
        self.recent = [0; 2];
        for lane in self.all.values_mut() {
            lane.is_recent = lane.running > 0 || lane.has_waiting() || lane.active_at.is_some_and(|at| now < at.later(RECENT));
            self.recent[lane.kind as usize] += usize::from(lane.is_recent);
            // An unused window shrinks.
            if lane.running * 2 < lane.window {
                lane.window /= 2;
            }
        }
        true
    }
}

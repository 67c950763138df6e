//! The group coordinator of the model: generations, static members, cooperative assignment, committed offsets.
//!
//! Observed broker behaviour: a commit of a stale generation is rejected; a live member's offsets are accepted for any
//! partition; a member that restarts under its name gets its partitions back without a new generation.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::core::ack_tracker::CommitPoint;
use crate::core::chance::Chance;
use crate::core::leader_clock::LocalTime;
use crate::worker::model::check::{Life, Tp};

const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// A member, as seen by the coordinator and by its own client.
#[derive(Debug, Clone, Default)]
pub(super) struct Membership {
    /// The process that holds the name.
    pub(super) incarnation: u64,
    /// Whether that process exists, suspended or not.
    pub(super) alive: bool,
    /// Whether it is suspended, so that its client sends no heartbeats.
    pub(super) stopped: bool,
    /// Whether the coordinator counts it as a member.
    pub(super) joined: bool,
    /// The generation known to its client; `None` before it has joined and after it has learnt that it was
    /// removed.
    pub(super) generation: Option<u64>,
    /// The partitions taken over by its client.
    pub(super) taken: BTreeSet<Tp>,
    last_seen: i64,
}

/// A change reported to a member that serves the group.
pub(super) enum MemberChange {
    Assigned(Vec<Tp>),
    Revoked(Vec<Tp>),
    Lost(Vec<Tp>),
}

/// The group.
pub(super) struct Group {
    pub(super) members: [Membership; 2],
    pub(super) generation: u64,
    pub(super) committed: BTreeMap<Tp, CommitPoint>,
    owners: BTreeMap<Tp, usize>,
    wanted: BTreeMap<Tp, usize>,
}

impl Group {
    pub(super) fn new(partitions: impl Iterator<Item = Tp>) -> Self {
        let committed = partitions.map(|tp| (tp, CommitPoint { offset: 0, metadata: String::new() })).collect();
        let (owners, wanted) = (BTreeMap::new(), BTreeMap::new());
        Self { members: Default::default(), generation: 1, committed, owners, wanted }
    }

    /// The state of a member.
    pub(super) fn member(&mut self, (process, _): Life) -> &mut Membership {
        &mut self.members[place_of(process)]
    }

    /// A process starts under a member's name.
    pub(super) fn started(&mut self, life: Life, now: LocalTime) {
        let m = self.member(life);
        let joined = m.joined;
        *m = Membership { incarnation: life.1, alive: true, joined, last_seen: now.as_micros(), ..Membership::default() };
    }

    /// Time has passed: live members send heartbeats, silent ones are removed.
    pub(super) fn tick(&mut self, now: LocalTime, chance: &mut Chance) {
        for member in 0..self.members.len() {
            let m = &mut self.members[member];
            if m.alive && !m.stopped {
                m.last_seen = now.as_micros();
            } else if m.joined && now > LocalTime::from_micros(m.last_seen).later(SESSION_TIMEOUT) {
                m.joined = false;
                self.owners.retain(|_, owner| *owner != member);
                self.rebalance(chance);
            }
        }
    }

    /// A new generation, with partitions reassigned.
    pub(super) fn rebalance(&mut self, chance: &mut Chance) {
        self.generation += 1;
        let joined: Vec<usize> = (0..self.members.len()).filter(|m| self.members[*m].joined).collect();
        self.wanted.clear();
        if !joined.is_empty() {
            self.wanted = self.committed.keys().map(|tp| (*tp, joined[chance.index(joined.len())])).collect();
        }
    }

    /// A member serves the group.
    pub(super) fn serve(&mut self, life: Life, chance: &mut Chance) -> Option<MemberChange> {
        let member = place_of(life.0);
        if !self.members[member].joined {
            let m = &mut self.members[member];
            m.generation = None;
            if !m.taken.is_empty() {
                return Some(MemberChange::Lost(m.taken.iter().copied().collect()));
            }
            m.joined = true;
            self.rebalance(chance);
        }
        let (owners, wanted, m) = (&mut self.owners, &self.wanted, &mut self.members[member]);
        m.generation = Some(self.generation);
        let revoked: Vec<Tp> = m.taken.iter().filter(|tp| wanted.get(tp) != Some(&member)).copied().collect();
        if !revoked.is_empty() {
            return Some(MemberChange::Revoked(revoked));
        }
        // What it owned before it restarted, and what it no longer owns.
        owners.retain(|tp, owner| *owner != member || m.taken.contains(tp) || wanted.get(tp) == Some(&member));
        let free = |tp: &Tp| owners.get(tp).is_none_or(|owner| *owner == member) && !m.taken.contains(tp);
        let assigned: Vec<Tp> = wanted.iter().filter(|(tp, to)| **to == member && free(tp)).map(|(tp, _)| *tp).collect();
        owners.extend(assigned.iter().map(|tp| (*tp, member)));
        (!assigned.is_empty()).then_some(MemberChange::Assigned(assigned))
    }

    /// A member releases partitions.
    pub(super) fn release(&mut self, life: Life, partitions: &[Tp]) {
        let member = place_of(life.0);
        let m = &mut self.members[member];
        m.taken.retain(|tp| !partitions.contains(tp));
        if m.joined && m.generation.is_some() {
            self.owners.retain(|tp, owner| *owner != member || !partitions.contains(tp));
            self.generation += 1;
        }
    }

    /// Whether a partition is assigned to this member and its client has not started it.
    pub(super) fn is_taking_over(&self, life: Life, tp: &Tp) -> bool {
        let m = &self.members[place_of(life.0)];
        m.joined && m.incarnation == life.1 && self.owners.get(tp) == Some(&place_of(life.0)) && !m.taken.contains(tp)
    }

    /// Whether offsets sent under this membership are accepted.
    pub(super) fn takes(&self, life: Life, generation: u64) -> bool {
        let m = &self.members[place_of(life.0)];
        m.joined && m.incarnation == life.1 && generation == self.generation
    }
}

/// The index of a process in its group: deliverers come first, then movers.
fn place_of(process: usize) -> usize {
    process % 2
}

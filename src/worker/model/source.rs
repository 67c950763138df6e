//! The record source, on the cluster in memory.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use crate::core::ack_tracker::CommitPoint;
use crate::core::time::Timestamp;
use crate::kafka::NativeHeaders;
use crate::kafka::consumer::{Committed, Next, Rebalance};
use crate::kafka::error::ClientError;
use crate::kafka::headers::HeaderFault;
use crate::kafka::partition::TopicPartition;
use crate::worker::hop::ports::{RecordQueue, RecordSource, SourceRecord, TierSource, Wake};
use crate::worker::model::check::Tp;
use crate::worker::model::cluster::{Fetched, Stored};
use crate::worker::model::group::MemberChange;
use crate::worker::model::planted::Bug;
use crate::worker::model::world::{Fault, Process, World};

/// A membership.
pub(super) struct ModelSource {
    pub(super) world: Rc<World>,
    pub(super) process: Rc<Process>,
}

impl ModelSource {
    /// Whether partitions have already been lost.
    pub(super) fn assignment_lost(&self) -> bool {
        // The client learns it some time later.
        let life = self.process.life;
        let joined = self.world.cluster.borrow_mut().group(life).member(life).joined;
        !joined && self.world.chance.borrow_mut().coin()
    }
}

/// The broker that leads every partition.
pub(super) const BROKER: i32 = 1;

/// The membership under which offsets are sent.
pub(super) struct ModelGroup(pub(super) u64);

impl RecordSource for ModelSource {
    type Queue = ModelQueue;
    type Group = ModelGroup;

    fn serve(&self, _: Duration) -> Result<Option<Rebalance>, ClientError> {
        self.world.enter(&self.process)?;
        if self.world.strikes(Fault::Serve) {
            return Err(ClientError::fatal());
        }
        let mut chance = self.world.chance.borrow_mut();
        let cluster = &mut *self.world.cluster.borrow_mut();
        let change = cluster.group(self.process.life).serve(self.process.life, &mut chance);
        if self.world.has(Bug::RevocationUnheard, self.process.life)
            && let Some(MemberChange::Revoked(partitions) | MemberChange::Lost(partitions)) = &change
        {
            cluster.group(self.process.life).release(self.process.life, partitions);
            return Ok(None);
        }
        let named = |partitions: Vec<Tp>| partitions.into_iter().map(|tp| cluster.named(tp)).collect();
        let change = change.map(|change| match change {
            MemberChange::Assigned(partitions) => Rebalance::Assigned(named(partitions)),
            MemberChange::Revoked(partitions) => Rebalance::Revoked { partitions: named(partitions), lost: false },
            MemberChange::Lost(partitions) => Rebalance::Revoked { partitions: named(partitions), lost: true },
        });
        if let Some(change) = &change {
            self.world.note(|| format!("{:?} is told {change:?}", self.process.life));
        }
        Ok(change)
    }

    fn committed(&self, partitions: &[TopicPartition]) -> Result<Vec<Option<Committed>>, ClientError> {
        self.world.enter(&self.process)?;
        if self.world.strikes(Fault::Committed) {
            return Err(ClientError::outage());
        }
        let asked: Vec<Tp> = partitions.iter().map(|tp| self.world.cluster.borrow().numbered(tp)).collect();
        // The broker returns no offset while a transaction is open on it, and the call waits up to 15 s.
        let mut waited = 0;
        let waits = !self.world.has(Bug::LeftOpenUnderAnotherName, self.process.life);
        while waits && asked.iter().any(|tp| self.world.cluster.borrow().is_unstable(*tp)) {
            if waited >= 15 {
                return Err(ClientError::outage());
            }
            self.world.advance(1_000);
            waited += 1;
        }
        let cluster = &mut *self.world.cluster.borrow_mut();
        let life = self.process.life;
        for tp in &asked {
            if cluster.group(life).is_taking_over(life, tp) {
                cluster.check.read_by(*tp, life);
            }
        }
        let is_new = asked.iter().any(|tp| cluster.group(life).is_taking_over(life, tp));
        let mut found: Vec<Option<CommitPoint>> = asked.iter().map(|tp| cluster.group(life).committed.get(tp).cloned()).collect();
        if !is_new && self.world.has(Bug::MovedOnceMore, life) {
            found.iter_mut().flatten().for_each(|point| point.offset = 0);
        }
        self.world.note(|| format!("{life:?} reads the committed {found:?} of {asked:?}"));
        Ok(found.into_iter().map(|p| p.map(|p| Committed { offset: p.offset, metadata: p.metadata })).collect())
    }

    fn bounds(&self, tp: &TopicPartition) -> Result<(i64, i64), ClientError> {
        let cluster = self.world.cluster.borrow();
        Ok((0, cluster.end_of(cluster.numbered(tp))))
    }

    fn known_end(&self, tp: &TopicPartition) -> Option<i64> {
        let cluster = self.world.cluster.borrow();
        Some(cluster.end_of(cluster.numbered(tp)))
    }

    fn ends(&self, _: &[TopicPartition], _: Duration) -> Result<Vec<(TopicPartition, i64)>, ClientError> {
        Err(ClientError::outage())
    }

    fn start(&self, assigned: &[(TopicPartition, i64)], _: Option<Wake<'_>>) -> Result<Vec<ModelQueue>, ClientError> {
        self.world.enter(&self.process)?;
        let cluster = &mut *self.world.cluster.borrow_mut();
        let numbered: Vec<(Tp, i64)> = assigned.iter().map(|(tp, at)| (cluster.numbered(tp), *at)).collect();
        cluster.group(self.process.life).member(self.process.life).taken.extend(numbered.iter().map(|(tp, _)| *tp));
        let queue = |((named, _), (tp, at)): (&(TopicPartition, i64), (Tp, i64))| ModelQueue {
            world: self.world.clone(),
            process: self.process.clone(),
            named: named.clone(),
            tp,
            next: Cell::new(at),
            told: Cell::new(-1),
        };
        Ok(assigned.iter().zip(numbered).map(queue).collect())
    }

    fn release(&self, partitions: &[TopicPartition]) -> Result<(), ClientError> {
        self.world.enter(&self.process)?;
        let cluster = &mut *self.world.cluster.borrow_mut();
        let numbered: Vec<Tp> = partitions.iter().map(|tp| cluster.numbered(tp)).collect();
        cluster.group(self.process.life).release(self.process.life, &numbered);
        Ok(())
    }

    fn commit(&self, points: &[(TopicPartition, CommitPoint)]) -> Result<(), ClientError> {
        self.world.enter(&self.process)?;
        let life = self.process.life;
        // Delayed commits arrive first: requests of one client keep their order.
        self.world.cluster.borrow_mut().arrive_plainly(life.0);
        if self.world.strikes(Fault::PlainCommitLate) {
            self.world.note(|| format!("{life:?} commits plainly, the request is on its way"));
            self.world.cluster.borrow_mut().delay_plainly(life, points);
            let is_forgotten = self.world.has(Bug::CommitOnItsWayForgotten, life);
            return Err(if is_forgotten { ClientError::group_change() } else { ClientError::outage() });
        }
        if self.world.strikes(Fault::PlainCommitLost) {
            self.world.note(|| format!("{life:?} commits plainly, the request is lost"));
            return Err(ClientError::outage());
        }
        {
            let cluster = &mut *self.world.cluster.borrow_mut();
            let generation = cluster.group(life).member(life).generation;
            if !generation.is_some_and(|generation| cluster.group(life).takes(life, generation)) {
                self.world.note(|| format!("{life:?} commits plainly under a stale generation"));
                return Err(ClientError::group_change());
            }
            self.world.note(|| format!("{life:?} commits plainly {points:?}"));
            for (tp, point) in points {
                let tp = cluster.numbered(tp);
                cluster.commit_point(tp, point.clone(), life);
            }
        }
        if self.world.strikes(Fault::PlainCommitUnanswered) {
            return Err(ClientError::outage());
        }
        self.world.enter(&self.process)
    }

    fn live_group(&self) -> Option<ModelGroup> {
        if self.process.dead.get() || self.world.strikes(Fault::NoLiveGroup) {
            return None;
        }
        let life = self.process.life;
        self.world.cluster.borrow_mut().group(life).member(life).generation.map(ModelGroup)
    }

    fn group(&self) -> &'static str {
        "group"
    }
}

impl TierSource for ModelSource {
    fn pause(&self, _: &[TopicPartition]) -> Result<(), ClientError> {
        Ok(())
    }

    fn resume(&self, _: &[TopicPartition]) -> Result<(), ClientError> {
        Ok(())
    }

    fn go_back(&self, to: &[(TopicPartition, i64)]) -> Result<(), ClientError> {
        self.world.enter(&self.process)?;
        if self.world.strikes(Fault::GoBack) {
            return Err(ClientError::outage());
        }
        self.process.positions.borrow_mut().extend(to.iter().map(|(tp, offset)| (tp.clone(), *offset)));
        Ok(())
    }
}

/// The queue of a partition.
pub(super) struct ModelQueue {
    world: Rc<World>,
    process: Rc<Process>,
    named: TopicPartition,
    pub(super) tp: Tp,
    next: Cell<i64>,
    told: Cell<i64>,
}

impl RecordQueue for ModelQueue {
    type Record = ModelRecord;

    fn poll(&self) -> Option<Next<Box<ModelRecord>>> {
        if self.world.strikes(Fault::Fetch) {
            return Some(Next::Passing);
        }
        if let Some(offset) = self.process.positions.borrow_mut().remove(&self.named) {
            self.next.set(offset);
            self.told.set(-1);
        }
        match self.world.cluster.borrow().fetch(self.tp, self.next.get()) {
            Fetched::Record(offset, stored) => {
                self.next.set(offset + 1);
                let is_early = self.world.has(Bug::HeadMovedEarly, self.process.life);
                let timestamp = if is_early { stored.appended - Duration::from_millis(700) } else { stored.appended };
                Some(Next::Record(Box::new(ModelRecord { world: self.world.clone(), offset, timestamp, stored })))
            }
            Fetched::End(end) => {
                self.next.set(end);
                (self.told.replace(end) != end).then_some(Next::End(end))
            }
        }
    }

    fn partition(&self) -> &TopicPartition {
        &self.named
    }
}

/// A fetched record.
pub(super) struct ModelRecord {
    world: Rc<World>,
    offset: i64,
    timestamp: Timestamp,
    stored: Rc<Stored>,
}

impl SourceRecord for ModelRecord {
    fn offset(&self) -> i64 {
        self.offset
    }

    fn timestamp(&self) -> Timestamp {
        self.timestamp
    }

    fn key(&self) -> Option<&[u8]> {
        None
    }

    fn value(&self) -> Option<&[u8]> {
        Some(&self.stored.value)
    }

    fn header_fault(&self) -> Option<HeaderFault> {
        None
    }

    fn copy_headers(&self) -> NativeHeaders {
        if self.world.strikes(Fault::HeaderFlood) {
            let millis = self.world.chance.borrow_mut().between(100, 4_000);
            self.world.advance(millis);
        }
        self.stored.headers.clone()
    }

    fn take_headers(&mut self) -> NativeHeaders {
        self.copy_headers()
    }

    fn broker(&self) -> i32 {
        BROKER
    }

    fn has_append_time(&self) -> bool {
        true
    }
}

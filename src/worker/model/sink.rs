//! The hop sink, on the cluster in memory: a producer that behaves like librdkafka under `HopProducer`.

use std::rc::Rc;
use std::time::Duration;

use crate::core::ack_tracker::CommitPoint;
use crate::core::leader_clock::LocalTime;
use crate::kafka::NativeHeaders;
use crate::kafka::error::{ClientError, TxnError, WriteFault};
use crate::kafka::outgoing::{ClockReading, Outgoing, Settled, TopicId};
use crate::kafka::partition::TopicPartition;
use crate::kafka::producer::PartitionLook;
use crate::kafka::transaction::Writer;
use crate::worker::hop::ports::HopSink;
use crate::worker::model::check::Tp;
use crate::worker::model::cluster::{Cluster, NAMES, PROCESSES, TIERS};
use crate::worker::model::planted::Bug;
use crate::worker::model::source::{BROKER, ModelGroup};
use crate::worker::model::world::{Fault, Process, World};

/// How long it polls until the open transaction of a name has ended.
const STUCK_AFTER: Duration = Duration::from_secs(5);

/// A producer.
pub(super) struct ModelSink {
    world: Rc<World>,
    process: Rc<Process>,
    transactional: bool,
    /// The epoch of the current client, if one was created.
    epoch: Option<u64>,
    /// The name in use: 0 is its own, the others are spare ones.
    spare: usize,
    in_transaction: bool,
    /// Something was lost within a transaction.
    suspect: bool,
    reports: Vec<(usize, WriteFault)>,
    /// When the last written record was handed over.
    written_at: Option<LocalTime>,
}

impl ModelSink {
    pub(super) fn new(world: Rc<World>, process: Rc<Process>, transactional: bool) -> Self {
        let (epoch, reports, written_at) = (None, Vec::new(), None);
        Self { world, process, transactional, epoch, spare: 0, in_transaction: false, suspect: false, reports, written_at }
    }

    fn id(&self) -> usize {
        self.process.life.0 + PROCESSES * self.spare
    }

    /// Initialises its name, or the next one if the open transaction of this one cannot end.
    fn init(&mut self) -> Result<u64, TxnError> {
        if self.suspect && self.world.has(Bug::LeftOpenUnderAnotherName, self.process.life) {
            self.spare = (self.spare + 1) % NAMES;
        }
        for _ in 0..NAMES {
            let asked = self.world.clock.now();
            while self.world.clock.now().since(asked) < STUCK_AFTER {
                if let Some(epoch) = self.world.cluster.borrow_mut().init(self.id()) {
                    return Ok(epoch);
                }
                self.world.advance(1_000);
            }
            self.spare = (self.spare + 1) % NAMES;
            self.world.note(|| format!("{:?} continues with name {}", self.process.life, self.id()));
        }
        Err(TxnError::Rebuild(ClientError::outage()))
    }

    fn rebuild(&mut self) {
        self.epoch = None;
        self.in_transaction = false;
    }

    /// What every request to the coordinator may find: a crashed process, or a successor of the same name.
    fn ask(&self) -> Result<(), ClientError> {
        self.world.enter(&self.process)?;
        let current = |epoch| self.world.cluster.borrow().is_current(self.id(), epoch);
        if self.transactional && !self.epoch.is_some_and(current) { Err(ClientError::fenced()) } else { Ok(()) }
    }

    fn fault(&self) -> WriteFault {
        match self.world.chance.borrow_mut().below(20) {
            0..=11 => WriteFault::Passing("of the model"),
            12..=15 => WriteFault::Aborted,
            16..=18 => WriteFault::TooLarge,
            _ => WriteFault::Denied,
        }
    }

    fn cluster(&self) -> std::cell::RefMut<'_, Cluster> {
        self.world.cluster.borrow_mut()
    }
}

impl Writer for ModelSink {
    type Group = ModelGroup;

    fn is_transactional(&self) -> bool {
        self.transactional
    }

    fn begin(&mut self) -> Result<(), TxnError> {
        self.connect()?;
        self.reports.clear();
        if self.world.strikes(Fault::Begin) {
            return Err(TxnError::Abort(ClientError::outage()));
        }
        if self.transactional && self.cluster().is_stuck(self.id()) {
            // Requests with that name are not answered and time out.
            self.world.advance(5_000);
            if self.cluster().is_stuck(self.id()) {
                return Err(TxnError::Rebuild(ClientError::outage()));
            }
        }
        self.in_transaction = self.transactional;
        Ok(())
    }

    fn send(
        &mut self,
        (topic, partition): (TopicId, i32),
        record: Outgoing<'_>,
        headers: NativeHeaders,
        tag: usize,
    ) -> Result<(), WriteFault> {
        let life = self.process.life;
        let mut target = (topic.number(), partition);
        if self.world.has(Bug::SkippedTier, life) && (TIERS..self.world.cluster.borrow().dlq() - 1).contains(&target.0) {
            target.0 += 1;
        }
        if self.world.strikes(Fault::Slow) {
            // Large records, or a slow link: a transaction with too many records exceeds its
            // timeout.
            let millis = self.world.chance.borrow_mut().between(500, 4_000);
            self.world.advance(millis);
        }
        let current = |epoch| self.world.cluster.borrow().is_current(self.id(), epoch);
        let alive = !self.process.dead.get() && (!self.transactional || self.epoch.is_some_and(current));
        let producer = (self.process.life, self.id());
        let is_leaderless = self.world.cluster.borrow().is_leaderless(target);
        let fault = if is_leaderless {
            if alive && self.transactional {
                // The coordinator adds it before anything is written to it.
                let now = self.world.clock.now();
                self.cluster().opened(producer, target, now);
            }
            Some(WriteFault::Passing("no leader"))
        } else {
            self.world.strikes(Fault::Write).then(|| self.fault())
        };
        if fault == Some(WriteFault::Denied) && self.world.has(Bug::DeniedTargetDropsItsRecord, life) {
            return Ok(());
        }
        // A timed-out record may have been written.
        let written = match fault {
            None => true,
            Some(_) if is_leaderless => false,
            Some(WriteFault::Passing(_)) => self.world.chance.borrow_mut().coin(),
            Some(_) => false,
        };
        if written && alive {
            let now = self.world.clock.now();
            let value = record.value.unwrap_or_default().to_vec();
            self.cluster().append(producer, target, (value, &headers), self.transactional, now);
            self.written_at = Some(now);
            self.world.note(|| format!("{:?} writes record {:?} to {target:?}", self.process.life, record.value));
        }
        match fault {
            Some(fault) if self.world.chance.borrow_mut().coin() => return Err(fault),
            Some(fault) => self.reports.push((tag, fault)),
            None if !alive => self.reports.push((tag, WriteFault::Passing("gone"))),
            None => {}
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<Settled, TxnError> {
        self.ask().map_err(TxnError::Rebuild)?;
        if self.world.strikes(Fault::Settle) {
            return Err(TxnError::Rebuild(ClientError::outage()));
        }
        let faults = std::mem::take(&mut self.reports);
        self.suspect |= faults.iter().any(|(_, fault)| fault.is_passing());
        let confirmed = self.world.clock.now();
        let reading = |sent: LocalTime| ClockReading { broker: BROKER, sent, appended: sent.timestamp(), confirmed };
        Ok(Settled { faults, clock: self.written_at.take().map(reading), ..Settled::default() })
    }

    fn send_offsets(&mut self, group: &ModelGroup, points: &[(TopicPartition, CommitPoint)]) -> Result<(), TxnError> {
        self.ask().map_err(TxnError::Rebuild)?;
        let lost = self.world.strikes(Fault::SendOffsets);
        if !lost || self.world.chance.borrow_mut().coin() {
            let (now, id) = (self.world.clock.now(), self.id());
            let mut cluster = self.cluster();
            if !cluster.group(self.process.life).takes(self.process.life, group.0) {
                self.world.note(|| format!("{:?} sends offsets under a stale generation", self.process.life));
                return Err(TxnError::Abort(ClientError::group_change()));
            }
            self.world.note(|| format!("{:?} sends offsets {points:?}", self.process.life));
            let mut points: Vec<(Tp, CommitPoint)> =
                points.iter().map(|(tp, point)| (cluster.numbered(tp), point.clone())).collect();
            let life = self.process.life;
            if self.world.has(Bug::HopWithoutItsOffset, life) {
                points.clear();
            }
            if self.world.has(Bug::PlainCommitInTransaction, life) {
                for (tp, point) in &points {
                    cluster.commit_point(*tp, point.clone(), life);
                }
            }
            if self.world.has(Bug::OffsetOfAnotherTier, life) {
                for (tp, _) in &mut points {
                    tp.0 = if tp.0 == TIERS { TIERS + 1 } else { TIERS };
                }
            }
            cluster.put_offsets((life, id), points, now);
        }
        if lost {
            self.suspect = true;
            return Err(TxnError::Abort(ClientError::outage()));
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), TxnError> {
        self.ask().map_err(TxnError::Unknown)?;
        let id = self.id();
        if self.world.strikes(Fault::CommitRefused) {
            return Err(TxnError::Abort(ClientError::outage()));
        }
        if self.world.strikes(Fault::CommitUnknown) {
            self.suspect = true;
            let what = self.world.chance.borrow_mut().below(3);
            self.world.note(|| format!("{:?} commits, nobody answers ({what})", self.process.life));
            match what {
                0 => self.cluster().end(id, true),
                1 => self.cluster().delay_commit(id),
                _ => {}
            }
            return Err(TxnError::Unknown(ClientError::outage()));
        }
        self.cluster().end(id, true);
        self.in_transaction = false;
        self.world.note(|| format!("{:?} commits its transaction", self.process.life));
        self.world.enter(&self.process).map_err(TxnError::Unknown)
    }

    fn abort(&mut self) {
        if !std::mem::take(&mut self.in_transaction) {
            return;
        }
        if self.ask().is_err() || self.world.strikes(Fault::Abort) {
            return self.rebuild();
        }
        self.cluster().end(self.id(), false);
        self.world.note(|| format!("{:?} aborts", self.process.life));
    }

    fn recover(&mut self, error: &TxnError) {
        match error {
            TxnError::Abort(_) => self.abort(),
            TxnError::Rebuild(_) | TxnError::Unknown(_) | TxnError::Rival(_) => self.rebuild(),
        }
    }
}

impl HopSink for ModelSink {
    fn connect(&mut self) -> Result<(), TxnError> {
        self.world.enter(&self.process).map_err(TxnError::Rebuild)?;
        if self.transactional && self.suspect {
            self.rebuild();
        }
        if self.epoch.is_none() {
            if self.world.strikes(Fault::Connect) {
                return Err(TxnError::Rebuild(ClientError::outage()));
            }
            if self.transactional {
                if self.world.chance.borrow_mut().coin() {
                    self.cluster().hurry(self.id());
                }
                let epoch = self.init()?;
                self.epoch = Some(epoch);
                self.world.note(|| format!("{:?} initialises its producer, epoch {epoch}", self.process.life));
            }
            self.suspect = false;
        }
        Ok(())
    }

    fn ready_at(&self) -> LocalTime {
        LocalTime::from_micros(0)
    }

    fn idle(&mut self) {}

    fn look_again(&self, topic: TopicId) -> Vec<PartitionLook> {
        let look = |partition| {
            let leader = (!self.world.cluster.borrow().is_leaderless((topic.number(), partition))).then_some(1);
            PartitionLook { partition, leader, replicas: 1, in_sync: usize::from(leader.is_some()) }
        };
        (0..self.world.partitions).map(look).collect()
    }

    fn topic_name(&self, _: TopicId) -> &'static str {
        "topic"
    }

    fn partition_count(&mut self, _: TopicId) -> Result<i32, ClientError> {
        Ok(self.world.partitions)
    }
}

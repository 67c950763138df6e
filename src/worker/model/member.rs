//! The workers of the model: the real mover, and a deliverer that drives the real committer.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use crate::core::coordinates::Coordinates;
use crate::core::envelope::Envelope;
use crate::core::ladder::Hops;
use crate::core::role::Role;
use crate::kafka::consumer::Rebalance;
use crate::kafka::error::ClientError;
use crate::kafka::outgoing::TopicId;
use crate::kafka::partition::TopicPartition;
use crate::worker::committer::{Committer, Draining, Parts, Polled, Released, StartOutcome, Starts, Work};
use crate::worker::error::WorkError;
use crate::worker::hop::content::{Content, RecordId};
use crate::worker::hop::ports::{HopSink, RecordSource, SourceRecord};
use crate::worker::hop::targets::Targets;
use crate::worker::model::check::At;
use crate::worker::model::cluster::{PROCESSES, REDELIVER, TIERS};
use crate::worker::model::planted::Bug;
use crate::worker::model::sink::ModelSink;
use crate::worker::model::source::ModelSource;
use crate::worker::model::world::{Fault, Process, World};
use crate::worker::mover::{self, Freshness, Mover};

/// Maximum number of deliveries in flight.
const MOST_IN_FLIGHT: usize = 6;

struct Modelled;

impl Work for Modelled {
    type Source = ModelSource;
    type Sink = ModelSink;
    type Lane = ();
    type Place = ();
}

/// A delivery in flight.
struct InFlight {
    id: RecordId,
    at: At,
    envelope: Envelope,
    content: Content,
}

/// A worker.
pub(super) enum Member {
    Deliverer(Box<Deliverer>),
    Mover(Rc<Process>, Box<Mover<Moved>>),
}

impl Member {
    /// Starts the worker of this process.
    pub(super) fn start(world: &Rc<World>, process: Rc<Process>) -> Result<Self, WorkError> {
        if process.life.0 < PROCESSES / 2 {
            return Ok(Self::Deliverer(Box::new(Deliverer::start(world, process)?)));
        }
        let (ladder, instance) = (world.ladder.clone(), format!("mover-{}", process.life.0));
        let (source, sink) = ports(world, &process)?;
        let (clock, metrics, fresh) = (world.clock.clone(), world.mover_metrics.clone(), Freshness::default());
        let targets = Targets { redeliver: Some(counted(world, REDELIVER)), dlqs: Vec::new(), ..targets(world) };
        let mover = Mover::of(mover::Parts { ladder, instance, clock, source, sink, targets, metrics, fresh });
        Ok(Self::Mover(process, Box::new(mover)))
    }

    /// One iteration of the worker's loop.
    pub(super) fn step(&mut self, world: &Rc<World>) -> Result<(), WorkError> {
        match self {
            Self::Deliverer(deliverer) => deliverer.step(),
            Self::Mover(process, mover) => {
                if world.strikes(Fault::StandStill) {
                    world.stand_still(process);
                }
                mover.go_round(Duration::ZERO)?;
                alive(process)
            }
        }
    }
}

/// A crashed process does nothing more.
fn alive(process: &Process) -> Result<(), WorkError> {
    if process.dead.get() { Err(ClientError::fatal().into()) } else { Ok(()) }
}

/// The two ports of a process. Like a real worker before it joins, it connects: looking up its topics ends its predecessor's
/// transaction.
fn ports(world: &Rc<World>, process: &Rc<Process>) -> Result<(ModelSource, ModelSink), WorkError> {
    let source = ModelSource { world: world.clone(), process: process.clone() };
    let mut sink = ModelSink::new(world.clone(), process.clone(), world.ladder.hops() == Hops::ExactlyOnce);
    sink.connect()?;
    Ok((source, sink))
}

fn counted(world: &World, topic: usize) -> (TopicId, i32) {
    (TopicId::numbered(topic), world.partitions)
}

fn targets(world: &World) -> Targets {
    let (dlq, state) = (world.cluster.borrow().dlq(), world.cluster.borrow().state());
    let tiers = (TIERS..dlq).map(|topic| counted(world, topic)).collect();
    Targets { redeliver: None, sources: Vec::new(), tiers, dlqs: vec![counted(world, dlq)], state: TopicId::numbered(state) }
}

/// The mover's ports.
pub(super) struct Moved;

impl mover::Ports for Moved {
    type Source = ModelSource;
    type Sink = ModelSink;
}

/// A deliverer.
pub(super) struct Deliverer {
    world: Rc<World>,
    process: Rc<Process>,
    committer: Committer<Modelled>,
    in_flight: Vec<InFlight>,
    /// The attempts of records, for the bug that counts them in memory.
    memory: BTreeMap<String, u32>,
}

impl Deliverer {
    fn start(world: &Rc<World>, process: Rc<Process>) -> Result<Self, WorkError> {
        let ladder = world.ladder.clone();
        let (source, sink) = ports(world, &process)?;
        let targets = targets(world);
        let committer = Committer::new(Parts {
            ladder,
            role: Role::Deliverer,
            clock: world.clock.clone(),
            source,
            sink,
            targets,
            metrics: world.metrics.worker.clone(),
            hop_metrics: world.metrics.hops.clone(),
            starts: Starts::default(),
            dlq_breaker: None,
        });
        Ok(Self { world: world.clone(), process, committer, in_flight: Vec::new(), memory: BTreeMap::new() })
    }

    /// One iteration of the deliverer's loop.
    fn step(&mut self) -> Result<(), WorkError> {
        if self.world.strikes(Fault::StandStill) {
            self.world.stand_still(&self.process);
        }
        if self.world.strikes(Fault::Stop) {
            self.end()?;
            self.process.dead.set(true);
        }
        if let Some(change) = self.committer.source.serve(Duration::ZERO)? {
            self.rebalance(change)?;
        }
        self.hear();
        self.feed()?;
        self.committer.run_hops()?;
        self.committer.commit(false, MOST_IN_FLIGHT)?;
        self.committer.idle();
        alive(&self.process)
    }

    /// Some deliveries end, in any order.
    fn hear(&mut self) {
        let mut over = self.world.chance.borrow_mut().index(self.in_flight.len() + 1);
        while over > 0 && !self.process.dead.get() {
            over -= 1;
            let index = self.world.chance.borrow_mut().index(self.in_flight.len());
            let InFlight { id, at, mut envelope, content } = self.in_flight.swap_remove(index);
            let now = self.world.clock.now().timestamp();
            let verdict = self.world.cluster.borrow_mut().check.verdict(at, now);
            self.world
                .note(|| format!("{:?} hears of {at:?}: {}", self.process.life, if verdict.is_ok() { "done" } else { "failed" }));
            if self.world.has(Bug::AttemptsInMemory, self.process.life) && verdict.is_err() {
                let made = self.memory.entry(envelope.id.clone()).or_default();
                envelope.attempts = *made;
                *made += 1;
            }
            self.committer.judge(id, &envelope, content, &verdict, ());
        }
    }

    fn feed(&mut self) -> Result<(), WorkError> {
        for index in self.committer.in_turn() {
            while self.in_flight.len() < MOST_IN_FLIGHT && self.committer.has_room(index) {
                match self.committer.poll(index)? {
                    Polled::Empty => break,
                    Polled::Nothing => {}
                    Polled::New(record) => self.take(index, &*record)?,
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, index: usize, record: &impl SourceRecord) -> Result<(), WorkError> {
        let id = RecordId { token: self.committer.lanes[index].token, offset: record.offset() };
        if self.committer.is_to_be_counted(index) {
            // Members crash so often here that any record would be dead-lettered as poison.
            let start = self.committer.count_start(id)?;
            debug_assert_ne!(start, StartOutcome::Gone);
        }
        let lane = &self.committer.lanes[index];
        let tp = self.world.cluster.borrow().numbered(lane.tp());
        let topic = lane.tp().topic.to_string();
        let at = Coordinates { topic, partition: tp.1, offset: record.offset(), timestamp: record.timestamp() };
        let envelope = if tp.0 == REDELIVER {
            Envelope::read(&self.world.ladder, &at, record.copy_headers().iter()).envelope
        } else {
            Envelope::fresh(self.world.ladder.name(), &at)
        };
        let at = (tp, record.offset());
        self.world.note(|| format!("{:?} delivers {at:?} after {} attempts", self.process.life, envelope.attempts));
        let now = self.world.clock.now().timestamp();
        self.world.cluster.borrow_mut().check.delivered(at, now);
        self.in_flight.push(InFlight { id, at, envelope, content: Content::of(record) });
        Ok(())
    }

    fn rebalance(&mut self, change: Rebalance) -> Result<(), WorkError> {
        match change {
            Rebalance::Assigned(partitions) => self.committer.take_over(partitions, None, |_, _| ()),
            Rebalance::Revoked { partitions, lost } => {
                let released = if lost { Released::lost(partitions) } else { self.drain(partitions)? };
                self.committer.give_back(released)
            }
        }
    }

    /// Waits for deliveries in flight, sometimes not long enough, and commits.
    fn drain(&mut self, partitions: Vec<TopicPartition>) -> Result<Released, WorkError> {
        let draining = self.committer.drain(partitions);
        let rounds = self.world.chance.borrow_mut().below(5);
        self.wait_for(&draining, rounds)?;
        self.committer.settle_now(draining)
    }

    fn wait_for(&mut self, draining: &Draining, rounds: u64) -> Result<(), WorkError> {
        for _ in 0..rounds {
            self.committer.run_hops()?;
            let open = self.in_flight.iter().any(|record| draining.is_of(record.id));
            if (!open && !self.committer.is_moving(draining)) || self.committer.source.assignment_lost() {
                break;
            }
            self.world.advance(50);
            self.hear();
            self.committer.commit(false, MOST_IN_FLIGHT)?;
        }
        Ok(())
    }

    /// The same for all partitions, before the process ends: a rebalance is waited for too, sometimes not long enough.
    fn end(&mut self) -> Result<Released, WorkError> {
        let mut draining = self.committer.drain(self.committer.owned());
        let rounds = self.world.chance.borrow_mut().below(5);
        self.wait_for(&draining, rounds)?;
        for _ in 0..rounds {
            match self.committer.settle_at_the_end(draining)? {
                Ok(released) => return Ok(released),
                Err(unsettled) => draining = unsettled,
            }
            self.world.advance(50);
        }
        self.committer.settle_now(draining)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    #[test]
    fn at_the_end_nothing_is_settled_that_a_rebalance_keeps_from_being_committed() {
        for hops in [Hops::ExactlyOnce, Hops::AtLeastOnce] {
            let world = World::calm(1, hops);
            let life = (0, 1);
            let process = Rc::new(Process { life, positions: RefCell::default(), dead: Cell::new(false) });
            world.cluster.borrow_mut().group(life).started(life, world.clock.now());
            let mut deliverer = Deliverer::start(&world, process).unwrap();
            let draining = loop {
                deliverer.step().unwrap();
                deliverer.hear();
                let draining = deliverer.committer.drain(deliverer.committer.owned());
                if !deliverer.committer.is_settled(&draining) {
                    break draining;
                }
                world.advance(50);
            };
            let is_settled_in = |deliverer: &mut Deliverer, draining, generation| {
                world.cluster.borrow_mut().group(life).member(life).generation = generation;
                deliverer.committer.settle_at_the_end(draining).unwrap()
            };
            let current = world.cluster.borrow_mut().group(life).generation;
            let draining = is_settled_in(&mut deliverer, draining, None).err().expect("it has no generation");
            let draining = is_settled_in(&mut deliverer, draining, Some(current - 1)).err().expect("its commit is refused");
            assert!(!deliverer.committer.is_settled(&draining));
            assert!(is_settled_in(&mut deliverer, draining, Some(current)).is_ok());
        }
    }
}

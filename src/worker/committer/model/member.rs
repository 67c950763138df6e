//! A worker of the model: drives the real committer as the deliverer does.

use std::rc::Rc;
use std::time::Duration;

use crate::core::envelope::{Coordinates, Envelope};
use crate::core::ladder::Hops;
use crate::kafka::consumer::{Rebalance, TopicPartition};
use crate::kafka::error::ClientError;
use crate::kafka::producer::TopicId;
use crate::worker::committer::model::check::At;
use crate::worker::committer::model::cluster::{REDELIVER, TIERS};
use crate::worker::committer::model::sink::ModelSink;
use crate::worker::committer::model::source::ModelSource;
use crate::worker::committer::model::world::{Fault, Process, World};
use crate::worker::committer::{Committer, Content, Parts, Polled, RecordId, Start, Starts, Targets, Work};
use crate::worker::error::WorkError;
use crate::worker::ports::{HopSink, RecordSource, SourceRecord};

/// How many deliveries are open at most.
const MOST_IN_FLIGHT: usize = 6;

struct Modelled;

impl Work for Modelled {
    type Source = ModelSource;
    type Sink = ModelSink;
    type Lane = ();
    type Place = ();
}

/// A delivery that is not over.
struct InFlight {
    id: RecordId,
    at: At,
    envelope: Envelope,
    content: Content,
}

/// A worker.
pub(super) struct Member {
    world: Rc<World>,
    process: Rc<Process>,
    committer: Committer<Modelled>,
    in_flight: Vec<InFlight>,
}

impl Member {
    pub(super) fn start(world: &Rc<World>, process: Rc<Process>) -> Result<Self, WorkError> {
        let ladder = world.ladder.clone();
        let source = ModelSource { world: world.clone(), process: process.clone() };
        let mut sink = ModelSink::new(world.clone(), process.clone(), ladder.hops() == Hops::ExactlyOnce);
        // As a deliverer does before it joins: looking its topics up ends what a predecessor left open.
        sink.connect()?;
        let counted = |topic| (TopicId::numbered(topic), world.partitions);
        let dlq = world.cluster.borrow().dlq();
        let targets =
            Targets { tiers: (TIERS..dlq).map(counted).collect(), dlqs: vec![counted(dlq)], state: TopicId::numbered(dlq) };
        let committer = Committer::new(Parts {
            ladder,
            role: "deliverer",
            clock: world.clock.clone(),
            source,
            sink,
            targets,
            metrics: world.metrics.worker.clone(),
            hop_metrics: world.metrics.hops.clone(),
            starts: Starts::default(),
            dlq_breaker: None,
        });
        Ok(Self { world: world.clone(), process, committer, in_flight: Vec::new() })
    }

    /// Once round the deliverer's loop.
    pub(super) fn step(&mut self) -> Result<(), WorkError> {
        if self.world.strikes(Fault::StandStill) {
            self.world.stand_still(&self.process);
        }
        if self.world.strikes(Fault::Stop) {
            let owned = self.committer.owned();
            self.drain(&owned)?;
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
        self.alive()
    }

    /// What a crashed process would do next, it does not.
    fn alive(&self) -> Result<(), WorkError> {
        if self.process.dead.get() { Err(ClientError::fatal().into()) } else { Ok(()) }
    }

    /// Some deliveries are over, in any order.
    fn hear(&mut self) {
        let mut over = self.world.chance.borrow_mut().index(self.in_flight.len() + 1);
        while over > 0 && !self.process.dead.get() {
            over -= 1;
            let index = self.world.chance.borrow_mut().index(self.in_flight.len());
            let InFlight { id, at, envelope, content } = self.in_flight.swap_remove(index);
            let now = self.world.clock.now().timestamp();
            let verdict = self.world.cluster.borrow_mut().check.verdict(at, now);
            self.world
                .note(|| format!("{:?} hears of {at:?}: {}", self.process.life, if verdict.is_ok() { "done" } else { "failed" }));
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
            // Members crash so often here that any record would be buried.
            let start = self.committer.count_start(id)?;
            debug_assert_ne!(start, Start::Gone);
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
                if !lost {
                    self.drain(&partitions)?;
                }
                self.committer.give_back(&partitions)
            }
        }
    }

    /// Waits for what is in flight, sometimes for not long enough, and commits.
    fn drain(&mut self, partitions: &[TopicPartition]) -> Result<(), WorkError> {
        let tokens = self.committer.tokens_of(partitions);
        let rounds = self.world.chance.borrow_mut().below(5);
        for _ in 0..rounds {
            self.committer.run_hops()?;
            let open = self.in_flight.iter().any(|record| tokens.contains(&record.id.token));
            if (!open && !self.committer.is_moving(&tokens)) || self.committer.source.assignment_lost() {
                break;
            }
            self.world.advance(50);
            self.hear();
            self.committer.commit(false, MOST_IN_FLIGHT)?;
        }
        self.committer.end_in_good_order(&tokens);
        self.committer.commit(true, MOST_IN_FLIGHT)
    }
}

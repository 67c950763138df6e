//! Rebalances: partitions are assigned, drained and released ([`Draining`] and [`Released`] enforce the order).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::core::dispatch::Kind;
use crate::core::leader_clock::LocalTime;
use crate::kafka::consumer::Rebalance;
use crate::kafka::partition::TopicPartition;
use crate::worker::committer::{Draining, Released};
use crate::worker::deliverer::{Deliverer, Intake};
use crate::worker::error::WorkError;
use crate::worker::handler::Handler;
use crate::worker::hop::content::RecordId;

/// Partitions being revoked: their deliveries in flight are waited for until the deadline. All others continue meanwhile.
pub(super) struct Handover {
    draining: Draining,
    deadline: LocalTime,
}

impl Handover {
    /// Whether a record belongs to one of them.
    pub(super) fn is_of(&self, id: RecordId) -> bool {
        self.draining.is_of(id)
    }
}

impl<H: Handler> Deliverer<H> {
    /// Starts assigned partitions, or begins to release revoked ones.
    pub(super) fn rebalance(&mut self, change: Rebalance) -> Result<(), WorkError> {
        self.metrics.worker.rebalanced();
        match change {
            Rebalance::Assigned(partitions) => {
                self.take_over(partitions)?;
                self.tell_owned();
            }
            Rebalance::Revoked { partitions, lost: true } => {
                tracing::warn!(
                    ladder = self.ladder.name(),
                    "partitions were lost: their next owner repeats the deliveries in flight"
                );
                self.give_back(Released::lost(partitions))?;
            }
            Rebalance::Revoked { partitions, lost: false } => {
                self.hand_over(partitions);
                self.release_drained()?;
            }
        }
        Ok(())
    }

    fn tell_owned(&self) {
        tracing::info!(ladder = self.ladder.name(), partitions = self.committer.lanes.len(), "partitions assigned");
    }

    fn take_over(&mut self, partitions: Vec<TopicPartition>) -> Result<(), WorkError> {
        let flags: Vec<Arc<AtomicBool>> = partitions.iter().map(|_| Arc::new(AtomicBool::new(true))).collect();
        let waking = std::cell::RefCell::new(flags.clone().into_iter());
        let wake = || -> Box<dyn Fn() + Send + Sync> {
            let waker = self.waker.clone();
            let ready = waking.borrow_mut().next().unwrap_or_default();
            Box::new(move || {
                ready.store(true, Ordering::Release);
                waker.wake();
            })
        };
        let redeliver = self.ladder.redeliver_topic();
        let mut flags = flags.into_iter();
        self.committer.take_over(partitions, Some(&wake), |tp, token| {
            let kind = if *tp.topic == *redeliver { Kind::Redeliver } else { Kind::Source };
            self.places.open_lane(token, kind);
            Intake { kind, token, places: self.places.clone(), ready: flags.next().unwrap_or_default() }
        })
    }

    /// No record of these partitions begins any more.
    pub(super) fn hand_over(&mut self, partitions: Vec<TopicPartition>) {
        let draining = self.committer.drain(partitions);
        for token in draining.tokens() {
            self.places.close_lane(*token);
        }
        self.handover = Some(Handover { draining, deadline: self.clock.now().later(self.drain) });
    }

    /// Releases partitions once they are drained.
    pub(super) fn release_drained(&mut self) -> Result<(), WorkError> {
        let Some(released) = self.take_drained(false)? else { return Ok(()) };
        self.give_back(released)?;
        self.leave_when_drained();
        Ok(())
    }

    /// Partitions ready for release: no delivery or hop of them is in flight and all outcomes are committed, or the deadline has passed. At the
    /// end of the worker, a rebalance that prevents the commit is waited for.
    fn take_drained(&mut self, is_end: bool) -> Result<Option<Released>, WorkError> {
        if !self.handover.as_ref().is_some_and(|handover| self.is_drained(handover)) {
            return Ok(None);
        }
        let Some(Handover { draining, deadline }) = self.handover.take() else { return Ok(None) };
        // A member that releases partitions gets the response to a commit soon.
        let may_wait = self.clock.now() < deadline && !self.committer.source.assignment_lost();
        if !may_wait {
            return Ok(Some(self.committer.settle_now(draining)?));
        }
        let settled = if is_end { self.committer.settle_at_the_end(draining) } else { self.committer.settle(draining) };
        Ok(match settled? {
            Ok(released) => Some(released),
            Err(draining) => {
                self.handover = Some(Handover { draining, deadline });
                None
            }
        })
    }

    fn is_drained(&self, Handover { draining, deadline }: &Handover) -> bool {
        if self.clock.now() >= *deadline || self.committer.source.assignment_lost() {
            return true;
        }
        let in_flight = self.in_flight.keys().filter(|id| draining.is_of(**id)).count();
        !self.committer.is_moving(draining) && (in_flight == 0 || self.starves_beside(draining.tokens(), in_flight))
    }

    /// Whether other partitions remain and all deliveries waited for hang. As long as partitions are to be released, librdkafka fetches
    /// nothing for the others either (`rd_kafka_rebalance_op_incr` pauses the whole assignment), so hanging deliveries are left to their
    /// next owner.
    fn starves_beside(&self, tokens: &[u64], in_flight: usize) -> bool {
        let mut lanes = self.committer.lanes.iter();
        lanes.any(|lane| !tokens.contains(&lane.token) && lane.own.kind == Kind::Source)
            && self.places.all_hang(tokens) == Some(in_flight)
    }

    /// Deliveries still in flight keep their slots until their handlers answer.
    fn give_back(&mut self, released: Released) -> Result<(), WorkError> {
        self.committer.give_back(released)?;
        self.tell_owned();
        Ok(())
    }

    /// Drains all partitions, and commits. They stay assigned until the client is closed.
    pub(super) fn end(&mut self) -> Result<(), WorkError> {
        let deadline = self.handover.take().map(|handover| handover.deadline);
        self.hand_over(self.committer.owned());
        if let (Some(handover), Some(deadline)) = (&mut self.handover, deadline) {
            handover.deadline = handover.deadline.min(deadline);
        }
        while self.handover.is_some() && self.take_drained(true)?.is_none() {
            self.turn()?;
        }
        Ok(())
    }
}

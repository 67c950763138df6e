//! Gains and losses of partitions, and the end: what is judged is written before it is given back.

use crate::core::leader_clock::LocalTime;
use crate::kafka::consumer::Rebalance;
use crate::kafka::partition::TopicPartition;
use crate::worker::committer::{Draining, Released};
use crate::worker::error::WorkError;
use crate::worker::router::{IDLE, Router};

impl Router {
    pub(super) fn rebalance(&mut self, change: Rebalance) -> Result<(), WorkError> {
        self.metrics.worker.rebalanced();
        match change {
            Rebalance::Assigned(partitions) => self.committer.take_over(partitions, None, |_, _| ())?,
            Rebalance::Revoked { partitions, lost } => {
                let released = if lost { Released::lost(partitions) } else { self.drain(partitions)? };
                self.committer.give_back(released)?;
                let owned = &self.committer;
                self.missing.forget(|token| owned.lane_of(token).is_some());
                for waiting in [&mut self.bare, &mut self.waiting] {
                    waiting.retain(|taken| owned.lane_of(taken.id.token).is_some());
                }
            }
        }
        tracing::info!(ladder = self.ladder.name(), partitions = self.committer.lanes.len(), "partitions assigned");
        Ok(())
    }

    /// Writes the judged records of these partitions, until the deadline at most, and commits.
    fn drain(&mut self, partitions: Vec<TopicPartition>) -> Result<Released, WorkError> {
        let draining = self.committer.drain(partitions);
        self.write_judged(&draining, self.clock.now().later(self.drain))?;
        self.committer.settle_now(draining)
    }

    fn write_judged(&mut self, draining: &Draining, deadline: LocalTime) -> Result<(), WorkError> {
        loop {
            self.committer.run_hops()?;
            if self.is_over(deadline) || !self.committer.is_moving(draining) {
                return Ok(());
            }
            std::thread::sleep(IDLE);
        }
    }

    fn is_over(&self, deadline: LocalTime) -> bool {
        self.clock.now() >= deadline || self.committer.source.assignment_lost()
    }

    /// Drains all partitions. A rebalance that prevents the commit is waited for, until the deadline at most.
    pub(super) fn end(&mut self) -> Result<(), WorkError> {
        let deadline = self.clock.now().later(self.drain);
        let mut draining = self.committer.drain(self.committer.owned());
        self.write_judged(&draining, deadline)?;
        while !self.is_over(deadline) {
            match self.committer.settle_at_the_end(draining)? {
                Ok(_) => return Ok(()),
                Err(unsettled) => draining = unsettled,
            }
            std::thread::sleep(IDLE);
        }
        self.committer.settle_now(draining).map(drop)
    }
}

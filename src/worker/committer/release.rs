//! How partitions leave a worker: they are assigned, then draining, then released. Each step is a type that only the step before returns,
//! so that no partition is released before its records are drained and committed, except those that the group has already revoked.

use crate::kafka::partition::TopicPartition;
use crate::worker::committer::batch::points_with;
use crate::worker::committer::{Committer, Work};
use crate::worker::error::WorkError;
use crate::worker::hop::content::RecordId;
use crate::worker::hop::ports::RecordSource;

/// Partitions being revoked: no record of them may begin any more. They stay assigned until they are released.
pub(in crate::worker) struct Draining {
    partitions: Vec<TopicPartition>,
    tokens: Vec<u64>,
}

impl Draining {
    /// The tokens of the partitions' assignments.
    pub(in crate::worker) fn tokens(&self) -> &[u64] {
        &self.tokens
    }

    /// Whether a record belongs to one of the partitions.
    pub(in crate::worker) fn is_of(&self, id: RecordId) -> bool {
        self.tokens.contains(&id.token)
    }
}

/// Partitions ready for release.
pub(in crate::worker) struct Released(Vec<TopicPartition>);

impl Released {
    /// Partitions that the group has assigned to another member: nothing can be committed for them any more.
    pub(in crate::worker) fn lost(partitions: Vec<TopicPartition>) -> Self {
        Self(partitions)
    }
}

impl<W: Work> Committer<W> {
    /// Partitions that the worker must or wants to release.
    pub(in crate::worker) fn drain(&self, partitions: Vec<TopicPartition>) -> Draining {
        let tokens = self.tokens_of(&partitions);
        Draining { partitions, tokens }
    }

    /// Whether partitions still have queued hops that can be written; stopped ones are left to their next owner.
    pub(in crate::worker) fn is_moving(&self, draining: &Draining) -> bool {
        self.hops.iter().any(|hop| draining.is_of(hop.id) && !self.is_stopped(hop))
    }

    /// Commits the outcomes of their records. `Err` while a commit of them is on its way: it prevents the next one, and uncommitted
    /// records are processed again by the next owner.
    pub(in crate::worker) fn settle(&mut self, draining: Draining) -> Result<Result<Released, Draining>, WorkError> {
        self.commit_drained(&draining)?;
        let is_on_its_way = draining.partitions.iter().any(|tp| self.engine.cluster.is_in_doubt(tp));
        Ok(if is_on_its_way { Err(draining) } else { Ok(Released(draining.partitions)) })
    }

    /// The same at the end of the worker: also `Err` while an outcome is not committed. During a rebalance a member has no generation for a
    /// while, or its commit is refused. Nobody waits for these partitions, unlike for revoked ones, so it can be repeated until the deadline.
    pub(in crate::worker) fn settle_at_the_end(&mut self, draining: Draining) -> Result<Result<Released, Draining>, WorkError> {
        self.commit_drained(&draining)?;
        Ok(if self.is_settled(&draining) { Ok(Released(draining.partitions)) } else { Err(draining) })
    }

    /// Whether all outcomes of partitions are committed, and no commit of them is on its way.
    pub(in crate::worker) fn is_settled(&self, draining: &Draining) -> bool {
        let uncommitted = points_with(&self.lanes, std::iter::empty());
        let is_left = |tp: &TopicPartition| self.engine.cluster.is_in_doubt(tp) || uncommitted.iter().any(|(left, _)| left == tp);
        !draining.partitions.iter().any(is_left)
    }

    /// The same for a worker that does not wait for the response to a commit, or no longer.
    pub(in crate::worker) fn settle_now(&mut self, draining: Draining) -> Result<Released, WorkError> {
        self.commit_drained(&draining)?;
        Ok(Released(draining.partitions))
    }

    fn commit_drained(&mut self, draining: &Draining) -> Result<(), WorkError> {
        self.end_in_good_order(&draining.tokens);
        self.commit(true, 0)
    }

    /// Releases partitions. The rest of their records is left to their next owner.
    pub(in crate::worker) fn give_back(&mut self, Released(partitions): Released) -> Result<(), WorkError> {
        let gone = self.tokens_of(&partitions);
        self.lanes.retain(|lane| !gone.contains(&lane.token));
        self.hops.retain(|hop| !gone.contains(&hop.id.token));
        self.engine.forget(&partitions, |token| !gone.contains(&token));
        // Those of other partitions count as settled: a drain has committed them, or the next commit will.
        self.unsettled.clear();
        self.source.release(&partitions)?;
        Ok(())
    }

    /// The tokens of these partitions' assignments.
    fn tokens_of(&self, partitions: &[TopicPartition]) -> Vec<u64> {
        self.lanes.iter().filter(|lane| partitions.contains(lane.tp())).map(|lane| lane.token).collect()
    }
}

//! Commits, plain ones and the membership under which a transaction sends offsets.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{CommitMode, Consumer, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::{CALL_TIMEOUT, GroupConsumer, lock};
use crate::core::ack_tracker::CommitPoint;
use crate::core::leader_clock::LocalTime;
use crate::kafka::clock::Clock;
use crate::kafka::error::ClientError;
use crate::kafka::ffi::{self, CommitOnItsWay};
use crate::kafka::partition::TopicPartition;

/// Minimum wait for a commit that the group may delay. Otherwise it is answered within milliseconds.
const LEAST_PATIENCE: Duration = Duration::from_millis(250);

/// A live membership, which is needed to send offsets.
#[derive(Default)]
pub struct LiveGroup(Vec<(Option<Arc<str>>, ConsumerGroupMetadata)>);

impl LiveGroup {
    /// Adds that of another member, for this topic.
    pub(crate) fn add(&mut self, topic: &Arc<str>, member: Self) {
        self.0.extend(member.0.into_iter().map(|(_, metadata)| (Some(topic.clone()), metadata)));
    }

    /// Divides points among the members by topic; those without a member are left out.
    pub(crate) fn divide<'a>(
        &'a self,
        points: &[(TopicPartition, CommitPoint)],
    ) -> Vec<(&'a ConsumerGroupMetadata, Vec<(TopicPartition, CommitPoint)>)> {
        let own = |topic: &Option<Arc<str>>| {
            points.iter().filter(|(tp, _)| topic.as_ref().is_none_or(|topic| *topic == tp.topic)).cloned().collect()
        };
        let divided = self.0.iter().map(|(topic, metadata)| (metadata, own(topic)));
        divided.filter(|(_, points): &(_, Vec<_>)| !points.is_empty()).collect()
    }
}

/// A commit that was not answered in time.
pub(super) struct UnansweredCommit {
    commit: Option<(CommitOnItsWay, LocalTime)>,
    clock: Clock,
    /// How long the next one is waited for.
    patience: Duration,
}

impl UnansweredCommit {
    pub(super) fn new(clock: Clock) -> Self {
        Self { commit: None, clock, patience: LEAST_PATIENCE }
    }

    /// Checks whether it is answered now. A coordinator that is merely slow gets the time that it needs from then on.
    fn is_on_its_way(&mut self) -> bool {
        let answer = self.commit.as_ref().and_then(|(commit, since)| Some((commit.answer(Duration::ZERO)?, *since)));
        if let Some((answer, since)) = answer {
            self.commit = None;
            self.learn(answer.is_ok(), since);
        }
        self.commit.is_some()
    }

    fn learn(&mut self, is_committed: bool, since: LocalTime) {
        if is_committed {
            self.patience = (self.clock.now().since(since) * 2).clamp(LEAST_PATIENCE, CALL_TIMEOUT);
        }
    }
}

impl GroupConsumer {
    /// Commits and waits for the answer. Must never be called while a transaction is open that contains offsets of this group:
    /// mixed, they move offsets back.
    ///
    /// # Errors
    /// The broker refuses or does not answer. [`ClientError::is_group_change`] indicates a rebalance.
    pub fn commit(&self, points: &[(TopicPartition, CommitPoint)]) -> Result<(), ClientError> {
        let doing = || format!("committing offsets of group {}", self.group);
        let list = points_list(points).map_err(|e| ClientError::new(doing(), &e))?;
        self.inner.commit(&list, CommitMode::Sync).map_err(|e| self.error(doing(), &e))
    }

    /// Commits like [`GroupConsumer::commit`], but waits only as long as an answer usually takes. A commit without an answer in time
    /// is still on its way, and may yet arrive; until it has, no other one is sent.
    ///
    /// # Errors
    /// As there, and if it was not answered in time ([`ClientError::is_outage`]).
    pub fn commit_in_time(&self, points: &[(TopicPartition, CommitPoint)]) -> Result<(), ClientError> {
        let doing = || format!("committing offsets of group {}", self.group);
        let mut late = lock(&self.late);
        if late.is_on_its_way() {
            return Err(ClientError::code(doing(), RDKafkaErrorCode::OperationTimedOut));
        }
        let list = points_list(points).map_err(|e| ClientError::new(doing(), &e))?;
        let refused = |code| self.error(doing(), &KafkaError::ConsumerCommit(code));
        let since = late.clock.now();
        let commit = CommitOnItsWay::send(self.inner.client().native_ptr(), self.inner.clone(), &list).map_err(refused)?;
        let Some(answer) = commit.answer(late.patience) else {
            late.commit = Some((commit, since));
            return Err(ClientError::code(doing(), RDKafkaErrorCode::OperationTimedOut));
        };
        late.learn(answer.is_ok(), since);
        answer.map_err(refused)
    }

    /// The membership, if it is live: the broker does not fence offsets that are sent without a generation.
    #[must_use]
    pub fn live_group(&self) -> Option<LiveGroup> {
        if self.inner.assignment_lost() {
            return None;
        }
        let generation = || ffi::generation(self.inner.client().native_ptr());
        let metadata = of_one_generation(generation, || self.inner.group_metadata())?;
        Some(LiveGroup(vec![(None, metadata)]))
    }
}

/// Takes a value that belongs to a generation: `None` if there is no generation, or it has changed meanwhile. It may have ended in between,
/// and without a generation the broker fences nothing. An ended generation never comes back.
fn of_one_generation<T>(generation: impl Fn() -> i32, take: impl FnOnce() -> Option<T>) -> Option<T> {
    let before = generation();
    if before < 0 {
        return None;
    }
    take().filter(|_| generation() == before)
}

pub(crate) fn points_list(points: &[(TopicPartition, CommitPoint)]) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::with_capacity(points.len());
    for (tp, point) in points {
        let mut element = list.add_partition(&tp.topic, tp.partition);
        element.set_offset(Offset::Offset(point.offset))?;
        element.set_metadata(&point.metadata);
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn what_is_taken_while_the_generation_ends_is_not_used() {
        let generation = Cell::new(4);
        let taken = |then: i32| of_one_generation(|| generation.get(), || Some(generation.replace(then)));
        assert_eq!(taken(4), Some(4));
        assert_eq!(taken(-1), None, "it has ended");
        assert_eq!(taken(5), None, "there was none when it was asked for");
        generation.set(5);
        assert_eq!(taken(6), None, "another one has begun");
        assert_eq!(taken(6), Some(6));
    }
}

//! One group member for each topic that a worker consumes.
//!
//! An assignor distributes all partitions of a member's subscription evenly, not those of each topic: with one member for several
//! topics, the partitions of a source may all be assigned to one worker, and those of another topic to another one (as
//! `cooperative-sticky` does in librdkafka). With one member per topic, the workers share each topic separately.
//!
//! Offsets are committed by the member that owns the partition; otherwise the broker could not reject a worker that has
//! lost it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::config::KafkaConfig;
use crate::core::ack_tracker::CommitPoint;
use crate::core::topics;
use crate::kafka::consumer::{Committed, GroupConsumer, LiveGroup, Membership, OwnName, PartitionQueue, Rebalance};
use crate::kafka::error::ClientError;
use crate::kafka::partition::TopicPartition;
use crate::telemetry::standing::ClientMetrics;

/// A worker's members of its group; none while it has left.
pub struct TopicConsumers {
    kafka: KafkaConfig,
    membership: Membership,
    metrics: ClientMetrics,
    members: Vec<Member>,
    names: OwnNames,
}

struct Member {
    topic: Arc<str>,
    consumer: GroupConsumer,
    /// Number of partitions that were started and not released yet.
    owned: AtomicUsize,
    /// Whether the group has assigned partitions for the first time.
    has_joined: AtomicBool,
}

/// A worker's member names in its group, to check whether they are still its own.
#[derive(Clone, Default)]
pub struct OwnNames(Arc<Mutex<Vec<OwnName>>>);

impl OwnNames {
    /// Checks whether other members have these names now, of those that are not joining again. Without an answer, there is no rival.
    ///
    /// # Errors
    /// There is a rival; see [`ClientError::is_rival`].
    pub fn look_for_rival(&self) -> Result<(), ClientError> {
        let names = self.lock().clone();
        names.iter().filter(|name| !name.is_joining_again()).try_for_each(OwnName::look_for_rival)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<OwnName>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<OwnName> for OwnNames {
    fn from(name: OwnName) -> Self {
        Self(Arc::new(Mutex::new(vec![name])))
    }
}

impl TopicConsumers {
    /// Joins for each topic. Each member's name is derived from that of the membership and from its topic.
    ///
    /// # Errors
    /// See [`GroupConsumer::join`].
    pub fn join(kafka: &KafkaConfig, membership: &Membership, metrics: &ClientMetrics) -> Result<Self, ClientError> {
        let mut consumers = Self {
            kafka: kafka.clone(),
            membership: membership.clone(),
            metrics: metrics.clone(),
            members: Vec::new(),
            names: OwnNames::default(),
        };
        consumers.join_again()?;
        Ok(consumers)
    }

    /// Joins if it has left; otherwise does nothing.
    ///
    /// # Errors
    /// See [`GroupConsumer::join`].
    pub fn join_again(&mut self) -> Result<(), ClientError> {
        if !self.members.is_empty() {
            return Ok(());
        }
        for topic in &self.membership.topics {
            let membership = Membership {
                instance: topics::member_name(&self.membership.instance, topic),
                topics: vec![topic.clone()],
                ..self.membership.clone()
            };
            let consumer = GroupConsumer::join(&self.kafka, &membership, &self.metrics)?;
            self.names.lock().push(consumer.name());
            self.members.push(Member {
                topic: topic.as_str().into(),
                consumer,
                owned: AtomicUsize::new(0),
                has_joined: AtomicBool::new(false),
            });
        }
        Ok(())
    }

    /// Leaves the group. All partitions must be released before. They are assigned to others when the session has expired, since the
    /// members are static (KIP-345).
    pub fn leave(&mut self) {
        self.members.clear();
        self.names.lock().clear();
    }

    /// The names of its members.
    #[must_use]
    pub fn names(&self) -> OwnNames {
        self.names.clone()
    }

    fn of(&self, topic: &str) -> Result<&Member, ClientError> {
        let missing =
            || ClientError::text(format!("consuming {topic}"), "this worker has no member for it in its group".to_owned());
        self.members.iter().find(|member| *member.topic == *topic).ok_or_else(missing)
    }

    /// The members of these partitions, each with its own ones.
    fn by_member<'a>(&'a self, partitions: &'a [TopicPartition]) -> impl Iterator<Item = (&'a Member, Vec<TopicPartition>)> + 'a {
        let own = |member: &Member| partitions.iter().filter(|tp| tp.topic == member.topic).cloned().collect::<Vec<_>>();
        self.members.iter().map(move |member| (member, own(member))).filter(|(_, own)| !own.is_empty())
    }

    /// See [`GroupConsumer::serve`]; returns the event of one member. An empty change is answered here, since the caller could not tell
    /// which member it belongs to; without an answer, that member would take no further part in the group.
    ///
    /// # Errors
    /// As there.
    pub fn serve(&self, timeout: Duration) -> Result<Option<Rebalance>, ClientError> {
        for (index, member) in self.members.iter().enumerate() {
            let timeout = if index + 1 == self.members.len() { timeout } else { Duration::ZERO };
            let Some(change) = member.consumer.serve(timeout)? else { continue };
            member.has_joined.store(true, Ordering::Relaxed);
            match &change {
                Rebalance::Assigned(partitions) if partitions.is_empty() => drop(member.consumer.start(&[], None)?),
                Rebalance::Revoked { partitions, .. } if partitions.is_empty() => member.consumer.release(&[])?,
                _ => {}
            }
            return Ok(Some(change));
        }
        Ok(None)
    }

    /// See [`GroupConsumer::committed`].
    ///
    /// # Errors
    /// As there.
    pub fn committed(&self, partitions: &[TopicPartition]) -> Result<Vec<Option<Committed>>, ClientError> {
        let mut answers = HashMap::new();
        for (member, own) in self.by_member(partitions) {
            let answer = member.consumer.committed(&own)?;
            answers.extend(own.into_iter().zip(answer));
        }
        Ok(partitions.iter().map(|tp| answers.remove(tp).flatten()).collect())
    }

    /// See [`GroupConsumer::bounds`].
    ///
    /// # Errors
    /// As there.
    pub fn bounds(&self, tp: &TopicPartition) -> Result<(i64, i64), ClientError> {
        self.of(&tp.topic)?.consumer.bounds(tp)
    }

    /// See [`GroupConsumer::known_end`].
    #[must_use]
    pub fn known_end(&self, tp: &TopicPartition) -> Option<i64> {
        self.of(&tp.topic).ok()?.consumer.known_end(tp)
    }

    /// See [`GroupConsumer::ends`].
    ///
    /// # Errors
    /// As there.
    pub fn ends(&self, partitions: &[TopicPartition], within: Duration) -> Result<Vec<(TopicPartition, i64)>, ClientError> {
        let mut ends = Vec::with_capacity(partitions.len());
        for (member, own) in self.by_member(partitions) {
            ends.extend(member.consumer.ends(&own, within)?);
        }
        Ok(ends)
    }

    /// See [`GroupConsumer::start`]; the partitions belong to one member.
    ///
    /// # Errors
    /// As there.
    pub fn start(
        &self,
        assigned: &[(TopicPartition, i64)],
        wake: Option<&(dyn Fn() -> Box<dyn Fn() + Send + Sync> + '_)>,
    ) -> Result<Vec<PartitionQueue>, ClientError> {
        let Some((first, _)) = assigned.first() else { return Ok(Vec::new()) };
        let member = self.of(&first.topic)?;
        let queues = member.consumer.start(assigned, wake)?;
        member.owned.fetch_add(assigned.len(), Ordering::Relaxed);
        Ok(queues)
    }

    /// See [`GroupConsumer::release`].
    ///
    /// # Errors
    /// As there.
    pub fn release(&self, partitions: &[TopicPartition]) -> Result<(), ClientError> {
        for (member, own) in self.by_member(partitions) {
            member.consumer.release(&own)?;
            let owned = member.owned.load(Ordering::Relaxed).saturating_sub(own.len());
            member.owned.store(owned, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Commits points of one member, and waits only as long as an answer usually takes: a commit delayed by a rejoining member may wait
    /// for another member of this worker, which must be served meanwhile. See [`GroupConsumer::commit_in_time`].
    ///
    /// # Errors
    /// As there.
    pub fn commit(&self, points: &[(TopicPartition, CommitPoint)]) -> Result<(), ClientError> {
        let Some((first, _)) = points.first() else { return Ok(()) };
        self.of(&first.topic)?.consumer.commit_in_time(points)
    }

    /// The memberships, if all that own partitions are live.
    #[must_use]
    pub fn live_group(&self) -> Option<LiveGroup> {
        let mut live = LiveGroup::default();
        for member in self.members.iter().filter(|member| member.owned.load(Ordering::Relaxed) > 0) {
            live.add(&member.topic, member.consumer.live_group()?);
        }
        (!self.members.is_empty()).then_some(live)
    }

    /// Whether the group has assigned partitions to each member.
    #[must_use]
    pub fn have_joined(&self) -> bool {
        self.members.iter().all(|member| member.has_joined.load(Ordering::Relaxed))
    }

    /// See [`GroupConsumer::assignment_lost`]; for any member.
    #[must_use]
    pub fn assignment_lost(&self) -> bool {
        self.members.iter().any(|member| member.consumer.assignment_lost())
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.membership.group
    }
}

//! The clients of a worker, which mover, deliverer and router start in the same way: a producer for its hops, and its membership of a group.
//!
//! The producer comes first: it looks up what the worker writes to and consumes, so that a worker without all of it does not join. Once it
//! has joined, the producer is made anew only as long as no rival has its name.

use crate::config::KafkaConfig;
use crate::core::ladder::{Hops, Ladder};
use crate::core::role::Role;
use crate::core::topics;
use crate::kafka::clock::Clock;
use crate::kafka::consumer::{Fetch, Membership};
use crate::kafka::error::ClientError;
use crate::kafka::producer::{HopProducer, LARGEST_BATCH};
use crate::kafka::topic_consumers::OwnNames;
use crate::telemetry::standing::ClientMetrics;

/// The clients of one worker.
pub(super) struct Clients<'a> {
    kafka: &'a KafkaConfig,
    instance: &'a str,
    metrics: ClientMetrics,
    pub(super) clock: Clock,
    pub(super) producer: HopProducer,
}

/// What a worker consumes.
pub(super) struct Subscription {
    pub(super) group: String,
    /// The topics with their partition counts.
    pub(super) topics: Vec<(String, i32)>,
    /// Prefetch budget over all partitions.
    pub(super) prefetch_kib: usize,
    pub(super) fetch: Fetch,
}

impl Subscription {
    /// Number of partitions of all its topics.
    pub(super) fn partitions(&self) -> i32 {
        self.topics.iter().map(|(_, partitions)| partitions).sum()
    }
}

impl<'a> Clients<'a> {
    /// With a producer, which connects at its first use.
    pub(super) fn new(ladder: &Ladder, role: Role, kafka: &'a KafkaConfig, instance: &'a str) -> Self {
        let clock = Clock::system();
        let metrics = ClientMetrics::new(ladder, role);
        let is_transactional = ladder.hops() == Hops::ExactlyOnce;
        let transactional_id = is_transactional.then(|| topics::transactional_id(ladder.name(), role, instance));
        let producer = HopProducer::new(kafka, transactional_id, LARGEST_BATCH, clock.clone());
        let producer = producer.measured_by(&metrics).with_spare_ids();
        Self { kafka, instance, metrics, clock, producer }
    }

    /// These topics with their partition counts.
    ///
    /// # Errors
    /// A topic is missing or Kafka is not reachable.
    pub(super) fn counted(&mut self, topics: Vec<String>) -> Result<Vec<(String, i32)>, ClientError> {
        let count = |topic: String| self.producer.partition_count(&topic).map(|partitions| (topic, partitions));
        topics.into_iter().map(count).collect()
    }

    /// Joins a group by `join`; `names` are the names of its members.
    ///
    /// # Errors
    /// See [`GroupConsumer::join`](crate::kafka::consumer::GroupConsumer::join).
    pub(super) fn join<C, N: Into<OwnNames>>(
        &mut self,
        subscription: Subscription,
        join: impl FnOnce(&KafkaConfig, &Membership, &ClientMetrics) -> Result<C, ClientError>,
        names: impl FnOnce(&C) -> N,
    ) -> Result<C, ClientError> {
        let membership = Membership {
            partitions: usize::try_from(subscription.partitions()).unwrap_or(1),
            group: subscription.group,
            instance: self.instance.to_owned(),
            topics: subscription.topics.into_iter().map(|(topic, _)| topic).collect(),
            prefetch_kib: subscription.prefetch_kib,
            fetch: subscription.fetch,
        };
        let consumer = join(self.kafka, &membership, &self.metrics)?;
        self.producer.made_anew_only_as(names(&consumer));
        Ok(consumer)
    }
}

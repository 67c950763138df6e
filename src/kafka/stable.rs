//! The ends of partitions, and their last stable offsets.
//!
//! A client uses the isolation level that it was created with, so there are two. Neither reads records nor is a member of a group.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::config::KafkaConfig;
use crate::kafka::error::ClientError;
use crate::kafka::isolation::Isolation;
use crate::kafka::lookup;
use crate::kafka::partition::TopicPartition;
use crate::kafka::reader::{self, LostPlace};
use crate::kafka::watch::Watch;

/// Looks up both ends of partitions.
pub struct StableOffsets {
    all: Arc<BaseConsumer<Watch>>,
    committed: Arc<BaseConsumer<Watch>>,
}

/// Both ends of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TwoEnds {
    /// The partition.
    pub tp: TopicPartition,
    /// The last stable offset: records below it are visible to read-committed consumers.
    pub stable: i64,
    /// One past the last record, committed or not, looked up just before the other.
    pub end: i64,
}

impl StableOffsets {
    /// Connects at the first request.
    ///
    /// # Errors
    /// A property is refused or a client cannot be created.
    pub fn new(kafka: &KafkaConfig) -> Result<Self, ClientError> {
        let client = |isolation| reader::make(kafka, isolation, LostPlace::Oldest, &[]).map(|(_, client)| client);
        Ok(Self { all: client(Isolation::Uncommitted)?, committed: client(Isolation::Committed)? })
    }

    /// The partitions of a topic.
    ///
    /// # Errors
    /// It does not exist, may not be described, or no broker answers in time.
    pub fn partitions(&self, topic: &str, within: Duration) -> Result<Vec<TopicPartition>, ClientError> {
        let count = lookup::partition_count(self.all.client(), topic, within)?;
        let topic: Arc<str> = topic.into();
        Ok((0..count).map(|partition| TopicPartition { topic: topic.clone(), partition }).collect())
    }

    /// Both ends of these partitions, from their leaders; those that do not answer are left out.
    ///
    /// # Errors
    /// There is no answer in time.
    pub fn look(&self, partitions: &[TopicPartition], within: Duration) -> Result<Vec<TwoEnds>, ClientError> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        // Errors, tokens to be renewed: nobody else serves these clients.
        for client in [&self.all, &self.committed] {
            let _ = client.poll(Duration::ZERO);
        }
        // In this order, commits in between make a partition look as if everything were committed, never the reverse.
        let all = lookup::ends(&self.all, partitions, within)?;
        let stable = lookup::ends(&self.committed, partitions, within)?;
        let both = partitions.iter().zip(all).zip(stable);
        Ok(both.filter_map(|((tp, end), stable)| Some(TwoEnds { tp: tp.clone(), stable: stable?, end: end? })).collect())
    }
}

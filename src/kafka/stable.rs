//! Where partitions end, and how far those who read committed see of that.
//!
//! A client asks with the isolation that it was made with, so there are two. Neither reads anything, nor is it a member of a group.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::config::KafkaConfig;
use crate::kafka::error::ClientError;
use crate::kafka::isolation::Isolation;
use crate::kafka::lookup;
use crate::kafka::partition::TopicPartition;
use crate::kafka::reader;
use crate::kafka::watch::Watch;

/// Asks for both ends of partitions.
pub struct StableOffsets {
    all: Arc<BaseConsumer<Watch>>,
    committed: Arc<BaseConsumer<Watch>>,
}

/// Both ends of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TwoEnds {
    /// Which.
    pub tp: TopicPartition,
    /// What is below it is seen by those who read committed.
    pub stable: i64,
    /// One past the last record, whether committed or not, a moment before the other was asked for.
    pub end: i64,
}

impl StableOffsets {
    /// Connects at the first question.
    ///
    /// # Errors
    /// When a property is refused or a client cannot be made.
    pub fn new(kafka: &KafkaConfig) -> Result<Self, ClientError> {
        let client = |isolation| reader::make(kafka, isolation, &[]).map(|(_, client)| client);
        Ok(Self { all: client(Isolation::Uncommitted)?, committed: client(Isolation::Committed)? })
    }

    /// The partitions of a topic.
    ///
    /// # Errors
    /// When it does not exist or may not be seen, or nobody answers in time.
    pub fn partitions(&self, topic: &str, within: Duration) -> Result<Vec<TopicPartition>, ClientError> {
        let count = lookup::partition_count(self.all.client(), topic, within)?;
        let topic: Arc<str> = topic.into();
        Ok((0..count).map(|partition| TopicPartition { topic: topic.clone(), partition }).collect())
    }

    /// Both ends of these partitions, as their leaders say; those that do not answer are left out.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub fn look(&self, partitions: &[TopicPartition], within: Duration) -> Result<Vec<TwoEnds>, ClientError> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        // Errors, tokens to be renewed: nobody else serves these clients.
        for client in [&self.all, &self.committed] {
            let _ = client.poll(Duration::ZERO);
        }
        // In this order: what is committed in between makes a partition look as if all of it were, never the other way about.
        let all = lookup::ends(&self.all, partitions, within)?;
        let stable = lookup::ends(&self.committed, partitions, within)?;
        let both = partitions.iter().zip(all).zip(stable);
        Ok(both.filter_map(|((tp, end), stable)| Some(TwoEnds { tp: tp.clone(), stable: stable?, end: end? })).collect())
    }
}

//! Committed offsets of a group of which this process is not a member.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList, TopicPartitionListElem};

use crate::config::KafkaConfig;
use crate::kafka::client_config;
use crate::kafka::error::ClientError;
use crate::kafka::lookup;
use crate::kafka::partition::TopicPartition;

/// Reads the committed offsets of one group, without joining it.
pub struct GroupOffsets {
    client: BaseConsumer,
    group: String,
}

impl GroupOffsets {
    /// For this group. It connects at the first request.
    ///
    /// # Errors
    /// The client cannot be created.
    pub fn new(kafka: &KafkaConfig, group: &str) -> Result<Self, ClientError> {
        let mut config = client_config::consumer_config(kafka);
        config.set("group.id", group).set("enable.auto.commit", "false").set("isolation.level", "read_uncommitted");
        let client = config.create().map_err(|e| ClientError::new("making a reader of offsets", &e))?;
        Ok(Self { client, group: group.to_owned() })
    }

    /// The committed offsets on all partitions of these topics, if any.
    ///
    /// # Errors
    /// A topic does not exist, or the broker does not answer in time or refuses.
    pub fn on_topics(&self, topics: &[String], within: Duration) -> Result<Vec<(TopicPartition, i64)>, ClientError> {
        let mut partitions = Vec::new();
        for topic in topics {
            let count = lookup::partition_count(self.client.client(), topic, within)?;
            partitions.extend((0..count).map(|partition| TopicPartition { topic: topic.as_str().into(), partition }));
        }
        self.committed(&partitions, within)
    }

    /// The committed offsets on these partitions, if any.
    ///
    /// # Errors
    /// The broker does not answer in time or refuses.
    pub fn committed(&self, partitions: &[TopicPartition], within: Duration) -> Result<Vec<(TopicPartition, i64)>, ClientError> {
        let doing = || format!("reading the committed offsets of group {}", self.group);
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for tp in partitions {
            list.add_partition(&tp.topic, tp.partition);
        }
        // Somebody must serve the client's events.
        let _ = self.client.poll(Duration::ZERO);
        let answer = self.client.committed_offsets(list, within).map_err(|e| ClientError::new(doing(), &e))?;
        answer.elements().iter().try_for_each(TopicPartitionListElem::error).map_err(|e| ClientError::new(doing(), &e))?;
        let offset = |tp: &TopicPartition| match answer.find_partition(&tp.topic, tp.partition)?.offset() {
            Offset::Offset(offset) => Some((tp.clone(), offset)),
            _ => None,
        };
        Ok(partitions.iter().filter_map(offset).collect())
    }
}

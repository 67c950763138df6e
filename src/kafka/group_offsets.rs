//! Committed offsets of a group of which this process is not a member.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::{TopicPartitionList, TopicPartitionListElem};

use crate::config::KafkaConfig;
use crate::kafka::client_config::{consumer_config, observing};
use crate::kafka::error::ClientError;
use crate::kafka::lookup;
use crate::kafka::partition::TopicPartition;
use crate::kafka::watch::Watch;

/// Reads and commits the offsets of one group, without joining it.
pub struct GroupOffsets {
    client: BaseConsumer<Watch>,
    group: String,
}

impl GroupOffsets {
    /// For this group. It connects at the first request.
    ///
    /// # Errors
    /// The client cannot be created.
    pub fn new(kafka: &KafkaConfig, group: &str) -> Result<Self, ClientError> {
        Self::watched(kafka, group, Watch::default()).map_err(|e| ClientError::new("making a reader of offsets", &e))
    }

    /// The same, with a watch that collects its connection errors.
    pub(super) fn watched(kafka: &KafkaConfig, group: &str, watch: Watch) -> KafkaResult<Self> {
        let mut config = observing(consumer_config(kafka));
        let client = config.set("group.id", group).create_with_context(watch)?;
        Ok(Self { client, group: group.to_owned() })
    }

    /// The group.
    pub(super) fn group(&self) -> &str {
        &self.group
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
        self.read(partitions, within).map_err(|e| ClientError::new(doing(), &e))
    }

    /// The same, with the client's own error.
    pub(super) fn read(&self, partitions: &[TopicPartition], within: Duration) -> KafkaResult<Vec<(TopicPartition, i64)>> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for tp in partitions {
            list.add_partition(&tp.topic, tp.partition);
        }
        // Somebody must serve the client's events; after an error they say why.
        lookup::serve(&self.client);
        let answer = self.client.committed_offsets(list, within).inspect_err(|_| lookup::serve(&self.client))?;
        answer.elements().iter().try_for_each(TopicPartitionListElem::error)?;
        let offset = |tp: &TopicPartition| lookup::raw(answer.find_partition(&tp.topic, tp.partition)?.offset());
        Ok(partitions.iter().filter_map(|tp| Some((tp.clone(), offset(tp)?))).collect())
    }

    /// Commits these offsets, which a group with members refuses.
    pub(super) fn commit(&self, offsets: &TopicPartitionList) -> KafkaResult<()> {
        self.client.commit(offsets, CommitMode::Sync).inspect_err(|_| lookup::serve(&self.client))
    }
}

//! What a producer's client may be asked besides: topics, partitions, members of a group.

use std::collections::HashMap;
use std::time::Duration;

use rdkafka::metadata::{MetadataPartition, MetadataTopic};
use rdkafka::producer::Producer;

use super::{HopProducer, TopicId};
use crate::kafka::error::ClientError;
use crate::kafka::{ffi, lookup};
use crate::topology::GroupMember;

/// The state of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionLook {
    /// The partition.
    pub partition: i32,
    /// Its leader, if it has one.
    pub leader: Option<i32>,
    /// Number of replicas.
    pub replicas: usize,
    /// Number of in-sync replicas.
    pub in_sync: usize,
}

impl HopProducer {
    /// Describes a topic again that could not be written to, and returns the state of its partitions; none if unknown. The client caches a
    /// denial for minutes, without asking a broker.
    #[must_use]
    pub fn look_again(&self, topic: TopicId) -> Vec<PartitionLook> {
        let Some(live) = &self.live else { return Vec::new() };
        let name = self.topic_name(topic);
        match live.client.client().fetch_metadata(Some(name), Duration::from_secs(5)) {
            Ok(metadata) => {
                let partitions = metadata.topics().iter().filter(|t| t.name() == name).flat_map(MetadataTopic::partitions);
                let look = |partition: &MetadataPartition| PartitionLook {
                    partition: partition.id(),
                    leader: Some(partition.leader()).filter(|leader| *leader >= 0),
                    replicas: partition.replicas().len(),
                    in_sync: partition.isr().len(),
                };
                partitions.map(look).collect()
            }
            Err(error) => {
                tracing::debug!(topic = name, %error, "could not be looked at again");
                Vec::new()
            }
        }
    }

    /// The members of a group.
    ///
    /// # Errors
    /// The broker does not answer within 15 s or refuses.
    pub fn group_members(&mut self, group: &str, within: Duration) -> Result<Vec<GroupMember>, ClientError> {
        self.connect().map_err(|error| error.cause().clone())?;
        let client = &self.live.as_ref().expect("connected").client;
        ffi::group_members(client.client().native_ptr(), group, within)
            .map_err(|code| ClientError::code(format!("listing the members of group {group}"), code))
    }

    /// The partition counts of the registered topics.
    ///
    /// # Errors
    /// One does not exist or the broker does not answer within 15 s.
    pub fn partition_counts(&mut self) -> Result<HashMap<TopicId, i32>, ClientError> {
        let names = self.topic_names.clone();
        let counted = |(index, name): (usize, &String)| Ok((TopicId(index), self.partition_count(name)?));
        names.iter().enumerate().map(counted).collect()
    }

    /// All topics that this client may describe, with their partition counts.
    ///
    /// # Errors
    /// The broker does not answer within 15 s.
    pub fn existing_topics(&mut self) -> Result<Vec<(String, i32)>, ClientError> {
        self.connect().map_err(|error| error.cause().clone())?;
        let client = &self.live.as_ref().expect("connected").client;
        let metadata =
            client.client().fetch_metadata(None, Duration::from_secs(15)).map_err(|e| ClientError::new("listing topics", &e))?;
        let usable = metadata.topics().iter().filter(|t| t.error().is_none());
        Ok(usable.map(|t| (t.name().to_owned(), i32::try_from(t.partitions().len()).unwrap_or(i32::MAX))).collect())
    }

    /// Number of partitions of a topic.
    ///
    /// # Errors
    /// It does not exist or the broker does not answer within 15 s.
    pub fn partition_count(&mut self, name: &str) -> Result<i32, ClientError> {
        self.connect().map_err(|error| error.cause().clone())?;
        lookup::partition_count(self.live.as_ref().expect("connected").client.client(), name, Duration::from_secs(15))
    }
}

//! Requests to brokers on separate connections, beside a client that fetches.
//!
//! A broker answers the requests of one connection one after the other (its `SocketServer` reads no further while it processes one). So
//! a fetching client gets no other answer while its fetch waits for records: half a second each time with the default
//! `fetch.wait.max.ms`. Measured where each record needs such an answer: 0.76 s per record.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::{Offset, TopicPartitionListElem};

use crate::config::KafkaConfig;
use crate::kafka::client_config;
use crate::kafka::error::ClientError;
use crate::kafka::isolation::Isolation;
use crate::kafka::lookup;
use crate::kafka::partition::TopicPartition;
use crate::kafka::watch::Watch;

/// Sends requests on its own connections, which are not used for fetching.
pub(super) struct Asker {
    client: BaseConsumer<Watch>,
}

impl Asker {
    /// # Errors
    /// A property is refused or the client cannot be created.
    pub fn new(kafka: &KafkaConfig, isolation: Isolation) -> Result<Self, ClientError> {
        let mut config = client_config::consumer_config(kafka);
        config.set("isolation.level", isolation.property());
        let client = BaseConsumer::from_config_and_context(&config, Watch::default());
        Ok(Self { client: client.map_err(|e| ClientError::new("making a reader", &e))? })
    }

    /// Serves the client's own events.
    pub fn serve(&self) {
        lookup::serve(&self.client);
    }

    /// Number of partitions of a topic.
    ///
    /// # Errors
    /// It does not exist, may not be described, or the broker does not answer in time.
    pub fn partition_count(&self, topic: &str, within: Duration) -> Result<i32, ClientError> {
        self.serve();
        lookup::partition_count(self.client.client(), topic, within)
    }

    /// The partitions of a topic: whether each has a leader now.
    ///
    /// # Errors
    /// It does not exist, may not be described, or the broker does not answer in time.
    pub fn leaders(&self, topic: &str, within: Duration) -> Result<Vec<bool>, ClientError> {
        self.serve();
        lookup::leaders(self.client.client(), topic, within)
    }

    /// The partitions that have a leader now.
    ///
    /// # Errors
    /// If no broker answers in time.
    pub fn led(&self, partitions: &[TopicPartition], within: Duration) -> Result<BTreeSet<TopicPartition>, ClientError> {
        self.serve();
        lookup::led(self.client.client(), partitions, within)
    }

    /// The ends of partitions, individually: `None` if its leader does not answer, or there is none.
    ///
    /// # Errors
    /// No broker answers in time.
    pub fn ends(&self, partitions: &[TopicPartition], within: Duration) -> Result<Vec<Option<i64>>, ClientError> {
        let led = self.led(partitions, within)?;
        if led.is_empty() {
            return Ok(vec![None; partitions.len()]);
        }
        let asked: Vec<TopicPartition> = led.into_iter().collect();
        let ends: BTreeMap<&TopicPartition, Option<i64>> =
            asked.iter().zip(lookup::ends(&self.client, &asked, within)?).collect();
        Ok(partitions.iter().map(|tp| ends.get(tp).copied().flatten()).collect())
    }

    /// The offset of each partition at a position or, for a number, of the first record with at least this timestamp (epoch
    /// milliseconds); -1 if there is none.
    ///
    /// # Errors
    /// A broker does not answer in time or refuses.
    pub fn offsets(&self, partitions: &[TopicPartition], at: Offset, within: Duration) -> Result<Vec<i64>, ClientError> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        self.serve();
        let ask = || -> KafkaResult<Vec<i64>> {
            let found = lookup::offsets(&self.client, partitions, at, within)?;
            found.elements().iter().try_for_each(TopicPartitionListElem::error)?;
            let offset = |tp: &TopicPartition| lookup::raw(found.find_partition(&tp.topic, tp.partition)?.offset());
            Ok(partitions.iter().map(|tp| offset(tp).unwrap_or(-1)).collect())
        };
        ask().map_err(|e| ClientError::new(format!("looking up offsets of {}", partitions[0].topic), &e))
    }
}

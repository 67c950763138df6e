//! What is asked of brokers beside a client that fetches.
//!
//! A broker answers the requests of one connection one after the other (its `SocketServer` reads no further while it works on one). So a
//! client that fetches gets no other answer while its fetch waits for records to come: half a second each time, as clients are set by
//! default (`fetch.wait.max.ms`). Measured where each record needs such an answer: 0.76 s a record.

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

/// Asks on connections of its own, on which nothing is fetched.
pub(super) struct Asker {
    client: BaseConsumer<Watch>,
}

impl Asker {
    /// # Errors
    /// When a property is refused or the client cannot be made.
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

    /// How many partitions a topic has.
    ///
    /// # Errors
    /// When it does not exist or may not be seen, or the broker does not answer in time.
    pub fn partition_count(&self, topic: &str, within: Duration) -> Result<i32, ClientError> {
        self.serve();
        lookup::partition_count(self.client.client(), topic, within)
    }

    /// The offset of each partition at a place or, where that is a number, of the first record as young as that (milliseconds since the
    /// epoch); -1 where there is none.
    ///
    /// # Errors
    /// When a broker does not answer in time or refuses.
    pub fn offsets(&self, partitions: &[TopicPartition], at: Offset, within: Duration) -> Result<Vec<i64>, ClientError> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        self.serve();
        let ask = || -> KafkaResult<Vec<i64>> {
            let found = lookup::offsets(&self.client, partitions, at, within)?;
            found.elements().iter().try_for_each(TopicPartitionListElem::error)?;
            let offset = |tp: &TopicPartition| match found.find_partition(&tp.topic, tp.partition)?.offset() {
                Offset::Offset(number) => Some(number),
                _ => None,
            };
            Ok(partitions.iter().map(|tp| offset(tp).unwrap_or(-1)).collect())
        };
        ask().map_err(|e| ClientError::new(format!("looking up offsets of {}", partitions[0].topic), &e))
    }
}

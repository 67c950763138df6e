//! Where partitions end, asked beside whatever is fetched.
//!
//! A broker answers the requests of one connection one after the other. So a client that fetches gets no other answer while its fetch
//! waits for records to come: half a second each time, as clients are set by default (`fetch.wait.max.ms`; the broker's
//! `SocketServer` mutes a connection while a request of it is worked on). Measured where each record needs such an answer: a router
//! that worked on records one at a time took 0.76 s for each.

use std::time::Duration;

use rdkafka::consumer::BaseConsumer;
use rdkafka::error::RDKafkaErrorCode;

use crate::config::KafkaConfig;
use crate::kafka::client_config;
use crate::kafka::consumer::TopicPartition;
use crate::kafka::error::ClientError;
use crate::kafka::lookup;

/// Asks where partitions end for those who read committed, on connections of its own.
pub struct EndOffsets {
    client: BaseConsumer,
}

impl EndOffsets {
    /// It connects at the first question.
    ///
    /// # Errors
    /// When the client cannot be made.
    pub fn new(kafka: &KafkaConfig) -> Result<Self, ClientError> {
        let mut config = client_config::consumer_config(kafka);
        config.set("isolation.level", "read_committed");
        let client = config.create().map_err(|e| ClientError::new("making a reader of offsets", &e))?;
        Ok(Self { client })
    }

    /// Where each of these partitions ends now, in their order.
    ///
    /// # Errors
    /// When there is no answer for one of them in time.
    pub fn of(&self, partitions: &[TopicPartition], within: Duration) -> Result<Vec<(TopicPartition, i64)>, ClientError> {
        // The client's events have to be served by somebody.
        let _ = self.client.poll(Duration::ZERO);
        let ends = lookup::ends(&self.client, partitions, within)?;
        let end = |(tp, end): (&TopicPartition, Option<i64>)| match end {
            Some(end) => Ok((tp.clone(), end)),
            None => Err(ClientError::code(format!("asking where {tp} ends"), RDKafkaErrorCode::LeaderNotAvailable)),
        };
        partitions.iter().zip(ends).map(end).collect()
    }
}

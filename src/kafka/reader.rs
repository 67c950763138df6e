//! What all who read without a group are made of.

use std::sync::Arc;

use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::config::KafkaConfig;
use crate::kafka::client_config::{consumer_config, set_unless_given};
use crate::kafka::error::ClientError;
use crate::kafka::ffi::RawReader;
use crate::kafka::isolation::Isolation;
use crate::kafka::watch::Watch;

/// A client that commits nothing and is a member of nothing, and the queue that its partitions are read by. The queue has to go first.
///
/// # Errors
/// When a property is refused or the client cannot be made.
pub(super) fn make(
    kafka: &KafkaConfig,
    isolation: Isolation,
    defaults: &[(&str, &str)],
) -> Result<(RawReader, Arc<BaseConsumer<Watch>>), ClientError> {
    let mut config = consumer_config(kafka);
    set_unless_given(&mut config, defaults.iter().copied());
    config
        .set("isolation.level", isolation.property())
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "earliest")
        .set("allow.auto.create.topics", "false")
        .set_log_level(RDKafkaLogLevel::Warning);
    let client = BaseConsumer::from_config_and_context(&config, Watch::default());
    let client = Arc::new(client.map_err(|e| ClientError::new("making a reader", &e))?);
    Ok((RawReader::new(client.client().native_ptr(), client.clone()), client))
}

//! The basis of all consumers without a group.

use std::sync::Arc;

use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::config::KafkaConfig;
use crate::kafka::client_config::{consumer_config, set_unless_given};
use crate::kafka::error::ClientError;
use crate::kafka::ffi::RawReader;
use crate::kafka::isolation::Isolation;
use crate::kafka::watch::Watch;

/// What happens if the broker does not have the requested offset: it was deleted, or never existed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LostPlace {
    /// Continue with the oldest record.
    Oldest,
    /// Return an error, and nothing more of the partition.
    Told,
}

impl LostPlace {
    /// The value of `auto.offset.reset`.
    fn property(self) -> &'static str {
        match self {
            Self::Oldest => "earliest",
            Self::Told => "error",
        }
    }
}

/// A client without group membership or commits, and the queue of its partitions. The queue must be dropped first.
///
/// # Errors
/// A property is refused or the client cannot be created.
pub(super) fn make(
    kafka: &KafkaConfig,
    isolation: Isolation,
    lost: LostPlace,
    defaults: &[(&str, &str)],
) -> Result<(RawReader, Arc<BaseConsumer<Watch>>), ClientError> {
    let mut config = consumer_config(kafka);
    set_unless_given(&mut config, defaults.iter().copied());
    config
        .set("isolation.level", isolation.property())
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", lost.property())
        .set_log_level(RDKafkaLogLevel::Warning);
    let client = BaseConsumer::from_config_and_context(&config, Watch::default());
    let client = Arc::new(client.map_err(|e| ClientError::new("making a reader", &e))?);
    Ok((RawReader::new(client.client().native_ptr(), client.clone()), client))
}

//! What every client is made with: the user's properties and kladder's defaults.

use std::collections::BTreeMap;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use crate::config::KafkaConfig;

const CLIENT_ID: &str = "kladder";

/// For consumers, before what [`crate::kafka::consumer`] owns.
pub(crate) fn consumer_config(kafka: &KafkaConfig) -> ClientConfig {
    client_config(&kafka.for_consumer())
}

/// For producers, before what [`crate::kafka::producer`] owns.
pub(crate) fn producer_config(kafka: &KafkaConfig) -> ClientConfig {
    client_config(&kafka.for_producer())
}

/// Sets what the user has not set. The configuration knows every property by one name, so an alias cannot slip past.
pub(crate) fn set_unless_given<'a>(config: &mut ClientConfig, defaults: impl IntoIterator<Item = (&'a str, impl Into<String>)>) {
    for (key, value) in defaults {
        if config.get(key).is_none() {
            config.set(key, value);
        }
    }
}

/// What kladder's clients of this configuration call themselves.
#[must_use]
pub fn client_id(kafka: &KafkaConfig) -> String {
    kafka.for_consumer().remove("client.id").unwrap_or_else(|| CLIENT_ID.to_owned())
}

fn client_config(properties: &BTreeMap<String, String>) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("client.id", CLIENT_ID);
    for (key, value) in properties {
        config.set(key, value);
    }
    config
}

/// Passes a line of librdkafka's log on. Most of what it calls an error heals by itself.
pub(crate) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::warn!(target: "librdkafka", facility, "{message}");
        }
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice => {
            tracing::info!(target: "librdkafka", facility, "{message}");
        }
        RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", facility, "{message}"),
    }
}

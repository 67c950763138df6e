//! The configuration of every client: the user's properties and kladder's defaults.

use std::collections::BTreeMap;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use crate::config::KafkaConfig;

const CLIENT_ID: &str = "kladder";

/// For consumers, before the settings of [`crate::kafka::consumer`].
pub(crate) fn consumer_config(kafka: &KafkaConfig) -> ClientConfig {
    client_config(&kafka.for_consumer())
}

/// For producers, before the settings of [`crate::kafka::producer`].
pub(crate) fn producer_config(kafka: &KafkaConfig) -> ClientConfig {
    client_config(&kafka.for_producer())
}

/// For a consumer that only asks: open transactions must not delay an answer, and nothing is committed by itself.
pub(super) fn observing(mut config: ClientConfig) -> ClientConfig {
    config.set("enable.auto.commit", "false").set("isolation.level", "read_uncommitted");
    config
}

/// Sets what the user has not set. The configuration has every property by one name, so an alias cannot be missed.
pub(crate) fn set_unless_given<'a>(config: &mut ClientConfig, defaults: impl IntoIterator<Item = (&'a str, impl Into<String>)>) {
    for (key, value) in defaults {
        if config.get(key).is_none() {
            config.set(key, value);
        }
    }
}

/// The client.id of kladder's clients with this configuration.
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
    // Producers and admin clients also request topics by name, and by default create them if the cluster allows auto-creation:
    // then a misspelt name becomes a topic, and waits for records instead of failing.
    config.set("allow.auto.create.topics", "false");
    config
}

/// Passes on a log line of librdkafka. Most of what it calls an error recovers by itself.
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

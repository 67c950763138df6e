//! One Kafka property, from the configuration file or from code: whether kladder accepts it, and for which clients.

use thiserror::Error;

use crate::config::client_properties::{self, Client};
use crate::config::nearest::nearest;
use crate::config::owned;
use crate::config::types::KafkaConfig;

/// A property that kladder does not accept.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{name}` {what}: {hint}")]
pub struct PropertyError {
    /// Its name as given.
    name: String,
    what: &'static str,
    hint: String,
}

/// Why a property is refused, without its name.
pub struct PropertyRefusal {
    pub what: &'static str,
    pub hint: String,
}

/// The clients that a dotted name is for. No librdkafka property begins with these words, so they can select the client.
pub fn section(dotted: &str) -> (Client, &str) {
    match dotted.split_once('.') {
        Some(("producer", name)) => (Client::Producer, name),
        Some(("consumer", name)) => (Client::Consumer, name),
        _ => (Client::Any, dotted),
    }
}

/// The clients that receive a property of this section: properties only for producers or only for consumers go to those alone.
pub fn home(section: Client, name: &str) -> Client {
    if section == Client::Any { client_properties::find(name).unwrap_or(Client::Any) } else { section }
}

/// The canonical name of an accepted property; `None` if kladder sets that value anyway.
pub fn judge<'a>(name: &'a str, section: Client, value: &str) -> Result<Option<&'a str>, PropertyRefusal> {
    let refuse = |what, hint: &str| Err(PropertyRefusal { what, hint: hint.to_owned() });
    let given = name;
    let name = client_properties::canonical(given);
    if let Some(reason) = owned::reason(name) {
        return if owned::is_what_kladder_sets(name, value) { Ok(None) } else { refuse("is set by kladder itself", reason) };
    }
    if let Some(hint) = owned::java_hint(name) {
        return refuse("is a property of Java clients", hint);
    }
    let Some(client) = client_properties::find(name) else {
        let hint = nearest(given, client_properties::names()).map_or_else(
            || "kladder accepts librdkafka's properties: see its CONFIGURATION.md".to_owned(),
            |meant| format!("did you mean `{meant}`?"),
        );
        return refuse("is not a librdkafka property", &hint);
    };
    match (section, client) {
        (Client::Producer | Client::Consumer, _) if name == "bootstrap.servers" => refuse(
            "does not belong here",
            "move it to [kafka]: producer and consumer must use the same cluster, since a hop is one transaction",
        ),
        (Client::Producer, Client::Consumer) => refuse("is a consumer property", "move it to [kafka.consumer]"),
        (Client::Consumer, Client::Producer) => refuse("is a producer property", "move it to [kafka.producer]"),
        _ => Ok(Some(name)),
    }
}

impl KafkaConfig {
    /// With these brokers (`host:port`, comma-separated) and no other property.
    #[must_use]
    pub fn new(bootstrap_servers: impl Into<String>) -> Self {
        let mut config = Self::default();
        config.common.insert("bootstrap.servers".to_owned(), bootstrap_servers.into());
        config
    }

    /// Sets a librdkafka property. A name with the prefix `producer.` or `consumer.` applies to those clients alone. The value is
    /// checked when a client is created.
    ///
    /// # Errors
    /// kladder sets the property itself (the reason is given), librdkafka does not know it, or it is for the other
    /// kind of client.
    pub fn set(mut self, name: &str, value: impl Into<String>) -> Result<Self, PropertyError> {
        let value = value.into();
        let (section, bare) = section(name);
        let judged = judge(bare, section, &value);
        let judged = judged.map_err(|PropertyRefusal { what, hint }| PropertyError { name: name.to_owned(), what, hint })?;
        if let Some(name) = judged {
            let properties = match home(section, name) {
                Client::Any => &mut self.common,
                Client::Producer => &mut self.producer,
                Client::Consumer => &mut self.consumer,
            };
            properties.insert(name.to_owned(), value);
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_go_to_the_clients_that_they_are_for() {
        let kafka = KafkaConfig::new("a:1").set("fetch.min.bytes", "7").unwrap().set("producer.linger.ms", "3").unwrap();
        let kafka = kafka.set("sasl.mechanism", "PLAIN").unwrap().set("acks", "all").unwrap();
        assert_eq!(kafka.for_consumer().get("fetch.min.bytes").map(String::as_str), Some("7"));
        assert!(!kafka.for_producer().contains_key("fetch.min.bytes") && !kafka.for_producer().contains_key("acks"));
        assert_eq!(kafka.for_producer().get("linger.ms").map(String::as_str), Some("3"));
        assert_eq!(kafka.common.get("sasl.mechanisms").map(String::as_str), Some("PLAIN"), "by its canonical name");
    }

    #[test]
    fn what_is_not_taken_is_told_with_the_reason() {
        let told = |name: &str, value: &str| KafkaConfig::new("a:1").set(name, value).unwrap_err().to_string();
        for (name, value, words) in [
            ("group.id", "x", "`group.id` is set by kladder itself: each worker's group"),
            ("request.required.acks", "1", "`request.required.acks` is set by kladder itself: always `all`"),
            ("sasl.jaas.config", "x", "is a property of Java clients: use sasl.username"),
            ("security.protocl", "ssl", "did you mean `security.protocol`?"),
            ("producer.fetch.min.bytes", "1", "is a consumer property"),
            ("consumer.bootstrap.servers", "b:1", "does not belong here"),
        ] {
            let told = told(name, value);
            assert!(told.contains(words), "{told}");
        }
    }
}

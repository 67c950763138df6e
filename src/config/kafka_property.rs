//! One Kafka property, from the configuration file or from code: whether kladder takes it, and for which client it is.

use thiserror::Error;

use crate::config::nearest::nearest;
use crate::config::owned;
use crate::config::properties::{self, Client};
use crate::config::types::KafkaConfig;

/// A property that kladder does not take.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{name}` {what}: {hint}")]
pub struct PropertyError {
    /// As it was given.
    name: String,
    what: &'static str,
    hint: String,
}

/// Why a property is not taken, without its name.
pub struct Refusal {
    pub what: &'static str,
    pub hint: String,
}

/// The client that a dotted name is for. No property of librdkafka's begins with these words, so they are ours to mean the client.
pub fn section(dotted: &str) -> (Client, &str) {
    match dotted.split_once('.') {
        Some(("producer", name)) => (Client::Producer, name),
        Some(("consumer", name)) => (Client::Consumer, name),
        _ => (Client::Any, dotted),
    }
}

/// The clients that get a property which stands in this section: what is only for producers or only for consumers goes to those
/// alone.
pub fn home(section: Client, name: &str) -> Client {
    if section == Client::Any { properties::find(name).unwrap_or(Client::Any) } else { section }
}

/// The canonical name of a property to take; `None` where kladder sets that value anyway.
pub fn judge<'a>(name: &'a str, section: Client, value: &str) -> Result<Option<&'a str>, Refusal> {
    let refuse = |what, hint: &str| Err(Refusal { what, hint: hint.to_owned() });
    let given = name;
    let name = properties::canonical(given);
    if let Some(reason) = owned::reason(name) {
        return if owned::is_what_kladder_sets(name, value) { Ok(None) } else { refuse("is set by kladder itself", reason) };
    }
    if let Some(hint) = owned::java_hint(name) {
        return refuse("is a property of Java clients", hint);
    }
    let Some(client) = properties::find(name) else {
        let hint = nearest(given, properties::names()).map_or_else(
            || "kladder takes the properties of librdkafka: see its CONFIGURATION.md".to_owned(),
            |meant| format!("did you mean `{meant}`?"),
        );
        return refuse("is no property that librdkafka knows", &hint);
    };
    match (section, client) {
        (Client::Producer | Client::Consumer, _) if name == "bootstrap.servers" => refuse(
            "does not belong here",
            "write it below [kafka]: producer and consumer talk to one cluster, or a hop could be no transaction",
        ),
        (Client::Producer, Client::Consumer) => refuse("is a property of consumers", "write it below [kafka.consumer]"),
        (Client::Consumer, Client::Producer) => refuse("is a property of producers", "write it below [kafka.producer]"),
        _ => Ok(Some(name)),
    }
}

impl KafkaConfig {
    /// Of these brokers, `host:port` with commas between them, and nothing set besides.
    #[must_use]
    pub fn new(bootstrap_servers: impl Into<String>) -> Self {
        let mut config = Self::default();
        config.common.insert("bootstrap.servers".to_owned(), bootstrap_servers.into());
        config
    }

    /// With one of librdkafka's properties. With `producer.` or `consumer.` before its name it is for those clients alone. Whether
    /// the value makes sense shows when a client is made.
    ///
    /// # Errors
    /// When kladder sets it itself, with the reason; when librdkafka does not know it, or it is for the other clients.
    pub fn set(mut self, name: &str, value: impl Into<String>) -> Result<Self, PropertyError> {
        let value = value.into();
        let (section, bare) = section(name);
        let judged = judge(bare, section, &value);
        let judged = judged.map_err(|Refusal { what, hint }| PropertyError { name: name.to_owned(), what, hint })?;
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
            ("producer.fetch.min.bytes", "1", "is a property of consumers"),
            ("consumer.bootstrap.servers", "b:1", "does not belong here"),
        ] {
            let told = told(name, value);
            assert!(told.contains(words), "{told}");
        }
    }
}

//! Creates the clients of a configuration and drops them: contradictions, and features missing from this build, show only then.

use std::collections::BTreeMap;

use rdkafka::ClientConfig;
use rdkafka::consumer::BaseConsumer;
use rdkafka::producer::BaseProducer;

use crate::config::KafkaConfig;
use crate::kafka::client_config::{consumer_config, producer_config};
use crate::topology::ClusterError;

const INSTEAD: &str = "use PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512 with sasl.username and sasl.password, or a client certificate (ssl.certificate.location, \
                       ssl.key.location)";

/// Whether clients can be created with these properties. No connection is made.
///
/// # Errors
/// The refusal, and what to do.
pub fn check(kafka: &KafkaConfig) -> Result<(), ClusterError> {
    let refused = |reason: String| ClusterError::Settings { reason };
    for properties in [kafka.for_consumer(), kafka.for_producer()] {
        login(&properties).map_err(refused)?;
    }
    // Without brokers nothing is connected to.
    let alone = |mut config: ClientConfig| {
        config.remove("bootstrap.servers");
        config
    };
    alone(consumer_config(kafka)).create::<BaseConsumer>().map_err(|error| refused(error.to_string()))?;
    alone(producer_config(kafka)).create::<BaseProducer>().map_err(|error| refused(error.to_string()))?;
    Ok(())
}

/// Authentication mechanisms that can be configured but not used: librdkafka only says that it should be recompiled, or waits for
/// tokens that nobody provides.
pub(super) fn login(properties: &BTreeMap<String, String>) -> Result<(), String> {
    let of = |name: &str| properties.get(name).map_or("", |value| value.trim());
    // librdkafka has two names for it.
    let mechanism = [of("sasl.mechanisms"), of("sasl.mechanism")].into_iter().find(|value| !value.is_empty());
    if !of("security.protocol").to_ascii_lowercase().starts_with("sasl") {
        return Ok(());
    }
    match mechanism.unwrap_or_default().to_ascii_uppercase().as_str() {
        "" => Err(format!("sasl.mechanism is not set, and its default, GSSAPI, is not built into this kladder: {INSTEAD}")),
        "GSSAPI" => Err(format!("sasl.mechanism is GSSAPI, and this kladder is built without Kerberos: {INSTEAD}")),
        "OAUTHBEARER" if of("enable.sasl.oauthbearer.unsecure.jwt") != "true" => {
            Err(format!("sasl.mechanism is OAUTHBEARER, and this kladder has no source of tokens: {INSTEAD}"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(properties: &[(&str, &str)]) -> Result<(), String> {
        let mut kafka = KafkaConfig::default();
        kafka.common.insert("bootstrap.servers".to_owned(), "127.0.0.1:9".to_owned());
        kafka.common.extend(properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        check(&kafka).map_err(|error| error.to_string())
    }

    #[test]
    fn what_the_build_lacks_is_told() {
        let sasl = ("security.protocol", "SASL_PLAINTEXT");
        for (more, words) in [
            (&[][..], "is not set, and its default, GSSAPI"),
            (&[("sasl.mechanism", "GSSAPI")], "without Kerberos"),
            (&[("sasl.mechanism", "OAUTHBEARER")], "no source of tokens"),
            (&[("sasl.mechanisms", "oauthbearer")], "no source of tokens"),
        ] {
            let error = told(&[&[sasl], more].concat()).unwrap_err();
            assert!(error.contains(words) && error.contains("SCRAM-SHA-512"), "{error}");
        }
        assert_eq!(told(&[("sasl.mechanism", "GSSAPI")]), Ok(()), "not used without SASL");
        assert_eq!(told(&[sasl, ("sasl.mechanism", "PLAIN"), ("sasl.username", "u"), ("sasl.password", "p")]), Ok(()));
    }

    #[test]
    fn what_contradicts_itself_is_told() {
        let file = ("ssl.ca.location", "/nonexistent/ca.pem");
        if cfg!(feature = "tls-system") {
            let error = told(&[("security.protocol", "ssl"), file]).unwrap_err();
            assert!(error.contains("ssl.ca.location"), "{error}");
        }
        let error = told(&[("linger.ms", "900000"), ("message.timeout.ms", "1000")]).unwrap_err();
        assert!(error.contains("message.timeout.ms"), "{error}");
    }
}

//! Validates properties with librdkafka, before any client is created.

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;

/// Asks librdkafka whether it accepts a property with a value.
///
/// Only the single value is checked: contradictions between properties show when a client is created.
///
/// # Errors
/// librdkafka's message, which may quote the value.
pub fn check(name: &str, value: &str) -> Result<(), String> {
    match ClientConfig::new().set(name, value).create_native_config() {
        Ok(_) => Ok(()),
        Err(KafkaError::ClientConfig(_, words, ..)) => Err(fragment(&words)),
        Err(other) => Err(fragment(&other.to_string())),
    }
}

/// In the form of kladder's messages: a lower-case fragment.
fn fragment(words: &str) -> String {
    let words = words.trim().trim_end_matches('.');
    let mut letters = words.chars();
    letters.next().map_or_else(|| "is refused by librdkafka".to_owned(), |first| first.to_lowercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::client_properties;

    #[test]
    fn the_list_of_names_is_that_of_the_library() {
        let is_unknown = |name: &&str| check(name, "").is_err_and(|words| words.contains("no such configuration property"));
        let unknown: Vec<&str> = client_properties::names().filter(is_unknown).collect();
        assert_eq!(unknown, [""; 0]);
        assert!(check("no.such.thing", "1").unwrap_err().contains("no such configuration property"));
    }

    /// The values recommended by the configuration's hints work in this build.
    #[cfg(feature = "tls-system")]
    #[test]
    fn what_is_recommended_works_in_this_build() {
        for (name, value) in [
            ("sasl.mechanisms", "SCRAM-SHA-512"),
            ("sasl.mechanisms", "PLAIN"),
            ("ssl.keystore.location", "client.p12"),
            ("ssl.ca.pem", ""),
            ("ssl.key.pem", ""),
            ("ssl.certificate.pem", ""),
        ] {
            assert_eq!(check(name, value), Ok(()), "{name}");
        }
        assert!(
            check("sasl.oauthbearer.method", "oidc").is_err(),
            "with it the hint for Java's login handlers may name it again"
        );
    }

    #[test]
    fn values_are_judged() {
        assert_eq!(check("socket.timeout.ms", "1000"), Ok(()));
        assert_eq!(check("security.protocol", "SASL_plaintext"), Ok(()));
        for (name, value) in
            [("security.protocol", "tls"), ("socket.timeout.ms", "soon"), ("socket.timeout.ms", "1"), ("check.crcs", "maybe")]
        {
            let words = check(name, value).unwrap_err();
            assert!(words.contains(name), "{words}");
        }
    }
}

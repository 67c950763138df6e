//! What the client library itself says of a property, before any client is made.

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;

/// Asks librdkafka whether it takes this property with this value.
///
/// Only the value by itself is judged: what contradicts another property shows when a client is made.
///
/// # Errors
/// librdkafka's own words, which may quote the value.
pub fn check(name: &str, value: &str) -> Result<(), String> {
    match ClientConfig::new().set(name, value).create_native_config() {
        Ok(_) => Ok(()),
        Err(KafkaError::ClientConfig(_, words, ..)) => Err(fragment(&words)),
        Err(other) => Err(fragment(&other.to_string())),
    }
}

/// As our own messages: a lower-case fragment.
fn fragment(words: &str) -> String {
    let words = words.trim().trim_end_matches('.');
    let mut letters = words.chars();
    letters.next().map_or_else(|| "is refused by librdkafka".to_owned(), |first| first.to_lowercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::properties;

    #[test]
    fn the_list_of_names_is_that_of_the_library() {
        let is_unknown = |name: &&str| check(name, "").is_err_and(|words| words.contains("no such configuration property"));
        let unknown: Vec<&str> = properties::names().filter(is_unknown).collect();
        assert_eq!(unknown, [""; 0]);
        assert!(check("no.such.thing", "1").unwrap_err().contains("no such configuration property"));
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

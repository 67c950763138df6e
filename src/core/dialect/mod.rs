//! The dialects of other frameworks, as far as a record that goes back to its origin is concerned: the names of their control
//! headers.
//!
//! On a source topic such a header would drive the framework of whoever reads it (Spring Kafka counts its own attempts by them,
//! `SmallRye` its delays), so they are stripped on the way there, and never otherwise. A prefix is taken where the framework owns all
//! of it; where it begins with plain words, as `SmallRye`'s do, only the names that are known, since the rest may be an
//! application's.

/// The prefixes that a framework owns: Spring Kafka's retry topics and dead letters, Kafka Connect, Kafka Streams (KIP-1034), share
/// groups (KIP-1191).
const PREFIXES: [&str; 7] = [
    "retry_topic-",
    "kafka_original-",
    "kafka_exception-",
    "kafka_dlt-",
    "__connect.errors.",
    "__streams.errors.",
    "__dlq.errors.",
];

/// What `SmallRye` writes behind either of its prefixes.
const SMALLRYE: [&str; 7] = ["exception-class-name", "cause-class-name", "reason", "cause", "topic", "partition", "offset"];
/// What it writes only on what it will try again.
const SMALLRYE_DELAYED: [&str; 3] = ["count", "original-timestamp", "first-processing-timestamp"];

/// Whether a header of this name controls another framework.
#[must_use]
pub fn is_foreign_control(name: &[u8]) -> bool {
    let Ok(name) = std::str::from_utf8(name) else { return false };
    if PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        return true;
    }
    if let Some(rest) = name.strip_prefix("dead-letter-") {
        return SMALLRYE.contains(&rest);
    }
    name.strip_prefix("delayed-retry-").is_some_and(|rest| SMALLRYE.contains(&rest) || SMALLRYE_DELAYED.contains(&rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::envelope;

    #[test]
    fn the_control_headers_of_every_dialect_are_known() {
        for name in [
            "retry_topic-attempts",
            "retry_topic-backoff-timestamp",
            "retry_topic-original-timestamp",
            "kafka_original-topic",
            "kafka_original-timestamp-type",
            "kafka_dlt-original-consumer-group",
            "kafka_dlt-exception-fqcn",
            "kafka_dlt-key-exception-message",
            "kafka_exception-stacktrace",
            "__connect.errors.exception.class.name",
            "__streams.errors.offset",
            "__dlq.errors.delivery.count",
            "dead-letter-reason",
            "dead-letter-topic",
            "delayed-retry-count",
            "delayed-retry-cause-class-name",
        ] {
            assert!(is_foreign_control(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn users_headers_and_kladders_own_are_none() {
        for name in [
            "traceparent",
            "ce_type",
            "kafka_messageKey",
            "kafka_",
            "dead-letter-box",
            "dead-letter-count",
            "delayed-retry-",
            "retry_topic",
            "x-retry_topic-attempts",
            envelope::ATTEMPTS,
            envelope::ORIGIN_TOPIC,
        ] {
            assert!(!is_foreign_control(name.as_bytes()), "{name}");
        }
        assert!(!is_foreign_control(b"kafka_dlt-\xff"), "no framework writes names that are no text");
    }
}

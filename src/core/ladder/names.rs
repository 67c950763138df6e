//! Which names are valid.

/// Whether this is a valid ladder name: `[a-z0-9-]+`, at most 100 characters (topic names derive from it).
#[must_use]
pub fn is_ladder_name(name: &str) -> bool {
    (1..=100).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Whether Kafka accepts this topic name (`org.apache.kafka.common.internals.Topic`).
#[must_use]
pub fn is_topic_name(name: &str) -> bool {
    (1..=249).contains(&name.len())
        && !matches!(name, "." | "..")
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

//! The names of workers.

/// Whether a worker may bear this name.
#[must_use]
pub fn is_instance_name(name: &str) -> bool {
    // It becomes group.instance.id, which the broker checks like a topic name, and the end of transactional ids.
    (1..=120).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        && !matches!(name, "." | "..")
}

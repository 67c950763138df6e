//! Topic names, group ids and transactional ids, all derived from the ladder's name.

use crate::core::delay::Delay;
use crate::core::fnv::{OFFSET, fnv};
use crate::core::role::Role;

/// The purpose of a ladder's topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TopicRole {
    /// Where records wait for one delay.
    Tier(Delay),
    /// Where due records are redelivered.
    Redeliver,
    /// Where applications put failed records (relay).
    Inbox,
    /// Final destination of records that are not retried.
    Dlq,
    /// Compacted: the states of dead letters, and what every worker must obey.
    State,
}

/// `{ladder}.retry-{delay}`
#[must_use]
pub fn tier_topic(ladder: &str, delay: Delay) -> String {
    format!("{ladder}.retry-{delay}")
}

/// `{ladder}.redeliver`
#[must_use]
pub fn redeliver_topic(ladder: &str) -> String {
    format!("{ladder}.redeliver")
}

/// The ladder whose redeliver topic this is.
#[must_use]
pub fn ladder_of_redeliver_topic(topic: &str) -> Option<&str> {
    let ladder = topic.strip_suffix(".redeliver")?;
    let is_name = !ladder.is_empty() && ladder.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    is_name.then_some(ladder)
}

/// `{ladder}.inbox`
#[must_use]
pub fn inbox_topic(ladder: &str) -> String {
    format!("{ladder}.inbox")
}

/// `{ladder}.dlq`
#[must_use]
pub fn dlq_topic(ladder: &str) -> String {
    format!("{ladder}.dlq")
}

/// `{ladder}.dlq-{name}`: a separate dead-letter topic for records rejected by a rule.
#[must_use]
pub fn own_dlq_topic(ladder: &str, name: &str) -> String {
    format!("{ladder}.dlq-{name}")
}

/// `{ladder}.state`
#[must_use]
pub fn state_topic(ladder: &str) -> String {
    format!("{ladder}.state")
}

/// The delay of a tier topic of this ladder, or `None` for any other topic.
#[must_use]
pub fn delay_of_tier_topic(ladder: &str, topic: &str) -> Option<Delay> {
    let delay: Delay = topic.strip_prefix(ladder)?.strip_prefix(".retry-")?.parse().ok()?;
    // Only the canonical form: this ladder never created `retry-60s`.
    (tier_topic(ladder, delay) == topic).then_some(delay)
}

/// The consumer group of the movers: `{ladder}.mover`
#[must_use]
pub fn mover_group(ladder: &str) -> String {
    format!("{ladder}.mover")
}

/// The consumer group of the routers: `{ladder}.router`
#[must_use]
pub fn router_group(ladder: &str) -> String {
    format!("{ladder}.router")
}

/// The transactional.id of a worker: `{ladder}.{role}.{instance}`
#[must_use]
pub fn transactional_id(ladder: &str, role: Role, instance: &str) -> String {
    format!("{ladder}.{role}.{instance}")
}

/// Maximum length of a member name that all brokers and tools accept, as for topics.
const LONGEST_NAME: usize = 249;

/// The name of a worker's member in a group with one member per topic: `{instance}.{topic}`, or if that is too long, the instance and a
/// hash of the topic.
#[must_use]
pub fn member_name(instance: &str, topic: &str) -> String {
    let name = format!("{instance}.{topic}");
    if name.len() <= LONGEST_NAME { name } else { format!("{instance}.{}", short(topic)) }
}

/// The worker's instance name, from its member for one of these topics.
#[must_use]
pub fn worker_of_member<'a>(member: &'a str, topics: &[String]) -> &'a str {
    let worker_for = |topic: &String| {
        let rest = member.strip_suffix(topic.as_str()).or_else(|| member.strip_suffix(short(topic).as_str()));
        rest?.strip_suffix('.')
    };
    topics.iter().find_map(worker_for).unwrap_or(member)
}

fn short(topic: &str) -> String {
    format!("{:016x}", fnv(OFFSET, topic.as_bytes()))
}

/// The partition of a ladder topic for a record of this source partition: the same number, modulo the topic's
/// count.
#[must_use]
pub fn target_partition(source_partition: i32, partitions: i32) -> i32 {
    source_partition.rem_euclid(partitions.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_derive_from_the_ladder() {
        assert_eq!(tier_topic("billing", "90s".parse().unwrap()), "billing.retry-1m30s");
        assert_eq!(delay_of_tier_topic("billing", "billing.retry-1m30s"), Some("90s".parse().unwrap()));
        assert_eq!(delay_of_tier_topic("billing", "billing.retry-90s"), None);
        assert_eq!(delay_of_tier_topic("billing", "billing2.retry-1m"), None);
        assert_eq!(transactional_id("billing", Role::Mover, "pod-0"), "billing.mover.pod-0");
        assert_eq!(target_partition(14, 12), 2);
    }

    #[test]
    fn a_member_tells_its_worker() {
        let topics = ["orders".to_owned(), "o".repeat(240), "b.redeliver".to_owned()];
        for topic in &topics {
            let member = member_name("pod.orders-0", topic);
            assert!(member.len() <= LONGEST_NAME, "{member}");
            assert_eq!(worker_of_member(&member, &topics), "pod.orders-0");
        }
        assert_eq!(worker_of_member("console-consumer", &topics), "console-consumer");
    }
}

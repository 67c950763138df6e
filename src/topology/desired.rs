//! What a ladder needs: its topics, and where its groups start.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::{LadderConfig, QueueConfig, Start};
use crate::core::ladder::{Mode, Redelivery};
use crate::core::topics::{TopicRole, mover_group, router_group, state_topic};
use crate::topology::TopicFacts;

/// What kladder's headers may add to a record: the ladder's topics take records that much larger than the source's.
pub const HEADER_BUDGET: i64 = 16 * 1024;

/// More partitions than that are not made unless asked for: a transaction costs by the partitions that it touches.
const MOST_PARTITIONS_UNASKED: i32 = 12;

/// `max.message.bytes` of a topic that nobody has set.
const BROKER_MAX_MESSAGE_BYTES: i64 = 1_048_588;

pub(super) const CLEANUP_POLICY: &str = "cleanup.policy";
pub(super) const MAX_MESSAGE_BYTES: &str = "max.message.bytes";
pub(super) const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";
pub(super) const RETENTION_BYTES: &str = "retention.bytes";
pub(super) const RETENTION_MS: &str = "retention.ms";
pub(super) const TIMESTAMP_TYPE: &str = "message.timestamp.type";

/// No setting, but told like one.
pub(super) const REPLICATION_FACTOR: &str = "replication factor";

/// What a ladder needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// The ladder's name.
    pub ladder: String,
    /// How records reach it.
    pub mode: Mode,
    /// The group that it belongs to; empty where it belongs to none.
    pub group: String,
    /// Its topics; empty while none of its sources exists, since they follow the sources.
    pub topics: Vec<DesiredTopic>,
    /// Where its groups must stand.
    pub offsets: Vec<DesiredOffsets>,
    /// The sources that do not exist.
    pub missing_sources: Vec<String>,
    /// The inbox of another framework, where it does not exist: it is nobody's to make.
    pub missing_inbox: Option<String>,
    /// What the sources make of the ladder's durability, where that is little.
    pub hazards: Vec<String>,
}

/// A topic as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredTopic {
    /// The Kafka topic.
    pub name: String,
    /// What it is for.
    pub role: TopicRole,
    /// How many partitions it has at least.
    pub partitions: i32,
    /// How many replicas each of them has.
    pub replication_factor: i32,
    /// What is set when it is made.
    pub settings: BTreeMap<String, String>,
}

/// A group must have an offset on every partition of a topic: from then on a missing one is a loss.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredOffsets {
    /// The consumer group.
    pub group: String,
    /// The topic that it reads.
    pub topic: String,
    /// Where it starts on a partition that has none.
    pub start: StartRule,
}

/// Where a group starts on a partition on which it has no offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartRule {
    /// With the oldest record.
    Oldest,
    /// As configured where the group has no offset on any partition of the topic; else the partition was added, so the oldest.
    Configured(Option<Start>),
}

/// What this ladder needs, given the topics that exist (only its sources are looked at).
#[must_use]
pub fn desired(config: &LadderConfig, topics: &BTreeMap<String, TopicFacts>) -> Desired {
    let ladder = &config.ladder;
    let sources: Vec<&TopicFacts> = ladder.sources().iter().filter_map(|s| topics.get(s)).collect();
    let missing_sources = ladder.sources().iter().filter(|s| !topics.contains_key(*s)).cloned().collect();
    let missing_inbox = ladder.dialect().map(|_| ladder.inbox_topic()).filter(|inbox| !topics.contains_key(inbox));
    let shape = Shape::of(config, &sources);
    let mut hazards = if sources.is_empty() { Vec::new() } else { shape.hazards() };
    hazards.extend(compacted_origins(config, topics));
    Desired {
        ladder: ladder.name().to_owned(),
        mode: ladder.mode(),
        group: ladder.group().to_owned(),
        topics: if sources.is_empty() { Vec::new() } else { desired_topics(config, &shape) },
        offsets: desired_offsets(config),
        missing_sources,
        missing_inbox,
        hazards,
    }
}

/// What the dead-letter topic of another framework needs, which itself is nobody's to make: a place where it is put down what becomes
/// of its letters.
#[must_use]
pub fn desired_of_queue(queue: &QueueConfig, topics: &BTreeMap<String, TopicFacts>) -> Desired {
    let found = topics.get(&queue.topic);
    let replication_factor = found.map_or(1, |facts| facts.replication_factor.max(1));
    let min_insync = found.and_then(|facts| facts.setting(MIN_INSYNC_REPLICAS)?.parse().ok()).unwrap_or(1);
    let state = state_of(state_topic(&queue.name), replication_factor, min_insync.clamp(1, replication_factor));
    Desired {
        ladder: queue.name.clone(),
        mode: Mode::Relay,
        group: String::new(),
        topics: if found.is_some() { vec![state] } else { Vec::new() },
        offsets: Vec::new(),
        missing_sources: Vec::new(),
        missing_inbox: found.is_none().then(|| queue.topic.clone()),
        hazards: Vec::new(),
    }
}

/// In a compacted topic the last record of a key is the one that stays, and a redelivered one may be older than that.
fn compacted_origins(config: &LadderConfig, topics: &BTreeMap<String, TopicFacts>) -> Vec<String> {
    let ladder = &config.ladder;
    if ladder.redelivery() == Redelivery::Topic {
        return Vec::new();
    }
    let is_compacted = |source: &&String| {
        let policy = topics.get(*source).and_then(|facts| facts.setting(CLEANUP_POLICY));
        policy.is_some_and(|policy| policy.contains("compact"))
    };
    let hazard = |source: &String| {
        format!("source {source} is compacted, and records come back in it: an old one takes the place of a newer one of its key")
    };
    ladder.sources().iter().filter(is_compacted).map(hazard).collect()
}

/// What all topics of a ladder have in common.
struct Shape {
    partitions: i32,
    replication_factor: i32,
    configured: bool,
    min_insync_replicas: i32,
    max_message_bytes: i64,
}

impl Shape {
    /// Where sources differ the strongest counts: a ladder must not lose what one of them would have kept.
    fn of(config: &LadderConfig, sources: &[&TopicFacts]) -> Self {
        let number = |facts: &TopicFacts, name: &str| facts.setting(name).and_then(|v| v.parse::<i64>().ok());
        let largest = sources.iter().map(|s| s.partition_count()).max().unwrap_or(1);
        let replication_factor = sources.iter().map(|s| s.replication_factor).max().unwrap_or(1).max(1);
        let replication_factor = config.topics.replication_factor.unwrap_or(replication_factor);
        let min_insync = sources.iter().filter_map(|s| number(s, MIN_INSYNC_REPLICAS)).max().unwrap_or(1);
        let record = sources.iter().filter_map(|s| number(s, MAX_MESSAGE_BYTES)).max().unwrap_or(BROKER_MAX_MESSAGE_BYTES);
        Self {
            partitions: config.topics.partitions.unwrap_or(largest.clamp(1, MOST_PARTITIONS_UNASKED)),
            replication_factor,
            configured: config.topics.replication_factor.is_some(),
            // More than there are replicas would refuse every write.
            min_insync_replicas: i32::try_from(min_insync).unwrap_or(1).clamp(1, replication_factor.max(1)),
            max_message_bytes: record.saturating_add(HEADER_BUDGET).min(i64::from(i32::MAX)),
        }
    }

    fn hazards(&self) -> Vec<String> {
        let whose = if self.configured { "configured" } else { "that of the source" };
        if self.replication_factor == 1 {
            vec![format!("replication factor 1 ({whose}): a lost disk is lost records")]
        } else if self.min_insync_replicas == 1 {
            vec![format!(
                "min.insync.replicas 1 (that of the source): a record that one broker alone has confirmed can be lost, in spite of \
                 replication factor {}",
                self.replication_factor
            )]
        } else {
            Vec::new()
        }
    }
}

fn desired_topics(config: &LadderConfig, shape: &Shape) -> Vec<DesiredTopic> {
    let ladder = &config.ladder;
    let budget = config.topics.outage_budget;
    let topic = |name: String, role: TopicRole, retention: Duration| DesiredTopic {
        name,
        role,
        partitions: shape.partitions,
        replication_factor: shape.replication_factor,
        settings: settings([
            (CLEANUP_POLICY, "delete".to_owned()),
            (MAX_MESSAGE_BYTES, shape.max_message_bytes.to_string()),
            (MIN_INSYNC_REPLICAS, shape.min_insync_replicas.to_string()),
            (RETENTION_BYTES, "-1".to_owned()),
            (RETENTION_MS, retention.as_millis().min(i64::MAX as u128).to_string()),
            (TIMESTAMP_TYPE, "LogAppendTime".to_owned()),
        ]),
    };
    let mut topics: Vec<DesiredTopic> = ladder
        .tiers()
        .iter()
        .map(|t| topic(t.topic().to_owned(), TopicRole::Tier(t.delay()), t.delay().duration().saturating_add(budget)))
        .collect();
    // Where records come back in their origins nobody reads a redeliver topic: what was redriven to it would be lost unseen, so
    // there is none, and a redrive goes to the origin as well.
    if ladder.redelivery() == Redelivery::Topic {
        topics.push(topic(ladder.redeliver_topic(), TopicRole::Redeliver, budget));
    }
    if ladder.mode() == Mode::Relay && ladder.dialect().is_none() {
        topics.push(topic(ladder.inbox_topic(), TopicRole::Inbox, budget));
    }
    topics.extend(ladder.dlq_topics().into_iter().map(|name| topic(name, TopicRole::Dlq, config.topics.dlq_retention)));
    topics.push(state_of(ladder.state_topic(), shape.replication_factor, shape.min_insync_replicas));
    topics
}

fn state_of(name: String, replication_factor: i32, min_insync_replicas: i32) -> DesiredTopic {
    DesiredTopic {
        name,
        role: TopicRole::State,
        // One partition, so that its records have one order.
        partitions: 1,
        replication_factor,
        settings: settings([
            (CLEANUP_POLICY, "compact".to_owned()),
            (MIN_INSYNC_REPLICAS, min_insync_replicas.to_string()),
            (TIMESTAMP_TYPE, "LogAppendTime".to_owned()),
        ]),
    }
}

fn settings<const N: usize>(pairs: [(&str, String); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn desired_offsets(config: &LadderConfig) -> Vec<DesiredOffsets> {
    let ladder = &config.ladder;
    let at_oldest =
        |group: &str, topic: &str| DesiredOffsets { group: group.to_owned(), topic: topic.to_owned(), start: StartRule::Oldest };
    let mover = mover_group(ladder.name());
    let mut offsets: Vec<DesiredOffsets> = ladder.tiers().iter().map(|t| at_oldest(&mover, t.topic())).collect();
    if ladder.redelivery() == Redelivery::Topic {
        offsets.push(at_oldest(ladder.group(), &ladder.redeliver_topic()));
    }
    match ladder.mode() {
        // What has gathered in a dead-letter topic may be years old: whether that comes back too has to be said.
        Mode::Relay if ladder.dialect().is_some() => offsets.push(DesiredOffsets {
            group: router_group(ladder.name()),
            topic: ladder.inbox_topic(),
            start: StartRule::Configured(config.start),
        }),
        Mode::Relay => offsets.push(at_oldest(&router_group(ladder.name()), &ladder.inbox_topic())),
        // In relay the sources are the application's own affair.
        Mode::Push => offsets.extend(ladder.sources().iter().map(|source| DesiredOffsets {
            group: ladder.group().to_owned(),
            topic: source.clone(),
            start: StartRule::Configured(config.start),
        })),
    }
    offsets
}

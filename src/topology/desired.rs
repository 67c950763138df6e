//! What a ladder needs: its topics, and the start offsets of its groups.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::config::{LadderConfig, QueueConfig, Start, TopicSetting, TopicSettings};
use crate::core::ladder::{Mode, Redelivery};
use crate::core::topics::{TopicRole, mover_group, router_group, state_topic};
use crate::topology::TopicFacts;

/// Size that kladder's headers may add to a record: the ladder's topics accept records that much larger than the
/// source's.
pub const HEADER_BUDGET: i64 = 16 * 1024;

/// Maximum number of partitions unless configured: the cost of a transaction grows with the partitions that it
/// touches.
const MOST_PARTITIONS_UNASKED: i32 = 12;

/// Kafka's default `max.message.bytes`.
const BROKER_MAX_MESSAGE_BYTES: i64 = 1_048_588;

pub(super) const CLEANUP_POLICY: &str = "cleanup.policy";
pub(super) const MAX_MESSAGE_BYTES: &str = "max.message.bytes";
pub(super) const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";
pub(super) const RETENTION_BYTES: &str = "retention.bytes";
pub(super) const RETENTION_MS: &str = "retention.ms";
pub(super) const TIMESTAMP_TYPE: &str = "message.timestamp.type";

/// Settings that depend on the topic's records.
const OF_RECORDS: [&str; 3] = [MAX_MESSAGE_BYTES, RETENTION_BYTES, RETENTION_MS];

/// Not a topic setting, but reported like one.
pub(super) const REPLICATION_FACTOR: &str = "replication factor";

/// What a ladder needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// The ladder's name.
    pub ladder: String,
    /// Push or relay.
    pub mode: Mode,
    /// The group that it belongs to; empty if it belongs to none.
    pub group: String,
    /// Its topics; empty while none of its sources exists, since they depend on the sources.
    pub topics: Vec<DesiredTopic>,
    /// The start offsets of its groups.
    pub offsets: Vec<DesiredOffsets>,
    /// The sources that do not exist.
    pub missing_sources: Vec<String>,
    /// The inbox of another framework, if it does not exist: setup does not create it.
    pub missing_inbox: Option<String>,
    /// Weak durability inherited from the sources.
    pub hazards: Vec<String>,
}

/// A topic as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredTopic {
    /// The Kafka topic.
    pub name: String,
    /// Its purpose.
    pub role: TopicRole,
    /// Minimum number of partitions.
    pub partitions: i32,
    /// Replication factor.
    pub replication_factor: i32,
    /// Its settings.
    pub settings: BTreeMap<String, String>,
    /// The settings left to the cluster: not set on creation, and not reported as drift. Values that would lose records are refused
    /// nevertheless.
    pub left_to_cluster: BTreeSet<String>,
}

impl DesiredTopic {
    /// The settings for its creation.
    #[must_use]
    pub fn settings_to_make(&self) -> BTreeMap<String, String> {
        let is_set = |(name, _): &(&String, &String)| !self.left_to_cluster.contains(*name);
        self.settings.iter().filter(is_set).map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// With the configured settings.
    fn with(mut self, said: &TopicSettings) -> Self {
        for (name, setting) in said {
            match setting {
                TopicSetting::OfCluster => drop(self.left_to_cluster.insert(name.clone())),
                // Its records are kladder's own, small ones, and none of them may be deleted.
                TopicSetting::Value(_) if self.role == TopicRole::State && OF_RECORDS.contains(&name.as_str()) => {}
                TopicSetting::Value(value) => drop(self.settings.insert(name.clone(), value.clone())),
            }
        }
        self
    }
}

/// A group needs an offset on every partition of a topic: from then on a missing one was lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredOffsets {
    /// The consumer group.
    pub group: String,
    /// The topic that it reads.
    pub topic: String,
    /// Where it starts on a partition without offset.
    pub start: StartRule,
}

/// Where a group starts on a partition without offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartRule {
    /// At the oldest record.
    Oldest,
    /// As configured if the group has no offset on any partition of the topic; otherwise the partition was added, so at the
    /// oldest record.
    Configured(Option<Start>),
}

/// What this ladder needs, given the existing topics (only its sources matter).
#[must_use]
pub fn desired(config: &LadderConfig, topics: &BTreeMap<String, TopicFacts>) -> Desired {
    let ladder = &config.ladder;
    let sources: Vec<&TopicFacts> = ladder.sources().iter().filter_map(|s| topics.get(s)).collect();
    let missing_sources = ladder.sources().iter().filter(|s| !topics.contains_key(*s)).cloned().collect();
    let missing_inbox = ladder.dialect().map(|_| ladder.inbox_topic()).filter(|inbox| !topics.contains_key(inbox));
    let shape = Shape::of(config, &sources);
    let mut hazards = if sources.is_empty() { Vec::new() } else { shape.hazards(&config.topics.settings) };
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

/// What the dead-letter topic of another framework needs: a state topic for its letters. The dead-letter topic itself is not created
/// by setup.
#[must_use]
pub fn desired_of_queue(queue: &QueueConfig, topics: &BTreeMap<String, TopicFacts>) -> Desired {
    let found = topics.get(&queue.topic);
    let replication_factor = found.map_or(1, |facts| facts.replication_factor.max(1));
    let min_insync = found.and_then(|facts| facts.setting(MIN_INSYNC_REPLICAS)?.parse().ok()).unwrap_or(1);
    let state = state_of(state_topic(&queue.name), replication_factor, min_insync.clamp(1, replication_factor));
    let state = state.with(&queue.settings);
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

/// In a compacted topic the latest record of a key is kept, and a redelivered one may be older than that.
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
        format!(
            "source {source} is compacted, and records are redelivered to it: an old one replaces a newer one with the same key"
        )
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
    /// If sources differ, the strictest value is used: a ladder must not lose what one of them would have
    /// kept.
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
            // More than the number of replicas would refuse every write.
            min_insync_replicas: i32::try_from(min_insync).unwrap_or(1).clamp(1, replication_factor.max(1)),
            max_message_bytes: record.saturating_add(HEADER_BUDGET).min(i64::from(i32::MAX)),
        }
    }

    fn hazards(&self, said: &TopicSettings) -> Vec<String> {
        let whose = |configured: bool| if configured { "configured" } else { "that of the source" };
        let number = |name: &str| match said.get(name) {
            Some(TopicSetting::Value(value)) => value.parse::<i64>().ok(),
            _ => None,
        };
        let mut hazards = Vec::new();
        let min_insync = said.get(MIN_INSYNC_REPLICAS);
        if self.replication_factor == 1 {
            hazards.push(format!("replication factor 1 ({}): a lost disk loses records", whose(self.configured)));
        } else if number(MIN_INSYNC_REPLICAS).unwrap_or(i64::from(self.min_insync_replicas)) == 1
            && min_insync != Some(&TopicSetting::OfCluster)
        {
            hazards.push(format!(
                "min.insync.replicas 1 ({}): a record confirmed by a single broker can be lost, despite \
                 replication factor {}",
                whose(min_insync.is_some()),
                self.replication_factor
            ));
        }
        if let Some(bytes) = number(MAX_MESSAGE_BYTES).filter(|bytes| *bytes < self.max_message_bytes) {
            hazards.push(format!(
                "max.message.bytes {bytes} (configured) is less than the largest records of the source with kladder's headers need \
                 ({}): a record that does not fit is dead-lettered as oversize, and stops its partition if it does not fit there either",
                self.max_message_bytes
            ));
        }
        if let Some(bytes) = number(RETENTION_BYTES).filter(|bytes| *bytes >= 0) {
            hazards.push(format!(
                "retention.bytes {bytes} (configured): waiting records and dead letters are deleted when a partition grows beyond that"
            ));
        }
        hazards
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
        left_to_cluster: BTreeSet::new(),
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
    // If records are redelivered to their origins, nobody reads a redeliver topic: records redriven to it would be lost
    // unnoticed, so there is none, and redrives go to the origin too.
    if ladder.redelivery() == Redelivery::Topic {
        topics.push(topic(ladder.redeliver_topic(), TopicRole::Redeliver, budget));
    }
    if ladder.mode() == Mode::Relay && ladder.dialect().is_none() {
        topics.push(topic(ladder.inbox_topic(), TopicRole::Inbox, budget));
    }
    topics.extend(ladder.dlq_topics().into_iter().map(|name| topic(name, TopicRole::Dlq, config.topics.dlq_retention)));
    topics.push(state_of(ladder.state_topic(), shape.replication_factor, shape.min_insync_replicas));
    topics.into_iter().map(|topic| topic.with(&config.topics.settings)).collect()
}

fn state_of(name: String, replication_factor: i32, min_insync_replicas: i32) -> DesiredTopic {
    DesiredTopic {
        name,
        role: TopicRole::State,
        // One partition, so that its records are ordered.
        partitions: 1,
        replication_factor,
        left_to_cluster: BTreeSet::new(),
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
        // A dead-letter topic may contain years of records: whether to redeliver those too must be configured.
        Mode::Relay if ladder.dialect().is_some() => offsets.push(DesiredOffsets {
            group: router_group(ladder.name()),
            topic: ladder.inbox_topic(),
            start: StartRule::Configured(config.start),
        }),
        Mode::Relay => offsets.push(at_oldest(&router_group(ladder.name()), &ladder.inbox_topic())),
        // In relay mode the application decides about the sources.
        Mode::Push => offsets.extend(ladder.sources().iter().map(|source| DesiredOffsets {
            group: ladder.group().to_owned(),
            topic: source.clone(),
            start: StartRule::Configured(config.start),
        })),
    }
    offsets
}

//! What there is in a cluster, as far as ladders are concerned.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::{LadderConfig, QueueConfig};
use crate::core::ladder::Mode;
use crate::core::state::{Entry, OwnerRecord};
use crate::core::topics::{delay_of_tier_topic, mover_group, router_group, state_topic};

/// A snapshot of the topics and groups within a [`Scope`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// The topics that exist, by name.
    pub topics: BTreeMap<String, TopicFacts>,
    /// The consumer groups, by name; one that is absent has neither members nor offsets.
    pub groups: BTreeMap<String, GroupFacts>,
    /// What the state topics say of whom the ladders belong to, by the ladders' names.
    pub owners: BTreeMap<String, Entry<OwnerRecord>>,
}

/// A topic that exists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicFacts {
    /// The smallest number of replicas of any of its partitions.
    pub replication_factor: i32,
    /// What each partition holds, in their order.
    pub partitions: Vec<Watermarks>,
    /// The effective settings, the broker's defaults included.
    pub settings: BTreeMap<String, String>,
}

/// The first offset of a partition and the one after its last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Watermarks {
    /// The first offset that retention has left.
    pub low: i64,
    /// The offset that the next record will have.
    pub high: i64,
}

/// A consumer group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupFacts {
    /// How many members are active.
    pub members: usize,
    /// The committed offsets by topic and partition.
    pub offsets: BTreeMap<String, BTreeMap<i32, i64>>,
}

/// What must be looked at for some ladders.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    topics: BTreeSet<String>,
    ladders: BTreeSet<String>,
    groups: BTreeSet<String>,
}

impl TopicFacts {
    /// How many partitions it has.
    #[must_use]
    pub fn partition_count(&self) -> i32 {
        i32::try_from(self.partitions.len()).unwrap_or(i32::MAX)
    }

    /// A setting, when the broker has told it.
    #[must_use]
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(String::as_str)
    }
}

impl GroupFacts {
    /// The committed offset of a partition.
    #[must_use]
    pub fn offset(&self, topic: &str, partition: i32) -> Option<i64> {
        self.offsets.get(topic)?.get(&partition).copied()
    }
}

impl Observed {
    /// The committed offset of a group.
    #[must_use]
    pub fn offset(&self, group: &str, topic: &str, partition: i32) -> Option<i64> {
        self.groups.get(group)?.offset(topic, partition)
    }

    /// About how many records a group has still to read of a topic. Offsets, so transaction markers count too.
    #[must_use]
    pub fn waiting(&self, group: &str, topic: &str) -> i64 {
        let Some(facts) = self.topics.get(topic) else { return 0 };
        (0..)
            .zip(&facts.partitions)
            .map(|(p, w)| w.high - self.offset(group, topic, p).unwrap_or(w.low).clamp(w.low, w.high))
            .sum()
    }
}

impl Scope {
    /// What must be looked at for these ladders.
    #[must_use]
    pub fn of(ladders: &[&LadderConfig]) -> Self {
        let mut scope = Self::default();
        for config in ladders {
            let ladder = &config.ladder;
            scope.ladders.insert(ladder.name().to_owned());
            scope.topics.extend(ladder.sources().iter().cloned());
            scope.topics.extend([ladder.redeliver_topic(), ladder.state_topic()]);
            scope.topics.extend(ladder.dlq_topics());
            scope.groups.extend([ladder.group().to_owned(), mover_group(ladder.name())]);
            if ladder.mode() == Mode::Relay {
                scope.topics.insert(ladder.inbox_topic());
                scope.groups.insert(router_group(ladder.name()));
            }
        }
        scope
    }

    /// And what must be looked at for these dead-letter topics.
    #[must_use]
    pub fn with_queues(mut self, queues: &[&QueueConfig]) -> Self {
        self.topics.extend(queues.iter().flat_map(|queue| [queue.topic.clone(), state_topic(&queue.name)]));
        self
    }

    /// Whether a topic is within: named by a ladder, or a tier of one, whether or not it is still configured.
    #[must_use]
    pub fn contains(&self, topic: &str) -> bool {
        self.topics.contains(topic) || self.ladders.iter().any(|l| delay_of_tier_topic(l, topic).is_some())
    }

    /// The topics that are known by name: all but the tiers.
    pub fn named_topics(&self) -> impl Iterator<Item = &str> {
        self.topics.iter().map(String::as_str)
    }

    /// The ladders.
    pub fn ladders(&self) -> impl Iterator<Item = &str> {
        self.ladders.iter().map(String::as_str)
    }

    /// The consumer groups.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        self.groups.iter().map(String::as_str)
    }
}

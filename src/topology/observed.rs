//! What exists in a cluster, as far as ladders are concerned.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::{LadderConfig, QueueConfig};
use crate::core::ladder::Mode;
use crate::core::state::{OwnerRecord, StateValue};
use crate::core::topics::{delay_of_tier_topic, mover_group, router_group, state_topic};

/// A snapshot of the topics and groups within a [`Scope`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// The topics that exist, by name.
    pub topics: BTreeMap<String, TopicFacts>,
    /// The consumer groups, by name; an absent one has neither members nor offsets.
    pub groups: BTreeMap<String, GroupFacts>,
    /// The owner records of the state topics, by ladder.
    pub owners: BTreeMap<String, StateValue<OwnerRecord>>,
    /// The settings whose desired value the cluster does not accept, by topic and name, with its message; see
    /// [`ask_caps`](crate::topology::ask_caps).
    pub caps: BTreeMap<(String, String), String>,
}

/// An existing topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicFacts {
    /// The smallest number of replicas of its partitions.
    pub replication_factor: i32,
    /// The watermarks of each partition, in order.
    pub partitions: Vec<Watermarks>,
    /// The effective settings, with the broker's defaults.
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
    /// Number of active members.
    pub members: usize,
    /// The committed offsets by topic and partition.
    pub offsets: BTreeMap<String, BTreeMap<i32, i64>>,
}

/// What to observe for some ladders.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    topics: BTreeSet<String>,
    ladders: BTreeSet<String>,
    groups: BTreeSet<String>,
}

impl TopicFacts {
    /// Number of partitions.
    #[must_use]
    pub fn partition_count(&self) -> i32 {
        i32::try_from(self.partitions.len()).unwrap_or(i32::MAX)
    }

    /// A setting, if the broker has reported it.
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

    /// Estimated number of records of a topic that a group has still to read. By offsets, so transaction
    /// markers count too.
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
    /// The scope of these ladders.
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

    /// Adds these dead-letter topics.
    #[must_use]
    pub fn with_queues(mut self, queues: &[&QueueConfig]) -> Self {
        self.topics.extend(queues.iter().flat_map(|queue| [queue.topic.clone(), state_topic(&queue.name)]));
        self
    }

    /// Whether a topic is in scope: named by a ladder, or one of its tiers, configured or not.
    #[must_use]
    pub fn contains(&self, topic: &str) -> bool {
        self.topics.contains(topic) || self.ladders.iter().any(|l| delay_of_tier_topic(l, topic).is_some())
    }

    /// The topics known by name: all but the tiers.
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

//! The changes that a cluster needs for the ladders.

use std::collections::BTreeMap;

use serde::Serialize;

/// The whole plan. With a refusal in it nothing is applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The plan of each ladder.
    pub ladders: Vec<LadderPlan>,
    /// Totals of the ladders' own topics, once the plan is applied.
    pub totals: Totals,
    /// Refusals of the plan as a whole.
    pub refusals: Vec<Refusal>,
}

/// The plan for one ladder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LadderPlan {
    /// The ladder's name.
    pub ladder: String,
    /// The group that it belongs to.
    pub group: String,
    /// The changes, in this order.
    pub changes: Vec<Change>,
    /// Differences that the user must change.
    pub drift: Vec<Drift>,
    /// Differences that the cluster does not allow to change.
    pub caps: Vec<Cap>,
    /// Why nothing is applied.
    pub refusals: Vec<Refusal>,
    /// Worth knowing.
    pub notes: Vec<Note>,
}

/// A change made by setup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum Change {
    /// Creates a topic.
    CreateTopic {
        /// The topic.
        topic: String,
        /// Number of partitions.
        partitions: i32,
        /// Replication factor.
        replication_factor: i32,
        /// Its settings.
        settings: BTreeMap<String, String>,
    },
    /// Adds partitions to a topic.
    AddPartitions {
        /// The topic.
        topic: String,
        /// Current number of partitions.
        have: i32,
        /// Number of partitions afterwards.
        want: i32,
    },
    /// Commits start offsets of a group on partitions where it has none.
    CommitOffsets {
        /// The group.
        group: String,
        /// The topic.
        topic: String,
        /// Where it starts.
        at: Position,
        /// The partitions.
        partitions: Vec<i32>,
    },
    /// Records a group as the ladder's owner.
    Claim {
        /// The state topic with the owner record.
        topic: String,
        /// The group.
        group: String,
        /// The previous owner, or what the record contained instead.
        from: Option<String>,
    },
}

/// A position in a partition, looked up when the plan is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Position {
    /// The oldest record.
    Oldest,
    /// The end of the partition.
    End,
}

/// A setting that differs, and the command that changes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Drift {
    /// The topic.
    pub topic: String,
    /// The setting.
    pub setting: String,
    /// Its current value.
    pub have: String,
    /// The desired value.
    pub want: String,
    /// The command that changes exactly that.
    pub command: String,
}

/// A setting that differs, and whose desired value the cluster does not accept: nobody can change it, so it is not drift.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cap {
    /// The topic.
    pub topic: String,
    /// The setting.
    pub setting: String,
    /// Its current value.
    pub have: String,
    /// The desired value.
    pub want: String,
    /// Why the cluster does not accept it: its message.
    pub words: String,
}

/// Why the plan is not applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// The topic, group or option.
    pub subject: String,
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}

/// A note.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    /// The topic or ladder.
    pub subject: String,
    /// The text.
    pub text: String,
}

/// Totals of the ladders' own topics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Topics.
    pub topics: i64,
    /// Their partitions.
    pub partitions: i64,
    /// The partitions' replicas.
    pub replicas: i64,
}

/// Limits of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Maximum number of partitions added in total.
    pub max_partitions: u32,
    /// Whether ladders of other groups are taken over instead of refused.
    pub take_over: bool,
    /// The brokers' addresses, for the commands in the plan.
    pub bootstrap_servers: String,
}

impl Change {
    /// The topic that is created or extended.
    #[must_use]
    pub fn topic_that_grows(&self) -> Option<&str> {
        match self {
            Self::CreateTopic { topic, .. } | Self::AddPartitions { topic, .. } => Some(topic),
            Self::CommitOffsets { .. } | Self::Claim { .. } => None,
        }
    }
}

impl Plan {
    /// No changes, no drift, no refusals.
    #[cfg(test)]
    #[must_use]
    pub fn is_in_order(&self) -> bool {
        !self.is_refused() && !self.has_changes() && !self.has_drift()
    }

    /// Whether it must not be applied.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        !self.refusals.is_empty() || self.ladders.iter().any(|l| !l.refusals.is_empty())
    }

    /// Whether there are changes to apply.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        self.changes().next().is_some()
    }

    /// Whether something differs that the user must change.
    #[must_use]
    pub fn has_drift(&self) -> bool {
        self.ladders.iter().any(|l| !l.drift.is_empty())
    }

    /// All changes, ladder by ladder.
    pub fn changes(&self) -> impl Iterator<Item = &Change> {
        self.ladders.iter().flat_map(|l| &l.changes)
    }
}

//! What must be done to a cluster so that the ladders find what they need.

use std::collections::BTreeMap;

use serde::Serialize;

/// The whole plan. With a refusal in it nothing of it is carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// What each ladder needs.
    pub ladders: Vec<LadderPlan>,
    /// What the ladders' own topics come to, once the plan is applied.
    pub totals: Totals,
    /// What is refused of the whole.
    pub refusals: Vec<Refusal>,
}

/// The plan for one ladder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LadderPlan {
    /// The ladder's name.
    pub ladder: String,
    /// The group that it belongs to.
    pub group: String,
    /// What setup will do, in this order.
    pub changes: Vec<Change>,
    /// What differs and somebody else must change.
    pub drift: Vec<Drift>,
    /// Why nothing will be done.
    pub refusals: Vec<Refusal>,
    /// What is worth knowing.
    pub notes: Vec<Note>,
}

/// Something that setup does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum Change {
    /// A topic is made.
    CreateTopic {
        /// The topic.
        topic: String,
        /// How many partitions it gets.
        partitions: i32,
        /// How many replicas each of them gets.
        replication_factor: i32,
        /// Its settings.
        settings: BTreeMap<String, String>,
    },
    /// A topic gets more partitions.
    AddPartitions {
        /// The topic.
        topic: String,
        /// How many it has.
        have: i32,
        /// How many it gets.
        want: i32,
    },
    /// A group gets an offset on partitions where it has none.
    CommitOffsets {
        /// The group.
        group: String,
        /// The topic.
        topic: String,
        /// Where it starts.
        at: Position,
        /// On these partitions.
        partitions: Vec<i32>,
    },
    /// The ladder is put down as belonging to a group.
    Claim {
        /// The state topic, where that stands.
        topic: String,
        /// The group.
        group: String,
        /// The group that it belonged to, or what stood there instead.
        from: Option<String>,
    },
}

/// A place in a partition that is looked up when the plan is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Position {
    /// The oldest record.
    Oldest,
    /// The next record to be produced.
    End,
}

/// A setting that differs, and the command that alters it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Drift {
    /// The topic.
    pub topic: String,
    /// What differs.
    pub setting: String,
    /// What it is.
    pub have: String,
    /// What it should be.
    pub want: String,
    /// Alters exactly that.
    pub command: String,
}

/// Why the plan is not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// The topic, group or option.
    pub subject: String,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
}

/// Something worth knowing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    /// The topic or ladder.
    pub subject: String,
    /// What is worth knowing of it.
    pub text: String,
}

/// What the ladders' own topics come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Topics.
    pub topics: i64,
    /// Partitions of them.
    pub partitions: i64,
    /// Replicas of those.
    pub replicas: i64,
}

/// What a plan keeps to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// No plan adds to more partitions than that in total.
    pub max_partitions: u32,
    /// Ladders of other groups are taken over, not refused.
    pub take_over: bool,
    /// The brokers' addresses, for the commands that it prints.
    pub bootstrap_servers: String,
}

impl Plan {
    /// Nothing to do, nothing that differs, nothing refused.
    #[must_use]
    pub fn is_in_order(&self) -> bool {
        !self.is_refused() && !self.has_changes() && !self.has_drift()
    }

    /// Whether it must not be carried out.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        !self.refusals.is_empty() || self.ladders.iter().any(|l| !l.refusals.is_empty())
    }

    /// Whether there is something to carry out.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        self.changes().next().is_some()
    }

    /// Whether something differs that somebody else must change.
    #[must_use]
    pub fn has_drift(&self) -> bool {
        self.ladders.iter().any(|l| !l.drift.is_empty())
    }

    /// All changes, ladder by ladder.
    pub fn changes(&self) -> impl Iterator<Item = &Change> {
        self.ladders.iter().flat_map(|l| &l.changes)
    }
}

//! One observation of ladders: plain data.

use std::time::Duration;

use crate::core::delay::Delay;
use crate::core::role::Role;
use crate::core::state::{LadderState, StateValue};
use crate::core::time::Timestamp;
use crate::observe::handler::HandlerSeen;
use crate::topology::{ClusterError, GroupMember, Observed};

/// One observation of all ladders of an observer.
#[derive(Debug, Clone)]
pub struct Observation {
    /// When it was made, by the clock of this process.
    pub at: Timestamp,
    /// The ends of the topics, and the groups' offsets.
    pub standing: Observed,
    /// In the order of the observer.
    pub ladders: Vec<LadderFacts>,
}

/// One ladder. Topics that do not exist, or may not be described, are left out.
#[derive(Debug, Clone, Default)]
pub struct LadderFacts {
    /// The content of the state topic; `None` if there is no such topic, or it could not be read.
    pub state: Option<LadderState>,
    /// The handler of the worker that answered.
    pub handler: Option<HandlerSeen>,
    /// The sources.
    pub sources: Vec<QueueFacts>,
    /// The inbox (relay).
    pub inbox: Option<QueueFacts>,
    /// The tiers.
    pub tiers: Vec<TierFacts>,
    /// Tiers that are no longer in the configuration, but have topics, if they were asked for.
    pub former_tiers: Vec<TierFacts>,
    /// The redeliver topic.
    pub redeliver: Option<QueueFacts>,
    /// The ladder's dead-letter topic, and those of its rules.
    pub dead_letters: Vec<QueueFacts>,
    /// Number of open dead letters, if the worker that answered counts them.
    pub open_dead_letters: Option<f64>,
    /// Number of redelivered records that came back without headers, as counted by that worker.
    pub headers_missing: Option<f64>,
    /// The members of the ladder's groups, as far as they were asked for and could be described.
    pub members: Vec<GroupSeen>,
    /// What could not be read.
    pub unseen: Vec<Unseen>,
}

/// A topic, and the group that consumes it. Counts are in offsets, so they include transaction markers, unless the records were
/// counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueueFacts {
    /// The topic.
    pub topic: String,
    /// The group; empty for dead letters, which no group commits.
    pub group: String,
    /// Records that the group has not finished.
    pub waiting: i64,
    /// Sum of the end offsets of all partitions: two observations give the rate in.
    pub ends: i64,
    /// Sum of the group's offsets: two observations give the rate out.
    pub done: i64,
    /// Number of partitions without a committed offset.
    pub without_offset: usize,
}

/// A tier.
#[derive(Debug, Clone, PartialEq)]
pub struct TierFacts {
    /// Its topic, and the mover's group.
    pub queue: QueueFacts,
    /// Its delay.
    pub delay: Delay,
    /// How many of the waiting records are due.
    pub due: i64,
    /// When the oldest waiting record was appended, by the clock of the partition's leader.
    pub oldest: Option<Timestamp>,
    /// When it is due, by the clock of this process.
    pub next_due: Option<Timestamp>,
    /// Of redeliveries, since the start of the worker that answered.
    pub lateness: Option<Lateness>,
    /// Number of hops into the tier, since the start of the worker that answered.
    pub hops: Option<f64>,
}

/// From due to redelivered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lateness {
    /// The median.
    pub p50: Duration,
    /// The 99th percentile.
    pub p99: Duration,
}

/// A group of a ladder, and its members.
#[derive(Debug, Clone)]
pub struct GroupSeen {
    /// The group.
    pub group: String,
    /// The role of its members; `None` for the application (relay).
    pub role: Option<Role>,
    /// The members.
    pub members: Vec<GroupMember>,
}

/// A part of an observation that can fail alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// The content of the state topic.
    State,
    /// The oldest waiting record of this tier topic.
    Oldest(String),
    /// The members of this group.
    Members(String),
}

/// A part that could not be read.
#[derive(Debug, Clone)]
pub struct Unseen {
    /// The part.
    pub part: Part,
    /// Why.
    pub error: ClusterError,
}

impl Observation {
    /// Whether a topic exists and may be described.
    #[must_use]
    pub fn has(&self, topic: &str) -> bool {
        self.standing.topics.contains_key(topic)
    }
}

/// `HELD since 2026-01-31T12:00:00Z (5m ago) by anna@ops-1: the handler is being replaced`; `None` if the ladder is not held.
#[must_use]
pub fn held_text(state: &LadderState, now: Timestamp) -> Option<String> {
    match &state.hold {
        StateValue::Read(hold) if hold.held => Some(format!("HELD {}", hold.since(now))),
        StateValue::Unreadable(error) => Some(format!("HELD by an unreadable record ({error}); kladder resume overwrites it")),
        StateValue::Read(_) | StateValue::Absent => None,
    }
}

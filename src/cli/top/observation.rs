//! One observation of the ladders as it is drawn: plain data, from a cluster or from anywhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::core::ladder::Mode;
use crate::core::time::Timestamp;
use crate::observe::{HandlerSeen, Lateness};

/// One observation of all ladders shown.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Observation {
    /// When it was made, by the clock of this process.
    pub at: Timestamp,
    /// In the order in which they are numbered.
    pub ladders: Vec<LadderSeen>,
    /// Address of the worker whose metrics were read; `None` if none answered, and then its data is unknown.
    pub worker: Option<String>,
}

/// One ladder.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LadderSeen {
    pub name: String,
    pub mode: Mode,
    pub group: String,
    pub hold: HoldSeen,
    /// Until when dead letters are held in the largest tier, by whom and why; `None` if they are not.
    pub dead_letters_held: Option<String>,
    /// The handler of the worker that answered.
    pub handler: Option<HandlerSeen>,
    /// The workers that report their handler as down.
    pub handlers_down: Vec<String>,
    pub sources: Vec<QueueSeen>,
    /// The inbox (relay).
    pub inbox: Option<QueueSeen>,
    pub tiers: Vec<TierSeen>,
    pub redeliver: Option<QueueSeen>,
    pub dead_letters: Option<DeadLetters>,
    /// Members of the ladder's groups; `None` if unknown.
    pub members: Option<Vec<MemberSeen>>,
    /// What could not be observed, in words.
    pub notes: Vec<String>,
}

/// Whether a ladder is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum HoldSeen {
    /// Unknown.
    Unknown,
    /// Not held.
    Running,
    /// Held, with the text that says since when and by whom.
    Held(String),
}

/// A topic and the group that consumes it. Counts are in offsets, so they include transaction
/// markers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct QueueSeen {
    pub topic: String,
    /// Records that the group has not finished.
    pub waiting: i64,
    /// Sum of the end offsets of all partitions: two observations give the rate in.
    pub ends: i64,
    /// Sum of the group's offsets: two observations give the rate out.
    pub done: i64,
}

/// A tier.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TierSeen {
    pub queue: QueueSeen,
    pub delay: Duration,
    /// How many of the waiting records are due.
    pub due: i64,
    /// When the oldest waiting record is due, by the clock of this process.
    pub next_due: Option<Timestamp>,
    /// Since the start of the worker that answered.
    pub lateness: Option<Lateness>,
}

/// The dead letters of all dead-letter topics of a ladder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct DeadLetters {
    /// Records still in the topics.
    pub records: i64,
    /// Sum of the end offsets of all partitions.
    pub ends: i64,
    /// Open letters, if a worker counts them.
    pub open: Option<i64>,
}

/// A member of one of the ladder's groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MemberSeen {
    /// The worker's instance name, or the client's own name.
    pub worker: String,
    /// The host that it connects from.
    pub host: String,
    /// deliverer, mover, router, or application.
    pub role: &'static str,
    /// Its partitions, by topic.
    pub partitions: BTreeMap<String, BTreeSet<i32>>,
}

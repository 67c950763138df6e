//! What was seen of the ladders at one moment: plain data, from a cluster or from anywhere else.

use crate::cli::handler_seen::HandlerSeen;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::core::ladder::Mode;
use crate::core::time::Timestamp;

/// One look at all ladders that are shown.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Observation {
    /// When, by the clock of this process.
    pub at: Timestamp,
    /// In the order in which they can be chosen.
    pub ladders: Vec<LadderSeen>,
    /// The address of the worker whose metrics were read; `None` where none answered, so that what only it knows is unknown.
    pub worker: Option<String>,
}

/// One ladder.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LadderSeen {
    pub name: String,
    pub mode: Mode,
    pub group: String,
    pub hold: Hold,
    /// Until when, by whom and why what would be dead letters waits in the largest tier; `None` where it does not.
    pub dead_letters_held: Option<String>,
    /// The handler of the worker that answered.
    pub handler: Option<HandlerSeen>,
    /// The workers that have told the others that their handler is down.
    pub handlers_down: Vec<String>,
    pub sources: Vec<Queue>,
    /// Where failed records arrive (relay).
    pub inbox: Option<Queue>,
    pub tiers: Vec<TierSeen>,
    pub redeliver: Option<Queue>,
    pub dead_letters: Option<DeadLetters>,
    /// Who is in the ladder's groups; `None` where that is unknown.
    pub members: Option<Vec<Member>>,
    /// What could not be looked at, in words.
    pub notes: Vec<String>,
}

/// Whether a ladder is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hold {
    /// Nobody can say.
    Unknown,
    /// It is not.
    Running,
    /// It is, as told.
    Held(String),
}

/// A topic and the group that empties it. Offsets, so the markers of transactions count, too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Queue {
    pub topic: String,
    /// What the group has not done.
    pub waiting: i64,
    /// The ends of all partitions added up: two looks give the rate in.
    pub ends: i64,
    /// The places of the group added up: two looks give the rate out.
    pub done: i64,
}

/// A tier.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TierSeen {
    pub queue: Queue,
    pub delay: Duration,
    /// How many of those that wait are due.
    pub due: i64,
    /// When the oldest that waits is due, by the clock of this process.
    pub next_due: Option<Timestamp>,
    /// Since the start of the worker that answered.
    pub lateness: Option<Lateness>,
}

/// From due to redelivered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Lateness {
    pub p50: Duration,
    pub p99: Duration,
}

/// The dead letters of all topics of a ladder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct DeadLetters {
    /// What retention has left.
    pub records: i64,
    /// The ends of all partitions added up.
    pub ends: i64,
    /// Those about which nothing was done yet, where a worker counts them.
    pub open: Option<i64>,
}

/// A member of one of the ladder's groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    /// The name of the worker, or whatever it calls itself.
    pub worker: String,
    /// From where it is connected.
    pub host: String,
    /// deliverer, mover, router, or application.
    pub role: &'static str,
    /// Its partitions, by their topics.
    pub partitions: BTreeMap<String, BTreeSet<i32>>,
}

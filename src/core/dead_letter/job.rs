//! Jobs on dead letters: redrives and other actions, requests to them, and the lease of the current redriver.

use serde::{Deserialize, Serialize};

use crate::core::dead_letter::VERSION;
use crate::core::time::Timestamp;

/// Time after its owner's last heartbeat at which a lease expires, in milliseconds.
pub(super) const LEASE_MILLIS: i64 = 15_000;

/// The actions on dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    /// Send back.
    Redrive,
    /// Change one, and send it back.
    Edit,
    /// Mark as resolved.
    Resolve,
    /// Mark as not needed.
    Discard,
    /// Reopen.
    Restore,
    /// Delete from the topic.
    Purge,
}

impl Verb {
    /// As used in commands.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redrive => "redrive",
            Self::Edit => "edit",
            Self::Resolve => "resolve",
            Self::Discard => "discard",
            Self::Restore => "restore",
            Self::Purge => "purge",
        }
    }
}

/// The status of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobStatus {
    /// Running, unless its process has died.
    Running,
    /// Waiting for the outcome of its first letters.
    Canary,
    /// Paused by a user.
    Paused,
    /// Finished.
    Done,
    /// Cancelled by a user; the other letters are unchanged.
    Cancelled,
    /// Stopped by itself, since too many failed again or a limit was reached; the other letters are
    /// unchanged.
    Stopped,
    /// Kafka failed to do it, or a part of it; `why` has the reason.
    Failed,
}

impl JobStatus {
    /// As shown in commands.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Canary => "canary",
            Self::Paused => "paused",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Cancelled | Self::Stopped | Self::Failed)
    }
}

/// One action on dead letters: request and progress.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// The format version.
    pub v: u32,
    /// Its name.
    pub id: String,
    /// Its action.
    pub verb: Verb,
    /// Its dead-letter topic, by the prefix of the letters' keys.
    pub queue: String,
    /// Its filter.
    pub filter: String,
    /// Only letters below these offsets, by partition: later ones were not previewed.
    pub below: Vec<(i32, i64)>,
    /// Time of the request, in epoch milliseconds: ages in the filter count from then.
    pub at: i64,
    /// By whom.
    pub by: String,
    /// The reason in their words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The target: `redeliver`, `origin` or a topic (redrive).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// All other options (redrive), so that it can be continued elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms: Option<Terms>,
    /// Its status.
    pub status: JobStatus,
    /// Why it ended early.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Number of selected letters.
    pub total: u64,
    /// Number of finished letters.
    pub done: u64,
    /// Number of skipped letters: changed meanwhile, deleted, or refused by their target.
    pub skipped: u64,
    /// When this was written, in epoch milliseconds.
    pub heard: i64,
}

/// The options of a redrive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// Letters per second; unlimited if absent.
    pub rate: Option<f64>,
    /// Time over which the rate rises from a tenth to its full value, in milliseconds.
    pub ramp: u64,
    /// Maximum number of letters to send.
    pub max: Option<u64>,
    /// Send this many first and wait for their outcome.
    pub canary: u64,
    /// Stop when more than this share of the finished letters has failed again.
    pub stop_at: f64,
    /// Include parked letters.
    pub force: bool,
    /// The jq program applied to each value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transform: Option<String>,
    /// The content of the letters was given in a file, and is not that of the dead-letter topic.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub brought: bool,
}

impl Terms {
    /// All letters at once, whatever their outcomes.
    #[must_use]
    pub fn at_once(force: bool) -> Self {
        Self { rate: None, ramp: 0, max: None, canary: 0, stop_at: 1.0, force, transform: None, brought: false }
    }
}

impl Job {
    /// A job that has not started.
    #[must_use]
    pub fn new(id: &str, verb: Verb, queue: &str, filter: &str, below: Vec<(i32, i64)>, by: &str, at: Timestamp) -> Self {
        Self {
            v: VERSION,
            id: id.to_owned(),
            verb,
            queue: queue.to_owned(),
            filter: filter.to_owned(),
            below,
            at: at.as_millis(),
            by: by.to_owned(),
            note: None,
            target: None,
            terms: None,
            status: JobStatus::Running,
            why: None,
            total: 0,
            done: 0,
            skipped: 0,
            heard: at.as_millis(),
        }
    }

    /// As a key of the state topic.
    #[must_use]
    pub fn to_key(&self) -> String {
        format!("job/{}", self.id)
    }

    /// Whether its process seems to have ended.
    #[must_use]
    pub fn is_left(&self, now: Timestamp) -> bool {
        !self.status.is_over() && now.as_millis() - self.heard > LEASE_MILLIS
    }
}

/// Requests to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Asked {
    /// To wait.
    Pause,
    /// To go on.
    Resume,
    /// To end.
    Cancel,
}

/// A request to a job, and by whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    /// The format version.
    pub v: u32,
    /// The request.
    pub asked: Asked,
    /// By whom.
    pub by: String,
    /// When, in epoch milliseconds.
    pub at: i64,
}

impl Wish {
    /// A request by this user.
    #[must_use]
    pub fn new(asked: Asked, by: &str, at: Timestamp) -> Self {
        Self { v: VERSION, asked, by: by.to_owned(), at: at.as_millis() }
    }

    /// The key in the state topic.
    #[must_use]
    pub fn key_of(job: &str) -> String {
        format!("job/{job}/wish")
    }
}

/// The current redriver. A courtesy: it only makes a second one ask before it starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// The format version.
    pub v: u32,
    /// The owner.
    pub owner: String,
    /// Its job; `None` if the lease was released.
    pub job: Option<String>,
    /// Its last heartbeat, in epoch milliseconds.
    pub heard: i64,
}

impl Lease {
    /// A lease of this owner.
    #[must_use]
    pub fn new(owner: &str, job: Option<&str>, now: Timestamp) -> Self {
        Self { v: VERSION, owner: owner.to_owned(), job: job.map(str::to_owned), heard: now.as_millis() }
    }

    /// Whether it is held by another owner.
    #[must_use]
    pub fn keeps_out(&self, owner: &str, now: Timestamp) -> bool {
        self.job.is_some() && self.owner != owner && now.as_millis() - self.heard <= LEASE_MILLIS
    }
}

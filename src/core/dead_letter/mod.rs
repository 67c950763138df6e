//! The records of `{ladder}.state` about dead letters: the last action on each, the jobs, and the outcomes of redriven
//! records.
//!
//! Kafka cannot mark a record, so the state of a dead letter is kept in another topic. Keys are like
//! paths:
//!
//! | key | value | written |
//! |---|---|---|
//! | `letter/PARTITION/OFFSET/APPENDED` | [`Fate`] | within a turn, in the transaction of the action |
//! | `letter.NAME/…` | the same for the dead-letter topic of a rule, `{ladder}.dlq-NAME` | |
//! | `job/ID` | [`Job`] | the same; `job/ID/wish` ([`Wish`]) by anyone, to pause, resume or cancel a running job |
//! | `lease` | [`Lease`] | the same: the current redriver |
//! | `outcome/ID` | [`RedriveOutcome`] | by the worker that has finished a redriven record, with its offset |
//!
//! The append time is part of a letter's key, so that a deleted and recreated topic does not inherit the states of the old one.
//! Values are JSON with a format version, parsed strictly; if one is unreadable, the state of its letter is unknown, and the letter
//! is left alone.

mod job;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::core::state::{StateError, read_value, write_value};
use crate::core::time::Timestamp;

pub use job::*;

/// The key of the [`Lease`].
pub const LEASE_KEY: &str = "lease";

/// The format version.
const VERSION: u32 = 1;

/// Identifies a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LetterKey {
    /// The partition of the DLQ.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// When the broker appended it.
    pub appended: Timestamp,
}

impl LetterKey {
    /// As a key of the state topic, after the prefix of its dead-letter topic.
    #[must_use]
    pub fn to_key(self, prefix: &str) -> String {
        format!("{prefix}/{}/{}/{}", self.partition, self.offset, self.appended)
    }
}

/// `3/1042`: partition and offset, as used in commands.
impl fmt::Display for LetterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.partition, self.offset)
    }
}

/// The current state of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LetterState {
    /// No action yet.
    Open,
    /// Sent back; outcome unknown yet.
    Redriven,
    /// Sent back, and done by the handler.
    Succeeded,
    /// Sent back, and dead again: a younger letter with its id represents it.
    FailedAgain,
    /// A user says that nothing needs to be done any more.
    Resolved,
    /// A user does not need it. It stays until retention deletes it.
    Discarded,
    /// Open, but sent back so often that another redrive must be forced.
    Parked,
}

impl LetterState {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Open, Self::Redriven, Self::Succeeded, Self::FailedAgain, Self::Resolved, Self::Discarded, Self::Parked];

    /// As used in commands.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Redriven => "redriven",
            Self::Succeeded => "succeeded",
            Self::FailedAgain => "failed-again",
            Self::Resolved => "resolved",
            Self::Discarded => "discarded",
            Self::Parked => "parked",
        }
    }

    /// States that still need action.
    pub const UNDONE: [Self; 2] = [Self::Open, Self::Parked];

    /// States in which a letter may be sent back: parked ones only if forced.
    #[must_use]
    pub fn may_be_sent(force: bool) -> &'static [Self] {
        if force { &Self::UNDONE } else { &[Self::Open] }
    }
}

impl fmt::Display for LetterState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The last action on a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fate {
    /// The format version.
    pub v: u32,
    /// `open` again, `redriven`, `resolved` or `discarded`; the other states are derived.
    pub state: LetterState,
    /// By whom.
    pub by: String,
    /// When, in epoch milliseconds.
    pub at: i64,
    /// Its job.
    pub job: String,
    /// The reason in their words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The target topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The idempotency key of the sent record, by which its outcome is recognised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The changes made, as a diff.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff: Option<String>,
}

impl Fate {
    /// An action of a job.
    #[must_use]
    pub fn new(state: LetterState, by: &str, at: Timestamp, job: &str) -> Self {
        let (by, at, job) = (by.to_owned(), at.as_millis(), job.to_owned());
        Self { v: VERSION, state, by, at, job, note: None, target: None, id: None, diff: None }
    }
}

/// The outcome of a redriven record that did not come back as a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedriveOutcome {
    /// The format version.
    pub v: u32,
    /// Redrive number.
    pub redrives: u32,
    /// When it was done, in epoch milliseconds.
    pub at: i64,
}

impl RedriveOutcome {
    /// Done by the handler.
    #[must_use]
    pub fn new(redrives: u32, at: Timestamp) -> Self {
        Self { v: VERSION, redrives, at: at.as_millis() }
    }

    /// The key in the state topic.
    #[must_use]
    pub fn key_of(id: &str) -> String {
        format!("outcome/{id}")
    }
}

/// A record of the state topic about dead letters.
#[derive(Debug, Clone, PartialEq)]
pub enum DeadLetterEntry {
    /// The last action on a letter; `None` if it was removed.
    Fate(LetterKey, Option<Fate>),
    /// A job.
    Job(String, Option<Job>),
    /// A request to a job.
    Wish(String, Option<Wish>),
    /// The lease.
    Lease(Option<Lease>),
    /// The outcome of a redriven record, by its id.
    Outcome(String, Option<RedriveOutcome>),
}

impl DeadLetterEntry {
    /// The substitute for an unreadable record about a letter, written by a newer version or damaged: redriven, so that the letter is
    /// not sent again. `None` if the record is not about a letter.
    #[must_use]
    pub fn of_unreadable(prefix: &str, key: Option<&[u8]>) -> Option<Self> {
        let Ok(Self::Fate(letter, None)) = Self::read(prefix, key, None)? else { return None };
        let mut fate = Fate::new(LetterState::Redriven, "?", Timestamp::from_millis(0), "?");
        fate.note = Some("its state record cannot be read; it may have been written by another version".to_owned());
        Some(Self::Fate(letter, Some(fate)))
    }

    /// Parses one; `None` if the record is about something else, including letters of another prefix.
    ///
    /// # Errors
    /// It is about dead letters and cannot be parsed.
    pub fn read(prefix: &str, key: Option<&[u8]>, value: Option<&[u8]>) -> Option<Result<Self, StateError>> {
        let key = std::str::from_utf8(key?).ok()?;
        if key == LEASE_KEY {
            return Some(value.map(read_value).transpose().map(Self::Lease));
        }
        if let Some(id) = key.strip_prefix("outcome/") {
            return Some(value.map(read_value).transpose().map(|outcome| Self::Outcome(id.to_owned(), outcome)));
        }
        if let Some(rest) = key.strip_prefix("job/") {
            return Some(match rest.strip_suffix("/wish") {
                Some(id) => value.map(read_value).transpose().map(|wish| Self::Wish(id.to_owned(), wish)),
                None => value.map(read_value).transpose().map(|job| Self::Job(rest.to_owned(), job)),
            });
        }
        let mut parts = key.strip_prefix(prefix)?.strip_prefix('/')?.split('/');
        let partition = parts.next()?.parse().ok()?;
        let offset = parts.next()?.parse().ok()?;
        let appended = Timestamp::from_millis(parts.next()?.parse().ok()?);
        let letter = LetterKey { partition, offset, appended };
        Some(value.map(read_value).transpose().map(|fate| Self::Fate(letter, fate)))
    }
}

/// The serialised value of a [`Fate`], [`Job`], [`Wish`], [`Lease`] or [`RedriveOutcome`].
#[must_use]
pub fn to_value(record: &impl Serialize) -> String {
    write_value(record)
}

#[cfg(test)]
mod tests;

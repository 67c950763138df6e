//! What `{ladder}.state` holds about dead letters: what became of each, the jobs that did it, and how redriven ones ended.
//!
//! Kafka cannot mark a record, so what became of a dead letter stands beside it. Keys are like paths:
//!
//! | key | value | written |
//! |---|---|---|
//! | `letter/PARTITION/OFFSET/APPENDED` | [`Fate`] | in turns, in the transaction that does it |
//! | `letter.NAME/…` | the same of a dead-letter topic of its own, `{ladder}.dlq-NAME` | |
//! | `job/ID` | [`Job`] | the same; `job/ID/wish` ([`Wish`]) by anybody, who asks a running one to pause, go on or end |
//! | `lease` | [`Lease`] | the same: who redrives now |
//! | `outcome/ID` | [`Outcome`] | by the worker that has finished a redriven record, with its offset |
//!
//! The append time is part of a letter's key, so that a topic that was deleted and made anew does not inherit what became of the old
//! one's records. Values are JSON with a format version, read strictly; one that cannot be read says nothing of its letter, which is
//! then not touched.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::core::state::{StateError, read_value, write_value};
use crate::core::time::Timestamp;

/// The key of the [`Lease`].
pub const LEASE_KEY: &str = "lease";

/// A lease whose owner was not heard for so long is nobody's, in milliseconds.
pub const LEASE_MILLIS: i64 = 15_000;

/// The format that is written and read.
const VERSION: u32 = 1;

/// A dead letter, wherever it is spoken of.
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
    /// As a key of the state topic, behind the prefix of its dead-letter topic.
    #[must_use]
    pub fn to_key(self, prefix: &str) -> String {
        format!("{prefix}/{}/{}/{}", self.partition, self.offset, self.appended)
    }
}

/// `3/1042`: partition and offset, as commands show and take it.
impl fmt::Display for LetterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.partition, self.offset)
    }
}

/// What a dead letter is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LetterState {
    /// Nothing was done with it.
    Open,
    /// Sent back; how it ended is not known yet.
    Redriven,
    /// Sent back, and the handler has done it.
    Succeeded,
    /// Sent back, and dead again: a younger letter with its id stands for it.
    FailedAgain,
    /// Somebody says that nothing needs to be done any more.
    Resolved,
    /// Somebody does not want it. It stays until retention takes it.
    Discarded,
    /// Open, but it was sent back so often that to do it once more must be forced.
    Parked,
}

impl LetterState {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Open, Self::Redriven, Self::Succeeded, Self::FailedAgain, Self::Resolved, Self::Discarded, Self::Parked];

    /// As commands show and take it.
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

    /// Those about which somebody has to do something still.
    pub const UNDONE: [Self; 2] = [Self::Open, Self::Parked];

    /// Those in which a letter may be sent back: parked ones only when that is forced.
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

/// What was done with a dead letter last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fate {
    /// The format version.
    pub v: u32,
    /// `open` again, `redriven`, `resolved` or `discarded`; the others follow from the topics.
    pub state: LetterState,
    /// Who did it.
    pub by: String,
    /// When, in epoch milliseconds.
    pub at: i64,
    /// The job that it was part of.
    pub job: String,
    /// Why, in their words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Where it was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The idempotency key of what was sent, by which its end is recognised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What was changed on the way, as a diff.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff: Option<String>,
}

impl Fate {
    /// Of this state, by a job.
    #[must_use]
    pub fn new(state: LetterState, by: &str, at: Timestamp, job: &str) -> Self {
        let (by, at, job) = (by.to_owned(), at.as_millis(), job.to_owned());
        Self { v: VERSION, state, by, at, job, note: None, target: None, id: None, diff: None }
    }
}

/// What is done with many dead letters at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    /// Sent back.
    Redrive,
    /// One of them changed, and sent back.
    Edit,
    /// Called done.
    Resolve,
    /// Not wanted.
    Discard,
    /// Made open again.
    Restore,
    /// Deleted from the topic.
    Purge,
}

impl Verb {
    /// As commands have it.
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

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobStatus {
    /// At work, unless whoever did it has died.
    Running,
    /// Waits for the verdicts of its first ones.
    Canary,
    /// Somebody has paused it.
    Paused,
    /// All is done.
    Done,
    /// Somebody has ended it; the rest is untouched.
    Cancelled,
    /// It ended itself, since too many failed again or a limit was reached; the rest is untouched.
    Stopped,
}

impl JobStatus {
    /// As commands show it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Canary => "canary",
            Self::Paused => "paused",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
            Self::Stopped => "stopped",
        }
    }

    /// Whether nothing more will happen.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Cancelled | Self::Stopped)
    }
}

/// One action on dead letters: what was asked for, and how far it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// The format version.
    pub v: u32,
    /// Its name.
    pub id: String,
    /// What it does.
    pub verb: Verb,
    /// Of which dead-letter topic the letters are, by the prefix of their keys.
    pub queue: String,
    /// Which letters, as it was asked.
    pub filter: String,
    /// Only those below these offsets, by partition: what came later was not previewed.
    pub below: Vec<(i32, i64)>,
    /// When it was asked for, in epoch milliseconds: ages in the filter are as of then.
    pub at: i64,
    /// Who asked.
    pub by: String,
    /// Why, in their words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Where to: `redeliver`, `origin` or a topic (redrive).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Everything else that it was told (redrive), so that it can be taken up where it was left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms: Option<Terms>,
    /// How far it is.
    pub status: JobStatus,
    /// Why it is over before its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// How many letters were chosen.
    pub total: u64,
    /// How many of them were done.
    pub done: u64,
    /// How many were passed over: changed meanwhile, gone, or refused by their target.
    pub skipped: u64,
    /// When this was written, in epoch milliseconds.
    pub heard: i64,
}

/// How a redrive goes about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// How many a second; as fast as it goes where absent.
    pub rate: Option<f64>,
    /// How long the rate takes to rise from a tenth to all of it, in milliseconds.
    pub ramp: u64,
    /// No more than so many.
    pub max: Option<u64>,
    /// So many first, whose verdicts are awaited.
    pub canary: u64,
    /// It ends when more than this share of those whose end is known has failed again.
    pub stop_at: f64,
    /// Parked ones too.
    pub force: bool,
    /// The jq program that each value goes through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transform: Option<String>,
    /// The letters were brought along by a file, and do not stand in the dead-letter topic as they are to be sent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub brought: bool,
}

impl Terms {
    /// All of them at once, whatever becomes of the first ones.
    #[must_use]
    pub fn at_once(force: bool) -> Self {
        Self { rate: None, ramp: 0, max: None, canary: 0, stop_at: 1.0, force, transform: None, brought: false }
    }
}

impl Job {
    /// A job that has done nothing yet.
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

    /// Whether nobody seems to be at work on it any more.
    #[must_use]
    pub fn is_left(&self, now: Timestamp) -> bool {
        !self.status.is_over() && now.as_millis() - self.heard > LEASE_MILLIS
    }
}

/// What somebody asks of a job.
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

/// What somebody asks of a job, and who.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    /// The format version.
    pub v: u32,
    /// What.
    pub asked: Asked,
    /// Who.
    pub by: String,
    /// When, in epoch milliseconds.
    pub at: i64,
}

impl Wish {
    /// Of this person.
    #[must_use]
    pub fn new(asked: Asked, by: &str, at: Timestamp) -> Self {
        Self { v: VERSION, asked, by: by.to_owned(), at: at.as_millis() }
    }

    /// As a key of the state topic.
    #[must_use]
    pub fn key_of(job: &str) -> String {
        format!("job/{job}/wish")
    }
}

/// Who redrives. Nothing rests on it but that a second one asks before it begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// The format version.
    pub v: u32,
    /// Who.
    pub owner: String,
    /// Their job; none where it was given back.
    pub job: Option<String>,
    /// When they were heard last, in epoch milliseconds.
    pub heard: i64,
}

impl Lease {
    /// Of this owner.
    #[must_use]
    pub fn new(owner: &str, job: Option<&str>, now: Timestamp) -> Self {
        Self { v: VERSION, owner: owner.to_owned(), job: job.map(str::to_owned), heard: now.as_millis() }
    }

    /// Whether somebody else than this owner is at work.
    #[must_use]
    pub fn keeps_out(&self, owner: &str, now: Timestamp) -> bool {
        self.job.is_some() && self.owner != owner && now.as_millis() - self.heard <= LEASE_MILLIS
    }
}

/// How a redriven record ended that did not come back as a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// The format version.
    pub v: u32,
    /// The how-manyeth redrive it was.
    pub redrives: u32,
    /// When it was done, in epoch milliseconds.
    pub at: i64,
}

impl Outcome {
    /// Done by the handler.
    #[must_use]
    pub fn new(redrives: u32, at: Timestamp) -> Self {
        Self { v: VERSION, redrives, at: at.as_millis() }
    }

    /// As a key of the state topic.
    #[must_use]
    pub fn key_of(id: &str) -> String {
        format!("outcome/{id}")
    }
}

/// A record of the state topic that is about dead letters.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// What became of a letter; `None` where it was forgotten.
    Fate(LetterKey, Option<Fate>),
    /// A job.
    Job(String, Option<Job>),
    /// What is asked of a job.
    Wish(String, Option<Wish>),
    /// Who redrives.
    Lease(Option<Lease>),
    /// How a redriven record ended, by its id.
    Outcome(String, Option<Outcome>),
}

impl Entry {
    /// What a record is taken for that is about a letter and cannot be read, having been written by a younger version or damaged: sent
    /// back, so that it is not sent once more. `None` where the record is about something else than a letter.
    #[must_use]
    pub fn of_unreadable(prefix: &str, key: Option<&[u8]>) -> Option<Self> {
        let Ok(Self::Fate(letter, None)) = Self::read(prefix, key, None)? else { return None };
        let mut fate = Fate::new(LetterState::Redriven, "?", Timestamp::from_millis(0), "?");
        fate.note = Some("what became of it cannot be read; it may have been written by another version".to_owned());
        Some(Self::Fate(letter, Some(fate)))
    }

    /// Reads one; `None` where the record is about something else, letters of another prefix included.
    ///
    /// # Errors
    /// When it is about dead letters and cannot be read.
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

/// A value as it is written: [`Fate`], [`Job`], [`Wish`], [`Lease`] or [`Outcome`].
#[must_use]
pub fn to_value(record: &impl Serialize) -> String {
    write_value(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_millis(1_760_000_000_000)
    }

    #[test]
    fn what_is_written_is_read_again() {
        let letter = LetterKey { partition: 3, offset: 1_042, appended: now() };
        let mut fate = Fate::new(LetterState::Redriven, "anna@ops-1", now(), "j1");
        fate.target = Some("billing.redeliver".to_owned());
        let read = |key: &str, value: &str| Entry::read("letter", Some(key.as_bytes()), Some(value.as_bytes())).unwrap().unwrap();
        assert_eq!(read(&letter.to_key("letter"), &to_value(&fate)), Entry::Fate(letter, Some(fate)));
        let mut job = Job::new("j1", Verb::Redrive, "letter", "reason:rejected", vec![(0, 17)], "anna@ops-1", now());
        let terms = Terms { rate: Some(100.0), canary: 10, stop_at: 0.5, ..Terms::at_once(false) };
        job.terms = Some(terms);
        assert_eq!(read(&job.to_key(), &to_value(&job)), Entry::Job("j1".to_owned(), Some(job)));
        let wish = Wish::new(Asked::Pause, "ben", now());
        assert_eq!(read(&Wish::key_of("j1"), &to_value(&wish)), Entry::Wish("j1".to_owned(), Some(wish)));
        let outcome = Outcome::new(2, now());
        let key = Outcome::key_of("billing/orders/0/1/2");
        assert_eq!(read(&key, &to_value(&outcome)), Entry::Outcome("billing/orders/0/1/2".to_owned(), Some(outcome)));
        let lease = Lease::new("anna", Some("j1"), now());
        assert_eq!(read(LEASE_KEY, &to_value(&lease)), Entry::Lease(Some(lease)));
    }

    #[test]
    fn other_records_are_none_and_unreadable_ones_are_told() {
        for key in [None, Some(&b"hold"[..]), Some(b"owner"), Some(b"letter/1/2"), Some(b"letter/x/2/3"), Some(b"\xff")] {
            assert_eq!(Entry::read("letter", key, Some(b"{}")), None, "{key:?}");
        }
        assert!(Entry::read("letter", Some(b"letter/1/2/3"), Some(b"{}")).unwrap().is_err());
        let taken_for = Entry::of_unreadable("letter", Some(b"letter/1/2/3"));
        assert!(matches!(&taken_for, Some(Entry::Fate(_, Some(fate))) if fate.state == LetterState::Redriven), "{taken_for:?}");
        assert_eq!(Entry::of_unreadable("letter", Some(b"lease")), None);
        let newer = Entry::read("letter", Some(b"lease"), Some(br#"{"v":2}"#)).unwrap();
        assert_eq!(newer, Err(StateError::Version(2)));
        assert_eq!(Entry::read("letter", Some(b"lease"), None), Some(Ok(Entry::Lease(None))));
    }

    #[test]
    fn a_lease_keeps_others_out_while_its_owner_is_heard() {
        let lease = Lease::new("anna", Some("j1"), now());
        let later = |millis| Timestamp::from_millis(now().as_millis() + millis);
        assert!(lease.keeps_out("ben", later(LEASE_MILLIS)));
        assert!(!lease.keeps_out("ben", later(LEASE_MILLIS + 1)));
        assert!(!lease.keeps_out("anna", now()));
        assert!(!Lease::new("anna", None, now()).keeps_out("ben", now()), "it was given back");
    }
}

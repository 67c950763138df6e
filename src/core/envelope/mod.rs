//! The envelope: kladder's headers, which carry all attempt state with the record.
//!
//! Parsing is strict. A malformed or duplicate header, or one of another format version, is never trusted: the whole envelope
//! then counts as absent, and the caller is told which header it was. Writing replaces: a record has each header once.

mod names;
mod read;

use crate::core::coordinates::Coordinates;
use crate::core::failure::ErrorInfo;
pub use crate::core::headers::is_own;
use crate::core::headers::{Header, Headers};
use crate::core::ladder::Ladder;
use crate::core::time::Timestamp;

pub use names::*;
pub(in crate::core) use read::parse_number;
pub use read::{EnvelopeReading, Malformed};

const MESSAGE_LIMIT: usize = 1024;
const STACK_LIMIT: usize = 8 * 1024;
const CLASS_LIMIT: usize = 256;
const HISTORY_CLASS_LIMIT: usize = 64;
const HISTORY_ENTRIES: usize = 16;

/// Why a record is in the DLQ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// All attempts failed.
    Exhausted,
    /// The handler or a rule rejected it.
    Rejected,
    /// It was older than `max_age`.
    Expired,
    /// It could not be decoded, or interrupted a worker too often.
    Poison,
    /// It was too large for its target topic.
    Oversize,
    /// Its origin is missing or not an allowed target.
    NoOrigin,
    /// The topic that it had to return to refuses it permanently.
    Refused,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Exhausted, Self::Rejected, Self::Expired, Self::Poison, Self::Oversize, Self::NoOrigin, Self::Refused];

    /// The value in headers and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exhausted => "exhausted",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Poison => "poison",
            Self::Oversize => "oversize",
            Self::NoOrigin => "no-origin",
            Self::Refused => "refused",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.as_str() == text)
    }
}

/// One past attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// When it failed.
    pub at: Timestamp,
    /// The tier of its wait before, 0 for the first delivery.
    pub tier: u32,
    /// The error class.
    pub class: String,
}

/// The state of a record on the ladder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The ladder's name.
    pub ladder: String,
    /// The idempotency key: stable over attempts, hops and redrives.
    pub id: String,
    /// The record's origin.
    pub origin: Coordinates,
    /// Attempts made so far.
    pub attempts: u32,
    /// How often the last attempt was retried in place before it counted as failed.
    pub immediate: u32,
    /// The tier of the record's current or last wait.
    pub tier: Option<u32>,
    /// The moment before which the record must not be redelivered, beyond its tier's delay.
    pub not_before: Option<Timestamp>,
    /// When the first attempt failed.
    pub first_failed_at: Option<Timestamp>,
    /// When the last attempt failed.
    pub last_failed_at: Option<Timestamp>,
    /// The last error.
    pub error: Option<ErrorInfo>,
    /// The last 16 attempts, oldest first.
    pub history: Vec<HistoryEntry>,
    /// Why the record is in the DLQ.
    pub reason: Option<Reason>,
    /// The broker's message when it refused the record, and the target topic.
    pub refusal: Option<String>,
    /// How often the record was sent back from the DLQ.
    pub redrives: u32,
    /// Whether it would be a dead letter, but waits because there are too many of them.
    pub held: bool,
}

/// Diagnostics that may be dropped, step by step, from a record that is too large with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trim {
    /// Nothing is dropped.
    Nothing,
    /// The stack trace is dropped.
    Stack,
    /// The history is dropped too.
    History,
    /// The message is dropped too.
    Message,
}

impl Trim {
    /// The next step, or `None` when nothing more can be dropped.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        match self {
            Self::Nothing => Some(Self::Stack),
            Self::Stack => Some(Self::History),
            Self::History => Some(Self::Message),
            Self::Message => None,
        }
    }
}

impl Envelope {
    /// The envelope of a record without one: no attempts, and its position is its origin.
    #[must_use]
    pub fn fresh(ladder: &str, at: &Coordinates) -> Self {
        Self {
            ladder: ladder.to_owned(),
            // The append time is included, so that a deleted and recreated topic does not repeat old ids.
            id: format!("{ladder}/{}/{}/{}/{}", at.topic, at.partition, at.offset, at.timestamp),
            origin: at.clone(),
            attempts: 0,
            immediate: 0,
            tier: None,
            not_before: None,
            first_failed_at: None,
            last_failed_at: None,
            error: None,
            history: Vec::new(),
            reason: None,
            refusal: None,
            redrives: 0,
            held: false,
        }
    }

    /// The envelope with which a dead letter is sent back: attempts start again, and one more redrive is counted. History and id
    /// are kept.
    #[must_use]
    pub fn redriven(self) -> Self {
        Self {
            attempts: 0,
            immediate: 0,
            tier: None,
            not_before: None,
            // `max_age` counts from the first failure, and would expire it at the next one.
            first_failed_at: None,
            last_failed_at: None,
            reason: None,
            refusal: None,
            redrives: self.redrives.saturating_add(1),
            held: false,
            ..self
        }
    }

    /// The headers of the envelope, each once, without dropped diagnostics.
    #[must_use]
    pub fn headers(&self, trim: Trim) -> Vec<(&'static str, String)> {
        let mut out: Vec<(&'static str, String)> = Vec::with_capacity(NAMES.len());
        let mut put = |name, value: Option<String>| out.extend(value.map(|v| (name, v)));
        let millis = |t: Timestamp| t.as_millis().to_string();
        put(LADDER, Some(self.ladder.clone()));
        put(V, Some(VERSION.to_owned()));
        put(ID, Some(self.id.clone()));
        put(ORIGIN_TOPIC, Some(self.origin.topic.clone()));
        put(ORIGIN_PARTITION, Some(self.origin.partition.to_string()));
        put(ORIGIN_OFFSET, Some(self.origin.offset.to_string()));
        put(ORIGIN_TIMESTAMP, Some(millis(self.origin.timestamp)));
        put(ATTEMPTS, Some(self.attempts.to_string()));
        put(IMMEDIATE, (self.immediate > 0).then(|| self.immediate.to_string()));
        put(TIER, self.tier.map(|t| t.to_string()));
        put(NOT_BEFORE, self.not_before.map(millis));
        put(FIRST_FAILED_AT, self.first_failed_at.map(millis));
        put(LAST_FAILED_AT, self.last_failed_at.map(millis));
        if let Some(error) = &self.error {
            put(ERROR_CLASS, Some(cut(&error.class, CLASS_LIMIT).to_owned()));
            put(ERROR_STATUS, error.status.map(|s| s.to_string()));
        }
        put(REASON, self.reason.map(|r| r.as_str().to_owned()));
        put(REFUSAL, self.refusal.as_deref().map(|refusal| cut(refusal, MESSAGE_LIMIT).to_owned()));
        put(REDRIVES, Some(self.redrives.to_string()));
        put(HELD, self.held.then(|| "1".to_owned()));
        if let Some(message) = self.error.as_ref().and_then(|e| e.message.as_deref()).filter(|_| trim < Trim::Message) {
            put(ERROR_MESSAGE, Some(cut(message, MESSAGE_LIMIT).to_owned()));
        }
        if trim < Trim::History && !self.history.is_empty() {
            put(HISTORY, Some(write_history(&self.history)));
        }
        if let Some(stack) = self.error.as_ref().and_then(|e| e.stack.as_deref()).filter(|_| trim < Trim::Stack) {
            put(ERROR_STACK, Some(cut(stack, STACK_LIMIT).to_owned()));
        }
        out
    }

    /// Replaces kladder's headers with this envelope, at the end; the user's headers stay unchanged.
    pub fn replace_in(&self, headers: &mut Headers, trim: Trim) {
        headers.remove_if(is_own);
        for (name, value) in self.headers(trim) {
            headers.push(name, Some(value));
        }
    }

    /// Adds a failed attempt: count, time, history.
    #[must_use]
    pub fn failed(&self, error: &ErrorInfo, now: Timestamp) -> Self {
        let mut next = self.clone();
        next.attempts = self.attempts.saturating_add(1);
        next.immediate = 0;
        next.held = false;
        next.first_failed_at = self.first_failed_at.or(Some(now));
        next.last_failed_at = Some(now);
        next.error = Some(ErrorInfo { class: one_line(&error.class, CLASS_LIMIT), ..error.clone() });
        next.not_before = None;
        next.history.push(HistoryEntry {
            at: now,
            tier: self.tier.unwrap_or(0),
            class: one_line(&error.class, HISTORY_CLASS_LIMIT).replace([',', ';'], "_"),
        });
        let surplus = next.history.len().saturating_sub(HISTORY_ENTRIES);
        next.history.drain(..surplus);
        next
    }
}

/// What the mover needs to know of a record, without parsing its whole envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Glance {
    /// It has this ladder's envelope and no reason to wait longer: it can be moved as it is.
    Plain,
    /// The envelope must be parsed, or created.
    Read,
}

/// Checks the headers of a waiting record. Most records can be moved as they are, and their envelopes are validated where they
/// are used.
pub fn glance<'a>(ladder: &Ladder, headers: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>) -> Glance {
    let mut own = false;
    for (name, value) in headers {
        if name == LADDER.as_bytes() {
            own = value == Some(ladder.name().as_bytes());
        } else if name == NOT_BEFORE.as_bytes() || name == HELD.as_bytes() {
            return Glance::Read;
        }
    }
    if own { Glance::Plain } else { Glance::Read }
}

fn write_history(history: &[HistoryEntry]) -> String {
    let entries: Vec<String> = history.iter().map(|e| format!("{},{},{}", e.at, e.tier, e.class)).collect();
    entries.join(";")
}

/// The text up to the limit in bytes, at a character boundary.
pub(crate) fn cut(text: &str, limit: usize) -> &str {
    let mut end = limit.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn one_line(text: &str, limit: usize) -> String {
    cut(text, limit).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Headers given as pairs.
impl From<Vec<(Vec<u8>, Option<Vec<u8>>)>> for Headers {
    fn from(pairs: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Self {
        pairs.into_iter().map(|(name, value)| Header { name, value }).collect()
    }
}

#[cfg(test)]
mod tests;

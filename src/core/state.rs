//! The records of `{ladder}.state` about the ladder as a whole: hold, held dead letters, owner.
//!
//! The topic is compacted, so the last record of each key counts. Keys are like paths: `hold`, `dlq-breaker`, `owner` and
//! `handler-down/{instance}` are read here; others (see [`core::dead_letter`](crate::core::dead_letter)) are ignored.
//!
//! Values are JSON with a format version, parsed strictly: a value that is not exactly what this version writes is *unreadable*,
//! which is reported and never a crash. **An unreadable hold counts as a hold.** Somebody wrote it, perhaps with a newer version,
//! and holding loses nothing: records wait in their topics until a `resume` overwrites it. Ignoring it could do what a person
//! wanted to stop. An unreadable owner counts as no owner: only a person can decide whose the ladder is.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::core::delay::format_duration;
use crate::core::harmless::on_one_line;
use crate::core::time::Timestamp;

/// The key of a [`HoldRecord`].
pub const HOLD_KEY: &str = "hold";

/// The key of a [`DlqBreakerRecord`] that holds dead letters, or releases them.
pub const DLQ_BREAKER_KEY: &str = "dlq-breaker";

/// The key of a [`DlqBreakerRecord`] that accepts dead letters. A key of its own, since a worker that has not read it yet may hold dead
/// letters at the same moment, and must not overwrite it.
pub const DLQ_ACCEPTED_KEY: &str = "dlq-accepted";

/// The key of an [`OwnerRecord`].
pub const OWNER_KEY: &str = "owner";

/// Prefix of the key of a [`HandlerDownRecord`]; the worker's instance name follows.
pub const HANDLER_DOWN_PREFIX: &str = "handler-down/";

/// The format version.
const VERSION: u32 = 1;

/// Maximum number of characters quoted of an unreadable value.
const QUOTED_CHARS: usize = 60;

/// The last hold or resume of a ladder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldRecord {
    /// Held, or resumed.
    pub held: bool,
    /// By whom.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// The reason in their words.
    pub why: Option<String>,
}

/// Whether dead letters of a ladder are held because there are too many, or accepted by a user however many there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DlqBreakerRecord {
    /// Until when; `None` if they were released.
    pub until: Option<Timestamp>,
    /// By whom.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// Why.
    pub why: Option<String>,
}

/// The consumer group that a ladder belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerRecord {
    /// The group.
    pub group: String,
    /// Since when.
    pub at: Timestamp,
}

/// The handler of a worker is down; a null value means that it is up again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandlerDownRecord {
    /// When it was reported.
    pub at: Timestamp,
    /// The evidence.
    pub why: String,
}

/// Why a value is unreadable.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StateError {
    /// An unknown format version.
    #[error("format version {0} is unknown to this version of kladder: use the newer one")]
    Version(u32),
    /// Not written by kladder.
    #[error("not written by kladder: {0}")]
    Malformed(String),
}

/// The latest value of a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum StateValue<T> {
    /// No value.
    #[default]
    Absent,
    /// A value.
    Read(T),
    /// A value that cannot be parsed.
    Unreadable(StateError),
}

/// A ladder's state, as far as its topic was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LadderState {
    /// Key `hold`.
    pub hold: StateValue<HoldRecord>,
    /// Key `dlq-breaker`.
    pub dlq_breaker: StateValue<DlqBreakerRecord>,
    /// Key `dlq-accepted`.
    pub dlq_accepted: StateValue<DlqBreakerRecord>,
    /// Key `owner`.
    pub owner: StateValue<OwnerRecord>,
    /// Key `handler-down/{instance}`, by instance. An unreadable one also means that the handler is down.
    pub handlers_down: BTreeMap<String, StateValue<HandlerDownRecord>>,
}

#[derive(Deserialize)]
struct AnyVersion {
    v: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHold {
    v: u32,
    held: bool,
    by: String,
    at: i64,
    why: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDlqBreaker {
    v: u32,
    until: Option<i64>,
    by: String,
    at: i64,
    why: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOwner {
    v: u32,
    group: String,
    at: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHandlerDown {
    v: u32,
    at: i64,
    why: String,
}

impl HoldRecord {
    /// A hold by a router that has found that the application drops the headers in which attempts are
    /// counted.
    #[must_use]
    pub fn of_router(ladder: &str, instance: &str, at: Timestamp) -> Self {
        Self {
            held: true,
            by: format!("router {instance} of {ladder}"),
            at,
            why: Some(
                "most records that come back to the inbox have lost their kladder headers: let the application copy all headers of \
                 what it consumes"
                    .to_owned(),
            ),
        }
    }

    /// Whether a router of this ladder holds it: see [`HoldRecord::of_router`].
    #[must_use]
    pub fn is_of_router(&self, ladder: &str) -> bool {
        self.held && self.by.strip_prefix("router ").is_some_and(|rest| rest.ends_with(&format!(" of {ladder}")))
    }

    /// `since 2026-01-31T12:00:00Z (5m ago) by anna@ops-1: the handler is being replaced`
    #[must_use]
    pub fn since(&self, now: Timestamp) -> String {
        let ago = Duration::from_secs(now.since(self.at).as_secs());
        format!("since {} ({} ago) {self}", self.at.to_rfc3339(), format_duration(ago))
    }

    /// The serialised value.
    #[must_use]
    pub fn to_value(&self) -> String {
        let Self { held, by, at, why } = self.clone();
        write_value(&RawHold { v: VERSION, held, by, at: at.as_millis(), why })
    }

    /// Parses the result of [`HoldRecord::to_value`].
    ///
    /// # Errors
    /// It is anything else.
    pub fn read(value: &[u8]) -> Result<Self, StateError> {
        let RawHold { held, by, at, why, .. } = read_value(value)?;
        Ok(Self { held, by, at: Timestamp::from_millis(at), why })
    }
}

/// `by anna@ops-1: the handler is being replaced`
impl fmt::Display for HoldRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "by {}", on_one_line(&self.by))?;
        self.why.as_ref().map_or(Ok(()), |why| write!(f, ": {}", on_one_line(why)))
    }
}

impl DlqBreakerRecord {
    /// The serialised value.
    #[must_use]
    pub fn to_value(&self) -> String {
        let Self { until, by, at, why } = self.clone();
        write_value(&RawDlqBreaker { v: VERSION, until: until.map(Timestamp::as_millis), by, at: at.as_millis(), why })
    }

    /// Parses the result of [`DlqBreakerRecord::to_value`].
    ///
    /// # Errors
    /// It is anything else.
    pub fn read(value: &[u8]) -> Result<Self, StateError> {
        let RawDlqBreaker { until, by, at, why, .. } = read_value(value)?;
        Ok(Self { until: until.map(Timestamp::from_millis), by, at: Timestamp::from_millis(at), why })
    }

    /// `for 9m40s more, since 2026-01-31T12:00:00Z by worker a of billing: why`
    #[must_use]
    pub fn text(&self, until: Timestamp, now: Timestamp) -> String {
        let left = format_duration(Duration::from_secs(until.since(now).as_secs() + 1));
        let why = self.why.as_deref().map(|why| format!(": {}", on_one_line(why))).unwrap_or_default();
        format!("for {left} more, since {} by {}{why}", self.at.to_rfc3339(), on_one_line(&self.by))
    }
}

impl OwnerRecord {
    /// The serialised value.
    #[must_use]
    pub fn to_value(&self) -> String {
        write_value(&RawOwner { v: VERSION, group: self.group.clone(), at: self.at.as_millis() })
    }

    /// Parses the result of [`OwnerRecord::to_value`].
    ///
    /// # Errors
    /// It is anything else.
    pub fn read(value: &[u8]) -> Result<Self, StateError> {
        let RawOwner { group, at, .. } = read_value(value)?;
        Ok(Self { group, at: Timestamp::from_millis(at) })
    }
}

impl HandlerDownRecord {
    /// The key of a worker.
    #[must_use]
    pub fn key_of(instance: &str) -> String {
        format!("{HANDLER_DOWN_PREFIX}{instance}")
    }

    /// The serialised value.
    #[must_use]
    pub fn to_value(&self) -> String {
        write_value(&RawHandlerDown { v: VERSION, at: self.at.as_millis(), why: self.why.clone() })
    }

    /// Parses the result of [`HandlerDownRecord::to_value`].
    ///
    /// # Errors
    /// It is anything else.
    pub fn read(value: &[u8]) -> Result<Self, StateError> {
        let RawHandlerDown { at, why, .. } = read_value(value)?;
        Ok(Self { at: Timestamp::from_millis(at), why })
    }
}

impl LadderState {
    /// Applies one record, in the order of the topic. Returns whether it was about the ladder as a whole.
    pub fn apply(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) -> bool {
        match key {
            Some(key) if key == HOLD_KEY.as_bytes() => self.hold = StateValue::of(value, HoldRecord::read),
            Some(key) if key == DLQ_BREAKER_KEY.as_bytes() => self.dlq_breaker = StateValue::of(value, DlqBreakerRecord::read),
            Some(key) if key == DLQ_ACCEPTED_KEY.as_bytes() => self.dlq_accepted = StateValue::of(value, DlqBreakerRecord::read),
            Some(key) if key == OWNER_KEY.as_bytes() => self.owner = StateValue::of(value, OwnerRecord::read),
            Some(key) if key.starts_with(HANDLER_DOWN_PREFIX.as_bytes()) => {
                let instance = String::from_utf8_lossy(&key[HANDLER_DOWN_PREFIX.len()..]).into_owned();
                match StateValue::of(value, HandlerDownRecord::read) {
                    StateValue::Absent => self.handlers_down.remove(&instance),
                    entry => self.handlers_down.insert(instance, entry),
                };
            }
            _ => return false,
        }
        true
    }

    /// Whether the ladder is held, also if the hold is unreadable.
    #[must_use]
    pub fn is_held(&self) -> bool {
        match &self.hold {
            StateValue::Absent => false,
            StateValue::Read(hold) => hold.held,
            StateValue::Unreadable(_) => true,
        }
    }

    /// Until when dead letters are held, if they are at this time: not while they are accepted. An unreadable record holds none, since that
    /// would be for ever.
    #[must_use]
    pub fn dead_letters_held_until(&self, now: Timestamp) -> Option<(Timestamp, &DlqBreakerRecord)> {
        let StateValue::Read(record) = &self.dlq_breaker else { return None };
        let until = record.until.filter(|until| *until > now && self.dead_letters_accepted_until(now).is_none())?;
        Some((until, record))
    }

    /// Until when dead letters are accepted, if they are at this time.
    #[must_use]
    pub fn dead_letters_accepted_until(&self, now: Timestamp) -> Option<(Timestamp, &DlqBreakerRecord)> {
        let StateValue::Read(record) = &self.dlq_accepted else { return None };
        Some((record.until.filter(|until| *until > now)?, record))
    }

    /// The owner group of the ladder, if it is not this one.
    #[must_use]
    pub fn other_owner(&self, group: &str) -> Option<&str> {
        match &self.owner {
            StateValue::Read(owner) if owner.group != group => Some(&owner.group),
            _ => None,
        }
    }
}

impl<T> StateValue<T> {
    /// A null value is a tombstone: the key is deleted.
    fn of(value: Option<&[u8]>, read: impl Fn(&[u8]) -> Result<T, StateError>) -> Self {
        match value.map(read) {
            None => Self::Absent,
            Some(Ok(record)) => Self::Read(record),
            Some(Err(error)) => Self::Unreadable(error),
        }
    }
}

/// Serialises a record of the state topic.
pub(super) fn write_value(raw: &impl Serialize) -> String {
    serde_json::to_string(raw).expect("numbers and texts")
}

/// The version first: the meaning of a newer version's fields is unknown.
pub(super) fn read_value<T: for<'a> Deserialize<'a>>(value: &[u8]) -> Result<T, StateError> {
    let malformed = || {
        let text = on_one_line(&String::from_utf8_lossy(value));
        let cut: String = text.chars().take(QUOTED_CHARS).collect();
        StateError::Malformed(if cut.len() < text.len() { format!("{cut}…") } else { cut })
    };
    let AnyVersion { v } = serde_json::from_slice(value).map_err(|_| malformed())?;
    if v != VERSION {
        return Err(StateError::Version(v));
    }
    serde_json::from_slice(value).map_err(|_| malformed())
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;

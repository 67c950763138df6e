//! The records of `{ladder}.state` that are about the ladder as a whole: whether it is held, whether dead letters are, and whose it is.
//!
//! The topic is compacted, so of each key the last record counts. Keys are like paths: `hold`, `dlq-breaker`, `owner` and
//! `handler-down/{instance}` are read here; what stands under others (see [`core::dead_letter`](crate::core::dead_letter)) is passed over.
//!
//! Values are JSON with a format version, read strictly: a value that is not exactly what this version writes is *unreadable*,
//! which is told and never a crash. **A hold that cannot be read counts as held.** Somebody wrote it, by a newer version perhaps,
//! and standing still loses nothing: records wait in their topics until a `resume` overwrites it. To go on in spite of it could do
//! what a person wanted to stop. An owner that cannot be read is nobody's: to say whose the ladder is takes a person too.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::core::delay::format_duration;
use crate::core::time::Timestamp;

/// The key of a [`HoldRecord`].
pub const HOLD_KEY: &str = "hold";

/// The key of a [`DlqBreakerRecord`].
pub const DLQ_BREAKER_KEY: &str = "dlq-breaker";

/// The key of an [`OwnerRecord`].
pub const OWNER_KEY: &str = "owner";

/// What the key of a [`HandlerDownRecord`] begins with; the worker's instance follows.
pub const HANDLER_DOWN_PREFIX: &str = "handler-down/";

/// The format that is written and read.
const VERSION: u32 = 1;

/// More than that of an unreadable value is not quoted.
const QUOTED_CHARS: usize = 60;

/// Whether a ladder is held, as somebody has said last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldRecord {
    /// Held, or released again.
    pub held: bool,
    /// Who said so.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// Why, in their words.
    pub why: Option<String>,
}

/// Whether dead letters of a ladder are held because there are too many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DlqBreakerRecord {
    /// Until then; `None` where somebody has let them go.
    pub until: Option<Timestamp>,
    /// Somebody has said that dead letters are as they should be: until then none are held, however many there are.
    pub accepted_until: Option<Timestamp>,
    /// Who said so.
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

/// That the handler of a worker is down; a null value says that it is no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandlerDownRecord {
    /// When that was told.
    pub at: Timestamp,
    /// By what it is known.
    pub why: String,
}

/// Why a value cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StateError {
    /// A format that this version does not know.
    #[error("it has format version {0}, of which this version of kladder knows nothing: use the newer one")]
    Version(u32),
    /// Not what kladder writes.
    #[error("it is not what kladder writes: {0}")]
    Malformed(String),
}

/// The last word under a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Entry<T> {
    /// There is none.
    #[default]
    Absent,
    /// This.
    Read(T),
    /// There is one, and nobody can say what it means.
    Unreadable(StateError),
}

/// What stands in the state topic of a ladder about itself, as far as it was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LadderState {
    /// Under `hold`.
    pub hold: Entry<HoldRecord>,
    /// Under `dlq-breaker`.
    pub dlq_breaker: Entry<DlqBreakerRecord>,
    /// Under `owner`.
    pub owner: Entry<OwnerRecord>,
    /// Under `handler-down/{instance}`, by the instance. One that cannot be read says no less than that the handler is down.
    pub handlers_down: BTreeMap<String, Entry<HandlerDownRecord>>,
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
    accepted_until: Option<i64>,
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
    /// By a router, which has found that the application drops the headers by which attempts are counted.
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

    /// As it is written.
    #[must_use]
    pub fn to_value(&self) -> String {
        let Self { held, by, at, why } = self.clone();
        write_value(&RawHold { v: VERSION, held, by, at: at.as_millis(), why })
    }

    /// Reads what [`HoldRecord::to_value`] has written.
    ///
    /// # Errors
    /// When it is anything else.
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
    /// As it is written.
    #[must_use]
    pub fn to_value(&self) -> String {
        let Self { until, accepted_until, by, at, why } = self.clone();
        let [until, accepted_until] = [until, accepted_until].map(|time| time.map(Timestamp::as_millis));
        write_value(&RawDlqBreaker { v: VERSION, until, accepted_until, by, at: at.as_millis(), why })
    }

    /// Reads what [`DlqBreakerRecord::to_value`] has written.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn read(value: &[u8]) -> Result<Self, StateError> {
        let RawDlqBreaker { until, accepted_until, by, at, why, .. } = read_value(value)?;
        let [until, accepted_until] = [until, accepted_until].map(|time| time.map(Timestamp::from_millis));
        Ok(Self { until, accepted_until, by, at: Timestamp::from_millis(at), why })
    }

    /// `for 9m40s more, since 2026-01-31T12:00:00Z by worker a of billing: why`
    #[must_use]
    pub fn told(&self, until: Timestamp, now: Timestamp) -> String {
        let left = format_duration(Duration::from_secs(until.since(now).as_secs() + 1));
        let why = self.why.as_deref().map(|why| format!(": {}", on_one_line(why))).unwrap_or_default();
        format!("for {left} more, since {} by {}{why}", self.at.to_rfc3339(), on_one_line(&self.by))
    }
}

impl OwnerRecord {
    /// As it is written.
    #[must_use]
    pub fn to_value(&self) -> String {
        write_value(&RawOwner { v: VERSION, group: self.group.clone(), at: self.at.as_millis() })
    }

    /// Reads what [`OwnerRecord::to_value`] has written.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn read(value: &[u8]) -> Result<Self, StateError> {
        let RawOwner { group, at, .. } = read_value(value)?;
        Ok(Self { group, at: Timestamp::from_millis(at) })
    }
}

impl HandlerDownRecord {
    /// The key for a worker.
    #[must_use]
    pub fn key_of(instance: &str) -> String {
        format!("{HANDLER_DOWN_PREFIX}{instance}")
    }

    /// As it is written.
    #[must_use]
    pub fn to_value(&self) -> String {
        write_value(&RawHandlerDown { v: VERSION, at: self.at.as_millis(), why: self.why.clone() })
    }

    /// Reads what [`HandlerDownRecord::to_value`] has written.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn read(value: &[u8]) -> Result<Self, StateError> {
        let RawHandlerDown { at, why, .. } = read_value(value)?;
        Ok(Self { at: Timestamp::from_millis(at), why })
    }
}

impl LadderState {
    /// Takes one record in, in the order of the topic. Whether it was about the ladder as a whole is returned.
    pub fn apply(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) -> bool {
        match key {
            Some(key) if key == HOLD_KEY.as_bytes() => self.hold = Entry::of(value, HoldRecord::read),
            Some(key) if key == DLQ_BREAKER_KEY.as_bytes() => self.dlq_breaker = Entry::of(value, DlqBreakerRecord::read),
            Some(key) if key == OWNER_KEY.as_bytes() => self.owner = Entry::of(value, OwnerRecord::read),
            Some(key) if key.starts_with(HANDLER_DOWN_PREFIX.as_bytes()) => {
                let instance = String::from_utf8_lossy(&key[HANDLER_DOWN_PREFIX.len()..]).into_owned();
                match Entry::of(value, HandlerDownRecord::read) {
                    Entry::Absent => self.handlers_down.remove(&instance),
                    entry => self.handlers_down.insert(instance, entry),
                };
            }
            _ => return false,
        }
        true
    }

    /// Whether the ladder is held: also where nobody can read whether it is.
    #[must_use]
    pub fn is_held(&self) -> bool {
        match &self.hold {
            Entry::Absent => false,
            Entry::Read(hold) => hold.held,
            Entry::Unreadable(_) => true,
        }
    }

    /// Until when dead letters are held, if they are at this time. A record that nobody can read holds none: it would for ever.
    #[must_use]
    pub fn dead_letters_held_until(&self, now: Timestamp) -> Option<(Timestamp, &DlqBreakerRecord)> {
        let Entry::Read(record) = &self.dlq_breaker else { return None };
        Some((record.until.filter(|until| *until > now)?, record))
    }

    /// Until when dead letters are accepted, if they are at this time.
    #[must_use]
    pub fn dead_letters_accepted_until(&self, now: Timestamp) -> Option<(Timestamp, &DlqBreakerRecord)> {
        let Entry::Read(record) = &self.dlq_breaker else { return None };
        Some((record.accepted_until.filter(|until| *until > now)?, record))
    }

    /// The group that the ladder belongs to, where that is another one than this.
    #[must_use]
    pub fn other_owner(&self, group: &str) -> Option<&str> {
        match &self.owner {
            Entry::Read(owner) if owner.group != group => Some(&owner.group),
            _ => None,
        }
    }
}

impl<T> Entry<T> {
    /// A null value is a tombstone: there is none any more.
    fn of(value: Option<&[u8]>, read: impl Fn(&[u8]) -> Result<T, StateError>) -> Self {
        match value.map(read) {
            None => Self::Absent,
            Some(Ok(record)) => Self::Read(record),
            Some(Err(error)) => Self::Unreadable(error),
        }
    }
}

/// As it is written, for all records of the state topic.
pub(super) fn write_value(raw: &impl Serialize) -> String {
    serde_json::to_string(raw).expect("numbers and texts")
}

/// The version first: what a newer one means by the same names is not for this one to guess.
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

/// What others wrote must neither break a line of the log nor colour a terminal.
#[must_use]
pub fn on_one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;

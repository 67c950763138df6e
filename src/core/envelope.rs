//! The envelope: kladder's own headers, in which all attempt state travels with the record.
//!
//! Reading is strict. A header that is malformed, doubled or of another format version is never trusted: the whole envelope then
//! counts as absent, and the caller is told which header it was. Writing replaces: a record carries each header once.

use thiserror::Error;

use crate::core::coordinates::Coordinates;
use crate::core::failure::ErrorInfo;
use crate::core::headers::{Header, Headers};
pub use crate::core::headers::{PREFIX, is_own};
use crate::core::ladder::Ladder;
use crate::core::time::Timestamp;

/// The format version that this build reads and writes.
pub const VERSION: &str = "1";

/// The ladder that wrote the envelope.
pub const LADDER: &str = "kladder-ladder";
/// The format version.
pub const V: &str = "kladder-v";
/// The idempotency key.
pub const ID: &str = "kladder-id";
/// The topic that the record first came from.
pub const ORIGIN_TOPIC: &str = "kladder-origin-topic";
/// The partition that the record first came from.
pub const ORIGIN_PARTITION: &str = "kladder-origin-partition";
/// The offset that the record first had.
pub const ORIGIN_OFFSET: &str = "kladder-origin-offset";
/// The timestamp that the record first had.
pub const ORIGIN_TIMESTAMP: &str = "kladder-origin-timestamp";
/// The attempts made so far.
pub const ATTEMPTS: &str = "kladder-attempts";
/// How often the last attempt was repeated in place before it counted as failed; absent where it was not.
pub const IMMEDIATE: &str = "kladder-immediate";
/// The tier that the record waits in or last waited in.
pub const TIER: &str = "kladder-tier";
/// The moment before which the record must not be redelivered, beyond its tier's delay.
pub const NOT_BEFORE: &str = "kladder-not-before";
/// When the first attempt failed.
pub const FIRST_FAILED_AT: &str = "kladder-first-failed-at";
/// When the last attempt failed.
pub const LAST_FAILED_AT: &str = "kladder-last-failed-at";
/// The kind of the last error.
pub const ERROR_CLASS: &str = "kladder-error-class";
/// The message of the last error.
pub const ERROR_MESSAGE: &str = "kladder-error-message";
/// The HTTP status of the last error.
pub const ERROR_STATUS: &str = "kladder-error-status";
/// The stack trace of the last error.
pub const ERROR_STACK: &str = "kladder-error-stack";
/// One compact entry an attempt.
pub const HISTORY: &str = "kladder-history";
/// Why the record is in the DLQ.
pub const REASON: &str = "kladder-reason";
/// How often the record was sent back from the DLQ.
pub const REDRIVES: &str = "kladder-redrives";
/// Would be a dead letter, and waits because there are too many of them: `1`.
pub const HELD: &str = "kladder-held";
/// What the application has decided of a record that it puts into the inbox: `reject` dead-letters it at once. Never on a tier.
pub const VERDICT: &str = "kladder-verdict";
/// How many whole milliseconds from now a record that the application puts into the inbox is not to be tried again. Never on a
/// tier.
pub const RETRY_AFTER: &str = "kladder-retry-after";

const MESSAGE_LIMIT: usize = 1024;
const STACK_LIMIT: usize = 8 * 1024;
const CLASS_LIMIT: usize = 256;
/// No id that kladder makes is longer than the names in it (of the ladder 100, of the topic 249) and three numbers. Ids and topics go
/// into the head of each request, which servers bound.
const ID_LIMIT: usize = 512;
const TOPIC_LIMIT: usize = 249;
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
    /// It was too large for the topic it had to go to.
    Oversize,
    /// It had to go back to an origin that is missing or not allowed.
    NoOrigin,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Exhausted, Self::Rejected, Self::Expired, Self::Poison, Self::Oversize, Self::NoOrigin];

    /// As headers and metrics write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exhausted => "exhausted",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Poison => "poison",
            Self::Oversize => "oversize",
            Self::NoOrigin => "no-origin",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.as_str() == text)
    }
}

/// One attempt of the past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// When it failed.
    pub at: Timestamp,
    /// The tier that it had waited in before, 0 for the first delivery.
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
    /// Where the record first stood.
    pub origin: Coordinates,
    /// Attempts made so far.
    pub attempts: u32,
    /// How often the last of them was repeated in place before it counted as failed.
    pub immediate: u32,
    /// The tier that the record waits in or last waited in.
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
    /// How often the record was sent back from the DLQ.
    pub redrives: u32,
    /// It would be a dead letter, and waits because there are too many of them.
    pub held: bool,
}

/// A kladder header that cannot be trusted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Malformed {
    /// It stands more than once.
    #[error("header `{0}` stands more than once")]
    Doubled(&'static str),
    /// It has to be there and is not.
    #[error("header `{0}` is missing")]
    Missing(&'static str),
    /// Its value cannot be read.
    #[error("header `{0}` cannot be read")]
    Value(&'static str),
    /// It is of a format version that this build does not know.
    #[error("header `kladder-v` names an unknown format version")]
    Version,
    /// It asks for a moment beyond `max_not_before`.
    #[error("header `kladder-not-before` lies beyond the limit")]
    TooFarOff,
}

/// What reading the headers of a record gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// The envelope; a fresh one where there was none, another ladder's, or a malformed one.
    pub envelope: Envelope,
    /// The header that could not be trusted.
    pub malformed: Option<Malformed>,
    /// Whether the record carried an envelope of this ladder.
    pub was_present: bool,
}

/// All names, in the order in which they are written; what may be dropped stands last.
const NAMES: [&str; 21] = [
    LADDER,
    V,
    ID,
    ORIGIN_TOPIC,
    ORIGIN_PARTITION,
    ORIGIN_OFFSET,
    ORIGIN_TIMESTAMP,
    ATTEMPTS,
    IMMEDIATE,
    TIER,
    NOT_BEFORE,
    FIRST_FAILED_AT,
    LAST_FAILED_AT,
    ERROR_CLASS,
    ERROR_STATUS,
    REASON,
    REDRIVES,
    HELD,
    ERROR_MESSAGE,
    HISTORY,
    ERROR_STACK,
];

/// Diagnostics that may be dropped, one after the other, from a record that is too large with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trim {
    /// Everything stays.
    Nothing,
    /// The stack trace goes.
    Stack,
    /// The history goes too.
    History,
    /// The message goes too.
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
    /// The envelope of a record that has none: it has made no attempt, and where it stands is its origin.
    #[must_use]
    pub fn fresh(ladder: &str, at: &Coordinates) -> Self {
        Self {
            ladder: ladder.to_owned(),
            // The append time is part of it, so that a topic that was deleted and made anew does not repeat old ids.
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
            redrives: 0,
            held: false,
        }
    }

    /// Reads the envelope of a record on a topic of the ladder. (On a source topic kladder's headers are not looked at: use
    /// [`Envelope::fresh`], since services copy the headers of what they received onto what they produce.)
    pub fn read<'a>(ladder: &Ladder, at: &Coordinates, headers: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>) -> Reading {
        let fresh = |malformed| Reading { envelope: Self::fresh(ladder.name(), at), malformed, was_present: false };
        let raw = Raw::collect(headers);
        // Another ladder's envelope is not ours to judge; neither is one without the name of its ladder.
        match raw.text(LADDER) {
            Ok(Some(name)) if name == ladder.name() => {}
            Ok(_) => return fresh(None),
            Err(malformed) => return fresh(Some(malformed)),
        }
        match raw.envelope(ladder.name(), Some(ladder.max_not_before()), at) {
            Ok(envelope) => Reading { envelope, malformed: None, was_present: true },
            Err(malformed) => fresh(Some(malformed)),
        }
    }

    /// Reads the envelope of a dead letter, of whatever ladder; `None` where it carries none, or one that cannot be trusted.
    pub fn read_dead<'a>(at: &Coordinates, headers: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>) -> Option<Self> {
        let raw = Raw::collect(headers);
        let ladder = raw.text(LADDER).ok().flatten()?;
        raw.envelope(ladder, None, at).ok()
    }

    /// The envelope with which a dead letter is sent back: its attempts begin anew, and one more redrive is counted. The history of
    /// what it has been through stays, and so does its id.
    #[must_use]
    pub fn redriven(self) -> Self {
        Self {
            attempts: 0,
            immediate: 0,
            tier: None,
            not_before: None,
            // `max_age` counts from the first failure, and would end it at the next one.
            first_failed_at: None,
            last_failed_at: None,
            reason: None,
            redrives: self.redrives.saturating_add(1),
            held: false,
            ..self
        }
    }

    /// The headers that say all this, each once; diagnostics that were given up are left out.
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

    /// Puts the envelope onto headers: every kladder header goes, these come at the end, the user's stay as they are.
    pub fn replace_in(&self, headers: &mut Headers, trim: Trim) {
        headers.remove_if(is_own);
        for (name, value) in self.headers(trim) {
            headers.push(name, Some(value));
        }
    }

    /// Notes a failed attempt: counts it, dates it, remembers it.
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

/// What a record needs when it is due, found without reading its whole envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Glance {
    /// It carries this ladder's envelope and nothing that keeps it waiting: it moves on as it is.
    Plain,
    /// The envelope has to be read, or made.
    Read,
}

/// Looks at the headers of a waiting record. Most need nothing but to be moved on, and their envelopes are judged where they are
/// used.
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

/// The header values of a record that bear kladder's names.
struct Raw<'a> {
    values: [Option<&'a [u8]>; NAMES.len()],
    doubled: Option<&'static str>,
}

impl<'a> Raw<'a> {
    fn collect(headers: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>) -> Self {
        let mut raw = Self { values: [None; NAMES.len()], doubled: None };
        for (name, value) in headers.filter(|(name, _)| is_own(name)) {
            let Some(index) = NAMES.iter().position(|n| n.as_bytes() == name) else { continue };
            if raw.values[index].is_some() {
                raw.doubled = Some(NAMES[index]);
            }
            // A null value is as malformed as bytes that are no UTF-8; an impossible byte makes both the same.
            raw.values[index] = Some(value.unwrap_or(b"\xff"));
        }
        raw
    }

    fn text(&self, name: &'static str) -> Result<Option<&'a str>, Malformed> {
        let index = NAMES.iter().position(|n| *n == name).expect("a name of the list");
        match self.values[index] {
            None => Ok(None),
            Some(bytes) => std::str::from_utf8(bytes).map(Some).map_err(|_| Malformed::Value(name)),
        }
    }

    fn required(&self, name: &'static str) -> Result<&'a str, Malformed> {
        self.text(name)?.ok_or(Malformed::Missing(name))
    }

    fn number<T: TryFrom<i64>>(&self, name: &'static str) -> Result<Option<T>, Malformed> {
        self.text(name)?.map(|text| parse_number(text).ok_or(Malformed::Value(name))).transpose()
    }

    fn required_number<T: TryFrom<i64>>(&self, name: &'static str) -> Result<T, Malformed> {
        self.number(name)?.ok_or(Malformed::Missing(name))
    }

    fn timestamp(&self, name: &'static str) -> Result<Option<Timestamp>, Malformed> {
        Ok(self.number(name)?.map(Timestamp::from_millis))
    }

    fn envelope(&self, ladder: &str, furthest: Option<std::time::Duration>, at: &Coordinates) -> Result<Envelope, Malformed> {
        if let Some(name) = self.doubled {
            return Err(Malformed::Doubled(name));
        }
        if self.required(V)? != VERSION {
            return Err(Malformed::Version);
        }
        let not_before = self.timestamp(NOT_BEFORE)?;
        let is_beyond = |t: Timestamp| furthest.is_some_and(|furthest| t.since(at.timestamp) > furthest + NOT_BEFORE_SLACK);
        if not_before.is_some_and(is_beyond) {
            return Err(Malformed::TooFarOff);
        }
        let class = self.text(ERROR_CLASS)?;
        let status = self.number(ERROR_STATUS)?;
        let message = self.text(ERROR_MESSAGE)?.map(str::to_owned);
        let stack = self.text(ERROR_STACK)?.map(str::to_owned);
        let error = class.map(|class| ErrorInfo { class: class.to_owned(), message, status, stack });
        let id = self.required(ID)?;
        let origin_topic = self.required(ORIGIN_TOPIC)?;
        for (name, text, limit) in [(ID, id, ID_LIMIT), (ORIGIN_TOPIC, origin_topic, TOPIC_LIMIT)] {
            if text.is_empty() || text.len() > limit {
                return Err(Malformed::Value(name));
            }
        }
        let reason = match self.text(REASON)? {
            None => None,
            Some(text) => Some(Reason::parse(text).ok_or(Malformed::Value(REASON))?),
        };
        Ok(Envelope {
            ladder: ladder.to_owned(),
            id: id.to_owned(),
            origin: Coordinates {
                topic: origin_topic.to_owned(),
                partition: self.required_number(ORIGIN_PARTITION)?,
                offset: self.required_number(ORIGIN_OFFSET)?,
                timestamp: Timestamp::from_millis(self.required_number(ORIGIN_TIMESTAMP)?),
            },
            attempts: self.required_number(ATTEMPTS)?,
            immediate: self.number(IMMEDIATE)?.unwrap_or(0),
            tier: self.number(TIER)?,
            not_before,
            first_failed_at: self.timestamp(FIRST_FAILED_AT)?,
            last_failed_at: self.timestamp(LAST_FAILED_AT)?,
            error,
            history: match self.text(HISTORY)? {
                None => Vec::new(),
                Some(text) => read_history(text).ok_or(Malformed::Value(HISTORY))?,
            },
            reason,
            redrives: self.required_number(REDRIVES)?,
            held: match self.text(HELD)? {
                None => false,
                Some("1") => true,
                Some(_) => return Err(Malformed::Value(HELD)),
            },
        })
    }
}

/// `not-before` may be written on a worker's clock and is judged against the broker's, and a commit takes its time.
const NOT_BEFORE_SLACK: std::time::Duration = std::time::Duration::from_secs(600);

/// A decimal number as kladder writes it: digits only, no sign but a leading minus (a record without timestamp has −1), no
/// leading zero.
pub(super) fn parse_number<T: TryFrom<i64>>(text: &str) -> Option<T> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) || (digits.len() > 1 && digits.starts_with('0')) {
        return None;
    }
    text.parse::<i64>().ok().and_then(|n| T::try_from(n).ok())
}

fn write_history(history: &[HistoryEntry]) -> String {
    let entries: Vec<String> = history.iter().map(|e| format!("{},{},{}", e.at, e.tier, e.class)).collect();
    entries.join(";")
}

fn read_history(text: &str) -> Option<Vec<HistoryEntry>> {
    let entries: Option<Vec<HistoryEntry>> = text
        .split(';')
        .map(|entry| {
            let mut parts = entry.split(',');
            let at = Timestamp::from_millis(parse_number(parts.next()?)?);
            let tier = parse_number(parts.next()?)?;
            let class = parts.next()?.to_owned();
            parts.next().is_none().then_some(HistoryEntry { at, tier, class })
        })
        .collect();
    entries.filter(|e| e.len() <= HISTORY_ENTRIES)
}

/// The text up to the limit in bytes, never through the middle of a character.
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

/// Headers given as pairs, for callers that hold them so.
impl From<Vec<(Vec<u8>, Option<Vec<u8>>)>> for Headers {
    fn from(pairs: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Self {
        pairs.into_iter().map(|(name, value)| Header { name, value }).collect()
    }
}

#[cfg(test)]
#[path = "envelope_tests.rs"]
mod tests;

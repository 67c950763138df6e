//! Reads envelopes: strictly, and those of dead letters of any ladder.

use std::time::Duration;

use thiserror::Error;

use crate::core::coordinates::Coordinates;
use crate::core::envelope::names::{
    ATTEMPTS, ERROR_CLASS, ERROR_MESSAGE, ERROR_STACK, ERROR_STATUS, FIRST_FAILED_AT, HELD, HISTORY, ID, IMMEDIATE, LADDER,
    LAST_FAILED_AT, NAMES, NOT_BEFORE, ORIGIN_OFFSET, ORIGIN_PARTITION, ORIGIN_TIMESTAMP, ORIGIN_TOPIC, REASON, REDRIVES,
    REFUSAL, TIER, V, VERSION,
};
use crate::core::envelope::{Envelope, HISTORY_ENTRIES, HistoryEntry, Reason};
use crate::core::failure::ErrorInfo;
use crate::core::headers::is_own;
use crate::core::ladder::Ladder;
use crate::core::time::Timestamp;

/// Every id that kladder creates is at most as long as its names (ladder 100, topic 249) and three numbers. Ids and topics become
/// HTTP headers, whose size servers limit.
const ID_LIMIT: usize = 512;
const TOPIC_LIMIT: usize = 249;

/// A kladder header that cannot be trusted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Malformed {
    /// It appears more than once.
    #[error("header `{0}` appears more than once")]
    Doubled(&'static str),
    /// It is required, but missing.
    #[error("header `{0}` is missing")]
    Missing(&'static str),
    /// Its value cannot be parsed.
    #[error("header `{0}` cannot be read")]
    Value(&'static str),
    /// The format version is unknown to this build.
    #[error("header `kladder-v` names an unknown format version")]
    Version,
    /// The time is beyond `max_not_before`.
    #[error("header `kladder-not-before` is beyond the limit")]
    TooFarOff,
}

/// The result of parsing a record's headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvelopeReading {
    /// The envelope; a fresh one if there was none, another ladder's, or a malformed one.
    pub envelope: Envelope,
    /// The header that could not be trusted.
    pub malformed: Option<Malformed>,
    /// Whether the record had an envelope of this ladder.
    pub was_present: bool,
}

impl Envelope {
    /// Parses the envelope of a record on a topic of the ladder. (On source topics kladder's headers are ignored: use
    /// [`Envelope::fresh`], since services copy the headers of what they received onto what they produce.)
    pub fn read<'a>(
        ladder: &Ladder,
        at: &Coordinates,
        headers: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
    ) -> EnvelopeReading {
        let fresh = |malformed| EnvelopeReading { envelope: Self::fresh(ladder.name(), at), malformed, was_present: false };
        let raw = Raw::collect(headers);
        // An envelope of another ladder, or without a ladder name, is not evaluated.
        match raw.text(LADDER) {
            Ok(Some(name)) if name == ladder.name() => {}
            Ok(_) => return fresh(None),
            Err(malformed) => return fresh(Some(malformed)),
        }
        match raw.envelope(ladder.name(), Some(ladder.max_not_before()), at) {
            Ok(envelope) => EnvelopeReading { envelope, malformed: None, was_present: true },
            Err(malformed) => fresh(Some(malformed)),
        }
    }

    /// Parses the envelope of a dead letter of any ladder; `None` if it has none, or one that cannot be trusted.
    pub fn read_dead<'a>(at: &Coordinates, headers: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>) -> Option<Self> {
        let raw = Raw::collect(headers);
        let ladder = raw.text(LADDER).ok().flatten()?;
        raw.envelope(ladder, None, at).ok()
    }
}

/// The values of a record's headers with kladder's names.
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
            // A null value is as malformed as invalid UTF-8; an invalid byte represents both.
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

    fn envelope(&self, ladder: &str, furthest: Option<Duration>, at: &Coordinates) -> Result<Envelope, Malformed> {
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
        let (origin_partition, origin_offset) = (self.required_number(ORIGIN_PARTITION)?, self.required_number(ORIGIN_OFFSET)?);
        // -1 is written for an offset unknown to another framework.
        for (name, number, least) in [(ORIGIN_PARTITION, i64::from(origin_partition), 0), (ORIGIN_OFFSET, origin_offset, -1)] {
            if number < least {
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
                partition: origin_partition,
                offset: origin_offset,
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
            refusal: self.text(REFUSAL)?.map(str::to_owned),
            redrives: self.required_number(REDRIVES)?,
            held: match self.text(HELD)? {
                None => false,
                Some("1") => true,
                Some(_) => return Err(Malformed::Value(HELD)),
            },
        })
    }
}

/// `not-before` may be written by a worker's clock and is compared with the broker's, and a commit takes time.
const NOT_BEFORE_SLACK: Duration = Duration::from_secs(600);

/// A decimal number as kladder writes it: digits only, no sign but a leading minus (a record without timestamp has −1), no
/// leading zero.
pub(in crate::core) fn parse_number<T: TryFrom<i64>>(text: &str) -> Option<T> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) || (digits.len() > 1 && digits.starts_with('0')) {
        return None;
    }
    text.parse::<i64>().ok().and_then(|n| T::try_from(n).ok())
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

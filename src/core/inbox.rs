//! Reads records of the inbox: failed records put there by an application, with any client.
//!
//! Each arrival is one more failed attempt. The application must copy the consumed record with its headers, and may say what
//! went wrong. So parsing is more lenient than on other topics, but only for what an application writes:
//!
//! - Its error headers may be appended to those written by the ladder: of the four error headers the last value counts, and
//!   invalid UTF-8 is replaced. Distrusting the whole envelope instead would reset the record's attempts, and it would climb for
//!   ever.
//! - A first failure may name its origin and nothing else ([`Carried::Introduction`]).
//! - A copied envelope of another ladder does not count: there an error header counts only if it appears twice, the second one
//!   having been appended.
//!
//! Everything else is as strict as elsewhere: a malformed envelope counts as absent, and the caller
//! is told.

use std::borrow::Cow;
use std::time::Duration;

use crate::core::coordinates::Coordinates;
use crate::core::dialect::{Dialect, PartialCoordinates};
use crate::core::envelope::{
    self, ATTEMPTS, ERROR_CLASS, ERROR_MESSAGE, ERROR_STACK, ERROR_STATUS, Envelope, EnvelopeReading, ID, LADDER, Malformed,
    ORIGIN_OFFSET, ORIGIN_PARTITION, ORIGIN_TIMESTAMP, ORIGIN_TOPIC, RETRY_AFTER, V, VERDICT, parse_number,
};
use crate::core::failure::{Disposition, ErrorInfo, Failure};
use crate::core::ladder::Ladder;
use crate::core::time::Timestamp;

/// The class of a failure without one.
pub const UNKNOWN_CLASS: &str = "unknown";

/// Error headers that an application may write; the ladder writes the same ones on redelivered
/// records.
const ERROR: [&str; 4] = [ERROR_CLASS, ERROR_MESSAGE, ERROR_STATUS, ERROR_STACK];

/// A failed attempt, parsed from a record of the inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// The record's envelope before it failed; [`Ladder::decide`] counts the attempt.
    pub envelope: Envelope,
    /// The failure, and what to do next.
    pub failure: Failure,
    /// A header that could not be trusted.
    pub malformed: Option<Malformed>,
    /// Which headers of this ladder the record had.
    pub carried: Carried,
}

/// Which headers of this ladder a record in the inbox had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Carried {
    /// None that can be trusted: a first failure, or an application that drops headers.
    Nothing,
    /// An origin without attempts: a first failure, or an application that drops headers and then writes these.
    Introduction {
        /// Whether topic, partition, offset and timestamp are given, so that the origin is unique.
        whole: bool,
    },
    /// An envelope with attempts: the application has copied a redelivered record's headers.
    Envelope,
}

impl Arrival {
    /// The exact position at which the application says that it consumed the record; `None` if it has copied an envelope, which
    /// names the origin instead.
    #[must_use]
    pub fn named_origin(&self) -> Option<&Coordinates> {
        (self.carried == Carried::Introduction { whole: true }).then_some(&self.envelope.origin)
    }
}

/// Parses the record at `at` in the inbox.
pub fn read<'a>(ladder: &Ladder, at: &Coordinates, headers: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>) -> Arrival {
    let own = Own(headers.filter(|(name, _)| envelope::is_own(name)).collect());
    let (reading, carried) = own.envelope(ladder, at);
    let mut malformed = reading.malformed;
    let failure = own.failure(ladder, &mut malformed);
    Arrival { envelope: reading.envelope, failure, malformed, carried }
}

/// Parses a foreign dead letter at `at` in its dead-letter topic.
///
/// If it has this ladder's envelope, it was redelivered and has come back: frameworks copy headers, and the attempts continue.
/// Otherwise the dialect yields where it was consumed. The error always comes from the dialect: kladder's error headers belong to
/// an earlier failure.
pub fn read_foreign<'a>(
    ladder: &Ladder,
    dialect: Dialect,
    at: &Coordinates,
    headers: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
) -> Arrival {
    let headers: Vec<_> = headers.collect();
    let told = dialect.read(headers.iter().copied());
    let class = told.class.unwrap_or_else(|| UNKNOWN_CLASS.to_owned());
    let error = ErrorInfo { class, message: told.message, status: None, stack: told.stack };
    let failure = Failure::new(Disposition::Retry { after: None }, error);
    let own = Own(headers.into_iter().filter(|(name, _)| envelope::is_own(name)).collect());
    let (reading, carried) = own.envelope(ladder, at);
    if carried == Carried::Envelope {
        return Arrival { envelope: reading.envelope, failure, malformed: reading.malformed, carried };
    }
    let PartialCoordinates { topic, partition, offset, timestamp } = told.place;
    let (Some(topic), Some(partition)) = (topic.filter(|topic| !topic.is_empty()), partition) else {
        return Arrival { envelope: Envelope::fresh(ladder.name(), at), failure, malformed: None, carried: Carried::Nothing };
    };
    let whole = offset.is_some();
    let origin = Coordinates { topic, partition, offset: offset.unwrap_or(-1), timestamp: timestamp.unwrap_or(at.timestamp) };
    let id = Envelope::fresh(ladder.name(), if whole { &origin } else { at }).id;
    let envelope = Envelope { id, ..Envelope::fresh(ladder.name(), &origin) };
    Arrival { envelope, failure, malformed: None, carried: Carried::Introduction { whole } }
}

/// The value of an existing header; may be null.
type Value<'a> = Option<&'a [u8]>;

/// A record's headers with kladder's names, in order.
struct Own<'a>(Vec<(&'a [u8], Value<'a>)>);

impl<'a> Own<'a> {
    fn envelope(&self, ladder: &Ladder, at: &Coordinates) -> (EnvelopeReading, Carried) {
        let is_introduction = self.last(LADDER) == Some(Some(ladder.name().as_bytes()))
            && [V, ID, ATTEMPTS].iter().all(|name| self.last(name).is_none());
        if is_introduction {
            return match self.introduced(ladder, at) {
                Ok((envelope, whole)) => {
                    (EnvelopeReading { envelope, malformed: None, was_present: true }, Carried::Introduction { whole })
                }
                Err(malformed) => {
                    let envelope = Envelope::fresh(ladder.name(), at);
                    (EnvelopeReading { envelope, malformed: Some(malformed), was_present: false }, Carried::Nothing)
                }
            };
        }
        let strict = self.0.iter().copied().filter(|(name, _)| !ERROR.iter().any(|error| error.as_bytes() == *name));
        let reading = Envelope::read(ladder, at, strict);
        let carried = if reading.was_present { Carried::Envelope } else { Carried::Nothing };
        (reading, carried)
    }

    /// A fresh envelope with the origin given by the application, and whether it is complete. If it is not, the record's own position is used, also
    /// for the id: an incomplete origin would not be unique.
    fn introduced(&self, ladder: &Ladder, at: &Coordinates) -> Result<(Envelope, bool), Malformed> {
        self.once(LADDER)?;
        let topic = self.once(ORIGIN_TOPIC)?;
        let partition = self.number::<i32>(ORIGIN_PARTITION)?;
        let offset = self.number::<i64>(ORIGIN_OFFSET)?;
        let timestamp = self.number::<i64>(ORIGIN_TIMESTAMP)?.map(Timestamp::from_millis);
        // Negative positions do not exist.
        for (name, number) in [(ORIGIN_PARTITION, partition.map(i64::from)), (ORIGIN_OFFSET, offset)] {
            if number.is_some_and(|number| number < 0) {
                return Err(Malformed::Value(name));
            }
        }
        let Some(topic) = topic else {
            let rest_is_told = partition.is_some() || offset.is_some() || timestamp.is_some();
            if rest_is_told {
                return Err(Malformed::Missing(ORIGIN_TOPIC));
            }
            return Ok((Envelope::fresh(ladder.name(), at), false));
        };
        if topic.is_empty() {
            return Err(Malformed::Value(ORIGIN_TOPIC));
        }
        let origin = Coordinates {
            topic: topic.to_owned(),
            partition: partition.unwrap_or(at.partition),
            offset: offset.unwrap_or(at.offset),
            timestamp: timestamp.unwrap_or(at.timestamp),
        };
        let whole = partition.is_some() && offset.is_some() && timestamp.is_some();
        let id = Envelope::fresh(ladder.name(), if whole { &origin } else { at }).id;
        Ok((Envelope { id, ..Envelope::fresh(ladder.name(), &origin) }, whole))
    }

    fn failure(&self, ladder: &Ladder, malformed: &mut Option<Malformed>) -> Failure {
        let heard = self.heard(ladder);
        let mut doubt = |name| {
            malformed.get_or_insert(Malformed::Value(name));
        };
        let mut text = |name| {
            let bytes = heard(name)?;
            let text = bytes.map(String::from_utf8_lossy);
            if !matches!(text, Some(Cow::Borrowed(_))) {
                doubt(name);
            }
            text.map(Cow::into_owned)
        };
        let class = text(ERROR_CLASS).filter(|class| !class.trim().is_empty()).unwrap_or_else(|| UNKNOWN_CLASS.to_owned());
        let (message, stack) = (text(ERROR_MESSAGE), text(ERROR_STACK));
        let mut number = |name| {
            let value = heard(name)?;
            let number = value.and_then(|v| std::str::from_utf8(v).ok()).and_then(parse_number::<i64>).filter(|n| *n >= 0);
            if number.is_none() {
                doubt(name);
            }
            number
        };
        let status = number(ERROR_STATUS);
        let after = number(RETRY_AFTER).and_then(|millis| u64::try_from(millis).ok()).map(Duration::from_millis);
        let short = status.and_then(|status| u16::try_from(status).ok());
        if status.is_some() && short.is_none() {
            doubt(ERROR_STATUS);
        }
        let rejected = match heard(VERDICT) {
            None => false,
            Some(verdict) => {
                let rejected = verdict == Some(b"reject");
                if !rejected {
                    doubt(VERDICT);
                }
                rejected
            }
        };
        let disposition = if rejected { Disposition::Reject } else { Disposition::Retry { after } };
        Failure::new(disposition, ErrorInfo { class, message, status: short, stack })
    }

    /// Returns a function that gives a header's value if it concerns this failure.
    ///
    /// An application that appends headers leaves those of the failure before. So if one of the error headers appears twice,
    /// those that appear once and before it also belong to the failure before: a new class must not be combined with an old
    /// stack. (The application's verdict never appears on a record that it consumed, so it is always new.)
    fn heard(&self, ladder: &Ladder) -> impl Fn(&str) -> Option<Value<'a>> {
        let is_foreign = self.last(LADDER).is_some_and(|name| name != Some(ladder.name().as_bytes()));
        let mut seen = [false; ERROR.len()];
        let first_repeat = self.0.iter().position(|(name, _)| {
            let tells = ERROR.iter().position(|n| n.as_bytes() == *name);
            tells.is_some_and(|index| std::mem::replace(&mut seen[index], true))
        });
        move |name| {
            let mut places = self.0.iter().enumerate().filter(|(_, (n, _))| *n == name.as_bytes());
            let (last, (_, value)) = places.next_back()?;
            let is_new = !ERROR.contains(&name)
                || places.next().is_some()
                || (!is_foreign && first_repeat.is_none_or(|repeat| last > repeat));
            is_new.then_some(*value)
        }
    }

    fn last(&self, name: &str) -> Option<Value<'a>> {
        self.0.iter().rev().find(|(n, _)| *n == name.as_bytes()).map(|(_, value)| *value)
    }

    fn once(&self, name: &'static str) -> Result<Option<&'a str>, Malformed> {
        let mut values = self.0.iter().filter(|(n, _)| *n == name.as_bytes()).map(|(_, value)| *value);
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(Malformed::Doubled(name));
        }
        let text = value.and_then(|bytes| std::str::from_utf8(bytes).ok());
        text.map(Some).ok_or(Malformed::Value(name))
    }

    fn number<T: TryFrom<i64>>(&self, name: &'static str) -> Result<Option<T>, Malformed> {
        self.once(name)?.map(|text| parse_number(text).ok_or(Malformed::Value(name))).transpose()
    }
}

#[cfg(test)]
#[path = "inbox_tests.rs"]
mod tests;

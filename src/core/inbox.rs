//! What arrives in the inbox: a record that an application could not handle, put there by whatever client it has.
//!
//! Each arrival is one more failed attempt. The application's part is to copy what it consumed, headers and all, and it may say
//! what went wrong. So this reads more leniently than the other topics are read, but only where an application writes:
//!
//! - What it says of the error may be appended to what the ladder wrote there before: of the four error headers the last value
//!   counts, and text that is no UTF-8 is read as well as it can be. To distrust the whole envelope for it would take the record's
//!   attempts away, and it would climb for ever.
//! - A first failure may say where it came from and nothing more ([`Carried::Introduction`]).
//! - A copy of another ladder's headers is no word of ours: there an error header counts only where it stands twice, the second
//!   one having been appended.
//!
//! All else is as strict as anywhere: a malformed envelope counts as absent, and the caller is told.

use std::borrow::Cow;
use std::time::Duration;

use crate::core::coordinates::Coordinates;
use crate::core::dialect::{Dialect, Place};
use crate::core::envelope::{
    self, ATTEMPTS, ERROR_CLASS, ERROR_MESSAGE, ERROR_STACK, ERROR_STATUS, Envelope, ID, LADDER, Malformed, ORIGIN_OFFSET,
    ORIGIN_PARTITION, ORIGIN_TIMESTAMP, ORIGIN_TOPIC, RETRY_AFTER, Reading, V, VERDICT, parse_number,
};
use crate::core::failure::{Disposition, ErrorInfo, Failure};
use crate::core::ladder::Ladder;
use crate::core::time::Timestamp;

/// The class of a failure of which nothing was said.
pub const UNKNOWN_CLASS: &str = "unknown";

/// What an application may say of the error; the ladder writes the same headers on what it redelivers.
const ERROR: [&str; 4] = [ERROR_CLASS, ERROR_MESSAGE, ERROR_STATUS, ERROR_STACK];

/// A failed attempt, as it is read from a record of the inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// What the record carried before it failed; [`Ladder::decide`] counts the attempt.
    pub envelope: Envelope,
    /// What failed, and what shall follow.
    pub failure: Failure,
    /// A header that could not be trusted.
    pub malformed: Option<Malformed>,
    /// What of this ladder's the record carried.
    pub carried: Carried,
}

/// What a record in the inbox carried of this ladder's headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Carried {
    /// Nothing that can be trusted: a first failure, or one of an application that drops headers.
    Nothing,
    /// Where it came from, and no attempts: a first failure, or one of an application that drops headers and then writes these.
    Introduction {
        /// Topic, partition, offset and timestamp were told, so that it is the origin and no other record's.
        whole: bool,
    },
    /// An envelope, attempts and all: the application has copied what was redelivered to it.
    Envelope,
}

impl Arrival {
    /// Where the application says, to the offset, that it consumed the record; `None` where it has copied an envelope, which tells
    /// where the record first came from.
    #[must_use]
    pub fn told_origin(&self) -> Option<&Coordinates> {
        (self.carried == Carried::Introduction { whole: true }).then_some(&self.envelope.origin)
    }
}

/// Reads what stands at `at` in the inbox.
pub fn read<'a>(ladder: &Ladder, at: &Coordinates, headers: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>) -> Arrival {
    let own = Own(headers.filter(|(name, _)| envelope::is_own(name)).collect());
    let (reading, carried) = own.envelope(ladder, at);
    let mut malformed = reading.malformed;
    let failure = own.failure(ladder, &mut malformed);
    Arrival { envelope: reading.envelope, failure, malformed, carried }
}

/// Reads a dead letter of another framework that stands at `at` in its dead-letter topic.
///
/// One that carries this ladder's envelope was redelivered and has come back: frameworks copy headers, and then the attempts count
/// on. Of any other the dialect tells where it was consumed. What went wrong is always told by the dialect: what stands under
/// kladder's names was told of a failure before.
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
    let Place { topic, partition, offset, timestamp } = told.place;
    let (Some(topic), Some(partition)) = (topic.filter(|topic| !topic.is_empty()), partition.filter(|partition| *partition >= 0))
    else {
        return Arrival { envelope: Envelope::fresh(ladder.name(), at), failure, malformed: None, carried: Carried::Nothing };
    };
    let whole = offset.is_some();
    let origin = Coordinates { topic, partition, offset: offset.unwrap_or(-1), timestamp: timestamp.unwrap_or(at.timestamp) };
    let id = Envelope::fresh(ladder.name(), if whole { &origin } else { at }).id;
    let envelope = Envelope { id, ..Envelope::fresh(ladder.name(), &origin) };
    Arrival { envelope, failure, malformed: None, carried: Carried::Introduction { whole } }
}

/// The value of a header that is there; null is one.
type Value<'a> = Option<&'a [u8]>;

/// A record's headers that bear kladder's names, in order.
struct Own<'a>(Vec<(&'a [u8], Value<'a>)>);

impl<'a> Own<'a> {
    fn envelope(&self, ladder: &Ladder, at: &Coordinates) -> (Reading, Carried) {
        let is_introduction = self.last(LADDER) == Some(Some(ladder.name().as_bytes()))
            && [V, ID, ATTEMPTS].iter().all(|name| self.last(name).is_none());
        if is_introduction {
            return match self.introduced(ladder, at) {
                Ok((envelope, whole)) => {
                    (Reading { envelope, malformed: None, was_present: true }, Carried::Introduction { whole })
                }
                Err(malformed) => {
                    let envelope = Envelope::fresh(ladder.name(), at);
                    (Reading { envelope, malformed: Some(malformed), was_present: false }, Carried::Nothing)
                }
            };
        }
        let strict = self.0.iter().copied().filter(|(name, _)| !ERROR.iter().any(|error| error.as_bytes() == *name));
        let reading = Envelope::read(ladder, at, strict);
        let carried = if reading.was_present { Carried::Envelope } else { Carried::Nothing };
        (reading, carried)
    }

    /// A fresh envelope with the origin that the application told, and whether that is all of it. Where it did not tell all of it the record's own place stands
    /// in, and the id is made of that: one of an origin half known would not be unique.
    fn introduced(&self, ladder: &Ladder, at: &Coordinates) -> Result<(Envelope, bool), Malformed> {
        self.once(LADDER)?;
        let topic = self.once(ORIGIN_TOPIC)?;
        let partition = self.number::<i32>(ORIGIN_PARTITION)?;
        let offset = self.number::<i64>(ORIGIN_OFFSET)?;
        let timestamp = self.number::<i64>(ORIGIN_TIMESTAMP)?.map(Timestamp::from_millis);
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

    /// Gives the value of a header where it is told of this failure.
    ///
    /// An application that appends leaves what the ladder wrote of the failure before. So where one of the error headers stands
    /// twice, those that stand once and before it are of the failure before too: a new class does not go with an old stack. (What
    /// the application decides never stands on a record that it consumed, so that is always new.)
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

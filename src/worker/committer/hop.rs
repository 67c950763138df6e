//! A failed record on its way to a tier or to the DLQ.

use std::time::Duration;

use crate::core::dead_letter::{Outcome, to_value};
use crate::core::envelope::{self, Envelope, Reason, Trim};
use crate::core::leader_clock::LocalTime;
use crate::core::time::Timestamp;
use crate::kafka::NativeHeaders;
use crate::worker::ports::SourceRecord;

/// A record that is worked on: the assignment of its partition, and its offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::worker) struct RecordId {
    pub(in crate::worker) token: u64,
    pub(in crate::worker) offset: i64,
}

/// A failed record on its way to a tier or to the DLQ.
pub(super) struct Hop<P> {
    pub(super) id: RecordId,
    pub(super) target: Target,
    pub(super) envelope: Envelope,
    pub(super) content: Content,
    /// Diagnostics that were given up because the record was too large with them.
    pub(super) trim: Trim,
    /// To be sent alone: sent with others it could not be written, and it is not known which of them is at fault.
    pub(super) alone: bool,
    /// Not before then, after it could be written nowhere.
    pub(super) resting: Option<(LocalTime, Duration)>,
    /// Free again when the hop is committed, or stands still.
    pub(super) place: P,
}

/// What of a record goes along unchanged.
pub(in crate::worker) struct Content {
    pub(in crate::worker) key: Option<bytes::Bytes>,
    pub(in crate::worker) value: Option<bytes::Bytes>,
    pub(in crate::worker) headers: NativeHeaders,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Tier(u32),
    /// Why, and which of the ladder's dead-letter topics.
    Dlq(Reason, usize),
    /// No hop of the record: the state topic is told that it is done, since somebody sent it back from the DLQ and waits for that.
    Outcome,
}

impl Content {
    /// Copies a record out of the memory that it was fetched into.
    pub(in crate::worker) fn of(record: &impl SourceRecord) -> Self {
        let copy = |bytes: Option<&[u8]>| bytes.map(bytes::Bytes::copy_from_slice);
        Self { key: copy(record.key()), value: copy(record.value()), headers: record.copy_headers() }
    }
}

impl<P> Hop<P> {
    pub(super) fn new(id: RecordId, target: Target, envelope: Envelope, content: Content, place: P) -> Self {
        Self { id, target, envelope, content, trim: Trim::Nothing, alone: false, resting: None, place }
    }

    /// Tells that a redriven record is done.
    pub(super) fn outcome(id: RecordId, envelope: Envelope, now: Timestamp, place: P) -> Self {
        let key = bytes::Bytes::from(Outcome::key_of(&envelope.id));
        let value = bytes::Bytes::from(to_value(&Outcome::new(envelope.redrives, now)));
        let content = Content { key: Some(key), value: Some(value), headers: NativeHeaders::new() };
        Self::new(id, Target::Outcome, envelope, content, place)
    }

    pub(super) fn headers(&self) -> NativeHeaders {
        if self.target == Target::Outcome {
            return NativeHeaders::new();
        }
        let mut headers = self.content.headers.clone();
        headers.remove_if(envelope::is_own);
        for (name, value) in self.envelope.headers(self.trim) {
            headers.push(name.as_bytes(), Some(value.as_bytes()));
        }
        headers
    }
}

//! A failed record on its way to a tier or to the DLQ.

use crate::core::backoff::Backoff;
use crate::core::dead_letter::{RedriveOutcome, to_value};
use crate::core::envelope::{self, Envelope, Trim};
use crate::core::time::Timestamp;
use crate::kafka::NativeHeaders;
use crate::worker::hop::content::{Content, RecordId};
use crate::worker::hop::held::Held;
use crate::worker::hop::targets::Target;

/// A failed record on its way to a tier or to the DLQ.
pub(super) struct Hop<P> {
    pub(super) id: RecordId,
    pub(super) target: Target,
    pub(super) envelope: Envelope,
    pub(super) content: Content,
    /// Diagnostics dropped because the record was too large with them.
    pub(super) trim: Trim,
    /// It could be written nowhere, and is retried alone.
    pub(super) rest: Option<Backoff>,
    /// Released when the hop is committed, or stops.
    pub(super) place: P,
}

impl<P> Hop<P> {
    pub(super) fn new(id: RecordId, target: Target, envelope: Envelope, content: Content, place: P) -> Self {
        Self { id, target, envelope, content, trim: Trim::Nothing, rest: None, place }
    }

    /// The report that a redriven record is done.
    pub(super) fn outcome(id: RecordId, envelope: Envelope, now: Timestamp, place: P) -> Self {
        let key = bytes::Bytes::from(RedriveOutcome::key_of(&envelope.id));
        let value = bytes::Bytes::from(to_value(&RedriveOutcome::new(envelope.redrives, now)));
        let content =
            Content { key: Some(key), value: Some(value), headers: NativeHeaders::new(), fault: None, held: Held::default() };
        Self::new(id, Target::Outcome, envelope, content, place)
    }

    /// It could not be written as it was, and others in its transaction might fail too.
    pub(super) fn goes_alone(&self) -> bool {
        self.rest.is_some() || self.trim != Trim::Nothing
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

//! A delivery to a handler.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::core::coordinates::Coordinates;
use crate::core::envelope::{Envelope, is_own};
use crate::core::headers::Headers;
use crate::core::ladder::Ladder;
use crate::core::time::Timestamp;

/// One delivery of a record to the handler.
///
/// Cheap to clone: a delivery that could not be sent is retried in place.
#[derive(Clone)]
pub struct Delivery(Arc<Inner>);

struct Inner {
    id: String,
    origin: Coordinates,
    attempt: u32,
    attempts_left: u32,
    tier: Option<u32>,
    key: Option<Bytes>,
    value: Option<Bytes>,
    headers: Headers,
}

impl Delivery {
    /// The next attempt of the record with this envelope. kladder's own headers are left out.
    #[must_use]
    pub fn new(envelope: &Envelope, ladder: &Ladder, key: Option<Bytes>, value: Option<Bytes>, mut headers: Headers) -> Self {
        headers.remove_if(is_own);
        let attempt = envelope.attempts.saturating_add(1);
        Self(Arc::new(Inner {
            id: envelope.id.clone(),
            origin: envelope.origin.clone(),
            attempt,
            attempts_left: ladder.attempts().saturating_sub(attempt),
            tier: envelope.tier,
            key,
            value,
            headers,
        }))
    }

    /// The record's key; null and empty are different.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.0.key.as_deref()
    }

    /// The record's value; null (a tombstone) and empty are different.
    #[must_use]
    pub fn value(&self) -> Option<&[u8]> {
        self.0.value.as_deref()
    }

    /// Size of key and value, in bytes.
    pub(crate) fn size(&self) -> usize {
        self.key().map_or(0, <[u8]>::len) + self.value().map_or(0, <[u8]>::len)
    }

    /// The value without a copy of its bytes.
    #[must_use]
    pub fn value_bytes(&self) -> Option<Bytes> {
        self.0.value.clone()
    }

    /// The record's headers as written by its producer.
    #[must_use]
    pub fn headers(&self) -> &Headers {
        &self.0.headers
    }

    /// Number of this attempt; the first delivery is attempt 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.0.attempt
    }

    /// Number of attempts left if this one fails; if 0, a failure leads to the DLQ.
    #[must_use]
    pub fn attempts_left(&self) -> u32 {
        self.0.attempts_left
    }

    /// The tier that the record waited in before this attempt, counted from 1; `None` for the first
    /// delivery.
    #[must_use]
    pub fn tier(&self) -> Option<u32> {
        self.0.tier
    }

    /// The idempotency key: the same for every attempt, hop and redrive of a record.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// The record's origin topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.0.origin.topic
    }

    /// The record's origin partition.
    #[must_use]
    pub fn partition(&self) -> i32 {
        self.0.origin.partition
    }

    /// The record's origin offset.
    #[must_use]
    pub fn offset(&self) -> i64 {
        self.0.origin.offset
    }

    /// The record's origin timestamp.
    #[must_use]
    pub fn timestamp(&self) -> Timestamp {
        self.0.origin.timestamp
    }
}

/// Key, value and headers must not appear in logs.
impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value_length = self.value().map(<[u8]>::len);
        f.debug_struct("Delivery")
            .field("id", &self.id())
            .field("attempt", &self.attempt())
            .field("tier", &self.tier())
            .field("value_length", &value_length)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::failure::ErrorInfo;

    #[test]
    fn a_delivery_counts_the_attempt_that_it_is() {
        let ladder = Ladder::builder("billing", "g").source("orders").tiers(["5s"]).build().unwrap();
        let origin = Coordinates { topic: "orders".into(), partition: 3, offset: 42, timestamp: Timestamp::from_millis(7) };
        let mut headers = Headers::new();
        headers.push("a", Some("1"));
        headers.push("kladder-attempts", Some("9"));
        headers.push("a", None::<Vec<u8>>);
        let envelope = Envelope::fresh(ladder.name(), &origin);
        let first = Delivery::new(&envelope, &ladder, None, Some(Bytes::new()), headers.clone());
        assert_eq!((first.attempt(), first.attempts_left(), first.tier()), (1, 1, None));
        assert_eq!((first.topic(), first.partition(), first.offset()), ("orders", 3, 42));
        assert_eq!((first.key(), first.value()), (None, Some(&b""[..])));
        assert_eq!(first.headers().len(), 2, "those of the producer, doubled and null ones too");
        let mut failed = envelope.failed(&ErrorInfo::default(), Timestamp::from_millis(9));
        failed.tier = Some(1);
        let last = Delivery::new(&failed, &ladder, None, None, headers);
        assert_eq!((last.attempt(), last.attempts_left(), last.tier()), (2, 0, Some(1)));
        assert_eq!(last.id(), first.id());
    }
}

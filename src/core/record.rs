//! Records for applications that consume the source themselves (relay), and the creation of inbox
//! records.
//!
//! Nothing here depends on a Kafka client: the application makes a [`Consumed`] from what its own client returned, and produces
//! the resulting [`Record`] with any client.
//!
//! Invariants: key, value and the user's headers, with their order and duplicates, are those that were consumed; each kladder header
//! appears once; the attempts are those made before, since the router counts every arrival as one more failure.

use std::time::Duration;

use crate::core::coordinates::Coordinates;
use crate::core::envelope::{
    ERROR_CLASS, ERROR_MESSAGE, ERROR_STACK, ERROR_STATUS, Envelope, LADDER, ORIGIN_OFFSET, ORIGIN_PARTITION, ORIGIN_TIMESTAMP,
    ORIGIN_TOPIC, RETRY_AFTER, Trim, VERDICT, is_own,
};
use crate::core::failure::{Disposition, Failure};
use crate::core::headers::Headers;
use crate::core::ladder::{Ladder, Redelivery};
use crate::core::time::Timestamp;

/// A record to be produced.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// The topic.
    pub topic: String,
    /// The partition; if `None`, the producer chooses one as usual.
    pub partition: Option<i32>,
    /// The key; null and empty are different.
    pub key: Option<Vec<u8>>,
    /// The value; null and empty are different.
    pub value: Option<Vec<u8>>,
    /// The headers, in order.
    pub headers: Headers,
}

impl Record {
    /// A record for this topic, without key, value and headers.
    #[must_use]
    pub fn to(topic: impl Into<String>) -> Self {
        Self { topic: topic.into(), ..Self::default() }
    }

    /// With this key.
    #[must_use]
    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// With this value.
    #[must_use]
    pub fn value(mut self, value: impl Into<Vec<u8>>) -> Self {
        self.value = Some(value.into());
        self
    }

    /// Appends a header.
    #[must_use]
    pub fn header(mut self, name: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push(name, Some(value));
        self
    }
}

/// A record as an application consumed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumed {
    /// Its position and timestamp.
    pub at: Coordinates,
    /// The key; null and empty are different.
    pub key: Option<Vec<u8>>,
    /// The value; null and empty are different.
    pub value: Option<Vec<u8>>,
    /// All its headers, including kladder's, which contain the number of attempts.
    pub headers: Headers,
}

impl Consumed {
    /// A record at this position, without key, value and headers: fill those in from the consumed record.
    #[must_use]
    pub fn at(topic: impl Into<String>, partition: i32, offset: i64, timestamp: Timestamp) -> Self {
        let at = Coordinates { topic: topic.into(), partition, offset, timestamp };
        Self { at, key: None, value: None, headers: Headers::new() }
    }
}

impl Ladder {
    /// The inbox record for a record that failed in an application that consumes the source itself (relay). Produce it
    /// before the offset of the consumed record is committed; the router does the rest.
    ///
    /// It has no partition: the router uses the origin's, so the partition in the inbox does not matter, and the inbox may have
    /// fewer partitions than the source.
    ///
    /// ```
    /// use kladder::{Consumed, Failure, Ladder, Mode, Timestamp};
    ///
    /// let ladder = Ladder::builder("billing", "billing").source("orders").tiers(["5s", "1m"]).mode(Mode::Relay).build()?;
    /// let consumed = Consumed { value: Some(b"{}".to_vec()), ..Consumed::at("orders", 0, 42, Timestamp::from_millis(1_000)) };
    /// let record = ladder.relay(consumed, &Failure::retry("Timeout", "no answer from the bank"));
    /// assert_eq!(record.topic, "billing.inbox");
    /// assert_eq!(record.headers.last("kladder-error-class"), Some(&b"Timeout"[..]));
    /// # Ok::<(), kladder::LadderErrors>(())
    /// ```
    #[must_use]
    pub fn relay(&self, consumed: Consumed, failure: &Failure) -> Record {
        let Consumed { at, key, value, mut headers } = consumed;
        match self.carried(&at, &headers) {
            Some(envelope) => {
                Envelope { error: Some(failure.error().clone()), ..envelope }.replace_in(&mut headers, Trim::Nothing);
            }
            None => self.introduce(&at, failure, &mut headers),
        }
        match failure.disposition() {
            Disposition::Reject => headers.push(VERDICT, Some("reject")),
            Disposition::Retry { after: Some(after) } => headers.push(RETRY_AFTER, Some(whole_millis(after).to_string())),
            Disposition::Retry { after: None } => {}
        }
        Record { topic: self.inbox_topic(), partition: None, key, value, headers }
    }

    /// The envelope that the ladder redelivered the record with. On any other topic kladder's headers mean nothing, since
    /// services copy the headers of what they received onto what they produce; so on a source they count only if the record is
    /// back in its own origin.
    fn carried(&self, at: &Coordinates, headers: &Headers) -> Option<Envelope> {
        if !self.back_topics().contains(&at.topic) {
            return None;
        }
        let reading = Envelope::read(self, at, headers.iter());
        let is_at_home = self.redelivery() == Redelivery::Topic || reading.envelope.origin.topic == at.topic;
        (reading.was_present && is_at_home).then_some(reading.envelope)
    }

    /// A first failure gets its origin and no attempts. That is read as an envelope without attempts, so an application
    /// that has lost the headers of a redelivered record is still detected by the router.
    fn introduce(&self, at: &Coordinates, failure: &Failure, headers: &mut Headers) {
        headers.remove_if(is_own);
        headers.push(LADDER, Some(self.name()));
        headers.push(ORIGIN_TOPIC, Some(at.topic.as_str()));
        headers.push(ORIGIN_PARTITION, Some(at.partition.to_string()));
        headers.push(ORIGIN_OFFSET, Some(at.offset.to_string()));
        headers.push(ORIGIN_TIMESTAMP, Some(at.timestamp.to_string()));
        // Cut to the limits of an envelope.
        let told = Envelope { error: Some(failure.error().clone()), ..Envelope::fresh(self.name(), at) };
        for (name, value) in told.headers(Trim::Nothing) {
            if [ERROR_CLASS, ERROR_MESSAGE, ERROR_STATUS, ERROR_STACK].contains(&name) {
                headers.push(name, Some(value));
            }
        }
    }
}

/// Rounded up: never earlier than requested.
fn whole_millis(time: Duration) -> i64 {
    let surplus = u128::from(!time.subsec_nanos().is_multiple_of(1_000_000));
    i64::try_from(time.as_millis() + surplus).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;

//! What a partition's queue yields: records, the end, errors.

use rdkafka::error::RDKafkaErrorCode;

use crate::core::coordinates::Coordinates;
use crate::core::headers::is_own;
use crate::core::time::Timestamp;
use crate::kafka::error::is_denial;
use crate::kafka::ffi::{HeaderIter, NativeHeaders, Polled, RawMessage, RawPartitionQueue};
use crate::kafka::headers::{HeaderFault, MOST_HEADERS};
use crate::kafka::partition::TopicPartition;

/// The queue of one partition of this member.
pub struct PartitionQueue {
    pub(super) raw: RawPartitionQueue,
    pub(super) tp: TopicPartition,
}

/// An event of a partition's queue.
pub enum Next<R = Box<ConsumerRecord>> {
    /// A record.
    Record(R),
    /// The end was reached; below this offset nothing more will arrive.
    End(i64),
    /// The requested offset no longer exists (retention, a recreated topic).
    OffsetLost,
    /// The topic may not be read. The client retries silently until it may.
    Denied,
    /// A temporary error; the partition recovers by itself.
    Passing,
}

impl PartitionQueue {
    /// The next event, if there is one now.
    #[must_use]
    pub fn poll(&self) -> Option<Next> {
        Some(match self.raw.poll()? {
            Polled::Message(raw) => Next::Record(Box::new(ConsumerRecord { raw })),
            Polled::End(offset) => Next::End(offset),
            Polled::Error(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => Next::OffsetLost,
            Polled::Error(code) if is_denial(code) => Next::Denied,
            Polled::Error(code) => {
                tracing::debug!(partition = %self.tp, %code, "partition error that passes");
                Next::Passing
            }
        })
    }

    /// Its partition.
    #[must_use]
    pub fn partition(&self) -> &TopicPartition {
        &self.tp
    }
}

/// A fetched record, still in its fetch buffer: to be kept only briefly, since it keeps the whole buffer alive.
pub struct ConsumerRecord {
    raw: RawMessage,
}

impl From<RawMessage> for ConsumerRecord {
    fn from(raw: RawMessage) -> Self {
        Self { raw }
    }
}

impl ConsumerRecord {
    /// The offset.
    #[must_use]
    pub fn offset(&self) -> i64 {
        self.raw.offset()
    }

    /// The timestamp: the append time if the topic has `LogAppendTime`.
    #[must_use]
    pub fn timestamp(&self) -> Timestamp {
        Timestamp::from_millis(self.raw.timestamp())
    }

    /// Whether the timestamp is the broker's (`LogAppendTime`), not the producer's.
    #[must_use]
    pub fn has_append_time(&self) -> bool {
        self.raw.has_append_time()
    }

    /// The key; null and empty are different.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.raw.key()
    }

    /// The value; null and empty are different.
    #[must_use]
    pub fn value(&self) -> Option<&[u8]> {
        self.raw.value()
    }

    /// The headers, names as bytes.
    #[must_use]
    pub fn headers(&self) -> HeaderIter<'_> {
        self.raw.headers()
    }

    /// Why the record cannot be moved with its headers, if so. Must be called before they are taken.
    #[must_use]
    pub fn header_fault(&self) -> Option<HeaderFault> {
        if !self.raw.are_headers_readable() {
            return Some(HeaderFault::Unreadable);
        }
        if self.raw.header_count() <= MOST_HEADERS {
            return None;
        }
        // kladder's own are replaced at every hop.
        let count = self.headers().filter(|(name, _)| !is_own(name)).count();
        (count > MOST_HEADERS).then_some(HeaderFault::TooMany(count))
    }

    /// Takes the headers without a copy; leaves none behind.
    #[must_use]
    pub fn take_headers(&mut self) -> NativeHeaders {
        self.raw.take_headers()
    }

    /// A copy of the headers.
    #[must_use]
    pub fn copy_headers(&self) -> NativeHeaders {
        self.raw.copy_headers()
    }

    /// The broker that it was fetched from.
    #[must_use]
    pub fn broker(&self) -> i32 {
        self.raw.broker()
    }

    /// Its position.
    #[must_use]
    pub fn coordinates(&self, tp: &TopicPartition) -> Coordinates {
        Coordinates { topic: tp.topic.to_string(), partition: tp.partition, offset: self.offset(), timestamp: self.timestamp() }
    }
}

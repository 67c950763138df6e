//! Where a record stands in Kafka.

use crate::core::time::Timestamp;

/// Where a record stands in Kafka.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Coordinates {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The record's timestamp, as the broker gave it.
    pub timestamp: Timestamp,
}

//! The position of a record in Kafka.

use crate::core::time::Timestamp;

/// The position of a record in Kafka.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Coordinates {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The record's timestamp in the topic.
    pub timestamp: Timestamp,
}

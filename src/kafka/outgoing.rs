//! What is handed to a producer, and what it reports of it.

use crate::core::leader_clock::LocalTime;
use crate::core::time::Timestamp;
use crate::kafka::error::WriteFault;

/// A target topic, by its number in the producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicId(pub(in crate::kafka) usize);

/// For the model of the workers, which numbers its topics itself.
#[cfg(test)]
impl TopicId {
    pub(crate) fn numbered(number: usize) -> Self {
        Self(number)
    }

    pub(crate) fn number(self) -> usize {
        self.0
    }
}

/// A record to write, borrowed from its owner.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// Null and empty are different.
    pub key: Option<&'a [u8]>,
    /// Null and empty are different.
    pub value: Option<&'a [u8]>,
}

/// A reading of a broker's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockReading {
    /// The broker.
    pub broker: i32,
    /// Time before it was sent.
    pub sent: LocalTime,
    /// The append time.
    pub appended: Timestamp,
    /// Time after it was confirmed.
    pub confirmed: LocalTime,
}

/// The results of all writes since the last call.
#[derive(Debug, Default)]
pub struct Settled {
    /// The tags of the records that were not written, and why.
    pub faults: Vec<(usize, WriteFault)>,
    /// Append times of the written records by tag, from brokers that set them.
    pub appended: Vec<(usize, Timestamp)>,
    /// Whether the transaction failed because a topic in it may not be written to. It is unknown which one: the coordinator
    /// refused to add its partitions, whereupon the client dropped every unwritten record.
    pub denied: bool,
    /// A reading of the clock of the broker that confirmed last.
    pub clock: Option<ClockReading>,
}

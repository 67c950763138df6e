//! One delay of a ladder.

use crate::core::delay::Delay;

/// One delay of the ladder, with its topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tier {
    pub(super) number: u32,
    pub(super) delay: Delay,
    pub(super) topic: String,
}

impl Tier {
    /// Counted from 1.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// How long a record waits in it.
    #[must_use]
    pub fn delay(&self) -> Delay {
        self.delay
    }

    /// The Kafka topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }
}

//! Why a worker ended.

use thiserror::Error;

use crate::kafka::consumer::TopicPartition;
use crate::kafka::error::{ClientError, TxnError};
use crate::worker::positions::PositionError;

/// Why a worker ended before it was asked to.
#[derive(Debug, Error)]
pub enum WorkError {
    /// Kafka, in a way that starting anew may heal.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A transaction, in a way that starting anew may heal.
    #[error(transparent)]
    Transaction(#[from] TxnError),
    /// Where to start is not known.
    #[error(transparent)]
    Position(#[from] PositionError),
    /// The broker no longer has what the group has not yet consumed.
    #[error(
        "{partition} no longer has the committed offset of group {group}: records were deleted before they were consumed (retention, \
         or the topic was made anew); decide where to go on with `kafka-consumer-groups --group {group} --topic {topic} \
         --reset-offsets --to-earliest --execute` while no worker runs"
    )]
    OffsetLost {
        /// Where.
        partition: TopicPartition,
        /// Its topic.
        topic: String,
        /// The group.
        group: String,
    },
    /// The state topic says that the ladder is another group's.
    #[error(
        "ladder {ladder} belongs to group {owner}, not to group {group}: two groups never share a ladder, so give it another name \
         or correct its `group`; if group {group} is to have it from now on, stop the workers of the other and run `kladder setup \
         --take-over --ladder {ladder}`"
    )]
    OtherOwner {
        /// The ladder.
        ladder: String,
        /// Whose it is.
        owner: String,
        /// Whose it is configured to be.
        group: String,
    },
}

impl WorkError {
    /// Whether starting anew cannot help, so that somebody has to decide.
    #[must_use]
    pub fn needs_decision(&self) -> bool {
        matches!(self, Self::OffsetLost { .. } | Self::OtherOwner { .. } | Self::Position(PositionError::Missing { .. }))
    }

    /// Whether nobody answered: the worker starts anew until somebody does.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        self.cause().is_some_and(ClientError::is_outage)
    }

    /// Whether the broker does not allow something, so that somebody has to grant it.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        self.cause().is_some_and(ClientError::is_denied)
    }

    fn cause(&self) -> Option<&ClientError> {
        match self {
            Self::Client(cause) | Self::Position(PositionError::Client(cause)) => Some(cause),
            Self::Transaction(error) => Some(error.cause()),
            _ => None,
        }
    }

    pub(crate) fn offset_lost(partition: &TopicPartition, group: &str) -> Self {
        Self::OffsetLost { partition: partition.clone(), topic: partition.topic.to_string(), group: group.to_owned() }
    }
}

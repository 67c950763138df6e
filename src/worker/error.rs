//! Why a worker ended.

use thiserror::Error;

use crate::core::role::Role;
use crate::kafka::error::{ClientError, TxnError};
use crate::kafka::partition::TopicPartition;

/// Why a worker ended without a stop request.
#[derive(Debug, Error)]
pub enum WorkError {
    /// A Kafka error that a restart may fix.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A transaction error that a restart may fix.
    #[error(transparent)]
    Transaction(#[from] TxnError),
    /// The start offset is unknown.
    #[error(transparent)]
    Position(#[from] PositionError),
    /// Another live worker has this worker's name.
    #[error(
        "another live worker has the name of this {role} of ladder {ladder}, `{instance}`, and took its place ({cause}): give each \
         worker its own `instance` in [worker]; the name of a host, or of a pod of a StatefulSet, is one"
    )]
    Rival {
        /// The ladder.
        ladder: String,
        /// The worker's role.
        role: Role,
        /// The instance name.
        instance: String,
        /// The error that shows it.
        cause: Box<ClientError>,
    },
    /// The group does not release this worker's name.
    #[error(
        "group does not release this worker's name, so another live worker has it ({0}): give each worker its own `instance` \
         in [worker]; the name of a host, or of a pod of a StatefulSet, is one"
    )]
    NameTaken(Box<ClientError>),
    /// The deliverer's group has members that are not kladder's.
    #[error(
        "group {group} has members other than kladder: {members}; they would take a part of the partitions, whose failed records \
         would never reach the ladder: stop them, or give the ladder its own `group`"
    )]
    ForeignMembers {
        /// The group.
        group: String,
        /// The first few of them.
        members: String,
    },
    /// The deliverer's group has deliverers of another ladder.
    #[error(
        "group {group} is also that of ladder {other}, whose workers are members: each ladder would get a part of the partitions, and \
         records of one would be delivered to the handler of the other; name all sources in one ladder, or give each its own `group`"
    )]
    SharedGroup {
        /// The group.
        group: String,
        /// The other ladder.
        other: String,
    },
    /// The broker no longer has records that the group has not consumed.
    #[error(
        "{partition} no longer has the committed offset of group {group}: records were deleted before they were consumed (retention, \
         or the topic was recreated); set an offset with `kafka-consumer-groups --group {group} --topic {topic} \
         --reset-offsets --to-earliest --execute` while no worker runs"
    )]
    OffsetLost {
        /// The partition.
        partition: TopicPartition,
        /// Its topic.
        topic: String,
        /// The group.
        group: String,
    },
    /// The ladder belongs to another group.
    #[error(
        "ladder {ladder} belongs to group {owner}, not to group {group}: two groups never share a ladder, so give it another name \
         or correct its `group`; if group {group} is to own it from now on, stop the workers of the other group and run `kladder setup \
         --take-over --ladder {ladder}`"
    )]
    OtherOwner {
        /// The ladder.
        ladder: String,
        /// The owner group.
        owner: String,
        /// The configured group.
        group: String,
    },
}

/// Why partitions could not be started.
#[derive(Debug, Error)]
pub enum PositionError {
    /// The broker did not answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Committed offsets are missing although they existed, or `setup` has not been run.
    #[error(
        "group {group} has no committed offset for {partitions}: run `kladder setup`, which shows the start offsets; if the \
         offsets were lost, choose an offset and set it with kafka-consumer-groups --reset-offsets"
    )]
    Missing {
        /// The group.
        group: String,
        /// The first few of them.
        partitions: String,
    },
}

impl WorkError {
    /// Whether a restart cannot help, so that an operator must decide.
    #[must_use]
    pub fn needs_decision(&self) -> bool {
        matches!(
            self,
            Self::OffsetLost { .. }
                | Self::OtherOwner { .. }
                | Self::Rival { .. }
                | Self::NameTaken(_)
                | Self::ForeignMembers { .. }
                | Self::SharedGroup { .. }
                | Self::Position(PositionError::Missing { .. })
        )
    }

    /// Whether no broker answered: the worker is restarted until one does.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        self.cause().is_some_and(ClientError::is_outage)
    }

    /// Whether a permission is missing, so that an operator must grant it.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        self.cause().is_some_and(ClientError::is_denied)
    }

    /// Whether the group still has a member of this worker's name; see [`ClientError::is_name_taken`].
    #[must_use]
    pub fn is_name_taken(&self) -> bool {
        self.cause().is_some_and(ClientError::is_name_taken)
    }

    /// Turns it into the error for a name that stays taken.
    pub(crate) fn named_for_good(self) -> Self {
        match self.cause() {
            Some(cause) => Self::NameTaken(Box::new(cause.clone())),
            None => self,
        }
    }

    /// Adds the worker's name if it has a rival.
    pub(crate) fn naming(self, ladder: &str, role: Role, instance: &str) -> Self {
        match self.cause() {
            Some(cause) if cause.is_rival() => {
                Self::Rival { ladder: ladder.to_owned(), role, instance: instance.to_owned(), cause: Box::new(cause.clone()) }
            }
            _ => self,
        }
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

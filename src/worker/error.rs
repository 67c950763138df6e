//! Why a worker ended.

use thiserror::Error;

use crate::kafka::error::{ClientError, TxnError};
use crate::kafka::partition::TopicPartition;
use crate::worker::hop::positions::PositionError;

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
    /// Another live worker has this one's name.
    #[error(
        "another live worker has the name of this {role} of ladder {ladder}, `{instance}`, and took its place ({cause}): give each \
         worker an `instance` of its own below [worker]; the name of a host, or of a pod of a StatefulSet, is one"
    )]
    Rival {
        /// The ladder.
        ladder: String,
        /// What the worker does.
        role: &'static str,
        /// The name.
        instance: String,
        /// How it was found out.
        cause: Box<ClientError>,
    },
    /// The group does not release this worker's name.
    #[error(
        "group does not release this worker's name, so another live worker has it ({0}): give each worker an `instance` of its own \
         below [worker]; the name of a host, or of a pod of a StatefulSet, is one"
    )]
    NameTaken(Box<ClientError>),
    /// Members that are not kladder's sit in the deliverer's group.
    #[error(
        "group {group} has members that are not kladder's: {members}; they would take a part of the partitions, and their records \
         would never climb the ladder: stop them, or give the ladder a `group` of its own"
    )]
    ForeignMembers {
        /// The group.
        group: String,
        /// The first few of them.
        members: String,
    },
    /// Deliverers of another ladder sit in the deliverer's group.
    #[error(
        "group {group} is that of ladder {other} too, whose workers are in it: each ladder would get a part of the partitions, and \
         records of one would be given to the handler of the other; name all sources in one ladder, or give each a `group` of its own"
    )]
    SharedGroup {
        /// The group.
        group: String,
        /// The other ladder.
        other: String,
    },
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

    /// Whether the group still has a member of this worker's name; see [`ClientError::is_name_taken`].
    #[must_use]
    pub fn is_name_taken(&self) -> bool {
        self.cause().is_some_and(ClientError::is_name_taken)
    }

    /// A name that is taken, and stays so.
    pub(crate) fn named_for_good(self) -> Self {
        match self.cause() {
            Some(cause) => Self::NameTaken(Box::new(cause.clone())),
            None => self,
        }
    }

    /// Names the worker where it has a rival.
    pub(crate) fn naming(self, ladder: &str, role: &'static str, instance: &str) -> Self {
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

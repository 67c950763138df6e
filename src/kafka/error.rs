//! What can go wrong with a Kafka client, sorted by what has to be done about it.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use thiserror::Error;

/// A Kafka client could not do something.
#[derive(Debug, Clone, Error)]
#[error("{doing}: {cause}{}", self.remedy())]
pub struct ClientError {
    doing: String,
    cause: String,
    code: Option<RDKafkaErrorCode>,
    fatal: bool,
    rival: bool,
}

impl ClientError {
    pub(crate) fn new(doing: impl Into<String>, error: &KafkaError) -> Self {
        let fatal = match error {
            KafkaError::Transaction(e) => e.is_fatal(),
            KafkaError::MessageConsumptionFatal(_) => true,
            other => other.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal),
        };
        let cause = match error {
            KafkaError::Transaction(e) => e.string(),
            other => other.to_string(),
        };
        Self { doing: doing.into(), cause, code: error.rdkafka_error_code(), fatal, rival: false }
    }

    pub(crate) fn text(doing: impl Into<String>, cause: impl Into<String>) -> Self {
        Self { doing: doing.into(), cause: cause.into(), code: None, fatal: false, rival: false }
    }

    pub(crate) fn code(doing: impl Into<String>, code: RDKafkaErrorCode) -> Self {
        Self { doing: doing.into(), cause: code.to_string(), code: Some(code), fatal: false, rival: false }
    }

    /// The client is of no use any more, and its successor will do.
    pub(crate) fn done_for(doing: impl Into<String>, cause: impl Into<String>) -> Self {
        Self { fatal: true, ..Self::text(doing, cause) }
    }

    /// What a client has declared itself beyond repair for.
    pub(crate) fn beyond_repair(doing: impl Into<String>, (code, text): (RDKafkaErrorCode, String)) -> Self {
        Self { doing: doing.into(), cause: text, code: Some(code), fatal: true, rival: false }
    }

    /// The same, by a live worker of the same name.
    pub(crate) fn by_rival(mut self) -> Self {
        self.rival = true;
        self
    }

    /// Whether another live worker of the same name has taken this one's place: a group has one member of a name, and one producer
    /// of a transactional.id. To join again would throw the other one out, and so on in turn.
    #[must_use]
    pub fn is_rival(&self) -> bool {
        self.rival || self.code == Some(RDKafkaErrorCode::FencedInstanceId)
    }

    /// Whether the group still has a member of this name. By the newer group protocol a name is free again only when its last owner
    /// has left or its session has ended, so a worker that comes back after a crash has to wait for that.
    #[must_use]
    pub fn is_name_taken(&self) -> bool {
        self.code == Some(RDKafkaErrorCode::UnreleasedInstanceId)
    }

    /// For a record that was not written.
    pub(crate) fn fault(doing: impl Into<String>, fault: WriteFault) -> Self {
        match fault {
            WriteFault::Denied => Self::code(doing, RDKafkaErrorCode::TopicAuthorizationFailed),
            other => Self::text(doing, other.to_string()),
        }
    }

    /// Whether the broker does not allow it. Somebody has to grant it; asked for again after that, it will be done.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        self.code.is_some_and(is_denial)
    }

    fn remedy(&self) -> &'static str {
        if self.is_denied() { " (`kladder generate acls` prints the rules that are needed)" } else { "" }
    }

    /// What was being done, and what came of it, for those who add the remedy themselves.
    pub(crate) fn without_remedy(&self) -> String {
        format!("{}: {}", self.doing, self.cause)
    }

    /// Whether the client itself is beyond repair and has to be made anew.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        self.fatal
    }

    /// Whether this producer was fenced by another of the same transactional.id.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        self.code.is_some_and(is_fence)
    }

    /// Whether nobody answered: that passes, however long it takes.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        matches!(
            self.code,
            Some(
                RDKafkaErrorCode::AllBrokersDown
                    | RDKafkaErrorCode::BrokerTransportFailure
                    | RDKafkaErrorCode::OperationTimedOut
                    | RDKafkaErrorCode::RequestTimedOut
                    | RDKafkaErrorCode::CoordinatorNotAvailable
                    | RDKafkaErrorCode::CoordinatorLoadInProgress
                    | RDKafkaErrorCode::NotCoordinator
                    | RDKafkaErrorCode::LeaderNotAvailable
                    | RDKafkaErrorCode::BrokerNotAvailable
                    | RDKafkaErrorCode::NetworkException
            )
        )
    }

    /// Whether the group has moved on: this member's assignment is, or will be, another one.
    #[must_use]
    pub fn is_group_change(&self) -> bool {
        matches!(
            self.code,
            Some(
                RDKafkaErrorCode::IllegalGeneration
                    | RDKafkaErrorCode::UnknownMemberId
                    | RDKafkaErrorCode::RebalanceInProgress
                    | RDKafkaErrorCode::AssignmentLost
                    | RDKafkaErrorCode::NoOffset
                    | RDKafkaErrorCode::StaleMemberEpoch
                    | RDKafkaErrorCode::FencedMemberEpoch
            )
        )
    }
}

pub(crate) fn is_fence(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::Fenced
            | RDKafkaErrorCode::ProducerFenced
            | RDKafkaErrorCode::InvalidProducerEpoch
            | RDKafkaErrorCode::FencedInstanceId
    )
}

/// For the model of the committer, in which there is no client that could fail.
#[cfg(test)]
impl ClientError {
    fn of_model(code: RDKafkaErrorCode, fatal: bool) -> Self {
        Self { fatal, ..Self::code("a call of the model", code) }
    }

    /// The group has moved on.
    pub(crate) fn group_change() -> Self {
        Self::of_model(RDKafkaErrorCode::IllegalGeneration, false)
    }

    /// Another producer of the same name has begun.
    pub(crate) fn fenced() -> Self {
        Self::of_model(RDKafkaErrorCode::ProducerFenced, true)
    }

    /// Nobody answers.
    pub(crate) fn outage() -> Self {
        Self::of_model(RDKafkaErrorCode::OperationTimedOut, false)
    }

    /// The client is beyond repair.
    pub(crate) fn fatal() -> Self {
        Self::of_model(RDKafkaErrorCode::Fatal, true)
    }
}

pub(crate) fn is_denial(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::TransactionalIdAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
    )
}

/// How a transaction failed, by what has to follow.
#[derive(Debug, Clone, Error)]
pub enum TxnError {
    /// Abort, keep the records, take the group metadata anew, try again if the partitions are still assigned.
    #[error("transaction to be aborted: {0}")]
    Abort(#[source] ClientError),
    /// The producer is beyond repair: rebuild it. The transaction did not commit.
    #[error("producer to be rebuilt: {0}")]
    Rebuild(#[source] ClientError),
    /// Nobody knows whether the transaction committed: rebuild the producer, then read the committed offsets.
    #[error("transaction of unknown outcome: {0}")]
    Unknown(#[source] ClientError),
    /// Another live worker of the same name uses the transactional.id: to rebuild the producer would fence that one in turn.
    #[error("transaction fenced: {0}")]
    Rival(#[source] ClientError),
}

impl TxnError {
    /// Sorts an error of a transaction call other than commit. What librdkafka marks neither as retriable nor as abortable is
    /// fatal.
    pub(crate) fn of(doing: &str, error: &KafkaError) -> Self {
        let cause = ClientError::new(doing, error);
        match error {
            _ if cause.is_rival() => Self::Rival(cause),
            KafkaError::Transaction(e) if e.txn_requires_abort() || e.is_retriable() => Self::Abort(cause),
            _ if cause.is_group_change() => Self::Abort(cause),
            _ => Self::Rebuild(cause),
        }
    }

    /// What happened.
    #[must_use]
    pub fn cause(&self) -> &ClientError {
        match self {
            Self::Abort(cause) | Self::Rebuild(cause) | Self::Unknown(cause) | Self::Rival(cause) => cause,
        }
    }
}

/// Why one record could not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WriteFault {
    /// It is larger than the topic takes, alone or with the records that were sent along with it.
    #[error("record is larger than the topic takes")]
    TooLarge,
    /// The topic may not be written to, whatever the record.
    #[error("not authorised to write to the topic")]
    Denied,
    /// The broker refuses it, and will tomorrow: unknown topic or partition, invalid.
    #[error("broker refuses the record: {0}")]
    Refused(&'static str),
    /// The client gave the transaction up before the record went out; whatever made it do so is no fault of the record.
    ///
    /// That happens once after a record was refused: librdkafka 2.12 numbers the next batch of the partition as if the refused one
    /// had been written, so the broker finds a gap, and the client aborts and begins a new numbering.
    #[error("transaction was given up before the record went out")]
    Aborted,
    /// Something that passes: no leader, a time-out.
    #[error("record could not be delivered: {0}")]
    Passing(&'static str),
}

impl WriteFault {
    /// Whether it passes by itself: it is not the record that is at fault.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Passing(_))
    }

    /// Whether the record is at fault: trying again as it was would end the same way.
    #[must_use]
    pub fn lasts(&self) -> bool {
        matches!(self, Self::TooLarge | Self::Refused(_))
    }

    /// Sorts the error of a delivery report or of a local refusal.
    pub(crate) fn of(code: RDKafkaErrorCode) -> Self {
        use RDKafkaErrorCode as Code;
        match code {
            Code::MessageSizeTooLarge | Code::MessageBatchTooLarge => Self::TooLarge,
            Code::TopicAuthorizationFailed => Self::Denied,
            Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
                Self::Refused("topic or partition does not exist")
            }
            Code::InvalidTimestamp => Self::Refused("invalid timestamp"),
            Code::InvalidMessage | Code::BadMessage | Code::InvalidMessageSize | Code::InvalidRecord => {
                Self::Refused("invalid record")
            }
            Code::PolicyViolation => Self::Refused("against the broker's policy"),
            Code::MessageTimedOut => Self::Passing("timed out"),
            Code::NotEnoughReplicas | Code::NotEnoughReplicasAfterAppend => Self::Passing("not enough replicas in sync"),
            Code::PurgeQueue | Code::PurgeInflight => Self::Aborted,
            _ => Self::Passing("broker not reachable or transaction aborted"),
        }
    }
}

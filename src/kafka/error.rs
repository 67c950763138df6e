//! Errors of Kafka clients, classified by the necessary reaction.

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

    /// The client is unusable, and must be replaced.
    pub(crate) fn done_for(doing: impl Into<String>, cause: impl Into<String>) -> Self {
        Self { fatal: true, ..Self::text(doing, cause) }
    }

    /// A client's fatal error.
    pub(crate) fn beyond_repair(doing: impl Into<String>, (code, text): (RDKafkaErrorCode, String)) -> Self {
        Self { doing: doing.into(), cause: text, code: Some(code), fatal: true, rival: false }
    }

    /// The same, caused by a live worker with the same name.
    pub(crate) fn by_rival(mut self) -> Self {
        self.rival = true;
        self
    }

    /// Whether another live worker with the same name has taken this one's place: a group has one member per name, and a
    /// transactional.id one producer. Joining again would fence the other one, and so on in turn.
    #[must_use]
    pub fn is_rival(&self) -> bool {
        self.rival || self.code == Some(RDKafkaErrorCode::FencedInstanceId)
    }

    /// Whether the group still has a member with this name. In the newer group protocol a name becomes free only when its last
    /// owner has left or its session has expired, so a worker that restarts after a crash must wait for that.
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

    /// Whether the broker denies it. An operator must grant it; a later retry will then succeed.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        self.code.is_some_and(is_denial)
    }

    fn remedy(&self) -> &'static str {
        if self.is_denied() { " (`kladder generate acls` prints the required rules)" } else { "" }
    }

    /// The action and its error, for callers that add the remedy themselves.
    pub(crate) fn without_remedy(&self) -> String {
        format!("{}: {}", self.doing, self.cause)
    }

    /// Whether the client itself has failed fatally and must be recreated.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        self.fatal
    }

    /// Whether this producer was fenced by another of the same transactional.id.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        self.code.is_some_and(is_fence)
    }

    /// Whether no broker answered: temporary, however long it takes.
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

    /// Whether it is due to a rebalance: this member's assignment is changing or has changed.
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

/// For the model of the committer, which has no client that could fail.
#[cfg(test)]
impl ClientError {
    fn of_model(code: RDKafkaErrorCode, fatal: bool) -> Self {
        Self { fatal, ..Self::code("a call of the model", code) }
    }

    /// A rebalance.
    pub(crate) fn group_change() -> Self {
        Self::of_model(RDKafkaErrorCode::IllegalGeneration, false)
    }

    /// Another producer of the same name has started.
    pub(crate) fn fenced() -> Self {
        Self::of_model(RDKafkaErrorCode::ProducerFenced, true)
    }

    /// No broker answers.
    pub(crate) fn outage() -> Self {
        Self::of_model(RDKafkaErrorCode::OperationTimedOut, false)
    }

    /// A fatal error.
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

/// How a transaction failed, by the necessary reaction.
#[derive(Debug, Clone, Error)]
pub enum TxnError {
    /// Abort, keep the records, read the group metadata again, retry if the partitions are still assigned.
    #[error("transaction to be aborted: {0}")]
    Abort(#[source] ClientError),
    /// The producer has failed fatally: recreate it. The transaction did not commit.
    #[error("producer to be recreated: {0}")]
    Rebuild(#[source] ClientError),
    /// It is unknown whether the transaction committed: recreate the producer, then read the committed
    /// offsets.
    #[error("transaction of unknown outcome: {0}")]
    Unknown(#[source] ClientError),
    /// Another live worker with the same name uses the transactional.id: recreating the producer would fence that one in
    /// turn.
    #[error("transaction fenced: {0}")]
    Rival(#[source] ClientError),
}

impl TxnError {
    /// Classifies an error of a transaction call other than commit. Errors that librdkafka marks neither as retriable nor as
    /// abortable are fatal.
    pub(crate) fn of(doing: &str, error: &KafkaError) -> Self {
        let cause = ClientError::new(doing, error);
        match error {
            _ if cause.is_rival() => Self::Rival(cause),
            KafkaError::Transaction(e) if e.txn_requires_abort() || e.is_retriable() => Self::Abort(cause),
            _ if cause.is_group_change() => Self::Abort(cause),
            _ => Self::Rebuild(cause),
        }
    }

    /// The error.
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
    /// It is larger than the topic allows, alone or with the records sent together with it.
    #[error("record is larger than the topic allows")]
    TooLarge,
    /// It is larger than this client's settings allow.
    #[error("record is larger than the client's queue.buffering.max.kbytes")]
    TooLargeForClient,
    /// The topic may not be written to, whatever the record.
    #[error("not authorised to write to the topic")]
    Denied,
    /// The topic or partition does not exist, whatever the record.
    #[error("topic or partition does not exist")]
    Missing,
    /// The broker refuses it, or one sent together with it, permanently.
    ///
    /// Before it was sent alone it is unknown which one is meant: if a broker names one record of a batch, librdkafka 2.12 gives its error to
    /// all of them, since it calls its interceptors first; if the broker names several, it gives the others an error of their own.
    ///
    /// The broker's own sentence (KIP-467) cannot be read. When a delivery report arrives, librdkafka 2.12.1 has freed it:
    /// `rd_kafka_message_produce_errstr` points into the response, and the report owns a copy that nothing gives access to
    /// (`rd_kafka_dr_msgq0`). An interceptor is called before that, but the same pointer is never initialised (`rd_kafka_msg_new00`), and set
    /// only if the response has a sentence, which cannot be told from one that has none.
    #[error("broker refuses the record: {0}")]
    Refused(&'static str),
    /// Another record of its batch was refused, so this one was not written either.
    #[error("another record of its batch was refused")]
    Beside,
    /// The client failed the transaction before the record was sent; the cause is not the record.
    ///
    /// That happens once after a record was refused: librdkafka 2.12 numbers the next batch of the partition as if the refused one
    /// had been written, so the broker finds a gap, and the client aborts and begins a new numbering.
    #[error("transaction failed before the record was sent")]
    Aborted,
    /// Temporary: no leader, a timeout.
    #[error("record could not be delivered: {0}")]
    Passing(&'static str),
}

impl WriteFault {
    /// Whether it is temporary: the record is not faulty.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Passing(_))
    }

    /// Whether a retry would fail the same way until somebody changes something. Which record of a batch is faulty shows when each is
    /// sent alone.
    #[must_use]
    pub fn lasts(&self) -> bool {
        matches!(self, Self::TooLarge | Self::TooLargeForClient | Self::Missing | Self::Refused(_))
    }

    /// What to do about it; nothing if it is temporary.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::TooLarge => "raise max.message.bytes of the topic: for the ladder's topics `kladder setup` shows the command",
            Self::TooLargeForClient => "raise queue.buffering.max.kbytes in [kafka.producer]",
            Self::Denied => "grant Write on the topic: `kladder generate acls` prints the rules",
            Self::Missing => "create the topic with as many partitions as it had: `kladder setup` creates the ladder's topics",
            Self::Refused(_) => {
                "the topic must accept every record: `kladder doctor` names settings that prevent it, such as cleanup.policy; policies \
                 and schema validation of the brokers must exclude it"
            }
            Self::Beside | Self::Aborted | Self::Passing(_) => "it is retried automatically",
        }
    }

    /// Classifies the error of a delivery report or of a local refusal.
    pub(crate) fn of(code: RDKafkaErrorCode) -> Self {
        use RDKafkaErrorCode as Code;
        match code {
            Code::MessageSizeTooLarge | Code::MessageBatchTooLarge => Self::TooLarge,
            Code::TopicAuthorizationFailed => Self::Denied,
            Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition | Code::InvalidTopic => Self::Missing,
            Code::InvalidTimestamp => Self::Refused(
                "INVALID_TIMESTAMP: its timestamp is outside of the topic's limits (message.timestamp.before.max.ms, \
                 message.timestamp.after.max.ms)",
            ),
            Code::InvalidRecord => Self::Refused(
                "INVALID_RECORD: the broker's validation failed (a compacted topic accepts no record without a key, one with schema validation \
                 none that violates its schema)",
            ),
            Code::InvalidMessage | Code::BadMessage | Code::InvalidMessageSize => {
                Self::Refused("CORRUPT_MESSAGE: the broker cannot read it, or accepts none without a key")
            }
            Code::PolicyViolation => Self::Refused("POLICY_VIOLATION: it violates a policy of the brokers"),
            Code::UnsupportedForMessageFormat => {
                Self::Refused("UNSUPPORTED_FOR_MESSAGE_FORMAT: the topic's message format does not support it")
            }
            Code::UnsupportedCompressionType => {
                Self::Refused("UNSUPPORTED_COMPRESSION_TYPE: the broker does not accept its compression (compression.type)")
            }
            Code::InvalidDifferentRecord => Self::Beside,
            Code::MessageTimedOut => Self::Passing("timed out"),
            Code::NotEnoughReplicas | Code::NotEnoughReplicasAfterAppend => Self::Passing("not enough replicas in sync"),
            Code::PurgeQueue | Code::PurgeInflight => Self::Aborted,
            _ => Self::Passing("broker not reachable or transaction aborted"),
        }
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::error::RDKafkaErrorCode as Code;

    use super::*;

    #[test]
    fn what_is_refused_for_good_is_told_from_what_passes_and_from_who_stood_beside_it() {
        for code in [Code::InvalidRecord, Code::InvalidTimestamp, Code::PolicyViolation, Code::UnsupportedForMessageFormat] {
            let fault = WriteFault::of(code);
            assert!(matches!(fault, WriteFault::Refused(_)) && fault.lasts() && !fault.is_passing(), "{code:?}");
            assert!(!fault.remedy().contains("max.message.bytes"), "{code:?}");
        }
        let beside = WriteFault::of(Code::InvalidDifferentRecord);
        assert!(!beside.lasts() && !beside.is_passing());
        for code in [Code::MessageTimedOut, Code::NotEnoughReplicas, Code::Unknown] {
            assert!(WriteFault::of(code).is_passing(), "{code:?}");
        }
        assert_eq!(WriteFault::of(Code::UnknownTopicOrPartition), WriteFault::Missing);
        assert!(WriteFault::TooLarge.remedy().contains("max.message.bytes"));
    }
}

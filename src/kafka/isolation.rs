//! Isolation levels of consumers.

/// Isolation level of a consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Only committed records. Records after an open transaction are invisible until it ends.
    Committed,
    /// All records at once, including those aborted later: for records that are never written in a transaction, and must not
    /// wait for those of others.
    Uncommitted,
}

impl Isolation {
    /// The value of `isolation.level`.
    pub(super) fn property(self) -> &'static str {
        match self {
            Self::Committed => "read_committed",
            Self::Uncommitted => "read_uncommitted",
        }
    }
}

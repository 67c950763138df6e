//! What a reader sees of transactions.

/// What a reader sees of transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Only what is committed. Behind an open transaction nothing is seen until it ends.
    Committed,
    /// Everything at once, what is aborted later too: for records that are never written in a transaction, and must not wait for
    /// those of others.
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

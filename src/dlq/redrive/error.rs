//! Why a redrive fails.

use thiserror::Error;

use crate::dlq::desk::DeskError;
use crate::dlq::feed::FeedError;
use crate::kafka::error::{ClientError, WriteFault};

/// Why a redrive failed; its letters are unchanged except those that its job counts as done.
#[derive(Debug, Error)]
pub enum RedriveError {
    /// The state cannot be read or written.
    #[error(transparent)]
    Desk(#[from] DeskError),
    /// The letters cannot be read.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Another redriver has taken over.
    #[error("{by} has taken over; this job has sent {done}, the others are unchanged: `kladder dlq jobs resume {job}`")]
    TakenOver {
        /// The other redriver.
        by: String,
        /// The job.
        job: String,
        /// Number of letters that it has sent.
        done: u64,
    },
    /// The target cannot be written to.
    #[error("cannot write to {topic}: {fault}")]
    Target {
        /// The topic.
        topic: String,
        /// Why.
        fault: WriteFault,
    },
}

impl From<FeedError> for RedriveError {
    fn from(error: FeedError) -> Self {
        Self::Desk(error.into())
    }
}

impl From<crate::dlq::index::IndexError> for RedriveError {
    fn from(error: crate::dlq::index::IndexError) -> Self {
        Self::Desk(error.into())
    }
}

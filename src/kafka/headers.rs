//! Limits of record headers that can be read and written again.
//!
//! Kafka does not limit their number; librdkafka reads none of them if a record has more than 100,000, without an error. A record with fewer,
//! but more than that together with kladder's, would be read without headers at its next hop: its attempts, its id, and its producer's
//! headers would be lost. So neither kind is moved as usual.

use thiserror::Error;

/// librdkafka reads at most this many.
pub const CLIENT_LIMIT: usize = 100_000;

/// Number of headers reserved for kladder.
const OWN: usize = 64;

/// Maximum number of producer headers of a record that can be moved.
pub const MOST_HEADERS: usize = CLIENT_LIMIT - OWN;

/// Why a record cannot be moved with its headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HeaderFault {
    /// The client cannot read them.
    #[error("its headers cannot be read, since there are more than {CLIENT_LIMIT} of them, or they are broken")]
    Unreadable,
    /// With kladder's own there would be too many to be read.
    #[error("its {0} headers and kladder's own would exceed the client's limit of {CLIENT_LIMIT}")]
    TooMany(usize),
}

//! The names of kladder's headers.

/// The format version that this build reads and writes.
pub const VERSION: &str = "1";

/// The ladder that wrote the envelope.
pub const LADDER: &str = "kladder-ladder";
/// The format version.
pub const V: &str = "kladder-v";
/// The idempotency key.
pub const ID: &str = "kladder-id";
/// The origin topic of the record.
pub const ORIGIN_TOPIC: &str = "kladder-origin-topic";
/// The origin partition of the record.
pub const ORIGIN_PARTITION: &str = "kladder-origin-partition";
/// The origin offset of the record.
pub const ORIGIN_OFFSET: &str = "kladder-origin-offset";
/// The origin timestamp of the record.
pub const ORIGIN_TIMESTAMP: &str = "kladder-origin-timestamp";
/// The attempts made so far.
pub const ATTEMPTS: &str = "kladder-attempts";
/// How often the last attempt was retried in place before it counted as failed; absent if it was not.
pub const IMMEDIATE: &str = "kladder-immediate";
/// The tier of the record's current or last wait.
pub const TIER: &str = "kladder-tier";
/// The moment before which the record must not be redelivered, beyond its tier's delay.
pub const NOT_BEFORE: &str = "kladder-not-before";
/// When the first attempt failed.
pub const FIRST_FAILED_AT: &str = "kladder-first-failed-at";
/// When the last attempt failed.
pub const LAST_FAILED_AT: &str = "kladder-last-failed-at";
/// The kind of the last error.
pub const ERROR_CLASS: &str = "kladder-error-class";
/// The message of the last error.
pub const ERROR_MESSAGE: &str = "kladder-error-message";
/// The message of the last error.
pub const ERROR_STATUS: &str = "kladder-error-status";
/// The stack trace of the last error.
pub const ERROR_STACK: &str = "kladder-error-stack";
/// One compact entry per attempt.
pub const HISTORY: &str = "kladder-history";
/// Why the record is in the DLQ.
pub const REASON: &str = "kladder-reason";
/// The broker's message when it refused the record, and the target topic.
pub const REFUSAL: &str = "kladder-refusal";
/// How often the record was sent back from the DLQ.
pub const REDRIVES: &str = "kladder-redrives";
/// Set (`1`) if the record would be a dead letter, but waits because there are too many of them.
pub const HELD: &str = "kladder-held";
/// The application's verdict on a record that it puts into the inbox: `reject` dead-letters it at once. Never on a tier.
pub const VERDICT: &str = "kladder-verdict";
/// Delay in milliseconds before a record that the application puts into the inbox may be retried. Never on a tier.
pub const RETRY_AFTER: &str = "kladder-retry-after";

/// All names, in the order in which they are written; those that may be dropped come last.
pub(super) const NAMES: [&str; 22] = [
    LADDER,
    V,
    ID,
    ORIGIN_TOPIC,
    ORIGIN_PARTITION,
    ORIGIN_OFFSET,
    ORIGIN_TIMESTAMP,
    ATTEMPTS,
    IMMEDIATE,
    TIER,
    NOT_BEFORE,
    FIRST_FAILED_AT,
    LAST_FAILED_AT,
    ERROR_CLASS,
    ERROR_STATUS,
    REASON,
    REFUSAL,
    REDRIVES,
    HELD,
    ERROR_MESSAGE,
    HISTORY,
    ERROR_STACK,
];

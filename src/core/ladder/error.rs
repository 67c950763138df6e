//! Mistakes in a ladder.

use std::fmt;
use std::time::Duration;

use thiserror::Error;

use crate::core::delay::{Delay, DelayError, format_duration};

/// One mistake in a ladder.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LadderError {
    /// The name contains other characters than `a-z`, `0-9`, `-`.
    #[error("ladder name `{0}` must match [a-z0-9-]+ and be at most 100 characters long")]
    Name(String),
    /// The group is empty.
    #[error("the consumer group is empty")]
    Group,
    /// There are no sources.
    #[error("no source topic is given")]
    NoSource,
    /// A source is named twice.
    #[error("source `{0}` is named twice")]
    SourceTwice(String),
    /// Not a valid Kafka topic name.
    #[error("`{0}` is not a valid topic name: Kafka accepts 1 to 249 of a-z, A-Z, 0-9, `.`, `_`, `-`")]
    TopicName(String),
    /// The inbox of another framework does not have a valid Kafka topic name.
    #[error("`{0}` is not a valid topic name: Kafka accepts 1 to 249 of a-z, A-Z, 0-9, `.`, `_`, `-`")]
    InboxName(String),
    /// The inbox is a source: a failed record would fail for ever.
    #[error("`{0}` is a source and cannot also be the inbox")]
    InboxIsSource(String),
    /// The inbox is a topic of this ladder.
    #[error("`{0}` is a topic of the ladder itself, not of another framework")]
    InboxIsOwn(String),
    /// Applications of another framework do not read a redeliver topic.
    #[error("an inbox of another framework needs redelivery to the origin: its application does not read a redeliver topic")]
    InboxWithoutOrigin,
    /// The source is a topic of this ladder.
    #[error("source `{0}` is a topic of the ladder itself")]
    SourceIsOwn(String),
    /// There are no tiers.
    #[error("a ladder has at least one tier")]
    NoTier,
    /// Too many tiers.
    #[error("{0} tiers are too many: a ladder has at most 32")]
    TooManyTiers(usize),
    /// Two tiers have the same delay, so would share a topic.
    #[error("delay {0} appears twice: two tiers with the same delay would share a topic")]
    DelayTwice(Delay),
    /// A tier is shorter than the one before it.
    #[error("tier {1} after {0}: delays must rise from tier to tier")]
    NotRising(Delay, Delay),
    /// Not a valid delay.
    #[error("tier `{0}`: {1}")]
    Delay(String, DelayError),
    /// Number of attempts out of range.
    #[error("{0} attempts: a record has between 1 and 32767 attempts")]
    Attempts(u32),
    /// A push ladder's deliverer reads the redeliver topic.
    #[error("redelivery to the origin needs relay mode: a push ladder's deliverer reads the redeliver topic")]
    OriginWithoutRelay,
    /// Redelivery to the origin without consent.
    #[error("redelivery to the origin reaches every group that reads the source: that requires consent")]
    OriginWithoutConsent,
    /// In push mode the handler reports success.
    #[error("settle does not apply to a push ladder: its handler reports success")]
    SettleWithoutRelay,
    /// In relay mode the application makes its own attempts.
    #[error("immediate retries need push mode: in relay mode the application makes its own attempts")]
    ImmediateWithoutPush,
    /// Too many or too long in-place retries.
    #[error("immediate retries are 1 to 10, at most 10s apart: use tiers for longer delays")]
    Immediate,
    /// It would expire before the first tier's delay has passed.
    #[error("max_age {age} is shorter than the first tier, {1}: nothing would ever be retried", age = format_duration(*.0))]
    MaxAge(Duration, Delay),
    /// A rule has a mistake; with its index (from 0).
    #[error("rule {number}: {1}", number = .0 + 1)]
    Rule(usize, RuleError),
}

/// One mistake in a rule.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RuleError {
    /// It would match every failure.
    #[error("has no condition, and would match every failure")]
    HoldsForAll,
    /// The name contains other characters than `a-z`, `0-9`, `-`.
    #[error("the name must match [a-z0-9-]+ and be at most 100 characters long")]
    Name,
    /// Metrics could not distinguish two rules of the same name.
    #[error("another rule has the same name")]
    NameTwice,
    /// The tier does not exist.
    #[error("no such tier: the ladder has {0}")]
    Tier(usize),
    /// Number of attempts out of range.
    #[error("a record has between 1 and 32767 attempts")]
    Attempts,
    /// kladder's own headers are not part of the record.
    #[error("uses header `{0}`, which is kladder's own: rules only see the record's headers")]
    OwnHeader(String),
    /// Name of a dead-letter topic with invalid characters.
    #[error("the name of a dead-letter topic must match [a-z0-9-]+ and be at most 100 characters long")]
    Dlq,
}

/// All mistakes of a ladder at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LadderErrors(pub Vec<LadderError>);

impl fmt::Display for LadderErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("; ")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for LadderErrors {}

//! The ladder: what belongs to one consumer group's use of one or more source topics.

use std::fmt;
use std::time::Duration;

use thiserror::Error;

use crate::core::delay::{Delay, DelayError};
use crate::core::envelope::Coordinates;
use crate::core::topics;

/// How records reach the ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// kladder consumes the source and calls the handler.
    Push,
    /// The application consumes the source and puts failed records into the inbox.
    Relay,
}

/// What a hop guarantees (of hops, never of the handler's effects).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hops {
    /// The hop and the offset that it consumes are one Kafka transaction.
    ExactlyOnce,
    /// The hop is confirmed before the offset is committed.
    AtLeastOnce,
}

/// Where due records come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Redelivery {
    /// To `{ladder}.redeliver`, which only this ladder's group reads.
    Topic,
    /// To the topic that the record first came from (relay only). Every group that reads that topic gets it again, so this has to
    /// be consented to.
    Origin,
}

/// Why a record cannot go back to its origin.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoOrigin {
    /// It never came from anywhere else: nobody said where it came from, so that the topic of the ladder where it was found
    /// stands in for its origin. (To send it there would be a loop.)
    #[error("its origin `{0}` is a topic of the ladder itself")]
    OwnTopic(String),
    /// Where it came from is none of the ladder's sources, so nobody has consented to write there.
    #[error("its origin `{0}` is not among the ladder's sources")]
    NotASource(String),
}

/// One delay of the ladder, with its topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tier {
    number: u32,
    delay: Delay,
    topic: String,
}

impl Tier {
    /// Counted from 1.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// How long a record waits here.
    #[must_use]
    pub fn delay(&self) -> Delay {
        self.delay
    }

    /// The Kafka topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }
}

/// A ladder; an invalid one cannot exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ladder {
    name: String,
    group: String,
    sources: Vec<String>,
    tiers: Vec<Tier>,
    attempts: u32,
    mode: Mode,
    hops: Hops,
    max_not_before: Duration,
    redelivery: Redelivery,
    settle: Duration,
}

/// One mistake in a ladder.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LadderError {
    /// The name holds something else than `a-z`, `0-9`, `-`.
    #[error("ladder name `{0}` must match [a-z0-9-]+ and be at most 100 characters long")]
    Name(String),
    /// The group is empty.
    #[error("the consumer group is empty")]
    Group,
    /// There is no source.
    #[error("no source topic is named")]
    NoSource,
    /// A source is named twice.
    #[error("source `{0}` is named twice")]
    SourceTwice(String),
    /// The name is none that Kafka takes.
    #[error("`{0}` is no topic name: Kafka takes 1 to 249 of a-z, A-Z, 0-9, `.`, `_`, `-`")]
    TopicName(String),
    /// The source is a topic of this ladder.
    #[error("source `{0}` is a topic of the ladder itself")]
    SourceIsOwn(String),
    /// There is no tier.
    #[error("a ladder has at least one tier")]
    NoTier,
    /// More tiers than make sense.
    #[error("{0} tiers are too many: a ladder has at most 32")]
    TooManyTiers(usize),
    /// Two tiers have the same delay, so would share a topic.
    #[error("delay {0} appears twice: two tiers of one delay would share a topic")]
    DelayTwice(Delay),
    /// A tier is shorter than the one before it.
    #[error("tier {1} after {0}: delays must rise from tier to tier")]
    NotRising(Delay, Delay),
    /// A delay is not one.
    #[error("tier `{0}`: {1}")]
    Delay(String, DelayError),
    /// Fewer attempts than one.
    #[error("{0} attempts: a record has between 1 and 32767 attempts")]
    Attempts(u32),
    /// A push ladder's records come back to the deliverer, which reads the redeliver topic.
    #[error("redelivery to the origin needs relay mode: a push ladder's deliverer reads the redeliver topic")]
    OriginWithoutRelay,
    /// Redelivery to the origin was not consented to.
    #[error("redelivery to the origin reaches every group that reads the source, which has to be consented to")]
    OriginWithoutConsent,
    /// In push mode the handler says what succeeded.
    #[error("settle has no meaning for a push ladder: its handler says what succeeded")]
    SettleWithoutRelay,
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

impl Ladder {
    /// How far off a handler may ask for a record to be tried again, unless told otherwise: 24 h.
    pub const DEFAULT_MAX_NOT_BEFORE: Duration = Duration::from_secs(24 * 60 * 60);

    /// How long after its redelivery a record that has not failed again is presumed done (relay), unless told otherwise: 2 m.
    pub const DEFAULT_SETTLE: Duration = Duration::from_secs(2 * 60);

    /// Starts a ladder of this name for this consumer group.
    #[must_use]
    pub fn builder(name: impl Into<String>, group: impl Into<String>) -> LadderBuilder {
        LadderBuilder {
            name: name.into(),
            group: group.into(),
            sources: Vec::new(),
            tiers: Vec::new(),
            attempts: None,
            mode: Mode::Push,
            hops: Hops::ExactlyOnce,
            max_not_before: Self::DEFAULT_MAX_NOT_BEFORE,
            redelivery: Redelivery::Topic,
            reaches_all_groups: false,
            settle: None,
        }
    }

    /// The name, from which all topic names derive.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The consumer group that this ladder belongs to.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.group
    }

    /// The topics that the group consumes for its business.
    #[must_use]
    pub fn sources(&self) -> &[String] {
        &self.sources
    }

    /// The tiers, shortest delay first; never empty.
    #[must_use]
    pub fn tiers(&self) -> &[Tier] {
        &self.tiers
    }

    /// The tier of this number (from 1).
    #[must_use]
    pub fn tier(&self, number: u32) -> Option<&Tier> {
        self.tiers.get(usize::try_from(number.checked_sub(1)?).ok()?)
    }

    /// The last tier, the one with the largest delay.
    #[must_use]
    pub fn last_tier(&self) -> &Tier {
        self.tiers.last().expect("a ladder has at least one tier")
    }

    /// The tier that attempt `attempts` earns when it fails: min(attempts, last).
    #[must_use]
    pub fn tier_after(&self, attempts: u32) -> &Tier {
        let index = usize::try_from(attempts.max(1) - 1).unwrap_or(usize::MAX);
        self.tiers.get(index).unwrap_or_else(|| self.last_tier())
    }

    /// The smallest tier whose delay is at least `delay`; the largest where none is.
    #[must_use]
    pub fn tier_at_least(&self, delay: Duration) -> &Tier {
        self.tiers.iter().find(|t| t.delay.duration() >= delay).unwrap_or_else(|| self.last_tier())
    }

    /// The largest tier whose delay fits into `remaining`; the smallest where none does.
    #[must_use]
    pub fn tier_within(&self, remaining: Duration) -> &Tier {
        self.tiers.iter().rev().find(|t| t.delay.duration() <= remaining).unwrap_or(&self.tiers[0])
    }

    /// How often a record is delivered at most, the first delivery included.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// How records reach the ladder.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// What a hop guarantees.
    #[must_use]
    pub fn hops(&self) -> Hops {
        self.hops
    }

    /// How far off a handler may ask for a record to be tried again.
    #[must_use]
    pub fn max_not_before(&self) -> Duration {
        self.max_not_before
    }

    /// Where due records come back.
    #[must_use]
    pub fn redelivery(&self) -> Redelivery {
        self.redelivery
    }

    /// How long after its redelivery a record is presumed done that has not come back and that the group has committed past.
    #[must_use]
    pub fn settle(&self) -> Duration {
        self.settle
    }

    /// The source that a record of this origin may go back to, as its place among [`Ladder::sources`].
    ///
    /// # Errors
    /// When the origin is no source: missing (then a topic of the ladder stands in for it), not listed, or the ladder's own.
    pub fn origin_of(&self, origin: &Coordinates) -> Result<usize, NoOrigin> {
        // A source is never a topic of the ladder itself, see `build`.
        self.sources.iter().position(|source| *source == origin.topic).ok_or_else(|| {
            let topic = origin.topic.clone();
            if self.owns_topic(&topic) { NoOrigin::OwnTopic(topic) } else { NoOrigin::NotASource(topic) }
        })
    }

    /// The topics in which due records come back: the redeliver topic, or the sources.
    #[must_use]
    pub fn back_topics(&self) -> Vec<String> {
        match self.redelivery {
            Redelivery::Topic => vec![self.redeliver_topic()],
            Redelivery::Origin => self.sources.clone(),
        }
    }

    /// `{ladder}.redeliver`; there is none where records come back in their origins.
    #[must_use]
    pub fn redeliver_topic(&self) -> String {
        topics::redeliver_topic(&self.name)
    }

    /// `{ladder}.dlq`
    #[must_use]
    pub fn dlq_topic(&self) -> String {
        topics::dlq_topic(&self.name)
    }

    /// `{ladder}.inbox`
    #[must_use]
    pub fn inbox_topic(&self) -> String {
        topics::inbox_topic(&self.name)
    }

    /// `{ladder}.state`
    #[must_use]
    pub fn state_topic(&self) -> String {
        topics::state_topic(&self.name)
    }

    /// Whether the topic belongs to this ladder (whatever its tiers are today).
    #[must_use]
    pub fn owns_topic(&self, topic: &str) -> bool {
        topic
            .strip_prefix(self.name.as_str())
            .is_some_and(|rest| matches!(rest, ".redeliver" | ".inbox" | ".dlq" | ".state") || rest.starts_with(".retry-"))
    }
}

/// Builds a [`Ladder`]; see [`Ladder::builder`].
#[derive(Debug, Clone)]
pub struct LadderBuilder {
    name: String,
    group: String,
    sources: Vec<String>,
    tiers: Vec<String>,
    attempts: Option<u32>,
    mode: Mode,
    hops: Hops,
    max_not_before: Duration,
    redelivery: Redelivery,
    reaches_all_groups: bool,
    settle: Option<Duration>,
}

impl LadderBuilder {
    /// Adds a source topic.
    #[must_use]
    pub fn source(mut self, topic: impl Into<String>) -> Self {
        self.sources.push(topic.into());
        self
    }

    /// Adds tiers by their delays, as in `["5s", "1m", "10m"]`.
    #[must_use]
    pub fn tiers(mut self, delays: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.tiers.extend(delays.into_iter().map(Into::into));
        self
    }

    /// How often a record is delivered at most (1 to 32767); tiers + 1 unless said. More repeat the last tier.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = Some(attempts);
        self
    }

    /// How records reach the ladder; push unless said.
    #[must_use]
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// What a hop guarantees; exactly-once unless said.
    #[must_use]
    pub fn hops(mut self, hops: Hops) -> Self {
        self.hops = hops;
        self
    }

    /// How far off a handler may ask for a record to be tried again; 24 h unless said.
    #[must_use]
    pub fn max_not_before(mut self, limit: Duration) -> Self {
        self.max_not_before = limit;
        self
    }

    /// Where due records come back; the redeliver topic unless said. The origin needs relay mode and
    /// [`LadderBuilder::reaches_all_groups`].
    #[must_use]
    pub fn redelivery(mut self, redelivery: Redelivery) -> Self {
        self.redelivery = redelivery;
        self
    }

    /// Consents to that redelivery to the origin reaches every group that reads the source.
    #[must_use]
    pub fn reaches_all_groups(mut self, consent: bool) -> Self {
        self.reaches_all_groups = consent;
        self
    }

    /// How long after its redelivery a record that has not come back is presumed done (relay); 2 m unless said.
    #[must_use]
    pub fn settle(mut self, settle: Duration) -> Self {
        self.settle = Some(settle);
        self
    }

    /// Checks everything.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn build(self) -> Result<Ladder, LadderErrors> {
        let mut errors = Vec::new();
        if !is_ladder_name(&self.name) {
            errors.push(LadderError::Name(self.name.clone()));
        }
        if self.group.trim().is_empty() {
            errors.push(LadderError::Group);
        }
        if self.sources.is_empty() {
            errors.push(LadderError::NoSource);
        }
        for (i, source) in self.sources.iter().enumerate() {
            if !is_topic_name(source) {
                errors.push(LadderError::TopicName(source.clone()));
            }
            if self.sources[..i].contains(source) {
                errors.push(LadderError::SourceTwice(source.clone()));
            }
        }
        let tiers = build_tiers(&self.name, &self.tiers, &mut errors);
        let attempts = self.attempts.unwrap_or(u32::try_from(self.tiers.len()).unwrap_or(u32::MAX).saturating_add(1));
        if !(1..=32_767).contains(&attempts) {
            errors.push(LadderError::Attempts(attempts));
        }
        if self.redelivery == Redelivery::Origin {
            if self.mode != Mode::Relay {
                errors.push(LadderError::OriginWithoutRelay);
            } else if !self.reaches_all_groups {
                errors.push(LadderError::OriginWithoutConsent);
            }
        }
        if self.settle.is_some() && self.mode != Mode::Relay {
            errors.push(LadderError::SettleWithoutRelay);
        }
        let ladder = Ladder {
            name: self.name,
            group: self.group,
            sources: self.sources,
            tiers,
            attempts,
            mode: self.mode,
            hops: self.hops,
            max_not_before: self.max_not_before,
            redelivery: self.redelivery,
            settle: self.settle.unwrap_or(Ladder::DEFAULT_SETTLE),
        };
        errors.extend(ladder.sources.iter().filter(|s| ladder.owns_topic(s)).cloned().map(LadderError::SourceIsOwn));
        if errors.is_empty() { Ok(ladder) } else { Err(LadderErrors(errors)) }
    }
}

fn build_tiers(name: &str, delays: &[String], errors: &mut Vec<LadderError>) -> Vec<Tier> {
    if delays.is_empty() {
        errors.push(LadderError::NoTier);
    }
    if delays.len() > 32 {
        errors.push(LadderError::TooManyTiers(delays.len()));
    }
    let mut tiers: Vec<Tier> = Vec::new();
    for text in delays {
        match text.parse::<Delay>() {
            Err(error) => errors.push(LadderError::Delay(text.clone(), error)),
            Ok(delay) if tiers.iter().any(|t| t.delay == delay) => errors.push(LadderError::DelayTwice(delay)),
            Ok(delay) => {
                if let Some(last) = tiers.last().filter(|t| t.delay > delay) {
                    errors.push(LadderError::NotRising(last.delay, delay));
                }
                let number = u32::try_from(tiers.len()).unwrap_or(u32::MAX).saturating_add(1);
                tiers.push(Tier { number, delay, topic: topics::tier_topic(name, delay) });
            }
        }
    }
    tiers
}

/// Whether a ladder may bear this name: `[a-z0-9-]+`, at most 100 characters (topic names derive from it).
#[must_use]
pub fn is_ladder_name(name: &str) -> bool {
    (1..=100).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Whether Kafka takes this as a topic name (`org.apache.kafka.common.internals.Topic`).
#[must_use]
pub fn is_topic_name(name: &str) -> bool {
    (1..=249).contains(&name.len())
        && !matches!(name, "." | "..")
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ladder() -> Ladder {
        Ladder::builder("billing", "billing").source("orders").tiers(["5s", "1m", "10m"]).build().unwrap()
    }

    #[test]
    fn attempts_default_to_one_more_than_tiers() {
        assert_eq!(ladder().attempts(), 4);
    }

    #[test]
    fn attempts_earn_their_tier_and_then_repeat_the_last() {
        let earned: Vec<u32> = (1..=6).map(|n| ladder().tier_after(n).number()).collect();
        assert_eq!(earned, [1, 2, 3, 3, 3, 3]);
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let errors =
            Ladder::builder("Billing", "").source("a b").tiers(["5s", "5s", "soon", "1s"]).attempts(0).build().unwrap_err();
        assert_eq!(errors.0.len(), 7, "{errors}");
    }

    #[test]
    fn a_source_cannot_be_a_topic_of_the_ladder() {
        let errors = Ladder::builder("b", "g").source("b.dlq").tiers(["5s"]).build().unwrap_err();
        assert_eq!(errors.0, [LadderError::SourceIsOwn("b.dlq".into())]);
    }

    fn relay() -> LadderBuilder {
        Ladder::builder("b", "g").source("orders").source("b.orders").tiers(["5s"]).mode(Mode::Relay)
    }

    #[test]
    fn redelivery_to_the_origin_needs_relay_and_consent() {
        let origin = relay().redelivery(Redelivery::Origin);
        assert_eq!(origin.clone().build().unwrap_err().0, [LadderError::OriginWithoutConsent]);
        let consented = origin.reaches_all_groups(true);
        assert_eq!(consented.clone().build().unwrap().redelivery(), Redelivery::Origin);
        let pushed = consented.mode(Mode::Push).settle(Duration::from_secs(1)).build().unwrap_err();
        assert_eq!(pushed.0, [LadderError::OriginWithoutRelay, LadderError::SettleWithoutRelay]);
        assert_eq!(relay().build().unwrap().settle(), Duration::from_secs(120));
    }

    #[test]
    fn only_a_source_is_an_origin() {
        let ladder = relay().build().unwrap();
        let of = |topic: &str| {
            let timestamp = crate::core::time::Timestamp::default();
            ladder.origin_of(&Coordinates { topic: topic.into(), partition: 7, offset: 0, timestamp })
        };
        assert_eq!(of("orders"), Ok(0));
        assert_eq!(of("b.orders"), Ok(1));
        for own in ["b.inbox", "b.retry-5s", "b.retry-1h", "b.dlq", "b.redeliver", "b.state"] {
            assert_eq!(of(own), Err(NoOrigin::OwnTopic(own.into())));
        }
        assert_eq!(of("payments"), Err(NoOrigin::NotASource("payments".into())));
        assert_eq!(of(""), Err(NoOrigin::NotASource(String::new())));
    }
}

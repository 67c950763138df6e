//! The ladder: tiers, topics and rules for one consumer group's use of one or more source topics.

mod build;
mod error;
mod names;
mod options;
mod tier;

use std::time::Duration;

use thiserror::Error;

use crate::core::coordinates::Coordinates;
use crate::core::dialect::Dialect;
use crate::core::rules::{Failed, Then};
use crate::core::topics;

pub use error::{LadderError, LadderErrors, RuleError};
#[cfg(feature = "cli")]
pub use names::{is_ladder_name, is_topic_name};
use options::LadderOptions;
pub use options::{Hops, Immediate, Mode, Redelivery};
pub use tier::Tier;

/// A ladder; an invalid one cannot be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ladder {
    name: String,
    group: String,
    sources: Vec<String>,
    tiers: Vec<Tier>,
    attempts: u32,
    options: LadderOptions,
}

/// Builds a [`Ladder`]; see [`Ladder::builder`].
#[derive(Debug, Clone)]
pub struct LadderBuilder {
    name: String,
    group: String,
    sources: Vec<String>,
    tiers: Vec<String>,
    attempts: Option<u32>,
    options: LadderOptions,
}

/// Why a record cannot go back to its origin.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoOrigin {
    /// Its origin is unknown, so the ladder topic in which it was found stands in for it. (Sending it there would be a
    /// loop.)
    #[error("its origin `{0}` is a topic of the ladder itself")]
    OwnTopic(String),
    /// Its origin is not one of the ladder's sources, so there is no consent to write there.
    #[error("its origin `{0}` is not among the ladder's sources")]
    NotASource(String),
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

    /// Maximum number of deliveries of a record (1 to 32767); default: tiers + 1. Beyond that the last tier
    /// repeats.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = Some(attempts);
        self
    }
}

impl Ladder {
    /// Starts building a ladder with this name for this consumer group.
    #[must_use]
    pub fn builder(name: impl Into<String>, group: impl Into<String>) -> LadderBuilder {
        LadderBuilder {
            name: name.into(),
            group: group.into(),
            sources: Vec::new(),
            tiers: Vec::new(),
            attempts: None,
            options: LadderOptions::default(),
        }
    }

    /// The name, from which all topic names derive.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The consumer group of this ladder.
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

    /// The tier with this number (from 1).
    #[must_use]
    pub fn tier(&self, number: u32) -> Option<&Tier> {
        self.tiers.get(usize::try_from(number.checked_sub(1)?).ok()?)
    }

    /// The last tier, which has the largest delay.
    #[must_use]
    pub fn last_tier(&self) -> &Tier {
        self.tiers.last().expect("a ladder has at least one tier")
    }

    /// The tier for a record whose attempt number `attempts` failed: min(attempts, last).
    #[must_use]
    pub fn tier_after(&self, attempts: u32) -> &Tier {
        let index = usize::try_from(attempts.max(1) - 1).unwrap_or(usize::MAX);
        self.tiers.get(index).unwrap_or_else(|| self.last_tier())
    }

    /// The smallest tier whose delay is at least `delay`; the largest one if there is none.
    #[must_use]
    pub fn tier_at_least(&self, delay: Duration) -> &Tier {
        self.tiers.iter().find(|t| t.delay.duration() >= delay).unwrap_or_else(|| self.last_tier())
    }

    /// The largest tier whose delay is at most `remaining`; the smallest one if there is none.
    #[must_use]
    pub fn tier_within(&self, remaining: Duration) -> &Tier {
        self.tiers.iter().rev().find(|t| t.delay.duration() <= remaining).unwrap_or(&self.tiers[0])
    }

    /// Maximum number of deliveries of a record, the first one included.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The first rule that matches a failed attempt, by its index (from 0).
    #[must_use]
    pub fn rule_for(&self, failed: &Failed<'_>) -> Option<usize> {
        self.options.rules.iter().position(|rule| rule.when.holds(failed))
    }

    /// The name of the rule at this index (from 0): its own, or its number, counted from 1.
    #[must_use]
    pub fn rule_name(&self, index: usize) -> String {
        let own = self.options.rules.get(index).and_then(|rule| rule.name.clone());
        own.unwrap_or_else(|| (index + 1).to_string())
    }

    /// The source to which a record of this origin may return, by its index in [`Ladder::sources`].
    ///
    /// # Errors
    /// The origin is not a source: unknown (then a topic of the ladder stands in for it), not listed, or the ladder's own
    /// topic.
    pub fn origin_of(&self, origin: &Coordinates) -> Result<usize, NoOrigin> {
        // A source is never a topic of the ladder itself, see `build`.
        self.sources.iter().position(|source| *source == origin.topic).ok_or_else(|| {
            let topic = origin.topic.clone();
            if self.owns_topic(&topic) { NoOrigin::OwnTopic(topic) } else { NoOrigin::NotASource(topic) }
        })
    }

    /// The topics to which due records are redelivered: the redeliver topic, or the sources.
    #[must_use]
    pub fn back_topics(&self) -> Vec<String> {
        match self.options.redelivery {
            Redelivery::Topic => vec![self.redeliver_topic()],
            Redelivery::Origin => self.sources.clone(),
        }
    }

    /// `{ladder}.redeliver`; does not exist with redelivery to the origins.
    #[must_use]
    pub fn redeliver_topic(&self) -> String {
        topics::redeliver_topic(&self.name)
    }

    /// The topics that the workers of this ladder consume besides its tiers: sources and redeliver topic (push), or the inbox
    /// (relay).
    #[must_use]
    pub fn consumed_topics(&self) -> Vec<String> {
        match self.mode() {
            Mode::Push => self.sources.iter().cloned().chain([self.redeliver_topic()]).collect(),
            Mode::Relay => vec![self.inbox_topic()],
        }
    }

    /// `{ladder}.dlq`
    #[must_use]
    pub fn dlq_topic(&self) -> String {
        topics::dlq_topic(&self.name)
    }

    /// All dead-letter topics: the ladder's own, then those of its rules, without duplicates.
    #[must_use]
    pub fn dlq_topics(&self) -> Vec<String> {
        let mut topics = vec![self.dlq_topic()];
        for rule in &self.options.rules {
            let Then::Reject { dlq: Some(name) } = &rule.then else { continue };
            let topic = topics::own_dlq_topic(&self.name, name);
            if !topics.contains(&topic) {
                topics.push(topic);
            }
        }
        topics
    }

    /// The dialect of the inbox, if it is another framework's dead-letter topic.
    #[must_use]
    pub fn dialect(&self) -> Option<Dialect> {
        self.options.foreign_inbox.as_ref().map(|(_, dialect)| *dialect)
    }

    /// `{ladder}.inbox`, or the dead-letter topic of another framework in its place.
    #[must_use]
    pub fn inbox_topic(&self) -> String {
        self.options.foreign_inbox.as_ref().map_or_else(|| topics::inbox_topic(&self.name), |(topic, _)| topic.clone())
    }

    /// `{ladder}.state`
    #[must_use]
    pub fn state_topic(&self) -> String {
        topics::state_topic(&self.name)
    }

    /// Whether the topic belongs to this ladder (whatever its current tiers are).
    #[must_use]
    pub fn owns_topic(&self, topic: &str) -> bool {
        topic.strip_prefix(self.name.as_str()).is_some_and(|rest| {
            let is_derived = rest.starts_with(".retry-") || rest.starts_with(".dlq-");
            is_derived || matches!(rest, ".redeliver" | ".inbox" | ".dlq" | ".state")
        })
    }
}

#[cfg(test)]
mod tests;

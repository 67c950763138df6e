//! The options of a ladder: each with its default, how it is set, and how it is read.

use std::time::Duration;

use crate::core::dialect::Dialect;
use crate::core::ladder::{Ladder, LadderBuilder};
use crate::core::rate::Rate;
use crate::core::rules::Rule;

/// How records enter the ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// kladder consumes the source and calls the handler.
    Push,
    /// The application consumes the source and puts failed records into the inbox.
    Relay,
}

/// What a hop guarantees (the hop alone, not the handler's effects).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hops {
    /// The hop and the offset that it consumes are one Kafka transaction.
    ExactlyOnce,
    /// The hop is confirmed before the offset is committed.
    AtLeastOnce,
}

/// Where due records are redelivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Redelivery {
    /// To `{ladder}.redeliver`, which only this ladder's group reads.
    Topic,
    /// To the record's origin topic (relay only). Every group that reads that topic receives it again, so this requires consent.
    Origin,
}

/// In-place retries, for short failures: the attempt has failed only if they have failed too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Immediate {
    /// Maximum number of retries of an attempt (1 to 10).
    pub attempts: u32,
    /// Pause after a failure (at most 10 s).
    pub backoff: Duration,
}

/// All options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LadderOptions {
    pub mode: Mode,
    pub hops: Hops,
    pub max_not_before: Duration,
    pub redelivery: Redelivery,
    pub foreign_inbox: Option<(String, Dialect)>,
    /// Consent to redelivery to the origin.
    pub reaches_all_groups: bool,
    pub settle: Option<Duration>,
    pub max_age: Option<Duration>,
    pub max_rate: Option<Rate>,
    pub immediate: Option<Immediate>,
    pub rules: Vec<Rule>,
}

impl Default for LadderOptions {
    fn default() -> Self {
        Self {
            mode: Mode::Push,
            hops: Hops::ExactlyOnce,
            max_not_before: Ladder::DEFAULT_MAX_NOT_BEFORE,
            redelivery: Redelivery::Topic,
            foreign_inbox: None,
            reaches_all_groups: false,
            settle: None,
            max_age: None,
            max_rate: None,
            immediate: None,
            rules: Vec::new(),
        }
    }
}

impl LadderBuilder {
    /// How records enter the ladder; default: push.
    #[must_use]
    pub fn mode(mut self, mode: Mode) -> Self {
        self.options.mode = mode;
        self
    }

    /// What a hop guarantees; default: exactly-once.
    #[must_use]
    pub fn hops(mut self, hops: Hops) -> Self {
        self.options.hops = hops;
        self
    }

    /// Longest delay that a handler may ask for; default: 24 h.
    #[must_use]
    pub fn max_not_before(mut self, limit: Duration) -> Self {
        self.options.max_not_before = limit;
        self
    }

    /// Where due records are redelivered; default: the redeliver topic. The origin needs relay mode
    /// and [`LadderBuilder::reaches_all_groups`].
    #[must_use]
    pub fn redelivery(mut self, redelivery: Redelivery) -> Self {
        self.options.redelivery = redelivery;
        self
    }

    /// Uses the dead-letter topic of another framework as the inbox. Needs redelivery to the origin.
    #[must_use]
    pub fn foreign_inbox(mut self, topic: impl Into<String>, dialect: Dialect) -> Self {
        self.options.foreign_inbox = Some((topic.into(), dialect));
        self
    }

    /// Consents to redelivery to the origin, which reaches every group that reads the source.
    #[must_use]
    pub fn reaches_all_groups(mut self, consent: bool) -> Self {
        self.options.reaches_all_groups = consent;
        self
    }

    /// Time after its redelivery at which a record that has not come back is presumed done (relay); default: 2
    /// m.
    #[must_use]
    pub fn settle(mut self, settle: Duration) -> Self {
        self.options.settle = Some(settle);
        self
    }

    /// Longest time from a record's first failure to its redelivery; default: unlimited.
    #[must_use]
    pub fn max_age(mut self, age: Duration) -> Self {
        self.options.max_age = Some(age);
        self
    }

    /// Maximum rate of redeliveries per tier; default: unlimited.
    #[must_use]
    pub fn max_rate(mut self, rate: Rate) -> Self {
        self.options.max_rate = Some(rate);
        self
    }

    /// Retries a failed attempt in place, up to `attempts` times (1 to 10), each `backoff` (at most 10 s) after the failure;
    /// default: none. Rejected records, and those with a requested delay, are not retried in place.
    #[must_use]
    pub fn immediate(mut self, attempts: u32, backoff: Duration) -> Self {
        self.options.immediate = Some(Immediate { attempts, backoff });
        self
    }

    /// Adds a classification rule; the first one that matches decides.
    #[must_use]
    pub fn rule(mut self, rule: Rule) -> Self {
        self.options.rules.push(rule);
        self
    }
}

impl Ladder {
    /// Default limit of the delay that a handler may ask for: 24 h.
    pub const DEFAULT_MAX_NOT_BEFORE: Duration = Duration::from_secs(24 * 60 * 60);

    /// Default time after its redelivery at which a record that has not failed again is presumed done (relay): 2 m.
    pub const DEFAULT_SETTLE: Duration = Duration::from_secs(2 * 60);

    /// How records enter the ladder.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.options.mode
    }

    /// What a hop guarantees.
    #[must_use]
    pub fn hops(&self) -> Hops {
        self.options.hops
    }

    /// Longest delay that a handler may ask for.
    #[must_use]
    pub fn max_not_before(&self) -> Duration {
        self.options.max_not_before
    }

    /// Where due records are redelivered.
    #[must_use]
    pub fn redelivery(&self) -> Redelivery {
        self.options.redelivery
    }

    /// Time after its redelivery at which a record is presumed done, if it has not come back and the group has committed
    /// past it.
    #[must_use]
    pub fn settle(&self) -> Duration {
        self.options.settle.unwrap_or(Self::DEFAULT_SETTLE)
    }

    /// Longest time from a record's first failure to its redelivery; records due later are dead-lettered with reason `expired`.
    #[must_use]
    pub fn max_age(&self) -> Option<Duration> {
        self.options.max_age
    }

    /// Maximum rate of redeliveries per tier, so that a backlog does not overload a handler that has just recovered.
    #[must_use]
    pub fn max_rate(&self) -> Option<Rate> {
        self.options.max_rate
    }

    /// In-place retries of a failed attempt before it counts.
    #[must_use]
    pub fn immediate(&self) -> Option<Immediate> {
        self.options.immediate
    }

    /// The classification rules, in order.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.options.rules
    }
}

//! The ladder: what belongs to one consumer group's use of one or more source topics.

use std::fmt;
use std::time::Duration;

use thiserror::Error;

use crate::core::coordinates::Coordinates;
use crate::core::delay::{Delay, DelayError, format_duration};
use crate::core::dialect::Dialect;
use crate::core::headers::is_own;
use crate::core::rate::Rate;
use crate::core::rules::{Failed, Rule, Then};
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
    foreign_inbox: Option<(String, Dialect)>,
    settle: Duration,
    max_age: Option<Duration>,
    max_rate: Option<Rate>,
    immediate: Option<Immediate>,
    rules: Vec<Rule>,
}

/// Tries in place, for failures that are over at once: the attempt has failed only when they have failed, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Immediate {
    /// How often an attempt is repeated at most (1 to 10).
    pub attempts: u32,
    /// How long after a failure (at most 10 s).
    pub backoff: Duration,
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
    /// The inbox of another framework has a name that Kafka does not take.
    #[error("`{0}` is no topic name: Kafka takes 1 to 249 of a-z, A-Z, 0-9, `.`, `_`, `-`")]
    InboxName(String),
    /// It is a source: what failed would fail for ever.
    #[error("`{0}` is a source, and cannot be the inbox too")]
    InboxIsSource(String),
    /// It is a topic of this ladder.
    #[error("`{0}` is a topic of the ladder itself, and no other framework's")]
    InboxIsOwn(String),
    /// Another framework knows nothing of a redeliver topic.
    #[error("an inbox of another framework needs redelivery to the origin: its application reads nothing else")]
    InboxWithoutOrigin,
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
    /// In relay mode the application makes its attempts itself.
    #[error("immediate retries need push mode: in relay the application makes its attempts itself")]
    ImmediateWithoutPush,
    /// More tries in place than are meant for what is over at once.
    #[error("immediate retries are 1 to 10, at most 10s apart: what takes longer is what tiers are for")]
    Immediate,
    /// Not even the first tier would be over by then.
    #[error("max_age {age} is shorter than the first tier, {1}: nothing would ever be tried again", age = format_duration(*.0))]
    MaxAge(Duration, Delay),
    /// A rule, by its place among the rules (from 0), is wrong.
    #[error("rule {number}: {1}", number = .0 + 1)]
    Rule(usize, RuleError),
}

/// One mistake in a rule.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RuleError {
    /// It would hold for every failure.
    #[error("names no condition, and so would hold for every failure")]
    HoldsForAll,
    /// The name holds something else than `a-z`, `0-9`, `-`.
    #[error("the name must match [a-z0-9-]+ and be at most 100 characters long")]
    Name,
    /// Metrics could not tell two rules of one name apart.
    #[error("there is another rule of this name")]
    NameTwice,
    /// There is no such tier.
    #[error("there is no such tier: the ladder has {0}")]
    Tier(usize),
    /// Fewer attempts than one, or too many.
    #[error("a record has between 1 and 32767 attempts")]
    Attempts,
    /// kladder's own headers are no part of the record.
    #[error("looks at header `{0}`, which is kladder's own: rules see the record's headers")]
    OwnHeader(String),
    /// The topic's name derives from it.
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
            foreign_inbox: None,
            reaches_all_groups: false,
            settle: None,
            max_age: None,
            max_rate: None,
            immediate: None,
            rules: Vec::new(),
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

    /// How long after its first failure a record may still come back; what would be due later is dead-lettered, reason `expired`.
    #[must_use]
    pub fn max_age(&self) -> Option<Duration> {
        self.max_age
    }

    /// How many records of a tier are moved back at most, so that a backlog does not run down a handler that has just recovered.
    #[must_use]
    pub fn max_rate(&self) -> Option<Rate> {
        self.max_rate
    }

    /// How often a failed attempt is repeated in place before it counts.
    #[must_use]
    pub fn immediate(&self) -> Option<Immediate> {
        self.immediate
    }

    /// The rules by which failures are classified, in their order.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The first rule that holds for a failed attempt, by its place among them (from 0).
    #[must_use]
    pub fn rule_for(&self, failed: &Failed<'_>) -> Option<usize> {
        self.rules.iter().position(|rule| rule.when.holds(failed))
    }

    /// The name of the rule at this place (from 0): its own, or its number, counted from 1.
    #[must_use]
    pub fn rule_name(&self, index: usize) -> String {
        let own = self.rules.get(index).and_then(|rule| rule.name.clone());
        own.unwrap_or_else(|| (index + 1).to_string())
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

    /// The topics that the workers of this ladder consume beside its tiers: sources and redeliver topic (push), or the inbox (relay).
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

    /// All dead-letter topics: the ladder's own, then those of its rules, each once.
    #[must_use]
    pub fn dlq_topics(&self) -> Vec<String> {
        let mut topics = vec![self.dlq_topic()];
        for rule in &self.rules {
            let Then::Reject { dlq: Some(name) } = &rule.then else { continue };
            let topic = topics::own_dlq_topic(&self.name, name);
            if !topics.contains(&topic) {
                topics.push(topic);
            }
        }
        topics
    }

    /// Whose dead-letter topic is the inbox, where it is another framework's.
    #[must_use]
    pub fn dialect(&self) -> Option<Dialect> {
        self.foreign_inbox.as_ref().map(|(_, dialect)| *dialect)
    }

    /// `{ladder}.inbox`, or the dead-letter topic of another framework that stands for it.
    #[must_use]
    pub fn inbox_topic(&self) -> String {
        self.foreign_inbox.as_ref().map_or_else(|| topics::inbox_topic(&self.name), |(topic, _)| topic.clone())
    }

    /// `{ladder}.state`
    #[must_use]
    pub fn state_topic(&self) -> String {
        topics::state_topic(&self.name)
    }

    /// Whether the topic belongs to this ladder (whatever its tiers are today).
    #[must_use]
    pub fn owns_topic(&self, topic: &str) -> bool {
        topic.strip_prefix(self.name.as_str()).is_some_and(|rest| {
            let is_derived = rest.starts_with(".retry-") || rest.starts_with(".dlq-");
            is_derived || matches!(rest, ".redeliver" | ".inbox" | ".dlq" | ".state")
        })
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
    foreign_inbox: Option<(String, Dialect)>,
    reaches_all_groups: bool,
    settle: Option<Duration>,
    max_age: Option<Duration>,
    max_rate: Option<Rate>,
    immediate: Option<Immediate>,
    rules: Vec<Rule>,
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

    /// Takes the dead-letter topic of another framework for the inbox, as it is. Needs redelivery to the origin.
    #[must_use]
    pub fn foreign_inbox(mut self, topic: impl Into<String>, dialect: Dialect) -> Self {
        self.foreign_inbox = Some((topic.into(), dialect));
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

    /// How long after its first failure a record may still come back; for ever unless said.
    #[must_use]
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = Some(age);
        self
    }

    /// How many records of each tier are moved back at most; as many as are due unless said.
    #[must_use]
    pub fn max_rate(mut self, rate: Rate) -> Self {
        self.max_rate = Some(rate);
        self
    }

    /// Repeats a failed attempt in place, up to so many times (1 to 10), each so long (at most 10 s) after the failure; not at all
    /// unless said. What is rejected, or asks for a delay, is not repeated.
    #[must_use]
    pub fn immediate(mut self, attempts: u32, backoff: Duration) -> Self {
        self.immediate = Some(Immediate { attempts, backoff });
        self
    }

    /// Adds a rule by which failures are classified; the first one that holds decides.
    #[must_use]
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
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
        if let Some((topic, _)) = &self.foreign_inbox {
            if !is_topic_name(topic) {
                errors.push(LadderError::InboxName(topic.clone()));
            }
            if self.sources.contains(topic) {
                errors.push(LadderError::InboxIsSource(topic.clone()));
            }
            if self.redelivery != Redelivery::Origin {
                errors.push(LadderError::InboxWithoutOrigin);
            }
        }
        if let Some(immediate) = &self.immediate {
            if self.mode != Mode::Push {
                errors.push(LadderError::ImmediateWithoutPush);
            }
            if !(1..=10).contains(&immediate.attempts) || immediate.backoff > Duration::from_secs(10) {
                errors.push(LadderError::Immediate);
            }
        }
        if self.settle.is_some() && self.mode != Mode::Relay {
            errors.push(LadderError::SettleWithoutRelay);
        }
        check_rules(&self.rules, tiers.len(), &mut errors);
        if let (Some(age), Some(first)) = (self.max_age, tiers.first())
            && age < first.delay.duration()
        {
            errors.push(LadderError::MaxAge(age, first.delay));
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
            foreign_inbox: self.foreign_inbox,
            settle: self.settle.unwrap_or(Ladder::DEFAULT_SETTLE),
            max_age: self.max_age,
            max_rate: self.max_rate,
            immediate: self.immediate,
            rules: self.rules,
        };
        errors.extend(ladder.sources.iter().filter(|s| ladder.owns_topic(s)).cloned().map(LadderError::SourceIsOwn));
        if let Some((topic, _)) = ladder.foreign_inbox.as_ref().filter(|(topic, _)| ladder.owns_topic(topic)) {
            errors.push(LadderError::InboxIsOwn(topic.clone()));
        }
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

fn check_rules(rules: &[Rule], tiers: usize, errors: &mut Vec<LadderError>) {
    for (index, rule) in rules.iter().enumerate() {
        let mut note = |error: RuleError| errors.push(LadderError::Rule(index, error));
        if rule.when.is_empty() {
            note(RuleError::HoldsForAll);
        }
        for (name, _) in rule.when.headers.iter().filter(|(name, _)| is_own(name.as_bytes())) {
            note(RuleError::OwnHeader(name.clone()));
        }
        if let Some(name) = &rule.name {
            // Numbers are what rules without a name are called.
            if !is_ladder_name(name) || name.bytes().all(|b| b.is_ascii_digit()) {
                note(RuleError::Name);
            } else if rules[..index].iter().any(|other| other.name.as_ref() == Some(name)) {
                note(RuleError::NameTwice);
            }
        }
        match &rule.then {
            Then::Retry { from_tier, attempts } => {
                let number = usize::try_from(*from_tier).unwrap_or(usize::MAX);
                if tiers > 0 && !(1..=tiers).contains(&number) {
                    note(RuleError::Tier(tiers));
                }
                if attempts.is_some_and(|attempts| !(1..=32_767).contains(&attempts)) {
                    note(RuleError::Attempts);
                }
            }
            Then::Reject { dlq: Some(name) } if !is_ladder_name(name) => note(RuleError::Dlq),
            Then::Reject { .. } | Then::Done => {}
        }
    }
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

    fn ruled(then: Then) -> Rule {
        let when = crate::core::rules::When { status: vec!["404".parse().unwrap()], ..Default::default() };
        Rule { name: None, when, then }
    }

    #[test]
    fn mistakes_in_rules_are_told_by_their_place() {
        let reject = |dlq: &str| ruled(Then::Reject { dlq: Some(dlq.into()) });
        let retry = |from_tier: u32, attempts: Option<u32>| ruled(Then::Retry { from_tier, attempts });
        let named = |name: &str| Rule { name: Some(name.into()), ..ruled(Then::Done) };
        let empty = Rule { when: crate::core::rules::When::default(), ..ruled(Then::Done) };
        let rules = [
            reject("parse"),
            reject("A b"),
            retry(1, None),
            retry(2, Some(0)),
            named("x"),
            named("x"),
            named("7"),
            named("X y"),
            empty,
        ];
        let builder = rules.into_iter().fold(relay(), LadderBuilder::rule);
        let told = [
            (1, RuleError::Dlq),
            (3, RuleError::Tier(1)),
            (3, RuleError::Attempts),
            (5, RuleError::NameTwice),
            (6, RuleError::Name),
            (7, RuleError::Name),
            (8, RuleError::HoldsForAll),
        ];
        assert_eq!(builder.build().unwrap_err().0, told.map(|(index, error)| LadderError::Rule(index, error)));
    }

    #[test]
    fn rules_may_have_dead_letter_topics_of_their_own() {
        let own = |name: &str| ruled(Then::Reject { dlq: Some(name.into()) });
        let ladder = relay().rule(own("parse")).rule(own("gone")).rule(own("parse")).build().unwrap();
        assert_eq!(ladder.dlq_topics(), ["b.dlq", "b.dlq-parse", "b.dlq-gone"]);
        assert!(ladder.dlq_topics().iter().all(|topic| ladder.owns_topic(topic)));
        assert_eq!(ladder.rule_name(1), "2");
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

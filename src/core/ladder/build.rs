//! Checks everything that makes up a ladder.

use std::time::Duration;

use crate::core::delay::Delay;
use crate::core::headers::is_own;
use crate::core::ladder::error::{LadderError, LadderErrors, RuleError};
use crate::core::ladder::names::{is_ladder_name, is_topic_name};
use crate::core::ladder::options::{Mode, Redelivery};
use crate::core::ladder::tier::Tier;
use crate::core::ladder::{Ladder, LadderBuilder};
use crate::core::rules::{Rule, Then};
use crate::core::topics;

impl LadderBuilder {
    /// Checks everything and builds the ladder.
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
        if self.options.redelivery == Redelivery::Origin {
            if self.options.mode != Mode::Relay {
                errors.push(LadderError::OriginWithoutRelay);
            } else if !self.options.reaches_all_groups {
                errors.push(LadderError::OriginWithoutConsent);
            }
        }
        if let Some((topic, _)) = &self.options.foreign_inbox {
            if !is_topic_name(topic) {
                errors.push(LadderError::InboxName(topic.clone()));
            }
            if self.sources.contains(topic) {
                errors.push(LadderError::InboxIsSource(topic.clone()));
            }
            if self.options.redelivery != Redelivery::Origin {
                errors.push(LadderError::InboxWithoutOrigin);
            }
        }
        if let Some(immediate) = &self.options.immediate {
            if self.options.mode != Mode::Push {
                errors.push(LadderError::ImmediateWithoutPush);
            }
            if !(1..=10).contains(&immediate.attempts) || immediate.backoff > Duration::from_secs(10) {
                errors.push(LadderError::Immediate);
            }
        }
        if self.options.settle.is_some() && self.options.mode != Mode::Relay {
            errors.push(LadderError::SettleWithoutRelay);
        }
        check_rules(&self.options.rules, tiers.len(), &mut errors);
        if let (Some(age), Some(first)) = (self.options.max_age, tiers.first())
            && age < first.delay.duration()
        {
            errors.push(LadderError::MaxAge(age, first.delay));
        }
        let Self { name, group, sources, options, .. } = self;
        let ladder = Ladder { name, group, sources, tiers, attempts, options };
        errors.extend(ladder.sources.iter().filter(|s| ladder.owns_topic(s)).cloned().map(LadderError::SourceIsOwn));
        if let Some((topic, _)) = ladder.options.foreign_inbox.as_ref().filter(|(topic, _)| ladder.owns_topic(topic)) {
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
            // Rules without a name are named by their number.
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

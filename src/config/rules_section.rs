//! `[[ladder.NAME.classify]]`: the classification rules.

use std::str::FromStr;

use crate::config::mistake::Mistakes;
use crate::config::path::Path;
use crate::config::raw::{RawPattern, RawRule, RawWhen};
use crate::config::values::{hint, note_missing, one_of, whole_in};
use crate::core::ladder::RuleError;
use crate::core::rules::{Expression, Pattern, Rule, StatusRange, Then, When};

/// The keywords of `then`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Retry,
    Reject,
    Done,
}

/// Reads the rules; `None` if one has a mistake.
pub fn read(raw: &[RawRule], path: &Path, mistakes: &mut Mistakes) -> Option<Vec<Rule>> {
    let rules: Vec<Option<Rule>> =
        raw.iter().enumerate().map(|(index, rule)| read_rule(rule, &path.index(index), mistakes)).collect();
    rules.into_iter().collect()
}

/// The path of a rule's mistake that the ladder has found.
pub fn path_of(error: &RuleError, rule: &Path) -> Path {
    rule.key(match error {
        RuleError::HoldsForAll => "when",
        RuleError::OwnHeader(name) => return rule.keys(&["when", "header", name]),
        RuleError::Name | RuleError::NameTwice => "name",
        RuleError::Tier(_) => "from_tier",
        RuleError::Attempts => "attempts",
        RuleError::Dlq => "dlq",
    })
}

fn read_rule(raw: &RawRule, path: &Path, mistakes: &mut Mistakes) -> Option<Rule> {
    let when = if let Some(raw) = &raw.when {
        read_when(raw, &path.key("when"), mistakes)
    } else {
        note_missing(&path.key("when"), mistakes);
        None
    };
    let words = [("retry", Word::Retry), ("reject", Word::Reject), ("done", Word::Done)];
    let word = if let Some(text) = &raw.then {
        one_of(text, &words, &path.key("then"), mistakes)
    } else {
        note_missing(&path.key("then"), mistakes);
        None
    };
    let from_tier = raw.from_tier.map(|number| whole_in::<u32>(number, 1..=32, &path.key("from_tier"), mistakes));
    let attempts = raw.attempts.map(|number| whole_in::<u32>(number, 1..=32_767, &path.key("attempts"), mistakes));
    let of = [
        ("from_tier", raw.from_tier.is_some(), Word::Retry),
        ("attempts", raw.attempts.is_some(), Word::Retry),
        ("dlq", raw.dlq.is_some(), Word::Reject),
    ];
    for (key, _, owner) in of.into_iter().filter(|(_, is_there, owner)| *is_there && word.is_some_and(|word| word != *owner)) {
        let owner = if owner == Word::Retry { "retry" } else { "reject" };
        let hint = format!("it belongs to then = \"{owner}\"; remove it");
        mistakes.note(&path.key(key), "does not apply to this rule", Some(hint));
    }
    let then = match word? {
        Word::Retry => {
            Then::Retry { from_tier: from_tier.unwrap_or(Some(1))?, attempts: attempts.map_or(Some(None), |n| n.map(Some))? }
        }
        Word::Reject => Then::Reject { dlq: raw.dlq.clone() },
        Word::Done => Then::Done,
    };
    Some(Rule { name: raw.name.clone(), when: when?, then })
}

fn read_when(raw: &RawWhen, path: &Path, mistakes: &mut Mistakes) -> Option<When> {
    let mut status = Vec::new();
    for text in raw.status.iter().flat_map(|statuses| &statuses.0) {
        match text.parse::<StatusRange>() {
            Ok(range) => status.push(Some(range)),
            Err(error) => {
                let path = path.key("status");
                mistakes.note(&path, format!("{text:?} {error}"), hint(&path));
                status.push(None);
            }
        }
    }
    let error_class = raw.error_class.as_ref().map(|raw| pattern(raw, &path.key("error_class"), mistakes));
    let message = raw.message.as_ref().map(|text| expression(text, &path.key("message"), mistakes));
    let headers: Vec<Option<(String, Pattern)>> = raw
        .header
        .iter()
        .flatten()
        .map(|(name, raw)| Some((name.clone(), pattern(raw, &path.keys(&["header", name]), mistakes)?)))
        .collect();
    let topic = raw.topic.as_ref().map(|raw| pattern(raw, &path.key("topic"), mistakes));
    Some(When {
        status: status.into_iter().collect::<Option<Vec<_>>>()?,
        error_class: error_class.map_or(Some(None), |found| found.map(Some))?,
        message: message.map_or(Some(None), |found| found.map(Some))?,
        headers: headers.into_iter().collect::<Option<Vec<_>>>()?,
        topic: topic.map_or(Some(None), |found| found.map(Some))?,
    })
}

fn pattern(raw: &RawPattern, path: &Path, mistakes: &mut Mistakes) -> Option<Pattern> {
    let raw = match raw {
        RawPattern::Exact(text) => return Some(Pattern::Exact(text.clone())),
        RawPattern::Other(raw) => raw,
    };
    if mistakes.touches(path) {
        return None;
    }
    match (&raw.prefix, &raw.regex) {
        (Some(prefix), None) => Some(Pattern::Prefix(prefix.clone())),
        (None, Some(regex)) => expression(regex, &path.key("regex"), mistakes).map(Pattern::Regex),
        _ => {
            mistakes.note(path, "needs either prefix or regex", hint(path));
            None
        }
    }
}

fn expression(text: &str, path: &Path, mistakes: &mut Mistakes) -> Option<Expression> {
    match Expression::from_str(text) {
        Ok(expression) => Some(expression),
        Err(error) => {
            mistakes.note(path, error.to_string(), Some("the syntax is that of https://docs.rs/regex".to_owned()));
            None
        }
    }
}

//! Classification rules of a ladder: they decide about a failure before the ladder's defaults do.
//!
//! They are ordered, and the first one that matches decides. A rule tests a failed attempt: the HTTP status, class and message of
//! the error, the record's headers and its origin topic. Rules do not apply to a success.
//!
//! Regular expressions are those of the `regex` crate: searched for anywhere unless anchored by `^` and `$`, and matched in time
//! linear to the text, so that a foreign message cannot stop a worker.

use std::fmt;
use std::str::FromStr;

use regex::Regex;
use thiserror::Error;

use crate::core::failure::ErrorInfo;

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its name in metrics and `kladder explain`; without one, its number, counted from 1.
    pub name: Option<String>,
    /// Which failures it matches.
    pub when: When,
    /// The consequence.
    pub then: Then,
}

/// Conditions of a rule. All that are given must match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct When {
    /// The HTTP status is in one of these; empty for any.
    pub status: Vec<StatusRange>,
    /// The class of the error.
    pub error_class: Option<Pattern>,
    /// The message of the error, searched.
    pub message: Option<Expression>,
    /// Headers of the record, by name; of duplicate headers the last one counts.
    pub headers: Vec<(String, Pattern)>,
    /// The record's origin topic.
    pub topic: Option<Pattern>,
}

/// The consequence of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Then {
    /// Retry.
    Retry {
        /// In the tier with this number or a later one; 1 is any.
        from_tier: u32,
        /// Maximum number of deliveries of such a record, instead of the ladder's.
        attempts: Option<u32>,
    },
    /// Dead-letter at once, with reason `rejected`.
    Reject {
        /// Into `{ladder}.dlq-NAME` instead of the ladder's dead-letter topic.
        dlq: Option<String>,
    },
    /// Done: dropped and counted.
    Done,
}

impl Then {
    /// The keyword in the configuration.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Retry { .. } => "retry",
            Self::Reject { .. } => "reject",
            Self::Done => "done",
        }
    }
}

/// A failed attempt, as rules see it.
pub struct Failed<'a> {
    /// Why it failed.
    pub error: &'a ErrorInfo,
    /// The record's origin topic.
    pub topic: &'a str,
    /// The last value of a header as text; `None` if absent or null.
    pub header: &'a dyn Fn(&str) -> Option<String>,
}

impl When {
    /// Whether there is no condition, so that it would match every failure.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether all conditions match.
    #[must_use]
    pub fn holds(&self, failed: &Failed<'_>) -> bool {
        let status =
            || self.status.is_empty() || failed.error.status.is_some_and(|s| self.status.iter().any(|range| range.contains(s)));
        let class = || self.error_class.as_ref().is_none_or(|pattern| pattern.matches(&failed.error.class));
        let message = || {
            let text = failed.error.message.as_deref().unwrap_or_default();
            self.message.as_ref().is_none_or(|expression| expression.0.is_match(text))
        };
        let topic = || self.topic.as_ref().is_none_or(|pattern| pattern.matches(failed.topic));
        let header = |(name, pattern): &(String, Pattern)| (failed.header)(name).is_some_and(|value| pattern.matches(&value));
        status() && class() && topic() && self.headers.iter().all(header) && message()
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if !self.status.is_empty() {
            let ranges: Vec<String> = self.status.iter().map(ToString::to_string).collect();
            parts.push(format!("status {}", ranges.join(" or ")));
        }
        parts.extend(self.error_class.as_ref().map(|pattern| format!("error class {pattern}")));
        parts.extend(self.message.as_ref().map(|expression| format!("message like /{expression}/")));
        parts.extend(self.headers.iter().map(|(name, pattern)| format!("header {name} {pattern}")));
        parts.extend(self.topic.as_ref().map(|pattern| format!("topic {pattern}")));
        f.write_str(&parts.join(" and "))
    }
}

/// A range of HTTP statuses, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusRange {
    first: u16,
    last: u16,
}

/// A text that is not a status or a range of statuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum StatusError {
    /// Wrong syntax.
    #[error("is not a status: write 404, \"5xx\" or \"500-504\"")]
    Form,
    /// Not an HTTP status.
    #[error("is out of range: statuses are 100 to 599")]
    Range,
    /// A success.
    #[error("includes 2xx, which is a success: a handler can report a failure with Kladder-Verdict")]
    Success,
}

impl StatusRange {
    /// Whether the status is in the range.
    #[must_use]
    pub fn contains(self, status: u16) -> bool {
        (self.first..=self.last).contains(&status)
    }
}

impl FromStr for StatusRange {
    type Err = StatusError;

    /// `404`, `5xx` or `500-504`.
    fn from_str(text: &str) -> Result<Self, StatusError> {
        let number = |text: &str| match text.trim() {
            digits if digits.len() == 3 && digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().map_err(|_| StatusError::Form)
            }
            _ => Err(StatusError::Form),
        };
        let text = text.trim();
        let (first, last): (u16, u16) = if let Some(hundreds) = text.strip_suffix("xx").or(text.strip_suffix("XX")) {
            let hundreds: u16 = hundreds.parse().map_err(|_| StatusError::Form)?;
            (hundreds.saturating_mul(100), hundreds.saturating_mul(100).saturating_add(99))
        } else if let Some((first, last)) = text.split_once('-') {
            (number(first)?, number(last)?)
        } else {
            (number(text)?, number(text)?)
        };
        if first < 100 || last > 599 || first > last {
            return Err(StatusError::Range);
        }
        if first < 300 && last >= 200 {
            return Err(StatusError::Success);
        }
        Ok(Self { first, last })
    }
}

impl fmt::Display for StatusRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.first, self.last) {
            (first, last) if first == last => write!(f, "{first}"),
            (first, last) if first % 100 == 0 && last == first + 99 => write!(f, "{}xx", first / 100),
            (first, last) => write!(f, "{first}-{last}"),
        }
    }
}

/// A text pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// Equal to this.
    Exact(String),
    /// Begins with this.
    Prefix(String),
    /// Contains a match.
    Regex(Expression),
}

impl Pattern {
    /// Whether the text matches.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(whole) => whole == text,
            Self::Prefix(beginning) => text.starts_with(beginning.as_str()),
            Self::Regex(expression) => expression.0.is_match(text),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(whole) => write!(f, "\"{whole}\""),
            Self::Prefix(beginning) => write!(f, "\"{beginning}…\""),
            Self::Regex(expression) => write!(f, "like /{expression}/"),
        }
    }
}

/// A regular expression; two are equal if their texts are.
#[derive(Debug, Clone)]
pub struct Expression(Regex);

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Expression {}

impl Expression {
    /// Whether it matches anywhere in a text.
    #[must_use]
    pub fn is_found_in(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

impl FromStr for Expression {
    type Err = regex::Error;

    fn from_str(text: &str) -> Result<Self, regex::Error> {
        Regex::new(text).map(Self)
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;

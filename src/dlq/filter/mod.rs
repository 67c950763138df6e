//! The filter language for dead letters, the same in all commands. See [`GRAMMAR`].
//!
//! Parsing is pure, and [`Filter::matches`] tests a letter. The index translates filters to SQL conditions, which must agree with
//! that.

mod error;
mod matches;
mod parse;

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use crate::core::dead_letter::LetterState;
pub use crate::core::rules::Expression;
use crate::core::time::Timestamp;
pub use crate::dlq::filter::error::FilterError;
pub use crate::dlq::filter::matches::LetterFields;
pub(in crate::dlq) use crate::dlq::filter::matches::words;
use crate::dlq::filter::parse::ANY_CASE;

/// The grammar, for help texts.
pub const GRAMMAR: &str = "\
Filters:
  A filter is terms, FIELD:VALUE. Terms behind one another must all hold, with or without AND between them; OR stands between
  alternatives, NOT or - before what must not hold, parentheses around what belongs together. A word without a field is looked for
  in message, class and key.

    filter      = [ alternative { \"OR\" alternative } ]
    alternative = condition { [ \"AND\" ] condition }
    condition   = [ \"NOT\" | \"-\" ] ( \"(\" filter \")\" | term )
    term        = FIELD \":\" value | value
    value       = [ \"~\" | \">\" | \">=\" | \"<\" | \"<=\" ] item { \",\" item }
    item        = bare word | '\"' text '\"'           within quotes \\\" and \\\\ stand for \" and \\

  Of several items one must fit. ~ asks for a regular expression, found anywhere, in any case. A single - asks for none: class:-
  A bare value ends at a blank, a comma or a closing parenthesis; an expression at a blank or a parenthesis that it did not open.

  reason, class, message      why it is dead, the class and the message of its last error
  text                        words that stand behind one another in message, class or key
  topic, origin.partition, origin.offset
                              where it first came from
  key                         its key
  header.NAME                 one of its headers: header.region:eu, header.\"x y\":1
  state                       open, redriven, succeeded, failed-again, resolved, discarded, parked
  group, job                  its group (see `dlq groups`), and the job that touched it last
  age                         how long it has been here: age:>1h, age:<=7d
  since, before               when it came: since:2026-01-31, before:2026-01-31T12:00:00Z (UTC)
  id, partition, offset       where it stands: id:3/1042, id:0/7,0/8
  attempts, redrives, status, tier
                              numbers: attempts:4, status:>=500

  reason:rejected class:~Timeout topic:orders age:>1h
  (status:>=500 OR class:~refused) -state:resolved
  \"no account\" header.region:eu,us";

/// The first moment whose year has more than four digits.
const END_OF_CALENDAR: Timestamp = Timestamp::from_millis(253_402_300_800_000);

/// A filter.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    /// Every one.
    All,
    /// All of these match.
    And(Vec<Filter>),
    /// One of these matches.
    Or(Vec<Filter>),
    /// This does not match.
    Not(Box<Filter>),
    /// This term matches.
    Term(Term),
}

/// One condition.
#[derive(Debug, Clone, PartialEq)]
pub enum Term {
    /// The reason.
    Reason(Match),
    /// The class of the last error.
    Class(Match),
    /// The message of the last error.
    Message(Match),
    /// The origin topic.
    Topic(Match),
    /// Its key, as text.
    Key(Match),
    /// Its group.
    Group(Match),
    /// The job of the last action.
    Job(Match),
    /// A header.
    Header(String, Match),
    /// Consecutive words, in lower case, in message, class or key.
    Text(Vec<String>),
    /// The state.
    State(Vec<LetterState>),
    /// A number.
    Number(NumberField, Compare, i64),
    /// The time since it became a dead letter.
    Age(Compare, Duration),
    /// It arrived before this.
    Before(Timestamp),
    /// It arrived at or after this.
    Since(Timestamp),
    /// It is at one of these positions.
    Id(Vec<LetterPlace>),
}

/// The numeric fields of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumberField {
    /// The partition of the dead-letter topic.
    Partition,
    /// The offset in the dead-letter topic.
    Offset,
    /// Attempts made.
    Attempts,
    /// Number of earlier redrives.
    Redrives,
    /// The HTTP status of the last error.
    Status,
    /// The tier of the last wait.
    Tier,
    /// The origin partition.
    OriginPartition,
    /// The origin offset.
    OriginOffset,
}

impl NumberField {
    const NAMES: [(&'static str, Self); 8] = [
        ("partition", Self::Partition),
        ("offset", Self::Offset),
        ("attempts", Self::Attempts),
        ("redrives", Self::Redrives),
        ("status", Self::Status),
        ("tier", Self::Tier),
        ("origin.partition", Self::OriginPartition),
        ("origin.offset", Self::OriginOffset),
    ];
}

/// How numbers and times are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// Equal.
    Equal,
    /// Less, or younger.
    Less,
    /// Less or equal.
    AtMost,
    /// More, or older.
    More,
    /// More or equal.
    AtLeast,
}

impl Compare {
    fn sign(self) -> &'static str {
        match self {
            Self::Equal => "",
            Self::Less => "<",
            Self::AtMost => "<=",
            Self::More => ">",
            Self::AtLeast => ">=",
        }
    }

    fn holds<T: Ord>(self, a: T, b: T) -> bool {
        match self {
            Self::Equal => a == b,
            Self::Less => a < b,
            Self::AtMost => a <= b,
            Self::More => a > b,
            Self::AtLeast => a >= b,
        }
    }
}

/// How texts are compared.
#[derive(Debug, Clone, PartialEq)]
pub enum Match {
    /// It is one of these.
    Any(Vec<String>),
    /// The regular expression matches part of it, ignoring case.
    Like(Expression),
    /// It is absent.
    Absent,
}

/// A position in a dead-letter topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LetterPlace {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

impl Filter {
    /// Parses a filter; the empty text matches all.
    ///
    /// # Errors
    /// The first mistake, with its column.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        parse::parse(text)
    }

    /// Matches if both do.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::All, other) => other,
            (this, Self::All) => this,
            (Self::And(mut all), other) => {
                all.push(other);
                Self::And(all)
            }
            (this, other) => Self::And(vec![this, other]),
        }
    }

    /// Also requires one of these states.
    #[must_use]
    pub fn and_in(self, states: &[LetterState]) -> Self {
        self.and(Self::Term(Term::State(states.to_vec())))
    }

    /// Whether it selects states at its top level, so that no default is added.
    #[must_use]
    pub fn asks_for_state(&self) -> bool {
        match self {
            Self::Term(Term::State(_)) => true,
            Self::And(all) | Self::Or(all) => all.iter().any(Self::asks_for_state),
            Self::Not(inner) => inner.asks_for_state(),
            _ => false,
        }
    }
}

fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "_./@+:=$#%&*!?;|[]{}^-".contains(c);
    let begins_oddly = text.starts_with(['~', '<', '>', '-', '=']);
    if !text.is_empty() && !begins_oddly && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A time in a form that can be parsed, to the millisecond.
fn moment(time: Timestamp) -> String {
    let after_epoch = u64::try_from(time.as_millis()).ok().filter(|millis| !millis.is_multiple_of(1_000));
    match after_epoch.and_then(|millis| UNIX_EPOCH.checked_add(Duration::from_millis(millis))) {
        Some(moment) if time < END_OF_CALENDAR => humantime::format_rfc3339_millis(moment).to_string(),
        _ => time.to_rfc3339(),
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = |filter: &Self| match filter {
            Self::Term(_) | Self::Not(_) => filter.to_string(),
            other => format!("({other})"),
        };
        match self {
            Self::All => Ok(()),
            Self::And(all) => f.write_str(&all.iter().map(inner).collect::<Vec<_>>().join(" ")),
            Self::Or(all) => f.write_str(&all.iter().map(inner).collect::<Vec<_>>().join(" OR ")),
            Self::Not(filter) => write!(f, "NOT {}", inner(filter)),
            Self::Term(term) => term.fmt(f),
        }
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any(all) => f.write_str(&all.iter().map(|one| quoted(one)).collect::<Vec<_>>().join(",")),
            Self::Like(pattern) => {
                let text = pattern.to_string();
                write!(f, "~{}", quoted(text.strip_prefix(ANY_CASE).unwrap_or(&text)))
            }
            Self::Absent => f.write_str("-"),
        }
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let join = |all: Vec<String>| all.join(",");
        match self {
            Self::Reason(by) => write!(f, "reason:{by}"),
            Self::Class(by) => write!(f, "class:{by}"),
            Self::Message(by) => write!(f, "message:{by}"),
            Self::Topic(by) => write!(f, "topic:{by}"),
            Self::Key(by) => write!(f, "key:{by}"),
            Self::Group(by) => write!(f, "group:{by}"),
            Self::Job(by) => write!(f, "job:{by}"),
            Self::Header(name, by) => {
                let plain = name.chars().all(|c| c.is_alphanumeric() || "_-.".contains(c)) && !name.is_empty();
                if plain {
                    write!(f, "header.{name}:{by}")
                } else {
                    write!(f, "header.\"{}\":{by}", name.replace('\\', "\\\\").replace('"', "\\\""))
                }
            }
            // The only character whose lower case is not only letters.
            Self::Text(words) => write!(f, "text:\"{}\"", words.join(" ").replace("i\u{307}", "\u{130}")),
            Self::State(states) => write!(f, "state:{}", join(states.iter().map(ToString::to_string).collect())),
            Self::Number(field, compare, number) => {
                let name = NumberField::NAMES.iter().find(|(_, known)| known == field).map_or("", |(name, _)| name);
                write!(f, "{name}:{}{number}", compare.sign())
            }
            Self::Age(compare, age) => {
                write!(f, "age:{}{}", compare.sign(), humantime::format_duration(*age).to_string().replace(' ', ""))
            }
            Self::Before(time) => write!(f, "before:{}", moment(*time)),
            Self::Since(time) => write!(f, "since:{}", moment(*time)),
            Self::Id(places) => {
                write!(f, "id:{}", join(places.iter().map(|p| format!("{}/{}", p.partition, p.offset)).collect()))
            }
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

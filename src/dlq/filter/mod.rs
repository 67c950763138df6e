//! The language in which dead letters are asked for, the same for all commands. See [`GRAMMAR`].
//!
//! A filter is text without code: it is parsed here, purely, and put to a letter by [`Filter::matches`]. The index makes conditions of
//! it, which must agree with that.

mod error;
mod matches;
mod parse;

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use crate::core::dead_letter::LetterState;
pub use crate::core::rules::Expression;
use crate::core::time::Timestamp;
pub use crate::dlq::filter::error::FilterError;
pub use crate::dlq::filter::matches::Facts;
pub(in crate::dlq) use crate::dlq::filter::matches::words;
use crate::dlq::filter::parse::ANY_CASE;

/// What a filter looks like, for help texts.
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

/// The first moment that has no year of four digits.
const END_OF_CALENDAR: Timestamp = Timestamp::from_millis(253_402_300_800_000);

/// Which letters.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    /// Every one.
    All,
    /// Those for which all of these hold.
    And(Vec<Filter>),
    /// Those for which one of these holds.
    Or(Vec<Filter>),
    /// Those for which this does not hold.
    Not(Box<Filter>),
    /// Those for which this holds.
    Term(Term),
}

/// One condition.
#[derive(Debug, Clone, PartialEq)]
pub enum Term {
    /// Why the letter is dead.
    Reason(Match),
    /// The class of its last error.
    Class(Match),
    /// Its message.
    Message(Match),
    /// The topic that it first came from.
    Topic(Match),
    /// Its key, as text.
    Key(Match),
    /// Its group.
    Group(Match),
    /// The job that touched it last.
    Job(Match),
    /// One of its headers.
    Header(String, Match),
    /// Words, in lower case, that stand behind one another in message, class or key.
    Text(Vec<String>),
    /// What it is now.
    State(Vec<LetterState>),
    /// A number.
    Number(NumberField, Compare, i64),
    /// How long it has been a dead letter.
    Age(Compare, Duration),
    /// It came before this.
    Before(Timestamp),
    /// It came then or later.
    Since(Timestamp),
    /// It stands at one of these places.
    Id(Vec<LetterPlace>),
}

/// Numbers of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumberField {
    /// The partition of the dead-letter topic.
    Partition,
    /// The offset there.
    Offset,
    /// Attempts that were made.
    Attempts,
    /// How often it was sent back before.
    Redrives,
    /// The HTTP status of its last error.
    Status,
    /// The tier that it last waited in.
    Tier,
    /// The partition that it first came from.
    OriginPartition,
    /// The offset there.
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

/// How a number or a time is compared.
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

/// How a text is compared.
#[derive(Debug, Clone, PartialEq)]
pub enum Match {
    /// It is one of these.
    Any(Vec<String>),
    /// The expression is found in it, in any case.
    Like(Expression),
    /// There is none.
    Absent,
}

/// A place in a dead-letter topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LetterPlace {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

impl Filter {
    /// Reads a filter; the empty text is all.
    ///
    /// # Errors
    /// With the column of the first mistake.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        parse::parse(text)
    }

    /// Both must hold.
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

    /// And the letter must be in one of these states.
    #[must_use]
    pub fn and_in(self, states: &[LetterState]) -> Self {
        self.and(Self::Term(Term::State(states.to_vec())))
    }

    /// Whether it says something of states at its top level, so that a default need not be added.
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
    let begins_oddly = text.starts_with(['~', '<', '>', '-']);
    if !text.is_empty() && !begins_oddly && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A moment as it is read again, to the millisecond.
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
            // The one letter of which the lower case is more than letters.
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

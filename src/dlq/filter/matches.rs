//! Whether a filter matches a letter.

use std::borrow::Cow;

use crate::core::dead_letter::LetterState;
use crate::core::time::Timestamp;
use crate::dlq::filter::{Compare, Filter, LetterPlace, Match, NumberField, Term};

/// The fields of a letter that a filter can test. An absent number or text matches no comparison.
#[derive(Debug, Clone)]
pub struct LetterFields<'a> {
    pub reason: Option<&'a str>,
    pub class: Option<&'a str>,
    pub message: Option<&'a str>,
    pub topic: Option<&'a str>,
    pub key: Option<&'a [u8]>,
    pub group: &'a str,
    pub job: Option<&'a str>,
    pub headers: &'a [(Vec<u8>, Option<Vec<u8>>)],
    pub state: LetterState,
    pub partition: i32,
    pub offset: i64,
    pub attempts: Option<u32>,
    pub redrives: u32,
    pub status: Option<u16>,
    pub tier: Option<u32>,
    pub origin_partition: Option<i32>,
    pub origin_offset: Option<i64>,
    pub appended: Timestamp,
}

impl Filter {
    /// Whether it matches.
    #[must_use]
    pub fn matches(&self, letter: &LetterFields<'_>, now: Timestamp) -> bool {
        match self {
            Self::All => true,
            Self::And(all) => all.iter().all(|filter| filter.matches(letter, now)),
            Self::Or(all) => all.iter().any(|filter| filter.matches(letter, now)),
            Self::Not(filter) => !filter.matches(letter, now),
            Self::Term(term) => term.matches(letter, now),
        }
    }
}

impl Match {
    /// Whether a text matches.
    #[must_use]
    pub fn fits(&self, text: Option<&str>) -> bool {
        match (self, text) {
            (Self::Absent, text) => text.is_none(),
            (Self::Any(all), Some(text)) => all.iter().any(|one| one == text),
            (Self::Like(pattern), Some(text)) => pattern.is_found_in(text),
            (_, None) => false,
        }
    }
}

impl Term {
    fn matches(&self, letter: &LetterFields<'_>, now: Timestamp) -> bool {
        match self {
            Self::Reason(by) => by.fits(letter.reason),
            Self::Class(by) => by.fits(letter.class),
            Self::Message(by) => by.fits(letter.message),
            Self::Topic(by) => by.fits(letter.topic),
            Self::Key(by) => by.fits(letter.key.map(String::from_utf8_lossy).as_deref()),
            Self::Group(by) => by.fits(Some(letter.group)),
            Self::Job(by) => by.fits(letter.job),
            Self::Header(name, by) => {
                let mut values = letter.headers.iter().filter(|(n, _)| n == name.as_bytes()).peekable();
                if *by == Match::Absent {
                    return values.peek().is_none();
                }
                values.any(|(_, value)| by.fits(value.as_deref().map(String::from_utf8_lossy).as_deref()))
            }
            Self::Text(words) => {
                let key = letter.key.map(String::from_utf8_lossy);
                [letter.message, letter.class, key.as_deref()].into_iter().flatten().any(|text| has_words(text, words))
            }
            Self::State(states) => states.contains(&letter.state),
            Self::Number(field, compare, number) => {
                let value = match field {
                    NumberField::Partition => Some(i64::from(letter.partition)),
                    NumberField::Offset => Some(letter.offset),
                    NumberField::Attempts => letter.attempts.map(i64::from),
                    NumberField::Redrives => Some(i64::from(letter.redrives)),
                    NumberField::Status => letter.status.map(i64::from),
                    NumberField::Tier => letter.tier.map(i64::from),
                    NumberField::OriginPartition => letter.origin_partition.map(i64::from),
                    NumberField::OriginOffset => letter.origin_offset,
                };
                value.is_some_and(|value| compare.holds(value, *number))
            }
            Self::Age(compare, age) => {
                let then = now - *age;
                // Older means earlier.
                match compare {
                    Compare::Equal => letter.appended == then,
                    Compare::Less => letter.appended > then,
                    Compare::AtMost => letter.appended >= then,
                    Compare::More => letter.appended < then,
                    Compare::AtLeast => letter.appended <= then,
                }
            }
            Self::Before(time) => letter.appended < *time,
            Self::Since(time) => letter.appended >= *time,
            Self::Id(places) => places.contains(&LetterPlace { partition: letter.partition, offset: letter.offset }),
        }
    }
}

/// The words of a text: runs of letters and digits, in lower case.
pub(in crate::dlq) fn words(text: &str) -> impl Iterator<Item = Cow<'_, str>> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(|word| {
        if word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
            Cow::Borrowed(word)
        } else {
            Cow::Owned(word.to_lowercase())
        }
    })
}

fn has_words(text: &str, wanted: &[String]) -> bool {
    let found: Vec<Cow<'_, str>> = words(text).collect();
    wanted.is_empty() || found.windows(wanted.len()).any(|window| window.iter().zip(wanted).all(|(a, b)| a == b))
}

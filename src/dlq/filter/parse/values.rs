//! The values of fields.

use std::time::Duration;

use crate::config::nearest;
use crate::core::dead_letter::LetterState;
use crate::core::rules::Expression;
use crate::core::time::Timestamp;
use crate::dlq::filter::error::FilterError;
use crate::dlq::filter::parse::Parser;
use crate::dlq::filter::{Compare, LetterPlace, Match, NumberField, Term};

/// Prefix of each regular expression.
pub(in crate::dlq::filter) const ANY_CASE: &str = "(?i)";

/// One item of a value.
pub(super) struct Item {
    pub(super) text: String,
    pub(super) at: usize,
    quoted: bool,
}

/// The sign before the items of a value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    None,
    Like,
    Compare(Compare),
}

impl Parser<'_> {
    pub(super) fn value(&mut self) -> Result<(Sign, Vec<Item>), FilterError> {
        let mut sign = Sign::None;
        for (text, meant) in [
            ("~", Sign::Like),
            (">=", Sign::Compare(Compare::AtLeast)),
            ("<=", Sign::Compare(Compare::AtMost)),
            (">", Sign::Compare(Compare::More)),
            ("<", Sign::Compare(Compare::Less)),
        ] {
            let end = self.at + text.len();
            if self.chars.get(self.at..end).is_some_and(|chars| chars.iter().copied().eq(text.chars())) {
                self.at = end;
                sign = meant;
                break;
            }
        }
        let mut items = Vec::new();
        loop {
            let at = self.at;
            let quoted = self.peek() == Some('"');
            // Commas belong to the expression, and so do its parentheses as long as they are
            // paired.
            let text = if quoted {
                self.quoted()?
            } else if sign == Sign::Like {
                self.expression()
            } else {
                self.bare(",\"")
            };
            if text.is_empty() && !quoted {
                return Err(self.wrong_at(at, "a value is missing here"));
            }
            if !quoted && sign != Sign::Like && text.starts_with('=') {
                return Err(
                    self.wrong_at(at, "remove the = before the value: write FIELD:VALUE; for the character itself write \"=\"")
                );
            }
            items.push(Item { text, at, quoted });
            match self.peek() {
                Some(',') => self.at += 1,
                None | Some(')') => break,
                Some(c) if c.is_whitespace() => break,
                Some(_) => return Err(self.wrong("a blank is missing before this")),
            }
        }
        Ok((sign, items))
    }

    /// Up to a blank, or the parenthesis that closes one opened before; a backslash escapes one.
    fn expression(&mut self) -> String {
        let begun = self.at;
        let mut open = 0;
        while let Some(c) = self.peek() {
            match c {
                '\\' if self.chars.get(self.at + 1).is_some_and(|c| !c.is_whitespace()) => self.at += 1,
                '(' => open += 1,
                ')' if open == 0 => break,
                ')' => open -= 1,
                c if c.is_whitespace() => break,
                _ => {}
            }
            self.at += 1;
        }
        self.chars[begun..self.at].iter().collect()
    }

    pub(super) fn text_match(&mut self) -> Result<Match, FilterError> {
        self.text_match_among(None)
    }

    /// Parses a text match; plain values must be known ones, if those are given.
    pub(super) fn text_match_among(&mut self, known: Option<(&str, &[&str])>) -> Result<Match, FilterError> {
        let begun = self.at;
        let (sign, items) = self.value()?;
        match sign {
            Sign::Like => {
                if let Some(second) = items.get(1) {
                    return Err(self.wrong_at(second.at, "only one expression is allowed: write a|b"));
                }
                let expression = format!("{ANY_CASE}{}", items[0].text);
                return expression.parse::<Expression>().map(Match::Like).map_err(|error| self.no_expression(&items[0], &error));
            }
            Sign::Compare(_) => return Err(self.wrong_at(begun, "texts cannot be compared by < and >")),
            Sign::None => {}
        }
        let absent = |item: &Item| item.text == "-" && !item.quoted;
        if items.len() == 1 && absent(&items[0]) {
            return Ok(Match::Absent);
        }
        for item in &items {
            if absent(item) {
                return Err(self.wrong_at(item.at, "- means absent and cannot be combined; for the character itself write \"-\""));
            }
            // One at the beginning was parsed as a sign.
            if item.text.starts_with('~') && !item.quoted {
                return Err(self.wrong_at(item.at, "an expression cannot be combined with others: write FIELD:a OR FIELD:~b"));
            }
            if let Some((what, known)) = known.filter(|(_, known)| !known.contains(&item.text.as_str())) {
                return Err(self.wrong_at(item.at, unknown_of(what, &item.text, known)));
            }
        }
        Ok(Match::Any(items.into_iter().map(|item| item.text).collect()))
    }

    /// The regex crate prints the expression with a line that points at the mistake, and the reason in the last line.
    fn no_expression(&self, item: &Item, error: &regex::Error) -> FilterError {
        let told = error.to_string();
        let reason = told.lines().last().unwrap_or_default().trim_start_matches("error: ");
        // Indented by four; within quotes a character of the expression may be two in the filter.
        let pointed = told.lines().find(|line| line.contains('^') && line.trim_matches([' ', '^']).is_empty());
        let within = pointed.and_then(|line| line.find('^')?.checked_sub(4 + ANY_CASE.len())).filter(|_| !item.quoted);
        let within = within.filter(|within| *within < item.text.chars().count());
        self.wrong_at(item.at + within.unwrap_or(0), format!("invalid regular expression: {reason}"))
    }

    pub(super) fn states(&mut self) -> Result<Term, FilterError> {
        let known = LetterState::ALL.map(LetterState::as_str);
        let begun = self.at;
        let (sign, items) = self.value()?;
        if sign != Sign::None {
            return Err(self.wrong_at(begun, "states cannot be compared"));
        }
        let of = |item: &Item| {
            let found = LetterState::ALL.into_iter().find(|state| state.as_str() == item.text);
            found.ok_or_else(|| self.wrong_at(item.at, unknown_of("state", &item.text, &known)))
        };
        items.iter().map(of).collect::<Result<_, _>>().map(Term::State)
    }

    /// One item, and how it is compared.
    fn compared(&mut self) -> Result<(Compare, Item), FilterError> {
        let begun = self.at;
        let (sign, mut items) = self.value()?;
        if let Some(second) = items.get(1) {
            return Err(self.wrong_at(second.at, "only one value can be compared"));
        }
        match sign {
            Sign::Like => Err(self.wrong_at(begun, "this field has no text")),
            Sign::None => Ok((Compare::Equal, items.remove(0))),
            Sign::Compare(compare) => Ok((compare, items.remove(0))),
        }
    }

    pub(super) fn number(&mut self, field: NumberField) -> Result<Term, FilterError> {
        let (compare, item) = self.compared()?;
        let number = item.text.parse().map_err(|_| self.wrong_at(item.at, "a whole number is expected here"))?;
        Ok(Term::Number(field, compare, number))
    }

    pub(super) fn age(&mut self) -> Result<Term, FilterError> {
        let begun = self.at;
        let (compare, item) = self.compared()?;
        let wrong = || self.wrong_at(item.at, "a time like 30m, 1h30m or 7d is expected here");
        let age = humantime::parse_duration(&item.text).map_err(|_| wrong())?;
        if compare == Compare::Equal {
            return Err(self.wrong_at(begun, format!("write younger or older: age:<{0} or age:>{0}", item.text)));
        }
        // Letters have times in milliseconds, and none is a century old.
        let age = Duration::from_millis(u64::try_from(age.as_millis()).unwrap_or(u64::MAX).min(3_200_000_000_000));
        Ok(Term::Age(compare, age))
    }

    pub(super) fn time(&mut self) -> Result<Timestamp, FilterError> {
        let begun = self.at;
        let (compare, item) = self.compared()?;
        if compare != Compare::Equal {
            return Err(self.wrong_at(begun, "since: and before: take no comparison sign"));
        }
        let text = if item.text.len() == 10 { format!("{}T00:00:00Z", item.text) } else { item.text.clone() };
        let wrong = |_| self.wrong_at(item.at, "a time like 2026-01-31 or 2026-01-31T12:00:00Z is expected here");
        let time = humantime::parse_rfc3339_weak(&text).map_err(wrong)?;
        let millis = time.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_millis());
        Ok(Timestamp::from_millis(i64::try_from(millis).unwrap_or(i64::MAX)))
    }

    pub(super) fn places(&mut self) -> Result<Term, FilterError> {
        let (sign, items) = self.value()?;
        let of = |item: &Item| {
            let (partition, offset) = item.text.split_once('/')?;
            let (partition, offset) = (partition.parse().ok()?, offset.parse().ok()?);
            (sign == Sign::None && partition >= 0 && offset >= 0).then_some(LetterPlace { partition, offset })
        };
        let wrong = |item: &Item| self.wrong_at(item.at, "a position is PARTITION/OFFSET, like 3/1042");
        items.iter().map(|item| of(item).ok_or_else(|| wrong(item))).collect::<Result<_, _>>().map(Term::Id)
    }
}

fn unknown_of(what: &str, given: &str, known: &[&str]) -> String {
    match nearest::nearest(given, known.iter().copied()) {
        Some(meant) => format!("no {what} `{given}`, did you mean `{meant}`?"),
        None => format!("no {what} `{given}`: {}", known.join(", ")),
    }
}

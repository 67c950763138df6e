//! Reads filters.

use std::time::Duration;

use crate::config::nearest;
use crate::core::dead_letter::LetterState;
use crate::core::envelope::Reason;
use crate::core::rules::Expression;
use crate::core::time::Timestamp;
use crate::dlq::filter::error::FilterError;
use crate::dlq::filter::matches::words;
use crate::dlq::filter::{Compare, Filter, LetterPlace, Match, NumberField, Term};

/// In front of each expression.
pub(super) const ANY_CASE: &str = "(?i)";

/// Deeper parentheses are refused.
const DEEPEST: usize = 50;

const FIELDS: [&str; 23] = [
    "reason",
    "class",
    "message",
    "text",
    "topic",
    "key",
    "group",
    "job",
    "state",
    "age",
    "since",
    "before",
    "id",
    "partition",
    "offset",
    "attempts",
    "redrives",
    "status",
    "tier",
    "origin.partition",
    "origin.offset",
    "header",
    "header.NAME",
];

pub(super) fn parse(text: &str) -> Result<Filter, FilterError> {
    let mut parser = Parser { chars: text.chars().collect(), at: 0, text };
    let filter = parser.filter(0)?;
    parser.blank();
    match parser.peek() {
        None => Ok(filter),
        Some(_) => Err(parser.wrong("this parenthesis closes nothing")),
    }
}

struct Parser<'a> {
    chars: Vec<char>,
    at: usize,
    text: &'a str,
}

/// One item of a value.
struct Item {
    text: String,
    at: usize,
    quoted: bool,
}

/// What stands before the items of a value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sign {
    None,
    Like,
    Compare(Compare),
}

impl Parser<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn wrong_at(&self, at: usize, message: impl Into<String>) -> FilterError {
        FilterError { column: at.min(self.chars.len()) + 1, message: message.into(), text: self.text.to_owned() }
    }

    fn wrong(&self, message: impl Into<String>) -> FilterError {
        self.wrong_at(self.at, message)
    }

    fn blank(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    /// Whether this word comes next, alone.
    fn comes(&self, word: &str) -> bool {
        let end = self.at + word.len();
        self.chars.get(self.at..end).is_some_and(|chars| chars.iter().copied().eq(word.chars()))
            && self.chars.get(end).is_none_or(|c| c.is_whitespace() || matches!(c, '(' | ')'))
    }

    fn takes_word(&mut self, word: &str) -> bool {
        let comes = self.comes(word);
        if comes {
            self.at += word.len();
        }
        comes
    }

    /// The conditions up to an OR or an end, joined by blanks or AND.
    fn conditions(&mut self, depth: usize) -> Result<Vec<Filter>, FilterError> {
        let mut all = Vec::new();
        let mut joint = None;
        loop {
            self.blank();
            if matches!(self.peek(), None | Some(')')) || self.comes("OR") {
                break;
            }
            if self.comes("AND") && !all.is_empty() && joint.is_none() {
                joint = Some(self.at);
                self.at += "AND".len();
                continue;
            }
            all.push(self.condition(depth)?);
            joint = None;
        }
        joint.map_or(Ok(all), |at| Err(self.wrong_at(at, "something is missing beside AND")))
    }

    fn filter(&mut self, depth: usize) -> Result<Filter, FilterError> {
        if depth > DEEPEST {
            return Err(self.wrong("parentheses are too deep"));
        }
        let mut alternatives = Vec::new();
        loop {
            let begun = self.at;
            let mut all = self.conditions(depth)?;
            let is_last = !self.takes_word("OR");
            if all.is_empty() && (!is_last || !alternatives.is_empty()) {
                return Err(self.wrong_at(if is_last { self.at } else { begun }, "something is missing beside OR"));
            }
            alternatives.push(match all.len() {
                0 => Filter::All,
                1 => all.remove(0),
                _ => Filter::And(all),
            });
            if is_last {
                break;
            }
        }
        Ok(if alternatives.len() == 1 { alternatives.remove(0) } else { Filter::Or(alternatives) })
    }

    fn condition(&mut self, depth: usize) -> Result<Filter, FilterError> {
        if depth > DEEPEST {
            return Err(self.wrong("too many NOTs"));
        }
        for word in ["AND", "OR"] {
            if self.comes(word) {
                return Err(self.wrong(format!("something is missing beside {word}; quote it to look for the word")));
            }
        }
        let begun = self.at;
        let minus = self.peek() == Some('-') && self.chars.get(self.at + 1).is_some_and(|c| !c.is_whitespace());
        if minus {
            self.at += 1;
        }
        if minus || self.takes_word("NOT") {
            self.blank();
            if self.peek().is_none() || self.peek() == Some(')') {
                return Err(self.wrong_at(begun, "nothing stands behind NOT"));
            }
            return Ok(Filter::Not(Box::new(self.condition(depth + 1)?)));
        }
        if self.peek() == Some('(') {
            let open = self.at;
            self.at += 1;
            let inner = self.filter(depth + 1)?;
            self.blank();
            if self.peek() != Some(')') {
                return Err(self.wrong_at(open, "this parenthesis is not closed"));
            }
            self.at += 1;
            if inner == Filter::All {
                return Err(self.wrong_at(open, "nothing stands between these parentheses"));
            }
            return Ok(inner);
        }
        self.term().map(Filter::Term)
    }

    /// A bare word ends at a blank, a parenthesis that closes, or what else is said.
    fn bare(&mut self, ends: &str) -> String {
        let begun = self.at;
        while self.peek().is_some_and(|c| !c.is_whitespace() && c != ')' && !ends.contains(c)) {
            self.at += 1;
        }
        self.chars[begun..self.at].iter().collect()
    }

    fn quoted(&mut self) -> Result<String, FilterError> {
        let open = self.at;
        self.at += 1;
        let mut text = String::new();
        loop {
            match self.peek() {
                None => return Err(self.wrong_at(open, "this quote is not closed")),
                Some('"') => {
                    self.at += 1;
                    return Ok(text);
                }
                Some('\\') if self.chars.get(self.at + 1).is_some_and(|c| matches!(c, '"' | '\\')) => {
                    text.push(self.chars[self.at + 1]);
                    self.at += 2;
                }
                Some(c) => {
                    text.push(c);
                    self.at += 1;
                }
            }
        }
    }

    fn term(&mut self) -> Result<Term, FilterError> {
        let begun = self.at;
        if self.peek() == Some('"') {
            let text = self.quoted()?;
            return self.text_of(&text, begun);
        }
        let mut name = self.bare(":\"(");
        let mut header = None;
        if name == "header." && self.peek() == Some('"') {
            header = Some(self.quoted()?);
            if self.peek() != Some(':') {
                return Err(self.wrong("a header's name is followed by : and its value"));
            }
        } else if let Some(rest) = name.strip_prefix("header.").filter(|rest| !rest.is_empty()) {
            header = Some(rest.to_owned());
        }
        if self.peek() != Some(':') {
            if matches!(self.peek(), Some('"' | '(')) {
                return Err(self.wrong("a blank is missing before this"));
            }
            if name.is_empty() {
                return Err(self.wrong("a field or a word is missing here"));
            }
            return self.text_of(&name, begun);
        }
        self.at += 1;
        if let Some(header) = header {
            return Ok(Term::Header(header, self.text_match()?));
        }
        name.make_ascii_lowercase();
        match name.as_str() {
            "reason" => {
                let known = Reason::ALL.map(Reason::as_str);
                self.text_match_among(Some(("reason", &known))).map(Term::Reason)
            }
            "class" => Ok(Term::Class(self.text_match()?)),
            "message" => Ok(Term::Message(self.text_match()?)),
            "topic" => Ok(Term::Topic(self.text_match()?)),
            "key" => Ok(Term::Key(self.text_match()?)),
            "group" => Ok(Term::Group(self.text_match()?)),
            "job" => Ok(Term::Job(self.text_match()?)),
            "text" => {
                let at = self.at;
                let (sign, items) = self.value()?;
                if sign != Sign::None {
                    return Err(self.wrong_at(at, "words are looked for as they are; expressions are for message: and class:"));
                }
                if let Some(second) = items.get(1) {
                    return Err(self.wrong_at(second.at, "one text at a time: write text:a OR text:b"));
                }
                self.text_of(&items[0].text, at)
            }
            "state" => self.states(),
            "age" => self.age(),
            "since" => self.time().map(Term::Since),
            "before" => self.time().map(Term::Before),
            "id" => self.places(),
            other => match NumberField::NAMES.iter().find(|(known, _)| *known == other) {
                Some((_, field)) => self.number(*field),
                None if other == "header" || other == "header." => {
                    Err(self.wrong_at(begun, "a header is named behind a dot: header.NAME:VALUE"))
                }
                None => {
                    let meant = nearest::nearest(other, FIELDS).map(|meant| format!(", did you mean `{meant}`?"));
                    let quote =
                        format!("no field `{other}`{}", meant.unwrap_or_else(|| "; quote it to look for the words".to_owned()));
                    Err(self.wrong_at(begun, quote))
                }
            },
        }
    }

    fn text_of(&self, text: &str, at: usize) -> Result<Term, FilterError> {
        let words: Vec<String> = words(text).map(std::borrow::Cow::into_owned).collect();
        if words.is_empty() {
            return Err(self.wrong_at(at, "there is no word in this"));
        }
        Ok(Term::Text(words))
    }

    fn value(&mut self) -> Result<(Sign, Vec<Item>), FilterError> {
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
            // Commas belong to an expression, and so do its parentheses as far as they are paired.
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

    /// Up to a blank, or a parenthesis that was opened before it; one behind a backslash is none.
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

    fn text_match(&mut self) -> Result<Match, FilterError> {
        self.text_match_among(None)
    }

    /// What a text has to be; one that is written out is one of those known, where they are.
    fn text_match_among(&mut self, known: Option<(&str, &[&str])>) -> Result<Match, FilterError> {
        let begun = self.at;
        let (sign, items) = self.value()?;
        match sign {
            Sign::Like => {
                if let Some(second) = items.get(1) {
                    return Err(self.wrong_at(second.at, "one expression is enough: write a|b"));
                }
                let expression = format!("{ANY_CASE}{}", items[0].text);
                return expression.parse::<Expression>().map(Match::Like).map_err(|error| self.no_expression(&items[0], &error));
            }
            Sign::Compare(_) => return Err(self.wrong_at(begun, "texts are not compared by < and >")),
            Sign::None => {}
        }
        let absent = |item: &Item| item.text == "-" && !item.quoted;
        if items.len() == 1 && absent(&items[0]) {
            return Ok(Match::Absent);
        }
        for item in &items {
            if absent(item) {
                return Err(self.wrong_at(item.at, "- asks for none and stands alone; the character itself is \"-\""));
            }
            // One at the beginning has been taken for a sign.
            if item.text.starts_with('~') && !item.quoted {
                return Err(self.wrong_at(item.at, "an expression stands alone: write FIELD:a OR FIELD:~b"));
            }
            if let Some((what, known)) = known.filter(|(_, known)| !known.contains(&item.text.as_str())) {
                return Err(self.wrong_at(item.at, unknown_of(what, &item.text, known)));
            }
        }
        Ok(Match::Any(items.into_iter().map(|item| item.text).collect()))
    }

    /// The regex crate shows the expression with a line under it that points at the mistake, and says what it is in the last line.
    fn no_expression(&self, item: &Item, error: &regex::Error) -> FilterError {
        let told = error.to_string();
        let reason = told.lines().last().unwrap_or_default().trim_start_matches("error: ");
        // Indented by four; in quotes a character of the expression may be two of the filter.
        let pointed = told.lines().find(|line| line.contains('^') && line.trim_matches([' ', '^']).is_empty());
        let within = pointed.and_then(|line| line.find('^')?.checked_sub(4 + ANY_CASE.len())).filter(|_| !item.quoted);
        let within = within.filter(|within| *within < item.text.chars().count());
        self.wrong_at(item.at + within.unwrap_or(0), format!("no regular expression: {reason}"))
    }

    fn states(&mut self) -> Result<Term, FilterError> {
        let known = LetterState::ALL.map(LetterState::as_str);
        let begun = self.at;
        let (sign, items) = self.value()?;
        if sign != Sign::None {
            return Err(self.wrong_at(begun, "states are named, not compared"));
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
            return Err(self.wrong_at(second.at, "only one value is compared"));
        }
        match sign {
            Sign::Like => Err(self.wrong_at(begun, "this is no text")),
            Sign::None => Ok((Compare::Equal, items.remove(0))),
            Sign::Compare(compare) => Ok((compare, items.remove(0))),
        }
    }

    fn number(&mut self, field: NumberField) -> Result<Term, FilterError> {
        let (compare, item) = self.compared()?;
        let number = item.text.parse().map_err(|_| self.wrong_at(item.at, "a whole number is expected here"))?;
        Ok(Term::Number(field, compare, number))
    }

    fn age(&mut self) -> Result<Term, FilterError> {
        let begun = self.at;
        let (compare, item) = self.compared()?;
        let wrong = || self.wrong_at(item.at, "a time like 30m, 1h30m or 7d is expected here");
        let age = humantime::parse_duration(&item.text).map_err(|_| wrong())?;
        if compare == Compare::Equal {
            return Err(self.wrong_at(begun, format!("say younger or older: age:<{0} or age:>{0}", item.text)));
        }
        // Letters are dated in milliseconds, and nothing is a century old.
        let age = Duration::from_millis(u64::try_from(age.as_millis()).unwrap_or(u64::MAX).min(3_200_000_000_000));
        Ok(Term::Age(compare, age))
    }

    fn time(&mut self) -> Result<Timestamp, FilterError> {
        let begun = self.at;
        let (compare, item) = self.compared()?;
        if compare != Compare::Equal {
            return Err(self.wrong_at(begun, "since: and before: say already how it is compared"));
        }
        let text = if item.text.len() == 10 { format!("{}T00:00:00Z", item.text) } else { item.text.clone() };
        let wrong = |_| self.wrong_at(item.at, "a time like 2026-01-31 or 2026-01-31T12:00:00Z is expected here");
        let time = humantime::parse_rfc3339_weak(&text).map_err(wrong)?;
        let millis = time.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_millis());
        Ok(Timestamp::from_millis(i64::try_from(millis).unwrap_or(i64::MAX)))
    }

    fn places(&mut self) -> Result<Term, FilterError> {
        let (sign, items) = self.value()?;
        let of = |item: &Item| {
            let (partition, offset) = item.text.split_once('/')?;
            let (partition, offset) = (partition.parse().ok()?, offset.parse().ok()?);
            (sign == Sign::None && partition >= 0 && offset >= 0).then_some(LetterPlace { partition, offset })
        };
        let wrong = |item: &Item| self.wrong_at(item.at, "a place is PARTITION/OFFSET, like 3/1042");
        items.iter().map(|item| of(item).ok_or_else(|| wrong(item))).collect::<Result<_, _>>().map(Term::Id)
    }
}

fn unknown_of(what: &str, given: &str, known: &[&str]) -> String {
    match nearest::nearest(given, known.iter().copied()) {
        Some(meant) => format!("no {what} `{given}`, did you mean `{meant}`?"),
        None => format!("no {what} `{given}`: {}", known.join(", ")),
    }
}

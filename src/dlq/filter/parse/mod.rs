//! Parses filters.

mod values;

use crate::config::nearest;
use crate::core::envelope::Reason;
use crate::dlq::filter::error::FilterError;
use crate::dlq::filter::matches::words;
use crate::dlq::filter::{Filter, NumberField, Term};

pub(super) use values::ANY_CASE;
use values::Sign;

/// Maximum nesting of parentheses.
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
        Some(_) => Err(parser.wrong("this closing parenthesis has no opening one")),
    }
}

struct Parser<'a> {
    chars: Vec<char>,
    at: usize,
    text: &'a str,
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

    /// Whether this word comes next, as a whole word.
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

    /// The conditions up to an OR or the end, joined by blanks or AND.
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
        joint.map_or(Ok(all), |at| Err(self.wrong_at(at, "something is missing next to AND")))
    }

    fn filter(&mut self, depth: usize) -> Result<Filter, FilterError> {
        if depth > DEEPEST {
            return Err(self.wrong("too many nested parentheses"));
        }
        let mut alternatives = Vec::new();
        loop {
            let begun = self.at;
            let mut all = self.conditions(depth)?;
            let is_last = !self.takes_word("OR");
            if all.is_empty() && (!is_last || !alternatives.is_empty()) {
                return Err(self.wrong_at(if is_last { self.at } else { begun }, "something is missing next to OR"));
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
                return Err(self.wrong(format!("something is missing next to {word}; quote it to search for the word")));
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
                return Err(self.wrong_at(begun, "nothing after NOT"));
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
                return Err(self.wrong_at(open, "nothing between these parentheses"));
            }
            return Ok(inner);
        }
        self.term().map(Filter::Term)
    }

    /// A bare word ends at a blank, a closing parenthesis, or a character in `ends`.
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
        if self.peek() != Some(':') {
            self.no_comparison(&name, begun)?;
        }
        let mut header = None;
        if name == "header." && self.peek() == Some('"') {
            header = Some(self.quoted()?);
            if self.peek() != Some(':') {
                return Err(self.wrong("a header's name must be followed by : and its value"));
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
                    return Err(self.wrong_at(at, "text: takes plain words; use expressions with message: and class:"));
                }
                if let Some(second) = items.get(1) {
                    return Err(self.wrong_at(second.at, "only one text is allowed: write text:a OR text:b"));
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
                    Err(self.wrong_at(begun, "write a header's name after a dot: header.NAME:VALUE"))
                }
                None => {
                    let meant = nearest::nearest(other, FIELDS).map(|meant| format!(", did you mean `{meant}`?"));
                    let quote =
                        format!("no field `{other}`{}", meant.unwrap_or_else(|| "; quote it to search for the words".to_owned()));
                    Err(self.wrong_at(begun, quote))
                }
            },
        }
    }

    /// Refuses `reason=foo`, which would be searched for as words, without a hit.
    fn no_comparison(&self, word: &str, at: usize) -> Result<(), FilterError> {
        let Some(end) = word.find(['=', '<', '>', '!', '~']) else { return Ok(()) };
        let (field, rest) = word.split_at(end);
        let field = field.to_ascii_lowercase();
        let is_header = field.strip_prefix("header.").is_some_and(|name| !name.is_empty());
        if !field.is_empty() && !is_header && !FIELDS.contains(&field.as_str()) {
            return Ok(());
        }
        if field.is_empty() && !rest.starts_with(['=', '<', '>']) {
            return Ok(());
        }
        let value = rest.trim_start_matches(['=', '!']);
        let not = if rest.starts_with('!') { "-" } else { "" };
        // `>=500` and `<=500` were meant as comparisons.
        let value = if rest.starts_with(['<', '>', '~']) { rest } else { value };
        Err(self.wrong_at(
            at,
            if field.is_empty() || value.is_empty() {
                "a field and its value are joined by a colon, without blanks: FIELD:VALUE; quote it to search for the words"
                    .to_owned()
            } else {
                format!("did you mean `{not}{field}:{value}`? quote it to search for the words")
            },
        ))
    }

    fn text_of(&self, text: &str, at: usize) -> Result<Term, FilterError> {
        let words: Vec<String> = words(text).map(std::borrow::Cow::into_owned).collect();
        if words.is_empty() {
            return Err(self.wrong_at(at, "this contains no word"));
        }
        Ok(Term::Text(words))
    }
}

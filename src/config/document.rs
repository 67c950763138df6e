//! The file as it was written: lines and values for messages, and what TOML itself refuses.

use toml::de::{DeArray, DeTable};
use toml::{Spanned, Table, Value};

use crate::config::mistake::{ConfigErrors, Mistake};
use crate::config::path::{Path, Segment};
use crate::config::properties;
use crate::config::redact;

/// A parsed file that still knows its lines.
#[derive(Debug)]
pub struct Document<'a> {
    text: &'a str,
    spans: Spanned<DeTable<'a>>,
    table: Table,
}

impl<'a> Document<'a> {
    /// Parses TOML.
    ///
    /// # Errors
    /// What TOML refuses, with its line. One mistake only: what follows a broken line is guesswork.
    pub fn parse(text: &'a str) -> Result<Self, ConfigErrors> {
        let refused = |error: toml::de::Error| ConfigErrors(vec![syntax_mistake(text, &error)]);
        let table = text.parse::<Table>().map_err(refused)?;
        let spans = DeTable::parse(text).map_err(refused)?;
        Ok(Self { text, spans, table })
    }

    /// The values, nothing substituted yet.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The line that holds this offset, counted from 1.
    pub fn line_at(&self, offset: usize) -> usize {
        line_of(self.text, offset)
    }

    /// Where the last part of the path stands that exists; `None` where none of it does.
    pub fn offset(&self, path: &Path) -> Option<usize> {
        let (mut table, mut array) = (Some(self.spans.get_ref()), None);
        let mut at = None;
        for segment in path.segments() {
            let found = match segment {
                Segment::Key(wanted) => table
                    .and_then(|t: &DeTable<'_>| t.iter().find(|(key, _)| key.get_ref() == wanted.as_str()))
                    .map(|(key, value)| (key.span().start, value.get_ref())),
                Segment::Index(index) => {
                    array.and_then(|a: &DeArray<'_>| a.get(*index)).map(|value| (value.span().start, value.get_ref()))
                }
            };
            let Some((offset, value)) = found else { break };
            at = Some(offset);
            (table, array) = (value.as_table(), value.as_array());
        }
        at
    }

    /// What stands at the path, for messages: as written, so that nothing substituted shows; `None` for secrets and tables.
    pub fn shown_value(&self, path: &Path) -> Option<String> {
        let shown = scalar(self.written(path)?)?;
        let dotted = path.dotted();
        // A misspelt `pasword` must not show either: of Kafka's properties only those that are known to be harmless do.
        let harmless =
            dotted.strip_prefix("kafka.").is_none_or(|name| properties::find(properties::without_kind(name)).is_some());
        Some(if harmless && !redact::is_secret(&dotted) { redact::hide_userinfo(&shown) } else { "(not shown)".to_owned() })
    }

    /// Whether the value at the path holds something that is substituted.
    pub fn is_substituted(&self, path: &Path) -> bool {
        self.written(path).and_then(Value::as_str).is_some_and(|text| text.contains("${"))
    }

    fn written(&self, path: &Path) -> Option<&Value> {
        let mut segments = path.segments().iter();
        let Some(Segment::Key(first)) = segments.next() else { return None };
        segments.try_fold(self.table.get(first)?, |value, segment| match segment {
            Segment::Key(key) => value.as_table()?.get(key),
            Segment::Index(index) => value.as_array()?.get(*index),
        })
    }
}

/// The kind of a value, as a person says it.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a string",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}

fn scalar(value: &Value) -> Option<String> {
    Some(match value {
        Value::String(text) => {
            let cut: String = text.chars().take(80).collect();
            if cut.len() < text.len() { format!("{cut:?}…") } else { format!("{cut:?}") }
        }
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Boolean(truth) => truth.to_string(),
        Value::Datetime(date) => date.to_string(),
        Value::Array(_) | Value::Table(_) => return None,
    })
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|b| **b == b'\n').count() + 1
}

fn syntax_mistake(text: &str, error: &toml::de::Error) -> Mistake {
    let mut what = error.message().trim().replace('\n', ", ");
    let mut line = None;
    if let Some(span) = error.span() {
        let offset = (0..=span.start.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let start = text[..offset].rfind('\n').map_or(0, |newline| newline + 1);
        let shown = text[start..].lines().next().unwrap_or("");
        let column = text[start..offset].chars().count();
        line = Some(line_of(text, offset));
        what = format!("column {}: {what}", column + 1);
        if may_be_shown(&text[..start], shown) {
            // Tabs as one space each, so that the caret stands where it should.
            what = format!("{what}\n| {}\n| {}^", shown.replace('\t', " "), " ".repeat(column));
        }
    }
    Mistake { path: "not valid TOML".to_owned(), line, value: None, what, hint: syntax_hint(error.message()) }
}

/// A line of a broken file is shown only where it can hold no secret: not inside a multi-line string, not behind a telling name.
fn may_be_shown(before: &str, line: &str) -> bool {
    let inside = before.matches("\"\"\"").count() % 2 == 1 || before.matches("'''").count() % 2 == 1;
    let section = before.lines().rev().find(|l| l.trim_start().starts_with('[')).unwrap_or("");
    let key = line.split('=').next().unwrap_or(line).replace(['"', '\'', ' '], "");
    let unknown_property = section.contains("kafka") && line.contains('=') && properties::find(&key).is_none();
    !inside && !unknown_property && !redact::is_secret(&key)
}

fn syntax_hint(message: &str) -> Option<String> {
    message.contains("duplicate").then(|| "a key or a table may stand in the file once; two ladders need two names".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_down_to_what_exists() {
        let document = Document::parse("[kafka]\n\n[ladder.a]\ntiers = [\n  \"5s\",\n  \"1m\",\n]\n").unwrap();
        let tiers = Path::of("ladder").keys(&["a", "tiers"]);
        let line = |path: &Path| document.offset(path).map(|offset| document.line_at(offset));
        assert_eq!(line(&tiers), Some(4));
        assert_eq!(line(&tiers.index(1)), Some(6));
        assert_eq!(line(&Path::of("ladder").keys(&["a", "group"])), Some(3));
        assert_eq!(line(&Path::of("health")), None);
    }

    #[test]
    fn a_line_that_may_hold_a_secret_is_not_shown() {
        for text in [
            "[kafka]\nsasl.password = \"hunter2\nb = 1",
            "[kafka]\npasword = \"hunter2\nb = 1",
            "[kafka]\nssl.key.pem = \"\"\"\nhunter2\n\\q\"\"\"",
        ] {
            let errors = Document::parse(text).unwrap_err();
            assert!(!errors.to_string().contains("hunter2"), "{errors}");
        }
    }

    #[test]
    fn a_syntax_error_is_shown_with_its_line() {
        let errors = Document::parse("[health]\nlisten = \"0.0.0.0:1\n").unwrap_err();
        assert_eq!(errors.0[0].line, Some(2));
        assert!(errors.to_string().contains("| listen = \"0.0.0.0:1"), "{errors}");
    }
}

//! The file's text: lines and values for messages, and TOML syntax errors.

use toml::de::{DeArray, DeTable};
use toml::{Spanned, Table, Value};

use crate::config::client_properties;
use crate::config::mistake::{ConfigErrors, Mistake, Mistakes};
use crate::config::path::{Path, Segment};
use crate::config::redact;

/// A parsed file with the positions of its lines.
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
    /// TOML syntax errors, with line. Only the first: what follows a broken line cannot be
    /// interpreted.
    pub fn parse(text: &'a str) -> Result<Self, ConfigErrors> {
        let refused = |error: toml::de::Error| ConfigErrors(vec![syntax_mistake(text, &error)]);
        let table = text.parse::<Table>().map_err(refused)?;
        let spans = DeTable::parse(text).map_err(refused)?;
        Ok(Self { text, spans, table })
    }

    /// The values before substitution.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The line of this offset, counted from 1.
    fn line_at(&self, offset: usize) -> usize {
        line_of(self.text, offset)
    }

    /// The offset of the longest existing prefix of the path; `None` if not even its first key
    /// exists.
    fn offset(&self, path: &Path) -> Option<usize> {
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

    /// The value at the path for messages: as written, so that no substituted text is shown; `None` for secrets and tables.
    fn shown_value(&self, path: &Path) -> Option<String> {
        let shown = scalar(self.written(path)?)?;
        let dotted = path.dotted();
        // A misspelt `pasword` must not be shown either: of the Kafka properties only known harmless ones are.
        let harmless = dotted
            .strip_prefix("kafka.")
            .is_none_or(|name| client_properties::find(client_properties::without_kind(name)).is_some());
        Some(if harmless && !redact::is_secret(&dotted) { redact::hide_in_urls(&shown) } else { "(not shown)".to_owned() })
    }

    /// Whether the value at the path contains a substitution.
    pub fn is_substituted(&self, path: &Path) -> bool {
        self.written(path).and_then(Value::as_str).is_some_and(|text| text.contains("${"))
    }

    /// The mistakes with their lines and values, in the order of the file.
    pub(super) fn errors(&self, mistakes: Mistakes) -> ConfigErrors {
        let notes = mistakes.into_notes();
        let mut placed: Vec<_> = notes.into_iter().map(|mistake| (self.offset(&mistake.0), mistake)).collect();
        // Missing keys come first, since others may follow from them.
        placed.sort_by_key(|(offset, _)| *offset);
        let mistakes = placed.into_iter().map(|(offset, (path, what, hint))| Mistake {
            line: offset.map(|offset| self.line_at(offset)),
            value: self.shown_value(&path),
            path: path.to_string(),
            what,
            hint,
        });
        ConfigErrors(mistakes.collect())
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

/// The type of a value, in words.
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
            // Each tab becomes one space, so that the caret is in the right column.
            what = format!("{what}\n| {}\n| {}^", shown.replace('\t', " "), " ".repeat(column));
        }
    }
    Mistake { path: "not valid TOML".to_owned(), line, value: None, what, hint: syntax_hint(error.message()) }
}

/// A line of a broken file is shown only if it cannot contain a secret: not within a multi-line string, without any
/// secret-looking name (a line may hold several keys, in an inline table or after a lost line break), and of the Kafka properties
/// only a known one.
fn may_be_shown(before: &str, line: &str) -> bool {
    let inside = before.matches("\"\"\"").count() % 2 == 1 || before.matches("'''").count() % 2 == 1;
    let section = before.lines().rev().find(|l| l.trim_start().starts_with('[')).unwrap_or("");
    let is_header = line.trim_start().starts_with('[') && !line.contains('=');
    let is_of_kafka = section.contains("kafka") || line.contains("kafka");
    let names_secret = |text: &str| text.split(|c: char| !c.is_alphanumeric() && !"._-".contains(c)).any(redact::is_secret);
    let is_known = |line: &str| {
        let keys: Vec<&str> = line.split('=').collect();
        keys.len() == 2 && client_properties::find(&keys[0].replace(['"', '\'', ' ', '\t'], "")).is_some()
    };
    !inside
        && !names_secret(section)
        && !names_secret(line)
        && (is_header || !is_of_kafka || is_known(line))
        && redact::hide_in_urls(line) == line
}

fn syntax_hint(message: &str) -> Option<String> {
    message.contains("duplicate").then(|| "a key or a table may appear only once; two ladders need two names".to_owned())
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
            // Several keys on a line.
            "[kafka]\nsasl = { username = \"me\", password = \"hunter2\"",
            "[kafka]\nsasl = { username = \"me\", pasword = \"hunter2\"",
            "kafka = { bootstrap.servers = \"b:1\", sasl.pasword = \"hunter2\"",
            "[kafka]\nbootstrap.servers = \"b:1\" sasl.pasword = \"hunter2\"",
            "[schema_registry]\nusername = \"me\" password = \"hunter2\"",
            "schema_registry = { url = \"http://r\", username = \"me\", password = \"hunter2\"",
            "[kafka.sasl]\nusername = \"me\", pasword = \"hunter2\"",
            // Not valid TOML.
            "[kafka]\nsasl.password: hunter2",
            "[kafka]\nsasl.pasword: hunter2",
            "[ladder.a.handler]\nheaders = [\n  \"Authorization: Bearer hunter2\n]",
            "[ladder.a.handler]\nheaders = { X-Api-Key = \"hunter2\"",
            // In a URL.
            "[ladder.a.handler]\nurl = \"http://me:hunter2@host/",
            "[ladder.a.handler]\nurl = \"http://host/?t=hunter2",
            "[ladder.a.handler]\nurl = http://host/?hunter2",
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

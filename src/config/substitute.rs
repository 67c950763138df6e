//! `${VAR}`, `${VAR:-default}` and `${file:PATH}` in any string; `$$` is a dollar.

use std::io;
use std::path::Path as FilePath;

use toml::{Table, Value};

use crate::config::mistake::Mistakes;
use crate::config::path::Path;
use crate::config::redact;

/// The sources of substituted values.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// Looks up an environment variable.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Reads a file.
    pub read_file: &'a dyn Fn(&FilePath) -> io::Result<String>,
}

/// Why a string could not be substituted, and what to do.
#[derive(Debug)]
struct Refusal {
    /// The reference as written.
    quoted: Option<String>,
    what: String,
    hint: String,
}

fn refusal(what: impl Into<String>, hint: impl Into<String>) -> Refusal {
    Refusal { quoted: None, what: what.into(), hint: hint.into() }
}

/// Substitutes in every string of the table; strings that cannot be are recorded and removed.
pub fn fill_in(table: &mut Table, at: &Path, sources: Sources<'_>, mistakes: &mut Mistakes) {
    table.retain(|key, value| fill_in_value(value, &at.key(key), sources, mistakes));
}

fn fill_in_value(value: &mut Value, at: &Path, sources: Sources<'_>, mistakes: &mut Mistakes) -> bool {
    match value {
        Value::String(text) if text.contains('$') => match expand(text, sources) {
            Ok(filled) => *text = filled,
            Err(Refusal { quoted, what, hint }) => {
                // A secret may contain something that looks like a reference.
                let quoted = quoted.filter(|_| !redact::is_secret(&at.dotted()));
                let what = quoted.map_or_else(|| what.clone(), |quoted| format!("`{quoted}`: {what}"));
                mistakes.note(at, what, Some(hint));
                return false;
            }
        },
        Value::Array(items) => {
            for (i, item) in items.iter_mut().enumerate() {
                if !fill_in_value(item, &at.index(i), sources, mistakes) {
                    // Not removed: the indexes of the others must not change. It is refused again at the same path, which is not
                    // reported twice.
                    *item = Value::Boolean(false);
                }
            }
        }
        Value::Table(table) => fill_in(table, at, sources, mistakes),
        _ => {}
    }
    true
}

/// Substitutes in one string.
fn expand(text: &str, sources: Sources<'_>) -> Result<String, Refusal> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let Some(end) = after.find('}') else {
                return Err(refusal("`${` is not closed", "close it with `}`, or write `$$` for a dollar"));
            };
            out.push_str(&resolve(&after[..end], sources)?);
            rest = &after[end + 1..];
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn resolve(inside: &str, sources: Sources<'_>) -> Result<String, Refusal> {
    if let Some(path) = inside.strip_prefix("file:") {
        let text = (sources.read_file)(FilePath::new(path)).map_err(|error| {
            refusal(
                format!("file `{path}` cannot be read: {error}"),
                "relative paths are resolved against the configuration file's directory",
            )
        })?;
        // Editors and `echo` end files with a newline that is not part of the password.
        let text = text.strip_suffix('\n').map_or(text.as_str(), |t| t.strip_suffix('\r').unwrap_or(t));
        return Ok(text.to_owned());
    }
    let (name, default) = inside.split_once(":-").map_or((inside, None), |(name, default)| (name, Some(default)));
    let is_name = name.bytes().enumerate().all(|(i, b)| b == b'_' || b.is_ascii_alphabetic() || i > 0 && b.is_ascii_digit());
    if name.is_empty() || !is_name {
        let remedy = "write `${NAME}`, `${NAME:-default}` or `${file:PATH}`, and `$$` for a dollar";
        return Err(Refusal { quoted: Some(format!("${{{inside}}}")), ..refusal("is not an environment variable name", remedy) });
    }
    match ((sources.env)(name), default) {
        (Some(value), None) => Ok(value),
        // As in a shell, `:-` also replaces an empty value.
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(refusal(
            format!("environment variable `{name}` is not set"),
            format!("set it, or give a default: `${{{name}:-default}}`"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn expanded(text: &str) -> Result<String, Refusal> {
        let env = |name: &str| match name {
            "HOST" => Some("kafka-1".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let read_file = |path: &FilePath| match path.to_str() {
            Some("/run/pw") => Ok("pa$$ ${HOST}\r\n".to_owned()),
            _ => Err(io::Error::from(io::ErrorKind::NotFound)),
        };
        expand(text, Sources { env: &env, read_file: &read_file })
    }

    #[test]
    fn variables_defaults_files_and_dollars() {
        for (text, filled) in [
            ("${HOST}:9092", "kafka-1:9092"),
            ("${PORT:-9092}", "9092"),
            ("${PORT:-}", ""),
            ("${EMPTY:-x}", "x"),
            ("${EMPTY}", ""),
            ("a$$b$c$", "a$b$c$"),
            ("$${HOST}", "${HOST}"),
            ("${PORT:-http://a:1}", "http://a:1"),
            // Substituted text is not substituted again: a password may contain anything.
            ("${file:/run/pw}", "pa$$ ${HOST}"),
        ] {
            assert_eq!(expanded(text).unwrap(), filled, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_filled_in_is_told() {
        for (text, what) in [
            ("${PORT}", "`PORT` is not set"),
            ("${HOST", "not closed"),
            ("${}", "is not an environment variable name"),
            ("${1A}", "is not an environment variable name"),
            ("${file:/none}", "cannot be read"),
        ] {
            assert!(expanded(text).unwrap_err().what.contains(what), "{text}");
        }
    }

    proptest! {
        #[test]
        fn doubled_dollars_carry_any_text(text in ".*") {
            prop_assert_eq!(expanded(&text.replace('$', "$$")).unwrap(), text);
        }

        #[test]
        fn nothing_panics(text in "[${}:a-zA-Z-]*") {
            let _ = expanded(&text);
        }
    }
}

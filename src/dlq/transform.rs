//! A jq program that changes the values of letters.
//!
//! A program gets the value as `.` and the letter's metadata as `$letter`, and must return exactly one value: to drop a record, use
//! `dlq discard`, not `empty`. It has no access to files or the environment.
//!
//! jaq keeps numbers as written as long as nothing is computed with them, so an amount of `1.10` or an id of twenty digits is unchanged;
//! only `-0` becomes `0`. Integers are computed exactly, all other numbers as 64-bit floating point. If an object has a duplicate key,
//! only the last value is kept.
//!
//! jaq reads and writes more than JSON: comments, `NaN`, bytes, keys that are numbers, strings that are not UTF-8, in which it would
//! replace invalid characters. None of that is accepted as input or output.
//!
//! There is no limit on a program's run time: jaq cannot be stopped after a number of steps. An endless loop hangs the command, and an
//! endless recursion ends it with a stack overflow. A redrive that ends like that loses nothing, since each letter and its state record
//! are sent in one transaction.

use jaq_core::data::JustLut;
use jaq_core::load::{Arena, File, Loader};
use jaq_core::{Compiler, Ctx, Filter, Vars, unwrap_valr};
use jaq_json::write::{Pp, write};
use jaq_json::{Val, read};
use serde::de::IgnoredAny;
use serde_json::Value;
use thiserror::Error;

use crate::dlq::payload::json_text::BYTE_ORDER_MARK;

/// jaq's own definitions that are removed: they can end the process, read the environment, or write to the terminal.
const LEFT_OUT: [&str; 4] = ["halt", "env", "debug_empty", "stderr_empty"];

/// Maximum nesting of arrays and objects. jaq recurses for each level, and the producer of the record must not control how deep.
/// `serde_json` has the same limit.
const DEEPEST: usize = 128;

/// Maximum number of characters quoted in an error.
const QUOTED: usize = 20;

/// A compiled program.
pub struct Transform {
    filter: Filter<JustLut<Val>>,
    program: String,
}

/// Why a value cannot be changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TransformError {
    /// The program does not compile.
    #[error("jq program `{program}`: {reason}")]
    Program {
        /// The program.
        program: String,
        /// Position and reason.
        reason: String,
    },
    /// The value is null.
    #[error("its value is null, not JSON")]
    Null,
    /// The value is not JSON.
    #[error("its value is not JSON: {0}")]
    NoJson(String),
    /// The value is nested too deeply.
    #[error("its value is nested more than {DEEPEST} deep")]
    TooDeep,
    /// The program failed on this value.
    #[error("the program failed: {0}")]
    Failed(String),
    /// The program returned no value.
    #[error("the program returned no value; to exclude a letter, use the filter")]
    Nothing,
    /// The program returned several values.
    #[error("the program returned more than one value")]
    Several,
    /// The returned value cannot be written as JSON.
    #[error("the program returned something that is not JSON: {0}")]
    NoJsonGiven(String),
}

impl Transform {
    /// Compiles a program.
    ///
    /// # Errors
    /// It is not valid jq, or uses something that is not available.
    pub fn compile(program: &str) -> Result<Self, TransformError> {
        let wrong = |reason: String| TransformError::Program { program: program.to_owned(), reason };
        let arena = Arena::default();
        let defs = jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs());
        // Definitions that depend on removed ones are removed too.
        let defs = defs.filter(|def| !["halt_error", "halt", "env", "debug", "stderr", "input_line_number"].contains(&def.name));
        let modules = Loader::new(defs).load(&arena, File { code: program, path: () }).map_err(|errors| {
            use jaq_core::load::Error as LoadError;
            let mut at = None;
            for (_, error) in &errors {
                at = match error {
                    LoadError::Lex(all) => all.first().map(|(expected, rest)| (expected.as_str().to_owned(), *rest)),
                    LoadError::Parse(all) => all.first().map(|(expected, rest)| (expected.as_str().to_owned(), *rest)),
                    LoadError::Io(_) => None,
                };
            }
            wrong(at.map_or_else(
                || "import and include are not supported: write one self-contained program".to_owned(),
                |(expected, rest)| format!("{expected} expected at {}", place(program, rest)),
            ))
        })?;
        let funs = jaq_core::funs::<JustLut<Val>>().chain(jaq_std::funs()).chain(jaq_json::funs());
        let funs = funs.filter(|(name, ..)| !LEFT_OUT.contains(name));
        let filter = Compiler::default().with_funs(funs).with_global_vars(["$letter"]).compile(modules).map_err(|errors| {
            let unknown = errors.iter().flat_map(|(_, all)| all).map(|(name, kind)| {
                let column = column_of(program, name).map_or_else(String::new, |column| format!(" at column {column}"));
                format!("no {} `{name}`{column}", kind.as_str())
            });
            wrong(unknown.collect::<Vec<_>>().join(", "))
        })?;
        Ok(Self { filter, program: program.to_owned() })
    }

    /// The program.
    #[must_use]
    pub fn program(&self) -> &str {
        &self.program
    }

    /// Changes a value. An unchanged one keeps its exact bytes; the order of keys does not count.
    ///
    /// # Errors
    /// The value is not JSON or nested too deeply, or the program does not return exactly one JSON
    /// value.
    pub fn apply(&self, value: Option<&[u8]>, letter: &Value) -> Result<Vec<u8>, TransformError> {
        let value = value.ok_or(TransformError::Null)?;
        // A byte order mark is not part of the JSON after it.
        let json = value.strip_prefix(BYTE_ORDER_MARK.encode_utf8(&mut [0; 3]).as_bytes()).unwrap_or(value);
        check(json)?;
        let input = read::parse_single(json).map_err(|error| TransformError::NoJson(error.to_string()))?;
        let letter =
            read::parse_single(letter.to_string().as_bytes()).map_err(|error| TransformError::Failed(error.to_string()))?;
        let context = Ctx::<JustLut<Val>>::new(&self.filter.lut, Vars::new([letter]));
        let mut outputs = self.filter.id.run((context, input.clone())).map(unwrap_valr);
        let output = outputs.next().ok_or(TransformError::Nothing)?.map_err(|error| TransformError::Failed(error.to_string()))?;
        if outputs.next().is_some() {
            return Err(TransformError::Several);
        }
        let mut after = Vec::new();
        write(&mut after, &Pp::default(), 0, &output).map_err(|error| TransformError::Failed(error.to_string()))?;
        check_given(&after)?;
        Ok(if is_same(&input, &output) { value.to_vec() } else { after })
    }
}

/// Checks that a value is JSON and not nested too deeply.
fn check(value: &[u8]) -> Result<(), TransformError> {
    let no_json = |error: &dyn std::fmt::Display| TransformError::NoJson(error.to_string());
    let text = std::str::from_utf8(value).map_err(|error| no_json(&error))?;
    serde_json::from_str::<IgnoredAny>(text).map_err(|error| no_json(&error))?;
    if depth(text) > DEEPEST { Err(TransformError::TooDeep) } else { Ok(()) }
}

/// The nesting depth of JSON.
fn depth(json: &str) -> usize {
    let (mut now, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                now += 1;
                deepest = deepest.max(now);
            }
            b']' | b'}' if !in_string => now = now.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

fn check_given(value: &[u8]) -> Result<(), TransformError> {
    let text = std::str::from_utf8(value).map_err(|_| TransformError::NoJsonGiven("a string that is not UTF-8".to_owned()))?;
    serde_json::from_str::<IgnoredAny>(text).map(|_| ()).map_err(|error| {
        // The error is in the only line; its columns are bytes.
        let rest = text.get(error.column().saturating_sub(1)..).unwrap_or(text);
        TransformError::NoJsonGiven(format!("{error}, `{}`", rest.chars().take(QUOTED).collect::<String>()))
    })
}

/// Whether two values are equal. jaq's own comparison ignores differences after the 17th digit of a number.
fn is_same(a: &Val, b: &Val) -> bool {
    match (a, b) {
        (Val::Arr(a), Val::Arr(b)) => a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| is_same(a, b)),
        (Val::Obj(a), Val::Obj(b)) => a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| is_same(a, b))),
        (a, b) => a.to_string() == b.to_string(),
    }
}

/// The column of a piece of the program, in characters from 1; `None` for other text.
fn column_of(program: &str, piece: &str) -> Option<usize> {
    let at = piece.as_ptr().addr().checked_sub(program.as_ptr().addr())?;
    program.get(..at).filter(|_| at + piece.len() <= program.len()).map(|before| before.chars().count() + 1)
}

/// The position where the rest of a program begins.
fn place(program: &str, rest: &str) -> String {
    let at = program.len().saturating_sub(rest.len());
    let column = program.get(..at).map_or(1, |before| before.chars().count() + 1);
    if rest.is_empty() {
        "its end".to_owned()
    } else {
        format!("column {column}, `{}`", rest.chars().take(QUOTED).collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(program: &str, value: &str) -> Result<String, TransformError> {
        let letter = serde_json::json!({ "reason": "rejected", "key": "42" });
        let out = Transform::compile(program)?.apply(Some(value.as_bytes()), &letter)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_program_changes_values() {
        assert_eq!(apply(".amount |= tonumber", r#"{"id":7,"amount":"12"}"#).unwrap(), r#"{"id":7,"amount":12}"#);
        assert_eq!(apply(".why = $letter.reason", "{}").unwrap(), r#"{"why":"rejected"}"#);
        assert_eq!(apply(r#".name |= sub("x"; "y")"#, r#"{"name":"axb"}"#).unwrap(), r#"{"name":"ayb"}"#);
    }

    #[test]
    fn what_is_not_changed_stays_byte_for_byte_and_numbers_stay_as_written() {
        let odd = "{ \"b\" : 1.10,\n \"a\": 12345678901234567890, \"c\": 1e400 }";
        assert_eq!(apply(".", odd).unwrap(), odd);
        assert_eq!(apply("if .b then . else .x = 1 end", odd).unwrap(), odd);
        let changed = apply(".d = 1", odd).unwrap();
        for part in ["\"b\":1.10", "12345678901234567890", "1e400"] {
            assert!(changed.contains(part), "{changed}");
        }
        assert_eq!(apply(".id += 1", r#"{"id":12345678901234567890}"#).unwrap(), r#"{"id":12345678901234567891}"#);
        assert_eq!(
            apply(".b = $letter.key", r#"{"a":0.12345678901234567890}"#).unwrap(),
            r#"{"a":0.12345678901234567890,"b":"42"}"#
        );
        assert_eq!(apply("{c, b, a}", odd).unwrap(), odd);
        assert_eq!(
            apply(".a = 0.1234567890123456788", r#"{"a": 0.1234567890123456789}"#).unwrap(),
            r#"{"a":0.1234567890123456788}"#
        );
    }

    #[test]
    fn only_json_is_let_in() {
        for value in [
            "",
            "NaN",
            "{\"a\":NaN}",
            "{\"a\":-Infinity}",
            "{1:2}",
            "# no\n{}",
            "{\"a\":b\"x\"}",
            "{\"a\":01}",
            "{\"a\":+1}",
            "{} {}",
            "{\"a\":\"\\ud800\"}",
        ] {
            let told = apply(".b = 1", value);
            assert!(matches!(told, Err(TransformError::NoJson(_))), "{value}: {told:?}");
        }
        let no_text = b"{\"a\":\"\xff\"}";
        let told = Transform::compile(".b = 1").unwrap().apply(Some(no_text), &Value::Null).unwrap_err().to_string();
        assert!(told.starts_with("its value is not JSON: invalid utf-8"), "{told}");
    }

    #[test]
    fn only_json_is_let_out() {
        for program in [
            ".x = nan",
            ".x = infinite",
            ".x = (\"a\" | tobytes)",
            ".x = (\"é\" | tobytes | .[0:1] | tostring)",
            "with_entries(.key = 3)",
            ".x = (\"+1.5\" | tonumber)",
        ] {
            let told = apply(program, r#"{"a":1}"#);
            assert!(matches!(told, Err(TransformError::NoJsonGiven(_))), "{program}: {told:?}");
        }
        let told = apply(".x = nan", "{}").unwrap_err().to_string();
        assert!(told.contains("NaN}"), "{told}");
    }

    #[test]
    fn a_value_as_deep_as_a_stranger_likes_ends_nothing() {
        let deep = |depth: usize| "[".repeat(depth) + "\"[{\\\"[\"" + &"]".repeat(depth);
        for program in [".", "walk(.)", "[..] | length", "tojson | fromjson", "[paths] | length"] {
            assert!(apply(program, &deep(DEEPEST)).is_ok(), "{program}");
            assert_eq!(apply(program, &deep(DEEPEST + 1)), Err(TransformError::TooDeep));
            assert_eq!(apply(program, &deep(1_000_000)), Err(TransformError::TooDeep));
        }
        assert!(matches!(apply(".", &"[".repeat(1_000_000)), Err(TransformError::NoJson(_))));
    }

    #[test]
    fn mistakes_are_told() {
        assert_eq!(apply("empty", "{}"), Err(TransformError::Nothing));
        assert_eq!(apply("1, 2", "{}"), Err(TransformError::Several));
        assert!(matches!(apply(".", "{"), Err(TransformError::NoJson(_))));
        assert!(matches!(apply(".a + 1", r#"{"a":{}}"#), Err(TransformError::Failed(_))));
        assert_eq!(Transform::compile(".").unwrap().apply(None, &Value::Null), Err(TransformError::Null));
        let told = |program: &str| Transform::compile(program).err().unwrap().to_string();
        assert!(told("\"ü\" | foo | $x").ends_with("no filter `foo` at column 7, no variable `$x` at column 13"));
        assert!(told("include \"a\"; .").contains("self-contained"), "{}", told("include \"a\"; ."));
        assert!(told(".a = (1").contains("expected at"), "{}", told(".a = (1"));
    }

    #[test]
    fn a_program_sees_neither_the_environment_nor_files_and_cannot_end_the_process() {
        for program in [
            "env",
            "$ENV",
            "input",
            "halt",
            "import \"a\" as a; .",
            "\"x\" | debug",
            "stderr",
            "$__prog_args",
            "inputs",
            "input_filename",
        ] {
            assert!(Transform::compile(program).is_err(), "{program}");
        }
    }
}

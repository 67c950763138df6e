//! A jq program over the values of letters.
//!
//! A program gets the value as `.` and what is known of the letter as `$letter`, and must give back exactly one value: to drop a record
//! is `dlq discard`, not `empty`. It sees neither files nor the environment.
//!
//! jaq keeps numbers as they are written as long as nothing is computed with them, so an amount of `1.10` or an id of twenty digits
//! comes out as it went in; only `-0` becomes `0`. Whole numbers are computed with exactly, all others as 64-bit floating point. Of a name
//! that stands twice in an object the last value counts, and only that is written.
//!
//! jaq reads and writes more than JSON: comments, `NaN`, bytes, names that are numbers, strings that are no UTF-8, of which it would
//! replace what it cannot show. None of that is let in or out.
//!
//! There is no bound on what a program does: jaq cannot be told to stop after so many steps. One that runs for ever hangs the command, and
//! one that calls itself for ever ends it, as the stack does. A redrive that ends so loses nothing, since what was sent and that it was
//! sent are one transaction.

use jaq_core::data::JustLut;
use jaq_core::load::{Arena, File, Loader};
use jaq_core::{Compiler, Ctx, Filter, Vars, unwrap_valr};
use jaq_json::write::{Pp, write};
use jaq_json::{Val, read};
use serde::de::IgnoredAny;
use serde_json::Value;
use thiserror::Error;

/// What of jaq's own would let a program out: it can end the process, read the environment, or write to the terminal.
const LEFT_OUT: [&str; 4] = ["halt", "env", "debug_empty", "stderr_empty"];

/// Arrays and objects within one another. jaq calls itself for each, and whoever produced the record must not choose how often. It is
/// what `serde_json` bears too.
const DEEPEST: usize = 128;

/// What is quoted of a mistake, in characters.
const QUOTED: usize = 20;

/// A compiled program.
pub struct Transform {
    filter: Filter<JustLut<Val>>,
    program: String,
}

/// Why a value cannot be changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TransformError {
    /// The program cannot be read.
    #[error("jq program `{program}`: {reason}")]
    Program {
        /// The program.
        program: String,
        /// Where and why.
        reason: String,
    },
    /// The value is null.
    #[error("its value is null, which is no JSON")]
    Null,
    /// The value is no JSON.
    #[error("its value is no JSON: {0}")]
    NoJson(String),
    /// The value is too deep.
    #[error("its value is nested more than {DEEPEST} deep")]
    TooDeep,
    /// The program failed on this value.
    #[error("the program failed: {0}")]
    Failed(String),
    /// The program gave nothing back.
    #[error("the program gave nothing back; to leave a letter out, use the filter")]
    Nothing,
    /// It gave several values back.
    #[error("the program gave more than one value back")]
    Several,
    /// What it gave back cannot be written as JSON.
    #[error("the program gave back what is no JSON: {0}")]
    NoJsonGiven(String),
}

impl Transform {
    /// Reads a program.
    ///
    /// # Errors
    /// When it is no jq, or uses what there is not.
    pub fn compile(program: &str) -> Result<Self, TransformError> {
        let wrong = |reason: String| TransformError::Program { program: program.to_owned(), reason };
        let arena = Arena::default();
        let defs = jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs());
        // Definitions that rest on what is left out go with it.
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
                || "import and include are not to be had: a program is all in one".to_owned(),
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

    /// Changes a value. One that comes out as it was stays as it is, byte for byte; the order of names does not count.
    ///
    /// # Errors
    /// When the value is no JSON or too deep, or the program does not give back one value that is JSON.
    pub fn apply(&self, value: Option<&[u8]>, letter: &Value) -> Result<Vec<u8>, TransformError> {
        let value = value.ok_or(TransformError::Null)?;
        check(value)?;
        let input = read::parse_single(value).map_err(|error| TransformError::NoJson(error.to_string()))?;
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

/// Whether a value is JSON and nothing more, and not too deep.
fn check(value: &[u8]) -> Result<(), TransformError> {
    let no_json = |error: &dyn std::fmt::Display| TransformError::NoJson(error.to_string());
    let text = std::str::from_utf8(value).map_err(|error| no_json(&error))?;
    serde_json::from_str::<IgnoredAny>(text).map_err(|error| no_json(&error))?;
    if depth(text) > DEEPEST { Err(TransformError::TooDeep) } else { Ok(()) }
}

/// How deep JSON is.
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
    let text = std::str::from_utf8(value).map_err(|_| TransformError::NoJsonGiven("a string that is no UTF-8".to_owned()))?;
    serde_json::from_str::<IgnoredAny>(text).map(|_| ()).map_err(|error| {
        // It has one line, and columns are bytes.
        let rest = text.get(error.column().saturating_sub(1)..).unwrap_or(text);
        TransformError::NoJsonGiven(format!("{error}, `{}`", rest.chars().take(QUOTED).collect::<String>()))
    })
}

/// Whether nothing was changed. jaq's own comparison would take numbers for equal that differ behind the 17th digit.
fn is_same(a: &Val, b: &Val) -> bool {
    match (a, b) {
        (Val::Arr(a), Val::Arr(b)) => a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| is_same(a, b)),
        (Val::Obj(a), Val::Obj(b)) => a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| is_same(a, b))),
        (a, b) => a.to_string() == b.to_string(),
    }
}

/// Where in a program a piece of it stands, in characters from 1; none for a piece of something else.
fn column_of(program: &str, piece: &str) -> Option<usize> {
    let at = piece.as_ptr().addr().checked_sub(program.as_ptr().addr())?;
    program.get(..at).filter(|_| at + piece.len() <= program.len()).map(|before| before.chars().count() + 1)
}

/// Where the rest of a program begins.
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
        assert!(told.starts_with("its value is no JSON: invalid utf-8"), "{told}");
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
        assert!(told("include \"a\"; .").contains("all in one"), "{}", told("include \"a\"; ."));
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

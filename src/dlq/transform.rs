//! A jq program over the values of letters.
//!
//! A program gets the value as `.` and what is known of the letter as `$letter`, and must give back exactly one value: to drop a record
//! is `dlq discard`, not `empty`. It sees neither files nor the environment. jaq keeps numbers as they are written as long as nothing is
//! computed with them, so an amount of `1.10` or an id of twenty digits comes out as it went in.

use jaq_core::data::JustLut;
use jaq_core::load::{Arena, File, Loader};
use jaq_core::{Compiler, Ctx, Filter, Vars, unwrap_valr};
use jaq_json::{Val, read};
use serde_json::Value;
use thiserror::Error;

/// What of jaq's own would let a program out: it can end the process, read the environment, or write to the terminal.
const LEFT_OUT: [&str; 4] = ["halt", "env", "debug_empty", "stderr_empty"];

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
    /// The program failed on this value.
    #[error("the program failed: {0}")]
    Failed(String),
    /// The program gave nothing back.
    #[error("the program gave nothing back; to leave a letter out, use the filter")]
    Nothing,
    /// It gave several values back.
    #[error("the program gave more than one value back")]
    Several,
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
                    LoadError::Io(_) => Some(("no other file".to_owned(), "")),
                };
            }
            wrong(at.map_or_else(
                || "cannot be read".to_owned(),
                |(expected, rest)| format!("{expected} expected at {}", place(program, rest)),
            ))
        })?;
        let funs = jaq_core::funs::<JustLut<Val>>().chain(jaq_std::funs()).chain(jaq_json::funs());
        let funs = funs.filter(|(name, ..)| !LEFT_OUT.contains(name));
        let filter = Compiler::default().with_funs(funs).with_global_vars(["$letter"]).compile(modules).map_err(|errors| {
            let unknown = errors.iter().flat_map(|(_, all)| all).map(|(name, kind)| format!("no {} `{name}`", kind.as_str()));
            wrong(unknown.collect::<Vec<_>>().join(", "))
        })?;
        Ok(Self { filter, program: program.to_owned() })
    }

    /// The program.
    #[must_use]
    pub fn program(&self) -> &str {
        &self.program
    }

    /// Changes a value. One that comes out as it was stays as it is, byte for byte.
    ///
    /// # Errors
    /// When the value is no JSON, or the program does not give back one value.
    pub fn apply(&self, value: Option<&[u8]>, letter: &Value) -> Result<Vec<u8>, TransformError> {
        let value = value.ok_or(TransformError::Null)?;
        let input = read::parse_single(value).map_err(|error| TransformError::NoJson(error.to_string()))?;
        let letter =
            read::parse_single(letter.to_string().as_bytes()).map_err(|error| TransformError::Failed(error.to_string()))?;
        let context = Ctx::<JustLut<Val>>::new(&self.filter.lut, Vars::new([letter]));
        let mut outputs = self.filter.id.run((context, input.clone())).map(unwrap_valr);
        let output = outputs.next().ok_or(TransformError::Nothing)?.map_err(|error| TransformError::Failed(error.to_string()))?;
        if outputs.next().is_some() {
            return Err(TransformError::Several);
        }
        let before = input.to_string();
        let after = output.to_string();
        Ok(if before == after { value.to_vec() } else { after.into_bytes() })
    }
}

/// Where the rest of a program begins.
fn place(program: &str, rest: &str) -> String {
    let at = program.len().saturating_sub(rest.len());
    let column = program.get(..at).map_or(1, |before| before.chars().count() + 1);
    if rest.is_empty() {
        "its end".to_owned()
    } else {
        format!("column {column}, `{}`", rest.chars().take(20).collect::<String>())
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
    }

    #[test]
    fn mistakes_are_told() {
        assert_eq!(apply("empty", "{}"), Err(TransformError::Nothing));
        assert_eq!(apply("1, 2", "{}"), Err(TransformError::Several));
        assert!(matches!(apply(".", "{"), Err(TransformError::NoJson(_))));
        assert!(matches!(apply(".a + 1", r#"{"a":{}}"#), Err(TransformError::Failed(_))));
        assert_eq!(Transform::compile(".").unwrap().apply(None, &Value::Null), Err(TransformError::Null));
        let told = |program: &str| Transform::compile(program).err().unwrap().to_string();
        assert!(told(".a | foo").contains("no filter `foo`"), "{}", told(".a | foo"));
        assert!(told(".a = (1").contains("expected at"), "{}", told(".a = (1"));
    }

    #[test]
    fn a_program_sees_neither_the_environment_nor_files_and_cannot_end_the_process() {
        for program in ["env", "$ENV", "input", "halt", "import \"a\" as a; .", "\"x\" | debug", "stderr", "$__prog_args"] {
            assert!(Transform::compile(program).is_err(), "{program}");
        }
    }
}

//! The only place that prints. stdout carries data: written whole, and a closed pipe ends it quietly. stderr carries messages: a
//! command does its work whether they can be written or not.
//!
//! Everything printed here is made harmless for a terminal (see [`crate::core::harmless`]), whoever wrote it: lines of text stay lines,
//! JSON stays the same JSON. Only [`print_bytes`] prints its input unchanged, for users who asked for a record's bytes.
#![expect(clippy::disallowed_methods, reason = "all other code prints through this module")]

use std::io::{self, BufWriter, IsTerminal, Write};

use serde::Serialize;

use crate::core::harmless;
use crate::telemetry::log_writer;

/// Prints a line to stderr, formatted as by `format!`.
macro_rules! tell {
    ($($text:tt)*) => {
        $crate::cli::output::tell_line(&format!($($text)*))
    };
}
pub(super) use tell;

/// Printing to stdout failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to stdout")]
pub struct PrintError(#[source] pub io::Error);

/// Prints text. A closed pipe (`kladder check | head`) is no failure.
///
/// # Errors
/// When stdout cannot be written to for any other reason.
pub fn print(text: &str) -> Result<(), PrintError> {
    print_bytes(harmless::lines(text).as_bytes())
}

/// Prints text with kladder's own colour sequences.
///
/// # Errors
/// As [`print()`].
pub fn print_coloured(text: &str) -> Result<(), PrintError> {
    print_bytes(harmless::coloured_lines(text).as_bytes())
}

/// Prints an indented JSON document.
///
/// # Errors
/// As [`print()`].
pub fn print_json(document: &impl Serialize) -> Result<(), PrintError> {
    let text = serde_json::to_string_pretty(document).map_err(|error| PrintError(error.into()))?;
    print_bytes(format!("{}\n", harmless::json(&text)).as_bytes())
}

/// Prints JSON documents, one per line.
///
/// # Errors
/// As [`print()`].
pub fn print_json_lines<T: Serialize>(documents: impl IntoIterator<Item = T>) -> Result<(), PrintError> {
    let mut text = String::new();
    for document in documents {
        text += &serde_json::to_string(&document).map_err(|error| PrintError(error.into()))?;
        text.push('\n');
    }
    print_bytes(harmless::json(&text).as_bytes())
}

/// Prints bytes unchanged.
///
/// # Errors
/// As [`print()`].
pub fn print_bytes(bytes: &[u8]) -> Result<(), PrintError> {
    write(bytes).map(drop)
}

/// Prints one of many lines; returns whether the pipe is still open.
///
/// # Errors
/// As [`print()`].
pub fn print_one_more(text: &str) -> Result<bool, PrintError> {
    write(harmless::lines(text).as_bytes())
}

/// Returns whether the pipe is still open.
fn write(bytes: &[u8]) -> Result<bool, PrintError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(PrintError(error)),
    }
}

/// stdout for output in pieces; the caller handles a closed pipe.
pub fn stdout() -> BufWriter<io::Stdout> {
    BufWriter::new(io::stdout())
}

/// Prints a message to stderr. Errors are ignored: it may be closed.
///
/// Further lines are indented, so that text from others cannot pass for one of kladder's own lines.
pub fn tell_line(text: &str) {
    tell_text(&format!("{}\n", harmless::set_in(text)));
}

/// Like [`tell_line`], without a line end.
pub fn tell_text(text: &str) {
    tell_bytes(harmless::lines(text).as_bytes());
}

/// Like [`tell_text`], for text with kladder's own colour sequences.
pub fn tell_coloured(text: &str) {
    tell_bytes(harmless::coloured_lines(text).as_bytes());
}

/// Replaces the last line, on a terminal.
pub fn rewrite_line(text: &str) {
    tell_bytes(format!("\r\x1b[2K{}", harmless::on_one_line(text)).as_bytes());
}

fn tell_bytes(bytes: &[u8]) {
    // Where lines are logged, a write that waits for a reader would block a worker, and lines would come out of order.
    if let Some(writer) = log_writer::begun() {
        writer.pass(bytes.to_vec());
    } else {
        let _ = io::stderr().write_all(bytes);
    }
}

/// Whether stdout is a terminal.
pub fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Whether stderr is a terminal.
pub fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal()
}

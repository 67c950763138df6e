//! Long tables go through a pager, on a terminal that is too short for them.

use std::io::{IsTerminal, Write};
use std::process::{Command, Stdio};

use crate::cli::stdout;

/// What is used where `$PAGER` names nothing.
const PAGER: &str = "less -FRX";

/// The width of the terminal that stdout is; `None` where it is none.
pub fn width() -> Option<usize> {
    terminal().map(|(width, _)| width)
}

fn terminal() -> Option<(usize, usize)> {
    if !std::io::stdout().is_terminal() {
        return None;
    }
    let (width, height) = terminal_size::terminal_size()?;
    Some((usize::from(width.0), usize::from(height.0)))
}

/// Prints a text that may be long.
///
/// # Errors
/// When stdout cannot be written to.
pub fn print(text: &str) -> std::io::Result<()> {
    let is_long = terminal().is_some_and(|(_, height)| text.lines().count() >= height);
    let pager = std::env::var("PAGER").unwrap_or_else(|_| PAGER.to_owned());
    if is_long && !pager.is_empty() && pager != "cat" {
        // A shell, since $PAGER may hold options.
        let started = Command::new("sh").arg("-c").arg(&pager).stdin(Stdio::piped()).spawn();
        if let Ok(mut child) = started {
            if let Some(mut stdin) = child.stdin.take() {
                // Whoever leaves the pager early has seen enough.
                let _ = stdin.write_all(text.as_bytes());
            }
            if child.wait()?.success() {
                return Ok(());
            }
        }
    }
    stdout::print(text)
}

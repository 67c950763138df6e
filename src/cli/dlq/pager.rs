//! Shows long tables in a pager if they do not fit the terminal.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::cli::output::{self, PrintError};
use crate::core::harmless;
/// The pager if `$PAGER` is not set.
const PAGER: &str = "less -FRX";

/// Width of the terminal on stdout; `None` if stdout is not a terminal.
pub fn width() -> Option<usize> {
    terminal().map(|(width, _)| width)
}

fn terminal() -> Option<(usize, usize)> {
    if !output::stdout_is_terminal() {
        return None;
    }
    let (width, height) = terminal_size::terminal_size()?;
    Some((usize::from(width.0), usize::from(height.0)))
}

/// Prints a text, in the pager if it is long.
///
/// # Errors
/// stdout cannot be written to.
pub fn print(text: &str) -> Result<(), PrintError> {
    let is_long = terminal().is_some_and(|(_, height)| text.lines().count() >= height);
    let pager = std::env::var("PAGER").unwrap_or_else(|_| PAGER.to_owned());
    if is_long && !pager.is_empty() && pager != "cat" {
        // Through a shell, since $PAGER may contain options.
        let started = Command::new("sh").arg("-c").arg(&pager).stdin(Stdio::piped()).spawn();
        if let Ok(mut child) = started {
            if let Some(mut stdin) = child.stdin.take() {
                // An error only means that the user left the pager early.
                let _ = stdin.write_all(harmless::lines(text).as_bytes());
            }
            if child.wait().is_ok_and(|status| status.success()) {
                return Ok(());
            }
        }
    }
    output::print(text)
}

//! Asks for confirmation.

use std::io::{BufRead, IsTerminal};

use crate::cli::output::{self, tell};
/// Asks on a terminal; without one it prints `instead`, which says what to do, and returns false.
///
/// # Errors
/// When the terminal cannot be read from or written to.
pub fn confirmed(question: &str, instead: &str) -> std::io::Result<bool> {
    if !std::io::stdin().is_terminal() {
        tell!("error: cannot ask for confirmation: stdin is not a terminal; {instead}");
        return Ok(false);
    }
    output::tell_text(&format!("{question} [y/N] "));
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    let yes = matches!(answer.trim(), "y" | "Y" | "yes");
    if !yes {
        tell!("not confirmed: nothing was changed");
    }
    Ok(yes)
}

//! Asks before something is done.

use std::io::{BufRead, IsTerminal, Write};

/// Asks on a terminal; elsewhere nobody could answer, and `instead` says what to do there.
///
/// # Errors
/// When the terminal cannot be read from or written to.
pub fn confirmed(question: &str, instead: &str) -> std::io::Result<bool> {
    if !std::io::stdin().is_terminal() {
        eprintln!("error: nobody to ask: stdin is no terminal; {instead}");
        return Ok(false);
    }
    eprint!("{question} [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    let yes = matches!(answer.trim(), "y" | "Y" | "yes");
    if !yes {
        eprintln!("not confirmed: nothing was changed");
    }
    Ok(yes)
}

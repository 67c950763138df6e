//! stdout is data: written whole, and a reader that has seen enough ends it quietly.

use std::io::{self, Write as _};

/// Prints data. A closed pipe (`kladder check | head`) is no failure.
///
/// # Errors
/// When stdout cannot be written to for any other reason.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

//! Takes over the terminal, and restores it in any case: on a normal exit, an error or a panic.
#![expect(clippy::disallowed_methods, reason = "draws on the terminal with kladder's own sequences")]

use std::io::{self, Write};
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};

/// Whether a screen is taken: only then must a panic in any thread restore it.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The alternate screen of the terminal, without echo and line editing, until it is dropped.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<io::Stdout>>,
}

impl Screen {
    /// Takes over the terminal at stdout.
    ///
    /// # Errors
    /// stdout is not a terminal, or cannot be written to.
    pub fn enter() -> io::Result<Self> {
        enable_raw_mode()?;
        TAKEN.store(true, Ordering::SeqCst);
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            // First of all: nothing printed on the alternate screen would stay readable.
            give_back();
            before(info);
        }));
        let mut stdout = io::stdout();
        let terminal = take(&mut stdout).and_then(|()| Terminal::new(CrosstermBackend::new(stdout)));
        terminal.map(|terminal| Self { terminal }).inspect_err(|_| give_back())
    }

    /// The terminal to draw on.
    pub fn terminal(&mut self) -> &mut Terminal<CrosstermBackend<io::Stdout>> {
        &mut self.terminal
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn take(out: &mut impl Write) -> io::Result<()> {
    execute!(out, EnterAlternateScreen, Hide)
}

fn restore(out: &mut impl Write) -> io::Result<()> {
    execute!(out, LeaveAlternateScreen, Show)
}

/// Runs once, whoever calls first. Errors are ignored: a closed terminal cannot be restored.
fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        let _ = disable_raw_mode();
        let _ = restore(&mut io::stdout());
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Set when this test runs again, on a terminal, to panic there.
    const PANICS: &str = "KLADDER_TEST_SCREEN_PANICS";

    #[test]
    fn a_panic_gives_the_terminal_back_before_it_is_told() {
        if std::env::var_os(PANICS).is_some() {
            let _screen = Screen::enter().unwrap();
            panic!("while the screen is taken");
        }
        // `script` gives it a terminal, and prints what was written there.
        let own = std::env::current_exe().unwrap();
        let test = "a_panic_gives_the_terminal_back_before_it_is_told";
        let child = format!("'{}' --nocapture {test}", own.display());
        let output = Command::new("script").args(["-qec", &child, "/dev/null"]).env(PANICS, "1").output().unwrap();
        let written = String::from_utf8_lossy(&output.stdout).into_owned();
        let at = |what: &str| written.find(what).unwrap_or_else(|| panic!("no {what:?} in {written:?}"));
        assert!(at("\u{1b}[?1049h") < at("\u{1b}[?25l"), "{written:?}");
        assert!(at("\u{1b}[?25l") < at("\u{1b}[?1049l"), "{written:?}");
        assert!(at("\u{1b}[?25h") < at("while the screen is taken"), "{written:?}");
        assert_eq!(written.matches("\u{1b}[?1049l").count(), 1, "given back once: {written:?}");
    }

    #[test]
    fn what_is_taken_is_given_back() {
        let (mut taken, mut restored) = (Vec::new(), Vec::new());
        take(&mut taken).unwrap();
        restore(&mut restored).unwrap();
        assert_eq!(String::from_utf8(taken).unwrap(), "\u{1b}[?1049h\u{1b}[?25l");
        assert_eq!(String::from_utf8(restored).unwrap(), "\u{1b}[?1049l\u{1b}[?25h");
    }
}

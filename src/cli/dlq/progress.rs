//! A progress line on stderr: rewritten in place on a terminal, printed anew now and then elsewhere.

use std::time::Duration;

use crate::cli::output::{self, tell};
use crate::core::leader_clock::LocalTime;
use crate::kafka::clock::Clock;

const ON_A_TERMINAL: Duration = Duration::from_millis(200);
const ELSEWHERE: Duration = Duration::from_secs(10);

/// The progress line.
pub struct Line {
    clock: Clock,
    is_terminal: bool,
    next: LocalTime,
    is_open: bool,
}

impl Line {
    /// Starts with a pause, since most work is done before anything needs to be printed.
    pub fn new() -> Self {
        let clock = Clock::system();
        let is_terminal = output::stderr_is_terminal();
        let next = clock.now().later(if is_terminal { ON_A_TERMINAL } else { ELSEWHERE });
        Self { clock, is_terminal, next, is_open: false }
    }

    /// Prints the text, unless the last update was a moment ago.
    pub fn tell(&mut self, text: &str) {
        let now = self.clock.now();
        if now < self.next {
            return;
        }
        self.next = now.later(if self.is_terminal { ON_A_TERMINAL } else { ELSEWHERE });
        if self.is_terminal {
            output::rewrite_line(text);
            self.is_open = true;
        } else {
            tell!("{text}");
        }
    }

    /// Ends the line.
    pub fn end(&mut self) {
        if std::mem::take(&mut self.is_open) {
            output::rewrite_line("");
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.end();
    }
}

//! One line of progress on stderr: rewritten in place on a terminal, and now and then a new one elsewhere.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use crate::core::leader_clock::LocalTime;
use crate::kafka::clock::Clock;

const ON_A_TERMINAL: Duration = Duration::from_millis(200);
const ELSEWHERE: Duration = Duration::from_secs(10);

/// Tells of progress.
pub struct Line {
    clock: Clock,
    is_terminal: bool,
    next: LocalTime,
    is_open: bool,
}

impl Line {
    /// Nothing is told in the first moments: most things are done by then.
    pub fn new() -> Self {
        let clock = Clock::system();
        let is_terminal = std::io::stderr().is_terminal();
        let next = clock.now().later(if is_terminal { ON_A_TERMINAL } else { ELSEWHERE });
        Self { clock, is_terminal, next, is_open: false }
    }

    /// Tells it, unless it was told a moment ago.
    pub fn tell(&mut self, text: &str) {
        let now = self.clock.now();
        if now < self.next {
            return;
        }
        self.next = now.later(if self.is_terminal { ON_A_TERMINAL } else { ELSEWHERE });
        if self.is_terminal {
            eprint!("\r\x1b[2K{text}");
            let _ = std::io::stderr().flush();
            self.is_open = true;
        } else {
            eprintln!("{text}");
        }
    }

    /// What follows begins on a line of its own.
    pub fn end(&mut self) {
        if std::mem::take(&mut self.is_open) {
            eprint!("\r\x1b[2K");
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.end();
    }
}

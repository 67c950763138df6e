//! Shows progress on stderr: on a terminal in one line, otherwise a line for each step.

use std::cell::RefCell;
use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

pub struct Progress {
    title: String,
    told: RefCell<Option<Instant>>,
}

impl Progress {
    pub fn new(title: String) -> Self {
        Self { title, told: RefCell::new(None) }
    }

    /// A step begins.
    pub fn step(&self, text: &str) {
        self.tell(text);
        if !stderr().is_terminal() {
            let _ = writeln!(stderr());
        }
    }

    /// Updates a step; shown at most five times a second, and only on a terminal.
    pub fn at(&self, text: &str) {
        let due = self.told.borrow().is_none_or(|at| at.elapsed() > Duration::from_millis(200));
        if due && stderr().is_terminal() {
            self.tell(text);
        }
    }

    fn tell(&self, text: &str) {
        *self.told.borrow_mut() = Some(Instant::now());
        let start = if stderr().is_terminal() { "\r\x1b[K" } else { "" };
        let _ = write!(stderr(), "{start}{}: {text}", self.title);
        let _ = stderr().flush();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if stderr().is_terminal() {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}

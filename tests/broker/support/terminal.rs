//! The binary on a terminal, and the screen that a user would see.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStderr, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::clock::{self, PATIENCE};
use super::{broker, process};

/// A command of the binary on its own terminal. Killed when dropped.
pub struct Terminal {
    relay: Child,
    keys: ChildStdin,
    talk: BufReader<ChildStderr>,
    screen: Arc<Mutex<vt100::Parser>>,
    reader: Option<JoinHandle<()>>,
    /// The process id of the command itself.
    pub id: u32,
}

/// Its exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    pub code: Option<i32>,
    /// Whether the terminal's settings are restored.
    pub settings_restored: bool,
    pub on_alternate_screen: bool,
    pub cursor_hidden: bool,
}

impl Terminal {
    pub fn run((columns, lines): (u16, u16), arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let binary = process::command(arguments);
        let mut command = Command::new("python3");
        command.arg(broker::in_house("tests/broker/terminal.py")).args([columns.to_string(), lines.to_string()]);
        command.arg(binary.get_program()).args(binary.get_args());
        for (name, value) in binary.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.envs(environment.iter().copied()).env("TERM", "xterm-256color");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut relay = command.spawn().unwrap_or_else(|error| panic!("python3 cannot be run ({error})"));
        let (keys, mut written) = (relay.stdin.take().expect("a pipe"), relay.stdout.take().expect("a pipe"));
        let mut talk = BufReader::new(relay.stderr.take().expect("a pipe"));
        let screen = Arc::new(Mutex::new(vt100::Parser::new(lines, columns, 0)));
        let shown = screen.clone();
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = written.read(&mut bytes) {
                shown.lock().unwrap_or_else(PoisonError::into_inner).process(&bytes[..count]);
            }
        });
        let mut first = String::new();
        talk.read_line(&mut first).expect("text");
        let id = first.trim().parse().unwrap_or_else(|_| panic!("no process id but {first:?}"));
        Self { relay, keys, talk, screen, reader: Some(reader), id }
    }

    /// Types keys, or the bytes that a terminal sends for them.
    pub fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).and_then(|()| self.keys.flush()).expect("the terminal is there");
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.id.to_string()]).status();
        assert!(sent.expect("kill can be run").success());
    }

    /// The current lines of the screen.
    pub fn lines(&self) -> Vec<String> {
        self.parser().screen().contents().lines().map(str::to_owned).collect()
    }

    /// The current screen.
    pub fn text(&self) -> String {
        self.parser().screen().contents()
    }

    /// Whether any cell has a colour other than the default.
    pub fn has_colours(&self) -> bool {
        let parser = self.parser();
        let screen = parser.screen();
        let (lines, columns) = screen.size();
        let places = (0..lines).flat_map(|line| (0..columns).map(move |column| (line, column)));
        places.filter_map(|(line, column)| screen.cell(line, column)).any(|cell| cell.fgcolor() != vt100::Color::Default)
    }

    fn parser(&self) -> MutexGuard<'_, vt100::Parser> {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the screen matches.
    #[track_caller]
    pub fn shows(&self, what: &str, probe: impl Fn(&[String]) -> bool) {
        let found = clock::poll(PATIENCE, || probe(&self.lines()).then_some(()));
        assert!(found.is_some(), "not within {PATIENCE:?}: {what}; on the screen:\n{}", self.text());
    }

    /// Waits until it has ended by itself, and returns its result.
    #[track_caller]
    pub fn left(mut self) -> Left {
        let status = clock::poll(PATIENCE, || self.relay.try_wait().expect("a child"));
        let status = status.unwrap_or_else(|| panic!("still running; on the screen:\n{}", self.text()));
        if let Some(reader) = self.reader.take() {
            reader.join().expect("a reader without a panic");
        }
        let mut said = String::new();
        self.talk.read_to_string(&mut said).expect("text");
        let parser = self.parser();
        let screen = parser.screen();
        Left {
            code: status.code(),
            settings_restored: said.trim() == "restored",
            on_alternate_screen: screen.alternate_screen(),
            cursor_hidden: screen.hide_cursor(),
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if self.relay.try_wait().is_ok_and(|ended| ended.is_none()) {
            // The command first: it has its own session, and would outlive the relay.
            let _ = Command::new("kill").args(["-KILL", &self.id.to_string()]).status();
            let _ = self.relay.kill();
            let _ = self.relay.wait();
        }
    }
}

//! The binary as a process: run to its end, or in the background until the test ends it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::clock::{self, PATIENCE};

/// The binary under test.
pub const KLADDER: &str = env!("CARGO_BIN_EXE_kladder");

/// What a finished command left.
#[derive(Debug, Clone)]
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    /// The command failed as documented and says what helps, without a trace of its insides.
    #[track_caller]
    pub fn refuses(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "exit code; it said:\n{self}");
        assert_clean(&self.stderr);
        let said = self.to_string();
        for word in words {
            assert!(said.contains(word), "the message does not say {word:?}; it said:\n{self}");
        }
    }

    #[track_caller]
    pub fn succeeds(self) -> Self {
        assert_eq!(self.code, Some(0), "exit code; it said:\n{self}");
        self
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "--- stdout\n{}--- stderr\n{}", self.stdout, self.stderr)
    }
}

/// Nothing of a message to a person may look like a crash.
#[track_caller]
pub fn assert_clean(stderr: &str) {
    for crash in ["panicked at", "RUST_BACKTRACE", "stack backtrace", "Backtrace", ".rs:"] {
        assert!(!stderr.contains(crash), "a message with {crash:?}:\n{stderr}");
    }
}

/// The binary with an environment that does not depend on who runs the tests. Traces are asked for, so that none is there
/// only where none is printed. `KLADDER_TEST_LOG` sets the levels of its log, as `RUST_LOG` does.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(KLADDER);
    for name in ["KLADDER_CONFIG", "RUST_LOG", "XDG_CONFIG_HOME", "STATE_DIRECTORY"] {
        command.env_remove(name);
    }
    command.env("XDG_STATE_HOME", concat!(env!("CARGO_TARGET_TMPDIR"), "/state"));
    if let Some(levels) = std::env::var_os("KLADDER_TEST_LOG") {
        command.env("RUST_LOG", levels);
    }
    command.args(arguments).env("RUST_BACKTRACE", "1").env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

/// Runs the binary to its end.
pub fn kladder(arguments: &[&str]) -> Finished {
    finish(command(arguments), PATIENCE)
}

/// Runs a command to its end, with its output in files: a full pipe would stop it.
pub fn finish(mut command: Command, within: Duration) -> Finished {
    let folder = tempfile::tempdir().expect("a folder");
    let (out, err) = (folder.path().join("stdout"), folder.path().join("stderr"));
    let mut child = command
        .stdout(File::create(&out).expect("a file"))
        .stderr(File::create(&err).expect("a file"))
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}"));
    let status = clock::poll(within, || child.try_wait().expect("a child"));
    if status.is_none() {
        // A script gets the time to stop what it has started.
        signal(&child, "TERM");
        clock::poll(Duration::from_secs(30), || child.try_wait().expect("a child"));
        let _ = child.kill();
        let _ = child.wait();
    }
    let finished = Finished { code: status.and_then(|s| s.code()), stdout: text(&out), stderr: text(&err) };
    assert!(status.is_some(), "{command:?} did not end within {within:?}; it said:\n{finished}");
    finished
}

/// A background process of the binary, usually `kladder run`. It is killed with its value.
pub struct Kladder {
    child: Child,
    log: PathBuf,
}

impl Kladder {
    /// `kladder run -c FILE`; the log goes to a file beside the configuration and is appended to by the next one.
    pub fn run(config: &Path) -> Self {
        Self::start(&["run", "-c", config.to_str().expect("a path")], &config.with_extension("log"))
    }

    pub fn start(arguments: &[&str], log: &Path) -> Self {
        Self::start_with(arguments, log, &[])
    }

    /// With more in its environment.
    pub fn start_with(arguments: &[&str], log: &Path, environment: &[(&str, &str)]) -> Self {
        let file = File::options().create(true).append(true).open(log).expect("a log");
        let child = command(arguments)
            .envs(environment.iter().copied())
            .stdout(file.try_clone().expect("a file"))
            .stderr(file)
            .spawn()
            .expect("the binary can be run");
        Self { child, log: log.to_owned() }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, and gone when this returns.
    pub fn kill_dash_nine(mut self) {
        self.assert_running();
        self.child.kill().expect("a child that runs");
        self.child.wait().expect("a child");
    }

    /// Sends a signal by its name.
    pub fn signal(&mut self, name: &str) {
        self.assert_running();
        signal(&self.child, name);
    }

    /// SIGTERM, and how it ended.
    pub fn terminate(&mut self, within: Duration) -> ExitStatus {
        self.signal("TERM");
        self.ended(within).unwrap_or_else(|| panic!("still running {within:?} after SIGTERM; its log:\n{}", self.log()))
    }

    /// How it ended, or `None` while it runs.
    pub fn ended(&mut self, within: Duration) -> Option<ExitStatus> {
        clock::poll(within, || self.child.try_wait().expect("a child"))
    }

    pub fn assert_running(&mut self) {
        let ended = self.child.try_wait().expect("a child");
        assert!(ended.is_none(), "kladder ended by itself ({ended:?}); its log:\n{}", self.log());
    }

    pub fn log(&self) -> String {
        text(&self.log)
    }

    /// The memory that it has now, in MiB.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a process that runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its resident memory");
        let kib = line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number");
        kib / 1024
    }
}

impl Drop for Kladder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(60).collect();
            eprintln!("--- the end of kladder's log");
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

pub fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().expect("kill can be run");
    assert!(sent.success(), "SIG{name} could not be sent");
}

fn text(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

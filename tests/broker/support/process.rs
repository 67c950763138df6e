//! The binary as a process: run to completion, or in the background until the test stops it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::clock::{self, PATIENCE};

/// The binary under test.
pub const KLADDER: &str = env!("CARGO_BIN_EXE_kladder");

/// The result of a finished command.
#[derive(Debug, Clone)]
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    /// The command failed as documented with a helpful message, without internal details.
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

/// No message to a user may look like a crash.
#[track_caller]
pub fn assert_clean(stderr: &str) {
    for crash in ["panicked at", "RUST_BACKTRACE", "stack backtrace", "Backtrace", ".rs:"] {
        assert!(!stderr.contains(crash), "a message with {crash:?}:\n{stderr}");
    }
}

/// The binary with an environment that does not depend on the tests' user. Backtraces are enabled, so that a test notices
/// if one is printed. `KLADDER_TEST_LOG` sets its log levels, like `RUST_LOG`.
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

/// Runs the binary to completion.
pub fn kladder(arguments: &[&str]) -> Finished {
    finish(command(arguments), PATIENCE)
}

/// Runs a command to completion, with its output in files: a full pipe would block it.
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
        // A script gets time to stop its processes.
        signal(&child, "TERM");
        clock::poll(Duration::from_secs(30), || child.try_wait().expect("a child"));
        let _ = child.kill();
        let _ = child.wait();
    }
    let finished = Finished { code: status.and_then(|s| s.code()), stdout: text(&out), stderr: text(&err) };
    assert!(status.is_some(), "{command:?} did not end within {within:?}; it said:\n{finished}");
    finished
}

/// A background process of the binary, usually `kladder run`. Killed when dropped.
pub struct Kladder {
    child: Child,
    log: PathBuf,
}

impl Kladder {
    /// `kladder run -c FILE`; the log goes to a file beside the configuration, which the next one appends to.
    pub fn run(config: &Path) -> Self {
        Self::start(&["run", "-c", config.to_str().expect("a path")], &config.with_extension("log"))
    }

    pub fn start(arguments: &[&str], log: &Path) -> Self {
        Self::start_with(arguments, log, &[])
    }

    /// Any command that executes the binary.
    pub fn of(command: &mut Command, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).expect("a log");
        let command = command.env("NO_COLOR", "1").env("RUST_BACKTRACE", "1").stdin(Stdio::null());
        let child = command.stdout(file.try_clone().expect("a file")).stderr(file).spawn().expect("it can be run");
        Self { child, log: log.to_owned() }
    }

    /// With further environment variables.
    pub fn start_with(arguments: &[&str], log: &Path, environment: &[(&str, &str)]) -> Self {
        let mut command = command(arguments);
        command.envs(environment.iter().copied());
        Self::spawn(command, log)
    }

    /// `kladder run` limited to this many open files and connections.
    pub fn run_with_files(config: &Path, most: u32) -> Self {
        let kladder = command(&["run", "-c", config.to_str().expect("a path")]);
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -n {most} && exec \"$@\""), "sh"]);
        shell.arg(kladder.get_program()).args(kladder.get_args()).stdin(Stdio::null());
        for (name, value) in kladder.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        Self::spawn(shell, &config.with_extension("log"))
    }

    fn spawn(mut command: Command, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).expect("a log");
        let child = command.stdout(file.try_clone().expect("a file")).stderr(file).spawn().expect("the binary can be run");
        Self { child, log: log.to_owned() }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL; it has ended when this returns.
    pub fn kill_dash_nine(mut self) {
        self.assert_running();
        self.child.kill().expect("a child that runs");
        self.child.wait().expect("a child");
    }

    /// Sends a signal by name.
    pub fn signal(&mut self, name: &str) {
        self.assert_running();
        signal(&self.child, name);
    }

    /// SIGTERM; returns its exit status.
    pub fn terminate(&mut self, within: Duration) -> ExitStatus {
        self.signal("TERM");
        self.ended(within).unwrap_or_else(|| panic!("still running {within:?} after SIGTERM; its log:\n{}", self.log()))
    }

    /// Its exit status, or `None` while it runs.
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

    /// Its resident memory, in MiB.
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

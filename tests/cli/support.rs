//! Runs the binary without any of this machine's configuration.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The result of a command.
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// `kladder` with these arguments, in an empty directory.
pub fn kladder(args: &[&str]) -> Ran {
    kladder_with(args, "", &[])
}

/// The same with stdin and environment.
pub fn kladder_with(args: &[&str], stdin: &str, env: &[(&str, &str)]) -> Ran {
    let directory = tempfile::tempdir().unwrap();
    kladder_in(directory.path(), args, stdin, env)
}

/// The same in a directory.
pub fn kladder_in(directory: &Path, args: &[&str], stdin: &str, env: &[(&str, &str)]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kladder"));
    command.args(args).current_dir(directory).env_clear().env("HOME", directory).envs(env.iter().copied());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A command that does not read stdin may have closed it.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let output = child.wait_with_output().unwrap();
    let ran = Ran {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    };
    assert!(!ran.stderr.contains("panicked") && !ran.stderr.contains("stack backtrace"), "{}", ran.stderr);
    ran
}

/// The example ladders in the repository.
pub fn shipped() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("topology");
    let mut files: Vec<PathBuf> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    files
}

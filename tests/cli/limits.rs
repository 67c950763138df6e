//! How `run` handles the limits of its process. No broker answers here, so `run` waits with its probes up.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::port::free_port;

/// Killed when the test ends.
struct Running {
    child: Child,
    _directory: tempfile::TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `kladder run` with a limit set by the shell, and the address of its probes once they answer.
fn run(limit: &str) -> (Running, SocketAddr) {
    let directory = tempfile::tempdir().unwrap();
    let port = free_port();
    let config = format!(
        "[kafka]\nbootstrap.servers = \"127.0.0.1:9\"\n[health]\nlisten = \"127.0.0.1:{port}\"\n[ladder.a]\nsources = [\"s\"]\n\
         group = \"g\"\nstart = \"earliest\"\ntiers = [\"1s\"]\nhandler.url = \"http://127.0.0.1:9/\"\n"
    );
    std::fs::write(directory.path().join("kladder.toml"), config).unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit {limit} && exec \"$0\" run"), env!("CARGO_BIN_EXE_kladder")]);
    shell.current_dir(directory.path()).env_clear().env("HOME", directory.path());
    let child = shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let running = Running { child, _directory: directory };
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    for _ in 0..600 {
        if TcpStream::connect(address).is_ok() {
            return (running, address);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("the probes do not answer");
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn metric(address: SocketAddr, name: &str) -> u64 {
    let text = get(address, "/metrics");
    let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap_or_else(|| panic!("no {name} in\n{text}"));
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[test]
fn connections_that_stand_idle_take_no_more_than_their_places() {
    let (_running, address) = run("-n 256");
    let before = metric(address, "process_open_fds");
    let idle: Vec<TcpStream> = (0..400).map(|_| TcpStream::connect(address).unwrap()).collect();
    assert!(get(address, "/livez").starts_with("HTTP/1.1 200"));
    let (open, most) = (metric(address, "process_open_fds"), metric(address, "process_max_fds"));
    assert!(open <= before + 64 && most == 256, "{open} of {most}, {before} before");
    drop(idle);
}

#[test]
fn the_soft_limit_of_open_files_is_raised_to_the_hard_one() {
    let (_running, address) = run("-n 512 && ulimit -S -n 100");
    assert_eq!(metric(address, "process_max_fds"), 512);
}

//! The measured kladder: a separate process, observed from outside.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The kladder built with the benchmark, or the one named by the environment, so that two versions can be compared by the same benchmark
/// in one session.
fn kladder() -> Command {
    Command::new(std::env::var_os("KLADDER_BENCH_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_kladder").into()))
}

/// Ticks a second of /proc/PID/stat: 100 on every Linux, since it is part of the kernel's userspace ABI.
const TICKS: f64 = 100.0;

/// A configuration file and kladder commands with it.
pub struct Setup {
    folder: tempfile::TempDir,
    file: PathBuf,
}

impl Setup {
    pub fn new(config: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("kladder.toml");
        fs::write(&file, config).expect("a configuration");
        Self { folder, file }
    }

    /// `kladder setup`.
    pub fn apply(&self) {
        let mut command = kladder();
        // Its default limit would refuse this many partitions; the widest scenario needs 1,201.
        command.args(["setup", "--yes", "--max-partitions", "2000", "-c"]).arg(&self.file);
        let output = command.output().expect("kladder setup");
        let (plan, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "kladder setup failed:\n{plan}{said}");
    }

    /// `kladder run` with these roles.
    pub fn run(&self, roles: &str) -> Process {
        let log = fs::File::options().create(true).append(true).open(self.log()).expect("a log");
        let mut command = kladder();
        command.args(["run", "--role", roles, "-c"]).arg(&self.file).env("RUST_LOG", "info");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Process::start(&mut command)
    }

    /// `kladder dlq` to completion: its peak memory in MiB, and its CPU time in seconds.
    pub fn dlq(&self, arguments: &[&str]) -> (f64, f64) {
        let mut command = kladder();
        command.arg("dlq").args(arguments).arg("-c").arg(&self.file);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = Process::start(&mut command);
        let (mut peak_rss, mut cpu) = (0.0_f64, 0.0_f64);
        loop {
            // The last reading is the total; an ended process has none.
            (peak_rss, cpu) = (peak_rss.max(process.peak_rss()), cpu.max(process.cpu()));
            if let Some(status) = process.child.try_wait().expect("a process") {
                assert!(status.success(), "kladder dlq {arguments:?} failed");
                return (peak_rss, cpu);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// The number of log lines so far that contain the text.
    pub fn said(&self, text: &str) -> usize {
        fs::read_to_string(self.log()).unwrap_or_default().lines().filter(|line| line.contains(text)).count()
    }

    /// Waits until the log has that many lines with the text.
    pub fn wait_until_said(&self, text: &str, times: usize) -> Instant {
        let began = Instant::now();
        while self.said(text) < times {
            let log = || fs::read_to_string(self.log()).unwrap_or_default();
            assert!(began.elapsed() < Duration::from_secs(90), "kladder never said '{text}':\n{}", log());
            std::thread::sleep(Duration::from_millis(2));
        }
        Instant::now()
    }
}

fn file_of(process: &str, name: &str) -> String {
    fs::read_to_string(Path::new("/proc").join(process).join(name)).unwrap_or_default()
}

/// CPU seconds of a process so far, by its id or as `self`.
pub fn cpu_of(process: &str) -> f64 {
    let stat = file_of(process, "stat");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / TICKS
}

/// A process and its costs.
pub struct Process {
    child: Child,
}

impl Process {
    pub fn start(command: &mut Command) -> Self {
        Self { child: command.spawn().expect("a process") }
    }

    fn file(&self, name: &str) -> String {
        file_of(&self.child.id().to_string(), name)
    }

    /// CPU seconds so far.
    pub fn cpu(&self) -> f64 {
        cpu_of(&self.child.id().to_string())
    }

    fn status(&self, name: &str) -> f64 {
        let status = self.file("status");
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.trim_matches([':', ' ', '\t']).split_whitespace().next()?.parse().ok()).unwrap_or(0.0)
    }

    /// Current resident memory, in MiB.
    pub fn rss(&self) -> f64 {
        self.status("VmRSS") / 1_024.0
    }

    /// Peak resident memory, in MiB.
    pub fn peak_rss(&self) -> f64 {
        self.status("VmHWM") / 1_024.0
    }

    pub fn threads(&self) -> f64 {
        self.status("Threads")
    }

    /// Established connections to one of these servers.
    pub fn connections(&self, servers: &str) -> f64 {
        let ports: BTreeSet<u16> = servers.split(',').filter_map(|s| s.rsplit(':').next()?.parse().ok()).collect();
        let folder = Path::new("/proc").join(self.child.id().to_string()).join("fd");
        let links = fs::read_dir(folder).into_iter().flatten().flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
        let own: BTreeSet<String> =
            links.filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.trim_end_matches(']').to_owned())).collect();
        let table = self.file("net/tcp");
        let open = table.lines().skip(1).filter(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let remote = fields.get(2).and_then(|text| u16::from_str_radix(text.rsplit(':').next()?, 16).ok());
            remote.is_some_and(|port| ports.contains(&port)) && fields.get(9).is_some_and(|inode| own.contains(*inode))
        });
        f64::from(u32::try_from(open.count()).unwrap_or(u32::MAX))
    }

    /// Kills it without a chance to clean up.
    pub fn kill(mut self) {
        self.child.kill().expect("a process that was alive");
        self.child.wait().expect("a process that ends");
    }
}

/// Asks it to stop, and waits.
impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = Command::new("kill").arg(self.child.id().to_string()).status();
            let deadline = Instant::now() + Duration::from_secs(20);
            while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A port on which nothing listens.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map(|a| a.port()).expect("a port")
}

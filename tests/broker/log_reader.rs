//! The reader of the log or of a command's output may disappear, stop reading or have no space left: a worker continues and handles
//! its signals, and a command reports it by its exit code.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::dlq::Letters;
use crate::support::broker;
use crate::support::clock::{self, PATIENCE};
use crate::support::handler::{Answer, Handler};
use crate::support::process;
use crate::support::raw::RawProducer;
use crate::support::records;
use crate::support::scene::{Scene, path};

const LOST: &str = "kladder_log_lines_lost_total";

/// A worker whose stderr the test reads. Killed when dropped.
struct Worker {
    scene: Scene,
    handler: Handler,
    sent: usize,
    child: Child,
}

impl Worker {
    /// At debug, each decision is logged.
    fn start(theme: &str, more: &[&str], stderr: impl Into<Stdio>) -> Self {
        let handler = Handler::start(|_| Answer::ok());
        let mut scene = Scene::with_source(theme, &["1s"], 1);
        handler.url().clone_into(&mut scene.handler);
        let config = scene.set_up();
        let mut command = process::command(&[&["run", "-c", path(&config)], more].concat());
        let child = command.env("KLADDER_LOG", "debug").stdout(Stdio::null()).stderr(stderr).spawn().expect("a process");
        let worker = Self { scene, handler, sent: 0, child };
        worker.scene.await_ready();
        worker
    }

    fn deliver(&mut self, count: usize) {
        let records: Vec<_> = (self.sent..self.sent + count).map(|number| records::plain(number, 1)).collect();
        RawProducer::new(&self.scene.brokers).write(&self.scene.source, &records);
        self.sent += count;
        clock::eventually("all are delivered", PATIENCE, || {
            assert!(self.child.try_wait().expect("a child").is_none(), "it has ended");
            self.handler.count() >= self.sent
        });
    }

    fn lost(&self) -> f64 {
        self.scene.metric(LOST, "").expect("a metric")
    }

    /// SIGTERM: it ends normally, with all delivered records committed.
    fn ends_in_good_order(&mut self) {
        process::signal(&self.child, "TERM");
        let ended: Option<ExitStatus> = clock::poll(PATIENCE, || self.child.try_wait().expect("a child"));
        assert_eq!(ended.and_then(|status| status.code()), Some(0), "after SIGTERM");
        assert_eq!(broker::lag(&self.scene.group, &self.scene.source), 0, "what was delivered is committed");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn reader(worker: &mut Worker) -> BufReader<ChildStderr> {
    BufReader::new(worker.child.stderr.take().expect("a pipe"))
}

#[test]
fn a_worker_whose_log_nobody_reads_any_more_delivers_and_hears_its_signals() {
    for format in ["text", "json"] {
        let mut worker = Worker::start("log-closed", &["--log", format], Stdio::piped());
        let mut log = reader(&mut worker);
        let mut line = String::new();
        while !line.contains("kladder started") {
            line.clear();
            assert_ne!(log.read_line(&mut line).expect("text"), 0, "it has ended");
        }
        drop(log);
        worker.deliver(20);
        clock::eventually("what is lost is counted", PATIENCE, || worker.lost() >= 20.0);
        worker.ends_in_good_order();
    }
}

#[test]
fn a_worker_whose_log_is_not_read_is_not_held_up_and_tells_later_what_was_lost() {
    let mut worker = Worker::start("log-full", &["--log", "json"], Stdio::piped());
    // Far more than the pipe and the queue can hold.
    let set = worker.scene.control("PUT", "/log", "trace").expect("an answer");
    assert_eq!(set.0, 200, "{}", set.1);
    clock::eventually("lines are lost", PATIENCE * 2, || {
        worker.deliver(500);
        worker.lost() > 0.0
    });
    worker.deliver(20);
    let mut log = reader(&mut worker);
    let all = std::thread::spawn(move || {
        let mut text = String::new();
        log.read_to_string(&mut text).expect("text");
        text
    });
    worker.deliver(20);
    worker.ends_in_good_order();
    let log = all.join().expect("no panic");
    for line in log.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
    assert!(log.contains("log lines were lost"), "{} bytes", log.len());
    assert!(log.contains("kladder stopped"), "{} bytes", log.len());
}

#[test]
fn a_worker_hears_its_signals_while_its_log_is_full() {
    let mut worker = Worker::start("log-stuck", &[], Stdio::piped());
    let set = worker.scene.control("PUT", "/log", "trace").expect("an answer");
    assert_eq!(set.0, 200, "{}", set.1);
    clock::eventually("lines are lost", PATIENCE * 2, || {
        worker.deliver(500);
        worker.lost() > 0.0
    });
    worker.ends_in_good_order();
}

#[test]
fn a_worker_whose_log_has_no_room_goes_on() {
    let mut worker = Worker::start("log-no-room", &[], File::options().write(true).open("/dev/full").expect("a device"));
    worker.deliver(20);
    assert!(worker.lost() >= 20.0);
    worker.ends_in_good_order();
}

/// The exit code of a command with this stdout or stderr.
fn ends(mut command: Command, stdout: &str, stderr: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let open = |name: &str| match name {
        "full" => Stdio::from(File::options().write(true).open("/dev/full").expect("a device")),
        "closed" => {
            let (reader, writer) = std::io::pipe().expect("a pipe");
            drop(reader);
            writer.into()
        }
        name => File::create(folder.path().join(name)).expect("a file").into(),
    };
    let mut child = command.stdout(open(stdout)).stderr(open(stderr)).spawn().expect("a process");
    let ended = clock::poll(Duration::from_secs(120), || child.try_wait().expect("a child"));
    let _ = child.kill();
    let said = std::fs::read_to_string(folder.path().join("said")).unwrap_or_default();
    (ended.unwrap_or_else(|| panic!("{command:?} has not ended")).code(), said)
}

#[test]
fn a_command_whose_output_finds_no_room_fails_and_one_whose_reader_has_gone_does_not() {
    let letters = Letters::of("output-full", 60);
    let config = path(&letters.config);
    let all: [&[&str]; 12] = [
        &["status", "-c", config],
        &["status", "-c", config, "-o", "json"],
        &["doctor", "-c", config],
        &["check", "-c", config],
        &["setup", "-c", config, "--dry-run"],
        &["explain", "-c", config, "--status", "500"],
        &["generate", "metrics"],
        &["--help"],
        &["dlq", "list", "-c", config],
        &["dlq", "groups", "-c", config, "-o", "jsonl"],
        &["dlq", "show", "0/0", "--raw", "-c", config],
        &["dlq", "export", "-c", config],
    ];
    for arguments in all {
        let (code, said) = ends(process::command(arguments), "full", "said");
        assert_eq!(code, Some(1), "{arguments:?}: {said}");
        assert!(said.contains("error: cannot write to stdout: No space left on device"), "{arguments:?}: {said}");
        process::assert_clean(&said);
        // The usual code, whatever it is: doctor's may be that of a hazard.
        let (usual, _) = ends(process::command(arguments), "data", "said");
        let (code, said) = ends(process::command(arguments), "closed", "said");
        assert_eq!(code, usual, "{arguments:?}: {said}");
        assert!(!said.contains("stdout"), "{arguments:?}: {said}");
        for stderr in ["full", "closed"] {
            let (code, _) = ends(process::command(arguments), "data", stderr);
            assert_eq!(code, usual, "{arguments:?}: who cannot be told is served all the same");
        }
    }
    // Failed commands keep their code, whether their output is read or not.
    for stderr in ["full", "closed"] {
        for command in ["run", "status"] {
            let (code, _) = ends(process::command(&[command, "-c", "/nowhere/kladder.toml"]), "data", stderr);
            assert_eq!(code, Some(2), "{command}");
        }
        let (code, _) = ends(process::command(&["hold", "-c", config, "--why", "a test"]), "data", stderr);
        assert_eq!(code, Some(0));
    }
}

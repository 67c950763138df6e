//! Foreign text (of records, clients, writers to the state topic) in all output: none of it reaches a terminal as a control sequence, and
//! none can pass for a line of kladder's.

use std::process::Command;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::Value;

use crate::dlq::Letters;
use crate::support::broker;
use crate::support::clock::{self, PATIENCE};
use crate::support::handler::{Answer, Handler};
use crate::support::process::{self, Finished, Kladder};
use crate::support::raw::{NewRecord, RawProducer};
use crate::support::scene::{Scene, path};

/// Sets a window's title, clears the screen with a one-byte code, reverses the writing direction, breaks a line in three ways, and
/// forges one. (No NUL, which neither arguments nor environment can contain.)
const HOSTILE: &str = "x\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}2J\u{85}\u{202e}y\u{2066}\u{2028}z\r\nFORGED: all is well\u{8}\u{7f}";

fn obeyed(c: char) -> bool {
    c.is_control() && c != '\n' && c != '\t'
        || matches!(u32::from(c), 0x61c | 0x200e | 0x200f | 0x2028..=0x202e | 0x2066..=0x2069 | 0xfeff)
}

#[track_caller]
fn assert_harmless(what: &str, text: &str) {
    let found = text.chars().find(|c| obeyed(*c));
    assert!(found.is_none(), "{what} prints {found:?}:\n{text:?}");
    let forged = text.lines().find(|line| line.starts_with("FORGED"));
    assert!(forged.is_none(), "{what} prints a forged line:\n{text}");
}

#[track_caller]
fn checked(what: &str, finished: Finished) -> Finished {
    process::assert_clean(&finished.stderr);
    assert_harmless(what, &finished.stdout);
    assert_harmless(what, &finished.stderr);
    finished
}

/// The name of the caller contains it, too.
fn hostile_user(arguments: &[&str]) -> Command {
    let mut command = process::command(arguments);
    command.env_remove("SUDO_USER").env("USER", HOSTILE);
    command
}

struct Commands<'a> {
    letters: &'a Letters,
    told: Vec<(String, Finished)>,
}

impl Commands<'_> {
    /// Runs it, whatever its exit code, and returns its output.
    fn run(&mut self, arguments: &[&str]) -> &Finished {
        let mut all = arguments.to_vec();
        all.extend(["-c", path(&self.letters.config)]);
        if arguments[0] == "dlq" {
            all.extend(["--state-dir", path(self.letters.state.path())]);
        }
        let mut command = hostile_user(&all);
        command.env("EDITOR", "sed -i s/plain/changed/").env_remove("VISUAL");
        let what = arguments.join(" ");
        let finished = checked(&what, process::finish(command, PATIENCE));
        self.told.push((what, finished));
        &self.told.last().expect("one").1
    }

    /// The same with -o json or jsonl, where the text comes back unchanged.
    fn json(&mut self, arguments: &[&str], format: &str) -> Vec<Value> {
        let finished = self.run(&[arguments, &["-o", format]].concat());
        let documents = serde_json::Deserializer::from_str(&finished.stdout).into_iter::<Value>();
        documents.collect::<Result<_, _>>().unwrap_or_else(|error| panic!("{arguments:?}: {error}: {finished}"))
    }
}

fn hostile_letter(letters: &Letters, number: usize) -> NewRecord {
    let mut record = letters.record(number);
    for (name, value) in &mut record.headers {
        if matches!(name.as_slice(), b"kladder-error-class" | b"kladder-error-message" | b"kladder-origin-topic" | b"kladder-id")
        {
            *value = Some(HOSTILE.into());
        }
    }
    record.headers.push((b"stack".to_vec(), Some(HOSTILE.into())));
    record.headers.push((HOSTILE.into(), Some(b"1".to_vec())));
    // Text with several lines would be shown like this.
    let one_line = HOSTILE.replace('\n', "");
    (record.key, record.value) = (Some(one_line.clone().into_bytes()), Some(format!("plain {one_line}").into_bytes()));
    record
}

#[test]
fn no_command_prints_what_a_terminal_obeys() {
    let handler = Handler::start(|_| Answer::ok());
    let mut scene = Scene::with_source("hostile-text", &["500ms", "1s"], 1);
    handler.url().clone_into(&mut scene.handler);
    let letters = Letters::of_scene(scene);
    let scene = &letters.scene;
    let producer = RawProducer::new(&scene.brokers);
    let records: Vec<NewRecord> = [0, 3, 6, 9, 12].into_iter().map(|number| hostile_letter(&letters, number)).collect();
    let records: Vec<NewRecord> = records.into_iter().map(|record| NewRecord { partition: 0, ..record }).collect();
    producer.write(&scene.dlq_topic(), &records);
    let state = format!("{}.state", scene.ladder);
    let in_state = |key: &str, value: Value| NewRecord {
        partition: 0,
        key: Some(key.as_bytes().to_vec()),
        value: Some(value.to_string().into_bytes()),
        headers: Vec::new(),
    };
    let told = serde_json::json!({ "v": 1, "at": 1_760_000_000_000_i64, "why": HOSTILE });
    producer.write(&state, &[in_state(&format!("handler-down/{HOSTILE}"), told)]);

    let mut commands = Commands { letters: &letters, told: Vec::new() };
    let mut worker = Kladder::run(&letters.config);
    scene.await_ready();
    commands.run(&["log", "debug"]);
    commands.run(&["quiesce"]);
    commands.run(&["quiesce", "--lift"]);
    let held = commands.run(&["hold", "--why", HOSTILE]).clone().succeeds();
    assert!(held.stderr.contains("\\x1b") && held.stderr.contains("\\u{9b}"), "{held}");
    clock::eventually("the worker tells of it", PATIENCE, || worker.log().contains("owned"));
    for arguments in [
        &["check"][..],
        &[
            "explain",
            "--error-class",
            HOSTILE,
            "--message",
            HOSTILE,
            "--status",
            "500",
            "--header",
            &format!("{HOSTILE}={HOSTILE}"),
        ],
        &["setup", "--dry-run"],
        &["doctor"],
        &["status"],
        &["top", "--once"],
        &["generate", "acls", "--principal", &HOSTILE.replace('\n', "")],
        &["hold", "--why", HOSTILE],
        &["resume", "--why", HOSTILE],
        &["dlq", "groups"],
        &["dlq", "list"],
        &["dlq", "list", HOSTILE],
        &["dlq", "show", "0/0", "0/1"],
        &["dlq", "redrive", "--all", "--to", "origin", "--dry-run"],
        &["dlq", "redrive", "id:0/4", "--transform", ".", "--dry-run"],
        &["dlq", "resolve", "id:0/0", "--note", HOSTILE, "--yes"],
        &["dlq", "discard", "id:0/1", "--note", HOSTILE, "--yes"],
        &["dlq", "restore", "id:0/1", "--note", HOSTILE, "--yes"],
        &["dlq", "edit", "0/2", "--note", HOSTILE, "--yes"],
        &["dlq", "redrive", "id:0/3", "--note", HOSTILE, "--yes"],
        &["dlq", "show", "0/2"],
        &["dlq", "jobs"],
        &["dlq", "audit"],
        &["dlq", "export", "state:open,redriven"],
        &["dlq", "purge", "--before", "0/1", "--dry-run"],
    ] {
        commands.run(arguments);
    }
    for arguments in [
        &["check"][..],
        &["explain", "--error-class", HOSTILE, "--status", "500"],
        &["setup", "--dry-run"],
        &["doctor"],
        &["status"],
        &["hold", "--why", HOSTILE],
        &["resume", "--why", HOSTILE],
    ] {
        assert_eq!(commands.json(arguments, "json").len(), 1, "{arguments:?}");
    }
    for what in ["groups", "list", "audit", "jobs"] {
        for format in ["json", "jsonl"] {
            assert!(!commands.json(&["dlq", what], format).is_empty(), "{what} {format}");
        }
    }
    // Escaped, not changed: machines read the original.
    let listed = commands.json(&["dlq", "list", "id:0/4"], "json");
    assert_eq!(listed[0]["letters"][0]["message"], HOSTILE);
    let shown = commands.json(&["dlq", "show", "0/4"], "json");
    assert!(shown[0]["letters"][0]["headers"].to_string().contains("stack"), "{shown:?}");
    let audit = commands.json(&["dlq", "audit"], "json");
    assert!(audit[0]["actions"].as_array().expect("actions").iter().any(|action| action["note"] == HOSTILE));
    assert!(commands.told.iter().any(|(_, finished)| finished.stdout.contains("\\x1b]0;owned")), "it is shown as what it is");
    assert_eq!(worker.terminate(PATIENCE).code(), Some(0), "its log:\n{}", worker.log());
    assert_harmless("the log", &worker.log());

    // A foreign member of the group, and another owner.
    let stranger: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &scene.brokers)
        .set("group.id", &scene.group)
        .set("client.id", HOSTILE)
        .create()
        .expect("a consumer");
    stranger.subscribe(&[&scene.source]).expect("a subscription");
    clock::eventually("the stranger is told of", PATIENCE, || {
        let _ = stranger.poll(Duration::from_millis(100));
        commands.run(&["doctor"]).stdout.contains("client.id `x\\x1b]0;owned")
    });
    commands.json(&["doctor"], "json");
    commands.run(&["top", "--once"]);
    let refused = commands.run(&["run"]).clone();
    refused.refuses(1, &["client.id `x\\x1b]0;owned"]);
    drop(stranger);
    producer.write(&state, &[in_state("owner", serde_json::json!({ "v": 1, "group": HOSTILE, "at": 1_760_000_000_000_i64 }))]);
    for arguments in [&["setup", "--dry-run"][..], &["doctor"], &["run"]] {
        let said = commands.run(arguments).to_string();
        assert!(said.contains("belongs to group x\\x1b"), "{arguments:?}: {said}");
    }
    // The record has its own key, so that the next test does not find it.
    broker::delete_topics(&[&state]);
}

//! The commands of the README, then those of each page of `docs/`, as a reader would type them.
//!
//! Only the following is replaced:
//! - the address of the broker, and the names `orders` and `billing` by unused ones;
//! - the ports 3000 (handler), 9646 (health) and that of the admin interface by free ones;
//! - `cargo install` installs the binary under test into the walk's directory: compiling it again takes minutes, and that it builds
//!   by itself is a check of `scripts/test`;
//! - `kafka-topics.sh` and `kladder` are found in the walk's directory; the former is `TopicCommand`, as everywhere;
//! - exit code 3 of `setup --dry-run` (documented in the README) does not end the walk.
//!
//! Blocks of `sh` are run, those of `toml` form one configuration; blocks of `text` are only shown.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::broker;
use crate::support::clock::PATIENCE;
use crate::support::port::free_port;
use crate::support::process::{self, Finished, KLADDER};

/// The README, and each page of `docs/` by its name.
fn pages() -> Vec<String> {
    let docs = fs::read_dir(broker::in_house("docs")).expect("the folder docs");
    let mut paths: Vec<_> = docs.map(|entry| entry.expect("a readable folder").path()).collect();
    paths.sort();
    paths.insert(0, broker::in_house("README.md"));
    assert!(paths.len() > 10, "{paths:?}");
    paths.iter().map(|path| fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))).collect()
}

/// The blocks of one language, page by page.
fn blocks(language: &str) -> Vec<String> {
    let fence = format!("```{language}");
    let mut blocks = Vec::new();
    let mut open: Option<String> = None;
    for line in pages().iter().flat_map(|page| page.lines()) {
        match &mut open {
            None if line == fence => open = Some(String::new()),
            None => {}
            Some(block) if line == "```" => {
                blocks.push(std::mem::take(block));
                open = None;
            }
            Some(block) => {
                block.push_str(line);
                block.push('\n');
            }
        }
    }
    blocks
}

#[test]
fn every_command_of_the_walk_works() {
    let (suffix, handler, health, admin) = (broker::unique("walk"), free_port(), free_port(), free_port());
    let folder = tempfile::tempdir().expect("a folder");
    let bin = folder.path().join("bin");
    fs::create_dir(&bin).expect("a folder");
    program(
        &bin.join("kafka-topics.sh"),
        &format!("exec {:?} tool org.apache.kafka.tools.TopicCommand \"$@\"", broker::in_house("scripts/kafka")),
    );
    // The file that init prints is meant to be edited; the test changes the ports.
    let admin = format!("s/^\\[health\\]/[admin]\\nlisten = \"127.0.0.1:{admin}\"\\n\\n[health]/");
    let ports = format!("s/:9646/:{health}/; s/:3000/:{handler}/; {admin}");
    program(
        &bin.join("kladder"),
        &format!("if [ \"$1\" = init ]; then {KLADDER} \"$@\" | sed '{ports}'; else exec {KLADDER} \"$@\"; fi"),
    );

    let mut script = String::from("set -eux\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n");
    // The first block is the two scripts, which have their own tests.
    for block in &blocks("sh")[1..] {
        for line in block.lines() {
            script.push_str(&adapted(line, &suffix, handler, folder.path()));
            script.push('\n');
        }
    }
    let mut bash = Command::new("bash");
    bash.arg("-c").arg(&script).current_dir(folder.path()).stdin(Stdio::null());
    let path = std::env::var("PATH").unwrap_or_default();
    bash.env("PATH", format!("{}:{path}", bin.display())).env_remove("KLADDER_CONFIG").env_remove("RUST_LOG");
    let walk = process::finish(bash, PATIENCE * 3);
    assert_eq!(walk.code, Some(0), "the walk broke off:\n{script}\n{walk}");
    check_walk(&walk, &suffix);
    broker::delete_topics(&[&format!("orders-{suffix}"), &format!("billing-{suffix}-orders-{suffix}.")]);
}

fn adapted(line: &str, suffix: &str, handler: u16, folder: &Path) -> String {
    if line.starts_with("cargo install") {
        assert_eq!(line, "cargo install --path . --locked", "what `scripts/test` checks");
        let installed = folder.join("installed/bin/kladder");
        return format!("install -D {KLADDER} {}", installed.display());
    }
    let line = line
        .replace("localhost:9092", broker::brokers())
        .replace("orders", &format!("orders-{suffix}"))
        .replace("billing", &format!("billing-{suffix}"))
        .replace("kladder stub", &format!("kladder stub --listen 127.0.0.1:{handler}"));
    if line.contains("--dry-run") { format!("{line} || [ $? -eq 3 ]") } else { line }
}

fn check_walk(walk: &Finished, suffix: &str) {
    // The tables of `status`, the dead letters with their headers, the record written by hand.
    let dead: Vec<&str> = walk.stdout.lines().filter(|line| line.contains("kladder-reason=exhausted")).collect();
    assert!(!dead.is_empty(), "no dead letter was shown:\n{walk}");
    assert!(dead.iter().all(|line| line.starts_with("order-") && line.contains("kladder-attempts=4")), "{dead:#?}");
    let last_table = walk.stdout.rmatch_indices(&format!("ladder billing-{suffix}")).next().map(|(at, _)| &walk.stdout[at..]);
    assert!(last_table.is_some_and(|table| table.contains("retry-10s")), "no table was shown:\n{walk}");
    assert!(walk.stdout.lines().any(|line| line.ends_with(" by-hand")), "the record dropped by hand was not shown:\n{walk}");
}

fn program(path: &Path, body: &str) {
    fs::write(path, format!("#!/bin/sh\n{body}\n")).expect("a file");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a program");
}

#[test]
fn the_two_scripts_of_the_readme_are_there() {
    let first = blocks("sh").remove(0);
    assert_eq!(first, "scripts/demo\nscripts/test\n");
    for line in first.lines() {
        let mut command = Command::new(broker::in_house(line));
        command.arg("--help");
        process::finish(command, PATIENCE).succeeds();
    }
}

#[test]
fn the_picture_of_the_readme_shows_a_run_in_order() {
    let readme = fs::read_to_string(broker::in_house("README.md")).expect("README.md");
    assert!(readme.contains("](examples/demo.svg)"), "the README shows no picture");
    let picture = fs::read_to_string(broker::in_house("examples/demo.svg")).expect("the picture");
    for said in ["$ kladder demo", "OUTAGE: the handler answers 503", "lost                0", "in order: sent = done"] {
        assert!(picture.contains(said), "the picture does not show {said:?}: record it anew with scripts/picture");
    }
}

#[test]
fn the_configuration_of_the_pages_has_no_mistake() {
    let folder = tempfile::tempdir().expect("a folder");
    // The pages show parts of one configuration.
    fs::write(folder.path().join("kladder.toml"), blocks("toml").concat()).expect("a file");
    let mut check = process::command(&["check"]);
    check.current_dir(&folder).env("HOSTNAME", "pod-0").env_remove("BROKERS");
    let shown = process::finish(check, PATIENCE).succeeds();
    assert!(shown.stdout.contains("4 attempts") && shown.stdout.contains("billing-orders.retry-10m"), "{shown}");
    assert!(shown.stdout.contains("rule unparseable: ") && shown.stdout.contains("billing-orders.dlq-parse"), "{shown}");
}

#[test]
fn the_demo_on_a_real_broker_reckons_up_without_a_fault() {
    let mut demo = Command::new(broker::in_house("scripts/demo"));
    demo.arg("--real")
        .env("KLADDER_BIN", KLADDER)
        .env("NO_COLOR", "1")
        .env_remove("KLADDER_CONFIG")
        .env_remove("RUST_LOG")
        .stdin(Stdio::null());
    let shown = process::finish(demo, PATIENCE * 3).succeeds();
    for said in
        ["sent               500", "lost                 0", "doubled              0", "early                0", "in order"]
    {
        assert!(shown.stdout.contains(said), "the demo does not say {said:?}:\n{shown}");
    }
}

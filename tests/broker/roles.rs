//! Processes with only some of the roles, and who may read their files.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::dlq::{Letters, id_of};
use crate::support::clock::{self, PATIENCE};
use crate::support::process::{self, Kladder};
use crate::support::scene::path;

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap_or_else(|error| panic!("{}: {error}", path.display())).permissions().mode() & 0o777
}

/// All files and directories below.
fn all_below(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            found.extend(all_below(&path));
        }
        found.push(path);
    }
    found
}

#[test]
fn the_role_index_alone_runs_until_it_is_told_to_end_and_keeps_its_files_to_itself() {
    let letters = Letters::of("index-alone", 30);
    let config = path(&letters.config);
    let log = letters.config.with_extension("log");
    // With a umask that lets everybody read.
    let command = format!("umask 000; exec {} run -c {config} --role index", process::KLADDER);
    let mut kladder = Kladder::of(std::process::Command::new("sh").args(["-c", &command]), &log);
    letters.scene.await_ready();
    let told = |name: &str| letters.scene.metric(name, "");
    clock::eventually("it counts the dead letters", PATIENCE, || told("kladder_dlq_open_records") == Some(30.0));
    letters.write(30..40);
    clock::eventually("and goes on to do so", PATIENCE, || {
        kladder.assert_running();
        told("kladder_dlq_open_records") == Some(40.0)
    });
    let state = letters.config.parent().expect("a folder").join("state");
    let found = all_below(&state);
    assert!(found.len() > 1, "{found:?}");
    assert_eq!(mode(&state), 0o700);
    for path in found {
        assert_eq!(mode(&path), if path.is_dir() { 0o700 } else { 0o600 }, "{}", path.display());
    }
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
}

#[test]
fn what_is_exported_is_its_owners_alone() {
    let letters = Letters::of("export-private", 10);
    let (new, old) = (letters.state.path().join("new.jsonl"), letters.state.path().join("old.jsonl"));
    std::fs::write(&old, "what was there").expect("a file");
    std::fs::set_permissions(&old, std::fs::Permissions::from_mode(0o644)).expect("rights");
    for file in [&new, &old] {
        letters.dlq(&["export", "-f", path(file)]).succeeds();
        assert_eq!(mode(file), 0o600);
        assert_eq!(std::fs::read_to_string(file).expect("text").lines().count(), 10);
    }
}

#[test]
fn a_configuration_without_a_ladder_has_nothing_to_run() {
    let letters = Letters::of("no-ladder", 1);
    let text = format!(
        "[kafka]\nbootstrap.servers = \"{}\"\n[dlq.payments]\ntopic = \"{}\"\n",
        letters.scene.brokers,
        letters.scene.dlq_topic()
    );
    let config = letters.scene.write_text(&text);
    for more in [&[][..], &["--role", "index"]] {
        process::kladder(&[&["run", "-c", path(&config)], more].concat()).refuses(1, &["no ladder to run", "[dlq]"]);
    }
}

#[test]
fn small_words_are_right() {
    let letters = Letters::of("small-words", 1);
    let groups = letters.dlq(&["groups"]).succeeds();
    assert!(groups.stderr.contains(&format!("1 dead letter of {} in 1 group\n", letters.scene.dlq_topic())), "{groups}");
    let listed = letters.dlq(&["list"]).succeeds();
    assert!(listed.stderr.contains("1 open of 1 dead letter in "), "{listed}");
    letters.dlq(&["list", "reason=exhausted"]).refuses(2, &["did you mean `reason:exhausted`?", "^"]);
    // An environment without a user name still has an account.
    let mut resolve = letters.command(&["resolve", "--all", "--yes"]);
    for name in ["SUDO_USER", "USER", "LOGNAME"] {
        resolve.env_remove(name);
    }
    let resolved = process::finish(resolve, PATIENCE).succeeds();
    assert!(resolved.stderr.contains("1 dead letter is resolved now"), "{resolved}");
    let audit = letters.json(&["audit"]);
    let by = audit["actions"][0]["by"].as_str().expect("who").to_owned();
    assert!(!by.starts_with("somebody@"), "{by}");
    let all = letters.read();
    let shown = letters.dlq(&["show", &id_of(&all[0])]).succeeds();
    assert!(shown.stdout.contains("redriven 0 times before"), "{shown}");
}

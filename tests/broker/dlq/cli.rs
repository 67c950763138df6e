//! What users do with letters: show, resolve, export, edit, purge, and the mistakes that they make.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use super::{Letters, id_of};
use crate::support::broker;
use crate::support::clock::{self, PATIENCE};
use crate::support::process;
use crate::support::raw::Record;
use crate::support::scene::path;
use crate::support::terminal::Terminal;

#[test]
fn what_is_exported_goes_back_byte_for_byte() {
    let letters = Letters::of("dlq-export", 800);
    let file = letters.state.path().join("letters.jsonl");
    letters.dlq(&["export", "class:Malformed OR class:Timeout", "-f", path(&file)]).succeeds();
    let all = letters.read();
    let is_meant = |record: &&Record| ["Malformed", "Timeout"].contains(&record.text("kladder-error-class").expect("a class"));
    let meant: Vec<&Record> = all.iter().filter(is_meant).collect();
    let text = std::fs::read_to_string(&file).expect("a file");
    assert_eq!(text.lines().count(), meant.len());
    // Meanwhile they are deleted from the topic, and exist only in the file.
    for partition in 0..super::PARTITIONS {
        broker::delete_records(&letters.scene.dlq_topic(), partition, 200);
    }
    letters.dlq(&["redrive", "--from-file", path(&file), "--rate", "max", "--yes"]).succeeds();
    letters.assert_each_sent_once(&meant);
    // Again: letters already sent are not sent again, whether they still exist or not.
    let again = letters.dlq(&["redrive", "--from-file", path(&file), "--rate", "max", "--yes"]).succeeds();
    assert!(again.stderr.contains("0 sent"), "{again}");
    letters.assert_each_sent_once(&meant);
}

#[test]
fn a_letter_is_edited_and_sent_and_the_original_stays() {
    let letters = Letters::of("dlq-edit", 40);
    let all = letters.read();
    let letter = all.iter().find(|r| r.text("number") == Some("3")).expect("a letter");
    let editor = letters.state.path().join("editor");
    std::fs::write(&editor, "#!/bin/sh\nsed -i 's/\"3.10\"/3.10/; s/\"us\"/\"mars\"/; s/\"eu\"/\"mars\"/' \"$1\"\n")
        .expect("a file");
    std::fs::set_permissions(&editor, std::fs::Permissions::from_mode(0o755)).expect("rights");
    let edit = |editor: &str, arguments: &[&str]| {
        let mut all = vec!["edit", "--yes"];
        all.extend(arguments);
        let mut command = letters.command(&all);
        command.env("EDITOR", editor).env_remove("VISUAL");
        process::finish(command, clock::PATIENCE)
    };
    let untouched = edit("true", &[&id_of(letter)]).succeeds();
    assert!(untouched.stderr.contains("no changes: nothing is sent"), "{untouched}");
    assert!(letters.sent().is_empty());
    let edited = edit(path(&editor), &[&id_of(letter), "--note", "amounts are numbers"]).succeeds();
    assert!(edited.stderr.contains("+       \"amount\": 3.10"), "{edited}");
    let sent = letters.sent();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].value.as_deref(), Some(&br#"{"id":3,"amount":3.10}"#[..]));
    assert_eq!(sent[0].all("region"), [Some(&b"mars"[..]), None]);
    assert_eq!(sent[0].text("kladder-id"), letter.text("kladder-id"));
    assert_eq!(broker::read(&letters.scene.dlq_topic()).len(), 40, "the original stays");
    let shown = letters.dlq(&["show", &id_of(letter)]).succeeds();
    for part in ["redriven, by ", "amounts are numbers", "changes when it was sent back", "-       \"amount\": \"3.10\""] {
        assert!(shown.stdout.contains(part), "{part}: {shown}");
    }
    edit("true", &[&id_of(letter)]).refuses(1, &["is redriven", "restore"]);
    edit("false", &["1/5"]).refuses(1, &["the editor `false` failed"]);
}

#[test]
fn values_go_through_a_program_on_their_way() {
    let letters = Letters::of("dlq-transform", 160);
    let program = ".amount |= tonumber | .region = $letter.headers.number";
    let shown = letters.dlq(&["redrive", "class:Invalid", "--transform", program, "--dry-run"]).succeeds();
    assert!(shown.stderr.contains("+   \"amount\": ") && shown.stderr.contains("-   \"amount\": \""), "{shown}");
    assert!(letters.sent().is_empty());
    let finished = letters.dlq(&["redrive", "class:Invalid", "--transform", program, "--yes", "--rate", "max"]);
    let all = letters.read();
    let (with_value, without): (Vec<&Record>, Vec<&Record>) =
        all.iter().filter(|r| r.text("kladder-error-class") == Some("Invalid")).partition(|r| r.value.is_some());
    let sent = letters.sent();
    assert_eq!(sent.len(), with_value.len());
    for record in &sent {
        let number = record.text("number").expect("a number");
        let expected = format!("{{\"id\":{number},\"amount\":{number}.10,\"region\":\"{number}\"}}");
        assert_eq!(record.value.as_deref().map(String::from_utf8_lossy).as_deref(), Some(expected.as_str()));
    }
    // Not everything was done, and the message names the rest.
    assert!(!without.is_empty());
    let mut words = vec!["its value is null".to_owned()];
    words.extend(without.iter().map(|letter| id_of(letter)));
    finished.refuses(1, &words.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(letters.found("class:Invalid state:open").len(), without.len(), "what cannot be changed stays open");
    letters.dlq(&["redrive", "--all", "--transform", ".a |", "--yes"]).refuses(2, &["jq program"]);
}

#[test]
fn letters_are_resolved_discarded_restored_and_purged_and_it_is_kept_who_did_it() {
    let letters = Letters::of("dlq-mark", 240);
    letters.dlq(&["resolve", "class:Invalid", "--yes", "--note", "known"]).succeeds();
    letters.dlq(&["discard", "class:Malformed", "--yes"]).succeeds();
    let of = |states: &[(&str, usize)]| states.iter().map(|(state, count)| ((*state).to_owned(), *count)).collect();
    assert_eq!(letters.states(), of(&[("discarded", 30), ("open", 150), ("resolved", 60)]));
    letters.dlq(&["restore", "class:Malformed partition:1", "--yes"]).succeeds();
    let restored = letters.found("class:Malformed");
    assert!(!restored.is_empty() && restored.iter().all(|id| id.starts_with("1/")), "{restored:?}");
    // From nothing, with another index: everything is in the topics.
    let fresh = tempfile::tempdir().expect("a folder");
    let told = process::kladder(&[
        "dlq",
        "list",
        "-c",
        path(&letters.config),
        "--state-dir",
        path(fresh.path()),
        "--count",
        "state:resolved",
    ]);
    assert_eq!(told.succeeds().stdout.trim(), "60");
    letters.dlq(&["purge", "--before", "0/40", "--yes"]).refuses(2, &["open letters are among them", "--force"]);
    letters.dlq(&["resolve", "partition:0", "--yes"]).succeeds();
    letters.dlq(&["discard", "partition:0 state:open", "--yes"]).succeeds();
    letters.dlq(&["purge", "--before", "0/40", "--dry-run"]).succeeds();
    assert_eq!(letters.read().len(), 240);
    let purged = letters.dlq(&["purge", "--before", "0/40", "--yes", "--note", "gdpr"]).succeeds();
    assert!(purged.stderr.contains("40 dead letters are deleted"), "{purged}");
    assert_eq!(letters.read().len(), 200);
    assert_eq!(letters.states().values().sum::<usize>(), 200);
    let audit = letters.json(&["audit"]);
    let actions: Vec<(String, u64)> = audit["actions"]
        .as_array()
        .expect("actions")
        .iter()
        .map(|action| (action["verb"].as_str().expect("a verb").to_owned(), action["done"].as_u64().expect("a count")))
        .collect();
    let verbs: Vec<&str> = actions.iter().map(|(verb, _)| verb.as_str()).collect();
    assert!(verbs.contains(&"purge") && verbs.contains(&"discard") && verbs.contains(&"resolve") && verbs.contains(&"restore"));
    assert!(audit["actions"][0]["by"].as_str().is_some_and(|by| by.contains('@')));
    // The states of deleted letters are removed at the next action.
    letters.dlq(&["resolve", "class:Timeout", "--yes"]).succeeds();
    let state = broker::read(&format!("{}.state", letters.scene.ladder));
    let tombstones =
        state.iter().filter(|r| r.value.is_none() && r.key.as_deref().is_some_and(|k| k.starts_with(b"letter/0/"))).count();
    assert_eq!(tombstones, 40);
}

#[test]
fn what_is_older_is_purged_and_nothing_else() {
    let letters = Letters::of("dlq-older", 60);
    clock::pause(Duration::from_secs(3));
    letters.write(60..90);
    letters.dlq(&["resolve", "--all", "--yes"]).succeeds();
    let purged = letters.dlq(&["purge", "--older-than", "2s", "--yes"]).succeeds();
    assert!(purged.stderr.contains("60 dead letters are deleted"), "{purged}");
    assert_eq!(letters.read().len(), 30);
    // Named by its topic it is the same queue.
    let topic = letters.scene.dlq_topic();
    assert_eq!(letters.dlq(&["list", "--count", "-t", &topic, "state:resolved"]).succeeds().stdout.trim(), "30");
}

#[test]
fn mistakes_are_told_with_the_remedy() {
    let letters = Letters::of("dlq-mistakes", 16);
    letters.dlq(&["list", "reasn:rejected"]).refuses(2, &["no field `reasn`, did you mean `reason`?", "^"]);
    letters.dlq(&["redrive", "--yes"]).refuses(2, &["give a filter, or add --all"]);
    letters
        .dlq(&["redrive", "--all", "--to", "elsewhere", "--yes"])
        .refuses(2, &["elsewhere is not an allowed target", &letters.scene.source]);
    letters.dlq(&["redrive", "--all"]).refuses(2, &["cannot ask for confirmation", "--yes"]);
    letters
        .dlq(&["redrive", "--all", "--to", "origin", "--canary", "10", "--yes"])
        .refuses(2, &["--canary waits for outcomes", "--max 10"]);
    letters.dlq(&["show", "17"]).refuses(2, &["PARTITION/OFFSET"]);
    letters.dlq(&["show", "0/99999"]).refuses(1, &["no letter 0/99999"]);
    letters.dlq(&["jobs", "pause", "nobody"]).refuses(1, &["no job nobody"]);
    letters.dlq(&["list", "--ladder", "other"]).refuses(2, &["no ladder or [dlq] section `other`", &letters.scene.ladder]);
    let topic = letters.scene.dlq_topic();
    let only_read = [
        "dlq",
        "resolve",
        "-b",
        &letters.scene.brokers,
        "-t",
        &topic,
        "--all",
        "--yes",
        "--state-dir",
        path(letters.state.path()),
    ];
    process::kladder(&only_read).refuses(1, &["is read-only", "[dlq.NAME]"]);
    let no_topic =
        ["dlq", "groups", "-b", &letters.scene.brokers, "-t", "there-is-none", "--state-dir", path(letters.state.path())];
    process::kladder(&no_topic).refuses(1, &["there-is-none", "does not exist"]);
    let nobody = ["dlq", "groups", "-b", "127.0.0.1:1", "-t", "x", "--state-dir", path(letters.state.path())];
    process::kladder(&nobody).refuses(1, &["127.0.0.1:1"]);
    let piped = letters.dlq(&["list", "-o", "jsonl", "-n", "3"]).succeeds();
    assert_eq!(piped.stdout.lines().count(), 3);
}

#[test]
fn a_purge_that_fails_after_its_preview_has_failed_in_jobs_and_audit() {
    let letters = Letters::of("dlq-purge-fails", 30);
    let purge =
        ["dlq", "purge", "--before", "0/5", "--force", "-c", path(&letters.config), "--state-dir", path(letters.state.path())];
    let mut asking = Terminal::run((160, 40), &purge, &[]);
    asking.shows("the question", |lines| lines.iter().any(|line| line.contains("delete them? [y/N]")));
    // What was allowed in the preview is not any more when it is confirmed.
    broker::alter_topic(&letters.scene.dlq_topic(), "cleanup.policy=compact");
    clock::eventually("the broker knows its policy", PATIENCE, || {
        letters.dlq(&["purge", "--before", "0/5", "--force", "--dry-run"]).code == Some(1)
    });
    asking.press("y\n");
    asking.shows("the failure", |lines| lines.concat().contains("5 of 5 dead letters were not deleted"));
    assert_eq!(asking.left().code, Some(1));
    assert_eq!(letters.read().len(), 30);
    let jobs = letters.json(&["jobs"]);
    let audit = letters.json(&["audit"]);
    let (job, action) = (&jobs["jobs"][0], &audit["actions"][0]);
    assert_eq!((&job["verb"], &job["status"], &job["done"]), (&"purge".into(), &"failed".into(), &0.into()), "{jobs:#}");
    assert!(job["why"].as_str().is_some_and(|why| why.contains("partition 0: ")), "{jobs:#}");
    assert_eq!(
        (&action["verb"], &action["status"], &action["done"]),
        (&"purge".into(), &"failed".into(), &0.into()),
        "{audit:#}"
    );
    letters.dlq(&["jobs", "resume", job["id"].as_str().expect("a name")]).refuses(1, &["is a purge", "only redrives"]);
    let shown = letters.dlq(&["audit"]).succeeds();
    assert!(shown.stdout.contains("failed") && shown.stdout.contains("partition 0: "), "{shown}");
}

#[test]
fn a_purge_that_the_topic_does_not_allow_is_refused_before_it_is_asked_for() {
    let letters = Letters::of("dlq-purge-compacted", 30);
    broker::alter_topic(&letters.scene.dlq_topic(), "cleanup.policy=compact");
    for arguments in
        [&["purge", "--before", "0/5", "--force", "--dry-run"][..], &["purge", "--before", "0/5", "--force", "--yes"]]
    {
        clock::eventually("the broker knows its policy", PATIENCE, || letters.dlq(arguments).code == Some(1));
        letters.dlq(arguments).refuses(1, &["nothing can be deleted from", "cleanup.policy"]);
    }
    assert!(letters.json(&["audit"])["actions"].as_array().expect("actions").is_empty(), "nothing was begun");
    broker::alter_topic(&letters.scene.dlq_topic(), "cleanup.policy=delete");
    clock::eventually("it is allowed again", PATIENCE, || {
        letters.dlq(&["purge", "--before", "0/5", "--force", "--dry-run"]).code == Some(0)
    });
    letters.dlq(&["purge", "--before", "0/5", "--force", "--yes"]).succeeds();
    assert_eq!(letters.json(&["audit"])["actions"][0]["status"], "done");
}

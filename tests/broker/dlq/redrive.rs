//! Redriven letters: sent once each, whatever happens to the senders.

use std::process::{Child, Stdio};
use std::time::Duration;

use super::{Letters, PARTITIONS, id_of};
use crate::support::broker;
use crate::support::clock::{self, PATIENCE};
use crate::support::process;
use crate::support::raw::{NewRecord, RawProducer, Record};
use crate::support::scene::{Scene, path};

/// A redrive in the background.
fn begin(letters: &Letters, arguments: &[&str]) -> Child {
    let mut command = letters.command(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().expect("kladder starts")
}

/// Its exit code and output.
fn ended(mut child: Child) -> (Option<i32>, String) {
    let status = clock::poll(PATIENCE * 2, || child.try_wait().expect("a child"));
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        if status.is_none() {
            let _ = child.kill();
        }
        let _ = std::io::Read::read_to_string(&mut stderr, &mut said);
    }
    (status.expect("it ends").code(), said)
}

fn number(record: &Record) -> usize {
    record.text("number").expect("a number").parse().expect("a number")
}

#[test]
fn killed_ten_times_it_loses_none_and_doubles_none() {
    let letters = Letters::of("dlq-killed", 50_000);
    letters.dlq(&["list", "--count"]).succeeds();
    let mut kills = 0;
    while kills < 10 {
        let mut child = begin(&letters, &["redrive", "--all", "--rate", "6000/s", "--yes", "--take-over"]);
        // Somewhere between its start and its end.
        let from = letters.sent().len();
        let more = kills * 100;
        clock::poll(Duration::from_secs(20), || {
            let there = letters.sent().len() > from + more;
            (there || child.try_wait().expect("a child").is_some()).then_some(())
        });
        clock::pause(Duration::from_millis(u64::try_from(kills * 13 % 40).expect("few")));
        let is_over = child.try_wait().expect("a child").is_some();
        let _ = child.kill();
        child.wait().expect("a child");
        kills += 1;
        if is_over {
            break;
        }
    }
    let sent = letters.sent().len();
    println!("{kills} kills, {sent} sent by then");
    letters.dlq(&["redrive", "--all", "--rate", "max", "--yes", "--take-over"]).succeeds();
    let all = letters.read();
    letters.assert_each_sent_once(&all.iter().collect::<Vec<_>>());
    assert_eq!(letters.states(), [("redriven".to_owned(), 50_000)].into());
    let again = letters.dlq(&["redrive", "--all", "--yes", "--take-over"]).succeeds();
    assert!(again.stderr.contains("none of the 50,000 letters"), "{again}");
}

#[test]
fn one_of_a_file_is_not_taken_up_with_what_stands_in_the_topic() {
    let letters = Letters::of("dlq-file-left", 60);
    let file = letters.state.path().join("letters.jsonl");
    letters.dlq(&["export", "-f", path(&file)]).succeeds();
    let mut child = begin(&letters, &["redrive", "--from-file", path(&file), "--rate", "5", "--yes"]);
    clock::eventually("some are sent", PATIENCE, || !letters.sent().is_empty());
    child.kill().expect("a child");
    child.wait().expect("a child");
    let jobs = letters.json(&["jobs"]);
    let id = jobs["jobs"][0]["id"].as_str().expect("a name");
    letters.dlq(&["jobs", "resume", id, "--take-over"]).refuses(1, &["was of a file", "run that command again"]);
    letters.dlq(&["redrive", "--from-file", path(&file), "--rate", "max", "--yes", "--take-over"]).succeeds();
    let all = letters.read();
    letters.assert_each_sent_once(&all.iter().collect::<Vec<_>>());
}

#[test]
fn one_that_was_interrupted_is_taken_up_at_once() {
    let letters = Letters::of("dlq-interrupted", 400);
    let child = begin(&letters, &["redrive", "--all", "--rate", "40", "--yes"]);
    clock::eventually("some are sent", PATIENCE, || letters.sent().len() > 20);
    process::signal(&child, "INT");
    let (_, said) = ended(child);
    assert!(said.contains("kladder dlq jobs resume"), "{said}");
    let jobs = letters.json(&["jobs"]);
    assert_eq!(jobs["jobs"][0]["status"], "paused");
    let id = jobs["jobs"][0]["id"].as_str().expect("a name");
    // The lease is free, so another redrive may run. What it does is not repeated by the first.
    letters.dlq(&["redrive", "partition:0", "--rate", "max", "--yes"]).succeeds();
    let taken = letters.dlq(&["jobs", "resume", id]).succeeds();
    assert!(taken.stderr.contains("continuing job"), "{taken}");
    let all = letters.read();
    letters.assert_each_sent_once(&all.iter().collect::<Vec<_>>());
}

#[test]
fn a_file_of_letters_that_are_gone_is_sent_once_however_often_it_is_given() {
    let letters = Letters::of("dlq-file-gone", 40);
    let file = letters.state.path().join("letters.jsonl");
    letters.dlq(&["export", "-f", path(&file)]).succeeds();
    let all = letters.read();
    letters.dlq(&["resolve", "--all", "--yes"]).succeeds();
    letters.dlq(&["restore", "--all", "--yes"]).succeeds();
    letters.dlq(&["purge", "--older-than", "1ms", "--force", "--yes"]).succeeds();
    assert_eq!(letters.read().len(), 0);
    for _ in 0..4 {
        letters.dlq(&["redrive", "--from-file", path(&file), "--rate", "max", "--yes"]);
        letters.assert_each_sent_once(&all.iter().collect::<Vec<_>>());
    }
}

#[test]
fn of_letters_that_are_too_large_together_only_the_one_is_passed_over_that_is_too_large_alone() {
    let letters = Letters::of("dlq-large", 0);
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    // Incompressible.
    let mut bytes = |size: usize| -> Vec<u8> {
        let next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        };
        std::iter::repeat_with(next).take(size).collect()
    };
    let mut record = |n: usize| NewRecord { value: Some(bytes(if n == 7 { 60_000 } else { 5_000 })), ..letters.record(n) };
    let records: Vec<NewRecord> = (0..40).map(&mut record).collect();
    RawProducer::new(&letters.scene.brokers).write(&letters.scene.dlq_topic(), &records);
    broker::alter_topic(&letters.scene.redeliver_topic(), "max.message.bytes=20000");
    let large = letters.read().iter().find(|record| number(record) == 7).map(id_of).expect("it is there");
    let done = letters.dlq(&["redrive", "--all", "--rate", "max", "--yes"]);
    done.refuses(1, &["is done: 39 sent, 1 skipped", "larger than the topic allows", "raise max.message.bytes", &large]);
    assert_eq!(letters.sent().len(), 39);
    assert_eq!(letters.states(), [("open".to_owned(), 1), ("redriven".to_owned(), 39)].into());
}

#[test]
fn of_letters_that_are_refused_together_only_those_are_passed_over_that_are_refused_alone() {
    let letters = Letters::of("dlq-refused", 40);
    // It accepts no records without a key, as every tenth is.
    broker::alter_topic(&letters.scene.redeliver_topic(), "cleanup.policy=compact");
    let all = letters.read();
    let (keyless, keyed): (Vec<&Record>, Vec<&Record>) = all.iter().partition(|record| record.key.is_none());
    let mut ids: Vec<String> = keyless.iter().copied().map(id_of).collect();
    ids.sort_unstable();
    assert_eq!(ids.len(), 4);
    let mut words: Vec<&str> = ids.iter().map(String::as_str).collect();
    words.extend(["is done: 36 sent, 4 skipped", "INVALID_RECORD"]);
    letters.dlq(&["redrive", "--all", "--rate", "max", "--yes"]).refuses(1, &words);
    letters.assert_each_sent_once(&keyed);
    assert_eq!(letters.states(), [("open".to_owned(), 4), ("redriven".to_owned(), 36)].into());
    assert_eq!(letters.found("state:open"), ids);
    // Nothing was done.
    let again = letters.dlq(&["redrive", "--all", "--yes", "-o", "json"]);
    again.refuses(1, &["INVALID_RECORD"]);
    let told: serde_json::Value = serde_json::from_str(&again.stdout).expect("a document");
    let mut named: Vec<&str> = told["passed_over"]
        .as_object()
        .expect("reasons")
        .values()
        .flat_map(|letters| letters.as_array().expect("letters").iter().map(|id| id.as_str().expect("an id")))
        .collect();
    named.sort_unstable();
    assert_eq!(named, ids);
    // With the mistake fixed they are sent.
    broker::alter_topic(&letters.scene.redeliver_topic(), "cleanup.policy=delete");
    letters.dlq(&["redrive", "--all", "--rate", "max", "--yes"]).succeeds();
    letters.assert_each_sent_once(&all.iter().collect::<Vec<_>>());
}

#[test]
fn letters_as_large_as_their_target_takes_are_sent_whatever_the_clients_queue() {
    const MIB: usize = 1024 * 1024;
    let large = |letters: &Letters, n: usize, size: usize| NewRecord { value: Some(vec![b'v'; size]), ..letters.record(n) };
    let set_up = |theme: &str, kafka: &str, sizes: &[usize]| {
        let mut scene = Scene::with_source(theme, &["500ms"], PARTITIONS);
        scene.kafka = kafka.to_owned();
        let letters = Letters::of_scene(scene);
        for topic in [letters.scene.dlq_topic(), letters.scene.redeliver_topic()] {
            broker::alter_topic(&topic, "max.message.bytes=30000000");
        }
        let producer = RawProducer::with(&letters.scene.brokers, &[("message.max.bytes", "40000000")]);
        for (n, size) in sizes.iter().enumerate() {
            producer.write(&letters.scene.dlq_topic(), &[large(&letters, n, *size)]);
        }
        letters
    };
    // Larger than 8 MiB, together larger than a transaction may be, between small ones.
    let letters = set_up("dlq-8mib", "", &[100, 9 * MIB, 100, 20 * MIB, 12 * MIB, 100]);
    letters.dlq(&["redrive", "--all", "--rate", "max", "--yes"]).succeeds();
    letters.assert_each_sent_once(&letters.read().iter().collect::<Vec<_>>());

    // Where the client's queue is configured smaller, the message names that, and no other letter.
    let letters = set_up("dlq-queue", "producer.queue.buffering.max.kbytes = 4096", &[100, 3 * MIB, 5 * MIB, 3 * MIB, 100]);
    let words = ["is done: 4 sent, 1 skipped", "queue.buffering.max.kbytes", ": 2/0"];
    letters.dlq(&["redrive", "--all", "--rate", "max", "--yes"]).refuses(1, &words);
    assert_eq!(letters.sent().len(), 4);
}

#[test]
fn one_that_was_killed_is_taken_up_where_it_was_left() {
    let letters = Letters::of("dlq-left", 3_000);
    let mut child = begin(&letters, &["redrive", "reason:exhausted", "--rate", "400", "--yes", "--note", "the bank is back"]);
    clock::eventually("some are sent", PATIENCE, || letters.sent().len() > 300);
    child.kill().expect("a child");
    child.wait().expect("a child");
    let jobs = letters.json(&["jobs"]);
    let job = &jobs["jobs"][0];
    let id = job["id"].as_str().expect("a name");
    assert_eq!(job["status"], "running");
    let done = job["done"].as_u64().expect("a number");
    assert_eq!(done, letters.sent().len() as u64, "the job is written with what it has sent");
    // Until the lease expires, the other one may still be running.
    let told = letters.dlq(&["redrive", "reason:rejected", "--yes"]);
    told.refuses(1, &["is redriving here", "--take-over"]);
    let taken = letters.dlq(&["jobs", "resume", id, "--take-over"]).succeeds();
    assert!(taken.stderr.contains("continuing job"), "{taken}");
    let all = letters.read();
    let meant: Vec<&Record> = all.iter().filter(|record| record.text("kladder-reason") == Some("exhausted")).collect();
    letters.assert_each_sent_once(&meant);
    let jobs = letters.json(&["jobs"]);
    assert_eq!((&jobs["jobs"][0]["status"], &jobs["jobs"][0]["done"]), (&"done".into(), &meant.len().into()));
    let states = letters.states();
    assert_eq!((states["redriven"], states["open"]), (meant.len(), 3_000 - meant.len()));
    let audit = letters.dlq(&["audit"]).succeeds();
    assert!(audit.stdout.contains("the bank is back") && audit.stdout.contains("redrive to redeliver"), "{audit}");
    let shown = letters.dlq(&["show", &id_of(meant[0])]).succeeds();
    assert!(shown.stdout.contains(&format!("job {id}")), "{shown}");
}

#[test]
fn two_of_the_same_letters_do_not_double_them_though_one_is_stopped_in_its_transaction() {
    several("dlq-two", 2);
}

#[test]
fn three_of_the_same_letters_do_not_double_them_though_one_is_stopped_in_its_transaction() {
    several("dlq-three", 3);
}

fn several(theme: &str, count: usize) {
    let letters = Letters::of(theme, 12_000);
    letters.dlq(&["list", "--count"]).succeeds();
    let first = begin(&letters, &["redrive", "--all", "--rate", "max", "--yes"]);
    clock::eventually("some are sent", PATIENCE, || !letters.sent().is_empty());
    process::signal(&first, "STOP");
    // The others do not wait, since they are told to take over.
    let others: Vec<Child> =
        (1..count).map(|_| begin(&letters, &["redrive", "--all", "--rate", "max", "--yes", "--take-over"])).collect();
    clock::pause(Duration::from_millis(1_500));
    process::signal(&first, "CONT");
    let mut done = 0;
    for child in others.into_iter().chain([first]) {
        let (code, said) = ended(child);
        println!("ended with {code:?}: {}", said.lines().last().unwrap_or_default());
        process::assert_clean(&said);
        assert!(matches!(code, Some(0 | 1)), "{said}");
        done += usize::from(code == Some(0));
    }
    assert!(done >= 1, "one of them has done it");
    letters.dlq(&["redrive", "--all", "--rate", "max", "--yes", "--take-over"]).succeeds();
    let all = letters.read();
    letters.assert_each_sent_once(&all.iter().collect::<Vec<_>>());
    assert_eq!(letters.states(), [("redriven".to_owned(), 12_000)].into());
}

#[test]
fn paused_it_waits_resumed_it_goes_on_and_cancelled_it_loses_none() {
    let letters = Letters::of("dlq-cancel", 4_000);
    let child = begin(&letters, &["redrive", "class:Invalid", "--rate", "200", "--ramp", "500ms", "--yes"]);
    clock::eventually("some are sent", PATIENCE, || letters.sent().len() > 40);
    let id = letters.json(&["jobs"])["jobs"][0]["id"].as_str().expect("a name").to_owned();
    let status = || letters.json(&["jobs"])["jobs"][0]["status"].as_str().expect("a status").to_owned();
    letters.dlq(&["jobs", "pause", &id]).succeeds();
    clock::eventually("it is paused", PATIENCE, || status() == "paused");
    let sent = letters.sent().len();
    clock::pause(Duration::from_secs(1));
    assert_eq!(letters.sent().len(), sent, "nothing is sent while it is paused");
    letters.dlq(&["jobs", "resume", &id]).succeeds();
    clock::eventually("it goes on", PATIENCE, || letters.sent().len() > sent + 40);
    letters.dlq(&["jobs", "cancel", &id]).succeeds();
    let (code, said) = ended(child);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("is cancelled: by "), "{said}");
    let sent = letters.sent();
    assert!(sent.len() < 1_000, "{} were sent", sent.len());
    let all = letters.read();
    let gone: Vec<&Record> = all.iter().filter(|letter| sent.iter().any(|s| number(s) == number(letter))).collect();
    letters.assert_each_sent_once(&gone);
    let states = letters.states();
    assert_eq!((states["redriven"], states["open"]), (sent.len(), 4_000 - sent.len()));
    letters.dlq(&["jobs", "resume", &id]).refuses(1, &["already cancelled"]);
    // The rest is still there to be sent.
    letters.dlq(&["redrive", "class:Invalid", "--rate", "max", "--yes"]).succeeds();
    let meant: Vec<&Record> = all.iter().filter(|record| record.text("kladder-error-class") == Some("Invalid")).collect();
    letters.assert_each_sent_once(&meant);
}

#[test]
fn only_what_was_shown_is_sent_and_no_more_than_asked_for() {
    let letters = Letters::of("dlq-max", 1_000);
    let shown = letters.dlq(&["redrive", "class:Timeout", "--dry-run"]).succeeds();
    assert!(shown.stderr.contains("125 dead letters") && shown.stderr.contains(&letters.scene.redeliver_topic()), "{shown}");
    assert!(letters.sent().is_empty());
    letters.dlq(&["redrive", "class:Timeout", "--yes", "--max", "20", "--rate", "max"]).succeeds();
    assert_eq!(letters.sent().len(), 20);
    let all = letters.read();
    let ids: Vec<String> = all.iter().filter(|r| r.text("kladder-error-class") == Some("Expired")).take(5).map(id_of).collect();
    let file = letters.state.path().join("ids");
    std::fs::write(&file, ids.join("\n")).expect("a file");
    letters.dlq(&["redrive", "--ids", file.to_str().expect("a path"), "--yes"]).succeeds();
    assert_eq!(letters.sent().len(), 25);
    assert_eq!(letters.found("state:redriven class:Expired"), {
        let mut ids = ids;
        ids.sort_unstable();
        ids
    });
    // Sent back three times already: parked.
    let third = letters.found("state:redriven class:Expired").remove(0);
    letters.dlq(&["restore", &format!("id:{third}"), "--yes"]).succeeds();
    assert!(!letters.found("state:redriven class:Expired").is_empty(), "what was sent is not open again without force");
    letters.dlq(&["restore", &format!("id:{third}"), "--yes", "--force"]).succeeds();
    assert_eq!(letters.found("class:Expired state:open").len(), 121);
}

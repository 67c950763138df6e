//! Filters, groups and lists agree with a reader that scans the topic by itself.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::producer::Producer;

use super::{Letters, id_of, kind};
use crate::support::broker;
use crate::support::clock::{self, PATIENCE};
use crate::support::process::{self, Finished};
use crate::support::raw::{RawProducer, Record};
use crate::support::scene::path;

fn header<'a>(record: &'a Record, name: &str) -> &'a str {
    record.text(name).unwrap_or_default()
}

/// Whether a letter matches, by the test's own code.
type Reader<'a> = Box<dyn Fn(&Record) -> bool + 'a>;

#[test]
fn filters_agree_with_a_reader_of_50_000_letters() {
    let letters = Letters::of("dlq-filters", 50_000);
    let since = clock::now();
    let count = letters.dlq(&["list", "--count"]).succeeds();
    println!("the first answer took {:.1} s", (clock::now() - since).as_secs_f64());
    assert_eq!(count.stdout.trim(), "50000");
    let all = letters.read();
    let number = |record: &Record| -> usize { header(record, "number").parse().expect("a number") };
    let key = |record: &Record| record.key.clone().map(|key| String::from_utf8(key).expect("text"));
    let cases: Vec<(&str, Reader<'_>)> = vec![
        ("reason:rejected", Box::new(|r| header(r, "kladder-reason") == "rejected")),
        ("class:Invalid", Box::new(|r| header(r, "kladder-error-class") == "Invalid")),
        ("class:~^java\\.", Box::new(|r| header(r, "kladder-error-class").starts_with("java."))),
        ("key:customer-17", Box::new(|r| key(r).as_deref() == Some("customer-17"))),
        ("key:-", Box::new(|r| r.key.is_none())),
        ("header.number:4711", Box::new(|r| header(r, "number") == "4711")),
        ("header.region:eu status:504", Box::new(|r| number(r) % 3 == 0 && header(r, "kladder-error-status") == "504")),
        ("text:\"no account\"", Box::new(|r| header(r, "kladder-error-message").starts_with("no account"))),
        ("text:\"account 1234\"", Box::new(|r| header(r, "kladder-error-message") == "no account 1234")),
        (
            "message:~\"account .*99$\"",
            Box::new(|r| {
                let message = header(r, "kladder-error-message");
                message.contains("account") && message.ends_with("99")
            }),
        ),
        (
            "status:>=500 attempts:3 partition:1",
            Box::new(|r| header(r, "kladder-error-status") >= "500" && header(r, "kladder-attempts") == "3" && r.partition == 1),
        ),
        ("class:Timeout OR class:Expired", Box::new(|r| ["Timeout", "Expired"].contains(&header(r, "kladder-error-class")))),
        (
            "NOT (reason:exhausted OR class:Invalid)",
            Box::new(|r| header(r, "kladder-reason") != "exhausted" && header(r, "kladder-error-class") != "Invalid"),
        ),
        ("offset:<100 NOT header.region:eu", Box::new(|r| r.offset < 100 && number(r) % 3 != 0)),
        ("age:>1h", Box::new(|_| false)),
        ("tier:1", Box::new(|_| false)),
    ];
    for (filter, holds) in &cases {
        let mut expected: Vec<String> = all.iter().filter(|record| holds(record)).map(id_of).collect();
        expected.sort_unstable();
        let found = letters.found(filter);
        assert_eq!(found.len(), expected.len(), "{filter}");
        assert!(found == expected, "{filter}: as many, but others");
    }
}

#[test]
fn groups_of_40_000_letters_need_neither_state_directory_nor_worker_nor_configuration() {
    let letters = Letters::of("dlq-cold", 40_000);
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("not/there/yet");
    let arguments = [
        "dlq",
        "groups",
        "-b",
        &letters.scene.brokers,
        "-t",
        &letters.scene.dlq_topic(),
        "--state-dir",
        path(&state),
        "-o",
        "json",
    ];
    let since = clock::now();
    let finished = process::kladder(&arguments).succeeds();
    println!("groups of 40,000 letters from nothing: {:.1} s", (clock::now() - since).as_secs_f64());
    let told: serde_json::Value = serde_json::from_str(&finished.stdout).expect("JSON");
    let groups = told["groups"].as_array().expect("groups");
    assert_eq!(groups.len(), 8, "{groups:#?}");
    let mut expected: BTreeMap<usize, Vec<Record>> = BTreeMap::new();
    for record in letters.read() {
        let number: usize = header(&record, "number").parse().expect("a number");
        expected.entry(number % 8).or_default().push(record);
    }
    for (number, records) in &expected {
        let (class, reason, _, message) = kind(*number);
        let first = message.split(' ').next().expect("a word");
        let is_it = |group: &&serde_json::Value| {
            group["class"] == class
                && group["reason"] == reason
                && group["message"].as_str().is_some_and(|m| m.starts_with(first))
        };
        let group = groups.iter().find(is_it).unwrap_or_else(|| panic!("no group of {class}: {groups:#?}"));
        assert_eq!(group["count"], records.len(), "{class}");
        assert_eq!(group["first_ms"], records.iter().map(|r| r.timestamp).min().expect("some"), "{class}");
        assert_eq!(group["last_ms"], records.iter().map(|r| r.timestamp).max().expect("some"), "{class}");
        assert_eq!(group["origins"][&letters.scene.source], records.len(), "{class}");
        assert_eq!(group["states"]["open"], records.len(), "{class}");
        let sample = group["sample"].as_str().expect("a sample");
        assert!(records.iter().any(|record| id_of(record) == sample), "{class}: {sample}");
    }
    // Again, from the stored index; and the same in a directory that is not writable.
    let again = process::kladder(&arguments).succeeds();
    assert_eq!(again.stdout.matches("\"group\"").count(), 8);
    std::fs::write(folder.path().join("file"), "").expect("a file");
    let mut refused = arguments;
    let no_folder = folder.path().join("file/below");
    refused[7] = path(&no_folder);
    let finished = process::kladder(&refused).succeeds();
    assert!(finished.stderr.contains("built in memory"), "{finished}");
    // Except for the trend, which ends now.
    let counts = |text: &str| -> Vec<(serde_json::Value, serde_json::Value)> {
        let told: serde_json::Value = serde_json::from_str(text).expect("JSON");
        told["groups"].as_array().expect("groups").iter().map(|g| (g["group"].clone(), g["count"].clone())).collect()
    };
    assert_eq!(counts(&finished.stdout), counts(&again.stdout));
}

#[test]
fn an_index_is_consistent_after_kill_9_after_retention_and_after_the_topic_was_made_anew() {
    let letters = Letters::of("dlq-index", 30_000);
    for millis in [30, 80, 150, 250, 400, 600] {
        let mut child = letters.command(&["list", "--count"]).spawn().expect("kladder starts");
        clock::pause(std::time::Duration::from_millis(millis));
        let _ = child.kill();
        child.wait().expect("a child");
    }
    assert_eq!(letters.dlq(&["list", "--count"]).succeeds().stdout.trim(), "30000");
    let expected: usize = letters.read().iter().filter(|r| header(r, "kladder-error-class") == "Invalid").count();
    assert_eq!(letters.found("class:Invalid").len(), expected);
    // More letters arrive, and some are deleted.
    letters.write(30_000..30_300);
    crate::support::broker::delete_records(&letters.scene.dlq_topic(), 1, 5_000);
    let left = letters.read().len();
    assert_eq!(letters.dlq(&["list", "--count"]).succeeds().stdout.trim(), left.to_string());
    assert!(letters.found("partition:1 offset:<5000").is_empty());
    // Another topic with the same name.
    crate::support::broker::delete_topics(&[&letters.scene.dlq_topic()]);
    clock::eventually("the topic is gone", clock::PATIENCE, || {
        !crate::support::broker::topics().contains_key(&letters.scene.dlq_topic())
    });
    letters.scene.setup().succeeds();
    letters.write(0..100);
    assert_eq!(letters.dlq(&["list", "--count"]).succeeds().stdout.trim(), "100");
}

#[test]
fn several_that_begin_at_once_with_no_index_find_the_same() {
    let letters = Letters::of("dlq-cold", 240);
    for several in [2, 3, 10] {
        let state = tempfile::tempdir().expect("a folder");
        let command = || {
            let arguments = ["dlq", "groups", "-o", "json", "-c", path(&letters.config), "--state-dir", path(state.path())];
            process::command(&arguments)
        };
        let said: Vec<Finished> = std::thread::scope(|scope| {
            let begun: Vec<_> = (0..several).map(|_| scope.spawn(|| process::finish(command(), PATIENCE * 2))).collect();
            begun.into_iter().map(|one| one.join().expect("it ended")).collect()
        });
        for finished in said {
            let finished = finished.succeeds();
            // What one of them finds must not include half of another one's work, nor use memory instead of the file.
            assert!(!finished.stderr.contains("in memory"), "{finished}");
            let groups: serde_json::Value = serde_json::from_str(&finished.stdout).expect("JSON");
            let counts =
                groups["groups"].as_array().expect("groups").iter().map(|group| group["count"].as_u64().expect("a number"));
            assert_eq!(counts.sum::<u64>(), 240, "{finished}");
        }
    }
}

#[test]
fn an_open_transaction_at_the_end_holds_nobody_up_and_is_told() {
    let letters = Letters::of("dlq-open", 30);
    let id = broker::unique("left-open");
    let left = RawProducer::with(&letters.scene.brokers, &[("transactional.id", &id), ("transaction.timeout.ms", "600000")]);
    left.transactions().init_transactions(PATIENCE).expect("a transactional producer");
    left.transactions().begin_transaction().expect("a transaction");
    left.write(&letters.scene.dlq_topic(), &[letters.record(0)]);
    // A committed one behind it.
    letters.write(30..31);
    let listed = || {
        // It would have waited for 30 s, and then reported that it knows only a part.
        let finished = process::finish(letters.command(&["list", "-n", "0"]), Duration::from_secs(25)).succeeds();
        assert!(!finished.stderr.contains("the index is behind"), "{finished}");
        finished
    };
    clock::eventually("it is told once it has been open for long", PATIENCE * 2, || {
        let said = listed().stderr;
        said.contains(&format!("a transaction is open on {}[0] at offset 10 since 20", letters.scene.dlq_topic()))
            && said.contains(&format!("by a worker of ladder {}", letters.scene.ladder))
    });
    assert_eq!(letters.found("").len(), 30);
    let export = process::finish(letters.command(&["show", "0/0"]), Duration::from_secs(25)).succeeds();
    assert!(export.stderr.contains("a transaction is open"), "{export}");
    left.transactions().commit_transaction(PATIENCE).expect("committed");
    assert_eq!(letters.found("").len(), 32);
    assert!(!listed().stderr.contains("a transaction is open"));
}

#[test]
fn an_open_transaction_whose_producer_is_gone_is_ended_by_the_command_that_is_told() {
    let letters = Letters::of("dlq-left", 30);
    let id = broker::unique("gone");
    let gone = RawProducer::with(&letters.scene.brokers, &[("transactional.id", &id), ("transaction.timeout.ms", "600000")]);
    gone.transactions().init_transactions(PATIENCE).expect("a transactional producer");
    gone.transactions().begin_transaction().expect("a transaction");
    gone.write(&letters.scene.dlq_topic(), &[letters.record(0)]);
    let told = clock::poll(PATIENCE * 2, || {
        let said = letters.dlq(&["list", "-n", "0"]).succeeds().stderr;
        let begins = format!("its transactional.id begins with `{}.`", letters.scene.ladder);
        said.contains(&begins).then_some(said)
    });
    let told = told.expect("it is told");
    let begin = told.find("abort --topic").unwrap_or_else(|| panic!("{told}"));
    let command: Vec<&str> = told[begin..].split('`').next().expect("the end").split_whitespace().collect();
    let at_broker = ["--bootstrap-server", broker::brokers()];
    broker::kafka_tool("org.apache.kafka.tools.TransactionsCommand", &[&at_broker[..], &command].concat());
    clock::eventually("nothing is open any more", PATIENCE, || {
        !letters.dlq(&["list", "-n", "0"]).succeeds().stderr.contains("a transaction is open")
    });
    assert_eq!(letters.found("").len(), 30);
}

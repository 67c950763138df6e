//! Filters, groups and lists agree with a reader that goes through the topic by itself.

use std::collections::BTreeMap;

use super::{Letters, id_of, kind};
use crate::support::clock;
use crate::support::process;
use crate::support::raw::Record;
use crate::support::scene::path;

fn header<'a>(record: &'a Record, name: &str) -> &'a str {
    record.text(name).unwrap_or_default()
}

/// Whether a letter is meant, in the test's own words.
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
    // Once more, from what is kept; and the same in a folder that cannot be written.
    let again = process::kladder(&arguments).succeeds();
    assert_eq!(again.stdout.matches("\"group\"").count(), 8);
    std::fs::write(folder.path().join("file"), "").expect("a file");
    let mut refused = arguments;
    let no_folder = folder.path().join("file/below");
    refused[7] = path(&no_folder);
    let finished = process::kladder(&refused).succeeds();
    assert!(finished.stderr.contains("made in memory"), "{finished}");
    // But for the trend, which is until now.
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
    // More come, and some go.
    letters.write(30_000..30_300);
    crate::support::broker::delete_records(&letters.scene.dlq_topic(), 1, 5_000);
    let left = letters.read().len();
    assert_eq!(letters.dlq(&["list", "--count"]).succeeds().stdout.trim(), left.to_string());
    assert!(letters.found("partition:1 offset:<5000").is_empty());
    // Another one of the same name.
    crate::support::broker::delete_topics(&[&letters.scene.dlq_topic()]);
    clock::eventually("the topic is gone", clock::PATIENCE, || {
        !crate::support::broker::topics().contains_key(&letters.scene.dlq_topic())
    });
    letters.scene.setup().succeeds();
    letters.write(0..100);
    assert_eq!(letters.dlq(&["list", "--count"]).succeeds().stdout.trim(), "100");
}

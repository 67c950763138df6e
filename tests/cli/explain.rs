//! `kladder explain`

use crate::support::{Ran, kladder_with};

const CONFIG: &str = r#"
[kafka]
bootstrap.servers = "b:9092"

[ladder.billing]
sources = ["orders", "refunds"]
group = "billing"
tiers = ["5s", "1m", "10m"]
max_age = "2h"
handler.url = "http://h/"

[[ladder.billing.classify]]
name = "unparseable"
when = { status = 422, header = { kind = "refund" } }
then = "reject"
dlq = "parse"

[[ladder.billing.classify]]
when = { error_class = { prefix = "com.acme.Bank" }, message = "closed until [0-9]+" }
then = "retry"
from_tier = 3
attempts = 9

[[ladder.billing.classify]]
when = { status = "404", topic = "refunds" }
then = "done"
"#;

fn explain(args: &[&str]) -> Ran {
    let all: Vec<&str> = ["explain", "-c", "-"].into_iter().chain(args.iter().copied()).collect();
    kladder_with(&all, CONFIG, &[])
}

/// Without the time, which differs each time.
fn told(args: &[&str]) -> String {
    let ran = explain(args);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{args:?}");
    let words = ran.stdout.split(' ').map(|word| match word.split_once('Z') {
        Some((moment, rest)) if moment.starts_with("20") => format!("MOMENT{rest}"),
        _ => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn it_tells_the_rule_the_decision_the_topic_and_the_time() {
    let answers: Vec<String> = [
        &["--status", "503", "--attempt", "2"][..],
        &["--status", "422"],
        &["--status", "422", "--header", "kind=refund"],
        &["--error-class", "com.acme.BankError", "--error-message", "closed until 9"],
        &["--status", "404", "--topic", "refunds"],
        &["--status", "503", "--attempt", "4"],
        &["--status", "503", "--attempt", "3", "--age", "115m"],
        &["--status", "429", "--retry-after", "1h"],
        &["--status", "200"],
        &["--status", "500", "--verdict", "reject"],
    ]
    .into_iter()
    .map(|args| format!("$ kladder explain {}\n{}", args.join(" "), told(args)))
    .collect();
    insta::assert_snapshot!(answers.join("\n"));
}

#[test]
fn it_tells_machines_the_same() {
    let ran = explain(&["--status", "503", "--attempt", "2", "-o", "json"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    for part in
        ["\"decision\": \"hop\"", "\"tier\": 2", "\"topic\": \"billing.retry-1m\"", "\"due_in_ms\": 60000", "\"rule\": null"]
    {
        assert!(ran.stdout.contains(part), "no {part} in {}", ran.stdout);
    }
    let ran = explain(&["--status", "422", "--header", "kind=refund", "-o", "json"]);
    for part in ["\"name\": \"unparseable\"", "\"topic\": \"billing.dlq-parse\"", "\"reason\": \"rejected\""] {
        assert!(ran.stdout.contains(part), "no {part} in {}", ran.stdout);
    }
}

#[test]
fn mistaken_options_are_told() {
    for (args, what) in [
        (&["--status", "99"][..], "99 is not in 100..=999"),
        (&["--header", "kind"], "write it as NAME=VALUE"),
        (&["--attempt", "0"], "0 is not in 1..=32767"),
        (&["--ladder", "nobody"], "no ladder `nobody` in the configuration, which has: billing"),
    ] {
        let ran = explain(args);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{args:?}");
        assert!(ran.stderr.contains(what), "{args:?}\n{}", ran.stderr);
    }
}

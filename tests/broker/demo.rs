//! `kladder demo`: on its embedded broker, on a real one, and interrupted.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::broker;
use crate::support::clock::{self, PATIENCE};
use crate::support::port::free_port;
use crate::support::process::{self, Finished, KLADDER, Kladder};
use crate::support::scene;
use crate::support::terminal::{Left, Terminal};

/// The demo takes as long as configured, plus starting and stopping.
const DEMO_PATIENCE: Duration = Duration::from_secs(180);

fn demo(options: &[&str]) -> Finished {
    process::finish(process::command(&[&["demo"], options].concat()), DEMO_PATIENCE)
}

#[test]
fn the_readmes_first_command_needs_no_broker_and_reckons_up_without_a_fault() {
    let mut script = Command::new(broker::in_house("scripts/demo"));
    script.args(["--for", "20s"]).env("KLADDER_BIN", KLADDER).stdin(Stdio::null());
    for name in ["KLADDER_CONFIG", "RUST_LOG", "KLADDER_LOG", "KLADDER_TEST_BROKERS", "KLADDER_BROKERS"] {
        script.env_remove(name);
    }
    let shown = process::finish(script, DEMO_PATIENCE).succeeds();
    for said in [
        "\n  sent              366\n",
        "\n  lost                0\n",
        "\n  doubled             0\n",
        "\n  early               0\n",
    ] {
        assert!(shown.stdout.contains(said), "the demo does not say {said:?}:\n{shown}");
    }
    for said in
        ["exhausted ", "rejected ", "lateness       p50 ", "longest stall ", "in order: sent = done + dead-lettered + waiting"]
    {
        assert!(shown.stdout.contains(said), "the demo does not say {said:?}:\n{shown}");
    }
    assert_eq!(shown.stderr.matches("hops are at-least-once").count(), 2, "on start and on end:\n{shown}");
    for said in ["metrics at http://127.0.0.1:", "OUTAGE: ", "BAD DEPLOYMENT: ", "breaker OPEN"] {
        assert!(shown.stderr.contains(said), "the progress does not say {said:?}:\n{shown}");
    }
}

#[test]
fn a_real_cluster_gives_the_same_reckoning_and_what_is_left_there_is_told() {
    let shown = demo(&["--for", "20s", "--brokers", broker::brokers(), "-o", "json"]).succeeds();
    let name = shown.stderr.split_whitespace().find(|word| word.starts_with("kladder-demo-")).expect("the name of the run");
    assert!(shown.stderr.contains("with exactly-once hops") && !shown.stderr.contains("at-least-once"), "{shown}");
    assert!(shown.stderr.contains(&format!("--delete --topic '{name}[-.].*'")), "{shown}");
    let reckoning: Value = serde_json::from_str(&shown.stdout).expect("JSON on stdout, and nothing else");
    let number = |field: &str| reckoning[field].as_u64().unwrap_or_else(|| panic!("no {field} in:\n{shown}"));
    assert_eq!(reckoning["in_order"], true, "{shown}");
    assert_eq!([number("lost"), number("doubled"), number("early")], [0; 3], "{shown}");
    assert_eq!(number("sent"), number("done") + number("dead_lettered") + number("waiting"), "{shown}");

    // The same by the tests' own reader.
    let count = |topic: &str| u64::try_from(broker::read(topic).len()).expect("a count");
    assert_eq!(count(&format!("{name}-orders")), number("sent"), "{shown}");
    assert_eq!(count(&format!("{name}.dlq")), number("dead_lettered"), "{shown}");
    let hops: Vec<u64> = reckoning["hops"].as_array().expect("a list").iter().filter_map(Value::as_u64).collect();
    let tiers = ["300ms", "1s", "2s"].map(|delay| count(&format!("{name}.retry-{delay}")));
    assert_eq!(hops, tiers, "{shown}");
    broker::delete_topics(&[&format!("{name}-orders"), &format!("{name}.")]);
}

#[test]
fn an_interrupted_demo_drains_and_reckons_up_what_there_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut kladder = Kladder::start(&["demo", "--for", "5m"], &folder.path().join("log"));
    let told = |log: &str| log.split_once("metrics at http://127.0.0.1:")?.1.split_once('/')?.0.parse::<u16>().ok();
    let port = clock::poll(PATIENCE, || told(&kladder.log())).expect("a printed address");
    clock::eventually("records climb, and the printed address serves metrics", PATIENCE, || {
        let (_, metrics) = scene::get(port, "/metrics").unwrap_or_default();
        metrics.lines().any(|line| line.starts_with("kladder_lateness_seconds_count{") && !line.ends_with(" 0"))
    });
    kladder.signal("INT");
    let ended = kladder.ended(DEMO_PATIENCE).and_then(|status| status.code());
    let log = kladder.log();
    assert_eq!(ended, Some(0), "{log}");
    assert!(log.contains("interrupted: draining") && log.contains("in order: sent = done + dead-lettered + waiting"), "{log}");
    for said in ["\n  lost                0\n", "\n  doubled             0\n", "\n  early               0\n"] {
        assert!(log.contains(said), "the demo does not say {said:?}:\n{log}");
    }
    process::assert_clean(&log);
}

fn has(lines: &[String], text: &str) -> bool {
    lines.iter().any(|line| line.contains(text))
}

#[test]
fn on_a_terminal_it_is_a_picture_and_the_reckoning_stays() {
    let demo = Terminal::run((100, 30), &["demo", "--for", "20s"], &[]);
    demo.shows("the ladder, who works on it, and orders", |lines| {
        has(lines, "RUNNING") && has(lines, "source kladder-demo-orders") && has(lines, "retry-300ms") && has(lines, "  sent ")
    });
    demo.shows("the outage and what it does to the breaker", |lines| has(lines, "OUTAGE: ") && has(lines, "handler DOWN"));
    demo.shows("how late records came back", |lines| {
        lines.iter().any(|line| line.starts_with("retry-300ms") && line.ends_with("ms"))
    });
    demo.shows("the reckoning, where the picture was", |lines| has(lines, "in order: sent = done + dead-lettered + waiting"));
    assert_eq!(demo.left(), Left { code: Some(0), settings_restored: true, on_alternate_screen: false, cursor_hidden: false });
}

#[test]
fn a_key_or_a_signal_ends_the_picture_and_the_demo_in_order() {
    for end in ["q", "TERM", "HUP"] {
        let mut demo = Terminal::run((100, 30), &["demo", "--for", "5m"], &[]);
        demo.shows("records climb", |lines| lines.iter().any(|line| line.starts_with("retry-1s") && line.ends_with("ms")));
        match end {
            "q" => demo.press("q"),
            signal => demo.signal(signal),
        }
        demo.shows("that it drains, and the reckoning", |lines| {
            has(lines, "interrupted: draining") && has(lines, "in order: sent = done + dead-lettered + waiting")
        });
        let left = demo.left();
        assert_eq!((left.code, left.settings_restored, left.on_alternate_screen), (Some(0), true, false), "{end}");
    }
}

#[test]
fn the_printed_configuration_is_a_start_for_ones_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let printed = demo(&["--print-config", "--brokers", "kafka:9092"]).succeeds();
    assert!(printed.stdout.contains(r#"hops = "exactly-once""#) && printed.stdout.contains("kafka:9092"), "{printed}");
    let file = folder.path().join("kladder.toml");
    std::fs::write(&file, &printed.stdout).expect("a file");
    let checked = process::kladder(&["check", "-c", file.to_str().expect("a path")]).succeeds();
    assert!(checked.stdout.contains("kladder-demo.retry-6s"), "{checked}");
}

#[test]
fn a_cluster_that_is_away_and_a_length_that_is_none_are_refused() {
    let away = format!("127.0.0.1:{}", free_port());
    demo(&["--brokers", &away]).refuses(1, &["no broker answered", &away]);
    demo(&["--for", "5s"]).refuses(2, &["must be from 10s to 1h"]);
}

//! Invalid input from outside: each case gets a helpful message and the documented exit code, and no record is lost.

use std::time::Duration;

use crate::support::broker;
use crate::support::checker::FAILURE;
use crate::support::clock::{self, PATIENCE};
use crate::support::handler::{Answer, ClosedPort};
use crate::support::process::{self, Kladder, assert_clean};
use crate::support::raw::RawProducer;
use crate::support::records;
use crate::support::scene::{Scene, path};

const FAILED: i32 = 1;
const USAGE: i32 = 2;

#[test]
fn an_unknown_key_is_refused_with_its_path_and_the_right_word() {
    let scene = Scene::new("unknown-key", &["1s"]);
    let config = scene.write_text(&scene.toml().replace("max_in_flight", "max_inflight"));
    for command in ["check", "setup", "doctor", "run", "status"] {
        process::kladder(&[command, "-c", path(&config)])
            .refuses(USAGE, &["kladder.toml", "max_inflight", &scene.ladder, "max_in_flight"]);
    }
}

#[test]
fn two_tiers_alike_are_refused() {
    let scene = Scene::new("alike", &["1m", "60s"]);
    let config = scene.write();
    for command in ["check", "setup", "run"] {
        process::kladder(&[command, "-c", path(&config)]).refuses(USAGE, &["tiers", "1m", &scene.ladder]);
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let mut scene = Scene::new("all", &["1s", "1s"]);
    scene.settings = "start = \"sometime\"".to_owned();
    scene.kafka = "group.id = \"mine\"".to_owned();
    scene.handler = "ftp://example.org".to_owned();
    let config = scene.write();
    process::kladder(&["check", "-c", path(&config)]).refuses(USAGE, &["tiers", "sometime", "group.id", "ftp"]);
}

#[test]
fn a_missing_configuration_is_named() {
    process::kladder(&["run", "-c", "/nowhere/kladder.toml"]).refuses(USAGE, &["/nowhere/kladder.toml"]);
    let mut nothing_said = process::command(&["run"]);
    let empty = tempfile::tempdir().expect("a folder");
    nothing_said.current_dir(&empty).env("HOME", empty.path());
    process::finish(nothing_said, PATIENCE).refuses(USAGE, &["kladder.toml", "kladder init"]);
}

#[test]
fn without_a_broker_the_address_and_what_to_check_are_said() {
    let mut scene = Scene::new("no-broker", &["1s"]);
    // Nothing listens on the discard port.
    scene.brokers = "127.0.0.1:9".to_owned();
    let config = scene.write();
    process::kladder(&["setup", "-c", path(&config), "--yes"]).refuses(FAILED, &["127.0.0.1:9", "bootstrap.servers"]);
    for command in ["status", "doctor"] {
        process::kladder(&[command, "-c", path(&config)]).refuses(FAILED, &["127.0.0.1:9", "bootstrap.servers"]);
    }
}

#[test]
fn a_wrong_password_is_called_so_and_never_printed() {
    let mut scene = Scene::with_source("password", &["1s"], 1);
    scene.brokers = broker::sasl_brokers().to_owned();
    let sasl = |password| {
        format!(
            "security.protocol = \"SASL_PLAINTEXT\"\nsasl.mechanism = \"PLAIN\"\n\
             sasl.username = \"kladder\"\nsasl.password = \"{password}\""
        )
    };
    scene.kafka = sasl("not-the-secret");
    let refused = scene.setup();
    refused.refuses(FAILED, &["refused the login", "sasl.password"]);
    assert!(!refused.to_string().contains("not-the-secret"), "the password was printed:\n{refused}");
    assert!(!broker::topics().contains_key(&scene.dlq_topic()));

    scene.kafka = sasl("kladder-secret");
    scene.setup().succeeds();
    assert!(broker::topics().contains_key(&scene.dlq_topic()));
}

#[test]
fn a_missing_source_is_named_and_nothing_is_created() {
    let scene = Scene::new("no-source", &["1s"]);
    let config = scene.write();
    let said = process::kladder(&["setup", "-c", path(&config), "--yes"]);
    said.refuses(USAGE, &[&scene.source, "does not exist"]);
    assert!(!broker::topics().keys().any(|topic| topic.starts_with(&scene.ladder)), "setup left something behind");
    let run = process::kladder(&["run", "-c", path(&config)]);
    run.refuses(FAILED, &[&scene.source, "does not exist"]);
}

#[test]
fn topics_that_setup_has_not_made_are_named_with_the_command() {
    let scene = Scene::with_source("no-setup", &["1s"], 1);
    process::kladder(&["run", "-c", path(&scene.write())]).refuses(FAILED, &["kladder setup"]);
}

#[test]
fn without_offsets_the_start_must_be_said() {
    let mut scene = Scene::with_source("no-start", &["1s"], 1);
    scene.settings = String::new();
    RawProducer::new(&scene.brokers).write(&scene.source, &[records::plain(0, 1)]);
    let said = scene.setup();
    said.refuses(USAGE, &[&scene.group, "start = \"earliest\" or \"latest\"", &format!("[ladder.{}]", scene.ladder)]);
    assert_eq!(broker::lag(&scene.group, &scene.source), 1, "an offset was chosen without being told to");
}

#[test]
fn a_handler_that_is_down_costs_no_attempt_and_no_record() {
    const RECORDS: usize = 30;
    let port = ClosedPort::reserve();
    let mut scene = Scene::with_source("down", &["1s"], 3);
    scene.handler = port.url();
    let address = port.address();
    let config = scene.set_up();
    RawProducer::new(&scene.brokers).write(&scene.source, &(0..RECORDS).map(|n| records::plain(n, 3)).collect::<Vec<_>>());
    let mut kladder = Kladder::run(&config);
    clock::eventually("the log names the handler and says that it waits", PATIENCE, || {
        let log = kladder.log();
        log.contains(&address) && log.contains("refused") && log.contains("no attempt is counted")
    });
    // The worker is up and reports it although the handler is down.
    scene.await_ready();
    kladder.assert_running();

    let handler = port.open(|call| if call.attempt == 1 { Answer::fail(503, FAILURE) } else { Answer::ok() });
    clock::eventually("every record is delivered and retried", Duration::from_secs(30), || handler.count() >= 2 * RECORDS);
    let mut attempts: Vec<(i32, i64, u32)> = handler.calls().iter().map(|c| (c.partition, c.offset, c.attempt)).collect();
    attempts.sort_unstable();
    let expected: Vec<(i32, i64, u32)> = (0..3).flat_map(|p| (0..10).flat_map(move |o| [(p, o, 1), (p, o, 2)])).collect();
    assert_eq!(attempts, expected);
    assert!(broker::read(&scene.dlq_topic()).is_empty());
    assert_eq!(broker::read(&scene.tier_topic("1s")).len(), RECORDS, "only what the handler refused has hopped");
    assert_clean(&kladder.log());
}

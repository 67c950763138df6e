//! Topics refused by the cluster: its message is shown before anything is created, with remedies that work.

use serde_json::Value;

use crate::support::broker;
use crate::support::hosted::{HostedBroker, NOBODY};
use crate::support::process::{self, Finished};
use crate::support::scene::{Scene, path};

const DONE: i32 = 0;
const USAGE: i32 = 2;
const DRIFT: i32 = 3;

fn setup(scene: &Scene, how: &str) -> Finished {
    process::kladder(&["setup", "-c", path(&scene.write()), how])
}

/// The existing topics of the ladder; the source has a similar name but is not one of them.
fn own_topics(scene: &Scene) -> Vec<String> {
    let begins = format!("{}.", scene.ladder);
    let topics = broker::topics_on(&scene.cluster).into_keys();
    topics.filter(|name| name.starts_with(&begins) && *name != scene.source).collect()
}

#[test]
fn a_hosted_clusters_rules_are_told_and_kept_to() {
    let hosted = HostedBroker::shared();
    let mut scene = Scene::on(&hosted.address, "hosted", &["1s", "2s"]);
    // At the cluster's limit: with kladder's headers, those of the ladder would exceed it.
    broker::create_topic_on(&hosted.address, &scene.source, 1, &[("max.message.bytes", "2000000")]);

    // Which rule the cluster reports first is undefined; its message is passed on.
    for how in ["--dry-run", "--yes"] {
        let said = setup(&scene, how);
        assert_eq!(said.code, Some(USAGE), "{said}");
        let words = ["Config min.insync.replicas cannot be set on this cluster", "must be at most 2000000"];
        assert!(words.iter().any(|words| said.stdout.contains(words)), "{said}");
        assert!(
            said.stdout
                .contains(&format!("settings = {{ \"min.insync.replicas\" = \"default\" }} of [ladder.{}.topics]", scene.ladder)),
            "{said}"
        );
        assert_eq!(own_topics(&scene), Vec::<String>::new(), "all or none, and nothing by {how}");
    }

    // Only one of the remedies: the state topic alone could be created now, and is not.
    scene.settings.push_str("\ntopics.settings.min.insync.replicas = \"default\"");
    let said = setup(&scene, "--yes");
    said.refuses(USAGE, &["Config max.message.bytes has value 2016384 but must be at most 2000000", "\"max.message.bytes\""]);
    assert_eq!(own_topics(&scene), Vec::<String>::new());

    scene.settings.push_str("\ntopics.settings.\"max.message.bytes\" = 2000000");
    let said = setup(&scene, "--yes").succeeds();
    assert!(said.stdout.contains("max.message.bytes 2000000 (configured) is less"), "{said}");
    assert_eq!(own_topics(&scene).len(), 5);
    assert_eq!(setup(&scene, "--yes").code, Some(DONE), "nothing is left to do");
    assert_eq!(process::kladder(&["doctor", "-c", path(&scene.write())]).code, Some(DONE));
}

#[test]
fn a_ladder_made_by_hand_within_a_cap_is_in_order() {
    let hosted = HostedBroker::shared();
    let scene = Scene::on(&hosted.address, "capped", &["1s", "2s"]);
    broker::create_topic_on(&hosted.address, &scene.source, 1, &[("max.message.bytes", "2000000")]);
    let ways = [("cleanup.policy", "delete"), ("max.message.bytes", "2000000"), ("message.timestamp.type", "LogAppendTime")];
    let kept = |retention: &'static str| [ways.as_slice(), &[("retention.ms", retention), ("retention.bytes", "-1")]].concat();
    for topic in [scene.tier_topic("1s"), scene.tier_topic("2s"), scene.redeliver_topic()] {
        broker::create_topic_on(&hosted.address, &topic, 1, &kept("604900000"));
    }
    broker::create_topic_on(&hosted.address, &scene.dlq_topic(), 1, &kept("2592000000"));
    let compacted = [("cleanup.policy", "compact"), ("message.timestamp.type", "LogAppendTime")];
    broker::create_topic_on(&hosted.address, &format!("{}.state", scene.ladder), 1, &compacted);

    let said = setup(&scene, "--yes").succeeds();
    let note =
        format!("note: {}: max.message.bytes is 2000000, not 2016384, which the cluster does not accept", scene.dlq_topic());
    assert!(said.stdout.contains(&note) && !said.stdout.contains("kafka-configs"), "{said}");
    assert_eq!(setup(&scene, "--yes").code, Some(DONE), "and so it stays");
    let said = process::kladder(&["doctor", "-c", path(&scene.write()), "-o", "json"]).succeeds();
    let report: Value = serde_json::from_str(&said.stdout).expect("JSON");
    let found = report["ladders"][0]["findings"].as_array().expect("findings");
    let of_cap = |f: &&Value| f["problem"].as_str().is_some_and(|problem| problem.contains("must be at most 2000000"));
    assert_eq!(found.iter().filter(of_cap).count(), 4, "{report:#}");
    assert!(found.iter().filter(of_cap).all(|f| f["severity"] == "note" && f["remedy"].is_null()), "{report:#}");

    // What the cluster would accept is drift as usual, with the command that fixes it.
    broker::alter_topic_on(&hosted.address, &scene.dlq_topic(), "retention.ms=86400000");
    let said = setup(&scene, "--yes");
    assert_eq!(said.code, Some(DRIFT), "{said}");
    assert!(said.stdout.contains("--add-config retention.ms=2592000000"), "{said}");
}

#[test]
fn names_replicas_and_settings_that_the_cluster_refuses_are_told_by_dry_run() {
    let refused = |scene: &Scene, words: &[&str]| {
        setup(scene, "--dry-run").refuses(USAGE, words);
        setup(scene, "--yes").refuses(USAGE, words);
        assert_eq!(own_topics(scene), Vec::<String>::new(), "nothing is made");
    };
    // Kafka treats `.` and `_` alike in metric names.
    let scene = Scene::with_source("collides", &["1s", "2s"], 1);
    let other = format!("{}_retry-2s", scene.ladder);
    broker::create_topic(&other, 1, &[]);
    refused(&scene, &["collide", &other, "`.` and `_`"]);

    let mut scene = Scene::with_source("replicas", &["1s"], 1);
    scene.settings.push_str("\ntopics.replication_factor = 3");
    refused(&scene, &["eplication factor", "set replication_factor of [ladder."]);

    let mut scene = Scene::with_source("unknown-setting", &["1s"], 1);
    scene.settings.push_str("\ntopics.settings = { \"no.such.setting\" = 1 }");
    refused(&scene, &["no.such.setting"]);

    let mut scene = Scene::with_source("too-many-in-sync", &["1s"], 1);
    scene.settings.push_str("\ntopics.settings = { \"min.insync.replicas\" = 2 }");
    refused(&scene, &["min.insync.replicas=2 is more than its replication factor of 1"]);
}

#[test]
fn settings_of_topics_are_set_as_they_are_said() {
    let mut scene = Scene::with_source("own-settings", &["1s"], 1);
    scene.settings.push_str(
        "\ntopics.settings = { \"segment.ms\" = 600000, compression.type = \"zstd\", \"retention.bytes\" = \"default\" }",
    );
    let config = scene.set_up();
    let of = |topic: &str, name: &str| broker::setting(topic, name);
    for topic in [scene.tier_topic("1s"), scene.dlq_topic(), format!("{}.state", scene.ladder)] {
        assert_eq!(
            (of(&topic, "segment.ms"), of(&topic, "compression.type")),
            ("600000".to_owned(), "zstd".to_owned()),
            "{topic}"
        );
    }
    assert_eq!(process::kladder(&["setup", "-c", path(&config), "--yes"]).code, Some(DONE));
    broker::alter_topic(&scene.dlq_topic(), "segment.ms=700000");
    let said = process::kladder(&["setup", "-c", path(&config), "--yes"]);
    assert_eq!(said.code, Some(DRIFT), "{said}");
    assert!(said.stdout.contains("segment.ms is 700000, not 600000"), "{said}");
}

#[test]
fn no_lookup_makes_a_topic_where_the_cluster_makes_them_by_itself() {
    let hosted = HostedBroker::shared();
    let mut scene = Scene::on(&hosted.address, "lookups", &["1s"]);
    // As with a misspelled name.
    let config = scene.write();
    let config = path(&config);
    let missing = format!("{}.gone-dlt", scene.ladder);
    let begins = format!("{}.", scene.ladder);
    let commands: [&[&str]; 8] = [
        &["setup", "-c", config, "--dry-run"],
        &["setup", "-c", config, "--yes"],
        &["doctor", "-c", config],
        &["status", "-c", config],
        &["run", "-c", config],
        &["hold", "-c", config, "--why", "a test"],
        &["dlq", "list", "-b", &hosted.address, "-t", &missing],
        &["dlq", "groups", "-b", &hosted.address, "-t", &missing],
    ];
    for command in commands {
        process::kladder(command);
        let topics: Vec<String> =
            broker::topics_on(&hosted.address).into_keys().filter(|name| name.starts_with(&begins)).collect();
        assert_eq!(topics, Vec::<String>::new(), "{command:?}");
    }
    scene.kafka = "allow.auto.create.topics = true".to_owned();
    process::kladder(&["check", "-c", path(&scene.write())]).refuses(USAGE, &["allow.auto.create.topics", "kladder setup"]);
}

#[test]
fn a_broker_that_is_not_where_the_cluster_says_is_named_by_that_address() {
    let hosted = HostedBroker::shared();
    let mut scene = Scene::on(&hosted.address, "astray", &["1s"]);
    broker::create_topic_on(&hosted.address, &scene.source, 1, &[]);
    scene.settings.push_str("\ntopics.settings = { \"min.insync.replicas\" = \"default\" }");
    scene.set_up();
    hosted.astray.clone_into(&mut scene.brokers);
    let config = scene.write();
    for command in ["doctor", "setup", "status"] {
        let said = process::kladder(&[command, "-c", path(&config)]);
        said.refuses(1, &[NOBODY, "advertised.listeners", &hosted.astray]);
    }
}

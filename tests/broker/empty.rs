//! An empty ladder is reported as empty: by `kladder status` and by Kafka's own tool.

use serde_json::Value;

use crate::support::broker::{self, GroupLine};
use crate::support::clock::{self, PATIENCE};
use crate::support::handler::{Answer, Handler};
use crate::support::process::{self, Kladder};
use crate::support::raw::RawProducer;
use crate::support::records;
use crate::support::scene::{self, Scene};

const RECORDS: usize = 60;

#[test]
fn after_a_drain_waiting_and_kafkas_own_lag_read_0_on_every_tier() {
    let handler = Handler::start(|call| if call.attempt <= 2 { Answer::fail(503, "later") } else { Answer::ok() });
    let mut scene = Scene::with_source("empty", &["1s", "2s"], 3);
    scene.handler = handler.url().to_owned();
    let config = scene.set_up();
    RawProducer::new(&scene.brokers).write(&scene.source, &(0..RECORDS).map(|n| records::plain(n, 3)).collect::<Vec<_>>());
    let mut kladder = Kladder::run(&config);

    clock::eventually("records wait in the first tier", PATIENCE, || waiting(&scene, &config).iter().sum::<u64>() > 0);
    clock::eventually("all are done", PATIENCE, || handler.count() >= 3 * RECORDS);
    clock::eventually("status shows no waiting record", PATIENCE, || waiting(&scene, &config) == [0, 0]);

    // Transactions write markers, which count as offsets: the committed position must pass them
    // too.
    let mut lines = Vec::new();
    clock::eventually("Kafka's own tool shows no lag", PATIENCE, || {
        lines = broker::describe_group(&scene.mover_group());
        lines.iter().all(|line| line.lag == Some(0))
    });
    for tier in &scene.tiers {
        let of_tier: Vec<&GroupLine> = lines.iter().filter(|line| line.topic == scene.tier_topic(tier)).collect();
        assert_eq!(of_tier.len(), 3, "a line for each partition of tier {tier}: {lines:?}");
        assert!(of_tier.iter().any(|line| line.end > Some(0)), "records went through tier {tier}: {lines:?}");
    }
    let of_group = broker::describe_group(&scene.group);
    assert!(of_group.iter().all(|line| line.lag == Some(0)), "{of_group:?}");
    kladder.assert_running();

    // The same without a worker.
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0));
    assert_eq!(waiting(&scene, &config), [0, 0]);
}

/// The output of `kladder status -o json` for each tier.
fn waiting(scene: &Scene, config: &std::path::Path) -> Vec<u64> {
    let status = process::kladder(&["status", "-c", scene::path(config), "-o", "json"]).succeeds();
    let status: Value = serde_json::from_str(&status.stdout).expect("JSON");
    let ladder = status["ladders"].as_array().and_then(|all| all.iter().find(|l| l["ladder"] == scene.ladder.as_str()));
    let tiers = ladder.and_then(|l| l["tiers"].as_array()).unwrap_or_else(|| panic!("no tiers of the ladder in {status:#}"));
    tiers.iter().map(|t| t["waiting"].as_u64().unwrap_or_else(|| panic!("no waiting in {t:#}"))).collect()
}

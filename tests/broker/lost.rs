//! Offsets that the broker has lost: the worker stops and says what to decide, and never skips records
//! silently.

use std::path::Path;

use crate::support::broker;
use crate::support::clock::{self, PATIENCE};
use crate::support::handler::{Answer, Handler};
use crate::support::process::{Kladder, assert_clean};
use crate::support::raw::RawProducer;
use crate::support::records;
use crate::support::scene::Scene;

#[test]
fn an_offset_beyond_the_end_stops_the_worker() {
    let (scene, handler, config) = five_records("beyond-end");
    broker::commit(&scene.group, &scene.source, 0, 100, "");
    stops(&config, &scene.group, &scene.source);
    assert_eq!(handler.count(), 0);
}

#[test]
fn records_deleted_before_they_were_consumed_stop_the_worker() {
    let (scene, handler, config) = five_records("retention");
    broker::delete_records(&scene.source, 0, 3);
    stops(&config, &scene.group, &scene.source);
    assert_eq!(handler.count(), 0, "what is left must wait for the decision too");
}

#[test]
fn waiting_records_deleted_from_a_tier_stop_the_worker() {
    let (scene, _handler, config) = five_records("tier-retention");
    let tier = scene.tier_topic("1s");
    RawProducer::new(&scene.brokers).write(&tier, &(5..10).map(|n| records::plain(n, 1)).collect::<Vec<_>>());
    broker::delete_records(&tier, 0, 4);
    stops(&config, &scene.mover_group(), &tier);
    assert!(broker::read(&scene.redeliver_topic()).is_empty());
}

#[test]
fn a_source_made_anew_under_a_running_worker_stops_it() {
    let (scene, handler, config) = five_records("made-anew");
    let mut kladder = Kladder::run(&config);
    clock::eventually("the records are done", PATIENCE, || broker::lag(&scene.group, &scene.source) == 0);
    broker::delete_topics(&[&scene.source]);
    clock::eventually("the source is gone", PATIENCE, || !broker::topics().contains_key(&scene.source));
    broker::create_topic(&scene.source, 1, &[]);
    let ended = kladder.ended(PATIENCE).unwrap_or_else(|| panic!("it goes on; its log:\n{}", kladder.log()));
    let log = kladder.log();
    assert_eq!(ended.code(), Some(1), "its log:\n{log}");
    assert!(log.contains("--reset-offsets") && log.contains(&scene.group), "its log:\n{log}");
    assert_clean(&log);
    assert_eq!(handler.count(), 5);
}

/// A ladder over a source of one partition with five records, never run.
fn five_records(theme: &str) -> (Scene, Handler, std::path::PathBuf) {
    let handler = Handler::start(|_| Answer::ok());
    let mut scene = Scene::with_source(theme, &["1s"], 1);
    handler.url().clone_into(&mut scene.handler);
    let config = scene.set_up();
    RawProducer::new(&scene.brokers).write(&scene.source, &(0..5).map(|n| records::plain(n, 1)).collect::<Vec<_>>());
    (scene, handler, config)
}

#[track_caller]
fn stops(config: &Path, group: &str, topic: &str) {
    let mut kladder = Kladder::run(config);
    let ended = kladder.ended(PATIENCE).unwrap_or_else(|| panic!("it goes on; its log:\n{}", kladder.log()));
    let log = kladder.log();
    assert_eq!(ended.code(), Some(1), "its log:\n{log}");
    let remedy = format!("kafka-consumer-groups --group {group} --topic {topic} --reset-offsets");
    assert!(log.contains("no longer has the committed offset") && log.contains(&remedy), "its log:\n{log}");
    assert_clean(&log);
}

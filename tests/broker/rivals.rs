//! Workers with the same name, workers presumed dead, and group members that are not workers.

use std::path::Path;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::support::broker;
use crate::support::checker::{self, FAILURE, Hops};
use crate::support::clock::{self, PATIENCE};
use crate::support::handler::{Answer, Handler};
use crate::support::independent;
use crate::support::load;
use crate::support::process::{Kladder, assert_clean};
use crate::support::scene::{self, Scene};

const PARTITIONS: i32 = 6;

/// Longer than a session (10 s), a transaction (10 s) and the coordinator's interval for aborting expired transactions (10
/// s).
const PAST_EVERY_TIMEOUT: Duration = Duration::from_secs(25);

const RIVAL: &str = "another live worker has the name of this";

fn failures(number: usize) -> u32 {
    [0, 1, 0, 2, u32::MAX, 1][number % 6]
}

fn ladder(theme: &str, settings: &str) -> (Scene, Handler) {
    let handler = Handler::start(|call| {
        let fails = call.attempt <= failures(load::number_of(call, PARTITIONS));
        let answer = if fails { Answer::fail(503, FAILURE) } else { Answer::ok() };
        answer.after(Duration::from_millis(20))
    });
    let mut scene = Scene::with_source(theme, &["500ms", "1s", "2s"], PARTITIONS);
    handler.url().clone_into(&mut scene.handler);
    scene.max_in_flight = 16;
    scene.settings += settings;
    scene.set_up();
    (scene, handler)
}

fn delivers(worker: &mut Kladder, health: u16) {
    let before = scene::metric_at(health, "kladder_deliveries_total", "").unwrap_or(0.0);
    clock::eventually("the worker delivers", PATIENCE, || {
        worker.assert_running();
        scene::metric_at(health, "kladder_deliveries_total", "").is_some_and(|now| now > before + 20.0)
    });
}

/// The remaining worker completes everything; then no record may be missing, and no hop duplicated where that is promised.
fn finishes(scene: &Scene, handler: &Handler, last: &mut Kladder, sent: usize, hops: Hops) {
    let shape = scene.shape();
    let dead = (0..sent).filter(|n| failures(*n) >= shape.attempts).count();
    let back: usize = (0..sent).map(|n| usize::try_from(failures(n).min(shape.attempts - 1)).unwrap_or(0)).sum();
    clock::eventually("every record is done or dead", PATIENCE * 2, || {
        last.assert_running();
        broker::read(&scene.dlq_topic()).len() >= dead
            && broker::read(&scene.redeliver_topic()).len() >= back
            && broker::lag(&scene.group, &scene.redeliver_topic()) == 0
            && broker::lag(&scene.group, &scene.source) == 0
            && scene.tiers.iter().all(|tier| broker::lag(&scene.mover_group(), &scene.tier_topic(tier)) == 0)
    });
    assert_eq!(last.terminate(PATIENCE).code(), Some(0), "its log:\n{}", last.log());
    let observed = independent::observe(scene, handler);
    assert_eq!(observed.source.len(), sent);
    let report = checker::check(&shape, hops, &observed, failures);
    println!("{sent} records, {} calls, {} of them beyond the plan", observed.calls.len(), report.extra_calls);
    report.assert_no_faults();
}

#[track_caller]
fn names_its_rival(worker: &mut Kladder, scene: &Scene, instance: &str) {
    let ended = worker.ended(PATIENCE).unwrap_or_else(|| panic!("it goes on; its log:\n{}", worker.log()));
    let log = worker.log();
    assert_eq!(ended.code(), Some(1), "its log:\n{log}");
    let named = log.lines().any(|line| {
        line.contains(RIVAL)
            && line.contains(&scene.ladder)
            && line.contains(&format!("`{instance}`"))
            && line.contains("[worker]")
    });
    assert!(named, "its log:\n{log}");
    assert_clean(&log);
}

fn two_of_one_name(theme: &str, settings: &str, hops: Hops) {
    let (scene, handler) = ladder(theme, settings);
    let (older_config, older_health) = scene.write_worker("twin");
    let (mut newer, sent) = load::under_load(&scene, PARTITIONS, Duration::from_millis(40), || {
        let mut older = Kladder::run(&older_config);
        delivers(&mut older, older_health);
        let (newer_config, newer_health) = scene.write_worker_as("twin", "newer");
        let mut newer = Kladder::run(&newer_config);
        names_its_rival(&mut older, &scene, "twin");
        delivers(&mut newer, newer_health);
        newer
    });
    finishes(&scene, &handler, &mut newer, sent, hops);
    assert!(!newer.log().contains(RIVAL), "its log:\n{}", newer.log());
}

#[test]
fn of_two_workers_of_one_name_the_older_ends_and_names_the_other() {
    two_of_one_name("rival", "", Hops::ExactlyOnce);
}

#[test]
fn of_two_workers_of_one_name_the_older_ends_without_transactions_too() {
    two_of_one_name("rival-alo", "\nhops = \"at-least-once\"", Hops::AtLeastOnce);
}

fn stopped_past_every_timeout(theme: &str, settings: &str, replacement: &str, hops: Hops) {
    let (scene, handler) = ladder(theme, settings);
    let (first_config, first_health) = scene.write_worker("first");
    let ((mut first, mut second), sent) = load::under_load(&scene, PARTITIONS, Duration::from_millis(60), || {
        let mut first = Kladder::run(&first_config);
        delivers(&mut first, first_health);
        // One that was stopped before it had joined is a newcomer when it continues, and newcomers
        // win.
        let rebalances = |role: &str| {
            let role = format!("role=\"{role}\"");
            scene::metric_at(first_health, "kladder_rebalances_total", &role).unwrap_or_default()
        };
        // The deliverer has a member for each of its two topics.
        clock::eventually("all its members have joined", PATIENCE, || {
            rebalances("mover") >= 1.0 && rebalances("deliverer") >= 2.0
        });
        first.signal("STOP");
        let (second_config, second_health) = scene.write_worker_as(replacement, "second");
        let mut second = Kladder::run(&second_config);
        clock::pause(PAST_EVERY_TIMEOUT);
        delivers(&mut second, second_health);
        first.signal("CONT");
        if replacement == "first" {
            names_its_rival(&mut first, &scene, "first");
        } else {
            delivers(&mut first, first_health);
        }
        delivers(&mut second, second_health);
        (first, second)
    });
    if replacement != "first" {
        assert!(!first.log().contains(RIVAL), "its log:\n{}", first.log());
        assert_eq!(first.terminate(PATIENCE).code(), Some(0), "its log:\n{}", first.log());
    }
    finishes(&scene, &handler, &mut second, sent, hops);
    assert!(!second.log().contains(RIVAL), "its log:\n{}", second.log());
}

#[test]
fn a_worker_that_was_stopped_past_every_timeout_comes_back_beside_its_replacement() {
    stopped_past_every_timeout("zombie", "", "second", Hops::ExactlyOnce);
}

#[test]
fn a_worker_that_was_stopped_while_another_took_its_name_ends_and_names_it() {
    stopped_past_every_timeout("zombie-twin", "", "first", Hops::ExactlyOnce);
}

#[test]
fn a_stopped_worker_whose_name_was_taken_ends_without_transactions_too() {
    stopped_past_every_timeout("zombie-alo", "\nhops = \"at-least-once\"", "first", Hops::AtLeastOnce);
}

#[test]
fn killed_workers_are_nobodys_rivals() {
    killed_and_started_again("killed", "", Hops::ExactlyOnce);
}

#[test]
fn killed_workers_lose_nothing_without_transactions_either() {
    killed_and_started_again("killed-alo", "\nhops = \"at-least-once\"", Hops::AtLeastOnce);
}

fn killed_and_started_again(theme: &str, settings: &str, hops: Hops) {
    let (scene, handler) = ladder(theme, settings);
    let (config, health) = scene.write_worker("again");
    let (mut last, sent) = load::under_load(&scene, PARTITIONS, Duration::from_millis(40), || {
        for _ in 0..4 {
            let mut worker = Kladder::run(&config);
            delivers(&mut worker, health);
            worker.kill_dash_nine();
        }
        let mut last = Kladder::run(&config);
        delivers(&mut last, health);
        last
    });
    finishes(&scene, &handler, &mut last, sent, hops);
    assert!(!last.log().contains(RIVAL), "its log:\n{}", last.log());
}

/// A group member that is not a worker, until it is dropped.
fn stranger(group: &str, topic: &str, protocol: &str) -> BaseConsumer {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", broker::brokers())
        .set("group.id", group)
        .set("client.id", "the-old-billing-app")
        .set("group.protocol", protocol)
        .set("enable.auto.commit", "false")
        .create()
        .expect("a consumer");
    consumer.subscribe(&[topic]).expect("a subscription");
    clock::eventually("the stranger is a member", PATIENCE, || {
        let _ = consumer.poll(Duration::from_millis(100));
        consumer.assignment().is_ok_and(|list| list.count() > 0)
    });
    consumer
}

fn a_stranger_is_refused(theme: &str, protocol: &str) {
    let handler = Handler::start(|_| Answer::ok());
    let mut scene = Scene::with_source(theme, &["1s"], 2);
    handler.url().clone_into(&mut scene.handler);
    if protocol != "classic" {
        scene.kafka = format!("consumer.group.protocol = {protocol:?}");
    }
    let config = scene.set_up();
    let consumer = stranger(&scene.group, &scene.source, protocol);
    refused(&config, &scene.group);
    // It leaves the group.
    drop(consumer);
    let mut kladder = Kladder::run(&config);
    clock::eventually("it is ready", PATIENCE, || {
        kladder.assert_running();
        matches!(scene.get("/readyz"), Some((200, _)))
    });
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
}

#[track_caller]
fn refused(config: &Path, group: &str) {
    let mut kladder = Kladder::run(config);
    let ended = kladder.ended(PATIENCE).unwrap_or_else(|| panic!("it goes on; its log:\n{}", kladder.log()));
    let log = kladder.log();
    assert_eq!(ended.code(), Some(1), "its log:\n{log}");
    for words in ["members other than kladder", "the-old-billing-app", "127.0.0.1", group, "stop them"] {
        assert!(log.contains(words), "{words:?} is missing in its log:\n{log}");
    }
    assert_clean(&log);
}

#[test]
fn a_group_with_a_stranger_in_it_is_not_joined() {
    a_stranger_is_refused("stranger", "classic");
}

#[test]
fn a_stranger_is_seen_by_the_newer_group_protocol_too() {
    a_stranger_is_refused("stranger-848", "consumer");
}

#[test]
fn two_ladders_of_one_group_are_told_apart_across_configurations() {
    let handler = Handler::start(|_| Answer::ok());
    let mut first = Scene::with_source("group-first", &["1s"], 2);
    handler.url().clone_into(&mut first.handler);
    let mut second = Scene::with_source("group-second", &["1s"], 2);
    handler.url().clone_into(&mut second.handler);
    second.group.clone_from(&first.group);
    let second_config = second.set_up();
    let mut kladder = Kladder::run(&first.set_up());
    clock::eventually("the first is ready", PATIENCE, || {
        kladder.assert_running();
        matches!(first.get("/readyz"), Some((200, _)))
    });
    let mut intruder = Kladder::run(&second_config);
    let ended = intruder.ended(PATIENCE).unwrap_or_else(|| panic!("it goes on; its log:\n{}", intruder.log()));
    let log = intruder.log();
    assert_eq!(ended.code(), Some(1), "its log:\n{log}");
    assert!(log.contains(&format!("group {} is also that of ladder {}", first.group, first.ladder)), "its log:\n{log}");
    assert_clean(&log);
    kladder.assert_running();
}

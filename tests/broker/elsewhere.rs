//! Dead letters of share groups that came without their records: each record is read where it was consumed, and one that cannot be read stops
//! only its own partition of the inbox.

use std::time::Duration;

use rdkafka::producer::Producer;

use crate::support::broker;
use crate::support::clock::{self, PATIENCE};
use crate::support::process::{self, Kladder};
use crate::support::raw::{Headers, NewRecord, RawProducer};
use crate::support::scene::{Scene, path};

/// A ladder whose inbox is the dead-letter topic of a share group; due records go to their origins.
fn scene(theme: &str, partitions: i32) -> (Scene, String) {
    let mut scene = Scene::of_relay(theme, &["500ms"], partitions);
    let inbox = format!("{}.dead", scene.source);
    broker::create_topic(&inbox, partitions, &[]);
    scene.settings = format!(
        "mode = \"relay\"\nredeliver = \"origin\"\nreaches_all_groups = true\nstart = \"earliest\"\n\
         inbox = {{ topic = \"{inbox}\", dialect = \"share-group\" }}"
    );
    (scene, inbox)
}

/// What a share group writes about a record, without the record, to this partition of the inbox.
fn bare(partition: i32, topic: &str, told_partition: &str, told_offset: &str) -> NewRecord {
    let told = [
        ("__dlq.errors.topic", topic),
        ("__dlq.errors.partition", told_partition),
        ("__dlq.errors.offset", told_offset),
        ("__dlq.errors.group", "billing"),
    ];
    let headers: Headers = told.iter().map(|(name, value)| (name.as_bytes().to_vec(), Some(value.as_bytes().to_vec()))).collect();
    NewRecord { partition, key: None, value: None, headers }
}

fn order(number: usize, partition: i32) -> NewRecord {
    NewRecord { partition, key: None, value: Some(format!("order {number}").into_bytes()), headers: Headers::new() }
}

/// The number of records that have come back to the source.
fn back(topic: &str) -> usize {
    broker::read(topic).iter().filter(|record| record.text("kladder-attempts").is_some()).count()
}

#[test]
fn places_that_cannot_be_are_nowhere_and_hold_nobody_up() {
    const PARTITIONS: i32 = 3;
    const NOWHERE: [(&str, &str); 8] = [
        ("0", "-5"),
        ("0", "-1"),
        ("1", "-2"),
        ("2", "-1001"),
        ("0", "-9223372036854775808"),
        ("0", "9223372036854775807"),
        ("-1", "0"),
        ("2147483647", "0"),
    ];
    let (scene, inbox) = scene("elsewhere-nowhere", PARTITIONS);
    let config = scene.set_up();
    let producer = RawProducer::new(&scene.brokers);
    producer.write(&scene.source, &(0..30).map(|n| order(n, i32::try_from(n % 3).expect("few"))).collect::<Vec<_>>());
    let mut letters: Vec<NewRecord> =
        NOWHERE.iter().zip(0..).map(|((partition, offset), n)| bare(n % PARTITIONS, &scene.source, partition, offset)).collect();
    letters.extend((0..30).map(|n: i32| bare(n % PARTITIONS, &scene.source, &(n % 3).to_string(), &(n / 3).to_string())));
    producer.write(&inbox, &letters);
    let mut kladder = Kladder::run(&config);
    clock::eventually("all that are somewhere came back", PATIENCE, || {
        kladder.assert_running();
        back(&scene.source) == 30
    });
    clock::eventually("the others are dead", PATIENCE, || broker::read(&scene.dlq_topic()).len() == NOWHERE.len());
    for dead in broker::read(&scene.dlq_topic()) {
        assert_eq!((dead.text("kladder-reason"), dead.value.as_deref()), (Some("no-origin"), None));
    }
    let metric = |name: &str| scene.metric(name, "role=\"router\"");
    clock::eventually("nothing stands still", PATIENCE, || metric("kladder_partitions_stopped") == Some(0.0));
    assert!(metric("kladder_worker_restarts_total").unwrap_or(0.0) < 1.0);
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
}

#[test]
fn thousands_are_read_while_the_group_is_served() {
    const PARTITIONS: i32 = 2;
    const EACH: usize = 3_000;
    let (mut scene, inbox) = scene("elsewhere-many", PARTITIONS);
    // A router that does not poll for that long is removed from its group, starts over and never gets
    // through.
    scene.kafka = "consumer.\"max.poll.interval.ms\" = 46000".to_owned();
    let config = scene.set_up();
    let producer = RawProducer::new(&scene.brokers);
    for partition in 0..PARTITIONS {
        producer.write(&scene.source, &(0..EACH).map(|n| order(n, partition)).collect::<Vec<_>>());
        // Each partition of the inbox refers to the other one of the source, some records far from the one
        // before.
        let letters: Vec<NewRecord> = (0..EACH)
            .map(|n| bare(partition, &scene.source, &(1 - partition).to_string(), &((n * 1_009) % EACH).to_string()))
            .collect();
        producer.write(&inbox, &letters);
    }
    let mut kladder = Kladder::run(&config);
    clock::eventually("all came back", PATIENCE * 2, || {
        kladder.assert_running();
        back(&scene.source) == 2 * EACH
    });
    assert_eq!(broker::read(&scene.dlq_topic()).len(), 0);
    let metric = |name: &str| scene.metric(name, "role=\"router\"");
    assert!(metric("kladder_worker_restarts_total").unwrap_or(0.0) < 1.0, "its log:\n{}", kladder.log());
    // It was assigned its partitions once, and kept them.
    assert_eq!(metric("kladder_rebalances_total"), Some(1.0), "its log:\n{}", kladder.log());
}

#[test]
fn a_source_that_is_gone_holds_up_the_partitions_that_tell_of_it_and_no_other() {
    let (scene, inbox) = scene("elsewhere-gone", 2);
    let gone = format!("{}.parcels", scene.ladder);
    broker::create_topic(&gone, 1, &[]);
    let one = format!("sources = [\"{}\"]", scene.source);
    let config = scene.write_text(&scene.toml().replace(&one, &format!("sources = [\"{}\", \"{gone}\"]", scene.source)));
    process::kladder(&["setup", "-c", path(&config), "--yes"]).succeeds();
    let producer = RawProducer::new(&scene.brokers);
    producer.write(&scene.source, &(0..22).map(|n| order(n, 1)).collect::<Vec<_>>());
    let mut kladder = Kladder::run(&config);
    scene.await_ready();
    broker::delete_topics(&[&gone]);
    clock::eventually("it is gone", PATIENCE, || !broker::topics().contains_key(&gone));
    let letters =
        |numbers: std::ops::Range<i32>| numbers.map(|n| bare(1, &scene.source, "1", &n.to_string())).collect::<Vec<_>>();
    producer.write(&inbox, &[bare(0, &gone, "0", "0")]);
    producer.write(&inbox, &letters(0..20));
    clock::eventually("the other partition goes on", PATIENCE * 2, || back(&scene.source) == 20);
    let stopped = || scene.metric("kladder_partitions_stopped", "role=\"router\"");
    clock::eventually("one partition is reported as stopped", PATIENCE, || stopped() == Some(1.0));
    let log = kladder.log();
    let warning = log.lines().find(|line| line.contains("WARN") && line.contains("cannot be read now")).unwrap_or_default();
    assert!(warning.contains(&gone), "its log:\n{log}");
    producer.write(&inbox, &letters(20..22));
    clock::eventually("the other partition still goes on", PATIENCE * 2, || back(&scene.source) == 22);
    assert_eq!(stopped(), Some(1.0));
    assert_eq!(broker::read(&scene.dlq_topic()).len(), 0, "it may be there");
    kladder.assert_running();
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
}

#[test]
fn a_record_behind_an_open_transaction_is_waited_for() {
    let (scene, inbox) = scene("elsewhere-open", 1);
    let config = scene.set_up();
    let producer = RawProducer::new(&scene.brokers);
    producer.write(&scene.source, &[order(0, 0)]);
    let other = RawProducer::with(&scene.brokers, &[("transactional.id", &broker::unique("open"))]);
    let timeout = Duration::from_secs(10);
    other.transactions().init_transactions(timeout).expect("a transactional producer");
    other.transactions().begin_transaction().expect("a transaction");
    other.write(&scene.source, &[order(1, 0)]);
    producer.write(&inbox, &[bare(0, &scene.source, "0", "1"), bare(0, &scene.source, "0", "0")]);
    let mut kladder = Kladder::run(&config);
    clock::eventually("the log says what is waited for", PATIENCE, || {
        kladder.assert_running();
        kladder.log().lines().any(|line| line.contains("WARN") && line.contains("a transaction is open there since offset 1"))
    });
    other.transactions().commit_transaction(timeout).expect("committed");
    clock::eventually("both came back", PATIENCE, || back(&scene.source) == 2);
    assert_eq!(broker::read(&scene.dlq_topic()).len(), 0);
    drop(kladder);
}

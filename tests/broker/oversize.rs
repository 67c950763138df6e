//! A record that cannot be written anywhere: its partition stops with an error, and no other does.

use crate::support::broker;
use crate::support::clock::{self, PATIENCE};
use crate::support::handler::{Answer, Handler};
use crate::support::process::Kladder;
use crate::support::raw::{NewRecord, RawProducer};
use crate::support::records;
use crate::support::scene::Scene;

const NOWHERE: &str = "record cannot be written anywhere, so its partition stops";

fn small(number: usize, partition: i32) -> NewRecord {
    NewRecord { partition, ..records::plain(number, 1) }
}

#[test]
fn a_waiting_record_too_large_to_go_on_stops_its_partition_and_no_other() {
    let handler = Handler::start(|_| Answer::ok());
    let mut scene = Scene::with_source("mover-stuck", &["1s"], 3);
    scene.handler = handler.url().to_owned();
    let config = scene.set_up();
    let tier = scene.tier_topic("1s");
    broker::alter_topic(&scene.redeliver_topic(), "max.message.bytes=20000");
    // Straight into the tier, where the order is certain: 10 before the large one, 10 behind it.
    let mut written: Vec<NewRecord> = (0..10).map(|n| small(n, 0)).collect();
    written.push(records::incompressible(10, 0, 60_000));
    written.extend((11..21).map(|n| small(n, 0)));
    written.extend((21..41).map(|n| small(n, 1 + i32::try_from(n % 2).expect("0 or 1"))));
    let producer = RawProducer::new(&scene.brokers);
    producer.write(&tier, &written);

    let mut kladder = Kladder::run(&config);
    let stopped = || scene.metric("kladder_partitions_stopped", "role=\"mover\"");
    clock::eventually("one partition stands still", PATIENCE, || stopped() == Some(1.0));
    clock::eventually("all before it and all of the others have gone on", PATIENCE, || handler.count() == 30);
    // The others continue meanwhile.
    producer.write(&tier, &[small(41, 1), small(42, 2)]);
    clock::eventually("later records of the others too", PATIENCE, || handler.count() == 32);
    assert!(handler.calls().iter().all(|call| call.partition != 0 || call.offset < 10), "{:?}", handler.calls());
    assert_eq!(stopped(), Some(1.0));
    let log = kladder.log();
    assert!(log.lines().any(|line| line.contains("ERROR") && line.contains(NOWHERE) && line.contains(&tier)), "{log}");
    assert_eq!(broker::committed(&scene.mover_group(), &tier, 0).0, Some(10));

    broker::alter_topic(&scene.redeliver_topic(), "max.message.bytes=1000000");
    clock::eventually("it drains", PATIENCE, || {
        kladder.assert_running();
        handler.count() == 43 && broker::lag(&scene.mover_group(), &tier) == 0
    });
    clock::eventually("none stands still", PATIENCE, || stopped() == Some(0.0));
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0));
    let mut ids: Vec<usize> = broker::read(&scene.redeliver_topic())
        .iter()
        .map(|r| r.text(records::ID).and_then(records::number_of).expect("an id"))
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..43).collect::<Vec<_>>(), "each once");
}

#[test]
fn a_failed_record_gives_up_diagnostics_in_order_until_it_fits() {
    const LIMIT: usize = 6_000;
    // Sizes from fitting completely to a bare record that is far too large.
    let sizes: Vec<usize> = (0..40).map(|n| LIMIT - 1_800 + n * 30).collect();
    let text = |seed, length| -> String {
        records::incompressible(seed, 0, length).value.expect("a value").iter().map(|b| char::from(b'A' + b % 26)).collect()
    };
    let (class, message) = (text(76, 64), text(77, 1_000));
    let (told_class, told) = (class.clone(), message.clone());
    let handler = Handler::start(move |call| match call.attempt {
        1 => Answer::fail(503, &told).with("kladder-error-class", &told_class),
        _ => Answer::ok(),
    });
    let mut scene = Scene::with_source("trim", &["500ms"], 1);
    scene.handler = handler.url().to_owned();
    // So that a larger record certainly needs more space.
    scene.kafka = "producer.compression.type = \"none\"".to_owned();
    let config = scene.set_up();
    let tier = scene.tier_topic("500ms");
    broker::alter_topic(&tier, &format!("max.message.bytes={LIMIT}"));
    let written: Vec<NewRecord> = sizes.iter().enumerate().map(|(n, size)| records::incompressible(n, 0, *size)).collect();
    RawProducer::new(&scene.brokers).write(&scene.source, &written);
    let mut kladder = Kladder::run(&config);
    clock::eventually("all are delivered again", PATIENCE, || handler.count() >= 2 * sizes.len());
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0));
    assert!(!kladder.log().contains(NOWHERE), "{}", kladder.log());

    let waited = broker::read(&tier);
    assert_eq!(waited.len(), sizes.len());
    let mut kinds: Vec<(usize, bool, bool)> = waited
        .iter()
        .map(|r| {
            assert_eq!(r.text("kladder-error-class"), Some(class.as_str()), "that stays");
            assert!(r.text("kladder-error-message").is_none_or(|text| text == message));
            let size = r.value.as_ref().map_or(0, Vec::len);
            (size, r.text("kladder-history").is_some(), r.text("kladder-error-message").is_some())
        })
        .collect();
    kinds.sort_unstable();
    assert!(kinds.iter().all(|(_, history, message)| *message || !history), "the history goes before the message: {kinds:?}");
    for kind in [(true, true), (false, true), (false, false)] {
        assert!(kinds.iter().any(|(_, history, message)| (*history, *message) == kind), "{kind:?} is missing: {kinds:?}");
    }
    assert!(kinds.is_sorted_by_key(|(_, history, message)| (!history, !message)), "no more is given up than must: {kinds:?}");
}

#[test]
fn a_failed_record_that_fits_nowhere_stops_its_partition_and_no_other() {
    let handler = Handler::start(|call| if call.attempt == 1 { Answer::fail(503, "no") } else { Answer::ok() });
    let mut scene = Scene::with_source("deliverer-stuck", &["500ms"], 3);
    scene.handler = handler.url().to_owned();
    scene.max_in_flight = 8;
    let config = scene.set_up();
    let tier = scene.tier_topic("500ms");
    broker::alter_topic(&tier, "max.message.bytes=20000");
    let mut written = vec![small(0, 0), records::incompressible(1, 0, 60_000)];
    written.extend((2..60).map(|n| small(n, i32::try_from(n % 3).expect("a partition"))));
    let producer = RawProducer::new(&scene.brokers);
    producer.write(&scene.source, &written);

    let mut kladder = Kladder::run(&config);
    let stopped = || scene.metric("kladder_partitions_stopped", "role=\"deliverer\"");
    clock::eventually("one partition stands still", PATIENCE, || stopped() == Some(1.0));
    let lag_of = |partition| {
        let ends = i64::try_from(written.iter().filter(|r| r.partition == partition).count()).expect("few");
        broker::committed(&scene.group, &scene.source, partition).0.map(|offset| ends - offset)
    };
    clock::eventually("the others go on", PATIENCE, || (lag_of(1), lag_of(2)) == (Some(0), Some(0)));
    assert_eq!(broker::committed(&scene.group, &scene.source, 0).0, Some(1), "what stood before it has moved");
    assert_eq!(stopped(), Some(1.0), "and it stands still all the while");
    let log = kladder.log();
    assert!(log.lines().any(|line| line.contains("ERROR") && line.contains(NOWHERE) && line.contains(&scene.source)), "{log}");

    broker::alter_topic(&tier, "max.message.bytes=1000000");
    clock::eventually("it drains", PATIENCE, || {
        kladder.assert_running();
        handler.count() >= 2 * written.len() && broker::lag(&scene.group, &scene.source) == 0
    });
    clock::eventually("none stands still", PATIENCE, || stopped() == Some(0.0));
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0));
    let mut calls: Vec<(i32, i64, u32)> = handler.calls().iter().map(|c| (c.partition, c.offset, c.attempt)).collect();
    calls.sort_unstable();
    let count = |p| i64::try_from(written.iter().filter(|r| r.partition == p).count()).expect("few");
    let expected: Vec<(i32, i64, u32)> = (0..3).flat_map(|p| (0..count(p)).flat_map(move |o| [(p, o, 1), (p, o, 2)])).collect();
    assert_eq!(calls, expected, "each attempt once: what could not be written was not delivered again");
}

#[test]
fn a_partition_that_stands_still_does_not_hold_up_the_end() {
    let handler = Handler::start(|call| if call.attempt == 1 { Answer::fail(503, "no") } else { Answer::ok() });
    let mut scene = Scene::with_source("stuck-end", &["500ms"], 1);
    scene.handler = handler.url().to_owned();
    scene.drain = "20m";
    let config = scene.set_up();
    broker::alter_topic(&scene.tier_topic("500ms"), "max.message.bytes=20000");
    RawProducer::new(&scene.brokers).write(&scene.source, &[records::incompressible(0, 0, 60_000), small(1, 0)]);
    let mut kladder = Kladder::run(&config);
    clock::eventually("it stands still", PATIENCE, || kladder.log().contains(NOWHERE));
    kladder.signal("TERM");
    let ended = kladder.ended(PATIENCE);
    assert_eq!(ended.and_then(|s| s.code()), Some(0), "its log:\n{}", kladder.log());
    // It is not lost.
    broker::alter_topic(&scene.tier_topic("500ms"), "max.message.bytes=1000000");
    let _again = Kladder::run(&config);
    clock::eventually("both are done", PATIENCE, || {
        let done = |offset| handler.calls().iter().any(|c| c.offset == offset && c.attempt == 2);
        done(0) && done(1)
    });
}

#[test]
fn what_a_topic_of_the_ladder_refuses_stops_its_partition_with_a_remedy_that_fits() {
    let handler = Handler::start(|call| if call.attempt == 1 { Answer::fail(503, "no") } else { Answer::ok() });
    let mut scene = Scene::with_source("tier-refuses", &["500ms"], 2);
    scene.handler = handler.url().to_owned();
    let config = scene.set_up();
    let tier = scene.tier_topic("500ms");
    let mut kladder = Kladder::run(&config);
    // It accepts no record without a key then. (A worker does not start with such a tier.)
    broker::alter_topic(&tier, "cleanup.policy=compact");
    let mut written: Vec<NewRecord> = (0..20).map(|n| small(n, i32::try_from(n % 2).expect("0 or 1"))).collect();
    written[6].key = None;
    RawProducer::new(&scene.brokers).write(&scene.source, &written);
    let stopped = || scene.metric("kladder_partitions_stopped", "role=\"deliverer\"");
    clock::eventually("one partition stands still", PATIENCE, || stopped() == Some(1.0));
    clock::eventually("the other goes on", PATIENCE, || {
        handler.calls().iter().filter(|call| call.partition == 1 && call.attempt == 2).count() == 10
    });
    let log = kladder.log();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("ERROR") && line.contains(NOWHERE)).collect();
    assert_eq!(told.len(), 1, "{log}");
    for words in ["INVALID_RECORD", "kladder doctor", tier.as_str()] {
        assert!(told[0].contains(words), "{words}: {}", told[0]);
    }
    assert!(!told[0].contains("max.message.bytes"), "{}", told[0]);

    broker::alter_topic(&tier, "cleanup.policy=delete");
    clock::eventually("it drains", PATIENCE, || {
        kladder.assert_running();
        handler.calls().iter().filter(|call| call.attempt == 2).count() == 20 && broker::lag(&scene.group, &scene.source) == 0
    });
    clock::eventually("none stands still", PATIENCE, || stopped() == Some(0.0));
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0));
    assert!(broker::read(&scene.dlq_topic()).is_empty());
}

//! Changes of a ladder: its tiers, the partitions of its source, the offsets of its groups, the source itself.

use std::path::Path;
use std::time::Duration;

use crate::support::broker;
use crate::support::checker::{self, FAILURE, Hops, Observed};
use crate::support::clock::{self, PATIENCE};
use crate::support::handler::{Answer, Call, Handler};
use crate::support::load;
use crate::support::process::{Kladder, assert_clean};
use crate::support::raw::RawProducer;
use crate::support::records;
use crate::support::scene::{self, Scene};

/// The record number of a call, by the header that the tests add.
fn number_of(call: &Call) -> usize {
    call.header("kladder-header-x-id").and_then(records::number_of).expect("a record of the tests")
}

#[test]
fn what_waits_in_removed_tiers_comes_back_and_climbs_on() {
    tiers_that_change("tiers-changed", Hops::ExactlyOnce);
}

#[test]
fn at_least_once_what_waits_in_removed_tiers_is_not_lost() {
    tiers_that_change("tiers-alo", Hops::AtLeastOnce);
}

fn tiers_that_change(theme: &str, hops: Hops) {
    const EACH: usize = 40;
    let handler = Handler::start(|_| Answer::fail(503, FAILURE));
    let mut scene = Scene::with_source(theme, &["6s", "9s"], 3);
    scene.ask_for(hops);
    handler.url().clone_into(&mut scene.handler);
    let config = scene.set_up();
    let producer = RawProducer::new(&scene.brokers);
    let mut kladder = Kladder::run(&config);
    producer.write(&scene.source, &(0..EACH).map(|n| records::plain(n, 3)).collect::<Vec<_>>());
    clock::eventually("the first wait in the second tier", PATIENCE, || broker::read(&scene.tier_topic("9s")).len() == EACH);
    producer.write(&scene.source, &(EACH..2 * EACH).map(|n| records::plain(n, 3)).collect::<Vec<_>>());
    clock::eventually("others wait in the first tier", PATIENCE, || broker::read(&scene.tier_topic("6s")).len() == 2 * EACH);
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
    let (first, second) = (scene.tier_topic("6s"), scene.tier_topic("9s"));
    let waiting = broker::lag(&scene.mover_group(), &first) + broker::lag(&scene.mover_group(), &second);
    assert!(waiting > 0, "nothing waits, so there is nothing to show");

    scene.tiers = vec!["1s", "3s"];
    broker::await_no_members(&scene.mover_group());
    let setup = scene.setup().succeeds();
    assert!(setup.to_string().contains("it is not dropped"), "it said:\n{setup}");
    assert!(broker::topics().contains_key(&first) && broker::topics().contains_key(&second));
    let mut kladder = Kladder::run(&scene.write());
    producer.write(&scene.source, &(2 * EACH..3 * EACH).map(|n| records::plain(n, 3)).collect::<Vec<_>>());
    clock::eventually("all are dead", PATIENCE * 2, || {
        kladder.assert_running();
        broker::read(&scene.dlq_topic()).len() >= 3 * EACH
    });
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
    assert_eq!(broker::lag(&scene.mover_group(), &first) + broker::lag(&scene.mover_group(), &second), 0);

    // Records of the old first tier count as the new first tier's, and so on: the checker expects two tiers.
    let observed = scene.observe(&handler);
    let mut tiers = observed.tiers.clone();
    tiers[0].extend(broker::read(&first));
    tiers[1].extend(broker::read(&second));
    let observed = Observed { tiers, ..observed };
    let report = checker::check(&scene.shape(), hops, &observed, |_| u32::MAX);
    report.assert_no_faults();
    assert_eq!(report.extra_calls, 0);
    // The checker has verified the new delays; records in the old tiers must wait for the old ones.
    for (tier, delay) in [(&first, 6_000), (&second, 9_000)] {
        for record in broker::read(tier) {
            let key = |name: &'static str| (record.text(records::ID), record.text(name).map(str::to_owned));
            let back = observed
                .redeliver
                .iter()
                .find(|r| (r.text(records::ID), r.text("kladder-attempts").map(str::to_owned)) == key("kladder-attempts"));
            let waited = back.expect("it came back").timestamp - record.timestamp;
            assert!(waited >= delay, "{:?} waited {waited} ms of {delay} in {tier}", record.text(records::ID));
        }
    }
}

#[test]
fn partitions_that_are_added_under_load_are_taken_up_from_their_beginning() {
    partitions_that_are_added("added", Hops::ExactlyOnce);
}

#[test]
fn at_least_once_partitions_that_are_added_under_load_lose_nothing() {
    partitions_that_are_added("added-alo", Hops::AtLeastOnce);
}

fn partitions_that_are_added(theme: &str, hops: Hops) {
    const ADDED: usize = 90;
    let failures = |number: usize| [0, 1, 0, 2, u32::MAX, 1][number % 6];
    let handler =
        Handler::start(
            move |call| {
                if call.attempt <= failures(number_of(call)) { Answer::fail(503, FAILURE) } else { Answer::ok() }
            },
        );
    let mut scene = Scene::with_source(theme, &["500ms", "1s"], 3);
    scene.ask_for(hops);
    handler.url().clone_into(&mut scene.handler);
    scene.set_up();
    let (first_config, first_health) = scene.write_worker("first");
    let (second_config, second_health) = scene.write_worker("second");
    let (mut first, mut second) = (Kladder::run(&first_config), Kladder::run(&second_config));
    let rebalances = |health| scene::metric_at(health, "kladder_rebalances_total", "role=\"deliverer\"").unwrap_or(0.0);
    let (before, sent) = load::under_load(&scene, 3, Duration::from_millis(50), || {
        clock::eventually("both own partitions and deliver", PATIENCE, || {
            handler.count() > 30 && rebalances(first_health) >= 1.0 && rebalances(second_health) >= 1.0
        });
        let before = rebalances(first_health) + rebalances(second_health);
        broker::add_partitions(&scene.source, 6);
        // Before any worker knows them, so that their beginning is not their end.
        let numbers = 600_000..600_000 + ADDED;
        let added: Vec<_> = numbers.map(|n| raw_in(n, 3 + n % 3)).collect();
        RawProducer::new(&scene.brokers).write(&scene.source, &added);
        let since = clock::now();
        clock::eventually("the added partitions are delivered", PATIENCE, || {
            first.assert_running();
            second.assert_running();
            let calls = handler.calls();
            (0..ADDED).all(|n| calls.iter().any(|call| number_of(call) == 600_000 + n))
        });
        println!("taken up {} s after they were added", (clock::now() - since).as_secs());
        before
    });
    let dead = (0..sent).chain(600_000..600_000 + ADDED).filter(|n| failures(*n) >= 3).count();
    clock::eventually("every record is done or dead", PATIENCE, || {
        broker::read(&scene.dlq_topic()).len() >= dead
            && broker::lag(&scene.group, &scene.source) == 0
            && broker::lag(&scene.group, &scene.redeliver_topic()) == 0
            && scene.tiers.iter().all(|tier| broker::lag(&scene.mover_group(), &scene.tier_topic(tier)) == 0)
    });
    assert!(rebalances(first_health) + rebalances(second_health) > before, "rebalances are counted");
    for worker in [&mut first, &mut second] {
        assert_eq!(worker.terminate(PATIENCE).code(), Some(0), "its log:\n{}", worker.log());
    }
    let observed = scene.observe(&handler);
    assert_eq!(observed.source.len(), sent + ADDED);
    checker::check(&scene.shape(), hops, &observed, failures).assert_no_faults();
}

fn raw_in(number: usize, partition: usize) -> crate::support::raw::NewRecord {
    let mut record = records::plain(number, 1);
    record.partition = i32::try_from(partition).expect("a partition");
    record
}

/// A ladder that has worked: five of its records are done, one is dead, and no worker runs.
fn worked(theme: &str) -> (Scene, Handler, std::path::PathBuf) {
    let handler = Handler::start(|call| if call.offset == 0 { Answer::fail(503, FAILURE) } else { Answer::ok() });
    let mut scene = Scene::with_source(theme, &["500ms"], 1);
    handler.url().clone_into(&mut scene.handler);
    let config = scene.set_up();
    RawProducer::new(&scene.brokers).write(&scene.source, &(0..6).map(|n| records::plain(n, 1)).collect::<Vec<_>>());
    let mut kladder = Kladder::run(&config);
    clock::eventually("all are done or dead", PATIENCE, || {
        broker::read(&scene.dlq_topic()).len() == 1
            && broker::lag(&scene.group, &scene.source) == 0
            && broker::lag(&scene.group, &scene.redeliver_topic()) == 0
            && broker::lag(&scene.mover_group(), &scene.tier_topic("500ms")) == 0
    });
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
    (scene, handler, config)
}

#[track_caller]
fn stops_for_a_decision(config: &Path, words: &[&str]) {
    let mut kladder = Kladder::run(config);
    let ended = kladder.ended(PATIENCE).unwrap_or_else(|| panic!("it goes on; its log:\n{}", kladder.log()));
    let log = kladder.log();
    assert_eq!(ended.code(), Some(1), "its log:\n{log}");
    for word in words {
        assert!(log.contains(word), "{word:?} is missing in its log:\n{log}");
    }
    assert_clean(&log);
}

#[test]
fn deleted_offsets_of_the_source_stop_the_start_and_the_choice_is_told() {
    let (scene, handler, config) = worked("no-offsets");
    let calls = handler.count();
    broker::delete_offsets(&scene.group, Some(&scene.source));
    let has_none = format!("group {} has no offsets on {}", scene.group, scene.source);
    stops_for_a_decision(&config, &[&has_none, "kladder setup", "--reset-offsets", "--to-datetime"]);
    assert_eq!(handler.count(), calls, "nothing may be delivered before it is decided");
    // The decision: start at the records that came last.
    RawProducer::new(&scene.brokers).write(&scene.source, &[records::plain(6, 1)]);
    broker::commit(&scene.group, &scene.source, 0, 6, "");
    let _kladder = Kladder::run(&config);
    clock::eventually("it goes on from there", PATIENCE, || handler.count() == calls + 1);
}

#[test]
fn a_deleted_group_stops_the_start_too() {
    let (scene, handler, config) = worked("no-group");
    let calls = handler.count();
    broker::delete_offsets(&scene.group, None);
    let has_none = format!("group {} has no offsets on {}", scene.group, scene.redeliver_topic());
    stops_for_a_decision(&config, &[&has_none, &scene.source, "--reset-offsets"]);
    assert_eq!(handler.count(), calls);
}

#[test]
fn deleted_offsets_of_a_tier_move_nothing_a_second_time() {
    let (scene, _handler, config) = worked("no-tier-offsets");
    let tier = scene.tier_topic("500ms");
    broker::delete_offsets(&scene.mover_group(), Some(&tier));
    let has_none = format!("group {} has no offsets on {tier}", scene.mover_group());
    stops_for_a_decision(&config, &[&has_none, "--reset-offsets"]);
    assert_eq!(broker::read(&scene.redeliver_topic()).len(), 1, "what was moved before must not be moved again");
}

/// Deletes the source, recreates it and writes this many records to it.
fn make_anew(scene: &Scene, records: usize) {
    broker::delete_topics(&[&scene.source]);
    clock::eventually("the source is gone", PATIENCE, || !broker::topics().contains_key(&scene.source));
    broker::create_topic(&scene.source, 1, &[]);
    RawProducer::new(&scene.brokers).write(&scene.source, &(0..records).map(|n| records::plain(n, 1)).collect::<Vec<_>>());
}

#[test]
fn a_source_made_anew_while_no_worker_runs_is_not_taken_for_the_old_one() {
    let (scene, handler, config) = worked("anew");
    let calls = handler.count();
    let has_none = format!("group {} has no offsets on {}", scene.group, scene.source);
    // Shorter than the old one, and longer. Kafka deletes the offsets along with a topic, so they can never be mistaken for
    // offsets of the new one.
    for records in [3, 20] {
        make_anew(&scene, records);
        stops_for_a_decision(&config, &[&has_none, "kladder setup", "--reset-offsets"]);
    }
    assert_eq!(handler.count(), calls);
    broker::await_no_members(&scene.group);
    let setup = scene.setup().succeeds();
    assert!(setup.to_string().contains("about 20 existing records"), "it said:\n{setup}");
    let _kladder = Kladder::run(&config);
    clock::eventually("all of the new one is delivered", PATIENCE, || {
        handler.calls()[calls..].iter().map(|call| call.offset).collect::<std::collections::BTreeSet<_>>().len() == 20
    });
}

#[test]
fn offsets_that_outlived_a_source_and_lie_beyond_its_end_stop_the_worker() {
    let (scene, handler, config) = worked("anew-restored");
    let calls = handler.count();
    make_anew(&scene, 3);
    broker::await_no_members(&scene.group);
    // As after restoring or mirroring offsets from elsewhere.
    broker::commit(&scene.group, &scene.source, 0, 6, "");
    stops_for_a_decision(&config, &["no longer has the committed offset", "--reset-offsets", &scene.group]);
    assert_eq!(handler.count(), calls);
}

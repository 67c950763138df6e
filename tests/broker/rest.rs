//! Records that wait for long: they need no memory, and are redelivered in time whatever happens to their partition
//! meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::broker;
use crate::support::clock::{self, PATIENCE};
use crate::support::process::Kladder;
use crate::support::raw::{NewRecord, RawProducer, Record};
use crate::support::records;
use crate::support::scene::{self, Scene};

const PARTITIONS: i32 = 3;

/// More of them than a mover prefetches.
fn large(number: usize) -> NewRecord {
    NewRecord { value: Some(vec![b'.'; 16 * 1024]), ..records::plain(number, PARTITIONS) }
}

fn by_key(records: Vec<Record>) -> BTreeMap<Vec<u8>, Vec<i64>> {
    let mut found: BTreeMap<Vec<u8>, Vec<i64>> = BTreeMap::new();
    for record in records {
        found.entry(record.key.expect("a key")).or_default().push(record.timestamp);
    }
    found
}

/// Each record of the tier was redelivered once, no earlier than the delay, and at most some
/// seconds later.
fn assert_in_time(scene: &Scene, tier: &str, count: usize) {
    let delay = i64::try_from(humantime::parse_duration(tier).expect("a delay").as_millis()).expect("a short one");
    let waited = by_key(broker::read(&scene.tier_topic(tier)));
    let back = by_key(broker::read(&scene.redeliver_topic()));
    assert_eq!((waited.len(), back.len()), (count, count));
    for (key, times) in &back {
        let key_text = String::from_utf8_lossy(key);
        assert_eq!(times.len(), 1, "{key_text} came back {} times", times.len());
        let took = times[0] - waited[key][0];
        assert!((delay..delay + 10_000).contains(&took), "{key_text} waited for {took} ms of {delay}");
    }
}

fn await_all(scene: &Scene, tier: &str) {
    let back = || broker::lag(&scene.mover_group(), &scene.tier_topic(tier)) == 0;
    clock::eventually("all are moved", PATIENCE * 2, back);
}

#[test]
fn a_partition_that_rests_takes_no_memory_and_comes_back_in_time() {
    const FIRST: usize = 3_000;
    const LATER: usize = 300;
    let scene = Scene::of_relay("rest", &["30s"], PARTITIONS);
    let config = scene.set_up();
    let mut kladder = Kladder::run(&config);
    clock::eventually("the mover is there", PATIENCE, || scene.metric("kladder_rebalances_total", "mover") >= Some(1.0));
    let before = kladder.memory();
    let producer = RawProducer::new(&scene.brokers);
    producer.write(&scene.tier_topic("30s"), &(0..FIRST).map(large).collect::<Vec<_>>());
    let waiting = || scene.metric("kladder_tier_waiting_records", "");
    let expect = |count: usize| {
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        let count = count as f64;
        clock::eventually(&format!("{count} are counted"), Duration::from_secs(25), || waiting() == Some(count));
    };
    expect(FIRST);
    // 48 MB wait, of which 32 would be prefetched.
    let resting = || kladder.memory() < before + 16;
    clock::eventually("what was fetched is given back", Duration::from_secs(10), resting);
    // These arrive unread, and are counted nevertheless.
    producer.write(&scene.tier_topic("30s"), &(FIRST..FIRST + LATER).map(large).collect::<Vec<_>>());
    expect(FIRST + LATER);
    await_all(&scene, "30s");
    assert_eq!(scene.metric("kladder_early_total", ""), Some(0.0));
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
    assert_in_time(&scene, "30s", FIRST + LATER);
}

#[test]
fn partitions_that_move_while_they_rest_come_back_in_time() {
    const RECORDS: usize = 300;
    let scene = Scene::of_relay("rest-moves", &["45s"], PARTITIONS);
    scene.set_up();
    let (first_config, first_health) = scene.write_worker("first");
    let (second_config, second_health) = scene.write_worker("second");
    let waiting = |health: u16| scene::metric_at(health, "kladder_tier_waiting_records", "").unwrap_or(0.0);
    let rebalances = |health: u16| scene::metric_at(health, "kladder_rebalances_total", "mover").unwrap_or(0.0);

    let mut first = Kladder::run(&first_config);
    clock::eventually("the first is there", PATIENCE, || rebalances(first_health) >= 1.0);
    RawProducer::new(&scene.brokers)
        .write(&scene.tier_topic("45s"), &(0..RECORDS).map(|n| records::plain(n, PARTITIONS)).collect::<Vec<_>>());
    clock::eventually("all wait with the first", PATIENCE, || waiting(first_health) >= 300.0);
    let mut second = Kladder::run(&second_config);
    clock::eventually("some wait with the second", PATIENCE, || waiting(second_health) >= 100.0 && waiting(first_health) < 300.0);
    assert_eq!(second.terminate(PATIENCE).code(), Some(0), "its log:\n{}", second.log());
    // After its session has expired, its partitions return to the first, which had them paused already.
    clock::eventually("all wait with the first again", PATIENCE, || waiting(first_health) >= 300.0);
    await_all(&scene, "45s");
    assert_eq!(first.terminate(PATIENCE).code(), Some(0), "its log:\n{}", first.log());
    assert_in_time(&scene, "45s", RECORDS);
}

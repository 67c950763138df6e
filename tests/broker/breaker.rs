//! The handler's breaker: a handler that is down costs no attempts, and is not run down when it comes back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::broker;
use crate::support::checker::{self, Hops};
use crate::support::clock::{self, PATIENCE};
use crate::support::handler::{Answer, ClosedPort, Handler};
use crate::support::process::Kladder;
use crate::support::raw::RawProducer;
use crate::support::records;
use crate::support::scene::Scene;

/// The breaker opens for 1 s, 2 s, then 4 s at most.
const BREAKER: &str = "open_for = \"1s\"\nopen_most = \"4s\"";
const IN_FLIGHT: usize = 16;

fn state(scene: &Scene) -> Option<f64> {
    scene.metric("kladder_breaker_state", "")
}

#[test]
fn an_outage_of_half_a_minute_under_load_empties_nothing_into_the_dlq() {
    const PER_BATCH: usize = 20;
    const BATCHES: usize = 100;
    const OUTAGE: Duration = Duration::from_secs(30);
    let down = Arc::new(AtomicBool::new(false));
    let is_down = down.clone();
    let handler = Handler::start(move |_| {
        // Slow enough for several to be in flight.
        let answer = if is_down.load(Ordering::Relaxed) { Answer::fail(503, "down") } else { Answer::ok() };
        answer.after(Duration::from_millis(5))
    });
    let mut scene = Scene::with_source("breaker", &["1s", "2s", "5s"], 3);
    scene.handler = handler.url().to_owned();
    scene.max_in_flight = IN_FLIGHT;
    scene.breaker = BREAKER;
    let config = scene.set_up();
    let mut kladder = Kladder::run(&config);
    let producer = RawProducer::new(&scene.brokers);
    let load = |batches: std::ops::Range<usize>| {
        for batch in batches {
            let written: Vec<_> = (0..PER_BATCH).map(|n| records::plain(batch * PER_BATCH + n, 3)).collect();
            producer.write(&scene.source, &written);
            clock::pause(Duration::from_millis(200));
        }
    };
    load(0..10);
    clock::eventually("it works", PATIENCE, || handler.count() >= 10 * PER_BATCH);
    down.store(true, Ordering::Relaxed);
    let (began, before) = (clock::now(), handler.count());
    load(10..20);
    clock::eventually("the breaker opens", PATIENCE, || state(&scene) == Some(2.0));
    let opened = handler.count();
    assert!(opened - before <= 20 + IN_FLIGHT + 2, "{} calls until it opened", opened - before);
    load(20..BATCHES / 2);
    clock::pause(OUTAGE.saturating_sub(began.elapsed()));
    let (live, page) = scene.get("/readyz").expect("an answer");
    assert!(live == 200 && (page.contains("handler breaker of") || state(&scene) == Some(1.0)), "{live}: {page}");
    let probes = handler.count() - opened;
    // 30 s of waits of 1, 2, 4, 4, … s.
    assert!((4..=10).contains(&probes), "{probes} probes");
    assert!(broker::read(&scene.dlq_topic()).is_empty());
    down.store(false, Ordering::Relaxed);
    let up = clock::now();
    let failed = handler.count() - before;
    clock::eventually("the breaker closes", PATIENCE, || state(&scene) == Some(0.0));
    assert!(up.elapsed() <= Duration::from_secs(4 + 1), "{:?} to recover", up.elapsed());
    load(BATCHES / 2..BATCHES);
    clock::eventually("all are done", PATIENCE * 2, || {
        kladder.assert_running();
        broker::lag(&scene.group, &scene.source) == 0
            && broker::lag(&scene.group, &scene.redeliver_topic()) == 0
            && scene.tiers.iter().all(|tier| broker::lag(&scene.mover_group(), &scene.tier_topic(tier)) == 0)
    });
    assert!(broker::read(&scene.dlq_topic()).is_empty());
    let mut good: BTreeMap<(i32, i64), u32> = BTreeMap::new();
    handler.calls().iter().for_each(|call| *good.entry((call.partition, call.offset)).or_default() = call.attempt);
    assert_eq!(good.len(), BATCHES * PER_BATCH, "every record was delivered");
    let burned: usize = good.values().filter(|attempt| **attempt > 1).count();
    assert!(burned <= failed, "{burned} records lost an attempt to {failed} failed calls");
    assert!(good.values().all(|attempt| *attempt <= 3), "no record was chosen again and again to probe");
    assert!(scene.metric("kladder_breaker_changes_total", "state=\"open\"").is_some_and(|changes| changes >= 4.0));
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
    let log = kladder.log();
    for said in ["handler breaker is open", "handler breaker is half-open", "handler breaker is closed"] {
        assert!(log.contains(said), "{said}\n{log}");
    }
}

#[test]
fn a_handler_that_cannot_be_reached_is_asked_by_one_probe_at_a_time() {
    const RECORDS: usize = 200;
    let port = ClosedPort::reserve();
    let mut scene = Scene::with_source("breaker-refused", &["1s", "2s"], 3);
    scene.handler = port.url();
    scene.max_in_flight = IN_FLIGHT;
    scene.breaker = BREAKER;
    let config = scene.set_up();
    RawProducer::new(&scene.brokers).write(&scene.source, &(0..RECORDS).map(|n| records::plain(n, 3)).collect::<Vec<_>>());
    let mut kladder = Kladder::run(&config);
    clock::eventually("the breaker opens", PATIENCE, || state(&scene) == Some(2.0));
    clock::pause(Duration::from_secs(12));
    let unsent = scene.metric("kladder_deliveries_total", "verdict=\"unsent\"").expect("a metric");
    // As many as were in flight, each at most twice, and a probe for each wait.
    assert!(unsent <= 2.0 * 16.0 + 8.0, "{unsent} calls of a dead handler");
    let handler = port.open(|_| Answer::ok());
    clock::eventually("all are done", PATIENCE, || broker::lag(&scene.group, &scene.source) == 0);
    let report = checker::check(&scene.shape(), Hops::ExactlyOnce, &scene.observe(&handler), |_| 0);
    report.assert_no_faults();
    assert!(handler.calls().iter().all(|call| call.attempt == 1), "no attempt is burned");
    assert!(broker::read(&scene.tier_topic("1s")).is_empty());
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
}

#[test]
fn a_worker_whose_breaker_is_open_stays_a_member_and_ends_at_once_when_told() {
    let handler = Handler::start(|_| Answer::fail(500, "down"));
    let mut scene = Scene::with_source("breaker-member", &["1s"], 1);
    scene.handler = handler.url().to_owned();
    scene.breaker = "consecutive = 3\nopen_for = \"1m\"";
    scene.settings.push_str("\nattempts = 3");
    let config = scene.set_up();
    RawProducer::new(&scene.brokers).write(&scene.source, &(0..50).map(|n| records::plain(n, 1)).collect::<Vec<_>>());
    let mut kladder = Kladder::run(&config);
    clock::eventually("the breaker opens", PATIENCE, || state(&scene) == Some(2.0));
    let rebalances = || scene.metric("kladder_rebalances_total", "role=\"deliverer\"").expect("a metric");
    let before = rebalances();
    // Longer than the session of a member that does not say a word.
    clock::pause(Duration::from_secs(12));
    let told = scene.get("/readyz").expect("an answer");
    assert!(told.0 == 200 && told.1.contains("open: no delivery begins, next probe in"), "{told:?}");
    assert!((rebalances() - before).abs() < 0.5, "it has kept its partitions");
    let (asked, calls) = (clock::now(), handler.count());
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
    assert!(asked.elapsed() < Duration::from_secs(8), "it waited for the breaker");
    assert_eq!(handler.count(), calls);
}

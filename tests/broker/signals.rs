//! SIGTERM: the first one drains, the second one ends at once, and neither loses a record.

use std::time::Duration;

use crate::support::broker;
use crate::support::clock::{self, PATIENCE};
use crate::support::handler::{Answer, Handler};
use crate::support::process::Kladder;
use crate::support::raw::RawProducer;
use crate::support::records;
use crate::support::scene::Scene;

#[test]
fn the_first_signal_drains_and_the_probe_says_so() {
    let handler = Handler::start(|_| Answer::ok().after(Duration::from_secs(3)));
    let mut scene = Scene::with_source("drains", &["1s"], 1);
    scene.handler = handler.url().to_owned();
    let config = scene.set_up();
    RawProducer::new(&scene.brokers).write(&scene.source, &[records::plain(0, 1)]);
    let mut kladder = Kladder::run(&config);
    clock::eventually("the delivery is open", PATIENCE, || handler.count() == 1);
    kladder.signal("TERM");
    clock::eventually("/readyz says that it drains", PATIENCE, || {
        scene.get("/readyz").is_some_and(|(status, text)| status == 503 && text.contains("draining"))
    });
    assert_eq!(kladder.ended(PATIENCE).and_then(|s| s.code()), Some(0), "its log:\n{}", kladder.log());
    assert_eq!(broker::lag(&scene.group, &scene.source), 0, "the delivery in flight was not waited for");
}

#[test]
fn a_second_signal_ends_at_once_and_loses_nothing() {
    let handler = Handler::start(|call| {
        let first = call.header("kladder-attempt") == Some("1") && call.offset == 0;
        Answer::ok().after(if first { PATIENCE * 2 } else { Duration::ZERO })
    });
    let mut scene = Scene::with_source("second-signal", &["1s"], 1);
    scene.handler = handler.url().to_owned();
    scene.timeout = "20m";
    scene.drain = "20m";
    let config = scene.set_up();
    RawProducer::new(&scene.brokers).write(&scene.source, &[records::plain(0, 1), records::plain(1, 1)]);
    let mut kladder = Kladder::run(&config);
    clock::eventually("both are delivered, one is open", PATIENCE, || handler.count() == 2);
    kladder.signal("TERM");
    // Signals that arrive before the first one is handled count as one.
    clock::eventually("it drains", PATIENCE, || {
        scene.get("/readyz").is_some_and(|(status, text)| status == 503 && text.contains("draining"))
    });
    kladder.signal("TERM");
    // Long before the handler answers or the drain is over.
    let ended = kladder.ended(PATIENCE);
    assert_eq!(ended.and_then(|s| s.code()), Some(1), "its log:\n{}", kladder.log());
    assert!(kladder.log().contains("stopped without draining"), "its log:\n{}", kladder.log());

    let _again = Kladder::run(&config);
    clock::eventually("what was open is delivered again", PATIENCE, || {
        handler.calls().iter().filter(|call| call.offset == 0).count() == 2
    });
}

#[test]
fn deliveries_that_have_not_begun_do_not_hold_up_the_end() {
    // Far more is taken from Kafka than may be in flight.
    let handler = Handler::start(|_| Answer::ok().after(Duration::from_millis(300)));
    let mut scene = Scene::with_source("queued", &["1s"], 3);
    scene.handler = handler.url().to_owned();
    scene.max_in_flight = 8;
    // Only a drain that waits for its deadline takes longer than the test waits.
    scene.drain = "20m";
    let config = scene.set_up();
    RawProducer::new(&scene.brokers).write(&scene.source, &(0..300).map(|n| records::plain(n, 3)).collect::<Vec<_>>());
    let mut kladder = Kladder::run(&config);
    clock::eventually("deliveries are open", PATIENCE, || handler.count() >= 16);
    kladder.signal("TERM");
    let ended = kladder.ended(PATIENCE);
    assert_eq!(ended.and_then(|s| s.code()), Some(0), "its log:\n{}", kladder.log());
    // Everything begun is committed, so nothing is repeated.
    let _again = Kladder::run(&config);
    clock::eventually("the rest is delivered", PATIENCE, || broker::lag(&scene.group, &scene.source) == 0);
    let mut places: Vec<_> = handler.calls().iter().map(|call| (call.partition, call.offset)).collect();
    places.sort_unstable();
    let expected: Vec<_> = (0..3).flat_map(|partition| (0..100).map(move |offset| (partition, offset))).collect();
    assert_eq!(places, expected);
}

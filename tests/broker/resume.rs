//! What a worker finds when it is assigned a partition: offsets, the finished set beside them, headers of others.

use std::time::Duration;

use crate::support::broker;
use crate::support::checker::{self, FAILURE, Hops};
use crate::support::clock::{self, PATIENCE};
use crate::support::handler::{Answer, Handler};
use crate::support::process::Kladder;
use crate::support::raw::{NewRecord, RawProducer};
use crate::support::records;
use crate::support::scene::Scene;

#[test]
fn what_was_finished_behind_a_slow_record_is_not_delivered_again_after_a_kill() {
    const LATER: usize = 50;
    // The first record hangs; of those behind it, every other one fails once and so leaves by a hop.
    let handler = Handler::start(|call| match (call.offset, call.attempt) {
        (0, _) => Answer::ok().after(Duration::from_secs(45)),
        (offset, 1) if offset % 2 == 0 => Answer::fail(503, FAILURE),
        _ => Answer::ok(),
    });
    let mut scene = Scene::with_source("finished-set", &["500ms"], 1);
    scene.handler = handler.url().to_owned();
    scene.timeout = "1m";
    let config = scene.set_up();
    RawProducer::new(&scene.brokers).write(&scene.source, &(0..=LATER).map(|n| records::plain(n, 1)).collect::<Vec<_>>());
    let kladder = Kladder::run(&config);
    clock::eventually("all but the first are finished and committed", PATIENCE, || {
        let (offset, metadata) = broker::committed(&scene.group, &scene.source, 0);
        offset == Some(0) && metadata == format!("v1;1+{LATER};starts=1")
    });
    kladder.kill_dash_nine();

    let _again = Kladder::run(&config);
    clock::eventually("the first is delivered again", PATIENCE, || {
        handler.calls().iter().filter(|call| call.offset == 0).count() == 2
    });
    // Later records are taken in order, so once this one is delivered all before it would have been.
    RawProducer::new(&scene.brokers).write(&scene.source, &[records::plain(LATER + 1, 1)]);
    let last = i64::try_from(LATER + 1).expect("a small number");
    clock::eventually("a new one is delivered", PATIENCE, || handler.calls().iter().any(|call| call.offset == last));
    for offset in 1..=last {
        let attempts: Vec<u32> = handler.calls().iter().filter(|c| c.offset == offset).map(|c| c.attempt).collect();
        let delivered_first = attempts.iter().filter(|attempt| **attempt == 1).count();
        assert_eq!(delivered_first, 1, "offset {offset} was delivered in attempts {attempts:?}");
    }
}

#[test]
fn foreign_offset_metadata_is_told_and_trusted_in_nothing() {
    let handler = Handler::start(|_| Answer::ok());
    let mut scene = Scene::with_source("foreign-metadata", &["1s"], 3);
    scene.handler = handler.url().to_owned();
    let config = scene.set_up();
    RawProducer::new(&scene.brokers).write(&scene.source, &(0..9).map(|n| records::plain(n, 3)).collect::<Vec<_>>());
    broker::commit(&scene.group, &scene.source, 0, 0, "checkpoint by somebody else; ümläut \u{1F9F5}");
    broker::commit(&scene.group, &scene.source, 1, 1, "v1;0+99999999999999999999");
    broker::commit(&scene.group, &scene.source, 2, 0, &"v1;".repeat(900));
    let mut kladder = Kladder::run(&config);
    clock::eventually("everything from the offsets on is delivered", PATIENCE, || broker::lag(&scene.group, &scene.source) == 0);
    let mut places: Vec<_> = handler.calls().iter().map(|call| (call.partition, call.offset)).collect();
    places.sort_unstable();
    assert_eq!(places, [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]);
    assert_eq!(kladder.log().matches("offset metadata is not kladder's").count(), 3, "{}", kladder.log());
    kladder.assert_running();
    for partition in 0..3 {
        assert_eq!(broker::committed(&scene.group, &scene.source, partition), (Some(3), String::new()));
    }
}

#[test]
fn kladders_headers_on_a_source_earn_no_record_a_shorter_way() {
    let handler = Handler::start(|_| Answer::fail(503, FAILURE));
    let mut scene = Scene::with_source("source-headers", &["500ms", "1s"], 1);
    scene.handler = handler.url().to_owned();
    let config = scene.set_up();
    let whole = |ladder: &str| -> Vec<(&str, String)> {
        let fields = [
            ("ladder", ladder),
            ("v", "1"),
            ("id", "stolen"),
            ("origin-topic", "elsewhere"),
            ("origin-partition", "7"),
            ("origin-offset", "70"),
            ("origin-timestamp", "700"),
            ("attempts", "2"),
            ("tier", "2"),
            ("not-before", "99999999999999"),
            ("reason", "rejected"),
            ("redrives", "3"),
        ];
        fields.map(|(name, value)| (name, value.to_owned())).to_vec()
    };
    let mut doubled = whole(&scene.ladder);
    doubled.push(("attempts", "1".to_owned()));
    let malformed = vec![("ladder", scene.ladder.clone()), ("v", "99".to_owned()), ("attempts", "-7".to_owned())];
    let written: Vec<NewRecord> = [whole(&scene.ladder), whole("another-ladder"), doubled, malformed]
        .into_iter()
        .enumerate()
        .map(|(number, fields)| {
            let mut record = records::plain(number, 1);
            let headers = fields.into_iter().map(|(name, value)| (format!("kladder-{name}").into(), Some(value.into())));
            record.headers.extend(headers);
            record
        })
        .collect();
    RawProducer::new(&scene.brokers).write(&scene.source, &written);
    let mut kladder = Kladder::run(&config);
    clock::eventually("all are dead", PATIENCE, || broker::read(&scene.dlq_topic()).len() >= written.len());
    assert_eq!(scene.metric("kladder_malformed_headers_total", ""), Some(0.0), "on a source they are not looked at");
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0));
    let report = checker::check(&scene.shape(), Hops::ExactlyOnce, &scene.observe(&handler), |_| u32::MAX);
    report.assert_no_faults();
    assert_eq!(report.extra_calls, 0);
}

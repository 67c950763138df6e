//! Records that break a transaction: nothing else is held up, and no record is lost.

use crate::support::broker;
use crate::support::clock::{self, PATIENCE};
use crate::support::handler::{Answer, Handler};
use crate::support::process::Kladder;
use crate::support::raw::{NewRecord, RawProducer};
use crate::support::records;
use crate::support::scene::Scene;

fn to(number: usize, partition: i32) -> NewRecord {
    NewRecord { partition, ..records::plain(number, 1) }
}

#[test]
fn a_record_larger_than_what_the_client_holds_at_a_time_climbs_as_any_other() {
    let handler = Handler::start(|call| if call.attempt == 1 { Answer::fail(503, "no") } else { Answer::ok() });
    let mut scene = Scene::with_source("nine-mib", &["500ms"], 2);
    scene.handler = handler.url().to_owned();
    broker::alter_topic(&scene.source, "max.message.bytes=20000000");
    let config = scene.set_up();
    // Random bytes, which are incompressible.
    let mut state = 7_u32;
    let value = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    });
    let large = NewRecord { value: Some(value.take(9 * 1024 * 1024).collect()), ..to(0, 0) };
    let mut written: Vec<NewRecord> = (1..40).map(|n| to(n, i32::try_from(n % 2).expect("0 or 1"))).collect();
    written.push(large);
    RawProducer::with(&scene.brokers, &[("message.max.bytes", "20000000")]).write(&scene.source, &written);
    let mut kladder = Kladder::run(&config);
    clock::eventually("all are done by their second attempt", PATIENCE, || {
        kladder.assert_running();
        handler.count() == 2 * written.len() && broker::lag(&scene.group, &scene.redeliver_topic()) == 0
    });
    assert_eq!(broker::read(&scene.redeliver_topic()).iter().filter_map(|r| r.value.as_ref().map(Vec::len)).max(), Some(9 << 20));
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
}

#[test]
fn a_flood_of_headers_does_not_outlast_its_transaction() {
    let handler = Handler::start(|call| if call.attempt == 1 { Answer::fail(503, "no") } else { Answer::ok() });
    let mut scene = Scene::with_source("flood", &["500ms"], 2);
    scene.handler = handler.url().to_owned();
    let config = scene.set_up();
    let mut flood = to(0, 0);
    let name = |n: usize| format!("kladder-{n:05x}").into_bytes();
    flood.headers.extend((0..40_000).map(|n| (name(n), None)));
    let mut written: Vec<NewRecord> = (1..40).map(|n| to(n, i32::try_from(n % 2).expect("0 or 1"))).collect();
    written.insert(0, flood);
    RawProducer::new(&scene.brokers).write(&scene.source, &written);
    let mut kladder = Kladder::run(&config);
    clock::eventually("all are done by their second attempt", PATIENCE, || {
        kladder.assert_running();
        handler.count() == 2 * written.len() && broker::lag(&scene.group, &scene.redeliver_topic()) == 0
    });
    let aborted: f64 = ["deliverer", "mover"]
        .iter()
        .filter_map(|role| scene.metric("kladder_transactions_aborted_total", &format!("role=\"{role}\"")))
        .sum();
    assert!(aborted < 0.5, "{aborted} transactions were aborted:\n{}", kladder.log());
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
}

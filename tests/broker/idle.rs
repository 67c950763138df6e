//! A worker that is idle for longer than its transactions may last, and then gets records.

use std::time::Duration;

use crate::support::broker;
use crate::support::checker::{self, FAILURE, Hops};
use crate::support::clock::{self, PATIENCE};
use crate::support::handler::{Answer, Handler};
use crate::support::process::Kladder;
use crate::support::raw::RawProducer;
use crate::support::records;
use crate::support::scene::Scene;

/// Longer than the timeout of kladder's transactions (10 s) and the coordinator's interval for aborting expired ones (another
/// 10 s).
const IDLE: Duration = Duration::from_secs(22);

#[test]
fn a_worker_goes_on_after_it_was_idle_for_longer_than_its_transactions_may_last() {
    const RECORDS: usize = 60;
    let handler = Handler::start(|call| if call.attempt <= 2 { Answer::fail(503, FAILURE) } else { Answer::ok() });
    let mut scene = Scene::with_source("idle", &["500ms", "1s"], 3);
    scene.handler = handler.url().to_owned();
    let config = scene.set_up();
    let producer = RawProducer::new(&scene.brokers);
    let mut kladder = Kladder::run(&config);
    for half in [0..RECORDS / 2, RECORDS / 2..RECORDS] {
        if half.start > 0 {
            clock::pause(IDLE);
            kladder.assert_running();
        }
        producer.write(&scene.source, &half.clone().map(|n| records::plain(n, 3)).collect::<Vec<_>>());
        clock::eventually("all are done in their third attempts", PATIENCE, || {
            kladder.assert_running();
            handler.count() >= half.end * 3
                && broker::lag(&scene.group, &scene.source) == 0
                && broker::lag(&scene.group, &scene.redeliver_topic()) == 0
        });
    }
    for role in ["deliverer", "mover"] {
        let label = format!("role=\"{role}\"");
        assert_eq!(scene.metric("kladder_transactions_aborted_total", &label), Some(0.0), "{role}: idling costs nothing");
        assert_eq!(scene.metric("kladder_worker_restarts_total", &label), Some(0.0), "{role}: idling costs nothing");
    }
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
    let report = checker::check(&scene.shape(), Hops::ExactlyOnce, &scene.observe(&handler), |_| 2);
    report.assert_no_faults();
    assert_eq!(report.extra_calls, 0);
}

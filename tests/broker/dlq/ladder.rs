//! With workers: redriven letters succeed or are dead again, and both are reported.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Letters;
use crate::support::broker;
use crate::support::clock::{self, PATIENCE};
use crate::support::handler::{Answer, Handler};
use crate::support::process::Kladder;
use crate::support::raw::RawProducer;
use crate::support::records;
use crate::support::scene::Scene;

struct Running {
    letters: Letters,
    is_mended: Arc<AtomicBool>,
    _handler: Handler,
    _kladder: Kladder,
}

/// 60 records that the handler rejects until it is fixed.
fn running(theme: &str) -> Running {
    let is_mended = Arc::new(AtomicBool::new(false));
    let seen = is_mended.clone();
    let handler = Handler::start(move |_| if seen.load(Ordering::Acquire) { Answer::ok() } else { Answer::fail(422, "Invalid") });
    let mut letters = Letters::empty(theme);
    handler.url().clone_into(&mut letters.scene.handler);
    letters.config = letters.scene.write();
    let records: Vec<_> = (0..60).map(|n| records::plain(n, super::PARTITIONS)).collect();
    RawProducer::new(&letters.scene.brokers).write(&letters.scene.source, &records);
    let kladder = Kladder::run(&letters.config);
    clock::eventually("all are dead", PATIENCE, || broker::read(&letters.scene.dlq_topic()).len() == 60);
    Running { letters, is_mended, _handler: handler, _kladder: kladder }
}

#[test]
fn a_canary_that_fails_again_ends_the_redrive_and_one_that_succeeds_lets_it_go_on() {
    let running = running("dlq-canary");
    let (letters, is_mended) = (&running.letters, &running.is_mended);
    let metric = |name: &str| letters.scene.metric(name, &letters.scene.ladder);
    clock::eventually("the metrics count them", PATIENCE, || metric("kladder_dlq_open_records") == Some(60.0));
    let stopped = letters.dlq(&["redrive", "--all", "--canary", "10", "--rate", "max", "--yes"]);
    assert_eq!(stopped.code, Some(1), "{stopped}");
    assert!(stopped.stderr.contains("is stopped: 10 of 10 failed again: 10 sent"), "{stopped}");
    let states = letters.states();
    assert_eq!((states["failed-again"], states["open"]), (10, 60), "ten are dead again, as younger letters");
    is_mended.store(true, Ordering::Release);
    let done = letters.dlq(&["redrive", "--all", "--canary", "10", "--rate", "200", "--yes"]).succeeds();
    assert!(done.stderr.contains("is done: 60 sent"), "{done}");
    clock::eventually("all succeed", PATIENCE, || letters.states().get("succeeded") == Some(&60));
    assert_eq!(letters.states(), [("failed-again".to_owned(), 10), ("succeeded".to_owned(), 60)].into());
    let metric = |name: &str| letters.scene.metric(name, &letters.scene.ladder);
    clock::eventually("the metrics say so", PATIENCE, || {
        metric("kladder_dlq_records") == Some(70.0) && metric("kladder_dlq_open_records") == Some(0.0)
    });
    assert_eq!((metric("kladder_dlq_oldest_seconds"), metric("kladder_dlq_at_risk_records")), (Some(0.0), Some(0.0)));
    assert_eq!(metric("kladder_dlq_new_groups"), Some(1.0));
    // Each was delivered to its group only.
    assert_eq!(broker::read(&letters.scene.source).len(), 60);
}

#[test]
fn in_relay_a_canary_waits_until_success_is_presumed() {
    let mut scene = Scene::of_relay("dlq-relay", &["500ms", "1s"], super::PARTITIONS);
    scene.settings.push_str("\nsettle = \"2s\"");
    let letters = Letters::of_scene(scene);
    letters.write(0..30);
    let mut kladder = Kladder::run(&letters.config);
    letters.scene.await_ready();
    let mut redrive = letters.start(&["redrive", "--all", "--canary", "6", "--rate", "max", "--yes"]);
    clock::eventually("the canary is sent", PATIENCE, || letters.sent().len() == 6);
    clock::pause(Duration::from_secs(4));
    assert_eq!(letters.sent().len(), 6, "the application has not gone past them");
    redrive.assert_running();
    // The application acknowledges everything.
    clock::eventually("the rest is sent, and all succeed", PATIENCE * 2, || {
        kladder.assert_running();
        for partition in 0..super::PARTITIONS {
            let last = letters.sent().iter().filter(|record| record.partition == partition).map(|record| record.offset).max();
            if let Some(last) = last {
                broker::commit(&letters.scene.group, &letters.scene.redeliver_topic(), partition, last + 1, "");
            }
        }
        letters.states().get("succeeded") == Some(&30)
    });
    assert!(redrive.ended(PATIENCE).is_some_and(|status| status.success()), "it said:\n{}", redrive.log());
}

#[test]
fn what_was_sent_back_too_often_is_parked() {
    let running = running("dlq-parked");
    let (letters, is_mended) = (&running.letters, &running.is_mended);
    for round in 1..=3 {
        letters.dlq(&["redrive", "--all", "--rate", "max", "--stop-at", "1", "--yes"]).succeeds();
        clock::eventually("all are dead again", PATIENCE, || broker::read(&letters.scene.dlq_topic()).len() == 60 * (round + 1));
    }
    clock::eventually("they are parked", PATIENCE, || letters.states().get("parked") == Some(&60));
    let refused = letters.dlq(&["redrive", "--all", "--rate", "max", "--yes"]).succeeds();
    assert!(refused.stderr.contains("60 are parked (--force includes them)"), "{refused}");
    is_mended.store(true, Ordering::Release);
    letters.dlq(&["redrive", "--all", "--rate", "max", "--force", "--yes"]).succeeds();
    clock::eventually("all succeed", PATIENCE, || letters.states().get("succeeded") == Some(&60));
    assert_eq!(letters.states()["failed-again"], 180);
}

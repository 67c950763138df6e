//! Two workers of one relay ladder under load, with faults of one of them, and a hold that stops both.
//!
//! The application is never disturbed, so with exactly-once hops the number of its deliveries is exactly as planned: each further
//! delivery is a duplicated hop.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use crate::support::app::{self, App, Copy, FAIL};
use crate::support::broker;
use crate::support::checker::{self, Hops};
use crate::support::clock::{self, PATIENCE};
use crate::support::load;
use crate::support::process::{self, Kladder};
use crate::support::records;
use crate::support::scene::{self, Scene, path};

const PARTITIONS: i32 = 4;

/// Longer than the session (10 s) and a transaction (10 s).
const STOPPED: Duration = Duration::from_secs(12);

/// For this long after a confirmed hold, no record may leave the inbox or a tier.
const OBEYED_WITHIN: Duration = Duration::from_secs(2);

#[test]
fn two_workers_of_a_relay_that_come_and_go_lose_nothing_and_double_no_hop() {
    come_and_go("fleet", Duration::from_millis(80), Hops::ExactlyOnce);
}

#[test]
fn at_least_once_two_workers_of_a_relay_that_come_and_go_lose_nothing() {
    come_and_go("fleet-alo", Duration::from_millis(200), Hops::AtLeastOnce);
}

#[test]
fn a_hold_stops_all_workers_of_a_relay_and_burns_no_attempt() {
    is_held_and_released("fleet-hold", Hops::ExactlyOnce);
}

#[test]
fn at_least_once_a_hold_stops_all_workers_of_a_relay_and_nothing_is_lost() {
    is_held_and_released("fleet-hold-alo", Hops::AtLeastOnce);
}

fn fleet(theme: &str, hops: Hops) -> Scene {
    let mut scene = Scene::of_relay(theme, &["1s", "2s"], PARTITIONS);
    scene.ask_for(hops);
    scene.set_up();
    scene
}

fn come_and_go(theme: &str, every: Duration, hops: Hops) {
    let scene = fleet(theme, hops);
    let mut app = App::start(&scene, &FAIL, Copy::Introduce, false);
    let (mut last, sent) = load::under_load(&scene, PARTITIONS, every, || {
        let mut first = Worker::start(&scene, "first");
        first.works();
        let mut second = Worker::start(&scene, "second");
        second.works();
        first.works();
        let mut second = second.killed_and_back();
        second.works();
        first.works();
        first.process.signal("STOP");
        clock::pause(STOPPED);
        first.process.signal("CONT");
        first.works();
        second.works();
        assert_eq!(second.process.terminate(PATIENCE).code(), Some(0), "its log:\n{}", second.process.log());
        first.works();
        first
    });
    settle(&scene, &mut app, &mut [&mut last], sent);
    check(&scene, &app, sent, hops);
}

fn is_held_and_released(theme: &str, hops: Hops) {
    let scene = fleet(theme, hops);
    let config = scene.write();
    let mut app = App::start(&scene, &FAIL, Copy::Introduce, false);
    let in_inbox = || broker::lag(&format!("{}.router", scene.ladder), &scene.inbox_topic());
    let in_tiers = || -> i64 { scene.tiers.iter().map(|t| broker::lag(&scene.mover_group(), &scene.tier_topic(t))).sum() };
    let ((mut first, mut second), sent) = load::under_load(&scene, PARTITIONS, Duration::from_millis(80), || {
        let (mut first, mut second) = (Worker::start(&scene, "first"), Worker::start(&scene, "second"));
        first.works();
        second.works();
        process::kladder(&["hold", "-c", path(&config), "--why", "the application is being replaced"]).succeeds();
        clock::pause(OBEYED_WITHIN);
        let (written, waiting) = (written(&scene), in_inbox());
        assert!(in_tiers() > 0, "nothing waits that the mover would have to hold back");
        // Long enough for every record of the tiers to become due.
        clock::pause(Duration::from_secs(4));
        assert_eq!(self::written(&scene), written, "something has left the inbox or a tier in spite of the hold");
        assert!(in_inbox() > waiting, "nothing has arrived that the router would have to hold back");
        for worker in [&mut first, &mut second] {
            worker.process.assert_running();
            assert_eq!(scene::metric_at(worker.health, "kladder_held", ""), Some(1.0));
            assert!(matches!(scene::get(worker.health, "/readyz"), Some((200, _))), "held, and ready nevertheless");
        }
        process::kladder(&["resume", "-c", path(&config)]).succeeds();
        first.works();
        second.works();
        (first, second)
    });
    settle(&scene, &mut app, &mut [&mut first, &mut second], sent);
    check(&scene, &app, sent, hops);
}

/// The number of records in each tier, in redeliver and in the DLQ.
fn written(scene: &Scene) -> Vec<usize> {
    let tiers = scene.tiers.iter().map(|tier| scene.tier_topic(tier));
    tiers.chain([scene.redeliver_topic(), scene.dlq_topic()]).map(|topic| broker::read(&topic).len()).collect()
}

/// Waits until each record has had its deliveries and none is in flight, and stops the workers.
fn settle(scene: &Scene, app: &mut App, workers: &mut [&mut Worker], sent: usize) {
    let (deliveries, dead) = app::planned(&scene.shape(), sent);
    // Separately, since at-least-once hops may duplicate both.
    let delivered = |app: &App| {
        let calls = app.calls().into_iter().map(|call| (call.partition, call.offset, call.attempt));
        calls.collect::<HashSet<_>>().len()
    };
    let died = || {
        let dlq = broker::read(&scene.dlq_topic());
        dlq.iter().filter_map(|record| record.text(records::ID)).collect::<HashSet<_>>().len()
    };
    clock::eventually("every record is done or dead", PATIENCE * 2, || {
        app.assert_running();
        for worker in workers.iter_mut() {
            worker.process.assert_running();
        }
        delivered(app) >= deliveries
            && died() >= dead
            && broker::lag(&format!("{}.router", scene.ladder), &scene.inbox_topic()) == 0
            && scene.tiers.iter().all(|tier| broker::lag(&scene.mover_group(), &scene.tier_topic(tier)) == 0)
    });
    for worker in workers {
        assert_eq!(worker.process.terminate(PATIENCE).code(), Some(0), "its log:\n{}", worker.process.log());
    }
}

fn check(scene: &Scene, app: &App, sent: usize, hops: Hops) {
    let observed = app.observe(scene);
    assert_eq!(observed.source.len(), sent);
    let report = checker::check(&scene.shape(), hops, &observed, app::failures);
    report.assert_no_faults();
    println!("{sent} records, {} deliveries, {} of them beyond the plan", observed.calls.len(), report.extra_calls);
    if hops == Hops::ExactlyOnce {
        assert_eq!(report.extra_calls, 0, "a hop was doubled");
    }
}

/// One of the workers: its router and its mover.
struct Worker {
    name: &'static str,
    config: PathBuf,
    health: u16,
    process: Kladder,
}

impl Worker {
    fn start(scene: &Scene, name: &'static str) -> Self {
        let (config, health) = scene.write_worker(name);
        Self { name, process: Kladder::run(&config), config, health }
    }

    /// SIGKILL, and an immediate restart.
    fn killed_and_back(self) -> Self {
        let Self { name, config, health, process } = self;
        process.kill_dash_nine();
        let process = Kladder::run(&config);
        Self { name, config, health, process }
    }

    /// Waits until it takes arrivals from the inbox and moves due records again.
    fn works(&mut self) {
        let done = || {
            let of = |name: &str, label: &str| scene::metric_at(self.health, name, label).unwrap_or(0.0);
            (of("kladder_deliveries_total", "verdict=\"retry\""), of("kladder_hops_total", "tier=\"redeliver\""))
        };
        let before = done();
        clock::eventually(&format!("worker {} routes and moves", self.name), PATIENCE, || {
            self.process.assert_running();
            let now = done();
            now.0 > before.0 + 10.0 && now.1 > before.1 + 10.0
        });
        println!("worker {} routes and moves", self.name);
    }
}

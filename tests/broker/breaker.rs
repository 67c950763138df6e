//! The handler's breaker: a handler that is down costs no attempts, and is not overloaded when it is back.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::support::broker;
use crate::support::checker::{self, Hops};
use crate::support::clock::{self, PATIENCE};
use crate::support::handler::{Answer, ClosedPort, Handler};
use crate::support::independent;
use crate::support::port::free_port;
use crate::support::process::Kladder;
use crate::support::raw::{NewRecord, RawProducer};
use crate::support::records;
use crate::support::scene::Scene;

/// The breaker opens for 1 s, 2 s, then at most 4 s.
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
        // Slow enough that several are in flight.
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
    // Until the handler is in doubt, with what was in flight then; and for a second ten more of each
    // partition.
    assert!(opened - before <= 20 + IN_FLIGHT + 10 * 3 + 5, "{} calls until it opened", opened - before);
    load(20..BATCHES / 2);
    clock::pause(OUTAGE.saturating_sub(began.elapsed()));
    let (live, page) = scene.get("/readyz").expect("an answer");
    assert!(live == 200 && (page.contains("handler breaker of") || state(&scene) == Some(1.0)), "{live}: {page}");
    let probes = handler.count() - opened;
    // 30 s of waits of 1 to 4 s, and a dozen probes after each.
    assert!((4..=20 * 16).contains(&probes), "{probes} probes");
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
    assert!(good.values().all(|attempt| *attempt == 1), "an outage burns no attempt, of {failed} failed calls");
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
    // As many as were in flight, ten until the breaker opened, and at most two probes a second.
    assert!(unsent <= 16.0 + 10.0 + 2.0 * 13.0, "{unsent} calls of a dead handler");
    let handler = port.open(|_| Answer::ok());
    clock::eventually("all are done", PATIENCE, || broker::lag(&scene.group, &scene.source) == 0);
    let report = checker::check(&scene.shape(), Hops::ExactlyOnce, &scene.observe(&handler), |_| 0);
    report.assert_no_faults();
    assert!(handler.calls().iter().all(|call| call.attempt == 1), "no attempt is burned");
    assert!(broker::read(&scene.tier_topic("1s")).is_empty());
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
}

#[test]
fn without_a_breaker_a_handler_that_cannot_be_reached_is_tried_in_place_for_half_a_minute() {
    let port = ClosedPort::reserve();
    let mut scene = Scene::with_source("in-place", &["1s", "2s"], 1);
    scene.handler = port.url();
    let config = scene.set_up();
    RawProducer::new(&scene.brokers).write(&scene.source, &[records::plain(0, 1)]);
    let _kladder = Kladder::run(&config);
    clock::eventually("the attempt has failed", PATIENCE, || !broker::read(&scene.tier_topic("1s")).is_empty());
    let tries = scene.metric("kladder_deliveries_total", "verdict=\"unsent\"").expect("a metric");
    // Pauses of 0.1, 0.2, 0.4, 0.8 and 1 s until their sum is 30 s, and then once more.
    assert!((30.0..=36.0).contains(&tries), "{tries} tries");
    let handler = port.open(|_| Answer::ok());
    clock::eventually("it is done by its second attempt", PATIENCE, || {
        broker::lag(&scene.group, &scene.redeliver_topic()) == 0 && handler.count() == 1
    });
    assert_eq!(handler.calls()[0].attempt, 2);
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
    // It subscribes topic by topic, and is ready when it has all of them.
    scene.await_ready();
    let before = rebalances();
    // Longer than the session of a member that does not leave its group.
    clock::pause(Duration::from_secs(12));
    let told = scene.get("/readyz").expect("an answer");
    assert!(told.0 == 200 && told.1.contains("open: deliveries wait, next probe in"), "{told:?}");
    assert!((rebalances() - before).abs() < 0.5, "it has kept its partitions");
    let (asked, calls) = (clock::now(), handler.count());
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
    assert!(asked.elapsed() < Duration::from_secs(8), "it waited for the breaker");
    assert_eq!(handler.count(), calls);
}

/// `mortal_handler.py`, restarted each time that it dies; stopped when dropped.
struct Mortal {
    url: String,
    log: PathBuf,
    stop: Arc<AtomicBool>,
    child: Arc<Mutex<Option<Child>>>,
    keeper: Option<JoinHandle<usize>>,
    _folder: tempfile::TempDir,
}

impl Mortal {
    fn start() -> Self {
        let (port, folder) = (free_port(), tempfile::tempdir().expect("a folder"));
        let log = folder.path().join("log");
        let (stop, child) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(None)));
        let keeper = std::thread::spawn({
            let (stop, child, log) = (stop.clone(), child.clone(), log.clone());
            move || {
                let mut lives = 0;
                while !stop.load(Ordering::Relaxed) {
                    let mut command = Command::new(independent::python());
                    command.arg(broker::in_house("tests/broker/mortal_handler.py")).arg(port.to_string()).arg(&log);
                    let started = command.stdin(Stdio::null()).spawn().expect("Python can be run; scripts/install test makes it");
                    *child.lock().unwrap_or_else(PoisonError::into_inner) = Some(started);
                    lives += 1;
                    let is_alive = || {
                        let mut child = child.lock().unwrap_or_else(PoisonError::into_inner);
                        child.as_mut().is_some_and(|child| child.try_wait().expect("a child").is_none())
                    };
                    while is_alive() {
                        clock::pause(Duration::from_millis(20));
                    }
                }
                lives
            }
        });
        Self { url: format!("http://127.0.0.1:{port}/"), log, stop, child, keeper: Some(keeper), _folder: folder }
    }

    /// Offset and attempt of each request so far.
    fn asked(&self) -> Vec<(i64, u32)> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let line =
            |line: &str| line.split_once(' ').and_then(|(offset, attempt)| Some((offset.parse().ok()?, attempt.parse().ok()?)));
        text.lines().filter_map(line).collect()
    }

    /// Stops it and returns how often it was started.
    fn end(mut self) -> usize {
        self.stop();
        self.keeper.take().expect("it runs").join().expect("its keeper ended well")
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(child) = self.child.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            let _ = child.kill();
        }
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        self.stop();
    }
}

#[test]
fn a_record_over_which_the_handler_dies_burns_its_own_attempts_and_nobody_else_s() {
    const RECORDS: usize = 60;
    const POISON: usize = 17;
    let handler = Mortal::start();
    let mut scene = Scene::with_source("mortal", &["500ms"], 1);
    scene.handler.clone_from(&handler.url);
    scene.max_in_flight = IN_FLIGHT;
    let config = scene.set_up();
    let record = |n: usize| match n {
        POISON => NewRecord { value: Some(b"poison".to_vec()), ..records::plain(n, 1) },
        _ => records::plain(n, 1),
    };
    RawProducer::new(&scene.brokers).write(&scene.source, &(0..RECORDS).map(record).collect::<Vec<_>>());
    let mut kladder = Kladder::run(&config);
    clock::eventually("the poison is dead and the others are done", PATIENCE, || {
        broker::read(&scene.dlq_topic()).len() == 1
            && broker::lag(&scene.group, &scene.source) == 0
            && broker::lag(&scene.group, &scene.redeliver_topic()) == 0
    });
    let (dlq, waited) = (broker::read(&scene.dlq_topic()), broker::read(&scene.tier_topic("500ms")));
    let told = ["x-id", "kladder-reason", "kladder-attempts", "kladder-error-class"].map(|name| dlq[0].text(name));
    assert_eq!(told, [Some("r-17"), Some("exhausted"), Some("2"), Some("connection lost")]);
    let failed: Vec<_> =
        waited.iter().map(|r| [records::ID, "kladder-error-class", "kladder-error-message"].map(|name| r.text(name))).collect();
    assert!(matches!(failed.as_slice(), [[Some("r-17"), ..]]), "others have failed: {failed:?}\n{:?}", handler.asked());
    let asked = handler.asked();
    let poison = i64::try_from(POISON).expect("few");
    assert!(asked.iter().all(|(offset, attempt)| *attempt == 1 || *offset == poison), "others have burnt attempts: {asked:?}");
    let distinct: BTreeSet<i64> = asked.iter().map(|(offset, _)| *offset).collect();
    assert_eq!(distinct.len(), RECORDS);
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
    // Among others, as the only suspect, and alone; and once more at the second attempt.
    assert!(handler.end() <= 2 * 3 + 1);
}

//! One to four workers and back under load, with faults of one of them: killed and restarted with its name, stopped past its
//! session and continued.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::support::broker;
use crate::support::checker::{self, FAILURE, Hops};
use crate::support::clock::{self, PATIENCE};
use crate::support::handler::{Answer, Call, Handler};
use crate::support::heavy;
use crate::support::independent;
use crate::support::load::{self, Load};
use crate::support::process::Kladder;
use crate::support::scene::{self, Scene};

const PARTITIONS: i32 = 8;
const IN_FLIGHT: usize = 32;
/// Longer than the session (10 s) and a transaction (10 s).
const STOPPED: Duration = Duration::from_secs(13);

/// A third never fails, the others fail once, twice or always.
fn failures(number: usize) -> u32 {
    [0, 1, 0, 2, u32::MAX, 1][number % 6]
}

#[test]
fn one_to_four_workers_and_back_lose_nothing_and_double_no_hop_while_20000_records_climb() {
    let _turn = heavy::turn();
    up_and_down("scale", 20_000, 3, Hops::ExactlyOnce);
}

#[test]
fn at_least_once_the_same_loses_nothing() {
    let _turn = heavy::turn();
    up_and_down("scale-least", 8_000, 1, Hops::AtLeastOnce);
}

/// When records of each partition were delivered, of the source (`false`) and of redeliver (`true`): failed records keep their
/// partition.
type Times = Mutex<BTreeMap<(i32, bool), Vec<Instant>>>;

fn up_and_down(theme: &str, records: usize, kills: usize, hops: Hops) {
    let times: Arc<Times> = Arc::default();
    let seen = Arc::clone(&times);
    let handler = Handler::start(move |call| {
        note(&seen, call);
        let fails = call.attempt <= failures(load::number_of(call, PARTITIONS));
        let answer = if fails { Answer::fail(503, FAILURE) } else { Answer::ok() };
        answer.after(Duration::from_millis(10))
    });
    let mut scene = Scene::with_source(theme, &["500ms", "1s", "2s"], PARTITIONS);
    handler.url().clone_into(&mut scene.handler);
    scene.max_in_flight = IN_FLIGHT;
    scene.ask_for(hops);
    scene.set_up();
    // Enough for the whole scenario, in steps of which each partition gets its share.
    let load = Load { rounds: records / 10_000 + 1, every: Duration::from_millis(80), at_least: records };

    let ((mut last, mut back), sent) = load::under_load_of(&scene, PARTITIONS, &load, || {
        let mut workers: Vec<Worker> = Vec::new();
        for number in 1..=4 {
            workers.push(Worker::start(&scene, &format!("w-{number}")));
            workers.iter_mut().for_each(Worker::delivers);
        }
        println!("four workers deliver, after {} calls", handler.count());
        let mut back = Vec::new();
        for kill in 0..kills {
            let worker = workers.remove(kill);
            let killed = clock::now();
            let again = worker.killed_and_back();
            workers.insert(kill, again);
            // Longer than the session, so that a worker that waits for its end is noticed.
            clock::pause(Duration::from_secs(14).saturating_sub(clock::now().duration_since(killed)));
            workers.iter_mut().for_each(Worker::delivers);
            back.push(longest_gap(&times, killed));
            println!("killed and back under its name, after {} calls", handler.count());
        }
        let stopped = &mut workers[3];
        stopped.process.signal("STOP");
        clock::pause(STOPPED);
        stopped.process.signal("CONT");
        // The others continue meanwhile with the partitions that it lost, and it joins again.
        workers.iter_mut().for_each(Worker::delivers);
        println!("stopped and continued, all four deliver");
        while workers.len() > 1 {
            let mut worker = workers.remove(0);
            assert_eq!(worker.process.terminate(PATIENCE).code(), Some(0), "its log:\n{}", worker.process.log());
            workers.iter_mut().for_each(Worker::delivers);
        }
        println!("one worker is left, after {} calls", handler.count());
        (workers.remove(0), back)
    });

    let shape = scene.shape();
    let planned: usize = (0..sent).map(|n| usize::try_from(shape.calls(failures(n))).expect("a small number")).sum();
    println!("{sent} records are written, {planned} calls are planned");
    clock::eventually("every record is done or dead", PATIENCE * 3, || {
        last.process.assert_running();
        handler.count() >= planned
            && broker::lag(&scene.group, &scene.redeliver_topic()) == 0
            && broker::lag(&scene.group, &scene.source) == 0
            && scene.tiers.iter().all(|tier| broker::lag(&scene.mover_group(), &scene.tier_topic(tier)) == 0)
    });
    assert_eq!(last.process.terminate(PATIENCE).code(), Some(0), "its log:\n{}", last.process.log());

    // The independent reader takes minutes for all records of the large run on a busy machine.
    let large = records > 10_000;
    let observed = if large { scene.observe(&handler) } else { independent::observe(&scene, &handler) };
    assert_eq!(observed.source.len(), sent);
    let report = checker::check(&shape, hops, &observed, failures);
    report.assert_no_faults();
    println!("{sent} records, {} calls, {} of them beyond the plan", observed.calls.len(), report.extra_calls);
    back.sort_unstable();
    println!("{theme}: after kill -9 all partitions are delivered from again within {back:.2?}");
    // A worker that waits for the killed one's session needs 10 s, and for its transaction longer. How much faster it is depends
    // on the load of the machine.
    assert!(back[kills - 1] < Duration::from_secs(9), "it came back no sooner than a stranger");
    if hops == Hops::ExactlyOnce {
        // When one is killed or presumed dead, all its deliveries may be repeated that are in flight or not committed yet.
        let bound = (kills + 1) * (IN_FLIGHT + scene.max_unsettled);
        assert!(report.extra_calls <= bound, "{} calls beyond the plan, at most {bound} are excused", report.extra_calls);
    }
}

/// One of the workers.
struct Worker {
    name: String,
    config: PathBuf,
    health: u16,
    process: Kladder,
}

impl Worker {
    fn start(scene: &Scene, name: &str) -> Self {
        let (config, health) = scene.write_worker(name);
        Self { name: name.to_owned(), process: Kladder::run(&config), config, health }
    }

    /// SIGKILL, and an immediate restart.
    fn killed_and_back(self) -> Self {
        let Self { name, config, health, process } = self;
        process.kill_dash_nine();
        let process = Kladder::run(&config);
        Self { name, config, health, process }
    }

    /// Waits until it delivers again.
    fn delivers(&mut self) {
        let delivered = || scene::metric_at(self.health, "kladder_deliveries_total", "");
        let before = delivered().unwrap_or(0.0);
        clock::eventually(&format!("worker {} delivers", self.name), PATIENCE, || {
            self.process.assert_running();
            delivered().is_some_and(|now| now > before + 20.0)
        });
    }
}

fn note(times: &Times, call: &Call) {
    let lane = (call.partition, call.attempt > 1);
    times.lock().unwrap_or_else(PoisonError::into_inner).entry(lane).or_default().push(clock::now());
}

/// The longest time from then on in which any partition had no delivery. Their owners are unknown: those of the killed worker
/// are among them, and the others continue.
fn longest_gap(times: &Times, since: Instant) -> Duration {
    let now = clock::now();
    let times = times.lock().unwrap_or_else(PoisonError::into_inner);
    assert_eq!(times.len(), 2 * usize::try_from(PARTITIONS).expect("a count"), "a partition was never delivered from");
    let gap = |times: &Vec<Instant>| {
        let mut moments = vec![since];
        moments.extend(times.iter().filter(|time| **time > since));
        moments.push(now);
        moments.windows(2).map(|pair| pair[1].duration_since(pair[0])).max().unwrap_or_default()
    };
    times.values().map(gap).max().unwrap_or_default()
}

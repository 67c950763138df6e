//! Healthy records are delivered whatever fails beside them: mixes of both, with a misbehaving handler and a worker with default
//! settings.
//!
//! The bounds here are generous, so that a busy machine keeps them; `scripts/bench starvation` measures the same mixes against tight ones.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::broker;
use crate::support::clock::{self, PATIENCE};
use crate::support::handler::{Answer, Handler};
use crate::support::misbehaving::{FIRST, Fared, Misbehaving, Mix, PARTITIONS, partition_of};
use crate::support::process::Kladder;
use crate::support::raw::{NewRecord, RawProducer};
use crate::support::records;
use crate::support::scene::{self, Scene};

/// How long records are written for, in seconds.
const SECONDS: usize = 24;

/// The bound for all mixes, beside their own: before, healthy records were blocked for half a minute and more.
const GENEROUS: Duration = Duration::from_secs(10);

/// Writes the records of these numbers.
fn write(producer: &RawProducer, scene: &Scene, numbers: Range<usize>) {
    let record = |number| NewRecord { partition: partition_of(number), ..records::plain(number, PARTITIONS) };
    producer.write(&scene.source, &numbers.map(record).collect::<Vec<_>>());
}

/// Runs a mix, and waits until every healthy record has arrived.
fn run(name: &str) -> (Scene, Kladder, Fared) {
    let mix = Mix::named(name);
    let handler = Misbehaving::start(mix.plan);
    let mut scene = Scene::with_source(&format!("starve-{name}"), &["2s", "5s"], PARTITIONS);
    scene.handler = handler.url();
    scene.timeout = "5s";
    (scene.breaker, scene.dlq_breaker) = ("", "");
    let config = scene.set_up();
    let kladder = Kladder::run(&config);
    let producer = RawProducer::new(&scene.brokers);
    write(&producer, &scene, FIRST);
    clock::eventually("the first have arrived", PATIENCE, || Fared::of(mix, &handler.answered(), FIRST.end).is_whole());
    let written = mix.play(&handler, SECONDS, |numbers| write(&producer, &scene, numbers));
    let fared = || Fared::of(mix, &handler.answered(), written);
    clock::eventually("all that is healthy has arrived", PATIENCE, || fared().is_whole());
    let fared = fared();
    let last = fared.arrived.last().expect("one").at;
    let gap = fared.longest_gap(last);
    let share = 100.0 * mix.least_share;
    println!(
        "{name}: longest gap {gap:.1?}, {} of {} burnt an attempt; {share} % in time is the aim",
        fared.burnt, fared.written
    );
    assert!(gap <= Duration::from_secs_f64(mix.longest_gap) + GENEROUS, "nothing healthy arrived for {gap:?}");
    let dead = broker::read(&scene.dlq_topic());
    let wrongly: Vec<_> = dead
        .iter()
        .filter_map(|record| records::number_of(record.text(records::ID)?))
        .filter(|number| mix.is_healthy(*number))
        .collect();
    assert!(wrongly.is_empty(), "dead letters that are healthy: {wrongly:?}");
    (scene, kladder, fared)
}

#[test]
fn after_an_outage_those_that_always_fail_do_not_keep_the_others_from_flowing() {
    let (_scene, _kladder, fared) = run("outage");
    assert_eq!(fared.burnt, 0, "an outage burns no attempt");
}

/// Each of them has only three attempts, and the breaker lets probes through every second.
#[test]
fn few_records_outlive_an_outage_in_which_each_of_them_has_been_a_probe() {
    const RECORDS: usize = 30;
    let works = Arc::new(AtomicBool::new(false));
    let mended = works.clone();
    let handler = Handler::start(move |_| if mended.load(Ordering::Acquire) { Answer::ok() } else { Answer::fail(503, "down") });
    let mut scene = Scene::with_source("starve-few", &["500ms", "1s"], PARTITIONS);
    handler.url().clone_into(&mut scene.handler);
    (scene.breaker, scene.dlq_breaker) = ("open_for = \"1s\"\nopen_most = \"1s\"", "");
    let config = scene.set_up();
    let mut kladder = Kladder::run(&config);
    scene.await_ready();
    write(&RawProducer::new(&scene.brokers), &scene, 0..RECORDS);
    // Four attempts of each would have been counted by now, if probes counted.
    clock::eventually("each has been a probe several times", PATIENCE * 2, || handler.count() > RECORDS * 4);
    works.store(true, Ordering::Release);
    clock::eventually("nothing is left", PATIENCE, || {
        broker::lag(&scene.group, &scene.source) == 0 && broker::lag(&scene.group, &scene.redeliver_topic()) == 0
    });
    assert!(broker::read(&scene.dlq_topic()).is_empty());
    kladder.assert_running();
}

#[test]
fn three_hundred_failures_in_a_row_of_one_partition_stop_no_other() {
    let (_scene, mut kladder, fared) = run("run-failing");
    assert_eq!(fared.burnt, 0);
    kladder.assert_running();
}

#[test]
fn a_partition_that_hangs_leaves_the_places_to_the_others() {
    assert_eq!(run("run-hanging").2.burnt, 0);
}

#[test]
fn a_run_that_drops_its_connections_stops_no_other_partition() {
    run("run-dropping");
}

#[test]
fn one_in_a_hundred_that_drops_its_connection_stops_nobody() {
    run("dropping");
}

#[test]
fn one_in_a_hundred_that_drops_its_connection_after_a_second_stops_nobody() {
    run("dropping-slowly");
}

#[test]
fn connections_that_drop_and_calls_that_hang_leave_the_places_that_are_left() {
    run("dropping-hanging");
}

#[test]
fn a_handler_of_one_process_that_a_record_kills_serves_the_others_in_between() {
    run("deadly");
}

#[test]
fn a_restart_of_the_handler_is_a_short_pause() {
    run("restart");
}

#[test]
fn a_restart_of_a_slow_handler_is_a_short_pause() {
    run("restart-slow");
}

#[test]
fn restarts_over_and_over_are_short_pauses() {
    run("restarts");
}

#[test]
fn a_handler_that_closes_after_each_answer_burns_no_attempt() {
    let (_scene, _kladder, fared) = run("closing");
    assert_eq!(fared.burnt, 0);
}

#[test]
fn while_calls_hang_and_another_worker_joins_the_partitions_that_stay_flow() {
    let mix = Mix::named("hanging");
    let handler = Misbehaving::start(mix.plan);
    let mut scene = Scene::with_source("starve-join", &["2s", "5s"], PARTITIONS);
    (scene.handler, scene.timeout, scene.drain) = (handler.url(), "60s", "60s");
    (scene.breaker, scene.dlq_breaker) = ("", "");
    let config = scene.set_up();
    let (second_config, _) = scene.write_worker("worker-2");
    let mut workers = vec![Kladder::run(&config)];
    scene.await_ready();
    let producer = RawProducer::new(&scene.brokers);
    write(&producer, &scene, FIRST);
    let written = mix.play(&handler, 30, |numbers| {
        // Each partition has a hanging call by then.
        if numbers.start > mix.per_second * 15 && workers.len() == 1 {
            workers.push(Kladder::run(&second_config));
        }
        write(&producer, &scene, numbers);
    });
    clock::eventually("all that is healthy has arrived, before a call that hangs is given up", Duration::from_secs(30), || {
        Fared::of(mix, &handler.answered(), written).is_whole()
    });
    let fared = Fared::of(mix, &handler.answered(), written);
    let gap = fared.longest_gap(fared.arrived.last().expect("one").at);
    println!("longest gap {gap:.1?}");
    assert!(gap <= GENEROUS, "nothing healthy arrived for {gap:?}");
    workers.iter_mut().for_each(Kladder::assert_running);
}

/// This many records are written at once for two workers.
const MORE: usize = 30;

/// Two workers of one ladder, each with its own handler.
struct Two {
    /// They stop before the scene with their logs is dropped.
    workers: [Kladder; 2],
    health: [u16; 2],
    handlers: [Misbehaving; 2],
    producer: RawProducer,
    written: usize,
    scene: Scene,
}

impl Two {
    /// Waits until each has three partitions of the source.
    fn start(theme: &str) -> Self {
        let plan = Mix::named("restart").plan;
        let handlers = [Misbehaving::start(plan), Misbehaving::start(plan)];
        let mut scene = Scene::with_source(theme, &["2s", "5s"], PARTITIONS);
        (scene.breaker, scene.dlq_breaker) = ("", "");
        scene.handler = handlers[1].url();
        let (second_config, second_health) = scene.write_worker("worker-2");
        scene.handler = handlers[0].url();
        let config = scene.set_up();
        let run = |config: &Path| {
            let levels = [("RUST_LOG", "info,kladder::worker::deliverer::aside=debug")];
            Kladder::start_with(&["run", "-c", scene::path(config)], &config.with_extension("log"), &levels)
        };
        let workers = [run(&config), run(&second_config)];
        let (health, producer) = ([scene.health_port(), second_health], RawProducer::new(&scene.brokers));
        let mut two = Self { workers, health, handlers, producer, written: FIRST.start, scene };
        clock::eventually("each has three partitions", PATIENCE, || {
            let first = two.write_more();
            clock::poll(Duration::from_secs(4), || two.partitions_since(first).iter().all(|own| own.len() == 3).then_some(()))
                .is_some()
        });
        two
    }

    /// Returns the number of the first one.
    fn write_more(&mut self) -> usize {
        let first = self.written;
        self.written += MORE;
        write(&self.producer, &self.scene, first..self.written);
        first
    }

    /// Partitions of the records from this number on that each handler has answered with success.
    fn partitions_since(&self, number: usize) -> [BTreeSet<i32>; 2] {
        self.handlers.each_ref().map(|handler| {
            let calls = handler.answered().into_iter().filter(|call| call.is_good && call.number >= number);
            calls.map(|call| call.partition).collect()
        })
    }

    fn is_all_done(&self) -> bool {
        broker::lag(&self.scene.group, &self.scene.source) == 0
    }

    fn stands_aside(&self) -> [bool; 2] {
        self.metrics("kladder_stands_aside", "").map(|value| value.expect("a metric") > 0.5)
    }

    fn metrics(&self, name: &str, label: &str) -> [Option<f64>; 2] {
        self.health.map(|port| scene::metric_at(port, name, label))
    }

    /// The number of successful calls that were not the first attempt.
    fn burnt(&self) -> usize {
        self.handlers.iter().flat_map(Misbehaving::answered).filter(|call| call.attempt > 1).count()
    }
}

#[test]
fn a_worker_that_cannot_reach_its_handler_leaves_its_source_partitions_to_one_that_can() {
    let mut two = Two::start("starve-aside");
    two.handlers[1].die(Duration::from_secs(600));
    let first = two.write_more();
    clock::eventually("the other serves all partitions", PATIENCE * 2, || two.partitions_since(first)[0].len() == 6);
    clock::eventually("it says so", PATIENCE, || two.stands_aside() == [false, true]);
    clock::eventually("nothing of the source is left", PATIENCE, || two.is_all_done());
    assert!(broker::read(&two.scene.dlq_topic()).is_empty());
    assert_eq!(two.burnt(), 0, "an outage burns no attempt");

    two.handlers[1].come_back();
    clock::eventually("it has partitions of its own again", PATIENCE * 2, || {
        let first = two.write_more();
        clock::poll(Duration::from_secs(4), || (two.partitions_since(first)[1].len() == 3).then_some(())).is_some()
    });
    clock::eventually("it does not stand aside any more", PATIENCE, || two.stands_aside() == [false; 2]);
    two.workers.iter_mut().for_each(Kladder::assert_running);
}

/// A worker checks for other members every five seconds, but only once its handler has been down long enough for it to leave.
#[test]
fn nobody_leaves_its_partitions_where_no_handler_can_be_reached() {
    const TIMES: usize = 4;
    let mut two = Two::start("starve-all-sick");
    clock::eventually("nothing of the source is left", PATIENCE, || two.is_all_done());
    let shares = two.partitions_since(two.written - MORE);

    two.handlers.iter().for_each(|handler| handler.die(Duration::from_secs(600)));
    let first = two.write_more();
    let both_are_down = |two: &Two| two.metrics("kladder_handler_health", "") == [Some(2.0); 2];
    clock::eventually("both handlers are seen to be down", PATIENCE, || both_are_down(&two));
    let rebalances = |two: &Two| two.metrics("kladder_rebalances_total", "role=\"deliverer\"");
    let before = rebalances(&two);
    clock::eventually("each has seen several times that the other's handler is down, too", PATIENCE * 2, || {
        assert_eq!(two.stands_aside(), [false; 2]);
        two.workers.iter().all(|worker| {
            let log = worker.log();
            log.lines().filter(|line| line.contains("other workers") && line.contains("live=1 well=0")).count() >= TIMES
        })
    });
    assert!(both_are_down(&two));
    assert_eq!(two.partitions_since(first), [const { BTreeSet::new() }; 2], "no handler has answered meanwhile");

    two.handlers.iter().for_each(Misbehaving::come_back);
    clock::eventually("nothing of the source is left", PATIENCE * 2, || two.is_all_done());
    assert_eq!(two.partitions_since(first), shares, "each has the partitions that it had");
    assert_eq!(rebalances(&two), before, "nobody has moved");
    assert_eq!(two.stands_aside(), [false; 2]);
    let done: BTreeSet<usize> = two.handlers.iter().flat_map(Misbehaving::answered).map(|call| call.number).collect();
    assert!(done.iter().copied().eq(FIRST.start..two.written), "not all records are done: {done:?}");
    assert_eq!(two.burnt(), 0, "an outage burns no attempt");
    assert!(broker::read(&two.scene.dlq_topic()).is_empty());
    two.workers.iter_mut().for_each(Kladder::assert_running);
}

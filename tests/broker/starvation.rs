//! Healthy records flow whatever fails beside them: mixes of both, against a handler that misbehaves, with a worker as it is shipped.
//!
//! The bounds here are generous, so that a busy machine keeps them; `scripts/bench starvation` measures the same mixes against tight ones.

use std::ops::Range;
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

/// What none of the mixes excuses, beside what it is about: before, healthy records stood still for half a minute and more.
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

/// Each of them has but three attempts, and the breaker lets probes through every second.
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
    // Four attempts of each would have been burnt by now, if probes were any.
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
        // Each partition has a call that hangs by then.
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

/// Partitions of the records from this number on that a handler has answered well.
fn partitions_since(handler: &Misbehaving, number: usize) -> Vec<i32> {
    let mut partitions: Vec<i32> =
        handler.answered().iter().filter(|call| call.is_good && call.number >= number).map(|call| call.partition).collect();
    partitions.sort_unstable();
    partitions.dedup();
    partitions
}

#[test]
fn a_worker_that_cannot_reach_its_handler_leaves_its_source_partitions_to_one_that_can() {
    let plan = Mix::named("restart").plan;
    let (well, sick) = (Misbehaving::start(plan), Misbehaving::start(plan));
    let mut scene = Scene::with_source("starve-aside", &["2s", "5s"], PARTITIONS);
    (scene.breaker, scene.dlq_breaker) = ("", "");
    scene.handler = sick.url();
    let (sick_config, sick_health) = scene.write_worker("worker-2");
    scene.handler = well.url();
    let config = scene.set_up();
    let (mut one, mut two) = (Kladder::run(&config), Kladder::run(&sick_config));
    let producer = RawProducer::new(&scene.brokers);
    let mut written = 1;
    let mut write_more = || {
        let first = written;
        written += 30;
        write(&producer, &scene, first..written);
        first
    };
    clock::eventually("each has three partitions", PATIENCE, || {
        let first = write_more();
        let both = || (partitions_since(&well, first), partitions_since(&sick, first));
        clock::poll(Duration::from_secs(4), || (both().0.len() == 3 && both().1.len() == 3).then_some(())).is_some()
    });

    sick.die(Duration::from_secs(600));
    let first = write_more();
    clock::eventually("the other serves all partitions", PATIENCE * 2, || partitions_since(&well, first).len() == 6);
    let stands_aside = || {
        let metrics = scene::get(sick_health, "/metrics").expect("metrics").1;
        scene::sum_metric(&metrics, "kladder_stands_aside", "") == Some(1.0)
    };
    clock::eventually("it says so", PATIENCE, stands_aside);
    clock::eventually("nothing of the source is left", PATIENCE, || broker::lag(&scene.group, &scene.source) == 0);
    assert!(broker::read(&scene.dlq_topic()).is_empty());
    let burnt = well.answered().iter().filter(|call| call.attempt > 1).count();
    assert_eq!(burnt, 0, "an outage burns no attempt");

    sick.come_back();
    clock::eventually("it has partitions of its own again", PATIENCE * 2, || {
        let first = write_more();
        clock::poll(Duration::from_secs(4), || (partitions_since(&sick, first).len() == 3).then_some(())).is_some()
    });
    clock::eventually("it does not stand aside any more", PATIENCE, || !stands_aside());
    one.assert_running();
    two.assert_running();
}

//! `kill -9`: at any moment, no record is lost and no hop is duplicated.

use std::time::Duration;

use crate::support::broker;
use crate::support::checker::{self, FAILURE, Hops};
use crate::support::clock::{self, PATIENCE};
use crate::support::handler::{Answer, Handler};
use crate::support::independent;
use crate::support::load;
use crate::support::process::Kladder;
use crate::support::rng::Rng;
use crate::support::scene::Scene;

const PARTITIONS: i32 = 6;
const KILLS: usize = 10;

/// A third never fails, the others fail once, twice or always.
fn failures(number: usize) -> u32 {
    [0, 1, 0, 2, u32::MAX, 1][number % 6]
}

#[test]
fn killed_ten_times_under_load_it_loses_nothing_and_doubles_no_hop() {
    let mut rng = Rng::seeded("kill");
    let handler = Handler::start(|call| {
        let fails = call.attempt <= failures(load::number_of(call, PARTITIONS));
        let answer = if fails { Answer::fail(503, FAILURE) } else { Answer::ok() };
        // Long enough that some are always open.
        answer.after(Duration::from_millis(20))
    });
    let mut scene = Scene::with_source("kill", &["500ms", "1s", "2s"], PARTITIONS);
    scene.handler = handler.url().to_owned();
    scene.max_in_flight = 16;
    scene.max_unsettled = 8;
    let config = scene.set_up();

    let every = Duration::from_millis(40);
    let (kladder, sent) = load::under_load(&scene, PARTITIONS, every, || {
        for kill in 1..=KILLS {
            let kladder = Kladder::run(&config);
            // Mostly at full work, sometimes while it starts, joins its groups or resumes its transactions.
            if rng.below(10) < 7 {
                let before = handler.count();
                clock::eventually("deliveries go on after a kill", PATIENCE, || handler.count() > before + 20);
            }
            let moment = rng.millis(50, 1500);
            clock::pause(moment);
            println!("kill {kill} after {} calls, {} ms later", handler.count(), moment.as_millis());
            kladder.kill_dash_nine();
        }
        Kladder::run(&config)
    });

    let shape = scene.shape();
    let dead = (0..sent).filter(|n| failures(*n) >= shape.attempts).count();
    let mut kladder = kladder;
    clock::eventually("every record is done or dead", PATIENCE * 2, || {
        kladder.assert_running();
        let back: usize = (0..sent).map(|n| usize::try_from(failures(n).min(shape.attempts - 1)).unwrap_or(0)).sum();
        broker::read(&scene.dlq_topic()).len() >= dead
            && broker::read(&scene.redeliver_topic()).len() >= back
            && broker::lag(&scene.group, &scene.redeliver_topic()) == 0
            && broker::lag(&scene.group, &scene.source) == 0
    });
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());

    let observed = independent::observe(&scene, &handler);
    assert_eq!(observed.source.len(), sent);
    let report = checker::check(&shape, Hops::ExactlyOnce, &observed, failures);
    report.assert_no_faults();
    let bound = KILLS * (scene.max_in_flight + scene.max_unsettled);
    println!("{sent} records, {} calls, {} of them beyond the plan", observed.calls.len(), report.extra_calls);
    assert!(report.extra_calls <= bound, "{} calls beyond the plan, at most {bound} are excused", report.extra_calls);
}

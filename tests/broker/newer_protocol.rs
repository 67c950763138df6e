//! The newer group protocol (KIP-848), by option: workers join, leave and are killed, and no record is lost or duplicated.

use std::time::Duration;

use crate::support::broker;
use crate::support::checker::{self, FAILURE, Hops};
use crate::support::clock::{self, PATIENCE};
use crate::support::handler::{Answer, Handler};
use crate::support::independent;
use crate::support::load;
use crate::support::process::Kladder;
use crate::support::scene::{self, Scene};

const PARTITIONS: i32 = 6;

/// The broker keeps the name and the partitions of a killed member for its session (15 s, see `scripts/kafka`).
const SESSION_AND_MORE: Duration = Duration::from_secs(120);

fn failures(number: usize) -> u32 {
    [0, 1, 0, 2, u32::MAX, 1][number % 6]
}

#[test]
fn workers_of_the_newer_protocol_join_leave_and_die_under_load() {
    let handler = Handler::start(|call| {
        let fails = call.attempt <= failures(load::number_of(call, PARTITIONS));
        if fails { Answer::fail(503, FAILURE) } else { Answer::ok() }
    });
    let mut scene = Scene::with_source("kip-848", &["500ms", "1s", "2s"], PARTITIONS);
    scene.handler = handler.url().to_owned();
    scene.max_in_flight = 16;
    scene.kafka = "consumer.group.protocol = \"consumer\"".to_owned();
    scene.set_up();
    let (first_config, first_health) = scene.write_worker("first");
    let (second_config, second_health) = scene.write_worker("second");
    let delivers = |worker: &mut Kladder, health: u16| {
        let before = scene::metric_at(health, "kladder_deliveries_total", "").unwrap_or(0.0);
        let since = clock::now();
        clock::eventually("the worker delivers", SESSION_AND_MORE, || {
            worker.assert_running();
            scene::metric_at(health, "kladder_deliveries_total", "").is_some_and(|now| now > before + 20.0)
        });
        (clock::now() - since).as_secs()
    };

    let ((mut first, mut second), sent) = load::under_load(&scene, PARTITIONS, Duration::from_millis(100), || {
        let mut first = Kladder::run(&first_config);
        delivers(&mut first, first_health);
        let mut second = Kladder::run(&second_config);
        delivers(&mut second, second_health);
        delivers(&mut first, first_health);
        assert_eq!(first.terminate(PATIENCE).code(), Some(0), "its log:\n{}", first.log());
        let mut first = Kladder::run(&first_config);
        println!("back {} s after SIGTERM", delivers(&mut first, first_health));
        first.kill_dash_nine();
        let mut first = Kladder::run(&first_config);
        println!("back {} s after kill -9", delivers(&mut first, first_health));
        delivers(&mut second, second_health);
        (first, second)
    });
    assert!(first.log().contains("waiting until its predecessor's session expires"), "its log:\n{}", first.log());
    for worker in [&first, &second] {
        assert!(!worker.log().contains("another live worker"), "its log:\n{}", worker.log());
    }
    assert_eq!(first.terminate(PATIENCE).code(), Some(0), "its log:\n{}", first.log());

    let shape = scene.shape();
    let dead = (0..sent).filter(|n| failures(*n) >= shape.attempts).count();
    let back: usize = (0..sent).map(|n| usize::try_from(failures(n).min(shape.attempts - 1)).unwrap_or(0)).sum();
    clock::eventually("every record is done or dead", SESSION_AND_MORE, || {
        second.assert_running();
        broker::read(&scene.dlq_topic()).len() >= dead
            && broker::read(&scene.redeliver_topic()).len() >= back
            && broker::lag(&scene.group, &scene.redeliver_topic()) == 0
            && broker::lag(&scene.group, &scene.source) == 0
    });
    assert_eq!(second.terminate(PATIENCE).code(), Some(0), "its log:\n{}", second.log());
    let observed = independent::observe(&scene, &handler);
    assert_eq!(observed.source.len(), sent);
    let report = checker::check(&shape, Hops::ExactlyOnce, &observed, failures);
    println!("{sent} records, {} calls, {} of them beyond the plan", observed.calls.len(), report.extra_calls);
    report.assert_no_faults();
}

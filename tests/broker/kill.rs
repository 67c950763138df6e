//! `kill -9`: whatever the moment, nothing is lost and no hop is doubled.

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine;
use serde_json::Value;

use crate::support::broker;
use crate::support::checker::{self, FAILURE, Hops, Observed};
use crate::support::clock::{self, PATIENCE};
use crate::support::handler::{Answer, Handler};
use crate::support::process::Kladder;
use crate::support::raw::{RawProducer, Record};
use crate::support::records;
use crate::support::rng::Rng;
use crate::support::scene::Scene;

const PARTITIONS: i32 = 6;
const KILLS: usize = 10;

/// A third fail not at all, the others once, twice and always.
fn failures(number: usize) -> u32 {
    [0, 1, 0, 2, u32::MAX, 1][number % 6]
}

#[test]
fn killed_ten_times_under_load_it_loses_nothing_and_doubles_no_hop() {
    let mut rng = Rng::seeded("kill");
    // Records go round the partitions in order, so that their place tells their number.
    let handler = Handler::start(|call| {
        let place = call.offset * i64::from(PARTITIONS) + i64::from(call.partition);
        let fails = call.attempt <= failures(usize::try_from(place).unwrap_or_default());
        let answer = if fails { Answer::fail(503, FAILURE) } else { Answer::ok() };
        // Long enough that some are always open.
        answer.after(Duration::from_millis(20))
    });
    let mut scene = Scene::with_source("kill", &["500ms", "1s", "2s"], PARTITIONS);
    scene.handler = handler.url().to_owned();
    scene.max_in_flight = 16;
    let config = scene.set_up();

    let (stop, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
    let kladder = std::thread::scope(|scope| {
        scope.spawn(|| {
            let producer = RawProducer::new(&scene.brokers);
            while !stop.load(Ordering::SeqCst) {
                let next = sent.load(Ordering::SeqCst);
                let batch: Vec<_> = (next..next + 6).map(|n| records::plain(n, PARTITIONS)).collect();
                producer.write(&scene.source, &batch);
                sent.store(next + 6, Ordering::SeqCst);
                clock::pause(Duration::from_millis(40));
            }
        });
        // A panic below must stop the producer too, or the scope would wait for it for ever.
        let _stopped = OnDrop(|| stop.store(true, Ordering::SeqCst));
        for kill in 1..=KILLS {
            let kladder = Kladder::run(&config);
            // Most of the time in full work, sometimes while it starts, joins its groups or takes up its transactions again.
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

    let sent = sent.into_inner();
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

    let observed = read_independently(&scene, &handler);
    assert_eq!(observed.source.len(), sent);
    let report = checker::check(&shape, Hops::ExactlyOnce, &observed, failures);
    report.assert_no_faults();
    let bound = KILLS * scene.max_in_flight;
    println!("{sent} records, {} calls, {} of them beyond the plan", observed.calls.len(), report.extra_calls);
    assert!(report.extra_calls <= bound, "{} calls beyond the plan, at most {bound} are excused", report.extra_calls);
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// The topics as a reader sees them that shares no code with kladder.
fn read_independently(scene: &Scene, handler: &Handler) -> Observed {
    let mut topics = vec![scene.source.clone(), scene.redeliver_topic(), scene.dlq_topic()];
    topics.extend(scene.tiers.iter().map(|tier| scene.tier_topic(tier)));
    let python = std::env::var_os("KLADDER_TEST_PYTHON").unwrap_or(broker::in_house(".venv/bin/python").into());
    let output = Command::new(&python)
        .arg(broker::in_house("tests/broker/reader.py"))
        .arg(&scene.brokers)
        .args(&topics)
        .output()
        .unwrap_or_else(|error| panic!("{} cannot be run ({error}); scripts/install test makes it", python.display()));
    assert!(output.status.success(), "reader.py failed: {}", String::from_utf8_lossy(&output.stderr));
    let all: Vec<Record> = String::from_utf8(output.stdout).expect("JSON").lines().map(parse).collect();
    let of = |topic: String| all.iter().filter(|r| r.topic == topic).cloned().collect::<Vec<_>>();
    Observed {
        source: of(scene.source.clone()),
        tiers: scene.tiers.iter().map(|tier| of(scene.tier_topic(tier))).collect(),
        redeliver: of(scene.redeliver_topic()),
        dlq: of(scene.dlq_topic()),
        calls: handler.calls(),
    }
}

fn parse(line: &str) -> Record {
    let value: Value = serde_json::from_str(line).expect("JSON");
    let bytes =
        |value: &Value| value.as_str().map(|text| base64::engine::general_purpose::STANDARD.decode(text).expect("base64"));
    let number = |name: &str| value[name].as_i64().expect("a number");
    let headers = value["headers"].as_array().expect("a list").iter();
    Record {
        topic: value["topic"].as_str().expect("a name").to_owned(),
        partition: i32::try_from(number("partition")).expect("a partition"),
        offset: number("offset"),
        timestamp: number("timestamp"),
        key: bytes(&value["key"]),
        value: bytes(&value["value"]),
        headers: headers.map(|h| (h[0].as_str().expect("a name").into(), bytes(&h[1]))).collect(),
    }
}

//! Brokers that die or stand still, in a cluster of three: the workers outlive it, lose nothing and double no hop.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::broker;
use crate::support::checker::{self, FAILURE, Hops};
use crate::support::clock::{self, PATIENCE};
use crate::support::handler::{Answer, Handler};
use crate::support::independent;
use crate::support::load::{self, OnDrop};
use crate::support::process::Kladder;
use crate::support::raw;
use crate::support::scene::Scene;

const PARTITIONS: i32 = 6;
const FAULTS: usize = 3;

fn failures(number: usize) -> u32 {
    [0, 1, 0, 2, u32::MAX, 1][number % 6]
}

#[test]
fn a_broker_killed_another_paused_and_all_standing_still_under_load_cost_nothing() {
    let cluster = Cluster::of_three();
    let handler = Handler::start(|call| {
        let fails = call.attempt <= failures(load::number_of(call, PARTITIONS));
        let answer = if fails { Answer::fail(503, FAILURE) } else { Answer::ok() };
        answer.after(Duration::from_millis(20))
    });
    let mut scene = Scene::on(&cluster.address, "outage", &["500ms", "1s", "2s"]);
    broker::create_topic_on(&cluster.address, &scene.source, PARTITIONS, &[]);
    scene.handler = handler.url().to_owned();
    scene.max_in_flight = 16;
    // What setup makes has the source's replication, or the kill would lose it.
    let config = scene.set_up();
    let goes_on = |what: &str| {
        let before = handler.count();
        clock::eventually(what, PATIENCE, || handler.count() > before + 50);
    };

    let (mut kladder, sent) = load::under_load(&scene, PARTITIONS, Duration::from_millis(60), || {
        let kladder = Kladder::run(&config);
        goes_on("it delivers");
        let leaders = broker::leaders_on(&cluster.address, &scene.tier_topic("500ms")).expect("leaders");
        let killed = leaders[0];
        broker_of_three(killed, "kill");
        clock::eventually("other brokers take over", PATIENCE, || {
            let leaders = broker::leaders_on(&cluster.address, &scene.source);
            leaders.is_some_and(|leaders| leaders.iter().all(|leader| *leader > 0 && *leader != killed))
        });
        goes_on("it delivers with a broker less");
        broker_of_three(killed, "start");
        goes_on("it delivers with the broker back");
        let paused = killed % 3 + 1;
        broker_of_three(paused, "pause");
        clock::pause(Duration::from_secs(8));
        broker_of_three(paused, "continue");
        goes_on("it delivers after the pause");
        // Longer than a session: the group thinks the worker dead, the worker the group, and there is no other of its name.
        (1..=3).for_each(|broker| broker_of_three(broker, "pause"));
        clock::pause(Duration::from_secs(12));
        (1..=3).for_each(|broker| broker_of_three(broker, "continue"));
        goes_on("it delivers after all brokers stood still");
        kladder
    });

    println!("the load is over");
    let shape = scene.shape();
    let planned: usize = (0..sent).map(|n| usize::try_from(shape.calls(failures(n))).expect("a small number")).sum();
    let dead = (0..sent).filter(|n| failures(*n) >= shape.attempts).count();
    let drained = |group: &str, topic: &str| broker::lag_on(&cluster.address, group, topic) == Some(0);
    clock::eventually("every record is done or dead", PATIENCE * 2, || {
        // The same process all the while.
        kladder.assert_running();
        handler.count() >= planned
            && drained(&scene.group, &scene.redeliver_topic())
            && drained(&scene.group, &scene.source)
            && scene.tiers.iter().all(|tier| drained(&scene.mover_group(), &scene.tier_topic(tier)))
            && raw::read_topic(&cluster.address, &scene.dlq_topic()).len() >= dead
    });
    println!("it has drained");
    let fenced = kladder.log().lines().filter(|line| line.contains("fenced by nobody")).count();
    println!("its own client fenced it {fenced} times");
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());

    let observed = independent::observe(&scene, &handler);
    assert_eq!(observed.source.len(), sent);
    let report = checker::check(&shape, Hops::ExactlyOnce, &observed, failures);
    report.assert_no_faults();
    println!("{sent} records, {} calls, {} of them beyond the plan", observed.calls.len(), report.extra_calls);
    let bound = FAULTS * scene.max_in_flight;
    assert!(report.extra_calls <= bound, "{} calls beyond the plan, at most {bound} are excused", report.extra_calls);
}

/// Three brokers. They are stopped at the end if they were not up before.
struct Cluster {
    address: String,
    _down: Option<OnDrop<fn()>>,
}

impl Cluster {
    fn of_three() -> Self {
        let was_up = Command::new(broker::in_house("scripts/kafka"))
            .args(["status", "--brokers", "3"])
            .stdin(Stdio::null())
            .output()
            .is_ok_and(|output| output.status.success());
        // Without a panic of its own: there may be one on its way.
        let down: Option<OnDrop<fn()>> = (!was_up).then_some(OnDrop(|| {
            let _ = Command::new(broker::in_house("scripts/kafka")).args(["down", "--brokers", "3"]).status();
        }));
        Self { address: kafka(&["up", "--brokers", "3"]), _down: down }
    }
}

fn broker_of_three(number: i32, action: &str) {
    println!("broker {number}: {action}");
    kafka(&["broker", &number.to_string(), action, "--brokers", "3"]);
}

fn kafka(arguments: &[&str]) -> String {
    let output = Command::new(broker::in_house("scripts/kafka")).args(arguments).stdin(Stdio::null()).output();
    let output = output.expect("scripts/kafka can be run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "scripts/kafka {} failed: {said}", arguments.join(" "));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

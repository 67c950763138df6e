//! Brokers that die or are paused, in a cluster of three: the workers survive, lose no record and duplicate no
//! hop.

use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::support::broker;
use crate::support::checker::{self, FAILURE, Hops};
use crate::support::clock::{self, PATIENCE};
use crate::support::handler::{Answer, Handler};
use crate::support::independent;
use crate::support::load::{self, OnDrop};
use crate::support::process::Kladder;
use crate::support::raw::{self, NewRecord, RawProducer};
use crate::support::records;
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
    scene.max_unsettled = 0;
    // Setup gives the topics the source's replication, or the kill would lose them.
    let config = scene.set_up();
    // The same process throughout.
    let goes_on = |kladder: &mut Kladder, what: &str| {
        let before = handler.count();
        clock::eventually(what, PATIENCE, || {
            kladder.assert_running();
            handler.count() > before + 50
        });
    };

    let (mut kladder, sent) = load::under_load(&scene, PARTITIONS, Duration::from_millis(60), || {
        let mut kladder = Kladder::run(&config);
        goes_on(&mut kladder, "it delivers");
        let leaders = broker::leaders_on(&cluster.address, &scene.tier_topic("500ms")).expect("leaders");
        let killed = leaders[0];
        broker_of_three(killed, "kill");
        clock::eventually("other brokers take over", PATIENCE, || {
            let leaders = broker::leaders_on(&cluster.address, &scene.source);
            leaders.is_some_and(|leaders| leaders.iter().all(|leader| *leader > 0 && *leader != killed))
        });
        goes_on(&mut kladder, "it delivers with a broker less");
        broker_of_three(killed, "start");
        goes_on(&mut kladder, "it delivers with the broker back");
        let paused = killed % 3 + 1;
        broker_of_three(paused, "pause");
        clock::pause(Duration::from_secs(8));
        broker_of_three(paused, "continue");
        goes_on(&mut kladder, "it delivers after the pause");
        // Longer than a session: the worker is removed from its group, and there is no other with its name.
        (1..=3).for_each(|broker| broker_of_three(broker, "pause"));
        clock::pause(Duration::from_secs(12));
        (1..=3).for_each(|broker| broker_of_three(broker, "continue"));
        goes_on(&mut kladder, "it delivers after all brokers stood still");
        kladder
    });

    println!("the load is over");
    let shape = scene.shape();
    let planned: usize = (0..sent).map(|n| usize::try_from(shape.calls(failures(n))).expect("a small number")).sum();
    let dead = (0..sent).filter(|n| failures(*n) >= shape.attempts).count();
    let drained = |group: &str, topic: &str| broker::lag_on(&cluster.address, group, topic) == Some(0);
    clock::eventually("every record is done or dead", PATIENCE * 2, || {
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
    // Beside other work on the machine, partitions may be lost more often than the test takes them away.
    let log = kladder.log();
    let losses = log.lines().filter(|line| line.contains("partitions were lost") || line.contains("worker failed")).count();
    println!("its partitions were lost, or a worker was started again, {losses} times");
    let bound = FAULTS.max(losses) * scene.max_in_flight;
    assert!(report.extra_calls <= bound, "{} calls beyond the plan, at most {bound} are excused", report.extra_calls);
}

#[test]
fn a_tier_with_too_few_replicas_holds_up_only_what_has_to_go_there() {
    const EACH: usize = 20;
    let cluster = Cluster::of_three();
    // Partition 0 goes to the tier, 1 to the DLQ, 2 is done.
    let handler = Handler::start(|call| match (call.partition, call.attempt) {
        (0, 1) => Answer::fail(429, "not yet"),
        (1, _) => Answer::fail(400, "never"),
        _ => Answer::ok(),
    });
    let mut scene = Scene::on(&cluster.address, "few-replicas", &["500ms"]);
    broker::create_topic_on(&cluster.address, &scene.source, 3, &[]);
    scene.handler = handler.url().to_owned();
    scene.max_in_flight = 8;
    let config = scene.set_up();
    // With one of three brokers down, nothing can be written to the tier, and everything to the
    // other topics.
    let tier = scene.tier_topic("500ms");
    broker::alter_topic_on(&cluster.address, &tier, "min.insync.replicas=3");
    let mut kladder = Kladder::run(&config);
    scene.await_ready();
    broker_of_three(3, "kill");
    clock::eventually("other brokers take over", PATIENCE, || {
        let topics = [&scene.source, &tier, &scene.dlq_topic(), &scene.redeliver_topic()];
        let leads = |leader: &i32| *leader > 0 && *leader != 3;
        topics.iter().all(|topic| broker::leaders_on(&cluster.address, topic).is_some_and(|all| all.iter().all(leads)))
    });

    let producer = RawProducer::new(&scene.brokers);
    let write = |from: usize| {
        let of = |partition| (0..EACH).map(move |n| NewRecord { partition, ..records::plain(from + n, 1) });
        producer.write(&scene.source, &of(0).chain(of(1)).chain(of(2)).collect::<Vec<_>>());
    };
    let arrived = |partition: i32| handler.calls().iter().filter(|call| call.partition == partition).count();
    let read = |topic: &str| raw::read_topic(&cluster.address, topic).len();
    let flows = |round: usize| read(&scene.dlq_topic()) == round * EACH && arrived(2) == round * EACH;
    write(0);
    clock::eventually("what goes elsewhere has gone", PATIENCE, || flows(1));
    let stopped = || scene.metric("kladder_partitions_stopped", "role=\"deliverer\"");
    clock::eventually("the partition stands still that has to go there", PATIENCE, || stopped() == Some(1.0));
    write(EACH);
    clock::eventually("all else goes on", PATIENCE, || flows(2));
    assert!(kladder.log().contains("partition cannot be written to now"), "{}", kladder.log());
    assert_eq!(read(&tier), 0);

    broker_of_three(3, "start");
    clock::eventually("all is done", PATIENCE * 2, || {
        kladder.assert_running();
        let drained = |topic: &str| broker::lag_on(&cluster.address, &scene.group, topic) == Some(0);
        arrived(0) == 4 * EACH && drained(&scene.source) && drained(&scene.redeliver_topic())
    });
    clock::eventually("nothing stands still", PATIENCE, || stopped() == Some(0.0));
    assert_eq!(read(&scene.redeliver_topic()), 2 * EACH, "each once");
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
}

/// Three brokers, used by one test at a time. Stopped at the end if they were not up before.
struct Cluster {
    address: String,
    _down: Option<OnDrop<fn()>>,
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::new(());

impl Cluster {
    fn of_three() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let was_up = Command::new(broker::in_house("scripts/kafka"))
            .args(["status", "--brokers", "3"])
            .stdin(Stdio::null())
            .output()
            .is_ok_and(|output| output.status.success());
        // Without another panic: one may be in progress.
        let down: Option<OnDrop<fn()>> = (!was_up).then_some(OnDrop(|| {
            let _ = Command::new(broker::in_house("scripts/kafka")).args(["down", "--brokers", "3"]).status();
        }));
        Self { address: kafka(&["up", "--brokers", "3"]), _down: down, _turn: turn }
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

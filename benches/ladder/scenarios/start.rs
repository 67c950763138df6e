//! How soon after its start a worker redelivers overdue records, also when its predecessor was killed in a transaction.

use std::time::{Duration, Instant};

use crate::clock::{epoch_micros, seconds};
use crate::load::Load;
use crate::observer::Observer;
use crate::progress::Progress;
use crate::report::{Figure, Target, figure};
use crate::scenarios::lateness::OWNS;
use crate::scenarios::{Bench, Plan, Stage, reckon, unique};

const PARTITIONS: i32 = 6;

pub fn start(bench: &Bench, progress: &Progress) -> Vec<Figure> {
    let plan = Plan { name: unique(), tiers: &["1s"], partitions: PARTITIONS, hops: "exactly-once", handler: None, timeout: "" };
    let stage = Stage::set(bench, std::slice::from_ref(&plan), progress);
    let records = bench.records(1_000_000);
    let mut load = Load::new(&bench.broker.servers, &plan.name, records, Duration::from_millis(20));
    load.pour(&plan.tier(0), PARTITIONS, 0..records, true, progress);
    std::thread::sleep(Duration::from_secs(2));
    let observer = Observer::start(&bench.broker.servers, &[plan.redeliver()], PARTITIONS);
    progress.step("starting");
    let first = stage.setup.run("mover");
    let started = epoch_micros();
    stage.setup.wait_until_said(OWNS, 1);
    let joined = epoch_micros();
    // In the middle of the backlog a transaction is practically always open.
    let began = Instant::now();
    while observer.count() < records / 10 {
        assert!(began.elapsed() < Duration::from_secs(60), "nothing is redelivered");
        std::thread::sleep(Duration::from_millis(1));
    }
    progress.step("killing");
    first.kill();
    // Records committed before are read first.
    std::thread::sleep(Duration::from_millis(300));
    let again = epoch_micros();
    let _second = stage.setup.run("mover");
    observer.wait_for(records, Duration::from_secs(120));
    let seen = observer.end();
    let soonest = |after: i64| seen.iter().map(|(_, at)| *at).filter(|at| *at > after).min().unwrap_or(i64::MAX);
    let mut figures = vec![
        figure("beyond the join", "s", seconds(joined, soonest(started)).max(0.0), Target::AtMost(1.0)),
        figure("start to redelivery", "s", seconds(started, soonest(started)), Target::Told),
        figure("the same after kill -9", "s", seconds(again, soonest(again)), Target::AtMost(3.0)),
    ];
    figures.extend(reckon(&seen, 0..records));
    figures
}

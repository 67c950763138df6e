//! A backlog that is due at once, compared with a plain copy of it.

use std::time::{Duration, Instant};

use crate::ceiling;
use crate::clock::{epoch_micros, seconds};
use crate::load::Load;
use crate::observer::Observer;
use crate::progress::Progress;
use crate::report::{Figure, Target, count, figure};
use crate::scenarios::{Bench, Plan, Stage, reckon, unique};

const PARTITIONS: i32 = 6;
const PATIENCE: Duration = Duration::from_secs(120);

pub fn exactly_once(bench: &Bench, progress: &Progress) -> Vec<Figure> {
    beside_the_ceiling(bench, progress, "exactly-once", 0.80)
}

pub fn at_least_once(bench: &Bench, progress: &Progress) -> Vec<Figure> {
    beside_the_ceiling(bench, progress, "at-least-once", 0.90)
}

fn beside_the_ceiling(bench: &Bench, progress: &Progress, hops: &str, share: f64) -> Vec<Figure> {
    let records = bench.records(500_000);
    let plan = Plan { name: unique(), tiers: &["1s"], partitions: PARTITIONS, hops, handler: None, timeout: "" };
    let stage = Stage::set(bench, std::slice::from_ref(&plan), progress);
    let mut load = Load::new(&bench.broker.servers, &plan.name, records, Duration::from_millis(20));
    load.pour(&plan.tier(0), PARTITIONS, 0..records, true, progress);
    std::thread::sleep(Duration::from_secs(2));
    let copy = format!("{}.copy", plan.name);
    bench.broker.create_topic(&copy, PARTITIONS);
    let ceiling = || {
        progress.step("the ceiling");
        ceiling::copy(&bench.broker.servers, &plan.tier(0), &copy, PARTITIONS, records)
    };
    // Before and after, since the machine's performance changes by the minute.
    let before = ceiling();
    let drained = drain(bench, &stage, &plan, records, progress);
    let after = ceiling();
    let most = 2.0 * count(records) / (before.time + after.time).as_secs_f64();
    progress.step("reading what came back");
    let observer = Observer::start(&bench.broker.servers, &[plan.redeliver()], PARTITIONS);
    observer.wait_for(records, PATIENCE);
    let seen = observer.end();
    let mut figures = vec![
        figure("of the ceiling", "", drained.rate / most, Target::AtLeast(share)),
        figure("rate", "records/s", drained.rate, Target::Told),
        figure("ceiling", "records/s", most, Target::Told),
        figure("CPU", "s a million", drained.cpu / count(records) * 1e6, Target::Told),
        figure("ceiling's CPU", "s a million", (before.cpu + after.cpu) / count(2 * records) * 1e6, Target::Told),
        figure("peak RSS", "MiB", drained.peak_rss, Target::Told),
    ];
    figures.extend(reckon(&seen, 0..records));
    figures
}

struct Drained {
    rate: f64,
    cpu: f64,
    peak_rss: f64,
}

/// Starts a mover on a tier in which everything is due, and waits until the last record is visible.
fn drain(bench: &Bench, stage: &Stage<'_>, plan: &Plan<'_>, records: usize, progress: &Progress) -> Drained {
    progress.step("draining");
    let worker = stage.setup.run("mover");
    bench.broker.wait_for(&plan.redeliver(), PARTITIONS, records, PATIENCE);
    let (ended, cpu, peak_rss) = (epoch_micros(), worker.cpu(), worker.peak_rss());
    drop(worker);
    let began = bench.broker.first_append(&plan.redeliver(), PARTITIONS) * 1_000;
    Drained { rate: count(records) / seconds(began, ended), cpu, peak_rss }
}

pub fn growth(bench: &Bench, progress: &Progress) -> Vec<Figure> {
    let mut times = Vec::new();
    for records in [10_000, 100_000, 1_000_000].map(|records| bench.records(records)) {
        let plan =
            Plan { name: unique(), tiers: &["1s"], partitions: PARTITIONS, hops: "exactly-once", handler: None, timeout: "" };
        let stage = Stage::set(bench, std::slice::from_ref(&plan), progress);
        let mut load = Load::new(&bench.broker.servers, &plan.name, records, Duration::from_millis(20));
        load.pour(&plan.tier(0), PARTITIONS, 0..records, true, progress);
        std::thread::sleep(Duration::from_secs(2));
        let began = Instant::now();
        times.push(1e6 / drain(bench, &stage, &plan, records, progress).rate);
        progress.at(&format!("{records} records in {:?}", began.elapsed()));
    }
    let slowest = times.iter().copied().fold(0.0, f64::max);
    let fastest = times.iter().copied().fold(f64::INFINITY, f64::min);
    vec![
        figure("slowest by fastest", "", slowest / fastest, Target::AtMost(1.2)),
        figure("of 10,000", "µs a record", times[0], Target::Told),
        figure("of 100,000", "µs a record", times[1], Target::Told),
        figure("of 1,000,000", "µs a record", times[2], Target::Told),
    ]
}

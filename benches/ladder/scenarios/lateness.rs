//! The lateness of records that arrive at a steady rate.

use std::time::Duration;

use crate::clock::{epoch_micros, seconds};
use crate::load::{Load, partition_of};
use crate::observer::{self, Observer, Seen};
use crate::progress::Progress;
use crate::report::{Figure, Target, count, figure};
use crate::scenarios::{Bench, Plan, Stage, lateness, percentiles, reckon, unique};

pub(super) const TIERS: [&str; 3] = ["5s", "10s", "15s"];
/// The same, in milliseconds.
pub(super) const DELAYS: [i64; 3] = [5_000, 10_000, 15_000];
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the load collects records: one request per record would be a load of its own.
pub(super) const LINGER: Duration = Duration::from_millis(20);

pub fn pace_500(bench: &Bench, progress: &Progress) -> Vec<Figure> {
    pace(bench, progress, &Pace { partitions: 6, per_tier: 500.0, seconds: 60, hops: "exactly-once", most: [10.0, 30.0] })
}

pub fn pace_1000(bench: &Bench, progress: &Progress) -> Vec<Figure> {
    pace(bench, progress, &Pace { partitions: 6, per_tier: 1_000.0, seconds: 60, hops: "exactly-once", most: [15.0, 50.0] })
}

pub fn pace_1000_alo(bench: &Bench, progress: &Progress) -> Vec<Figure> {
    pace(bench, progress, &Pace { partitions: 6, per_tier: 1_000.0, seconds: 60, hops: "at-least-once", most: [3.0, 20.0] })
}

pub fn wide(bench: &Bench, progress: &Progress) -> Vec<Figure> {
    pace(bench, progress, &Pace { partitions: 200, per_tier: 333.4, seconds: 30, hops: "exactly-once", most: [f64::NAN, 500.0] })
}

pub fn wide_alo(bench: &Bench, progress: &Progress) -> Vec<Figure> {
    pace(bench, progress, &Pace { partitions: 200, per_tier: 333.4, seconds: 30, hops: "at-least-once", most: [f64::NAN, 50.0] })
}

pub fn warm_up(bench: &Bench, progress: &Progress) -> Vec<Figure> {
    pace(bench, progress, &Pace { partitions: 60, per_tier: 500.0, seconds: 15, hops: "exactly-once", most: [f64::NAN; 2] })
}

struct Pace {
    partitions: i32,
    /// Records a second.
    per_tier: f64,
    seconds: usize,
    hops: &'static str,
    /// Milliseconds: the median, and the 99th percentile.
    most: [f64; 2],
}

fn at_most(bound: f64) -> Target {
    if bound.is_nan() { Target::Told } else { Target::AtMost(bound) }
}

fn pace(bench: &Bench, progress: &Progress, pace: &Pace) -> Vec<Figure> {
    let plan = Plan { name: unique(), tiers: &TIERS, partitions: pace.partitions, hops: pace.hops, handler: None, timeout: "" };
    let stage = Stage::set(bench, std::slice::from_ref(&plan), progress);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
    let records = (pace.per_tier * 3.0 * count(bench.seconds(pace.seconds))) as usize;
    let worker = stage.setup.run("mover");
    stage.setup.wait_until_said(OWNS, 1);
    let watched = observer::sample(plan.partitions);
    let is_watched = |number: &usize| watched.contains(&partition_of(*number, TIERS.len(), plan.partitions));
    let observer = Observer::of(&bench.broker.servers, &[plan.redeliver()], &watched);
    let mut load = Load::new(&bench.broker.servers, &plan.name, records, LINGER);
    std::thread::sleep(Duration::from_secs(1));
    let topics: Vec<String> = (0..TIERS.len()).map(|index| plan.tier(index)).collect();
    progress.step("writing and reading at a steady pace");
    let cpu = worker.cpu();
    load.pace(&topics, plan.partitions, pace.per_tier, 0, records);
    observer.wait_for((0..records).filter(is_watched).count(), PATIENCE);
    let cpu = worker.cpu() - cpu;
    let mut seen = observer.end();
    let late = lateness(&seen, &load.appended(), |number| DELAYS[number % TIERS.len()]);
    // Lost or duplicated records may be among those that were not watched, too.
    if watched.len() < usize::try_from(plan.partitions).expect("a small number") {
        let all = Observer::start(&bench.broker.servers, &[plan.redeliver()], plan.partitions);
        all.wait_for(records, PATIENCE);
        seen = all.end();
    }
    let mut figures = percentiles(
        &late,
        [("p50", 50.0, at_most(pace.most[0])), ("p99", 99.0, at_most(pace.most[1])), ("most", 100.0, Target::Told)],
    );
    figures.extend(reckon(&seen, 0..records));
    figures.push(figure("CPU", "s a million", cpu / count(records) * 1e6, Target::Told));
    figures.push(figure("peak RSS", "MiB", worker.peak_rss(), Target::Told));
    figures
}

/// The mover's own partition metrics.
pub const OWNS: &str = "partitions assigned";

const SPIKE_TIERS: [&str; 2] = ["500ms", "1s"];

pub fn spike_tier(bench: &Bench, progress: &Progress) -> Vec<Figure> {
    let plan = Plan { name: unique(), tiers: &SPIKE_TIERS, partitions: 6, hops: "exactly-once", handler: None, timeout: "" };
    spike(bench, progress, std::slice::from_ref(&plan), &plan)
}

pub fn spike_ladder(bench: &Bench, progress: &Progress) -> Vec<Figure> {
    let plan = || Plan { name: unique(), tiers: &SPIKE_TIERS, partitions: 6, hops: "exactly-once", handler: None, timeout: "" };
    let plans = [plan(), plan()];
    spike(bench, progress, &plans, &plans[1])
}

/// Paced records of the first ladder, while half a million of the second tier of the last one drain. Only records due during
/// that time count.
fn spike(bench: &Bench, progress: &Progress, plans: &[Plan<'_>], backlog_of: &Plan<'_>) -> Vec<Figure> {
    const PER_SECOND: f64 = 500.0;
    let stage = Stage::set(bench, plans, progress);
    let backlog = bench.records(500_000);
    let paced = 500 * 8;
    let plan = &plans[0];
    let total = backlog + paced;
    let mut load = Load::new(&bench.broker.servers, &backlog_of.name, total, Duration::from_millis(20));
    load.pour(&backlog_of.tier(1), 6, 0..backlog, true, progress);
    std::thread::sleep(Duration::from_secs(2));
    let mut pacer = Load::new(&bench.broker.servers, &plan.name, total, LINGER);
    let redelivers: Vec<String> = plans.iter().map(Plan::redeliver).collect();
    let observer = Observer::start(&bench.broker.servers, &redelivers, 6);
    progress.step("draining beside a steady pace");
    let worker = stage.setup.run("mover");
    stage.setup.wait_until_said(OWNS, plans.len());
    pacer.pace(&[plan.tier(0)], 6, PER_SECOND, backlog, paced);
    observer.wait_for(total, PATIENCE);
    let seen = observer.end();
    let drained_at = seen.iter().filter(|(number, _)| *number < backlog).map(|(_, at)| *at).max().unwrap_or(0);
    let appended = pacer.appended();
    let is_meanwhile =
        |number: usize| number >= backlog && appended.get(number).is_some_and(|at| (at + 500) * 1_000 < drained_at);
    let meanwhile: Seen = seen.iter().copied().filter(|(number, _)| is_meanwhile(*number)).collect();
    let late = lateness(&meanwhile, &appended, |_| 500);
    let mut figures =
        percentiles(&late, [("p50", 50.0, Target::Told), ("p99", 99.0, Target::AtMost(150.0)), ("most", 100.0, Target::Told)]);
    figures.push(figure("paced meanwhile", "records", count(late.len()), Target::Told));
    figures.extend(reckon(&seen, 0..total));
    figures.push(figure("peak RSS", "MiB", worker.peak_rss(), Target::Told));
    figures
}

pub fn many(bench: &Bench, progress: &Progress) -> Vec<Figure> {
    const LADDERS: usize = 20;
    const PER_LADDER: f64 = 20.0;
    let plans: Vec<Plan<'_>> = (0..LADDERS)
        .map(|_| Plan { name: unique(), tiers: &TIERS, partitions: 6, hops: "exactly-once", handler: None, timeout: "" })
        .collect();
    let stage = Stage::set(bench, &plans, progress);
    let worker = stage.setup.run("mover");
    stage.setup.wait_until_said(OWNS, LADDERS);
    let redelivers: Vec<String> = plans.iter().map(Plan::redeliver).collect();
    let observer = Observer::start(&bench.broker.servers, &redelivers, 6);
    // Topics in turn: the first tiers of all ladders, then the second ones, then the third ones.
    let topics: Vec<String> = (0..TIERS.len()).flat_map(|tier| plans.iter().map(move |plan| plan.tier(tier))).collect();
    let records = 20 * LADDERS * bench.seconds(60);
    let mut load = Load::new(&bench.broker.servers, &plans[0].name, records, LINGER);
    std::thread::sleep(Duration::from_secs(2));
    progress.step("writing and reading at a steady pace");
    let (cpu, began) = (worker.cpu(), epoch_micros());
    load.pace(&topics, 6, PER_LADDER / 3.0, 0, records);
    observer.wait_for(records, PATIENCE);
    let share = (worker.cpu() - cpu) / seconds(began, epoch_micros());
    let seen = observer.end();
    let late = lateness(&seen, &load.appended(), |number| DELAYS[number % topics.len() / LADDERS]);
    let mut figures =
        percentiles(&late, [("p50", 50.0, Target::Told), ("p99", 99.0, Target::AtMost(150.0)), ("most", 100.0, Target::Told)]);
    figures.extend(reckon(&seen, 0..records));
    figures.push(figure("peak RSS", "MiB", worker.peak_rss(), Target::AtMost(256.0)));
    figures.push(figure("threads", "", worker.threads(), Target::Told));
    figures.push(figure("broker connections", "", worker.connections(&bench.broker.servers), Target::Told));
    figures.push(figure("CPU", "% of a core", share * 100.0, Target::Told));
    figures
}

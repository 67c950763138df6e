//! The cost of waiting records.

use std::time::Duration;

use crate::load::Load;
use crate::progress::Progress;
use crate::report::{Figure, Target, figure};
use crate::scenarios::lateness::OWNS;
use crate::scenarios::{Bench, Plan, Stage, unique};

pub fn few_partitions(bench: &Bench, progress: &Progress) -> Vec<Figure> {
    let (few, _, _) = wait(bench, progress, 1_000, &["10m"], 6);
    let (many, peak, cpu) = wait(bench, progress, bench.records(1_000_000), &["10m"], 6);
    vec![
        figure("RSS", "MiB", many, Target::AtMost(64.0)),
        figure("by that of 1,000", "", many / few, Target::AtMost(1.2)),
        figure("peak RSS", "MiB", peak, Target::Told),
        figure("CPU", "% of a core", cpu, Target::AtMost(2.0)),
    ]
}

pub fn many_partitions(bench: &Bench, progress: &Progress) -> Vec<Figure> {
    let (rss, peak, cpu) = wait(bench, progress, bench.records(1_000_000), &["10m", "20m", "30m"], 200);
    vec![
        figure("RSS", "MiB", rss, Target::AtMost(128.0)),
        figure("peak RSS", "MiB", peak, Target::Told),
        figure("CPU", "% of a core", cpu, Target::AtMost(5.0)),
    ]
}

/// Resident memory, its maximum, and the share of a core in percent, once the worker is idle.
fn wait(bench: &Bench, progress: &Progress, records: usize, tiers: &[&str], partitions: i32) -> (f64, f64, f64) {
    const LOOK: Duration = Duration::from_secs(20);
    let plan = Plan { name: unique(), tiers, partitions, hops: "exactly-once", handler: None, timeout: "" };
    let stage = Stage::set(bench, std::slice::from_ref(&plan), progress);
    let mut load = Load::new(&bench.broker.servers, &plan.name, records, Duration::from_millis(20));
    let each = records / tiers.len();
    for index in 0..tiers.len() {
        load.pour(&plan.tier(index), partitions, index * each..(index + 1) * each, true, progress);
    }
    let worker = stage.setup.run("mover");
    stage.setup.wait_until_said(OWNS, 1);
    progress.step("waiting");
    std::thread::sleep(Duration::from_secs(15));
    let cpu = worker.cpu();
    std::thread::sleep(LOOK);
    let cpu = (worker.cpu() - cpu) / LOOK.as_secs_f64();
    (worker.rss(), worker.peak_rss(), cpu * 100.0)
}

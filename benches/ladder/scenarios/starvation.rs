//! Healthy records beside failing ones: the longest time without an arrival, and the share that has arrived when the last was just
//! written.

use std::time::{Duration, Instant};

use crate::load::Load;
use crate::misbehaving::{FIRST, Fared, Misbehaving, Mix, PARTITIONS, partition_of};
use crate::progress::Progress;
use crate::report::{Figure, Target, count, figure};
use crate::scenarios::{Bench, Plan, Stage, unique};

/// How long records are written, in seconds.
const SECONDS: usize = 44;

/// The last records written may still be in flight.
const A_MOMENT: Duration = Duration::from_secs(2);

pub fn run(bench: &Bench, progress: &Progress, name: &str) -> Vec<Figure> {
    let mix = Mix::named(name);
    let handler = Misbehaving::start(mix.plan);
    let address = handler.address.to_string();
    let plan = Plan {
        name: unique(),
        tiers: &["5s", "30s"],
        partitions: PARTITIONS,
        hops: "exactly-once",
        handler: Some((&address, 64)),
        timeout: "5s",
    };
    let stage = Stage::set(bench, std::slice::from_ref(&plan), progress);
    let mut load = Load::new(&bench.broker.servers, &plan.name, 1, Duration::from_millis(5));
    let source = plan.source();
    let mut write = |numbers: std::ops::Range<usize>| {
        progress.at(&format!("writing {}", numbers.start));
        numbers.for_each(|number| load.write(&source, partition_of(number), number, false));
    };
    let _worker = stage.setup.run("deliverer,mover");
    write(FIRST);
    let asked = Instant::now();
    while !Fared::of(mix, &handler.answered(), FIRST.end).is_whole() {
        assert!(asked.elapsed() < Duration::from_secs(60), "the worker does not deliver");
        std::thread::sleep(Duration::from_millis(10));
    }
    let written = mix.play(&handler, bench.seconds(SECONDS), write);
    load.flush();
    let end = Instant::now();
    std::thread::sleep(A_MOMENT + (mix.plan)(2).after);
    let fared = Fared::of(mix, &handler.answered(), written);
    let share = count(fared.arrived.len()) / count(fared.written);
    vec![
        figure("longest gap", "s", fared.longest_gap(end).as_secs_f64(), Target::AtMost(mix.longest_gap)),
        figure("arrived", "of 1", share, Target::AtLeast(mix.least_share)),
        figure("attempts burnt", "records", count(fared.burnt), Target::Told),
    ]
}

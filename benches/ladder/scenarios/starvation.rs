//! Healthy records beside failing ones: the longest time in which none of them arrives, and how many have when the last was just written.

use std::time::{Duration, Instant};

use crate::load::Load;
use crate::misbehaving::{Fared, Misbehaving, Mix, OF_THE_RUN, PARTITIONS};
use crate::progress::Progress;
use crate::report::{Figure, Target, count, figure};
use crate::scenarios::{Bench, Plan, Stage, unique};

/// How long records are written for, in seconds.
const SECONDS: usize = 44;

/// What is written last may still be on its way.
const A_MOMENT: Duration = Duration::from_secs(2);

const TICKS_PER_SECOND: usize = 20;

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
    let seconds = bench.seconds(SECONDS);
    let mut load = Load::new(&bench.broker.servers, &plan.name, 1, Duration::from_millis(5));
    let source = plan.source();
    let write = |load: &mut Load, numbers: std::ops::Range<usize>| {
        for number in numbers {
            let partition = i32::try_from(number).expect("a count") % PARTITIONS;
            load.write(&source, if number >= OF_THE_RUN { 2 } else { partition }, number, false);
        }
    };
    let _worker = stage.setup.run("deliverer,mover");
    // So that all partitions are there before anything is measured: none of them fails in any of the mixes but for good.
    write(&mut load, 1..7);
    let healthy = (1..7).filter(|number| mix.is_healthy(*number)).count();
    let asked = Instant::now();
    while Fared::of(mix, &handler.answered(), 7).arrived.len() < healthy {
        assert!(asked.elapsed() < Duration::from_secs(60), "the worker does not deliver");
        std::thread::sleep(Duration::from_millis(10));
    }
    let (began, mut written) = (Instant::now(), 7);
    let mut next_away = mix.away.map(|(after, _)| Duration::from_secs(after));
    for tick in 0..seconds * TICKS_PER_SECOND {
        progress.at(&format!("{} of {seconds} s", tick / TICKS_PER_SECOND));
        let upto = 7 + mix.per_second * (tick + 1) / TICKS_PER_SECOND;
        write(&mut load, written..upto);
        written = upto;
        if tick == seconds * TICKS_PER_SECOND / 3 {
            write(&mut load, OF_THE_RUN..OF_THE_RUN + mix.run);
        }
        if let (Some(at), Some((after, time))) = (next_away, mix.away)
            && began.elapsed() >= at
        {
            handler.die(Duration::from_secs(time));
            next_away = mix.over_and_over.then(|| at + Duration::from_secs(after + time));
        }
        let due = began + Duration::from_secs_f64(count(tick + 1) / count(TICKS_PER_SECOND));
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
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

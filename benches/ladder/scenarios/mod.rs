//! The scenarios, and the targets of their figures.

mod drain;
mod lateness;
mod letters;
mod peers;
mod push;
mod start;
mod starvation;
mod waiting;

use std::sync::atomic::{AtomicU32, Ordering};

use crate::broker::Broker;
use crate::clock::seconds;
use crate::load::Appended;
use crate::observer::Seen;
use crate::progress::Progress;
use crate::report::{Figure, Target, count, figure, percentile};
use crate::worker::{Setup, free_port};

/// What a scenario works with.
pub struct Bench {
    pub broker: Broker,
    pub quick: bool,
}

impl Bench {
    /// A number of records, or a tenth of it for a quick run.
    pub fn records(&self, full: usize) -> usize {
        if self.quick { full / 10 } else { full }
    }

    /// Seconds, or a quarter of them for a quick run.
    pub fn seconds(&self, full: usize) -> usize {
        if self.quick { full.div_ceil(4) } else { full }
    }
}

/// A broker that has just started compiles its code while it works. This runs the scenarios' operations once before.
pub fn warm_up(bench: &Bench, progress: &Progress) {
    drop(lateness::warm_up(bench, progress));
}

pub struct Scenario {
    pub name: &'static str,
    pub about: &'static str,
    pub run: fn(&Bench, &Progress) -> Vec<Figure>,
}

impl Scenario {
    /// By its name, or by its prefix: `drain` selects both.
    pub fn is_named(&self, name: &str) -> bool {
        self.name == name || self.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('-'))
    }
}

pub const ALL: &[Scenario] = &[
    Scenario { name: "drain", about: "500,000 records due at once, 6 partitions, exactly-once", run: drain::exactly_once },
    Scenario { name: "drain-alo", about: "the same, at-least-once", run: drain::at_least_once },
    Scenario { name: "growth", about: "10,000, 100,000 and 1,000,000 records due at once", run: drain::growth },
    Scenario { name: "pace-500", about: "500 records a second into each of three tiers, exactly-once", run: lateness::pace_500 },
    Scenario { name: "pace-1000", about: "1,000 a second into each", run: lateness::pace_1000 },
    Scenario { name: "pace-1000-alo", about: "1,000 a second into each, at-least-once", run: lateness::pace_1000_alo },
    Scenario { name: "spike", about: "500 a second, while another tier of the ladder drains", run: lateness::spike_tier },
    Scenario {
        name: "spike-ladder",
        about: "500 a second, while another ladder of the process drains",
        run: lateness::spike_ladder,
    },
    Scenario { name: "wide", about: "600 partitions over three tiers, 1,000 records a second", run: lateness::wide },
    Scenario { name: "wide-alo", about: "the same, at-least-once", run: lateness::wide_alo },
    Scenario { name: "many", about: "20 ladders in one process, 20 records a second each", run: lateness::many },
    Scenario { name: "sleep", about: "1,000,000 records waiting, 6 partitions", run: waiting::few_partitions },
    Scenario { name: "sleep-600", about: "the same over 600 partitions", run: waiting::many_partitions },
    Scenario { name: "start", about: "process start to the first redelivery, also after kill -9", run: start::start },
    Scenario { name: "push", about: "200,000 records to an HTTP handler", run: push::all_done },
    Scenario { name: "push-256", about: "the same, 256 in flight instead of 64", run: push::all_done_256 },
    Scenario { name: "push-failing", about: "64 in flight, 20 % failing once", run: push::some_failing },
    Scenario { name: "push-failing-256", about: "256 in flight, 20 % failing once", run: push::some_failing_256 },
    Scenario { name: "dlq-index", about: "an index of 1,000,000 dead letters: made, and asked", run: letters::index },
    Scenario { name: "dlq-redrive", about: "200,000 dead letters sent back, --rate max", run: letters::redrive },
    Scenario { name: "handler-delay", about: "due to the handler's call, 500 records a second a tier", run: push::handler_delay },
    Scenario {
        name: "starvation-outage",
        about: "10 s without handler, a third of the records always fails",
        run: |bench, progress| starvation::run(bench, progress, "outage"),
    },
    Scenario {
        name: "starvation-run-failing",
        about: "300 in a row of one partition fail",
        run: |bench, progress| starvation::run(bench, progress, "run-failing"),
    },
    Scenario {
        name: "starvation-run-hanging",
        about: "150 in a row of one partition hang",
        run: |bench, progress| starvation::run(bench, progress, "run-hanging"),
    },
    Scenario {
        name: "starvation-run-dropping",
        about: "30 in a row of one partition drop their connections",
        run: |bench, progress| starvation::run(bench, progress, "run-dropping"),
    },
    Scenario {
        name: "starvation-dropping",
        about: "one in a hundred drops its connection",
        run: |bench, progress| starvation::run(bench, progress, "dropping"),
    },
    Scenario {
        name: "starvation-dropping-slowly",
        about: "the same, a second each",
        run: |bench, progress| starvation::run(bench, progress, "dropping-slowly"),
    },
    Scenario {
        name: "starvation-dropping-hanging",
        about: "one in a hundred drops its connection, one hangs",
        run: |bench, progress| starvation::run(bench, progress, "dropping-hanging"),
    },
    Scenario {
        name: "starvation-hanging",
        about: "one in a hundred hangs",
        run: |bench, progress| starvation::run(bench, progress, "hanging"),
    },
    Scenario {
        name: "starvation-deadly",
        about: "one in 500 kills the handler for half a second",
        run: |bench, progress| starvation::run(bench, progress, "deadly"),
    },
    Scenario {
        name: "starvation-restart",
        about: "the handler restarts, a second each",
        run: |bench, progress| starvation::run(bench, progress, "restart"),
    },
    Scenario {
        name: "starvation-restart-slow",
        about: "the same, three seconds each",
        run: |bench, progress| starvation::run(bench, progress, "restart-slow"),
    },
    Scenario {
        name: "starvation-restarts",
        about: "the handler restarts every 20 seconds",
        run: |bench, progress| starvation::run(bench, progress, "restarts"),
    },
    Scenario {
        name: "starvation-closing",
        about: "the handler closes after each answer, unannounced",
        run: |bench, progress| starvation::run(bench, progress, "closing"),
    },
];

/// Run only when named, or with `--peers`: other programs have to be installed for them.
pub const PEERS: &[Scenario] = &[
    Scenario { name: "peers", about: "deliveries to an HTTP handler, beside Benthos and Spring", run: peers::all_done },
    Scenario { name: "peers-failing", about: "the same, 20 % failing once", run: peers::some_failing },
];

/// A ladder of the benchmark.
pub struct Plan<'a> {
    pub name: String,
    pub tiers: &'a [&'a str],
    pub partitions: i32,
    pub hops: &'a str,
    /// The handler's address and the maximum of deliveries in flight; a relay ladder without it.
    pub handler: Option<(&'a str, usize)>,
    /// The delivery settings; empty for the default.
    pub timeout: &'a str,
}

impl Plan<'_> {
    pub fn source(&self) -> String {
        format!("{}.source", self.name)
    }

    pub fn tier(&self, index: usize) -> String {
        format!("{}.retry-{}", self.name, self.tiers[index])
    }

    pub fn redeliver(&self) -> String {
        format!("{}.redeliver", self.name)
    }

    fn section(&self) -> String {
        let name = &self.name;
        let tiers = self.tiers.iter().map(|tier| format!("\"{tier}\"")).collect::<Vec<_>>().join(", ");
        let timeout = if self.timeout.is_empty() { String::new() } else { format!("timeout = \"{}\"\n", self.timeout) };
        let (mode, handler) = match self.handler {
            Some((url, in_flight)) => (
                "push",
                format!(
                    "start = \"earliest\"\n\n[ladder.{name}.handler]\nurl = \"http://{url}/\"\nmax_in_flight = {in_flight}\n{timeout}"
                ),
            ),
            None => ("relay", String::new()),
        };
        format!(
            "[ladder.{name}]\nsources = [\"{}\"]\ngroup = \"{name}\"\nmode = \"{mode}\"\n\
             hops = \"{}\"\ntiers = [{tiers}]\n{handler}\n[ladder.{name}.topics]\npartitions = {}\n\n",
            self.source(),
            self.hops,
            self.partitions,
        )
    }
}

/// A name that no other run uses.
pub fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let moment = crate::clock::epoch_micros() / 1_000_000 % 10_000_000;
    format!("bench-{moment}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Ladders whose topics exist, and are deleted at the end.
pub struct Stage<'a> {
    pub setup: Setup,
    broker: &'a Broker,
    names: Vec<String>,
}

impl<'a> Stage<'a> {
    pub fn set(bench: &'a Bench, plans: &[Plan<'_>], progress: &Progress) -> Self {
        progress.step("setting up");
        for plan in plans {
            bench.broker.create_topic(&plan.source(), plan.partitions);
        }
        let sections: String = plans.iter().map(Plan::section).collect();
        let config = format!(
            "[kafka]\nbootstrap.servers = \"{}\"\n\n[health]\nlisten = \"127.0.0.1:{}\"\n\n[admin]\nlisten = \"127.0.0.1:{}\"\n\n\
             [worker]\ninstance = \"bench\"\n\n{sections}",
            bench.broker.servers,
            free_port(),
            free_port(),
        );
        let setup = Setup::new(&config);
        setup.apply();
        Self { setup, broker: &bench.broker, names: plans.iter().map(|plan| plan.name.clone()).collect() }
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        for name in &self.names {
            self.broker.delete_topics(&format!("{name}."));
        }
    }
}

/// The lateness of each record in milliseconds: the time it was seen, minus its append time and its delay (also in
/// milliseconds).
pub fn lateness(seen: &Seen, appended: &Appended, delay: impl Fn(usize) -> i64) -> Vec<f64> {
    let late = |&(number, at): &(usize, i64)| {
        let due = (appended.get(number)? + delay(number)) * 1_000;
        Some(seconds(due, at) * 1_000.0)
    };
    seen.iter().filter_map(late).collect()
}

/// Of records expected once each: how many never came, and how many came more than once.
pub fn reckon(seen: &Seen, wanted: std::ops::Range<usize>) -> [Figure; 2] {
    let mut times = vec![0_u32; wanted.len()];
    for (number, _) in seen.iter().filter(|(number, _)| wanted.contains(number)) {
        times[number - wanted.start] += 1;
    }
    let lost = times.iter().filter(|times| **times == 0).count();
    let doubled = times.iter().filter(|times| **times > 1).count();
    [
        figure("lost", "records", count(lost), Target::AtMost(0.0)),
        figure("doubled", "records", count(doubled), Target::AtMost(0.0)),
    ]
}

pub fn percentiles(late: &[f64], most: [(&'static str, f64, Target); 3]) -> Vec<Figure> {
    let early = late.iter().filter(|late| **late < 0.0).count();
    let mut figures: Vec<Figure> =
        most.into_iter().map(|(name, percent, target)| figure(name, "ms", percentile(late, percent), target)).collect();
    figures.push(figure("early", "records", count(early), Target::AtMost(0.0)));
    figures
}

//! Deliveries to an HTTP handler, beside what `wrk` gets from the same one.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::handler::Handler;
use crate::load::{Load, VALUE_BYTES};
use crate::progress::Progress;
use crate::report::{Figure, Target, count, figure};
use crate::scenarios::lateness::{DELAYS, LINGER, OWNS, TIERS};
use crate::scenarios::{Bench, Plan, Stage, lateness, percentiles, reckon, unique};
use crate::worker::Process;

const PARTITIONS: i32 = 6;
/// The default of `max_in_flight`.
const IN_FLIGHT: usize = 64;
/// What a fast handler is better given: more deliveries go for one commit.
const MANY_IN_FLIGHT: usize = 256;
const PATIENCE: Duration = Duration::from_secs(180);

const ALL_DONE: &[&str] = &["--fail-rate", "0"];
const SOME_FAILING: &[&str] = &["--fail-rate", "0.2", "--fail-times", "1"];

pub fn all_done(bench: &Bench, progress: &Progress) -> Vec<Figure> {
    push(bench, progress, ALL_DONE, IN_FLIGHT, 0.70)
}

pub fn all_done_256(bench: &Bench, progress: &Progress) -> Vec<Figure> {
    push(bench, progress, ALL_DONE, MANY_IN_FLIGHT, 0.70)
}

pub fn some_failing(bench: &Bench, progress: &Progress) -> Vec<Figure> {
    push(bench, progress, SOME_FAILING, IN_FLIGHT, 0.60)
}

pub fn some_failing_256(bench: &Bench, progress: &Progress) -> Vec<Figure> {
    push(bench, progress, SOME_FAILING, MANY_IN_FLIGHT, 0.60)
}

/// Records a second, from the worker's taking over until its group has no lag left and nothing waits in the ladder.
fn push(bench: &Bench, progress: &Progress, failing: &[&str], in_flight: usize, share: f64) -> Vec<Figure> {
    let records = bench.records(100_000);
    let (stub, address) = Process::stub(failing);
    let name = unique();
    let plan = Plan {
        name,
        tiers: &["500ms"],
        partitions: PARTITIONS,
        hops: "exactly-once",
        handler: Some((&address, in_flight)),
        timeout: "",
    };
    let stage = Stage::set(bench, std::slice::from_ref(&plan), progress);
    let mut load = Load::new(&bench.broker.servers, &plan.name, records, Duration::from_millis(20));
    load.pour(&plan.source(), PARTITIONS, 0..records, false, progress);
    let wrk = || {
        progress.step("wrk");
        wrk(&address, in_flight, bench.seconds(8))
    };
    // Before and after, since what the machine gives changes by the minute.
    let before = wrk();
    progress.step("delivering");
    let worker = stage.setup.run("deliverer,mover");
    let began = stage.setup.wait_until_said("deliverer owns", 1);
    let groups = [
        (group_reader(&bench.broker.servers, &plan.name), vec![plan.source(), plan.redeliver()]),
        (group_reader(&bench.broker.servers, &format!("{}.mover", plan.name)), vec![plan.tier(0)]),
    ];
    let source_only = [(group_reader(&bench.broker.servers, &plan.name), vec![plan.source()])];
    wait_without_lag(&source_only);
    // What failed last comes back a little later.
    wait_without_lag(&groups);
    let seconds = began.elapsed().as_secs_f64();
    let (cpu, peak_rss) = (worker.cpu(), worker.peak_rss());
    let bare = f64::midpoint(before, wrk());
    drop(stub);
    let rate = count(records) / seconds;
    vec![
        figure("of wrk", "", rate / bare, Target::AtLeast(share)),
        figure("rate", "records/s", rate, Target::Told),
        figure("wrk", "requests/s", bare, Target::Told),
        figure("CPU", "s a million", cpu / count(records) * 1e6, Target::Told),
        figure("peak RSS", "MiB", peak_rss, Target::Told),
        figure("lag at the end", "records", count(lag(&groups)), Target::AtMost(0.0)),
    ]
}

/// Requests a second, the same body, as many connections as deliveries in flight.
fn wrk(address: &str, in_flight: usize, seconds: usize) -> f64 {
    let script = tempfile::NamedTempFile::new().expect("a file");
    let lua = format!(
        "wrk.method = \"POST\"\nwrk.body = string.rep(\"x\", {VALUE_BYTES})\nwrk.headers[\"Content-Type\"] = \"application/octet-stream\"\n"
    );
    fs::write(script.path(), lua).expect("a script");
    let connections = in_flight.to_string();
    let (duration, url) = (format!("{seconds}s"), format!("http://{address}/"));
    let mut command = Command::new("wrk");
    command.args(["-t", "1", "-c", &connections, "-d", &duration, "-s"]).arg(script.path()).arg(&url);
    let output = command.output().expect("wrk is installed: scripts/install bench");
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:"));
    line.and_then(|rate| rate.trim().parse().ok()).unwrap_or_else(|| panic!("wrk said: {text}"))
}

type Groups = [(BaseConsumer, Vec<String>)];

fn group_reader(servers: &str, group: &str) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers).set("group.id", group).set("isolation.level", "read_committed");
    config.create().expect("a consumer")
}

fn wait_without_lag(groups: &Groups) {
    let began = Instant::now();
    while lag(groups) > 0 {
        assert!(began.elapsed() < PATIENCE, "lag does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What these groups have not committed of these topics.
fn lag(groups: &Groups) -> usize {
    let mut lag = 0;
    for (consumer, topics) in groups {
        let mut list = TopicPartitionList::new();
        for topic in topics {
            list.add_partition_range(topic, 0, PARTITIONS - 1);
        }
        let timeout = Duration::from_secs(20);
        let committed = consumer.committed_offsets(list, timeout).expect("the group's offsets");
        for element in committed.elements() {
            let (_, end) = consumer.fetch_watermarks(element.topic(), element.partition(), timeout).expect("an end");
            lag += end - element.offset().to_raw().unwrap_or(0).max(0);
        }
    }
    usize::try_from(lag).unwrap_or(0)
}

pub fn handler_delay(bench: &Bench, progress: &Progress) -> Vec<Figure> {
    let handler = Handler::start();
    let address = handler.address.to_string();
    let plan = Plan {
        name: unique(),
        tiers: &TIERS,
        partitions: PARTITIONS,
        hops: "exactly-once",
        handler: Some((&address, IN_FLIGHT)),
        timeout: "",
    };
    let stage = Stage::set(bench, std::slice::from_ref(&plan), progress);
    let records = 3 * 500 * bench.seconds(60);
    let worker = stage.setup.run("deliverer,mover");
    stage.setup.wait_until_said(OWNS, 1);
    stage.setup.wait_until_said("deliverer owns", 1);
    let mut load = Load::new(&bench.broker.servers, &plan.name, records, LINGER);
    let topics: Vec<String> = (0..TIERS.len()).map(|index| plan.tier(index)).collect();
    std::thread::sleep(Duration::from_secs(1));
    progress.step("writing and delivering at a steady pace");
    load.pace(&topics, PARTITIONS, 500.0, 0, records);
    let began = Instant::now();
    while handler.count() < records && began.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(20));
    }
    let calls = handler.calls();
    let late = lateness(&calls, &load.appended(), |number| DELAYS[number % TIERS.len()]);
    let mut figures =
        percentiles(&late, [("p50", 50.0, Target::Told), ("p99", 99.0, Target::AtMost(100.0)), ("most", 100.0, Target::Told)]);
    figures.extend(reckon(&calls, 0..records));
    figures.push(figure("peak RSS", "MiB", worker.peak_rss(), Target::Told));
    figures
}

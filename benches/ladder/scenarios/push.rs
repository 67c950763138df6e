//! Deliveries to an HTTP handler, compared with a bare loop that posts the same records to one of its own.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::ceiling::{self, Work};
use crate::handler::{CountingHandler, Failing, Handler};
use crate::load::{Load, VALUE_BYTES};
use crate::progress::Progress;
use crate::report::{Figure, Target, count, figure};
use crate::scenarios::lateness::{DELAYS, LINGER, OWNS, TIERS};
use crate::scenarios::{Bench, Plan, Stage, lateness, percentiles, reckon, unique};

pub const PARTITIONS: i32 = 6;
/// The default of `max_in_flight`.
const IN_FLIGHT: usize = 64;
/// A better value for a fast handler: more deliveries share one commit.
const MANY_IN_FLIGHT: usize = 256;
const PATIENCE: Duration = Duration::from_secs(180);

/// Enough that the first fetch and the last commit weigh little.
const RECORDS: usize = 200_000;

pub fn all_done(bench: &Bench, progress: &Progress) -> Vec<Figure> {
    push(bench, progress, Failing::None, IN_FLIGHT)
}

pub fn all_done_256(bench: &Bench, progress: &Progress) -> Vec<Figure> {
    push(bench, progress, Failing::None, MANY_IN_FLIGHT)
}

pub fn some_failing(bench: &Bench, progress: &Progress) -> Vec<Figure> {
    push(bench, progress, Failing::AFifth, IN_FLIGHT)
}

pub fn some_failing_256(bench: &Bench, progress: &Progress) -> Vec<Figure> {
    push(bench, progress, Failing::AFifth, MANY_IN_FLIGHT)
}

/// The ladder of a push to this handler.
pub fn plan(address: &str, in_flight: usize) -> Plan<'_> {
    Plan {
        name: unique(),
        tiers: &["500ms"],
        partitions: PARTITIONS,
        hops: "exactly-once",
        handler: Some((address, in_flight)),
        timeout: "",
    }
}

/// Its topics, with so many records in the source.
pub fn staged<'a>(bench: &'a Bench, plan: &Plan<'_>, records: usize, progress: &Progress) -> Stage<'a> {
    let stage = Stage::set(bench, std::slice::from_ref(plan), progress);
    let mut load = Load::new(&bench.broker.servers, &plan.name, records, Duration::from_millis(20));
    load.pour(&plan.source(), PARTITIONS, 0..records, false, progress);
    stage
}

/// Records a second, from the worker's assignment until its group has no lag and no record waits in the ladder.
///
/// The ceiling never sends a record again: where a fifth fails, kladder makes a fifth more calls, and two hops for each of those.
fn push(bench: &Bench, progress: &Progress, failing: Failing, in_flight: usize) -> Vec<Figure> {
    let (share, most_cpu) = match failing {
        Failing::None => (0.80, Target::AtMost(1.4)),
        // The hops are counted in.
        Failing::AFifth => (0.50, Target::Told),
    };
    let records = bench.records(RECORDS);
    let handler = CountingHandler::start(records, failing);
    let address = handler.address.to_string();
    let plan = plan(&address, in_flight);
    let stage = staged(bench, &plan, records, progress);
    progress.step("wrk");
    let wrk = wrk(&address, in_flight, bench.seconds(8));
    let ceiling = || {
        progress.step("the ceiling");
        // Its own, which has seen no record yet.
        let handler = CountingHandler::start(records, failing);
        let work = Work {
            servers: bench.broker.servers.clone(),
            ladder: plan.name.clone(),
            topic: plan.source(),
            partitions: PARTITIONS,
            records,
            handler: handler.address,
            in_flight,
        };
        let pushed = ceiling::push(&work);
        assert_eq!(handler.calls(), records, "the ceiling has not posted each record once");
        pushed
    };
    // Before and after, since the machine's performance changes by the minute.
    let before = ceiling();
    progress.step("delivering");
    let worker = stage.setup.run("deliverer,mover");
    let began = stage.setup.wait_until_said("partitions assigned", 1);
    let cpu = worker.cpu();
    let groups = [
        (group_reader(&bench.broker.servers, &plan.name), vec![plan.source(), plan.redeliver()]),
        (group_reader(&bench.broker.servers, &format!("{}.mover", plan.name)), vec![plan.tier(0)]),
    ];
    let source_only = [(group_reader(&bench.broker.servers, &plan.name), vec![plan.source()])];
    wait_without_lag(&source_only);
    // The last failed records come back a little later.
    wait_without_lag(&groups);
    let seconds = began.elapsed().as_secs_f64();
    let (cpu, peak_rss, left) = (worker.cpu() - cpu, worker.peak_rss(), lag(&groups));
    drop(worker);
    let after = ceiling();
    let (rate, bare) = (count(records) / seconds, 2.0 * count(records) / (before.time + after.time).as_secs_f64());
    let (cpu, bare_cpu) = (cpu / count(handler.calls()), (before.cpu + after.cpu) / count(2 * records));
    vec![
        figure("of the bare loop", "", rate / bare, Target::AtLeast(share)),
        figure("CPU a delivery by the bare loop's", "", cpu / bare_cpu, most_cpu),
        figure("rate", "records/s", rate, Target::Told),
        figure("bare loop", "records/s", bare, Target::Told),
        figure("wrk", "requests/s", wrk, Target::Told),
        figure("CPU", "s a million deliveries", cpu * 1e6, Target::Told),
        figure("bare loop's CPU", "s a million deliveries", bare_cpu * 1e6, Target::Told),
        figure("peak RSS", "MiB", peak_rss, Target::Told),
        figure("lost", "records", count(records - handler.done()), Target::AtMost(0.0)),
        figure("doubled", "calls", count(handler.again()), Target::AtMost(0.0)),
        figure("lag at the end", "records", count(left), Target::AtMost(0.0)),
    ]
}

/// Requests a second, with the same body and as many connections as deliveries in flight.
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

/// The lag of these groups on these topics.
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
    stage.setup.wait_until_said("partitions assigned", 1);
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

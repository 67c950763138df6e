//! Deliveries to an HTTP handler by kladder and by its peers, one after the other on the same records and the same kind of handler.
//!
//! The measure is the same for all: records done a second, as the handler counts them, while there are more; from when a tenth of them
//! is done (or ten seconds have passed, for the slow ones) until nine tenths are (or fifteen more seconds have passed). So neither the
//! start nor the end of a program counts, and one that compiles while it runs had time for that.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::broker::Broker;
use crate::handler::{CountingHandler, Failing};
use crate::progress::Progress;
use crate::report::{Figure, Target, count, figure};
use crate::scenarios::push::{self, PARTITIONS};
use crate::scenarios::{Bench, Plan, unique};
use crate::worker::Process;

const RECORDS: usize = 200_000;
/// The default of `max_in_flight`; Spring has a thread for each partition.
const IN_FLIGHT: usize = 64;
/// How long until the first delivery.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn all_done(bench: &Bench, progress: &Progress) -> Vec<Figure> {
    beside_peers(bench, progress, Failing::None)
}

pub fn some_failing(bench: &Bench, progress: &Progress) -> Vec<Figure> {
    beside_peers(bench, progress, Failing::AFifth)
}

fn beside_peers(bench: &Bench, progress: &Progress, failing: Failing) -> Vec<Figure> {
    let records = bench.records(RECORDS);
    let handler = CountingHandler::start(records, failing);
    let address = handler.address.to_string();
    let plan = push::plan(&address, IN_FLIGHT);
    let stage = push::staged(bench, &plan, records, progress);
    progress.step("kladder");
    let worker = stage.setup.run("deliverer,mover");
    let kladder = steady(bench, &handler, &worker, records, String::new);
    drop(worker);
    let peer = |name: &str, program: Command| {
        progress.step(name);
        let handler = CountingHandler::start(records, failing);
        let log = tempfile::NamedTempFile::new().expect("a file");
        let mut peer = Peer { program, broker: &bench.broker, plan: &plan, handler: &handler, failing };
        let process = peer.start(log.reopen().expect("a file"));
        let measured = steady(bench, &handler, &process, records, || fs::read_to_string(log.path()).unwrap_or_default());
        process.kill();
        measured
    };
    let benthos = peer("Benthos", benthos());
    let spring = peer("Spring", spring());
    vec![
        figure("rate by Benthos'", "", kladder.rate / benthos.rate, Target::AtLeast(2.0)),
        figure("rate by Spring's", "", kladder.rate / spring.rate, Target::AtLeast(5.0)),
        figure("kladder", "records/s", kladder.rate, Target::Told),
        figure("Benthos", "records/s", benthos.rate, Target::Told),
        figure("Spring", "records/s", spring.rate, Target::Told),
        figure("kladder's CPU", "s a million records", kladder.cpu * 1e6, Target::Told),
        figure("Benthos' CPU", "s a million records", benthos.cpu * 1e6, Target::Told),
        figure("Spring's CPU", "s a million records", spring.cpu * 1e6, Target::Told),
        figure("kladder's peak RSS", "MiB", kladder.peak_rss, Target::Told),
        figure("Benthos' peak RSS", "MiB", benthos.peak_rss, Target::Told),
        figure("Spring's peak RSS", "MiB", spring.peak_rss, Target::Told),
    ]
}

/// The folder into which `benches/peers/install` has put them.
fn installed(what: &str) -> PathBuf {
    let folder = std::env::var_os("KLADDER_BENCH_PEERS").expect("KLADDER_BENCH_PEERS names a folder: run scripts/bench");
    PathBuf::from(folder).join(what)
}

fn benthos() -> Command {
    let mut command = Command::new(installed("benthos/benthos"));
    command.arg("-c").arg(installed("benthos/config.yaml"));
    command
}

fn spring() -> Command {
    let mut command = Command::new("java");
    command.arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn").arg("-cp");
    command.arg(format!("{}:{}", installed("spring").display(), installed("spring/jars/*").display())).arg("Peer");
    command
}

/// Another program that delivers the same records.
struct Peer<'a> {
    program: Command,
    broker: &'a Broker,
    plan: &'a Plan<'a>,
    handler: &'a CountingHandler,
    failing: Failing,
}

impl Peer<'_> {
    fn start(&mut self, log: fs::File) -> Process {
        let errors = log.try_clone().expect("a file");
        self.program
            .env("PEER_BROKERS", &self.broker.servers)
            .env("PEER_TOPIC", self.plan.source())
            .env("PEER_PARTITIONS", PARTITIONS.to_string())
            .env("PEER_GROUP", unique())
            .env("PEER_URL", format!("http://{}/", self.handler.address))
            .env("PEER_IN_FLIGHT", IN_FLIGHT.to_string())
            .env("PEER_RETRY", (self.failing == Failing::AFifth).to_string());
        Process::start(self.program.stdin(Stdio::null()).stdout(log).stderr(errors))
    }
}

struct Measured {
    rate: f64,
    /// CPU seconds a record.
    cpu: f64,
    peak_rss: f64,
}

fn steady(bench: &Bench, handler: &CountingHandler, process: &Process, records: usize, log: impl Fn() -> String) -> Measured {
    let wait = |done: usize, most: Duration| {
        let began = Instant::now();
        while handler.done() < done && began.elapsed() < most {
            std::thread::sleep(Duration::from_millis(2));
        }
        (Instant::now(), handler.done(), process.cpu())
    };
    let (_, done, _) = wait(1, PATIENCE);
    assert!(done > 0, "no record was delivered within {PATIENCE:?}:\n{}", log());
    let (began, before, cpu_before) = wait(records / 10, Duration::from_secs(10));
    let (ended, after, cpu_after) = wait(records / 10 * 9, Duration::from_secs(bench.seconds(15) as u64));
    let done = count(after - before);
    assert!(after > before, "no record was delivered any more:\n{}", log());
    Measured { rate: done / (ended - began).as_secs_f64(), cpu: (cpu_after - cpu_before) / done, peak_rss: process.peak_rss() }
}

//! Measures kladder on a real broker and compares it with the limits of the machine.
//!
//! Each throughput is compared with a ceiling from the same run: the simplest loop that copies or posts
//! the same records ([`ceiling`]).
//! Lateness is measured by an independent reader ([`observer`]). kladder runs as a separate process, whose CPU time and memory are
//! measured from outside ([`worker`]). Run it with `scripts/bench`.

#![expect(clippy::disallowed_methods, reason = "to take the time is what a benchmark is for")]

mod broker;
mod ceiling;
mod clock;
mod handler;
mod load;
#[path = "../../tests/broker/support/misbehaving.rs"]
#[expect(dead_code, reason = "the tests use the rest of it")]
mod misbehaving;
mod observer;
mod progress;
mod report;
mod scenarios;
mod worker;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::broker::Broker;
use crate::progress::Progress;
use crate::scenarios::{ALL, Bench, PEERS, Scenario};

/// Measures kladder on a real broker
#[derive(Parser)]
#[command(name = "scripts/bench")]
#[expect(clippy::struct_excessive_bools, reason = "the switches of a command line")]
struct Arguments {
    /// Scenarios to run; by default all but those beside peers
    scenarios: Vec<String>,
    /// Number of runs of each
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// A tenth of the records and a quarter of the time: for a quick check, not for publication
    #[arg(long)]
    quick: bool,
    /// Also run the scenarios beside peers
    #[arg(long)]
    peers: bool,
    /// Output file for the JSON
    #[arg(long, value_name = "FILE", default_value = "target/bench.json")]
    json: PathBuf,
    /// The bootstrap servers
    #[arg(long, env = "KLADDER_BENCH_BROKERS", value_name = "SERVERS")]
    brokers: String,
    /// List the scenarios
    #[arg(long)]
    list: bool,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    if let Some([_, command, work]) = std::env::args().collect::<Vec<_>>().first_chunk()
        && command == ceiling::PUSH
    {
        ceiling::run_push(work);
        return ExitCode::SUCCESS;
    }
    let arguments = Arguments::parse();
    if arguments.list {
        for scenario in ALL.iter().chain(PEERS) {
            println!("{:<18}{}", scenario.name, scenario.about);
        }
        return ExitCode::SUCCESS;
    }
    if let Some(unknown) = arguments.scenarios.iter().find(|name| !ALL.iter().chain(PEERS).any(|s| s.is_named(name))) {
        eprintln!("bench: no scenario '{unknown}'; `scripts/bench --list` names them");
        return ExitCode::from(2);
    }
    let bench = Bench { broker: Broker::new(&arguments.brokers), quick: arguments.quick };
    let machine = machine(&arguments);
    for (name, value) in &machine {
        println!("{name:<10}{value}");
    }
    scenarios::warm_up(&bench, &Progress::new("warming the broker up".to_owned()));
    let mut rows = Vec::new();
    let named = |scenario: &Scenario| arguments.scenarios.iter().any(|name| scenario.is_named(name));
    let usual = ALL.iter().filter(|scenario| named(scenario) || arguments.scenarios.is_empty() && !arguments.peers);
    let beside_peers = PEERS.iter().filter(|scenario| named(scenario) || arguments.peers);
    for scenario in usual.chain(beside_peers) {
        let runs = (1..=arguments.runs).map(|run| {
            let progress = Progress::new(format!("{} {run}/{}", scenario.name, arguments.runs));
            (scenario.run)(&bench, &progress)
        });
        rows.extend(report::gather(scenario.name, runs.collect()));
        // After each scenario, so that no result is lost when a later one fails.
        if let Err(error) = fs::write(&arguments.json, report::json(&machine, &rows)) {
            eprintln!("bench: {} cannot be written: {error}", arguments.json.display());
            return ExitCode::FAILURE;
        }
    }
    println!("{}", report::table(&rows));
    println!("JSON in {}", arguments.json.display());
    ExitCode::SUCCESS
}

fn machine(arguments: &Arguments) -> BTreeMap<&'static str, String> {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|l| l.strip_prefix("model name")).map_or("unknown", |l| l.trim_matches([':', ' ', '\t']));
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = memory.lines().find_map(|l| l.strip_prefix("MemTotal:")).and_then(|l| l.split_whitespace().next()?.parse().ok());
    let gib = memory.unwrap_or(0.0_f64) / 1_048_576.0;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let (_, librdkafka) = rdkafka::util::get_rdkafka_version();
    let scale = if arguments.quick { ", a tenth of the records" } else { "" };
    BTreeMap::from([
        (
            "machine",
            format!("{cores} cores ({model}), {gib:.0} GiB, Linux {}, shared by broker, load, reader and kladder", kernel.trim()),
        ),
        ("versions", format!("kladder {}, librdkafka {librdkafka}", env!("CARGO_PKG_VERSION"))),
        (
            "settings",
            format!(
                "replication factor 1, values of {} bytes, zstd, broker warmed up, {} runs{scale}",
                load::VALUE_BYTES,
                arguments.runs
            ),
        ),
    ])
}

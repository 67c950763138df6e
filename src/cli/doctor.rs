//! `kladder doctor`

use clap::Args;
use serde::Serialize;

use crate::cli::exit::Exit;
use crate::cli::output::{self, tell};
use crate::cli::{ConfigArg, Output, chosen_ladders, config_file};
use crate::core::ladder::Mode;
use crate::observe::{Samples, Scraper, diagnose};
use crate::topology::doctor::{self, Diagnosis, Severity};

/// Exit codes and the fields of `-o json`.
const AFTER_HELP: &str = "\
Exit codes:
  0  no findings, or only notes
  1  the cluster could not be checked, or only in part, and no hazard was found
  2  usage or configuration
  4  a hazard was found

Fields of -o json:
  worker                        address of the worker that answered, or null; only queried in relay mode
  ladders[].ladder, group       the name and the consumer group
  ladders[].findings[]          most severe first
    severity                    hazard, unchecked (could not be checked) or note
    check                       headers-dropped, held, dlq-breaker, owner, setup, settings, members, offsets,
                                overdue or retry-after
    subject                     the topic, group or ladder
    problem, why, remedy        what is wrong, why it matters, what to do; why and remedy may be null";

/// Check the ladders for hazards
///
/// Checks the topics, settings, groups and state of the ladders, and reports what can lose records, redeliver them early or
/// block them, each with its remedy. Changes nothing. Checks that fail for lack of permission are reported as unchecked; the
/// ACLs of the role setup (kladder generate acls) are enough for all of them.
#[derive(Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct DoctorArgs {
    #[command(flatten)]
    config: ConfigArg,

    /// Output format
    #[arg(short, long, value_enum, default_value = "text", value_name = "FORMAT")]
    output: Output,

    /// Only this ladder; may be repeated
    #[arg(long = "ladder", value_name = "NAME")]
    ladders: Vec<String>,
}

#[derive(Debug, Serialize)]
struct DoctorReport {
    worker: Option<String>,
    ladders: Vec<Diagnosis>,
}

pub fn run(args: DoctorArgs) -> anyhow::Result<Exit> {
    let config = config_file::load(&args.config)?.config;
    let ladders = chosen_ladders(&config, &args.ladders)?;
    let scraper = Scraper::new(config.health.listen)?;
    let samples = if ladders.iter().any(|l| l.ladder.mode() == Mode::Relay) { ask_worker(&scraper) } else { None };
    let diagnoses = ladders.into_iter().map(|ladder| diagnose(&config.kafka, ladder, samples.as_ref()));
    let diagnoses = diagnoses.collect::<Result<_, _>>()?;
    let report = DoctorReport { worker: samples.is_some().then(|| scraper.worker().to_string()), ladders: diagnoses };
    match args.output {
        Output::Text => output::print(&doctor::render(&report.ladders))?,
        Output::Json => output::print_json(&report)?,
    }
    let has = |severity| report.ladders.iter().any(|ladder| ladder.count(severity) > 0);
    Ok(match (has(Severity::Hazard), has(Severity::Unchecked)) {
        (true, _) => Exit::Hazard,
        (false, true) => Exit::Failed,
        (false, false) => Exit::Done,
    })
}

/// The metrics of this configuration's worker. It usually runs on another machine, so no answer is not a
/// finding.
fn ask_worker(scraper: &Scraper) -> Option<Samples> {
    let worker = scraper.worker();
    match scraper.scrape() {
        Ok(samples) => Some(samples),
        Err(error) => {
            tell!(
                "note: no worker answered at http://{worker}/metrics ({error}): an application that drops the headers is only \
                 detected once its ladder is held for that"
            );
            None
        }
    }
}

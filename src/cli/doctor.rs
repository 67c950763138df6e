//! `kladder doctor`

use clap::Args;
use serde::Serialize;

use crate::cli::exit::Exit;
use crate::cli::metrics_scrape::{Samples, reachable, scrape_once};
use crate::cli::{ConfigArg, Output, chosen_ladders, config_file, stdout};
use crate::config::{Config, LadderConfig};
use crate::core::ladder::Mode;
use crate::core::topics::{delay_of_tier_topic, mover_group};
use crate::kafka::admin::KafkaCluster;
use crate::kafka::client_id;
use crate::kafka::clock::Clock;
use crate::telemetry::names;
use crate::topology::doctor::{self, Check, Diagnosis, Finding, Seen, Severity};
use crate::topology::{Cluster, ClusterError, Scope};

/// Exit codes and the fields of `-o json`.
const AFTER_HELP: &str = "\
Exit codes:
  0  nothing was found, or only notes
  1  the cluster could not be looked at, or not all of it, and nothing that was seen is a hazard
  2  usage or configuration
  4  a hazard was found

Fields of -o json:
  worker                        the address of the worker that answered, or null; only asked in relay
  ladders[].ladder, group       the name and the consumer group
  ladders[].findings[]          the worst first
    severity                    hazard, unchecked (it could not be looked at) or note
    check                       headers-dropped, held, dlq-breaker, owner, setup, settings, members, offsets or
                                overdue
    subject                     the topic, group or ladder
    problem, why, remedy        what is wrong, why it matters, what to do; the last two may be null";

/// Look for what may go wrong with the ladders
///
/// Looks at topics, settings, groups and the state of the ladders, and tells what loses records, makes them early or lets them
/// stand still, with the remedy of each. It changes nothing. What it may not see is told as not checked; the rights of the role
/// setup (kladder generate acls) let it see everything.
#[derive(Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct DoctorArgs {
    #[command(flatten)]
    config: ConfigArg,

    /// How the findings are printed
    #[arg(short, long, value_enum, default_value = "text", value_name = "FORMAT")]
    output: Output,

    /// Only this ladder; may be repeated
    #[arg(long = "ladder", value_name = "NAME")]
    ladders: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Report {
    worker: Option<String>,
    ladders: Vec<Diagnosis>,
}

pub fn run(args: DoctorArgs) -> anyhow::Result<Exit> {
    let config = config_file::load(&args.config)?.config;
    let ladders = chosen_ladders(&config, &args.ladders)?;
    let cluster = KafkaCluster::connect(&config.kafka)?;
    let samples = if ladders.iter().any(|l| l.ladder.mode() == Mode::Relay) { ask_worker(&config) } else { None };
    let (own, brokers) = (client_id(&config.kafka), config.kafka.brokers());
    let mut diagnoses = Vec::new();
    for ladder in ladders {
        diagnoses.push(match look(&cluster, ladder, samples.as_ref()) {
            Ok(seen) => doctor::examine(ladder, &seen, &own, brokers, Clock::system().now().timestamp()),
            Err(error @ ClusterError::NotAuthorised { .. }) => unseen(ladder, &error.to_string()),
            Err(error) => return Err(error.into()),
        });
    }
    let report = Report { worker: samples.is_some().then(|| reachable(config.health.listen).to_string()), ladders: diagnoses };
    stdout::print(&match args.output {
        Output::Text => doctor::render(&report.ladders),
        Output::Json => format!("{}\n", serde_json::to_string_pretty(&report)?),
    })?;
    let has = |severity| report.ladders.iter().any(|ladder| ladder.count(severity) > 0);
    Ok(match (has(Severity::Hazard), has(Severity::Unchecked)) {
        (true, _) => Exit::Hazard,
        (false, true) => Exit::Failed,
        (false, false) => Exit::Done,
    })
}

/// The metrics of the worker of this configuration. Most fleets have it elsewhere, so its silence is no finding.
fn ask_worker(config: &Config) -> Option<Samples> {
    let worker = reachable(config.health.listen);
    match scrape_once(worker) {
        Ok(samples) => Some(samples),
        Err(error) => {
            eprintln!(
                "note: no worker answered at http://{worker}/metrics ({error:#}): an application that drops the headers is only known \
                 once the ladder is held for it"
            );
            None
        }
    }
}

fn unseen(config: &LadderConfig, reason: &str) -> Diagnosis {
    let ladder = &config.ladder;
    Diagnosis {
        ladder: ladder.name().to_owned(),
        group: ladder.group().to_owned(),
        findings: vec![Finding::unchecked(Check::Setup, ladder.name(), "nothing of the ladder could be looked at", reason)],
    }
}

/// Looks at one ladder. What may not be seen of it is noted as that, where the rest can be.
fn look(cluster: &KafkaCluster, config: &LadderConfig, samples: Option<&Samples>) -> Result<Seen, ClusterError> {
    let ladder = &config.ladder;
    let scope = Scope::of(&[config]);
    let mut unchecked = Vec::new();
    let mut note_denied = |check: Check, subject: &str, what: &str, error: ClusterError| match error {
        ClusterError::NotAuthorised { .. } => {
            unchecked.push(Finding::unchecked(check, subject, what, &error.to_string()));
            Ok(())
        }
        error => Err(error),
    };
    let (observed, settings) = match cluster.observe(&scope) {
        Ok(observed) => (observed, true),
        Err(error) => {
            note_denied(Check::Settings, ladder.name(), "the settings of the topics could not be read", error)?;
            (cluster.look_without_settings(&scope)?, false)
        }
    };
    let state_topic = ladder.state_topic();
    let state = if observed.topics.contains_key(&state_topic) {
        cluster.states(std::slice::from_ref(&state_topic))?.remove(&state_topic)
    } else {
        None
    };
    let mut seen = Seen { observed, settings, standing: cluster.standing(&scope)?, state, ..Seen::default() };
    for group in doctor::own_groups(config) {
        match cluster.members_of(&group) {
            Ok(members) => drop(seen.members.insert(group, members)),
            Err(error) => note_denied(Check::Members, &group, "who is in the group could not be seen", error)?,
        }
    }
    let mover = mover_group(ladder.name());
    for topic in seen.standing.topics.keys().filter(|topic| delay_of_tier_topic(ladder.name(), topic).is_some()) {
        let tails = cluster.tails(&seen.standing, &mover, topic, None)?;
        match cluster.oldest(&mover, topic, &tails) {
            Ok(Some(oldest)) => drop(seen.oldest.insert(topic.clone(), oldest)),
            Ok(None) => {}
            Err(error) => note_denied(Check::Overdue, topic, "whether records are overdue could not be seen", error)?,
        }
    }
    seen.headers_missing =
        samples.and_then(|samples| samples.sum(names::RELAY_HEADERS_MISSING.name, &[(names::LADDER, ladder.name())]));
    seen.unchecked = unchecked;
    Ok(seen)
}

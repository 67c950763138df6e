//! `kladder setup`

use anyhow::bail;
use clap::Args;
use serde::Serialize;

use crate::cli::confirm::confirmed;
use crate::cli::exit::Exit;
use crate::cli::{ConfigArg, Output, chosen_ladders, config_file, stdout};
use crate::config::{Config, LadderConfig, QueueConfig};
use crate::kafka::admin::KafkaCluster;
use crate::topology::{self, Cluster, ClusterError, Limits, Plan, Scope, Step};

/// Exit codes and the fields of `-o json`.
const AFTER_HELP: &str = "\
Exit codes:
  0  in order, or applied
  1  the cluster could not be reached, or refused something
  2  the plan is refused, or there was nobody to confirm it
  3  drift; with --dry-run any difference

Fields of -o json:
  outcome                        in-order, planned (--dry-run), applied, drift or refused
  plan.ladders[].ladder, group   the name and the consumer group
  plan.ladders[].changes[]       change: create-topic, add-partitions, claim or commit-offsets
  plan.ladders[].drift[]         topic, setting, have, want, and the command that mends it
  plan.ladders[].refusals[]      subject, problem, remedy
  plan.ladders[].notes[]         subject, text
  plan.totals                    topics, partitions, replicas of the ladders, once applied
  plan.refusals[]                of the plan as a whole";

/// Create and check the topics of the ladders
///
/// Prints what is missing as a plan, asks, and carries it out: topics, partitions, whose they are, and where the groups start. Running it again
/// changes nothing. A ladder belongs to the group that set it up; another one is refused. It never touches a source topic and never alters a setting of a topic that exists: what differs is told
/// as drift, with the command that mends it.
#[derive(Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct SetupArgs {
    #[command(flatten)]
    config: ConfigArg,

    /// Print the plan and change nothing
    #[arg(long)]
    dry_run: bool,

    /// Do not ask
    #[arg(short, long)]
    yes: bool,

    /// How the plan is printed
    #[arg(short, long, value_enum, default_value = "text", value_name = "FORMAT")]
    output: Output,

    /// Only this ladder; may be repeated
    #[arg(long = "ladder", value_name = "NAME")]
    ladders: Vec<String>,

    /// Take over a ladder that belongs to another group, whose workers have to be stopped first; say which with --ladder
    #[arg(long, requires = "ladders")]
    take_over: bool,

    /// Refuse to create more partitions than this in total
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    max_partitions: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    InOrder,
    Planned,
    Applied,
    Drift,
    Refused,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    outcome: Outcome,
    plan: &'a Plan,
}

pub fn run(args: SetupArgs) -> anyhow::Result<Exit> {
    let config = config_file::load(&args.config)?.config;
    let ladders = chosen_ladders(&config, &args.ladders)?;
    let cluster = KafkaCluster::connect(&config.kafka)?;
    let plan = make_plan(&args, &config, &ladders, &cluster)?;
    if args.output == Output::Text {
        stdout::print(&topology::render(&plan))?;
    }
    let outcome = carry_out(&args, &config, &ladders, &cluster, &plan)?;
    let Some(outcome) = outcome else { return Ok(Exit::Usage) };
    if args.output == Output::Json {
        stdout::print(&format!("{}\n", serde_json::to_string_pretty(&Report { outcome, plan: &plan })?))?;
    }
    say(match outcome {
        Outcome::InOrder => "in order",
        Outcome::Applied => "applied, and in order",
        Outcome::Planned => "nothing was changed: --dry-run",
        Outcome::Drift => "what is marked as drift is for you to mend: setup does not alter settings",
        Outcome::Refused => "refused: nothing was changed",
    });
    Ok(match outcome {
        Outcome::InOrder | Outcome::Applied => Exit::Done,
        Outcome::Planned | Outcome::Drift => Exit::Drift,
        Outcome::Refused => Exit::Usage,
    })
}

/// What came of the plan; `None` where it was not confirmed.
fn carry_out(
    args: &SetupArgs,
    config: &Config,
    ladders: &[&LadderConfig],
    cluster: &KafkaCluster,
    plan: &Plan,
) -> anyhow::Result<Option<Outcome>> {
    let unchanged = if plan.has_drift() { Outcome::Drift } else { Outcome::InOrder };
    if plan.is_refused() {
        return Ok(Some(Outcome::Refused));
    }
    if !plan.has_changes() {
        return Ok(Some(unchanged));
    }
    if args.dry_run {
        return Ok(Some(Outcome::Planned));
    }
    if !args.yes && !confirmed("apply this plan?", "add --yes to apply the plan, or --dry-run to look only")? {
        return Ok(None);
    }
    topology::apply(plan, cluster, |step| say(&told(step)))?;
    let after = make_plan(args, config, ladders, cluster)?;
    if after.is_refused() || after.has_changes() {
        bail!("the cluster has changed meanwhile, or does not do what it says:\n{}run setup again", topology::render(&after));
    }
    Ok(Some(if after.has_drift() { Outcome::Drift } else { Outcome::Applied }))
}

fn make_plan(args: &SetupArgs, config: &Config, ladders: &[&LadderConfig], cluster: &KafkaCluster) -> Result<Plan, ClusterError> {
    // With --ladder only ladders are meant.
    let queues: Vec<&QueueConfig> = config.queues.iter().filter(|_| args.ladders.is_empty()).collect();
    let observed = cluster.observe(&Scope::of(ladders).with_queues(&queues))?;
    let desired = ladders.iter().map(|l| topology::desired(l, &observed.topics));
    let desired: Vec<_> = desired.chain(queues.iter().map(|q| topology::desired_of_queue(q, &observed.topics))).collect();
    let limits = Limits {
        max_partitions: args.max_partitions,
        take_over: args.take_over,
        bootstrap_servers: config.kafka.brokers().to_owned(),
    };
    Ok(topology::plan(&desired, &observed, &limits))
}

fn told(step: &Step) -> String {
    match step {
        Step::CreatingTopics(1) => "creating 1 topic".to_owned(),
        Step::CreatingTopics(count) => format!("creating {count} topics"),
        Step::AddingPartitions(topic, want) => format!("adding partitions to {topic}, {want} in all"),
        Step::Waiting(_) => "waiting until they can be used".to_owned(),
        Step::Claiming(group, topic) => format!("putting group {group} down as the owner in {topic}"),
        Step::Committing(group, topic) => format!("setting where group {group} starts on {topic}"),
    }
}

fn say(text: &str) {
    eprintln!("{text}");
}

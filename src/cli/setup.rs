//! `kladder setup`

use anyhow::bail;
use clap::Args;
use serde::Serialize;

use crate::cli::confirm::confirmed;
use crate::cli::exit::Exit;
use crate::cli::output::{self, tell};
use crate::cli::{ConfigArg, Output, chosen_ladders, config_file};
use crate::config::{Config, LadderConfig, QueueConfig};
use crate::kafka::admin::KafkaCluster;
use crate::topology::{self, ApplyStep, Cluster, ClusterError, Limits, Plan, Scope};

/// Exit codes and the fields of `-o json`.
const AFTER_HELP: &str = "\
Exit codes:
  0  in order, or applied
  1  the cluster could not be reached, or refused a request
  2  the plan is refused, or no terminal to confirm on
  3  drift; with --dry-run any difference

Fields of -o json:
  outcome                        in-order, planned (--dry-run), applied, drift or refused
  plan.ladders[].ladder, group   the name and the consumer group
  plan.ladders[].changes[]       change: create-topic, add-partitions, claim or commit-offsets
  plan.ladders[].drift[]         topic, setting, have, want, and the command that fixes it
  plan.ladders[].caps[]          topic, setting, have, want, and why the cluster does not accept it (words)
  plan.ladders[].refusals[]      subject, problem, remedy
  plan.ladders[].notes[]         subject, text
  plan.totals                    topics, partitions, replicas of the ladders, once applied
  plan.refusals[]                refusals of the plan as a whole";

/// Create and check the topics of the ladders
///
/// Prints the missing topics, partitions, owner records and start offsets as a plan, asks, and applies it. Running it again changes nothing. A ladder
/// belongs to the group that set it up; any other group is refused. Source topics and the settings of existing topics are never changed: differences
/// are reported as drift, with the command that fixes them.
#[derive(Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct SetupArgs {
    #[command(flatten)]
    config: ConfigArg,

    /// Print the plan and change nothing
    #[arg(long)]
    dry_run: bool,

    /// Do not ask for confirmation
    #[arg(short, long)]
    yes: bool,

    /// Output format of the plan
    #[arg(short, long, value_enum, default_value = "text", value_name = "FORMAT")]
    output: Output,

    /// Only this ladder; may be repeated
    #[arg(long = "ladder", value_name = "NAME")]
    ladders: Vec<String>,

    /// Take over a ladder that belongs to another group (stop its workers first); needs --ladder
    #[arg(long, requires = "ladders")]
    take_over: bool,

    /// Maximum number of partitions to create in total
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    max_partitions: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum SetupOutcome {
    InOrder,
    Planned,
    Applied,
    Drift,
    Refused,
}

#[derive(Debug, Serialize)]
struct SetupReport<'a> {
    outcome: SetupOutcome,
    plan: &'a Plan,
}

pub fn run(args: SetupArgs) -> anyhow::Result<Exit> {
    let config = config_file::load(&args.config)?.config;
    let ladders = chosen_ladders(&config, &args.ladders)?;
    let cluster = KafkaCluster::connect(&config.kafka)?;
    let plan = make_plan(&args, &config, &ladders, &cluster)?;
    if args.output == Output::Text {
        output::print(&topology::render(&plan))?;
    }
    let outcome = carry_out(&args, &config, &ladders, &cluster, &plan)?;
    let Some(outcome) = outcome else { return Ok(Exit::Usage) };
    if args.output == Output::Json {
        output::print_json(&SetupReport { outcome, plan: &plan })?;
    }
    say(match outcome {
        SetupOutcome::InOrder => "in order",
        SetupOutcome::Applied => "applied, and in order",
        SetupOutcome::Planned => "nothing was changed: --dry-run",
        SetupOutcome::Drift => "setup does not change settings: fix what is marked as drift with the commands shown",
        SetupOutcome::Refused => "refused: nothing was changed",
    });
    Ok(match outcome {
        SetupOutcome::InOrder | SetupOutcome::Applied => Exit::Done,
        SetupOutcome::Planned | SetupOutcome::Drift => Exit::Drift,
        SetupOutcome::Refused => Exit::Usage,
    })
}

/// The result of applying the plan; `None` if it was not confirmed.
fn carry_out(
    args: &SetupArgs,
    config: &Config,
    ladders: &[&LadderConfig],
    cluster: &KafkaCluster,
    plan: &Plan,
) -> anyhow::Result<Option<SetupOutcome>> {
    let unchanged = if plan.has_drift() { SetupOutcome::Drift } else { SetupOutcome::InOrder };
    if plan.is_refused() {
        return Ok(Some(SetupOutcome::Refused));
    }
    if !plan.has_changes() {
        return Ok(Some(unchanged));
    }
    if args.dry_run {
        return Ok(Some(SetupOutcome::Planned));
    }
    if !args.yes && !confirmed("apply this plan?", "add --yes to apply the plan, or --dry-run to only print it")? {
        return Ok(None);
    }
    topology::apply(plan, cluster, |step| say(&step_text(step)))?;
    let after = make_plan(args, config, ladders, cluster)?;
    if after.is_refused() || after.has_changes() {
        bail!(
            "parts of the plan are missing although the cluster has confirmed all of it:\n{}the cluster may have been changed meanwhile: \
             run setup again; if the same parts are missing, tell the cluster's operators that it does not carry out what it confirms",
            topology::render(&after)
        );
    }
    Ok(Some(if after.has_drift() { SetupOutcome::Drift } else { SetupOutcome::Applied }))
}

fn make_plan(args: &SetupArgs, config: &Config, ladders: &[&LadderConfig], cluster: &KafkaCluster) -> Result<Plan, ClusterError> {
    // With --ladder, [dlq] sections are left out.
    let queues: Vec<&QueueConfig> = config.queues.iter().filter(|_| args.ladders.is_empty()).collect();
    let mut observed = cluster.observe(&Scope::of(ladders).with_queues(&queues))?;
    let desired = ladders.iter().map(|l| topology::desired(l, &observed.topics));
    let desired: Vec<_> = desired.chain(queues.iter().map(|q| topology::desired_of_queue(q, &observed.topics))).collect();
    let limits = Limits {
        max_partitions: args.max_partitions,
        take_over: args.take_over,
        bootstrap_servers: config.kafka.brokers().to_owned(),
    };
    topology::ask_caps(&desired, &mut observed, cluster)?;
    let mut plan = topology::plan(&desired, &observed, &limits);
    topology::ask_first(&mut plan, cluster)?;
    Ok(plan)
}

fn step_text(step: &ApplyStep) -> String {
    match step {
        ApplyStep::CreatingTopics(1) => "creating 1 topic".to_owned(),
        ApplyStep::CreatingTopics(count) => format!("creating {count} topics"),
        ApplyStep::AddingPartitions(topic, want) => format!("adding partitions to {topic}, {want} in all"),
        ApplyStep::Waiting(_) => "waiting until they are usable".to_owned(),
        ApplyStep::Claiming(group, topic) => format!("recording group {group} as the owner in {topic}"),
        ApplyStep::Committing(group, topic) => format!("committing start offsets of group {group} on {topic}"),
    }
}

fn say(text: &str) {
    tell!("{text}");
}

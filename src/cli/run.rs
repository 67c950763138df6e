//! `kladder run`: the workers.

use std::sync::Arc;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};

use crate::admin::health::{HealthServer, HealthState};
use crate::cli::config_file;
use crate::cli::exit::Exit;
use crate::cli::{ConfigArg, chosen_ladders};
use crate::config::types::{Config, HandlerConfig, LadderConfig, Role};
use crate::core::ladder::Mode;
use crate::kafka::admin::KafkaCluster;
use crate::telemetry::events::{DelivererMetrics, HttpMetrics, MoverMetrics, RouterMetrics};
use crate::telemetry::exporter;
use crate::telemetry::logging::{self, LogFormat};
use crate::topology::{self, Change, Cluster, ClusterError, LadderPlan, Limits, Scope};
use crate::worker::deliverer::{Deliverer, DelivererSettings};
use crate::worker::hold::HoldWatch;
use crate::worker::http_handler::HttpHandler;
use crate::worker::mover::{Mover, MoverSettings};
use crate::worker::router::{Router, RouterSettings};
use crate::worker::stop::Stop;
use crate::worker::supervisor::{Presence, Supervisor};

/// Run the workers: movers bring due records back, deliverers call the handlers, routers take what applications could not handle
///
/// A first SIGTERM or SIGINT drains: what is in flight is waited for up to [worker] drain, then committed. A second one ends at
/// once; what was in flight is delivered again.
#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// What this process does, comma-separated [default: roles of [worker], or all]
    #[arg(long, value_name = "ROLE", value_delimiter = ',')]
    role: Vec<RoleArg>,
    /// Only this ladder; may be given several times
    #[arg(long, value_name = "NAME")]
    ladder: Vec<String>,
    /// How log lines are written, on stderr
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log: LogArg,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RoleArg {
    /// Moves due records from the tiers to redeliver
    Mover,
    /// Consumes source and redeliver and calls the handler (push)
    Deliverer,
    /// Consumes the inbox of failed records (relay)
    Router,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogArg {
    /// For people
    Text,
    /// For machines: a JSON object a line
    Json,
}

pub fn run(args: RunArgs) -> anyhow::Result<Exit> {
    let file = config_file::load(&args.config)?;
    logging::init(match args.log {
        LogArg::Text => LogFormat::Text,
        LogArg::Json => LogFormat::Json,
    })?;
    let config = file.config;
    let roles = roles(&config, &args.role);
    let ladders = runnable(&config, &args.ladder, &roles)?;
    if !is_set_up(&config, &ladders)? {
        return Ok(Exit::Failed);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(work(&config, &ladders, &roles))
}

/// The ladders to run.
fn runnable<'a>(config: &'a Config, names: &[String], roles: &[Role]) -> anyhow::Result<Vec<&'a LadderConfig>> {
    let ladders = chosen_ladders(config, names)?;
    let has_work = |mode| roles.iter().any(|role| runs(*role, mode));
    if let Some(idle) = ladders.iter().map(|l| &l.ladder).find(|ladder| !has_work(ladder.mode())) {
        let (mode, need) = match idle.mode() {
            Mode::Push => ("push", "mover or deliverer"),
            Mode::Relay => ("relay", "mover or router"),
        };
        bail!(
            "ladder `{}` is a {mode} ladder, for which these roles do nothing: add {need} with --role, or name other ladders with \
             --ladder NAME",
            idle.name()
        );
    }
    Ok(ladders)
}

/// Whether a role has something to do for a ladder of this mode.
fn runs(role: Role, mode: Mode) -> bool {
    match role {
        Role::Mover => true,
        Role::Deliverer => mode == Mode::Push,
        Role::Router => mode == Mode::Relay,
        Role::Index => false,
    }
}

/// Whether the workers find what they need; what they do not find is told. Half a ladder would look like a whole one, so nothing
/// starts without all of it. What has grown since setup stops nobody: a fleet must be able to restart at any time.
fn is_set_up(config: &Config, ladders: &[&LadderConfig]) -> anyhow::Result<bool> {
    let cluster = KafkaCluster::connect(&config.kafka)?;
    let mut observed = match cluster.observe(&Scope::of(ladders)) {
        Ok(observed) => observed,
        Err(ClusterError::NotAuthorised { .. }) => {
            match cluster.look_without_settings(&Scope::of(ladders)) {
                Ok(observed) => {
                    tracing::info!(
                        "the settings of the topics are not checked: that takes DescribeConfigs, which a worker can do without"
                    );
                    observed
                }
                Err(error @ ClusterError::NotAuthorised { .. }) => {
                    // A worker of one role may not see what the others need, and will tell what it lacks itself.
                    tracing::warn!(%error, "cannot check whether the ladders are set up");
                    return Ok(true);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(error) => return Err(error.into()),
    };
    // Setup needs groups without members; a worker is about to be one.
    observed.groups.values_mut().for_each(|group| group.members = 0);
    let desired: Vec<_> = ladders.iter().map(|l| topology::desired(l, &observed.topics)).collect();
    let limits = Limits { max_partitions: u32::MAX, take_over: false, bootstrap_servers: config.kafka.brokers().to_owned() };
    let plan = topology::plan(&desired, &observed, &limits);
    for ladder in &plan.ladders {
        for drift in &ladder.drift {
            tracing::warn!(
                topic = drift.topic,
                setting = drift.setting,
                have = drift.have,
                want = drift.want,
                "topic differs from what the ladder needs: `kladder setup` says how to mend it"
            );
        }
    }
    let refusals: Vec<_> = plan.refusals.iter().chain(plan.ladders.iter().flat_map(|l| &l.refusals)).collect();
    for refusal in &refusals {
        eprintln!("error: {}: {}\n  {}", refusal.subject, refusal.problem, refusal.remedy);
    }
    let missing: Vec<_> = plan.changes().filter(|change| is_missing(change)).collect();
    for change in &missing {
        eprintln!("error: missing: {change}");
    }
    let lost: Vec<_> = plan.ladders.iter().flat_map(lost_offsets).collect();
    if !lost.is_empty() {
        for (group, topic) in &lost {
            eprintln!(
                "error: group {group} has no offsets on {topic}, although the ladder is set up: they were deleted or have expired, \
                 unless {topic} is a new source. Nothing starts, since records would be skipped or moved again. Decide where to go on, \
                 while no worker runs: `kladder setup` tells where it would begin and how many records that concerns, and does it \
                 once it is confirmed; any other place is set with `kafka-consumer-groups.sh --bootstrap-server {} --group {group} \
                 --topic {topic} --reset-offsets --to-datetime TIME --execute` (or --to-earliest, --to-latest, --to-offset N)",
                config.kafka.brokers()
            );
        }
    } else if !missing.is_empty() {
        eprintln!("the ladder is not set up: run `kladder setup`");
    } else if plan.changes().any(|change| matches!(change, Change::AddPartitions { .. } | Change::CommitOffsets { .. })) {
        tracing::warn!("sources have more partitions than when the ladder was set up: `kladder setup` makes it grow along");
    }
    for change in plan.changes() {
        if let Change::Claim { topic, group, .. } = change {
            tracing::warn!(topic, group, "nothing says yet whom the ladder belongs to: `kladder setup` puts the group down");
        }
    }
    Ok(refusals.is_empty() && missing.is_empty())
}

/// Groups that lack the offsets of a topic in a ladder whose topics are all there: it was set up once, so they had them.
fn lost_offsets(ladder: &LadderPlan) -> Vec<(&str, &str)> {
    if ladder.changes.iter().any(|change| matches!(change, Change::CreateTopic { .. })) {
        return Vec::new();
    }
    let lacking = ladder.changes.iter().filter(|change| is_missing(change));
    lacking
        .filter_map(|change| match change {
            Change::CommitOffsets { group, topic, .. } => Some((group.as_str(), topic.as_str())),
            _ => None,
        })
        .collect()
}

/// A topic that is not there, or a group that does not know it. Partitions that were added later are taken up by the workers, and
/// a ladder that was set up before owners were put down is nobody else's.
fn is_missing(change: &Change) -> bool {
    match change {
        Change::CreateTopic { .. } => true,
        Change::AddPartitions { .. } | Change::Claim { .. } => false,
        Change::CommitOffsets { partitions, .. } => partitions.contains(&0),
    }
}

fn roles(config: &Config, given: &[RoleArg]) -> Vec<Role> {
    if given.is_empty() {
        return config.worker.roles.clone();
    }
    let role = |arg: &RoleArg| match arg {
        RoleArg::Mover => Role::Mover,
        RoleArg::Deliverer => Role::Deliverer,
        RoleArg::Router => Role::Router,
    };
    given.iter().map(role).collect()
}

async fn work(config: &Config, ladders: &[&LadderConfig], roles: &[Role]) -> anyhow::Result<Exit> {
    let exporter = exporter::install();
    let health = HealthState::new();
    let server = HealthServer::bind(config.health.listen, health.clone(), exporter).await?;
    let address = server.address();
    let (end_server, ended) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(server.serve(async move { ended.await.unwrap_or(()) }));

    let stop = Stop::new();
    let mut supervisor = Supervisor::new(stop.clone());
    let watch = HoldWatch::start(&config.kafka, ladders.iter().map(|l| &l.ladder)).context("cannot start a thread")?;
    for ladder in ladders {
        if roles.contains(&Role::Mover) {
            start_mover(&mut supervisor, config, ladder, &watch, &health)?;
        }
        let mode = ladder.ladder.mode();
        if roles.contains(&Role::Router) && runs(Role::Router, mode) {
            start_router(&mut supervisor, config, ladder, &watch, &health)?;
        }
        if roles.contains(&Role::Deliverer) && runs(Role::Deliverer, mode) {
            let handler = ladder.handler.as_ref().context("a push ladder has a handler")?;
            start_deliverer(&mut supervisor, config, ladder, handler, &watch, &health)?;
        }
    }
    health.started();
    tracing::info!(instance = config.worker.instance, health = %address, ladders = ladders.len(), "kladder runs");

    let on_signal = stop.clone();
    let signals = tokio::spawn(async move {
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let mut next = async || tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} };
        next().await;
        tracing::info!("draining; a second signal ends at once");
        health.draining();
        on_signal.set();
        next().await;
        tracing::warn!("ended without draining: what was in flight is delivered again");
        std::process::exit(1);
        #[expect(unreachable_code, reason = "gives the block its type")]
        std::io::Result::Ok(())
    });
    let ended_well = tokio::task::spawn_blocking(move || supervisor.wait()).await.context("waiting for the workers")?;
    signals.abort();
    let _ = end_server.send(());
    server.await.context("serving the probes")??;
    tracing::info!("kladder has ended");
    Ok(if ended_well { Exit::Done } else { Exit::Failed })
}

fn start_mover(
    supervisor: &mut Supervisor,
    config: &Config,
    ladder: &LadderConfig,
    watch: &HoldWatch,
    health: &HealthState,
) -> anyhow::Result<()> {
    let settings = MoverSettings {
        ladder: Arc::new(ladder.ladder.clone()),
        kafka: config.kafka.clone(),
        instance: config.worker.instance.clone(),
        hold: watch.hold(ladder.ladder.name()),
    };
    let metrics = MoverMetrics::new(&settings.ladder).worker;
    let joined = health.expect(settings.ladder.name(), Role::Mover);
    let name = format!("mover of {}", settings.ladder.name());
    let work = move |presence: &Presence| {
        if settings.hold.ready(&presence.stop)? { Mover::start(&settings)?.run(presence) } else { Ok(()) }
    };
    supervisor.spawn(name, metrics, move || joined.set(), work).context("cannot start a thread")
}

fn start_router(
    supervisor: &mut Supervisor,
    config: &Config,
    ladder: &LadderConfig,
    watch: &HoldWatch,
    health: &HealthState,
) -> anyhow::Result<()> {
    let settings = RouterSettings {
        ladder: Arc::new(ladder.ladder.clone()),
        kafka: config.kafka.clone(),
        instance: config.worker.instance.clone(),
        drain: config.worker.drain,
        hold: watch.hold(ladder.ladder.name()),
    };
    let metrics = RouterMetrics::new(&settings.ladder).worker;
    let joined = health.expect(settings.ladder.name(), Role::Router);
    let name = format!("router of {}", settings.ladder.name());
    let work = move |presence: &Presence| {
        if settings.hold.ready(&presence.stop)? { Router::start(&settings)?.run(presence) } else { Ok(()) }
    };
    supervisor.spawn(name, metrics, move || joined.set(), work).context("cannot start a thread")
}

fn start_deliverer(
    supervisor: &mut Supervisor,
    config: &Config,
    ladder: &LadderConfig,
    handler: &HandlerConfig,
    watch: &HoldWatch,
    health: &HealthState,
) -> anyhow::Result<()> {
    let settings = DelivererSettings {
        ladder: Arc::new(ladder.ladder.clone()),
        kafka: config.kafka.clone(),
        instance: config.worker.instance.clone(),
        max_in_flight: handler.max_in_flight,
        redeliver_share: handler.redeliver_share,
        drain: config.worker.drain,
        hold: watch.hold(ladder.ladder.name()),
    };
    let http = HttpHandler::new(handler, HttpMetrics::new(&settings.ladder))
        .with_context(|| format!("ladder `{}`", settings.ladder.name()))?;
    let http = Arc::new(http);
    let metrics = DelivererMetrics::new(&settings.ladder).worker;
    let joined = health.expect(settings.ladder.name(), Role::Deliverer);
    let name = format!("deliverer of {}", settings.ladder.name());
    let runtime = Handle::current();
    let work = move |presence: &Presence| {
        if settings.hold.ready(&presence.stop)? {
            Deliverer::start(&settings, http.clone(), runtime.clone())?.run(presence)
        } else {
            Ok(())
        }
    };
    supervisor.spawn(name, metrics, move || joined.set(), work).context("cannot start a thread")
}

//! `kladder run`: the workers.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::admin::control::ControlServer;
use crate::admin::health::{HealthError, HealthServer, HealthState};
use crate::cli::config_file;
use crate::cli::exit::Exit;
use crate::cli::{ConfigArg, chosen_ladders};
use crate::config::types::{Config, LadderConfig, Role};
use crate::core::ladder::Mode;
use crate::core::topics::own_dlq_topic;
use crate::dlq::queue::Queue;
use crate::dlq::watch::{IndexWatch, Kept};
use crate::kafka::clock::Clock;
use crate::telemetry::events::HttpMetrics;
use crate::telemetry::exporter;
use crate::telemetry::logging::{self, LogFormat};
#[cfg(feature = "otlp")]
use crate::telemetry::spans;
use crate::telemetry::tally::Tally;
use crate::topology::ClusterError;
use crate::worker::cluster_watch::ClusterWatch;
use crate::worker::crew::Crew;
use crate::worker::deliverer::HandlerPlaces;
use crate::worker::hold::HoldWatch;
use crate::worker::hop::leaders::BrokersClock;
use crate::worker::http_handler::HttpHandler;
use crate::worker::quiet::Quiet;
use crate::worker::set_up::{self, SetUpError};
use crate::worker::stop::Stop;
use crate::worker::supervisor::{GivenUp, Supervisor};

/// How long it is waited between two looks for a broker that answers; a look takes up to 10 s itself.
const BROKERS_INTERVAL: Duration = Duration::from_secs(2);

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
    /// Keeps the index of dead letters, and counts them
    Index,
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
    let state_dir = file.state_dir();
    let config = file.config;
    let roles = roles(&config, &args.role);
    let ladders = runnable(&config, &args.ladder, &roles)?;
    // Outlives the runtime: what is left is sent when all else has ended.
    #[cfg(feature = "otlp")]
    let _spans = spans::install().context("spans cannot be exported: look at OTEL_EXPORTER_OTLP_ENDPOINT")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(work(&config, &ladders, &roles, &state_dir))
}

/// The index of the dead letters of these ladders, and of dead-letter topics that are named by themselves.
fn index(config: &Config, ladders: &[&LadderConfig], state_dir: &Path) -> anyhow::Result<IndexWatch> {
    let mut queues = Vec::new();
    for config in ladders {
        let (ladder, redrive) = (&config.ladder, &config.redrive);
        let own = |own: Option<&str>| Queue::of_ladder(ladder, own, &redrive.targets, redrive.park_after);
        let prefix = own_dlq_topic(ladder.name(), "");
        let names: Vec<Option<String>> =
            ladder.dlq_topics().iter().map(|topic| topic.strip_prefix(&prefix).map(str::to_owned)).collect();
        let retention = config.topics.dlq_retention;
        let kept = |name: &Option<String>| Kept { ladder: ladder.name().to_owned(), queue: own(name.as_deref()), retention };
        queues.extend(names.iter().map(kept));
    }
    IndexWatch::start(&config.kafka, queues, state_dir.to_owned()).context("cannot start a thread")
}

/// The ladders to run.
fn runnable<'a>(config: &'a Config, names: &[String], roles: &[Role]) -> anyhow::Result<Vec<&'a LadderConfig>> {
    let ladders = chosen_ladders(config, names)?;
    let has_work = |mode| roles.iter().any(|role| runs(*role, mode) || *role == Role::Index);
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
        // For all of them at once.
        Role::Index => false,
    }
}

/// Whether the workers find what they need; what they do not find is told. While no broker answers that is waited for, since to end
/// cures nothing: in a pod the application beside would not start either.
async fn is_set_up(config: &Config, ladders: &[&LadderConfig], health: &HealthState) -> anyhow::Result<bool> {
    let waits_for = Arc::new(Mutex::new(None));
    let notice = waits_for.clone();
    health.notice(move || notice.lock().unwrap_or_else(PoisonError::into_inner).clone());
    loop {
        let found = look(config, ladders).await?;
        let Err(SetUpError::Cluster(error @ ClusterError::NoBroker { .. })) = found else {
            *waits_for.lock().unwrap_or_else(PoisonError::into_inner) = None;
            return told(found);
        };
        let known = waits_for.lock().unwrap_or_else(PoisonError::into_inner).replace(error.to_string());
        if known.is_none() {
            tracing::error!(%error, "nothing is done until one answers");
        }
        tokio::time::sleep(BROKERS_INTERVAL).await;
    }
}

/// On a thread of its own, which nobody waits for who is told to end meanwhile.
async fn look(config: &Config, ladders: &[&LadderConfig]) -> anyhow::Result<Result<(), SetUpError>> {
    let (kafka, ladders) = (config.kafka.clone(), ladders.iter().map(|ladder| (*ladder).clone()).collect::<Vec<_>>());
    let (tell, told) = oneshot::channel();
    std::thread::spawn(move || tell.send(set_up::check(&kafka, &ladders.iter().collect::<Vec<_>>())));
    told.await.context("looking at the cluster")
}

fn told(found: Result<(), SetUpError>) -> anyhow::Result<bool> {
    match found {
        Ok(()) => Ok(true),
        Err(SetUpError::Cluster(error)) => Err(error.into()),
        Err(SetUpError::NotSetUp(lacking)) => {
            for refusal in &lacking.refusals {
                eprintln!("error: {}: {}\n  {}", refusal.subject, refusal.problem, refusal.remedy);
            }
            for change in &lacking.missing {
                eprintln!("error: missing: {change}");
            }
            for lost in &lacking.lost {
                eprintln!("error: {lost}");
            }
            if !lacking.missing.is_empty() && lacking.lost.is_empty() {
                eprintln!("the ladder is not set up: run `kladder setup`");
            }
            Ok(false)
        }
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
        RoleArg::Index => Role::Index,
    };
    given.iter().map(role).collect()
}

async fn work(config: &Config, ladders: &[&LadderConfig], roles: &[Role], state_dir: &Path) -> anyhow::Result<Exit> {
    // Before anything is waited for: a process that is the first of its container has no other way to hear them.
    let mut signals = Signals::listen()?;
    // First, since metrics that were made before the exporter feed nothing.
    let probes = Probes::serve(config).await?;
    let is_set_up = tokio::select! {
        is_set_up = is_set_up(config, ladders, &probes.health) => is_set_up?,
        () = signals.next() => {
            probes.health.draining();
            tracing::info!("kladder has ended");
            return Ok(Exit::Done);
        }
    };
    if !is_set_up {
        return Ok(Exit::Failed);
    }
    let _index = if roles.contains(&Role::Index) { Some(index(config, ladders, state_dir)?) } else { None };
    let running = begin(config, ladders, roles, BrokersClock::Theirs, probes).await?;
    let (health, on_signal) = (running.health.clone(), running.stop.clone());
    let draining = tokio::spawn(async move {
        signals.next().await;
        tracing::info!("draining; a second signal ends at once");
        health.draining();
        on_signal.set();
        signals.next().await;
        tracing::warn!("ended without draining: what was in flight is delivered again");
        std::process::exit(1);
    });
    let ended = running.ended().await?;
    draining.abort();
    tracing::info!("kladder has ended");
    Ok(if ended.is_ok() { Exit::Done } else { Exit::Failed })
}

/// SIGTERM and SIGINT.
struct Signals(Signal, Signal);

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self(signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?))
    }

    /// Waits for the next one.
    async fn next(&mut self) {
        tokio::select! { _ = self.0.recv() => {}, _ = self.1.recv() => {} }
    }
}

/// Probes and metrics, which are served before anything else and until all else has ended.
pub(super) struct Probes {
    health: HealthState,
    address: SocketAddr,
    end_server: oneshot::Sender<()>,
    server: JoinHandle<Result<(), HealthError>>,
}

impl Probes {
    /// Serves them.
    pub(super) async fn serve(config: &Config) -> anyhow::Result<Self> {
        let exporter = exporter::install();
        let health = HealthState::new();
        let server = HealthServer::bind(config.health.listen, health.clone(), exporter).await?;
        let address = server.address();
        let (end_server, ended) = oneshot::channel::<()>();
        let server = tokio::spawn(server.serve(async move { ended.await.unwrap_or(()) }));
        Ok(Self { health, address, end_server, server })
    }
}

/// Workers that run, with their probes and metrics.
pub(super) struct Running {
    /// Tells the workers to end.
    pub stop: Stop,
    /// What the probes know.
    pub health: HealthState,
    /// Where probes and metrics are served.
    pub address: SocketAddr,
    /// The places at the handlers, of each ladder that has one.
    pub handlers: Vec<Arc<HandlerPlaces>>,
    supervisor: Supervisor,
    control: Option<JoinHandle<()>>,
    _cluster: Option<ClusterWatch>,
    // Tells the workers whether they are held, as long as it lives.
    _watch: HoldWatch,
    end_server: oneshot::Sender<()>,
    server: JoinHandle<Result<(), HealthError>>,
}

/// Starts the workers of these ladders in these roles but the index.
pub(super) async fn begin(
    config: &Config,
    ladders: &[&LadderConfig],
    roles: &[Role],
    clock: BrokersClock,
    probes: Probes,
) -> anyhow::Result<Running> {
    let Probes { health, address, end_server, server } = probes;
    let quiet = Quiet::new();
    let control = control(config, &quiet, &health).await;
    // There is nothing to look at on an embedded broker: it lacks the requests for it.
    let cluster = (clock == BrokersClock::Theirs).then(|| ClusterWatch::start(&config.kafka, ladders, roles));
    let cluster = cluster.transpose().context("cannot start a thread")?;
    let stop = Stop::new();
    let mut supervisor = Supervisor::new(stop.clone());
    let watch = HoldWatch::start(&config.kafka, ladders.iter().map(|l| &l.ladder)).context("cannot start a thread")?;
    let mut crew = Crew {
        supervisor: &mut supervisor,
        watch: &watch,
        kafka: &config.kafka,
        instance: &config.worker.instance,
        drain: config.worker.drain,
        tally: Tally::default(),
        quiet,
        clock,
    };
    let mut handlers = Vec::new();
    for ladder in ladders {
        for role in roles.iter().filter(|role| runs(**role, ladder.ladder.mode())) {
            handlers.extend(start(&mut crew, ladder, *role, &health)?);
        }
    }
    health.started();
    tracing::info!(instance = config.worker.instance, health = %address, ladders = ladders.len(), "kladder runs");
    Ok(Running { stop, health, address, handlers, supervisor, control, _cluster: cluster, _watch: watch, end_server, server })
}

impl Running {
    /// Waits until all workers have ended, and ends the probes after them.
    pub(super) async fn ended(self) -> anyhow::Result<Result<(), GivenUp>> {
        let supervisor = self.supervisor;
        let ended = tokio::task::spawn_blocking(move || supervisor.wait()).await.context("waiting for the workers")?;
        if let Some(control) = self.control {
            control.abort();
        }
        let _ = self.end_server.send(());
        self.server.await.context("serving the probes")??;
        Ok(ended)
    }
}

/// Serves what acts on this process. A worker whose address for that is taken works all the same.
async fn control(config: &Config, quiet: &Quiet, health: &HealthState) -> Option<JoinHandle<()>> {
    let listen = config.admin.listen;
    let server = match ControlServer::bind(listen, quiet.clone(), config.worker.drain, health).await {
        Ok(server) => server,
        Err(error) => {
            tracing::warn!(%listen, %error, "cannot listen for /quiesce and /log, and goes on without: change `listen` of [admin]");
            return None;
        }
    };
    tracing::info!(admin = %server.address(), "listens for /quiesce and /log");
    Some(tokio::spawn(async move {
        if let Err(error) = server.serve().await {
            tracing::warn!(%error, "/quiesce and /log are served no more");
        }
    }))
}

/// Starts one worker; given back are the places at its handler, where it has one.
fn start(
    crew: &mut Crew<'_>,
    config: &LadderConfig,
    role: Role,
    health: &HealthState,
) -> anyhow::Result<Option<Arc<HandlerPlaces>>> {
    let ladder = Arc::new(config.ladder.clone());
    let joined = health.expect(ladder.name(), role);
    let on_joined = move || joined.set();
    if role != Role::Mover {
        let (hold, clock) = (crew.watch.hold(ladder.name()), Clock::system());
        health.notice(move || hold.dead_letters_notice(clock.now().timestamp()));
    }
    let mut at_handler = None;
    let started = match role {
        Role::Mover => crew.mover(&ladder, on_joined),
        Role::Router => crew.router(&ladder, config.dlq_breaker, on_joined),
        Role::Deliverer => {
            let handler = config.handler.as_ref().context("a push ladder has a handler")?;
            let places = HandlerPlaces::new(&ladder, handler.max_in_flight, handler.redeliver_share, config.breaker);
            let told = places.clone();
            health.notice(move || told.notice());
            at_handler = Some(places.clone());
            let http = HttpHandler::new(handler, HttpMetrics::new(&ladder));
            let http = http.with_context(|| format!("ladder `{}`", ladder.name()))?;
            crew.deliverer(&ladder, Arc::new(http), places, config.dlq_breaker, Handle::current(), on_joined)
        }
        Role::Index => Ok(()),
    };
    started.context("cannot start a thread")?;
    Ok(at_handler)
}

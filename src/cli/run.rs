//! `kladder run`: the workers.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::admin::control::ControlServer;
use crate::admin::health::{HealthServer, HealthState};
use crate::cli::config_file;
use crate::cli::descriptors;
use crate::cli::exit::Exit;
use crate::cli::output::tell;
use crate::cli::{ConfigArg, chosen_ladders, panics};
use crate::config::types::{Config, LadderConfig};
use crate::core::harmless::OneLine;
use crate::core::ladder::Mode;
use crate::core::role::Role;
use crate::core::topics::own_dlq_topic;
use crate::dlq::queue::Queue;
use crate::dlq::watch::{IndexWatch, Kept};
use crate::kafka::clock::Clock;
use crate::telemetry::events::HttpMetrics;
use crate::telemetry::exporter;
use crate::telemetry::log_writer;
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

/// Pause between two attempts to reach a broker; an attempt takes up to 10 s itself.
const BROKERS_INTERVAL: Duration = Duration::from_secs(2);

/// Run the workers: movers redeliver due records, deliverers call the handlers, routers take failed records from the inboxes
///
/// The first SIGTERM or SIGINT drains: deliveries in flight may finish within [worker] drain and are committed. A second one
/// exits at once; deliveries in flight then are repeated.
#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// Roles of this process, comma-separated [default: roles of [worker], or all]
    #[arg(long, value_name = "ROLE", value_delimiter = ',')]
    role: Vec<Role>,
    /// Only this ladder; may be repeated
    #[arg(long, value_name = "NAME")]
    ladder: Vec<String>,
    /// Format of the log lines on stderr
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log: LogArg,
}

impl ValueEnum for Role {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self {
            Self::Mover => "Moves due records from the tiers to redeliver",
            Self::Deliverer => "Consumes source and redeliver, and calls the handler (push)",
            Self::Router => "Consumes the inbox of failed records (relay)",
            Self::Index => "Keeps the index of dead letters and counts them",
        };
        Some(PossibleValue::new(self.as_str()).help(help))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogArg {
    /// Text for people
    Text,
    /// One JSON object per line
    Json,
}

pub fn run(args: RunArgs) -> anyhow::Result<Exit> {
    // From here on, writing to stderr cannot block this process.
    log_writer::to_stderr();
    let file = config_file::load(&args.config)?;
    logging::init(match args.log {
        LogArg::Text => LogFormat::Text,
        LogArg::Json => LogFormat::Json,
    })?;
    descriptors::raise_limit();
    let state_dir = file.state_dir();
    let config = file.config;
    let roles = if args.role.is_empty() { config.worker.roles.clone() } else { args.role };
    let ladders = runnable(&config, &args.ladder, &roles)?;
    // Outlives the runtime: the remaining spans are sent after everything else has ended.
    #[cfg(feature = "otlp")]
    let _spans = spans::install().context("cannot export spans: check OTEL_EXPORTER_OTLP_ENDPOINT")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    panics::watch();
    let worked = catch_unwind(AssertUnwindSafe(|| runtime.block_on(work(&config, &ladders, &roles, &state_dir))));
    // Other tasks of the runtime must not keep the process alive.
    runtime.shutdown_background();
    worked.unwrap_or_else(|_| Exit::Defect.at_once())
}

/// The index of the dead letters of these ladders and of the [dlq] sections.
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
    if ladders.is_empty() {
        bail!("the configuration has no ladder to run; [dlq] sections are for `kladder dlq`, which needs no worker");
    }
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

/// Whether a role applies to a ladder of this mode.
fn runs(role: Role, mode: Mode) -> bool {
    match role {
        Role::Mover => true,
        Role::Deliverer => mode == Mode::Push,
        Role::Router => mode == Mode::Relay,
        // One index serves all ladders.
        Role::Index => false,
    }
}

/// Whether the topics, groups and settings that the workers need exist; what is missing is reported. While no broker answers, this
/// waits, since exiting would not help: in a pod, the application next to it would not start either.
async fn is_set_up(config: &Config, ladders: &[&LadderConfig], health: &HealthState) -> anyhow::Result<bool> {
    let waits_for = Arc::new(Mutex::new(None));
    let notice = waits_for.clone();
    health.notice(move || notice.lock().unwrap_or_else(PoisonError::into_inner).clone());
    loop {
        let found = look(config, ladders).await?;
        let Err(SetUpError::Cluster(error @ (ClusterError::NoBroker { .. } | ClusterError::Advertised { .. }))) = found else {
            *waits_for.lock().unwrap_or_else(PoisonError::into_inner) = None;
            return print_lacking(found);
        };
        let known = waits_for.lock().unwrap_or_else(PoisonError::into_inner).replace(error.to_string());
        if known.is_none() {
            tracing::error!(%error, "waiting for a broker");
        }
        tokio::time::sleep(BROKERS_INTERVAL).await;
    }
}

/// On a thread that is not joined, so that a signal can end the process meanwhile.
async fn look(config: &Config, ladders: &[&LadderConfig]) -> anyhow::Result<Result<(), SetUpError>> {
    let (kafka, ladders) = (config.kafka.clone(), ladders.iter().map(|ladder| (*ladder).clone()).collect::<Vec<_>>());
    let (tell, told) = oneshot::channel();
    std::thread::spawn(move || tell.send(set_up::check(&kafka, &ladders.iter().collect::<Vec<_>>())));
    told.await.context("checking the cluster")
}

fn print_lacking(found: Result<(), SetUpError>) -> anyhow::Result<bool> {
    match found {
        Ok(()) => Ok(true),
        Err(SetUpError::Cluster(error)) => Err(error.into()),
        Err(SetUpError::NotSetUp(lacking)) => {
            for refusal in &lacking.refusals {
                tell!("error: {}: {}\n  {}", OneLine(&refusal.subject), OneLine(&refusal.problem), refusal.remedy);
            }
            for change in &lacking.missing {
                tell!("error: missing: {change}");
            }
            for lost in &lacking.lost {
                tell!("error: {lost}");
            }
            if !lacking.missing.is_empty() && lacking.lost.is_empty() {
                tell!("the ladder is not set up: run `kladder setup`");
            }
            Ok(false)
        }
    }
}

async fn work(config: &Config, ladders: &[&LadderConfig], roles: &[Role], state_dir: &Path) -> anyhow::Result<Exit> {
    // Before any wait: PID 1 of a container receives no signal without a handler.
    let mut signals = Signals::listen()?;
    // First, since metrics created before the exporter record nothing.
    let probes = Probes::serve(config).await?;
    let is_set_up = tokio::select! {
        is_set_up = is_set_up(config, ladders, &probes.health) => is_set_up?,
        () = signals.next() => {
            probes.health.draining();
            tracing::info!("kladder stopped");
            return Ok(Exit::Done);
        }
    };
    if !is_set_up {
        return Ok(Exit::Failed);
    }
    let _index = if roles.contains(&Role::Index) { Some(index(config, ladders, state_dir)?) } else { None };
    let running = begin(config, ladders, roles, BrokersClock::Theirs, probes).await?;
    let (health, on_signal) = (running.health.clone(), running.stop.clone());
    let mut draining = tokio::spawn(async move {
        signals.next().await;
        tracing::info!("draining; a second signal exits at once");
        health.draining();
        on_signal.set();
        signals.next().await;
        tracing::warn!("stopped without draining: deliveries in flight are repeated");
        Exit::Failed.at_once()
    });
    let ended = tokio::select! {
        ended = running.ended() => ended?,
        // The task ends only by a panic, and without it no signal would be handled.
        Err(defect) = &mut draining => match defect.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(cancelled) => return Err(cancelled.into()),
        },
    };
    draining.abort();
    tracing::info!("kladder stopped");
    Ok(match ended {
        Ok(()) => Exit::Done,
        Err(GivenUp::Failed { .. }) => Exit::Failed,
        Err(GivenUp::Panicked { .. }) => Exit::Defect,
    })
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

/// Probes and metrics, served before anything else and until everything else has ended.
pub(super) struct Probes {
    health: HealthState,
    address: SocketAddr,
    end_server: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

impl Probes {
    /// Starts serving them.
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

/// Running workers, with their probes and metrics.
pub(super) struct Running {
    /// Stops the workers.
    pub stop: Stop,
    /// The state behind the probes.
    pub health: HealthState,
    /// Where probes and metrics are served.
    pub address: SocketAddr,
    /// The delivery slots of each ladder that has a handler.
    pub handlers: Vec<Arc<HandlerPlaces>>,
    supervisor: Supervisor,
    control: Option<JoinHandle<()>>,
    _cluster: Option<ClusterWatch>,
    // Informs the workers of holds as long as it lives.
    _watch: HoldWatch,
    end_server: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

/// Starts the workers of these ladders in these roles, except the index.
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
    // Not with an embedded broker: it does not support the requests.
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
    tracing::info!(instance = config.worker.instance, health = %address, ladders = ladders.len(), "kladder started");
    Ok(Running { stop, health, address, handlers, supervisor, control, _cluster: cluster, _watch: watch, end_server, server })
}

impl Running {
    /// Waits until all workers have ended, and then stops the probes.
    pub(super) async fn ended(self) -> anyhow::Result<Result<(), GivenUp>> {
        let (supervisor, mut server) = (self.supervisor, self.server);
        let mut waiting = tokio::task::spawn_blocking(move || supervisor.wait());
        let (ended, early) = tokio::select! {
            ended = &mut waiting => (ended, None),
            // Without probes nobody can see the workers' health.
            served = &mut server => {
                tracing::error!("the probe server has stopped: stopping the workers");
                self.stop.set();
                (waiting.await, Some(served))
            }
        };
        let ended = ended.context("waiting for the workers")?;
        if let Some(control) = self.control {
            control.abort();
        }
        let _ = self.end_server.send(());
        let served = match early {
            Some(served) => served,
            None => server.await,
        };
        served.context("serving the probes")?;
        Ok(ended)
    }
}

/// Serves the requests that act on this process. If the address is taken, the worker runs without
/// it.
async fn control(config: &Config, quiet: &Quiet, health: &HealthState) -> Option<JoinHandle<()>> {
    let listen = config.admin.listen;
    let server = match ControlServer::bind(listen, quiet.clone(), config.worker.drain, health).await {
        Ok(server) => server,
        Err(error) => {
            tracing::warn!(%listen, %error, "cannot listen for /quiesce and /log; continuing without them: change `listen` of [admin]");
            return None;
        }
    };
    tracing::info!(admin = %server.address(), "listening for /quiesce and /log");
    Some(tokio::spawn(server.serve()))
}

/// Starts one worker; returns the delivery slots of its handler, if it has one.
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
            let handler = config.handler.as_ref().context("push ladder without a handler")?;
            let places = HandlerPlaces::new(&ladder, handler.limits(config.breaker));
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

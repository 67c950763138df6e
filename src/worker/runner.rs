//! A push ladder's workers inside an application: mover and deliverer under one supervisor, with an in-process
//! handler.
//!
//! The equivalent of `kladder run` for a Rust program, without configuration file, probes and signals. The workers have their own
//! threads; only handler calls run on the caller's runtime, and nothing here blocks it.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::runtime::Handle;

use crate::config::{self, KafkaConfig, Start};
use crate::core::batch::BatchLimits;
use crate::core::dispatch::{BreakerSettings, DispatchSettings};
use crate::core::dlq_breaker::DlqBreakerSettings;
use crate::core::envelope::Reason;
use crate::core::failure::VerdictKind;
use crate::core::ladder::{Ladder, Mode};
use crate::core::role::Role;
use crate::telemetry::tally::Tally;
use crate::topology::ClusterError;
use crate::worker::batch_handler::{BatchHandler, InBatches};
use crate::worker::crew::Crew;
use crate::worker::deliverer::HandlerPlaces;
use crate::worker::handler::Handler;
use crate::worker::hold::HoldWatch;
use crate::worker::hop::leaders::BrokersClock;
use crate::worker::quiet::Quiet;
use crate::worker::set_up::{self, NotSetUp, SetUpError};
use crate::worker::stop::Stop;
use crate::worker::supervisor::{GivenUp, Supervisor};

/// Runs a push ladder in this process.
///
/// ```no_run
/// use kladder::{Delivery, KafkaConfig, Ladder, Start, Worker};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let ladder = Ladder::builder("billing-orders", "billing").source("orders").tiers(["5s", "1m", "10m"]).build()?;
/// let kafka = KafkaConfig::new("localhost:9092");
/// kladder::set_up(&ladder, &kafka, Start::Earliest).await?;
/// let worker = Worker::new(ladder, kafka, |delivery: Delivery| async move {
///     println!("{} is delivered, attempt {}", delivery.id(), delivery.attempt());
///     Ok(())
/// });
/// let report = worker.run_until(async { tokio::signal::ctrl_c().await.unwrap_or(()) }).await?;
/// println!("{report}");
/// # Ok(())
/// # }
/// ```
#[must_use = "a worker does nothing until it is run"]
pub struct Worker<H> {
    ladder: Arc<Ladder>,
    kafka: KafkaConfig,
    handler: Arc<H>,
    instance: String,
    drain: Duration,
    max_in_flight: usize,
    max_unsettled: usize,
    redeliver_share: f64,
    breaker: Option<BreakerSettings>,
    dlq_breaker: Option<DlqBreakerSettings>,
    roles: Vec<Role>,
}

/// Why a worker did not run, or ended without a stop request.
#[derive(Debug, Error)]
pub enum RunError {
    /// Records of a relay ladder do not pass through a worker with a handler.
    #[error(
        "ladder `{0}` is a relay: its application consumes the source itself and puts what failed into the inbox with \
         `Ladder::relay`; build the ladder in push mode to have a worker call the handler"
    )]
    Relay(String),
    /// A setting is invalid.
    #[error("{name} {problem}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// What is wrong, and what is allowed.
        problem: &'static str,
    },
    /// The cluster did not answer.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// Something is missing that setup creates.
    #[error(transparent)]
    NotSetUp(#[from] NotSetUp),
    /// One of the workers cannot continue; the others have drained.
    #[error(transparent)]
    GivenUp(#[from] GivenUp),
    /// The system could not create a thread.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// The runtime was shut down before the worker.
    #[error("the runtime has ended before the worker: keep it until `run_until` has returned")]
    RuntimeEnded,
}

impl From<SetUpError> for RunError {
    fn from(error: SetUpError) -> Self {
        match error {
            SetUpError::Cluster(error) => error.into(),
            SetUpError::NotSetUp(lacking) => lacking.into(),
        }
    }
}

impl<B: BatchHandler> Worker<InBatches<B>> {
    /// A worker of this ladder that hands records to this handler in batches; `max_in_flight` is the number of concurrent batches, 8
    /// by default.
    pub fn in_batches(ladder: Ladder, kafka: KafkaConfig, handler: B, limits: BatchLimits) -> Self {
        Self::new(ladder, kafka, InBatches::new(handler, limits)).max_in_flight(config::DEFAULT_BATCHES_IN_FLIGHT)
    }
}

impl<H: Handler> Worker<H> {
    /// A worker of this ladder with this handler. It moves due records and delivers; the other methods change its settings.
    pub fn new(ladder: Ladder, kafka: KafkaConfig, handler: H) -> Self {
        Self {
            ladder: Arc::new(ladder),
            kafka,
            handler: Arc::new(handler),
            instance: gethostname::gethostname().to_string_lossy().into_owned(),
            drain: config::DEFAULT_DRAIN,
            max_in_flight: config::DEFAULT_MAX_IN_FLIGHT,
            max_unsettled: config::DEFAULT_MAX_UNSETTLED,
            redeliver_share: config::DEFAULT_REDELIVER_SHARE,
            breaker: Some(BreakerSettings::default()),
            dlq_breaker: Some(DlqBreakerSettings::default()),
            roles: vec![Role::Mover, Role::Deliverer],
        }
    }

    /// The instance name of this worker; default: the host name. It must survive restarts, so that a restarted worker takes
    /// its place back at once, and no two workers of a ladder may share one.
    pub fn instance(mut self, name: impl Into<String>) -> Self {
        self.instance = name.into();
        self
    }

    /// How long a shutdown or a revocation waits for deliveries in flight; default: 25 s.
    pub fn drain(mut self, deadline: Duration) -> Self {
        self.drain = deadline;
        self
    }

    /// Maximum number of concurrent deliveries (1 to 10,000); default: 64.
    pub fn max_in_flight(mut self, deliveries: usize) -> Self {
        self.max_in_flight = deliveries;
        self
    }

    /// Maximum number of finished deliveries whose commit or transaction is still to come (0 to 100,000); default: 500. After a crash
    /// at most this many deliveries are repeated, besides those in flight.
    pub fn max_unsettled(mut self, deliveries: usize) -> Self {
        self.max_unsettled = deliveries;
        self
    }

    /// The share of both for redeliveries (above 0, at most 1); default: 0.5.
    pub fn redeliver_share(mut self, share: f64) -> Self {
        self.redeliver_share = share;
        self
    }

    /// When deliveries wait because the handler is down, and for how long; `None` for never; default: that of [`BreakerSettings`].
    /// For an in-process handler only failures count for which [`Failure::is_trouble`](crate::Failure::is_trouble) is true: an
    /// error that became a retry by `?` does not.
    pub fn breaker(mut self, settings: Option<BreakerSettings>) -> Self {
        self.breaker = settings;
        self
    }

    /// When dead letters are held because there are too many, and for how long; `None` for never; default: that of
    /// [`DlqBreakerSettings`].
    pub fn dlq_breaker(mut self, settings: Option<DlqBreakerSettings>) -> Self {
        self.dlq_breaker = settings;
        self
    }

    /// The roles of this process; default: [`Role::Mover`] and [`Role::Deliverer`]. Thirty processes that deliver need not
    /// all move records too.
    pub fn roles(mut self, roles: impl IntoIterator<Item = Role>) -> Self {
        self.roles = roles.into_iter().collect();
        self
    }

    /// Runs until `stop` resolves, then drains: deliveries in flight may finish until the deadline, and are committed.
    ///
    /// If dropped before its end, it drains in the background. Nothing is lost in either case; uncommitted records are
    /// delivered again.
    ///
    /// # Errors
    /// No broker answers at the start, something is missing that the workers need, or one of them fails for good. Once they run,
    /// they wait out outages.
    pub async fn run_until(self, stop: impl Future<Output = ()>) -> Result<Report, RunError> {
        self.check_settings()?;
        let stopping = Stop::new();
        let _on_drop = SetOnDrop(stopping.clone());
        let tally = Tally::default();
        let mut workers = {
            let (runtime, stopping, tally) = (Handle::current(), stopping.clone(), tally.clone());
            tokio::task::spawn_blocking(move || self.work(&runtime, &stopping, &tally))
        };
        let stop = pin!(stop);
        let ended = tokio::select! {
            ended = &mut workers => ended,
            () = stop => {
                stopping.set();
                workers.await
            }
        };
        ended.unwrap_or_else(|ended| match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(RunError::RuntimeEnded),
        })?;
        Ok(Report::of(&tally))
    }

    fn check_settings(&self) -> Result<(), RunError> {
        let refuse = |name, problem| Err(RunError::Setting { name, problem });
        if self.ladder.mode() == Mode::Relay {
            return Err(RunError::Relay(self.ladder.name().to_owned()));
        }
        if !config::is_instance_name(&self.instance) {
            return refuse("instance", "is not a valid worker name: 1 to 120 letters, digits, `.`, `_` or `-`");
        }
        if !(1..=10_000).contains(&self.max_in_flight) {
            return refuse("max_in_flight", "must be between 1 and 10,000");
        }
        if self.handler.batch_limits().is_some_and(|limits| !limits.is_sound()) {
            return refuse("limits", "must have each of its values in the range that `BatchLimits` gives");
        }
        if self.max_unsettled > 100_000 {
            return refuse("max_unsettled", "must be at most 100,000");
        }
        if !(self.redeliver_share > 0.0 && self.redeliver_share <= 1.0) {
            return refuse("redeliver_share", "must be above 0 and at most 1");
        }
        if self.dlq_breaker.is_some_and(|breaker| !breaker.is_sound()) {
            return refuse("dlq_breaker", "must have each of its values in the range that `DlqBreakerSettings` gives");
        }
        if self.breaker.is_some_and(|breaker| !breaker.is_sound()) {
            return refuse("breaker", "must have each of its values in the range that `BreakerSettings` gives");
        }
        if self.roles.is_empty() || self.roles.iter().any(|role| ![Role::Mover, Role::Deliverer].contains(role)) {
            return refuse("roles", "must be one or both of Mover and Deliverer: a push ladder has no other workers");
        }
        Ok(())
    }

    /// Blocks until all workers have ended.
    fn work(&self, runtime: &Handle, stop: &Stop, tally: &Tally) -> Result<(), RunError> {
        // Start offsets were decided when the ladder was set up, so they do not matter here.
        set_up::check(&self.kafka, &[&set_up::config_of(&self.ladder, Start::Earliest)])?;
        let mut supervisor = Supervisor::new(stop.clone());
        let watch = HoldWatch::start(&self.kafka, [self.ladder.as_ref()]).map_err(RunError::Thread)?;
        let started = self.start(&mut supervisor, &watch, runtime, tally).map_err(RunError::Thread);
        if started.is_err() {
            stop.set();
        }
        let ended = supervisor.wait();
        started?;
        Ok(ended?)
    }

    fn start(&self, supervisor: &mut Supervisor, watch: &HoldWatch, runtime: &Handle, tally: &Tally) -> std::io::Result<()> {
        let (kafka, instance, drain) = (&self.kafka, self.instance.as_str(), self.drain);
        let (tally, quiet, clock) = (tally.clone(), Quiet::new(), BrokersClock::Theirs);
        let mut crew = Crew { supervisor, watch, kafka, instance, drain, tally, quiet, clock };
        if self.roles.contains(&Role::Mover) {
            crew.mover(&self.ladder, || {})?;
        }
        if self.roles.contains(&Role::Deliverer) {
            let limits = DispatchSettings {
                places: BatchLimits::records_of(self.handler.batch_limits(), self.max_in_flight),
                unsettled: self.max_unsettled,
                redeliver_share: self.redeliver_share,
                breaker: self.breaker,
            };
            let places = HandlerPlaces::new(&self.ladder, limits);
            crew.deliverer(&self.ladder, self.handler.clone(), places, self.dlq_breaker, runtime.clone(), || {})?;
        }
        Ok(())
    }
}

impl<H> fmt::Debug for Worker<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("ladder", &self.ladder.name()).field("instance", &self.instance).finish_non_exhaustive()
    }
}

/// Dropping the future of a worker stops it.
struct SetOnDrop(Stop);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.set();
    }
}

/// What a worker has done.
///
/// It counts what this process saw: deliveries when the handler has answered, hops and dead letters when they are committed. So a
/// record that was delivered twice counts twice, and the work of other workers of the ladder is not included.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Report {
    /// Successful deliveries.
    pub done: u64,
    /// Failed deliveries to be retried; after the last attempt they become dead letters.
    pub retried: u64,
    /// Deliveries that the handler rejected.
    pub rejected: u64,
    /// Tries in which the handler's dependency was not reached ([`Failure::unsent`](crate::Failure::unsent)); not
    /// attempts.
    pub unsent: u64,
    /// Hops into a tier.
    pub hops: u64,
    /// Records that were redelivered when they were due.
    pub redelivered: u64,
    /// Dead letters by reason.
    pub dead_letters: BTreeMap<Reason, u64>,
}

impl Report {
    fn of(tally: &Tally) -> Self {
        Self {
            done: tally.deliveries(VerdictKind::Done),
            retried: tally.deliveries(VerdictKind::Retry) + tally.deliveries(VerdictKind::RetryAfter),
            rejected: tally.deliveries(VerdictKind::Reject),
            unsent: tally.deliveries(VerdictKind::Unsent),
            hops: tally.hops_to_tiers(),
            redelivered: tally.redelivered(),
            dead_letters: tally.dead_letters().collect(),
        }
    }

    /// Total number of dead letters.
    #[must_use]
    pub fn dead(&self) -> u64 {
        self.dead_letters.values().sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "done {}, retried {}, rejected {}, hops {}, redelivered {}, dead letters {}",
            self.done,
            self.retried,
            self.rejected,
            self.hops,
            self.redelivered,
            self.dead()
        )
    }
}

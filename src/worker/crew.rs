//! Creates the workers of a process, for the command line and for embedding applications.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::config::KafkaConfig;
use crate::core::dlq_breaker::DlqBreakerSettings;
use crate::core::ladder::Ladder;
use crate::core::role::Role;
use crate::telemetry::events::{DelivererMetrics, MoverMetrics, RouterMetrics, WorkerMetrics};
use crate::telemetry::tally::Tally;
use crate::worker::committer::Starts;
use crate::worker::deliverer::{Deliverer, DelivererSettings, HandlerPlaces};
use crate::worker::dlq_breaker::DlqBreaker;
use crate::worker::error::WorkError;
use crate::worker::handler::Handler;
use crate::worker::hold::HoldWatch;
use crate::worker::hop::leaders::BrokersClock;
use crate::worker::mover::{Mover, MoverSettings};
use crate::worker::quiet::Quiet;
use crate::worker::router::{Router, RouterSettings};
use crate::worker::supervisor::{Presence, Supervisor};

/// What the workers of a process share.
pub struct Crew<'a> {
    /// Keeps them running.
    pub supervisor: &'a mut Supervisor,
    /// Tells them whether they are held.
    pub watch: &'a HoldWatch,
    /// How to reach Kafka.
    pub kafka: &'a KafkaConfig,
    /// Their instance name, stable over restarts.
    pub instance: &'a str,
    /// How long a shutdown or a revocation waits for records in flight.
    pub drain: Duration,
    /// Counts their work.
    pub tally: Tally,
    /// Whether deliveries may begin.
    pub quiet: Quiet,
    /// Source of the mover's time.
    pub clock: BrokersClock,
}

impl Crew<'_> {
    /// Starts the mover of a ladder. `on_joined` is called when it is a member of its group.
    ///
    /// # Errors
    /// The thread cannot be created.
    pub fn mover(&mut self, ladder: &Arc<Ladder>, on_joined: impl Fn() + Send + Sync + 'static) -> io::Result<()> {
        let settings = MoverSettings {
            ladder: ladder.clone(),
            kafka: self.kafka.clone(),
            instance: self.instance.to_owned(),
            hold: self.watch.hold(ladder.name()),
            tally: self.tally.clone(),
            clock: self.clock,
        };
        let metrics = MoverMetrics::new(ladder).worker;
        self.start(ladder, Role::Mover, metrics, on_joined, move |presence| Mover::start(&settings)?.run(presence))
    }

    /// Starts the router of a relay ladder.
    ///
    /// # Errors
    /// The thread cannot be created.
    pub fn router(
        &mut self,
        ladder: &Arc<Ladder>,
        dlq_breaker: Option<DlqBreakerSettings>,
        on_joined: impl Fn() + Send + Sync + 'static,
    ) -> io::Result<()> {
        let settings = RouterSettings {
            ladder: ladder.clone(),
            kafka: self.kafka.clone(),
            instance: self.instance.to_owned(),
            drain: self.drain,
            hold: self.watch.hold(ladder.name()),
            starts: Starts::default(),
            dlq_breaker: self.dlq_breaker(ladder, dlq_breaker),
        };
        let metrics = RouterMetrics::new(ladder).worker;
        self.start(ladder, Role::Router, metrics, on_joined, move |presence| Router::start(&settings)?.run(presence))
    }

    /// Starts the deliverer of a push ladder, whose deliveries run on the runtime.
    ///
    /// # Errors
    /// The thread cannot be created.
    pub fn deliverer<H: Handler>(
        &mut self,
        ladder: &Arc<Ladder>,
        handler: Arc<H>,
        places: Arc<HandlerPlaces>,
        dlq_breaker: Option<DlqBreakerSettings>,
        runtime: Handle,
        on_joined: impl Fn() + Send + Sync + 'static,
    ) -> io::Result<()> {
        let settings = DelivererSettings {
            ladder: ladder.clone(),
            kafka: self.kafka.clone(),
            instance: self.instance.to_owned(),
            places,
            drain: self.drain,
            hold: self.watch.hold(ladder.name()),
            starts: Starts::default(),
            dlq_breaker: self.dlq_breaker(ladder, dlq_breaker),
            tally: self.tally.clone(),
            quiet: self.quiet.clone(),
        };
        let metrics = DelivererMetrics::new(ladder).worker;
        self.start(ladder, Role::Deliverer, metrics, on_joined, move |presence| {
            Deliverer::start(&settings, handler.clone(), runtime.clone())?.run(presence)
        })
    }

    fn dlq_breaker(&self, ladder: &Arc<Ladder>, settings: Option<DlqBreakerSettings>) -> Option<Arc<DlqBreaker>> {
        let hold = self.watch.hold(ladder.name());
        settings.map(|settings| DlqBreaker::new(settings, ladder, self.kafka, self.instance, hold))
    }

    fn start(
        &mut self,
        ladder: &Ladder,
        role: Role,
        metrics: WorkerMetrics,
        on_joined: impl Fn() + Send + Sync + 'static,
        mut work: impl FnMut(&Presence) -> Result<(), WorkError> + Send + 'static,
    ) -> io::Result<()> {
        let name = format!("{} of {}", role.as_str(), ladder.name());
        let hold = self.watch.hold(ladder.name());
        // Not before hold and owner of the ladder are known.
        let work = move |presence: &Presence| if hold.ready(&presence.stop)? { work(presence) } else { Ok(()) };
        self.supervisor.spawn(name, metrics, on_joined, work)
    }
}

//! Keeps workers running: one thread each, restarted with backoff, and reported when it gives up.

use std::cell::Cell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use thiserror::Error;

use crate::core::backoff::Doubling;
use crate::kafka::clock::Clock;
use crate::telemetry::events::WorkerMetrics;
use crate::worker::error::WorkError;
use crate::worker::stop::Stop;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
const LONGEST_OUTAGE_PAUSE: Duration = Duration::from_secs(5);

/// Interval at which a worker tries to join whose name the group has not released yet.
const NAME_PAUSE: Duration = Duration::from_secs(2);

/// The group releases the name of a dead member when its session expires: 45 s by Kafka's default, at most 60 s
/// (`group.consumer.max.session.timeout.ms`). A member that keeps it for longer is alive.
const NAME_TAKEN_FOR_GOOD: Duration = Duration::from_secs(150);

/// Interval of checking for a stop request.
const LOOK: Duration = Duration::from_millis(50);

/// A worker that ran for this long was healthy: its next failure counts as the first.
const HEALTHY: Duration = Duration::from_secs(60);

/// Failures in a row, over some minutes, after which the cause is not temporary.
const GIVE_UP_AFTER: u32 = 12;

/// The link between a worker and its process.
pub struct Presence {
    /// Whether it is to stop.
    pub stop: Stop,
    on_joined: Box<dyn Fn() + Send + Sync>,
}

impl Presence {
    /// `on_joined` is called, possibly more than once, when the worker is a member of its group.
    #[must_use]
    pub fn new(stop: Stop, on_joined: impl Fn() + Send + Sync + 'static) -> Self {
        Self { stop, on_joined: Box::new(on_joined) }
    }

    /// Reports that the worker is a member of its group.
    pub fn joined(&self) {
        (self.on_joined)();
    }
}

/// Why the workers ended without a stop request.
#[derive(Debug, Error)]
pub enum GivenUp {
    /// It failed in a way that needs a decision, or too often in a row.
    #[error("{worker} has failed for good: {error}")]
    Failed {
        /// The worker and its ladder.
        worker: String,
        /// Its last failure, whose text is in the message.
        error: Box<WorkError>,
    },
    /// A bug in kladder.
    #[error("{worker} panicked, which is a bug in kladder; please report it with the text on stderr")]
    Panicked {
        /// The worker and its ladder.
        worker: String,
    },
}

thread_local! {
    static IS_SUPERVISED: Cell<bool> = const { Cell::new(false) };
}

/// Whether this is a worker's thread, whose panic makes the others end in order.
#[must_use]
pub fn is_supervised() -> bool {
    IS_SUPERVISED.get()
}

/// The first worker that failed for good.
type Failed = Arc<Mutex<Option<GivenUp>>>;

fn lock(failed: &Failed) -> MutexGuard<'_, Option<GivenUp>> {
    failed.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The workers of a process.
pub struct Supervisor {
    stop: Stop,
    failed: Failed,
    threads: Vec<JoinHandle<()>>,
}

impl Supervisor {
    /// No workers yet.
    #[must_use]
    pub fn new(stop: Stop) -> Self {
        Self { stop, failed: Arc::default(), threads: Vec::new() }
    }

    /// Starts a worker on its own thread. `work` creates it and runs it until it is stopped; it is called again after a
    /// failure.
    ///
    /// # Errors
    /// The thread cannot be created.
    pub fn spawn(
        &mut self,
        name: String,
        metrics: WorkerMetrics,
        on_joined: impl Fn() + Send + Sync + 'static,
        mut work: impl FnMut(&Presence) -> Result<(), WorkError> + Send + 'static,
    ) -> std::io::Result<()> {
        let presence = Presence::new(self.stop.clone(), on_joined);
        let failed = self.failed.clone();
        let thread = std::thread::Builder::new().name(name.clone());
        self.threads.push(thread.spawn(move || {
            IS_SUPERVISED.set(true);
            let guard = EndsAll { worker: name.clone(), stop: presence.stop.clone(), failed, outcome: Err(None) };
            guard.end(supervise(&name, &metrics, &presence, &mut work));
        })?);
        Ok(())
    }

    /// Waits for all workers to end; without any, until a stop request: other parts of the process run until then.
    ///
    /// # Errors
    /// The first worker that failed for good, whereupon the others were stopped.
    pub fn wait(self) -> Result<(), GivenUp> {
        while self.threads.is_empty() && !self.stop.is_set() {
            std::thread::sleep(LOOK);
        }
        for thread in self.threads {
            // A panic has been logged by then, and has stopped the others.
            let _ = thread.join();
        }
        lock(&self.failed).take().map_or(Ok(()), Err)
    }
}

/// A worker that fails for good, or panics, ends the process: half a ladder would look like a whole one.
struct EndsAll {
    worker: String,
    stop: Stop,
    failed: Failed,
    /// `None` as an error means a panic.
    outcome: Result<(), Option<WorkError>>,
}

impl EndsAll {
    fn end(mut self, outcome: Result<(), WorkError>) {
        self.outcome = outcome.map_err(Some);
    }
}

impl Drop for EndsAll {
    fn drop(&mut self) {
        let Err(error) = std::mem::replace(&mut self.outcome, Ok(())) else { return };
        let worker = std::mem::take(&mut self.worker);
        let given_up = match error {
            Some(error) => GivenUp::Failed { worker, error: Box::new(error) },
            None => GivenUp::Panicked { worker },
        };
        lock(&self.failed).get_or_insert(given_up);
        self.stop.set();
    }
}

fn supervise(
    name: &str,
    metrics: &WorkerMetrics,
    presence: &Presence,
    work: &mut impl FnMut(&Presence) -> Result<(), WorkError>,
) -> Result<(), WorkError> {
    let clock = Clock::system();
    let (mut failures, mut pauses) = (0, Doubling::new(FIRST_PAUSE, LONGEST_PAUSE));
    let mut name_taken_since = None;
    loop {
        let began = clock.now();
        let Err(error) = work(presence) else { return Ok(()) };
        if presence.stop.is_set() {
            tracing::warn!(worker = name, %error, "worker failed while stopping");
            return Ok(());
        }
        if error.is_name_taken() {
            if name_taken_since.is_none() {
                tracing::warn!(
                    worker = name, %error,
                    "group still has a member with this worker's name: waiting until its predecessor's session expires (45 s by Kafka's \
                     default, group.consumer.session.timeout.ms)"
                );
            }
            if clock.now().since(*name_taken_since.get_or_insert(began)) > NAME_TAKEN_FOR_GOOD {
                let error = error.named_for_good();
                tracing::error!(worker = name, %error, "worker has failed for good; stopping the others too");
                return Err(error);
            }
            if !rested(&clock, presence, NAME_PAUSE) {
                return Ok(());
            }
            continue;
        }
        name_taken_since = None;
        if clock.now().since(began) > HEALTHY {
            failures = 0;
            pauses.reset();
        }
        // An outage is waited out, for hours if necessary.
        failures += u32::from(!error.is_outage());
        if error.needs_decision() || failures >= GIVE_UP_AFTER {
            tracing::error!(worker = name, %error, failures, "worker has failed for good; stopping the others too");
            return Err(error);
        }
        metrics.restarted();
        let pause = pauses.take();
        if error.is_outage() {
            pauses.shorten_to(LONGEST_OUTAGE_PAUSE);
        }
        if error.is_denied() && failures == 1 {
            tracing::error!(worker = name, %error, failures, restart_in = ?pause, "worker lacks a permission");
        } else {
            tracing::warn!(worker = name, %error, failures, restart_in = ?pause, "worker failed");
        }
        if !rested(&clock, presence, pause) {
            return Ok(());
        }
    }
}

/// Waits; returns whether there was no stop request meanwhile.
fn rested(clock: &Clock, presence: &Presence, pause: Duration) -> bool {
    let until = clock.now().later(pause);
    while clock.now() < until {
        if presence.stop.is_set() {
            return false;
        }
        std::thread::sleep(LOOK);
    }
    true
}

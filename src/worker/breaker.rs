//! The handler's breaker as the deliveries of a process meet it: each waits here for its turn to call.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};

use crate::core::breaker::{Admission, Breaker, BreakerSettings, BreakerState, Outcome, Wait};
use crate::core::delay::format_duration;
use crate::core::failure::Verdict;
use crate::core::ladder::Ladder;
use crate::kafka::clock::Clock;
use crate::telemetry::events::BreakerMetrics;

/// The breaker of one ladder's handler in this process.
pub struct HandlerBreaker {
    ladder: String,
    breaker: Mutex<Breaker>,
    /// Who waits stands in a row, so that after a probe it is another record's turn.
    door: Semaphore,
    /// A call has ended.
    ended: Notify,
    clock: Clock,
    metrics: BreakerMetrics,
}

impl HandlerBreaker {
    /// A closed one.
    #[must_use]
    pub fn new(ladder: &Ladder, settings: BreakerSettings) -> Arc<Self> {
        let metrics = BreakerMetrics::new(ladder);
        Arc::new(Self {
            ladder: ladder.name().to_owned(),
            breaker: Mutex::new(Breaker::new(settings)),
            door: Semaphore::new(1),
            ended: Notify::new(),
            clock: Clock::system(),
            metrics,
        })
    }

    /// Whether calls go through as they come.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().state() == BreakerState::Closed
    }

    /// Waits until a call may be made.
    pub(super) async fn admitted(self: &Arc<Self>) -> Pass {
        if let Some(pass) = self.admit_freely() {
            return pass;
        }
        let _turn = self.door.acquire().await;
        loop {
            let ended = self.ended.notified();
            let mut ended = std::pin::pin!(ended);
            // Registered before the look, so that a word in between is heard.
            ended.as_mut().enable();
            match self.admit() {
                Ok(pass) => return pass,
                Err(Wait::ForOthers) => ended.await,
                Err(Wait::Until(moment)) => tokio::time::sleep(moment.since(self.clock.now())).await,
            }
        }
    }

    /// The way of nearly every call: nobody waits, so there is no row to stand in.
    fn admit_freely(self: &Arc<Self>) -> Option<Pass> {
        let mut breaker = self.lock();
        let admission = if breaker.is_free() { breaker.admit(self.clock.now()).ok() } else { None };
        admission.map(|admission| Pass { breaker: self.clone(), admission: Some(admission) })
    }

    fn admit(self: &Arc<Self>) -> Result<Pass, Wait> {
        let mut breaker = self.lock();
        let before = breaker.state();
        let admission = breaker.admit(self.clock.now());
        self.tell(before, breaker.state());
        Ok(Pass { breaker: self.clone(), admission: Some(admission?) })
    }

    fn end(&self, admission: Admission, outcome: Outcome) {
        let mut breaker = self.lock();
        let (before, was_free) = (breaker.state(), breaker.is_free());
        breaker.ended(admission, outcome, self.clock.now());
        self.tell(before, breaker.state());
        drop(breaker);
        if !was_free {
            self.ended.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it stands.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        self.lock().state()
    }

    /// What people should know of it; nothing while it is closed.
    #[must_use]
    pub fn notice(&self) -> Option<String> {
        match self.state() {
            BreakerState::Closed => None,
            BreakerState::HalfOpen => {
                Some(format!("handler breaker of {} half-open: one delivery at a time probes it", self.ladder))
            }
            BreakerState::Open { until } => {
                let left = until.since(self.clock.now());
                let next = match left.as_secs() {
                    // It is over, and there is nothing to deliver.
                    _ if left.is_zero() => "the next delivery is the probe".to_owned(),
                    // Whole seconds: it is for people.
                    seconds => format!("next probe in {}", format_duration(Duration::from_secs(seconds + 1))),
                };
                Some(format!("handler breaker of {} open: no delivery begins, {next}", self.ladder))
            }
        }
    }

    fn tell(&self, before: BreakerState, after: BreakerState) {
        if before == after {
            return;
        }
        self.metrics.changed(after);
        let ladder = self.ladder.as_str();
        match after {
            BreakerState::Open { until } => {
                let next_probe_in = until.since(self.clock.now());
                tracing::warn!(
                    ladder,
                    ?next_probe_in,
                    "handler breaker is open: deliveries wait and burn no attempt; look at the handler"
                );
            }
            BreakerState::HalfOpen => tracing::info!(ladder, "handler breaker is half-open: one delivery probes the handler"),
            BreakerState::Closed => tracing::info!(ladder, "handler breaker is closed: deliveries go on"),
        }
    }
}

/// The leave to make one call; dropped without a word, the call was not made.
pub(super) struct Pass {
    breaker: Arc<HandlerBreaker>,
    admission: Option<Admission>,
}

impl Pass {
    /// The call was made, as this attempt (from 1), and this is what came of it.
    pub(super) fn answered(mut self, verdict: &Verdict, attempt: u32) {
        if let Some(admission) = self.admission.take() {
            self.breaker.end(admission, Outcome::of(verdict, attempt));
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(admission) = self.admission.take() {
            self.breaker.end(admission, Outcome::NotMade);
        }
    }
}

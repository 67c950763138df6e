//! What the calls of a ladder's handler have in common: which is next, and what its verdict means.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::core::dispatch::{Begun, CallOutcome, Trouble};
use crate::core::failure::{Failure, Verdict, VerdictKind};
use crate::core::ladder::Ladder;
#[cfg(feature = "otlp")]
use crate::core::time::Timestamp;
use crate::kafka::clock::Clock;
use crate::telemetry::events::DelivererMetrics;
#[cfg(feature = "otlp")]
use crate::telemetry::spans;
use crate::worker::deliverer::DelivererSettings;
use crate::worker::deliverer::places::{DeliveryJob, Event, HandlerPlaces, Job, Uncalled};
use crate::worker::delivery::Delivery;
use crate::worker::handler::Handler;
use crate::worker::hold::Hold;
use crate::worker::quiet::Quiet;

/// Number of times that a call whose connection is reset without an answer counts as not made: a process that ends resets what it has
/// not read. After that it counts as lost, since the handler may be dying of this very record before it has read all of it.
const MOST_RESETS: u8 = 2;

/// The handler and all that a call needs.
pub(super) struct Caller<H> {
    pub(super) handler: Arc<H>,
    pub(super) places: Arc<HandlerPlaces>,
    pub(super) ladder: Arc<Ladder>,
    pub(super) clock: Clock,
    pub(super) metrics: DelivererMetrics,
    /// Whether the handler was unreachable last time: logged once, not per record.
    unreachable: AtomicBool,
    pub(super) hold: Hold,
    pub(super) quiet: Quiet,
}

impl<H: Handler> Caller<H> {
    pub(super) fn new(settings: &DelivererSettings, handler: Arc<H>, metrics: DelivererMetrics) -> Self {
        Self {
            handler,
            places: settings.places.clone(),
            ladder: settings.ladder.clone(),
            clock: Clock::system(),
            metrics,
            unreachable: AtomicBool::new(false),
            hold: settings.hold.clone(),
            quiet: settings.quiet.clone(),
        }
    }

    /// Whether deliveries may begin in this process.
    pub(super) fn may_begin(&self) -> bool {
        !self.hold.is_held() && !self.quiet.is_asked()
    }

    /// The next call to make here.
    pub(super) fn next(&self) -> Option<Begun<Job>> {
        self.made_here(self.next_of_all())
    }

    fn next_of_all(&self) -> Option<Begun<Job>> {
        self.may_begin().then(|| self.places.next()).flatten()
    }

    /// This call, or the next that is made here. A call whose start must be counted first goes through the loop.
    pub(super) fn made_here(&self, mut next: Option<Begun<Job>>) -> Option<Begun<Job>> {
        while let Some(begun) = next {
            if !begun.count_start {
                return Some(begun);
            }
            let events = begun.job.events.clone();
            // The loop is gone only after the worker has ended.
            let _ = events.send(Event::CountStart(Uncalled::new(&self.places, begun)));
            next = self.next_of_all();
        }
        None
    }

    /// The record of a redelivery is called.
    pub(super) fn note_redelivered(&self, job: &mut DeliveryJob) {
        if let Some((tier, due)) = job.due.take() {
            self.metrics.redelivered(tier, self.clock.now().timestamp().since(due));
        }
    }

    /// What the verdict on a record means for it and for the handler. A repeat retried a failed attempt in place.
    pub(super) fn judge(&self, job: &mut DeliveryJob, is_repeat: bool, verdict: Verdict, took: Duration) -> CallOutcome {
        if is_repeat && !verdict.as_ref().is_err_and(Failure::is_unsent) {
            job.repeats += 1;
            self.metrics.repeated();
        }
        self.metrics.delivered(VerdictKind::of(&verdict), took);
        #[cfg(feature = "otlp")]
        if spans::are_made() {
            let began = self.clock.now().timestamp() - took;
            self.tell_trace(&job.delivery, &verdict, began, took);
        }
        if verdict.as_ref().is_err_and(Failure::is_connection_reset) && job.resets < MOST_RESETS {
            job.resets += 1;
            return CallOutcome::NotMade;
        }
        let failure = match verdict {
            Ok(()) => {
                self.note_reachable();
                job.verdict = Some(Ok(()));
                return CallOutcome::Good(None);
            }
            Err(failure) => failure.repeated(job.repeats),
        };
        let trouble = failure.trouble();
        if trouble == Some(Trouble::Unreachable) {
            self.note_unreachable(&failure);
        } else {
            self.note_reachable();
        }
        let again = self.repeats_in_place(&job.delivery, &failure);
        job.verdict = Some(Err(failure));
        trouble.map_or(CallOutcome::Good(again), |trouble| CallOutcome::Trouble(trouble, again))
    }

    #[cfg(feature = "otlp")]
    fn tell_trace(&self, delivery: &Delivery, verdict: &Verdict, began: Timestamp, took: Duration) {
        let call = spans::Call {
            id: delivery.id(),
            origin: (delivery.topic(), delivery.partition(), delivery.offset()),
            attempt: delivery.attempt(),
            error: verdict.as_ref().err().map(|failure| failure.error().class.as_str()),
            began,
            took,
        };
        spans::end(spans::delivery(&self.ladder, &call, delivery.headers().iter()));
    }

    fn repeats_in_place(&self, delivery: &Delivery, failure: &Failure) -> Option<Duration> {
        self.ladder.repeats_in_place(failure, delivery.topic(), &|name| delivery.headers().last_text(name))
    }

    fn note_unreachable(&self, failure: &Failure) {
        if !self.unreachable.swap(true, Ordering::AcqRel) {
            let error = failure.error();
            tracing::warn!(
                ladder = self.ladder.name(),
                class = error.class,
                error = error.message,
                "handler cannot be reached: records wait and are retried in place, and no attempt is counted (without a breaker: for \
                 30 s); start the handler or correct its url"
            );
        }
    }

    pub(super) fn note_reachable(&self) {
        if self.unreachable.load(Ordering::Relaxed) && self.unreachable.swap(false, Ordering::AcqRel) {
            tracing::info!(ladder = self.ladder.name(), "handler is reachable again");
        }
    }
}

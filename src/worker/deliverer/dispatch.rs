//! Calls the handler: as many deliveries at a time as may begin, and tells the loop what became of each.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::core::dispatch::{Begun, CallId, Outcome, Trouble};
use crate::core::failure::Failure;
#[cfg(feature = "otlp")]
use crate::core::failure::Verdict;
use crate::core::failure::VerdictKind;
use crate::core::ladder::Ladder;
use crate::core::time::Timestamp;
use crate::kafka::clock::Clock;
use crate::telemetry::events::DelivererMetrics;
#[cfg(feature = "otlp")]
use crate::telemetry::spans;
use crate::worker::deliverer::DelivererSettings;
use crate::worker::deliverer::places::{Event, HandlerPlaces, Job, Uncalled};
use crate::worker::delivery::Delivery;
use crate::worker::handler::{self, Handler};
use crate::worker::hold::Hold;
use crate::worker::quiet::Quiet;

/// A call whose connection is reset unanswered is as if it had not been made, so often: a process that ends resets what it has not read.
/// From then on it counts as lost, since the handler may be dying over this very record before it has read it all.
const MOST_RESETS: u8 = 2;

/// Hands deliveries to the handler, until it is dropped.
pub(super) struct Dispatcher<H> {
    runtime: Handle,
    caller: Arc<Caller<H>>,
    keeper: AbortHandle,
}

struct Caller<H> {
    handler: Arc<H>,
    places: Arc<HandlerPlaces>,
    ladder: Arc<Ladder>,
    clock: Clock,
    metrics: DelivererMetrics,
    /// The handler could not be reached last time: told once, not once a record.
    unreachable: AtomicBool,
    hold: Hold,
    quiet: Quiet,
}

impl<H: Handler> Dispatcher<H> {
    pub(super) fn new(settings: &DelivererSettings, runtime: Handle, handler: Arc<H>, metrics: DelivererMetrics) -> Self {
        let caller = Arc::new(Caller {
            handler,
            places: settings.places.clone(),
            ladder: settings.ladder.clone(),
            clock: Clock::system(),
            metrics,
            unreachable: AtomicBool::new(false),
            hold: settings.hold.clone(),
            quiet: settings.quiet.clone(),
        });
        let keeper = runtime.spawn(keep(caller.clone())).abort_handle();
        Self { runtime, caller, keeper }
    }

    /// Makes a call whose start is counted by now.
    pub(super) fn start(&self, uncalled: Uncalled) {
        if let Some(begun) = uncalled.made() {
            self.runtime.spawn(work(self.caller.clone(), Some(begun)));
        }
    }
}

impl<H: Handler> Dispatcher<H> {
    /// Asks the handler whether it can be reached, and notes the answer.
    pub(super) fn look_whether_reachable(&self, answer: Arc<AtomicBool>) {
        let caller = self.caller.clone();
        self.runtime.spawn(async move {
            answer.store(caller.handler.is_reachable().await, Ordering::Release);
        });
    }
}

impl<H> Drop for Dispatcher<H> {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// Begins whatever may begin, each on a task of its own, and waits until something has changed.
async fn keep<H: Handler>(caller: Arc<Caller<H>>) {
    loop {
        caller.hold.released().await;
        caller.quiet.over().await;
        while let Some(begun) = caller.next() {
            tokio::spawn(work(caller.clone(), Some(begun)));
        }
        if caller.may_begin() {
            caller.places.changed().await;
        }
    }
}

/// Makes a call, and after it whichever is the next.
async fn work<H: Handler>(caller: Arc<Caller<H>>, mut begun: Option<Begun<Job>>) {
    while let Some(Begun { call, job, is_repeat, .. }) = begun {
        let mut ending = Ending { places: &caller.places, call, job: Some(job) };
        let outcome = caller.deliver(&mut ending, is_repeat).await;
        ending.end(outcome);
        begun = caller.next();
    }
}

/// A call that has been let through, and has to end whatever happens: a handler that panics has failed an attempt.
struct Ending<'a> {
    places: &'a Arc<HandlerPlaces>,
    call: CallId,
    job: Option<Job>,
}

impl Ending<'_> {
    fn end(mut self, outcome: Outcome) {
        let Some(mut job) = self.job.take() else { return };
        if std::mem::take(&mut job.is_counted) {
            // The loop is gone only when the worker has ended, and then nobody asks.
            let _ = job.events.send(Event::Survived(job.id));
        }
        self.places.ended(self.call, job, outcome);
    }
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let Some(mut job) = self.job.take() else { return };
        let outcome = if std::thread::panicking() {
            job.verdict = Some(Err(Failure::retry("panic", "the handler panicked")));
            Outcome::Good(None)
        } else {
            Outcome::NotMade
        };
        self.places.ended(self.call, job, outcome);
    }
}

impl<H: Handler> Caller<H> {
    /// Whether deliveries may begin in this process.
    fn may_begin(&self) -> bool {
        !self.hold.is_held() && !self.quiet.is_asked()
    }

    /// The next call to be made here. One whose start has to be counted before goes by way of the loop.
    fn next(&self) -> Option<Begun<Job>> {
        while self.may_begin() {
            let begun = self.places.next()?;
            if !begun.count_start {
                return Some(begun);
            }
            let events = begun.job.events.clone();
            // The loop is gone only when the worker has ended.
            let _ = events.send(Event::CountStart(Uncalled::new(&self.places, begun)));
        }
        None
    }

    async fn deliver(&self, ending: &mut Ending<'_>, is_repeat: bool) -> Outcome {
        let Some(job) = &mut ending.job else { return Outcome::NotMade };
        // Either may have been asked for meanwhile.
        let Some(_under_way) = self.quiet.begin() else { return Outcome::NotMade };
        if self.hold.is_held() {
            return Outcome::NotMade;
        }
        if let Some((tier, due)) = job.due.take() {
            self.metrics.redelivered(tier, self.clock.now().timestamp().since(due));
        }
        let began = self.clock.now();
        let verdict = handler::call(self.handler.as_ref(), job.delivery.clone()).await;
        let took = self.clock.now().since(began);
        self.metrics.delivered(VerdictKind::of(&verdict), took);
        #[cfg(feature = "otlp")]
        if spans::are_made() {
            self.tell_trace(&job.delivery, &verdict, began.timestamp(), took);
        }
        let is_unsent = verdict.as_ref().is_err_and(Failure::is_unsent);
        if is_repeat && !is_unsent {
            job.repeats += 1;
            self.metrics.repeated();
        }
        if verdict.as_ref().is_err_and(Failure::is_connection_reset) && job.resets < MOST_RESETS {
            job.resets += 1;
            return Outcome::NotMade;
        }
        let failure = match verdict {
            Ok(()) => {
                self.note_reachable();
                job.verdict = Some(Ok(()));
                return Outcome::Good(None);
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
        trouble.map_or(Outcome::Good(again), |trouble| Outcome::Trouble(trouble, again))
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
                "handler cannot be reached: records wait and are tried again in place, and no attempt is burned (without a breaker: for \
                 30 s); start the handler or correct its url"
            );
        }
    }

    fn note_reachable(&self) {
        if self.unreachable.load(Ordering::Relaxed) && self.unreachable.swap(false, Ordering::AcqRel) {
            tracing::info!(ladder = self.ladder.name(), "handler is reachable again");
        }
    }
}

/// When a redelivered record was due: told by its envelope as near as it can (the failure was noted just before the broker's
/// append).
pub(super) fn due_of(ladder: &Ladder, envelope: &crate::core::envelope::Envelope) -> Option<(u32, Timestamp)> {
    // What was held has waited on, nobody knows since when.
    let tier = ladder.tier(envelope.tier.filter(|_| !envelope.held)?)?;
    let due = envelope.not_before.or_else(|| Some(envelope.last_failed_at? + tier.delay().duration()))?;
    Some((tier.number(), due))
}

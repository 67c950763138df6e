//! Calls the handler: as many deliveries at a time as allowed, and reports their outcomes to the loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::core::dispatch::{Begun, CallId, CallOutcome};
use crate::core::failure::Failure;
use crate::core::ladder::Ladder;
use crate::core::time::Timestamp;
use crate::telemetry::events::DelivererMetrics;
use crate::worker::deliverer::DelivererSettings;
use crate::worker::deliverer::batches;
use crate::worker::deliverer::caller::Caller;
use crate::worker::deliverer::places::{HandlerPlaces, Job, Uncalled};
use crate::worker::handler::{self, Handler};

/// Sends deliveries to the handler, until it is dropped.
pub(super) struct Dispatcher<H> {
    runtime: Handle,
    caller: Arc<Caller<H>>,
    keeper: AbortHandle,
    has_panicked: Arc<AtomicBool>,
}

/// Records that its task has panicked.
struct NotePanic(Arc<AtomicBool>);

impl Drop for NotePanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Release);
        }
    }
}

impl<H: Handler> Dispatcher<H> {
    pub(super) fn new(settings: &DelivererSettings, runtime: Handle, handler: Arc<H>, metrics: DelivererMetrics) -> Self {
        let caller = Arc::new(Caller::new(settings, handler, metrics));
        let has_panicked = Arc::new(AtomicBool::new(false));
        let note = NotePanic(has_panicked.clone());
        let keeping = keep(caller.clone());
        let keeper = runtime.spawn(async move {
            let _note = note;
            keeping.await;
        });
        Self { runtime, caller, keeper: keeper.abort_handle(), has_panicked }
    }

    /// # Panics
    /// The task that begins deliveries has panicked, which would otherwise go unnoticed: the worker would run on and deliver
    /// nothing.
    pub(super) fn assert_whole(&self) {
        assert!(!self.has_panicked.load(Ordering::Acquire), "the task that begins deliveries has panicked");
    }

    /// Makes a call whose start is counted by now.
    pub(super) fn start(&self, uncalled: Uncalled) {
        if let Some(begun) = uncalled.made() {
            let caller = self.caller.clone();
            if caller.handler.batch_limits().is_some() {
                self.runtime.spawn(async move {
                    batches::deliver(&caller, vec![begun]).await;
                    caller.places.look();
                });
            } else {
                self.runtime.spawn(work(caller, Some(begun)));
            }
        }
    }
}

impl<H: Handler> Dispatcher<H> {
    /// Tests whether the handler is reachable, and stores the answer.
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

/// Begins all calls that may begin, each on its own task, and waits for a change.
async fn keep<H: Handler>(caller: Arc<Caller<H>>) {
    if let Some(limits) = caller.handler.batch_limits() {
        let requests = caller.places.most_calls().div_ceil(limits.max);
        return batches::keep(caller, limits, requests).await;
    }
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

/// Makes a call, and then the next one.
async fn work<H: Handler>(caller: Arc<Caller<H>>, mut begun: Option<Begun<Job>>) {
    while let Some(Begun { call, job, is_repeat, .. }) = begun {
        let mut ending = Ending { places: &caller.places, call, job: Some(job) };
        let outcome = deliver(&caller, &mut ending, is_repeat).await;
        begun = ending.end_and_next(&caller, outcome);
    }
}

/// Makes one call.
async fn deliver<H: Handler>(caller: &Caller<H>, ending: &mut Ending<'_>, is_repeat: bool) -> CallOutcome {
    let Some(job) = &mut ending.job else { return CallOutcome::NotMade };
    // Hold or quiesce may have been requested meanwhile.
    let Some(_under_way) = caller.quiet.begin() else { return CallOutcome::NotMade };
    if caller.hold.is_held() {
        return CallOutcome::NotMade;
    }
    caller.note_redelivered(job);
    let began = caller.clock.now();
    let verdict = handler::call(caller.handler.as_ref(), job.delivery.clone()).await;
    let took = caller.clock.now().since(began);
    caller.judge(job, is_repeat, verdict, took)
}

/// An admitted call, which must be ended in any case: a handler that panics has failed the attempt.
struct Ending<'a> {
    places: &'a Arc<HandlerPlaces>,
    call: CallId,
    job: Option<Job>,
}

impl Ending<'_> {
    /// Ends it, and takes the next one.
    fn end_and_next<H: Handler>(mut self, caller: &Caller<H>, outcome: CallOutcome) -> Option<Begun<Job>> {
        let mut job = self.job.take()?;
        job.survived();
        caller.made_here(self.places.ended_and_next((self.call, job, outcome), caller.may_begin()))
    }
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let Some(mut job) = self.job.take() else { return };
        let outcome = if std::thread::panicking() {
            job.verdict = Some(Err(Failure::retry("panic", "the handler panicked")));
            CallOutcome::Good(None)
        } else {
            CallOutcome::NotMade
        };
        self.places.ended(self.call, job, outcome);
    }
}

/// When a redelivered record was due: approximately, from its envelope (the failure was recorded just before the broker's
/// append).
pub(super) fn due_of(ladder: &Ladder, envelope: &crate::core::envelope::Envelope) -> Option<(u32, Timestamp)> {
    // A held record has waited for an unknown time.
    let tier = ladder.tier(envelope.tier.filter(|_| !envelope.held)?)?;
    let due = envelope.not_before.or_else(|| Some(envelope.last_failed_at? + tier.delay().duration()))?;
    Some((tier.number(), due))
}

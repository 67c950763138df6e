//! Calls the handler: many deliveries at a time, within the budgets, and tells the loop what became of each.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, RwLock, RwLockReadGuard, RwLockWriteGuard, Semaphore};

use crate::core::failure::{Failure, Verdict};
use crate::core::ladder::Ladder;
use crate::core::time::Timestamp;
use crate::kafka::clock::Clock;
use crate::telemetry::events::{DelivererMetrics, VerdictKind};
#[cfg(feature = "otlp")]
use crate::telemetry::spans;
use crate::worker::breaker::{HandlerBreaker, Pass};
use crate::worker::committer::RecordId;
use crate::worker::deliverer::DelivererSettings;
use crate::worker::delivery::Delivery;
use crate::worker::handler::{self, Handler};
use crate::worker::hold::Hold;
use crate::worker::quiet::Quiet;
use crate::worker::told;

/// Between tries in place, of what could not be sent.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How long these go on, as long as no breaker holds the records: then the attempt has failed.
const LONGEST_IN_PLACE: Duration = Duration::from_secs(30);

/// What a handler that has died is given to come back before deliveries are tried alone.
const REVIVAL: Duration = Duration::from_millis(500);

/// Where a record comes from, for the budgets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Source,
    Redeliver,
}

/// What the loop waits for.
pub(super) enum Event {
    /// A delivery is over. Without verdict it was not begun, since its partition goes.
    Over(RecordId, Option<Verdict>, Slots),
    /// A queue that was empty has something.
    Arrived,
}

/// The places that a delivery takes up until what became of it is committed: so a worker that is killed has no more handler calls
/// repeated than may be in flight.
#[derive(Default)]
pub(super) struct Slots {
    held: Vec<OwnedSemaphorePermit>,
}

/// Deliveries in flight are bounded by these: hanging redeliveries cannot starve fresh records, nor the other way round.
struct Budgets {
    all: Arc<Semaphore>,
    source: Arc<Semaphore>,
    redeliver: Arc<Semaphore>,
}

/// Hands deliveries to the handler.
pub(super) struct Dispatcher<H> {
    runtime: Handle,
    handler: Arc<H>,
    budgets: Budgets,
    limits: (usize, usize),
    events: Sender<Event>,
    shared: Arc<Shared>,
}

struct Shared {
    ladder: Arc<Ladder>,
    clock: Clock,
    metrics: DelivererMetrics,
    /// The handler could not be reached last time: told once, not once a record.
    unreachable: AtomicBool,
    hold: Hold,
    quiet: Quiet,
    breaker: Option<Arc<HandlerBreaker>>,
    company: Company,
}

/// Who is with the handler at the same time. When it dies, all connections are lost and nobody knows over which record: so each of
/// them is delivered once more on its own, until the one is found whose connection is lost again. Only that one has failed.
#[derive(Default)]
struct Company {
    /// Read by each call, written by one that has to be alone.
    calls: RwLock<()>,
    /// How many were found to have lost their connections on their own. With the next one the others are beyond suspicion.
    found: AtomicU64,
}

/// The leave to be with the handler, until it is dropped.
enum Presence<'a> {
    Shared { _call: RwLockReadGuard<'a, ()> },
    Alone { _call: RwLockWriteGuard<'a, ()> },
}

impl Company {
    /// Waits until the handler may be called: on its own by a delivery that is under suspicion since so many were found.
    async fn join(&self, suspected: Option<u64>) -> Presence<'_> {
        let is_suspected = || suspected == Some(self.found.load(Ordering::Acquire));
        if !is_suspected() {
            return Presence::Shared { _call: self.calls.read().await };
        }
        let call = self.calls.write().await;
        // It may have been found while this one waited.
        if is_suspected() { Presence::Alone { _call: call } } else { Presence::Shared { _call: call.downgrade() } }
    }
}

/// Lets the deliveries of a partition begin, until it is shut: those that have not begun then never do.
#[derive(Default)]
pub(super) struct Gate {
    shut: AtomicBool,
    told: Notify,
}

impl Gate {
    pub(super) fn close(&self) {
        self.shut.store(true, Ordering::Release);
        self.told.notify_waiters();
    }

    pub(super) fn is_shut(&self) -> bool {
        self.shut.load(Ordering::Acquire)
    }

    async fn shut(&self) {
        told::until(&self.told, || self.is_shut()).await;
    }
}

/// One delivery to make.
pub(super) struct Job {
    pub(super) id: RecordId,
    pub(super) kind: Kind,
    pub(super) delivery: Delivery,
    /// Shut when its partition is no longer to be worked on.
    pub(super) gate: Arc<Gate>,
    /// The tier it comes from and when it was due there.
    pub(super) due: Option<(u32, Timestamp)>,
}

impl<H: Handler> Dispatcher<H> {
    /// `redeliver_share` of `max_in_flight` is the most that redeliveries take; a slot is always kept for them.
    pub(super) fn new(
        settings: &DelivererSettings,
        runtime: Handle,
        handler: Arc<H>,
        events: Sender<Event>,
        metrics: DelivererMetrics,
    ) -> Self {
        let all = settings.max_in_flight.max(1);
        let source = (all - 1).max(1);
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of at most 10,000"
        )]
        // Of what fresh records have without redeliveries, and rounded down: with a half, they keep at least half of their rate.
        let redeliver = ((source as f64 * settings.redeliver_share) as usize).clamp(1, all);
        let (ladder, hold, breaker) = (settings.ladder.clone(), settings.hold.clone(), settings.breaker.clone());
        let (unreachable, company) = (AtomicBool::new(false), Company::default());
        let quiet = settings.quiet.clone();
        let shared = Shared { ladder, clock: Clock::system(), metrics, unreachable, hold, quiet, breaker, company };
        Self {
            runtime,
            handler,
            budgets: Budgets {
                all: Arc::new(Semaphore::new(all)),
                source: Arc::new(Semaphore::new(source)),
                redeliver: Arc::new(Semaphore::new(redeliver)),
            },
            limits: (source, redeliver),
            events,
            shared: Arc::new(shared),
        }
    }

    /// How many deliveries may be over before what became of them has to be committed, so that others can begin.
    pub(super) fn most_unsettled(&self) -> usize {
        (self.limits.0 / 2).max(1)
    }

    /// How many records of a kind are taken from Kafka at most: what is in flight, and as many again, so that no slot stands empty
    /// while the loop commits.
    pub(super) fn most_taken(&self, kind: Kind) -> usize {
        2 * match kind {
            Kind::Source => self.limits.0,
            Kind::Redeliver => self.limits.1,
        }
    }

    /// Starts a delivery. Exactly one [`Event::Over`] follows.
    pub(super) fn dispatch(&self, job: Job) {
        let own = match job.kind {
            Kind::Source => self.budgets.source.clone(),
            Kind::Redeliver => self.budgets.redeliver.clone(),
        };
        let (all, handler, shared) = (self.budgets.all.clone(), self.handler.clone(), self.shared.clone());
        let mut over = Over { id: job.id, events: self.events.clone(), slots: Slots::default(), told: false };
        self.runtime.spawn(async move {
            let begin = async {
                // Neither is ever closed, so both always come.
                [own.acquire_owned().await, all.acquire_owned().await]
            };
            let verdict = tokio::select! {
                biased;
                () = job.gate.shut() => None,
                slots = begin => {
                    over.slots.held.extend(slots.into_iter().flatten());
                    shared.deliver(handler.as_ref(), &job).await
                }
            };
            over.tell(verdict);
        });
    }
}

impl Shared {
    async fn deliver<H: Handler>(&self, handler: &H, job: &Job) -> Option<Verdict> {
        let (mut pause, mut in_place, mut repeats, mut suspected) = (FIRST_PAUSE, Duration::ZERO, 0, None);
        // Of an attempt that is to be repeated: what has come of it so far.
        let mut so_far = None;
        let mut due = job.due;
        loop {
            let turn = async { (self.turn().await, self.company.join(suspected).await) };
            let (pass, presence) = tokio::select! {
                biased;
                // Its partition goes: an attempt that was to be repeated has failed as it stands.
                () = job.gate.shut() => return so_far,
                turn = turn => turn,
            };
            // It may have been asked for meanwhile.
            let Some(under_way) = self.quiet.begin() else { continue };
            if let Some((tier, due)) = due.take() {
                self.metrics.redelivered(tier, self.clock.now().timestamp().since(due));
            }
            let began = self.clock.now();
            let verdict = handler::call(handler, job.delivery.clone()).await;
            let took = self.clock.now().since(began);
            self.metrics.delivered(VerdictKind::of(&verdict), took);
            #[cfg(feature = "otlp")]
            if spans::are_made() {
                self.tell_trace(&job.delivery, &verdict, began.timestamp(), took);
            }
            if let Some(pass) = pass {
                pass.answered(&verdict, job.delivery.attempt());
            }
            let was_alone = matches!(presence, Presence::Alone { .. });
            if verdict.as_ref().is_err_and(Failure::is_connection_lost) {
                // A process that dies closes its connections one after the other: who came now would be given another of them.
                tokio::time::sleep(FIRST_PAUSE).await;
            }
            drop((presence, under_way));
            if so_far.is_some() && !verdict.as_ref().is_err_and(Failure::is_unsent) {
                repeats += 1;
                self.metrics.repeated();
            }
            let wait = match verdict {
                Err(failure) if failure.is_unsent() && in_place < LONGEST_IN_PLACE => {
                    self.note_unreachable(&failure);
                    let wait = pause;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    let is_held = self.breaker.as_ref().is_some_and(|breaker| !breaker.is_closed());
                    in_place = if is_held { Duration::ZERO } else { in_place + wait };
                    wait
                }
                Err(failure) if failure.is_connection_lost() && !was_alone => {
                    tracing::debug!(ladder = self.ladder.name(), id = job.delivery.id(), "connection lost: next alone");
                    suspected = Some(self.company.found.load(Ordering::Acquire));
                    REVIVAL
                }
                Err(failure) => {
                    if !failure.is_unsent() {
                        self.note_reachable();
                    }
                    if failure.is_connection_lost() {
                        self.company.found.fetch_add(1, Ordering::AcqRel);
                    }
                    let failure = failure.repeated(repeats);
                    let Some(backoff) = self.repeats_in_place(&job.delivery, &failure) else { return Some(Err(failure)) };
                    so_far = Some(Err(failure));
                    backoff
                }
                Ok(()) => {
                    self.note_reachable();
                    return Some(Ok(()));
                }
            };
            tokio::select! {
                () = job.gate.shut() => return so_far,
                () = tokio::time::sleep(wait) => {}
            }
        }
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

    /// Waits until the handler may be called: the ladder is not held, nobody asked for quiet, and the breaker lets the call through.
    async fn turn(&self) -> Option<Pass> {
        loop {
            self.hold.released().await;
            self.quiet.over().await;
            let Some(breaker) = &self.breaker else { return None };
            let pass = breaker.admitted().await;
            // It may have been held meanwhile.
            if !self.hold.is_held() {
                return Some(pass);
            }
        }
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
                "handler cannot be reached: records wait and are tried again in place, and no attempt is burned while the breaker is \
                 open (without a breaker: for 30 s); start the handler or correct its url"
            );
        }
    }

    fn note_reachable(&self) {
        if self.unreachable.load(Ordering::Relaxed) && self.unreachable.swap(false, Ordering::AcqRel) {
            tracing::info!(ladder = self.ladder.name(), "handler is reachable again");
        }
    }
}

/// Tells the loop that a delivery is over, whatever happens: a handler that panics has failed an attempt.
struct Over {
    id: RecordId,
    events: Sender<Event>,
    slots: Slots,
    told: bool,
}

impl Over {
    fn tell(&mut self, verdict: Option<Verdict>) {
        self.told = true;
        // The loop is gone only when the worker has ended, and then nobody asks.
        let _ = self.events.send(Event::Over(self.id, verdict, std::mem::take(&mut self.slots)));
    }
}

impl Drop for Over {
    fn drop(&mut self) {
        if !self.told {
            let verdict = std::thread::panicking().then(|| Err(Failure::retry("panic", "the handler panicked")));
            self.tell(verdict);
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

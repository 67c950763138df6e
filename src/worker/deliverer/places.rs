//! The delivery slots of a ladder in this process: the pure dispatch behind a lock, with its logs and metrics.
//!
//! It outlives the deliverer, which is recreated after an error: the handler's health does not depend on
//! that.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::core::batch::Company;
use crate::core::delay::format_duration;
use crate::core::dispatch::{
    Begun, BreakerState, CallId, CallOutcome, Departure, Dispatch, DispatchSettings, Evidence, Kind, Over, Standing, Ticket,
    Trouble, limits,
};
use crate::core::failure::Verdict;
use crate::core::ladder::Ladder;
use crate::core::leader_clock::LocalTime;
use crate::core::time::Timestamp;
use crate::kafka::clock::Clock;
use crate::telemetry::events::HandlerHealthMetrics;
use crate::worker::delivery::Delivery;
use crate::worker::hop::content::RecordId;

/// Interval of exporting its metrics while something changes.
const TELL_INTERVAL: Duration = Duration::from_millis(250);

const LEAST_PAUSE: Duration = Duration::from_millis(1);

/// A record to deliver.
pub(super) struct DeliveryJob {
    pub(super) id: RecordId,
    pub(super) delivery: Delivery,
    /// The tier that it comes from and when it was due there, until it is called.
    pub(super) due: Option<(u32, Timestamp)>,
    /// The verdict of its last call.
    pub(super) verdict: Option<Verdict>,
    /// How often the attempt was retried in place.
    pub(super) repeats: u32,
    /// With how many others it may be delivered.
    pub(super) company: Company,
    /// Number of its calls that were reset without an answer and do not count.
    pub(super) resets: u8,
    /// Whether the start of the current call is counted.
    pub(super) is_counted: bool,
    /// The loop that has taken it.
    pub(super) events: Sender<Event>,
}

/// Boxed, since it is handed on often.
pub(super) type Job = Box<DeliveryJob>;

impl DeliveryJob {
    pub(super) fn new(id: RecordId, delivery: Delivery, due: Option<(u32, Timestamp)>, events: Sender<Event>) -> Job {
        let (verdict, company) = (None, Company::default());
        Box::new(Self { id, delivery, due, verdict, repeats: 0, company, resets: 0, is_counted: false, events })
    }

    /// Its call has ended, and the worker is alive: tells the loop, if its start was counted.
    pub(super) fn survived(&mut self) {
        if std::mem::take(&mut self.is_counted) {
            // The loop is gone only after the worker has ended.
            let _ = self.events.send(Event::Survived(self.id));
        }
    }
}

/// Events for the loop.
pub(super) enum Event {
    /// A delivery is over.
    Over(RecordId, Option<Verdict>, Departure, Place),
    /// The start of a record must be counted before it is called.
    CountStart(Uncalled),
    /// The call whose start was counted has ended, and the worker is alive.
    Survived(RecordId),
    /// A queue that was empty has records.
    Arrived,
}

/// An admitted call that is not made yet; dropping it withdraws it.
pub(super) struct Uncalled {
    places: Arc<HandlerPlaces>,
    call: CallId,
    is_repeat: bool,
    kind: Kind,
    job: Option<Job>,
}

impl Uncalled {
    pub(super) fn new(places: &Arc<HandlerPlaces>, begun: Begun<Job>) -> Self {
        Self { places: places.clone(), call: begun.call, is_repeat: begun.is_repeat, kind: begun.kind, job: Some(begun.job) }
    }

    /// Its record.
    pub(super) fn id(&self) -> Option<RecordId> {
        self.job.as_ref().map(|job| job.id)
    }

    /// It is made now, and its start is counted.
    pub(super) fn made(mut self) -> Option<Begun<Job>> {
        let mut job = self.job.take()?;
        job.is_counted = true;
        Some(Begun { call: self.call, job, count_start: false, is_repeat: self.is_repeat, is_alone: true, kind: self.kind })
    }
}

impl Drop for Uncalled {
    fn drop(&mut self) {
        if let Some(job) = self.job.take() {
            self.places.change(|dispatch, _| dispatch.withdraw(self.call, job));
            self.places.changed.notify_one();
        }
    }
}

/// A delivery that has ended, until its outcome is committed: so after a worker was killed, at most as many calls are repeated as
/// may be in flight or unsettled.
#[derive(Default)]
pub(super) struct Place(Option<(Arc<HandlerPlaces>, Kind)>);

impl Drop for Place {
    fn drop(&mut self) {
        if let Some((places, kind)) = self.0.take() {
            places.settled[kind as usize].fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The delivery slots of one ladder.
pub struct HandlerPlaces {
    ladder: String,
    inner: Mutex<Inner>,
    /// Notified when a call may begin, or it is time to check.
    changed: Notify,
    clock: Clock,
    metrics: HandlerHealthMetrics,
    limits: DispatchSettings,
    /// Deliveries of each kind that are committed, until the dispatch is told.
    settled: [AtomicUsize; 2],
    revocations: AtomicUsize,
}

struct Inner {
    dispatch: Dispatch<Job>,
    told: BreakerState,
    tell_at: LocalTime,
    /// The time of the next check even without a notification.
    looks_at: Option<LocalTime>,
    /// Whether it was logged that the handler is down, and that it is probed: once per outage.
    is_down: bool,
    is_probed: bool,
    aside: Option<(LocalTime, LocalTime)>,
}

impl HandlerPlaces {
    /// With these limits; without breaker settings the handler is never down.
    #[must_use]
    pub fn new(ladder: &Ladder, limits: DispatchSettings) -> Arc<Self> {
        Arc::new(Self {
            ladder: ladder.name().to_owned(),
            inner: Mutex::new(Inner {
                dispatch: Dispatch::new(limits),
                told: BreakerState::Closed,
                tell_at: LocalTime::from_micros(0),
                looks_at: None,
                is_down: false,
                is_probed: false,
                aside: None,
            }),
            changed: Notify::new(),
            clock: Clock::system(),
            metrics: HandlerHealthMetrics::new(ladder, limits.places.max(1)),
            limits,
            settled: [AtomicUsize::new(0), AtomicUsize::new(0)],
            revocations: AtomicUsize::new(0),
        })
    }

    /// The handler's state.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.lock().dispatch.standing()
    }

    /// A message about the handler; `None` while it is up.
    #[must_use]
    pub fn notice(&self) -> Option<String> {
        let (standing, evidence, aside) = {
            let inner = self.lock();
            (inner.dispatch.standing(), inner.dispatch.evidence(), inner.aside)
        };
        let ladder = &self.ladder;
        let because = self.because(&evidence);
        if let Some((since, until)) = aside {
            let (now, seconds) = (self.clock.now(), |time: Duration| format_duration(Duration::from_secs(time.as_secs() + 1)));
            return Some(format!(
                "handler of {ladder} down: for {} this worker has left its partitions to others, whose handlers answer; it returns \
                 when its handler is reachable, or in {} for a test{because}",
                seconds(now.since(since)),
                seconds(until.since(now))
            ));
        }
        match standing {
            Standing::Up | Standing::InDoubt => None,
            Standing::Degraded { allowed } => {
                Some(format!("handler of {ladder} degraded: {allowed} deliveries at a time, more after good answers"))
            }
            Standing::Probing => {
                Some(format!("handler breaker of {ladder} half-open: a few deliveries probe the handler{because}"))
            }
            Standing::Down { until } => {
                let left = until.since(self.clock.now());
                let next = match left.as_secs() {
                    // The pause is over, and there is nothing to deliver.
                    _ if left.is_zero() => "the next delivery is the probe".to_owned(),
                    // Whole seconds, for readability.
                    seconds => format!("next probe in {}", format_duration(Duration::from_secs(seconds + 1))),
                };
                Some(format!("handler breaker of {ladder} open: deliveries wait, {next}{because}"))
            }
        }
    }

    /// `; since 12s 43 records of 6 partitions met errors, and none was answered well`
    fn because(&self, evidence: &Evidence) -> String {
        let (Some(since), Some(mostly)) = (evidence.since, evidence.mostly()) else { return String::new() };
        let since = format_duration(Duration::from_secs(self.clock.now().since(since).as_secs()));
        let Evidence { records, partitions, .. } = *evidence;
        let count = |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
        let met = match mostly {
            Trouble::Errors => "was answered with an error",
            Trouble::Timeouts => "timed out",
            Trouble::LostConnections => "lost its connection",
            Trouble::Unreachable => "could not be sent",
        };
        let met = if records == 1 {
            met.to_owned()
        } else {
            met.replacen("was ", "were ", 1).replacen("its connection", "their connections", 1)
        };
        format!(
            "; since {since} {} of {} {met}, and none was answered well",
            count(records, "record"),
            count(partitions, "partition")
        )
    }

    /// Since when the handler is down.
    pub(super) fn down_since(&self) -> Option<LocalTime> {
        self.lock().dispatch.down_since()
    }

    /// The evidence that it is down.
    pub(super) fn why(&self) -> String {
        let evidence = self.lock().dispatch.evidence();
        self.because(&evidence).trim_start_matches("; ").to_owned()
    }

    /// The kind of most failures, if any.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        self.lock().dispatch.evidence().mostly()
    }

    /// Probes begin as soon as there is anything to deliver.
    pub(super) fn probe_now(self: &Arc<Self>) {
        self.change(Dispatch::probe_now);
    }

    /// Since when, and until when at most, the worker has left its partitions to others, if it has.
    pub(super) fn set_stood_aside(&self, aside: Option<(LocalTime, LocalTime)>) {
        self.lock().aside = aside;
        self.metrics.set_stood_aside(aside.is_some());
    }

    /// The number of finished deliveries at which their commit is not delayed any longer: half of those that may wait for it, or half of
    /// the slots, if finished deliveries keep theirs.
    pub(super) fn enough_to_commit(&self) -> usize {
        let DispatchSettings { places, unsettled, .. } = self.limits;
        (if unsettled == 0 { places } else { unsettled } / 2).max(1)
    }

    /// Maximum number of hops that may wait before no more records are taken.
    pub(super) fn most_hops(&self) -> usize {
        self.limits.places * 4 + self.limits.unsettled
    }

    pub(super) fn open_lane(&self, lane: u64, kind: Kind) {
        self.lock().dispatch.open_lane(lane, kind);
    }

    pub(super) fn close_lane(self: &Arc<Self>, lane: u64) {
        self.change(|dispatch, _| dispatch.close_lane(lane));
        self.revocations.fetch_add(1, Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// Number of partitions revoked so far.
    pub(super) fn revocations(&self) -> usize {
        self.revocations.load(Ordering::Relaxed)
    }

    /// Whether a partition is assigned.
    pub(super) fn is_open(&self, lane: u64) -> bool {
        self.lock().dispatch.is_open(lane)
    }

    /// See [`Dispatch::all_hang`].
    pub(super) fn all_hang(&self, lanes: &[u64]) -> Option<usize> {
        let (inner, now) = (self.lock(), self.clock.now());
        inner.dispatch.all_hang(lanes, now)
    }

    pub(super) fn has_room(&self, lane: u64) -> bool {
        self.lock().dispatch.has_room(lane)
    }

    /// Adds a record, which begins when its turn comes: exactly one [`Event::Over`] follows.
    pub(super) fn arrive(self: &Arc<Self>, ticket: Ticket, job: Job) {
        self.change(|dispatch, _| dispatch.arrive(ticket, job));
    }

    /// Tells the dispatch which deliveries are committed: all of a commit at once.
    pub(super) fn settle(&self) {
        let settled = [Kind::Source, Kind::Redeliver].map(|kind| (kind, self.settled[kind as usize].swap(0, Ordering::Relaxed)));
        if settled.iter().all(|(_, number)| *number == 0) {
            return;
        }
        let mut inner = self.lock();
        for (kind, number) in settled {
            inner.dispatch.release(kind, number);
        }
        drop(inner);
        self.changed.notify_one();
    }

    /// Signals that a call may begin.
    pub(super) fn look(&self) {
        self.changed.notify_one();
    }

    /// The next call to make.
    pub(super) fn next(self: &Arc<Self>) -> Option<Begun<Job>> {
        self.change(Dispatch::next)
    }

    /// A call has ended; returns the next one, if one may begin.
    pub(super) fn ended_and_next(
        self: &Arc<Self>,
        (call, job, outcome): (CallId, Job, CallOutcome),
        may_begin: bool,
    ) -> Option<Begun<Job>> {
        self.change(|dispatch, now| {
            dispatch.ended(call, job, outcome, now);
            if may_begin { dispatch.next(now) } else { None }
        })
    }

    /// A call has ended.
    pub(super) fn ended(self: &Arc<Self>, call: CallId, job: Job, outcome: CallOutcome) {
        self.change(|dispatch, now| dispatch.ended(call, job, outcome, now));
    }

    /// The calls of a batch have ended.
    pub(super) fn all_ended(self: &Arc<Self>, mut calls: Vec<(CallId, Job, CallOutcome)>) {
        self.change(|dispatch, now| {
            // Those that go back to the head of their queue do so one before the other, so the last comes first.
            let goes_back = |outcome: &CallOutcome| matches!(outcome, CallOutcome::NotMade | CallOutcome::InCompany(_));
            if dispatch.down_since().is_none() && calls.iter().all(|(_, _, outcome)| goes_back(outcome)) {
                calls.reverse();
            }
            for (call, job, outcome) in calls {
                dispatch.ended(call, job, outcome, now);
            }
        });
    }

    /// Maximum number of calls at a time.
    pub(super) fn most_calls(&self) -> usize {
        self.limits.places.max(1)
    }

    /// Maximum number of requests of each kind, if so many of all may run: the shares of calls.
    pub(super) fn most_requests(&self, all: usize) -> [usize; 2] {
        limits(all, self.limits.redeliver_share)
    }

    /// Waits until a call may begin, or it is time to check.
    pub(super) async fn changed(&self) {
        let pause = {
            let (mut inner, now) = (self.lock(), self.clock.now());
            inner.looks_at = inner.dispatch.wake_at(now);
            inner.looks_at.map(|at| at.since(now).max(LEAST_PAUSE))
        };
        match pause {
            None => self.changed.notified().await,
            Some(pause) => {
                let _ = tokio::time::timeout(pause, self.changed.notified()).await;
            }
        }
    }

    /// Changes the dispatch, passes on what has left it, and updates logs and metrics.
    fn change<T>(self: &Arc<Self>, act: impl FnOnce(&mut Dispatch<Job>, LocalTime) -> T) -> T {
        let mut inner = self.lock();
        let now = self.clock.now();
        let done = act(&mut inner.dispatch, now);
        let over = inner.dispatch.take_over();
        self.log_standing(&mut inner, now);
        let wake_at = inner.dispatch.wake_at(now);
        let is_sooner = wake_at.is_some_and(|at| inner.looks_at.is_none_or(|planned| at < planned));
        drop(inner);
        if is_sooner {
            self.changed.notify_one();
        }
        for Over { mut job, fate, place } in over {
            let place = Place(place.map(|kind| (self.clone(), kind)));
            let verdict = job.verdict.take();
            // The loop is gone only after the worker has ended.
            let _ = job.events.send(Event::Over(job.id, verdict, fate, place));
        }
        done
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log_standing(&self, inner: &mut Inner, now: LocalTime) {
        let standing = inner.dispatch.standing();
        let state = standing.breaker();
        if state == inner.told && now < inner.tell_at {
            return;
        }
        inner.tell_at = now.later(TELL_INTERVAL);
        let evidence = inner.dispatch.evidence();
        self.metrics.standing(standing, &evidence, inner.dispatch.suspects());
        let before = std::mem::replace(&mut inner.told, state);
        if state == before {
            return;
        }
        self.metrics.changed(state);
        let ladder = self.ladder.as_str();
        match standing {
            Standing::Down { until } => {
                let (next_probe_in, because) = (until.since(now), self.because(&evidence));
                if std::mem::replace(&mut inner.is_down, true) {
                    tracing::debug!(ladder, ?next_probe_in, "handler breaker is open again{because}");
                } else {
                    tracing::warn!(
                        ladder,
                        ?next_probe_in,
                        "handler breaker is open: deliveries wait and no attempt is counted; check the handler{because}"
                    );
                }
            }
            Standing::Probing if !std::mem::replace(&mut inner.is_probed, true) => {
                tracing::info!(ladder, "handler breaker is half-open: a few deliveries probe the handler");
            }
            Standing::Up | Standing::Degraded { .. } if std::mem::take(&mut inner.is_down) => {
                inner.is_probed = false;
                tracing::info!(ladder, "handler breaker is closed: deliveries resume");
            }
            _ => tracing::debug!(ladder, ?standing, "handler's health changes"),
        }
    }
}

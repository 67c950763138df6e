//! The places at a ladder's handler in this process: the dispatch (which is pure) behind a lock, and what people are told of it.
//!
//! It outlives the deliverer, which is made anew after an error: how the handler is does not depend on that.

use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::core::delay::format_duration;
use crate::core::dispatch::{
    Begun, BreakerSettings, BreakerState, CallId, Dispatch, DispatchSettings, Evidence, Fate, Kind, Outcome, Over, Standing,
    Ticket, Trouble,
};
use crate::core::failure::Verdict;
use crate::core::ladder::Ladder;
use crate::core::leader_clock::LocalTime;
use crate::core::time::Timestamp;
use crate::kafka::clock::Clock;
use crate::telemetry::events::HandlerHealthMetrics;
use crate::worker::delivery::Delivery;
use crate::worker::hop::content::RecordId;

/// How often its figures are told while something changes.
const TELL_INTERVAL: Duration = Duration::from_millis(250);

const LEAST_PAUSE: Duration = Duration::from_millis(1);

/// One record to deliver.
pub(super) struct Job {
    pub(super) id: RecordId,
    pub(super) delivery: Delivery,
    /// The tier that it comes from and when it was due there, until it is called.
    pub(super) due: Option<(u32, Timestamp)>,
    /// What came of its last call.
    pub(super) verdict: Option<Verdict>,
    /// How often the attempt was repeated in place.
    pub(super) repeats: u32,
    /// So many calls of it were reset unanswered and do not count.
    pub(super) resets: u8,
    /// The start of the call that is made is counted.
    pub(super) is_counted: bool,
    /// The loop that has taken it.
    pub(super) events: Sender<Event>,
}

/// What the loop waits for.
pub(super) enum Event {
    /// A delivery is over.
    Over(RecordId, Option<Verdict>, Fate, Place),
    /// The start of a record is to be counted before it is called.
    CountStart(Uncalled),
    /// The call whose start was counted has ended, and the worker lives.
    Survived(RecordId),
    /// A queue that was empty has something.
    Arrived,
}

/// A call that was let through and is not made yet; dropped, it is none that should be.
pub(super) struct Uncalled {
    places: Arc<HandlerPlaces>,
    call: CallId,
    is_repeat: bool,
    job: Option<Job>,
}

impl Uncalled {
    pub(super) fn new(places: &Arc<HandlerPlaces>, begun: Begun<Job>) -> Self {
        Self { places: places.clone(), call: begun.call, is_repeat: begun.is_repeat, job: Some(begun.job) }
    }

    /// Which record it is.
    pub(super) fn id(&self) -> Option<RecordId> {
        self.job.as_ref().map(|job| job.id)
    }

    /// It is made now, and its start is counted.
    pub(super) fn made(mut self) -> Option<Begun<Job>> {
        let mut job = self.job.take()?;
        job.is_counted = true;
        Some(Begun { call: self.call, job, count_start: false, is_repeat: self.is_repeat })
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

/// The place that a delivery takes up until what became of it is committed: so a worker that is killed has no more handler calls
/// repeated than may be in flight.
#[derive(Default)]
pub(super) struct Place(Option<(Arc<HandlerPlaces>, Kind)>);

impl Drop for Place {
    fn drop(&mut self) {
        if let Some((places, kind)) = self.0.take() {
            places.lock().dispatch.release(kind);
            places.changed.notify_one();
        }
    }
}

/// The places at the handler of one ladder.
pub struct HandlerPlaces {
    ladder: String,
    inner: Mutex<Inner>,
    /// Something may begin, or has to be looked after.
    changed: Notify,
    clock: Clock,
    metrics: HandlerHealthMetrics,
}

struct Inner {
    dispatch: Dispatch<Job>,
    told: BreakerState,
    tell_at: LocalTime,
    /// When it is looked at next, although nothing was told.
    looks_at: Option<LocalTime>,
    /// It was told that the handler is down, and that it is probed: once an outage.
    is_down: bool,
    is_probed: bool,
    aside: Option<(LocalTime, LocalTime)>,
}

impl HandlerPlaces {
    /// So many, of which redeliveries may take a share; without settings of a breaker the handler is never down.
    #[must_use]
    pub fn new(ladder: &Ladder, places: usize, redeliver_share: f64, breaker: Option<BreakerSettings>) -> Arc<Self> {
        let dispatch = Dispatch::new(DispatchSettings { places, redeliver_share, breaker });
        Arc::new(Self {
            ladder: ladder.name().to_owned(),
            inner: Mutex::new(Inner {
                dispatch,
                told: BreakerState::Closed,
                tell_at: LocalTime::from_micros(0),
                looks_at: None,
                is_down: false,
                is_probed: false,
                aside: None,
            }),
            changed: Notify::new(),
            clock: Clock::system(),
            metrics: HandlerHealthMetrics::new(ladder, places.max(1)),
        })
    }

    /// How the handler is.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.lock().dispatch.standing()
    }

    /// What people should know of the handler; nothing while it is up.
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
                "handler of {ladder} down: for {} this worker has left its partitions to others, whose handlers answer; it comes back \
                 when its handler can be reached, or in {} to see{because}",
                seconds(now.since(since)),
                seconds(until.since(now))
            ));
        }
        match standing {
            Standing::Up | Standing::InDoubt => None,
            Standing::Degraded { allowed } => {
                Some(format!("handler of {ladder} degraded: {allowed} deliveries at a time, more as it answers well"))
            }
            Standing::Probing => {
                Some(format!("handler breaker of {ladder} half-open: a few deliveries probe the handler{because}"))
            }
            Standing::Down { until } => {
                let left = until.since(self.clock.now());
                let next = match left.as_secs() {
                    // It is over, and there is nothing to deliver.
                    _ if left.is_zero() => "the next delivery is the probe".to_owned(),
                    // Whole seconds: it is for people.
                    seconds => format!("next probe in {}", format_duration(Duration::from_secs(seconds + 1))),
                };
                Some(format!("handler breaker of {ladder} open: no delivery begins, {next}{because}"))
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

    /// By what it is known to be down.
    pub(super) fn why(&self) -> String {
        let evidence = self.lock().dispatch.evidence();
        self.because(&evidence).trim_start_matches("; ").to_owned()
    }

    /// By which kind of trouble most of all, if by any.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        self.lock().dispatch.evidence().mostly()
    }

    /// Probes go as soon as there is anything to deliver.
    pub(super) fn probe_now(self: &Arc<Self>) {
        self.change(Dispatch::probe_now);
    }

    /// The worker has left its partitions to others since then, and until then at most; or it has not.
    pub(super) fn stands_aside(&self, aside: Option<(LocalTime, LocalTime)>) {
        self.lock().aside = aside;
        self.metrics.stands_aside(aside.is_some());
    }

    /// At most this many calls of a kind run.
    pub(super) fn limit(&self, kind: Kind) -> usize {
        self.lock().dispatch.limit(kind)
    }

    pub(super) fn open_lane(&self, lane: u64, kind: Kind) {
        self.lock().dispatch.open_lane(lane, kind);
    }

    pub(super) fn close_lane(self: &Arc<Self>, lane: u64) {
        self.change(|dispatch, _| dispatch.close_lane(lane));
    }

    /// See [`Dispatch::all_hang`].
    pub(super) fn all_hang(&self, lanes: &[u64]) -> Option<usize> {
        let (inner, now) = (self.lock(), self.clock.now());
        inner.dispatch.all_hang(lanes, now)
    }

    pub(super) fn has_room(&self, lane: u64) -> bool {
        self.lock().dispatch.has_room(lane)
    }

    /// Takes a record, which begins when its turn has come: exactly one [`Event::Over`] follows.
    pub(super) fn arrive(self: &Arc<Self>, ticket: Ticket, job: Job) {
        self.change(|dispatch, _| dispatch.arrive(ticket, job));
    }

    /// Says that something may begin.
    pub(super) fn look(&self) {
        self.changed.notify_one();
    }

    /// The next call to be made.
    pub(super) fn next(self: &Arc<Self>) -> Option<Begun<Job>> {
        self.change(Dispatch::next)
    }

    /// A call has ended.
    pub(super) fn ended(self: &Arc<Self>, call: CallId, job: Job, outcome: Outcome) {
        self.change(|dispatch, now| dispatch.ended(call, job, outcome, now));
    }

    /// Waits until something may begin, or has to be looked after.
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

    /// Does something to the dispatch, passes on what has left it, and tells how the handler is.
    fn change<T>(self: &Arc<Self>, act: impl FnOnce(&mut Dispatch<Job>, LocalTime) -> T) -> T {
        let mut inner = self.lock();
        let now = self.clock.now();
        let done = act(&mut inner.dispatch, now);
        let over = inner.dispatch.take_over();
        self.tell(&mut inner, now);
        let wake_at = inner.dispatch.wake_at(now);
        let is_sooner = wake_at.is_some_and(|at| inner.looks_at.is_none_or(|planned| at < planned));
        drop(inner);
        if is_sooner {
            self.changed.notify_one();
        }
        for Over { mut job, fate, place } in over {
            let place = Place(place.map(|kind| (self.clone(), kind)));
            let verdict = job.verdict.take();
            // The loop is gone only when the worker has ended, and then nobody asks.
            let _ = job.events.send(Event::Over(job.id, verdict, fate, place));
        }
        done
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, inner: &mut Inner, now: LocalTime) {
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
                        "handler breaker is open: deliveries wait and burn no attempt; look at the handler{because}"
                    );
                }
            }
            Standing::Probing if !std::mem::replace(&mut inner.is_probed, true) => {
                tracing::info!(ladder, "handler breaker is half-open: a few deliveries probe the handler");
            }
            Standing::Up | Standing::Degraded { .. } if std::mem::take(&mut inner.is_down) => {
                inner.is_probed = false;
                tracing::info!(ladder, "handler breaker is closed: deliveries go on");
            }
            _ => tracing::debug!(ladder, ?standing, "handler's health changes"),
        }
    }
}

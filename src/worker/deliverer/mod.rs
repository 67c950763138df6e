//! The deliverer (push): consumes source and redeliver, calls the handler, and carries out the
//! decisions.
//!
//! One thread owns the consumer, the producer and the state of every partition. It never calls the handler itself: deliveries run
//! on the runtime and come back as events. So all decisions about a partition are made one after the other, and a late verdict
//! for a revoked partition is recognised by the token of its assignment and dropped.
//!
//! Deliveries finish in any order. Finished records are committed as a contiguous prefix with the set beyond it; failed ones
//! leave in a transaction that contains the same. As long as nothing fails there is no transaction at all, and none is open while
//! a handler runs.

mod aside;
mod batches;
mod caller;
mod dispatch;
mod handover;
mod places;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use tokio::runtime::Handle;

pub use crate::worker::deliverer::places::HandlerPlaces;

use crate::config::KafkaConfig;
use crate::core::dispatch::{Departure, Kind, Ticket};
use crate::core::envelope::{self, Envelope};
use crate::core::failure::{ErrorInfo, Verdict};
use crate::core::headers::Header;
use crate::core::ladder::Ladder;
use crate::core::leader_clock::LocalTime;
use crate::core::role::Role;
use crate::kafka::clock::Clock;
use crate::kafka::consumer::{ConsumerRecord, Fetch};
use crate::kafka::producer::HopProducer;
use crate::kafka::topic_consumers::TopicConsumers;
use crate::telemetry::events::DelivererMetrics;
use crate::telemetry::tally::Tally;
use crate::worker::clients::{Clients, Subscription};
use crate::worker::committer::{Committer, Parts, Polled, StartOutcome, Starts, Work};
use crate::worker::deliverer::aside::Aside;
use crate::worker::deliverer::dispatch::{Dispatcher, due_of};
use crate::worker::deliverer::handover::Handover;
use crate::worker::deliverer::places::{DeliveryJob, Event, Place, Uncalled};
use crate::worker::delivery::Delivery;
use crate::worker::dlq_breaker::DlqBreaker;
use crate::worker::error::WorkError;
use crate::worker::group::refuse_foreign_members;
use crate::worker::handler::Handler;
use crate::worker::hold::Hold;
use crate::worker::hop::content::{Content, RecordId};
use crate::worker::hop::targets::Targets;
use crate::worker::quiet::Quiet;
use crate::worker::supervisor::Presence;

/// Prefetch budget of a deliverer, over all partitions.
const PREFETCH_KIB: usize = 32 * 1024;

/// Maximum time between two iterations of the loop.
const TICK: Duration = Duration::from_millis(50);

/// If so many events came at once, more are on their way: the loop lets them come for this long, since being woken for each costs more than
/// handling it. Deliveries go on meanwhile with the records that were taken.
const MANY_EVENTS: usize = 8;
const BREATH: Duration = Duration::from_micros(500);

/// Interval of polling every queue, since a lost wake-up would otherwise leave records unread.
const LOOK_ANYWAY: Duration = Duration::from_millis(250);

/// Settings of a deliverer.
#[derive(Clone)]
pub struct DelivererSettings {
    /// The ladder.
    pub ladder: Arc<Ladder>,
    /// How to reach Kafka.
    pub kafka: KafkaConfig,
    /// The instance name of this worker, stable over restarts.
    pub instance: String,
    /// The delivery slots of the ladder.
    pub places: Arc<HandlerPlaces>,
    /// How long a shutdown or a revocation waits for deliveries in flight.
    pub drain: Duration,
    /// Whether the ladder is held.
    pub hold: Hold,
    /// Starts counted by this process.
    pub starts: Starts,
    /// The DLQ breaker; `None` if it is disabled.
    pub dlq_breaker: Option<Arc<DlqBreaker>>,
    /// Counts of its work, besides the metrics.
    pub tally: Tally,
    /// Whether deliveries may begin in this process.
    pub quiet: Quiet,
}

/// Delivers until it is stopped.
pub struct Deliverer<H> {
    ladder: Arc<Ladder>,
    instance: String,
    drain: Duration,
    hold: Hold,
    quiet: Quiet,
    clock: Clock,
    committer: Committer<Delivering>,
    places: Arc<HandlerPlaces>,
    dispatcher: Dispatcher<H>,
    /// Bounded by the number of records taken from Kafka.
    events: Receiver<Event>,
    sender: mpsc::Sender<Event>,
    waker: Waker,
    in_flight: HashMap<RecordId, Box<InFlight>>,
    handover: Option<Handover>,
    /// Calls that wait because their start cannot be committed now.
    uncounted: Vec<Uncalled>,
    aside: Aside,
    metrics: DelivererMetrics,
    look_at: LocalTime,
    /// Whether the last turn had many events.
    is_busy: bool,
}

/// The deliverer's types for its committer.
struct Delivering;

impl Work for Delivering {
    type Source = TopicConsumers;
    type Sink = HopProducer;
    type Lane = Intake;
    type Place = Place;
}

/// The deliverer's state of a partition of source or redeliver.
struct Intake {
    kind: Kind,
    token: u64,
    places: Arc<HandlerPlaces>,
    /// Whether its queue has records, as far as known.
    ready: Arc<AtomicBool>,
}

/// Records of a revoked partition that have not begun never will.
impl Drop for Intake {
    fn drop(&mut self) {
        self.places.close_lane(self.token);
    }
}

/// The loop's state of a record until its delivery is over.
struct InFlight {
    envelope: Envelope,
    content: Content,
}

/// Wakes the loop, once per iteration.
#[derive(Clone)]
struct Waker {
    events: mpsc::Sender<Event>,
    pending: Arc<AtomicBool>,
}

impl Waker {
    fn wake(&self) {
        if !self.pending.swap(true, Ordering::AcqRel) {
            let _ = self.events.send(Event::Arrived);
        }
    }
}

impl<H: Handler> Deliverer<H> {
    /// Connects and joins. Deliveries run on the runtime.
    ///
    /// # Errors
    /// A topic is missing or Kafka is not reachable.
    pub fn start(settings: &DelivererSettings, handler: Arc<H>, runtime: Handle) -> Result<Self, WorkError> {
        let ladder = settings.ladder.clone();
        let mut clients = Clients::new(&ladder, Role::Deliverer, &settings.kafka, &settings.instance);
        refuse_foreign_members(&mut clients.producer, &ladder, &settings.kafka)?;
        let targets = Targets::of_failed(&ladder, &mut clients.producer)?;
        let subscription = Subscription {
            group: ladder.group().to_owned(),
            topics: clients.counted(ladder.consumed_topics())?,
            prefetch_kib: PREFETCH_KIB,
            fetch: Fetch::AtOnce,
        };
        let source = clients.join(subscription, TopicConsumers::join, TopicConsumers::names)?;
        let Clients { clock, producer: sink, .. } = clients;

        let metrics = DelivererMetrics::new(&ladder).counted_by(&settings.tally);
        settings.places.set_stood_aside(None);
        let aside = Aside::new(settings.hold.handlers_down().contains(&settings.instance), &settings.kafka);
        let (sender, events) = mpsc::channel();
        let waker = Waker { events: sender.clone(), pending: Arc::new(AtomicBool::new(false)) };
        let dispatcher = Dispatcher::new(settings, runtime, handler, metrics.clone());
        let committer = Committer::new(Parts {
            ladder: ladder.clone(),
            role: Role::Deliverer,
            clock: clock.clone(),
            source,
            sink,
            targets,
            metrics: metrics.worker.clone(),
            hop_metrics: metrics.hops.clone(),
            starts: settings.starts.clone(),
            dlq_breaker: settings.dlq_breaker.clone(),
        });
        Ok(Self {
            ladder,
            instance: settings.instance.clone(),
            drain: settings.drain,
            hold: settings.hold.clone(),
            quiet: settings.quiet.clone(),
            clock,
            committer,
            places: settings.places.clone(),
            dispatcher,
            events,
            sender,
            waker,
            in_flight: HashMap::new(),
            handover: None,
            uncounted: Vec::new(),
            aside,
            metrics,
            look_at: LocalTime::from_micros(0),
            is_busy: false,
        })
    }

    /// Works until it is stopped, then waits for deliveries in flight, but at most until the drain
    /// deadline.
    ///
    /// # Errors
    /// It cannot continue; see [`WorkError`].
    pub fn run(&mut self, presence: &Presence) -> Result<(), WorkError> {
        let outcome = self.work(presence).map_err(|error| error.naming(self.ladder.name(), Role::Deliverer, &self.instance));
        if outcome.is_err() {
            self.let_handlers_end();
        }
        outcome
    }

    /// After a failure: the next owner, usually this worker recreated, must not call the handler while calls of this one are
    /// still running.
    fn let_handlers_end(&mut self) {
        self.committer.lanes.clear();
        let deadline = self.clock.now().later(self.drain);
        while !self.in_flight.is_empty() && self.clock.now() < deadline {
            for event in self.wait() {
                if let Event::Over(id, ..) = event {
                    self.in_flight.remove(&id);
                }
            }
        }
    }

    fn work(&mut self, presence: &Presence) -> Result<(), WorkError> {
        while !presence.stop.is_set() {
            // A rebalance event must be answered before the next one.
            if self.handover.is_none()
                && let Some(change) = self.committer.source.serve(Duration::ZERO)?
            {
                self.rebalance(change)?;
                if self.committer.source.have_joined() {
                    presence.joined();
                }
            }
            if self.handover.is_none() {
                self.look_whether_to_step_aside()?;
            }
            self.turn()?;
            self.release_drained()?;
        }
        self.end()
    }

    /// Waits for an event and handles it.
    fn turn(&mut self) -> Result<(), WorkError> {
        self.dispatcher.assert_whole();
        for event in self.wait() {
            self.take_event(event)?;
        }
        for uncalled in std::mem::take(&mut self.uncounted) {
            self.count_start(uncalled)?;
        }
        self.feed()?;
        self.committer.run_hops()?;
        self.committer.commit(false, self.places.enough_to_commit())?;
        self.places.settle();
        self.committer.idle();
        Ok(())
    }

    fn wait(&mut self) -> Vec<Event> {
        if std::mem::take(&mut self.is_busy) {
            std::thread::sleep(BREATH);
        }
        let longest = self.committer.markers_wait().map_or(TICK, |wait| wait.min(TICK));
        let first = self.events.recv_timeout(longest).ok();
        let events: Vec<Event> = first.into_iter().chain(self.events.try_iter()).collect();
        self.is_busy = events.len() >= MANY_EVENTS;
        events
    }

    fn take_event(&mut self, event: Event) -> Result<(), WorkError> {
        match event {
            Event::Arrived => self.waker.pending.store(false, Ordering::Release),
            Event::CountStart(uncalled) => self.count_start(uncalled)?,
            Event::Survived(id) => self.committer.survived(id),
            Event::Over(id, verdict, fate, place) => self.over(id, verdict, fate, place),
        }
        Ok(())
    }

    /// Counts the start of a record whose turn it is, and lets it be called.
    fn count_start(&mut self, uncalled: Uncalled) -> Result<(), WorkError> {
        let Some(id) = uncalled.id() else { return Ok(()) };
        // Records of partitions being released must not begin any more.
        if self.handover.as_ref().is_some_and(|handover| handover.is_of(id)) {
            self.in_flight.remove(&id);
            return Ok(());
        }
        match self.committer.count_start(id)? {
            StartOutcome::Begins => self.dispatcher.start(uncalled),
            StartOutcome::Gone => {
                self.in_flight.remove(&id);
            }
            StartOutcome::Later => self.uncounted.push(uncalled),
            StartOutcome::Buried(starts) => {
                if let Some(InFlight { envelope, content }) = self.in_flight.remove(&id).map(|record| *record) {
                    self.committer.bury(id, &envelope, content, starts);
                }
            }
        }
        Ok(())
    }

    /// A delivery is over.
    fn over(&mut self, id: RecordId, verdict: Option<Verdict>, fate: Departure, place: Place) {
        let Some(InFlight { envelope, content }) = self.in_flight.remove(&id).map(|record| *record) else { return };
        match (fate, verdict) {
            (Departure::Counts, Some(verdict)) => {
                if verdict.is_ok() && self.committer.lane_of(id.token).is_some() {
                    self.metrics.done_at(envelope.attempts.saturating_add(1));
                }
                self.committer.judge(id, &envelope, content, &verdict, place);
            }
            (Departure::Postponed, _) => self.committer.postpone(id, &envelope, content),
            // Its partition is revoked, and its next owner delivers it.
            (Departure::Dropped, _) | (Departure::Counts, None) => {}
        }
    }

    /// Takes records that have arrived, as far as there is room, each partition in turn.
    fn feed(&mut self) -> Result<(), WorkError> {
        let now = self.clock.now();
        let anyway = now >= self.look_at;
        if anyway {
            self.look_at = now.later(LOOK_ANYWAY);
        }
        // Records left in their queues until the ladder is resumed are polled then anyway.
        if self.hold.is_held() || self.quiet.is_asked() {
            return Ok(());
        }
        // Records whose hops cannot be written now must not accumulate: the number of taken records stays
        // bounded.
        if self.committer.moving() > self.places.most_hops() {
            return Ok(());
        }
        for index in self.committer.in_turn() {
            if anyway || self.committer.lanes[index].own.ready.load(Ordering::Acquire) {
                self.feed_lane(index)?;
            }
        }
        Ok(())
    }

    fn feed_lane(&mut self, index: usize) -> Result<(), WorkError> {
        let (mut reset, mut has_taken) = (false, false);
        while self.places.has_room(self.committer.lanes[index].token) && self.committer.has_room(index) {
            let polled = self.committer.poll(index)?;
            let ready = &self.committer.lanes[index].own.ready;
            match polled {
                Polled::Empty if reset => break,
                // Records that arrive between this poll and the next wake the loop again.
                Polled::Empty => {
                    ready.store(false, Ordering::Release);
                    reset = true;
                    continue;
                }
                Polled::Nothing => {}
                Polled::New(record) => {
                    self.take_record(index, &record);
                    has_taken = true;
                }
            }
            if std::mem::take(&mut reset) {
                self.committer.lanes[index].own.ready.store(true, Ordering::Release);
            }
        }
        if has_taken {
            self.places.look();
        }
        Ok(())
    }

    fn take_record(&mut self, index: usize, record: &ConsumerRecord) {
        let count_start = self.committer.is_to_be_counted(index);
        let lane = &self.committer.lanes[index];
        let id = RecordId { token: lane.token, offset: record.offset() };
        let kind = lane.own.kind;
        let at = record.coordinates(lane.tp());
        let envelope = match kind {
            // Services copy the headers of what they received onto what they produce, so on a source they mean
            // nothing.
            Kind::Source => Envelope::fresh(self.ladder.name(), &at),
            Kind::Redeliver => {
                let reading = Envelope::read(&self.ladder, &at, record.headers());
                if let Some(malformed) = reading.malformed {
                    self.metrics.worker.malformed_headers();
                    tracing::warn!(
                        partition = %lane.tp(), offset = id.offset, %malformed,
                        "envelope is not trusted, treating the record as new"
                    );
                }
                reading.envelope
            }
        };
        let content = Content::of(record).held_by(&self.committer.held);
        if let Some(fault) = content.fault {
            self.committer.unfit(id, envelope, content, fault);
            return;
        }
        let ticket = Ticket {
            lane: id.token,
            partition: hashed(&(&envelope.origin.topic, envelope.origin.partition)),
            record: hashed(&envelope.id),
            key: content.key.as_ref().map_or_else(|| hashed(&envelope.id), |key| hashed(&key)),
            failed_before: envelope.error.as_ref().filter(|_| envelope.attempts > 0).and_then(ErrorInfo::trouble),
            count_start,
        };
        let user = record.headers().filter(|(name, _)| !envelope::is_own(name));
        let user = user.map(|(name, value)| Header { name: name.to_vec(), value: value.map(<[u8]>::to_vec) }).collect();
        let delivery = Delivery::new(&envelope, &self.ladder, content.key.clone(), content.value.clone(), user);
        let due = (kind == Kind::Redeliver).then(|| due_of(&self.ladder, &envelope)).flatten();
        self.in_flight.insert(id, Box::new(InFlight { envelope, content }));
        let events = self.sender.clone();
        self.places.arrive(ticket, DeliveryJob::new(id, delivery, due, events));
    }
}

fn hashed(what: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

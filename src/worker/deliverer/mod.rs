//! The deliverer (push): consumes source and redeliver, calls the handler, and carries out what follows.
//!
//! One thread owns the consumer, the producer and the state of every partition. It never calls the handler itself: deliveries run
//! on the runtime and come back as events. So whatever decides over a partition happens one after the other, and a late verdict
//! for a partition that has moved is recognised by the token of its assignment and dropped.
//!
//! Deliveries finish in any order. What is done is committed as a contiguous prefix with the set beyond it; what failed leaves in
//! a transaction that carries the same. On the happy path there is no transaction at all, and none is open while a handler runs.

mod aside;
mod dispatch;
mod places;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use tokio::runtime::Handle;

pub use crate::worker::deliverer::places::HandlerPlaces;

use crate::config::{KafkaConfig, Role};
use crate::core::dispatch::{Fate, Kind, Ticket};
use crate::core::envelope::{self, Envelope};
use crate::core::failure::{ErrorInfo, Verdict};
use crate::core::headers::Header;
use crate::core::ladder::{Hops, Ladder};
use crate::core::leader_clock::LocalTime;
use crate::core::topics;
use crate::kafka::clock::Clock;
use crate::kafka::consumer::{Fetch, Membership, Rebalance, Record};
use crate::kafka::partition::TopicPartition;
use crate::kafka::producer::HopProducer;
use crate::kafka::topic_consumers::TopicConsumers;
use crate::telemetry::events::DelivererMetrics;
use crate::telemetry::standing::ClientMetrics;
use crate::telemetry::tally::Tally;
use crate::worker::committer::{Committer, Parts, Polled, Start, Starts, Work};
use crate::worker::deliverer::aside::Aside;
use crate::worker::deliverer::dispatch::{Dispatcher, due_of};
use crate::worker::deliverer::places::{Event, Job, Place, Uncalled};
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

/// The prefetch budget of a deliverer, all partitions together.
const PREFETCH_KIB: usize = 32 * 1024;

/// The loop looks after everything at least this often.
const TICK: Duration = Duration::from_millis(50);

/// A wake-up that got lost would leave records lying; so every queue is looked at this often anyway.
const LOOK_ANYWAY: Duration = Duration::from_millis(250);

/// What a deliverer needs to know.
#[derive(Clone)]
pub struct DelivererSettings {
    /// The ladder.
    pub ladder: Arc<Ladder>,
    /// How to reach Kafka.
    pub kafka: KafkaConfig,
    /// The name of this worker, stable over restarts.
    pub instance: String,
    /// Where deliveries wait for their turn at the handler.
    pub places: Arc<HandlerPlaces>,
    /// How long a shutdown or a revoked partition waits for deliveries in flight.
    pub drain: Duration,
    /// Whether the ladder is held.
    pub hold: Hold,
    /// What this process has begun with.
    pub starts: Starts,
    /// Where dead letters are held while there are too many; `None` where they never are.
    pub dlq_breaker: Option<Arc<DlqBreaker>>,
    /// Where what was done is counted, besides the metrics.
    pub tally: Tally,
    /// Whether deliveries may begin in this process.
    pub quiet: Quiet,
}

/// Delivers until it is told to stop.
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
    /// Bounded by what is taken from Kafka.
    events: Receiver<Event>,
    sender: mpsc::Sender<Event>,
    waker: Waker,
    in_flight: HashMap<RecordId, InFlight>,
    draining: Option<Draining>,
    /// What cannot be called yet because its start cannot be committed.
    uncounted: Vec<Uncalled>,
    aside: Aside,
    metrics: DelivererMetrics,
    look_at: LocalTime,
}

/// What a deliverer brings to its committer.
struct Delivering;

impl Work for Delivering {
    type Source = TopicConsumers;
    type Sink = HopProducer;
    type Lane = Intake;
    type Place = Place;
}

/// What a deliverer keeps of a partition of source or redeliver.
struct Intake {
    kind: Kind,
    token: u64,
    places: Arc<HandlerPlaces>,
    /// Whether its queue has something, as far as is known.
    ready: Arc<AtomicBool>,
}

/// What has not begun of a partition that goes never does.
impl Drop for Intake {
    fn drop(&mut self) {
        self.places.close_lane(self.token);
    }
}

/// What the loop keeps of a record until its delivery is over.
struct InFlight {
    envelope: Envelope,
    content: Content,
}

/// Partitions that go: nothing of them begins any more, and what is with the handler is waited for. All others are worked on meanwhile.
struct Draining {
    partitions: Vec<TopicPartition>,
    tokens: Vec<u64>,
    deadline: LocalTime,
}

/// Wakes the loop, once until it has looked.
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
    /// When a topic is missing or Kafka is not reachable.
    pub fn start(settings: &DelivererSettings, handler: Arc<H>, runtime: Handle) -> Result<Self, WorkError> {
        let ladder = settings.ladder.clone();
        let clock = Clock::system();
        let transactional = (ladder.hops() == Hops::ExactlyOnce)
            .then(|| topics::transactional_id(ladder.name(), "deliverer", &settings.instance));
        let clients = ClientMetrics::new(&ladder, Role::Deliverer);
        let mut producer = HopProducer::new(&settings.kafka, transactional, 500_000, clock.clone()).measured_by(&clients);
        refuse_foreign_members(&mut producer, &ladder, &settings.kafka)?;
        let targets = Targets::of_failed(&ladder, &mut producer)?;
        let mut partitions = 0;
        let mut membership = Membership {
            group: ladder.group().to_owned(),
            instance: settings.instance.clone(),
            topics: ladder.consumed_topics(),
            prefetch_kib: PREFETCH_KIB,
            partitions: 1,
            fetch: Fetch::AtOnce,
        };
        for topic in &membership.topics {
            partitions += producer.partition_count(topic)?;
        }
        membership.partitions = usize::try_from(partitions).unwrap_or(1);
        let consumers = TopicConsumers::join(&settings.kafka, &membership, &clients)?;
        producer.made_anew_only_as(consumers.names());

        let metrics = DelivererMetrics::new(&ladder).counted_by(&settings.tally);
        settings.places.stands_aside(None);
        let aside = Aside::new(settings.hold.handlers_down().contains(&settings.instance), &settings.kafka);
        let (sender, events) = mpsc::channel();
        let waker = Waker { events: sender.clone(), pending: Arc::new(AtomicBool::new(false)) };
        let dispatcher = Dispatcher::new(settings, runtime, handler, metrics.clone());
        let committer = Committer::new(Parts {
            ladder: ladder.clone(),
            role: "deliverer",
            clock: clock.clone(),
            source: consumers,
            sink: producer,
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
            draining: None,
            uncounted: Vec::new(),
            aside,
            metrics,
            look_at: LocalTime::from_micros(0),
        })
    }

    /// Works until it is told to stop, then waits for what is in flight, no longer than the drain deadline.
    ///
    /// # Errors
    /// When it cannot go on; see [`WorkError`].
    pub fn run(&mut self, presence: &Presence) -> Result<(), WorkError> {
        let outcome = self.work(presence).map_err(|error| error.naming(self.ladder.name(), "deliverer", &self.instance));
        if outcome.is_err() {
            self.let_handlers_end();
        }
        outcome
    }

    /// After a failure: whoever takes over, this worker made anew above all, must not call the handler beside those calls that
    /// still run.
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
            // A change that was told is to be answered before the next.
            if self.draining.is_none()
                && let Some(change) = self.committer.source.serve(Duration::ZERO)?
            {
                self.rebalance(change)?;
                if self.committer.source.have_joined() {
                    presence.joined();
                }
            }
            if self.draining.is_none() {
                self.look_whether_to_step_aside()?;
            }
            self.turn()?;
            self.release_drained()?;
        }
        self.end()
    }

    /// Waits for something to happen and does what follows.
    fn turn(&mut self) -> Result<(), WorkError> {
        for event in self.wait() {
            self.take_event(event)?;
        }
        for uncalled in std::mem::take(&mut self.uncounted) {
            self.count_start(uncalled)?;
        }
        self.feed()?;
        self.committer.run_hops()?;
        self.commit(false)?;
        self.committer.idle();
        Ok(())
    }

    fn wait(&mut self) -> Vec<Event> {
        let longest = self.committer.markers_wait().map_or(TICK, |wait| wait.min(TICK));
        let first = self.events.recv_timeout(longest).ok();
        first.into_iter().chain(self.events.try_iter()).collect()
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
        // Nothing of what is given back begins any more.
        if self.draining.as_ref().is_some_and(|draining| draining.tokens.contains(&id.token)) {
            self.in_flight.remove(&id);
            return Ok(());
        }
        match self.committer.count_start(id)? {
            Start::Begins => self.dispatcher.start(uncalled),
            Start::Gone => {
                self.in_flight.remove(&id);
            }
            Start::Later => self.uncounted.push(uncalled),
            Start::Buried(starts) => {
                if let Some(InFlight { envelope, content }) = self.in_flight.remove(&id) {
                    self.committer.bury(id, &envelope, content, starts);
                }
            }
        }
        Ok(())
    }

    /// A delivery is over.
    fn over(&mut self, id: RecordId, verdict: Option<Verdict>, fate: Fate, place: Place) {
        let Some(InFlight { envelope, content }) = self.in_flight.remove(&id) else { return };
        match (fate, verdict) {
            (Fate::Counts, Some(verdict)) => {
                if verdict.is_ok() && self.committer.lane_of(id.token).is_some() {
                    self.metrics.done_at(envelope.attempts.saturating_add(1));
                }
                self.committer.judge(id, &envelope, content, &verdict, place);
            }
            (Fate::Postponed, _) => self.committer.postpone(id, &envelope, content),
            // Its partition goes, and its next owner delivers it.
            (Fate::Dropped, _) | (Fate::Counts, None) => {}
        }
    }

    /// Takes what has arrived, as far as there is room, each partition in turn.
    fn feed(&mut self) -> Result<(), WorkError> {
        let now = self.clock.now();
        let anyway = now >= self.look_at;
        if anyway {
            self.look_at = now.later(LOOK_ANYWAY);
        }
        // What stays in its queue until the ladder is released will be looked at anyway.
        if self.hold.is_held() || self.quiet.is_asked() {
            return Ok(());
        }
        // Records whose hops cannot be written at the moment do not pile up: what is taken stays bounded.
        if self.committer.moving() > self.places.limit(Kind::Source) * 4 {
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
                // What arrives between this look and the next one wakes the loop again.
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

    fn take_record(&mut self, index: usize, record: &Record) {
        let count_start = self.committer.is_to_be_counted(index);
        let lane = &self.committer.lanes[index];
        let id = RecordId { token: lane.token, offset: record.offset() };
        let kind = lane.own.kind;
        let at = record.coordinates(lane.tp());
        let envelope = match kind {
            // Services copy the headers of what they received onto what they produce, so on a source they say nothing.
            Kind::Source => Envelope::fresh(self.ladder.name(), &at),
            Kind::Redeliver => {
                let reading = Envelope::read(&self.ladder, &at, record.headers());
                if let Some(malformed) = reading.malformed {
                    self.metrics.worker.malformed_headers();
                    tracing::warn!(
                        partition = %lane.tp(), offset = id.offset, %malformed,
                        "envelope is not trusted, the record starts afresh"
                    );
                }
                reading.envelope
            }
        };
        let content = Content::of(record);
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
        self.in_flight.insert(id, InFlight { envelope, content });
        let events = self.sender.clone();
        self.places.arrive(ticket, Job { id, delivery, due, verdict: None, repeats: 0, resets: 0, is_counted: false, events });
    }

    fn rebalance(&mut self, change: Rebalance) -> Result<(), WorkError> {
        self.metrics.worker.rebalanced();
        match change {
            Rebalance::Assigned(partitions) => {
                self.take_over(partitions)?;
                self.tell_owned();
            }
            Rebalance::Revoked { partitions, lost: true } => {
                tracing::warn!(ladder = self.ladder.name(), "partitions were lost: what was in flight is their next owner's");
                self.give_back(&partitions)?;
            }
            Rebalance::Revoked { partitions, lost: false } => {
                self.begin_to_drain(partitions);
                self.release_drained()?;
            }
        }
        Ok(())
    }

    fn tell_owned(&self) {
        tracing::info!(ladder = self.ladder.name(), partitions = self.committer.lanes.len(), "deliverer owns");
    }

    fn take_over(&mut self, partitions: Vec<TopicPartition>) -> Result<(), WorkError> {
        let flags: Vec<Arc<AtomicBool>> = partitions.iter().map(|_| Arc::new(AtomicBool::new(true))).collect();
        let waking = std::cell::RefCell::new(flags.clone().into_iter());
        let wake = || -> Box<dyn Fn() + Send + Sync> {
            let waker = self.waker.clone();
            let ready = waking.borrow_mut().next().unwrap_or_default();
            Box::new(move || {
                ready.store(true, Ordering::Release);
                waker.wake();
            })
        };
        let redeliver = self.ladder.redeliver_topic();
        let mut flags = flags.into_iter();
        self.committer.take_over(partitions, Some(&wake), |tp, token| {
            let kind = if *tp.topic == *redeliver { Kind::Redeliver } else { Kind::Source };
            self.places.open_lane(token, kind);
            Intake { kind, token, places: self.places.clone(), ready: flags.next().unwrap_or_default() }
        })
    }

    /// Nothing of these partitions begins any more.
    fn begin_to_drain(&mut self, partitions: Vec<TopicPartition>) {
        let tokens = self.committer.tokens_of(&partitions);
        for token in &tokens {
            self.places.close_lane(*token);
        }
        self.draining = Some(Draining { partitions, tokens, deadline: self.clock.now().later(self.drain) });
    }

    /// Gives partitions away once they are drained.
    fn release_drained(&mut self) -> Result<(), WorkError> {
        let Some(Draining { partitions, .. }) = self.take_drained()? else { return Ok(()) };
        self.give_back(&partitions)?;
        self.leave_when_drained();
        Ok(())
    }

    /// What goes, once nothing of it is with the handler or on its way and what became of its records is committed, or when that has been
    /// waited for long enough. A commit that is still on its way keeps the next from being sent, and what is not committed is delivered
    /// again by the next owner; of a member that gives partitions back it is answered soon.
    fn take_drained(&mut self) -> Result<Option<Draining>, WorkError> {
        if !self.draining.as_ref().is_some_and(|draining| self.is_drained(draining)) {
            return Ok(None);
        }
        let Some(draining) = self.draining.take() else { return Ok(None) };
        self.committer.end_in_good_order(&draining.tokens);
        self.commit(true)?;
        let may_wait = self.clock.now() < draining.deadline && !self.committer.source.assignment_lost();
        if may_wait && self.committer.has_commit_on_its_way(&draining.partitions) {
            self.draining = Some(draining);
            return Ok(None);
        }
        Ok(Some(draining))
    }

    fn is_drained(&self, draining: &Draining) -> bool {
        let Draining { tokens, deadline, .. } = draining;
        if self.clock.now() >= *deadline || self.committer.source.assignment_lost() {
            return true;
        }
        let in_flight = self.in_flight.keys().filter(|id| tokens.contains(&id.token)).count();
        !self.committer.is_moving(tokens) && (in_flight == 0 || self.starves_beside(tokens, in_flight))
    }

    /// Whether partitions stay and all that is waited for hangs. As long as partitions are to be given back, librdkafka fetches nothing for
    /// those that stay either (`rd_kafka_rebalance_op_incr` pauses the whole assignment), so what hangs is left to their next owner.
    fn starves_beside(&self, tokens: &[u64], in_flight: usize) -> bool {
        let mut lanes = self.committer.lanes.iter();
        lanes.any(|lane| !tokens.contains(&lane.token) && lane.own.kind == Kind::Source)
            && self.places.all_hang(tokens) == Some(in_flight)
    }

    /// Those still in flight keep their places until their handlers answer.
    fn give_back(&mut self, partitions: &[TopicPartition]) -> Result<(), WorkError> {
        self.committer.give_back(partitions)?;
        self.tell_owned();
        Ok(())
    }

    /// Drains all partitions, and commits.
    fn end(&mut self) -> Result<(), WorkError> {
        let deadline = self.draining.take().map(|draining| draining.deadline);
        self.begin_to_drain(self.committer.owned());
        if let (Some(draining), Some(deadline)) = (&mut self.draining, deadline) {
            draining.deadline = draining.deadline.min(deadline);
        }
        while self.draining.is_some() && self.take_drained()?.is_none() {
            self.turn()?;
        }
        Ok(())
    }

    fn commit(&mut self, at_once: bool) -> Result<(), WorkError> {
        self.committer.commit(at_once, (self.places.limit(Kind::Source) / 2).max(1))
    }
}

fn hashed(what: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

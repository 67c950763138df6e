//! The deliverer (push): consumes source and redeliver, calls the handler, and carries out what follows.
//!
//! One thread owns the consumer, the producer and the state of every partition. It never calls the handler itself: deliveries run
//! on the runtime and come back as events. So whatever decides over a partition happens one after the other, and a late verdict
//! for a partition that has moved is recognised by the token of its assignment and dropped.
//!
//! Deliveries finish in any order. What is done is committed as a contiguous prefix with the set beyond it; what failed leaves in
//! a transaction that carries the same. On the happy path there is no transaction at all, and none is open while a handler runs.

mod dispatch;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use tokio::runtime::Handle;

use crate::config::{KafkaConfig, Role};
use crate::core::envelope::{self, Envelope};
use crate::core::failure::Verdict;
use crate::core::headers::Header;
use crate::core::ladder::{Hops, Ladder};
use crate::core::leader_clock::LocalTime;
use crate::core::topics;
use crate::kafka::clock::Clock;
use crate::kafka::consumer::{Fetch, GroupConsumer, Membership, Rebalance, Record, TopicPartition};
use crate::kafka::producer::HopProducer;
use crate::telemetry::events::DelivererMetrics;
use crate::telemetry::standing::ClientMetrics;
use crate::telemetry::tally::Tally;
use crate::worker::breaker::HandlerBreaker;
use crate::worker::committer::{Committer, Content, Parts, Polled, RecordId, Starts, Targets, Work};
use crate::worker::deliverer::dispatch::{Dispatcher, Event, Gate, Job, Kind, Slots, due_of};
use crate::worker::delivery::Delivery;
use crate::worker::dlq_breaker::DlqBreaker;
use crate::worker::error::WorkError;
use crate::worker::group::refuse_foreign_members;
use crate::worker::handler::Handler;
use crate::worker::hold::Hold;
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
    /// How many deliveries are open at most.
    pub max_in_flight: usize,
    /// The share of them that redeliveries may take.
    pub redeliver_share: f64,
    /// Where deliveries wait while the handler is down.
    pub breaker: Option<Arc<HandlerBreaker>>,
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
    dispatcher: Dispatcher<H>,
    /// Bounded by what is taken from Kafka.
    events: Receiver<Event>,
    waker: Waker,
    in_flight: HashMap<RecordId, InFlight>,
    taken: [usize; 2],
    metrics: DelivererMetrics,
    look_at: LocalTime,
}

/// What a deliverer brings to its committer.
struct Delivering;

impl Work for Delivering {
    type Source = GroupConsumer;
    type Sink = HopProducer;
    type Lane = Intake;
    type Place = Slots;
}

/// What a deliverer keeps of a partition of source or redeliver.
struct Intake {
    kind: Kind,
    gate: Arc<Gate>,
    /// Whether its queue has something, as far as is known.
    ready: Arc<AtomicBool>,
}

/// What has not begun of a partition that goes never does.
impl Drop for Intake {
    fn drop(&mut self) {
        self.gate.close();
    }
}

/// What the loop keeps of a record while its handler runs.
struct InFlight {
    envelope: Envelope,
    content: Content,
    kind: Kind,
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
        let targets = Targets::look_up(&mut producer, &ladder)?;
        let mut consumed: Vec<String> = ladder.sources().to_vec();
        consumed.push(ladder.redeliver_topic());
        let mut partitions = 0;
        let mut membership = Membership {
            group: ladder.group().to_owned(),
            instance: settings.instance.clone(),
            topics: consumed,
            prefetch_kib: PREFETCH_KIB,
            partitions: 1,
            fetch: Fetch::AtOnce,
        };
        for topic in &membership.topics {
            partitions += producer.partition_count(topic)?;
        }
        membership.partitions = usize::try_from(partitions).unwrap_or(1);
        let consumer = GroupConsumer::join(&settings.kafka, &membership, &clients)?;
        producer.made_anew_only_as(consumer.name());

        let metrics = DelivererMetrics::new(&ladder).counted_by(&settings.tally);
        let (sender, events) = mpsc::channel();
        let waker = Waker { events: sender.clone(), pending: Arc::new(AtomicBool::new(false)) };
        let dispatcher = Dispatcher::new(settings, runtime, handler, sender, metrics.clone());
        let committer = Committer::new(Parts {
            ladder: ladder.clone(),
            role: "deliverer",
            clock: clock.clone(),
            source: consumer,
            sink: producer,
            targets,
            metrics: metrics.worker.clone(),
            hop_metrics: metrics.hops.clone(),
            starts: settings.starts.clone(),
            dlq_breaker: settings.dlq_breaker.clone(),
            most_at_once: settings.max_in_flight,
        });
        Ok(Self {
            ladder,
            instance: settings.instance.clone(),
            drain: settings.drain,
            hold: settings.hold.clone(),
            quiet: settings.quiet.clone(),
            clock,
            committer,
            dispatcher,
            events,
            waker,
            in_flight: HashMap::new(),
            taken: [0, 0],
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
            self.wait();
        }
    }

    fn work(&mut self, presence: &Presence) -> Result<(), WorkError> {
        while !presence.stop.is_set() {
            if let Some(change) = self.committer.source.serve(Duration::ZERO)? {
                self.rebalance(change)?;
                presence.joined();
            }
            self.wait();
            self.feed()?;
            self.committer.run_hops()?;
            self.commit(false)?;
            self.committer.idle();
        }
        self.drain(&self.committer.owned())
    }

    fn wait(&mut self) {
        let longest = self.committer.markers_wait().map_or(TICK, |wait| wait.min(TICK));
        let mut event = self.events.recv_timeout(longest).ok();
        while let Some(next) = event {
            self.take_event(next);
            event = self.events.try_recv().ok();
        }
    }

    fn take_event(&mut self, event: Event) {
        match event {
            Event::Arrived => self.waker.pending.store(false, Ordering::Release),
            Event::Over(id, verdict, slots) => self.over(id, verdict, slots),
        }
    }

    /// A delivery is over.
    fn over(&mut self, id: RecordId, verdict: Option<Verdict>, slots: Slots) {
        let Some(record) = self.in_flight.remove(&id) else { return };
        self.taken[record.kind as usize] -= 1;
        let Some(verdict) = verdict else { return };
        let lane = self.committer.lane_of(id.token);
        let (is_ours, drained) = (lane.is_some(), lane.is_some_and(|lane| lane.own.gate.is_shut()));
        if drained && verdict.as_ref().is_err_and(|f| f.is_connection_lost() || f.is_unsent()) {
            // Whoever stops us may have stopped the handler too: that is no failed attempt. The next owner delivers it.
            return;
        }
        if verdict.is_ok() && is_ours {
            self.metrics.done_at(record.envelope.attempts.saturating_add(1));
        }
        self.committer.judge(id, &record.envelope, record.content, &verdict, slots);
    }

    /// Takes what has arrived, as far as the budgets reach, each partition in turn.
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
        if self.committer.moving() > self.dispatcher.most_taken(Kind::Source) * 2 {
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
        let mut reset = false;
        loop {
            let kind = self.committer.lanes[index].own.kind;
            let room = self.taken[kind as usize] < self.dispatcher.most_taken(kind);
            if !room || !self.committer.has_room(index) {
                return Ok(());
            }
            let polled = self.committer.poll(index)?;
            let ready = &self.committer.lanes[index].own.ready;
            match polled {
                Polled::Empty if reset => return Ok(()),
                // What arrives between this look and the next one wakes the loop again.
                Polled::Empty => {
                    ready.store(false, Ordering::Release);
                    reset = true;
                    continue;
                }
                Polled::Nothing => {}
                Polled::New(record) => self.take_record(index, &record),
            }
            if std::mem::take(&mut reset) {
                self.committer.lanes[index].own.ready.store(true, Ordering::Release);
            }
        }
    }

    fn take_record(&mut self, index: usize, record: &Record) {
        let lane = &self.committer.lanes[index];
        let (kind, gate) = (lane.own.kind, lane.own.gate.clone());
        let id = RecordId { token: lane.token, offset: record.offset() };
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
        if let Some(starts) = self.committer.too_many_starts(index) {
            self.committer.bury(id, &envelope, content, starts);
            return;
        }
        let user = record.headers().filter(|(name, _)| !envelope::is_own(name));
        let user = user.map(|(name, value)| Header { name: name.to_vec(), value: value.map(<[u8]>::to_vec) }).collect();
        let delivery = Delivery::new(&envelope, &self.ladder, content.key.clone(), content.value.clone(), user);
        let due = (kind == Kind::Redeliver).then(|| due_of(&self.ladder, &envelope)).flatten();
        self.taken[kind as usize] += 1;
        self.in_flight.insert(id, InFlight { envelope, content, kind });
        self.dispatcher.dispatch(Job { id, kind, delivery, gate, due });
    }

    fn rebalance(&mut self, change: Rebalance) -> Result<(), WorkError> {
        self.metrics.worker.rebalanced();
        match change {
            Rebalance::Assigned(partitions) => self.take_over(partitions)?,
            Rebalance::Revoked { partitions, lost } => {
                if lost {
                    tracing::warn!(ladder = self.ladder.name(), "partitions were lost: what was in flight is their next owner's");
                } else {
                    self.drain(&partitions)?;
                }
                // Those still in flight are counted until their handlers answer: they take up slots until then.
                self.committer.give_back(&partitions)?;
            }
        }
        tracing::info!(ladder = self.ladder.name(), partitions = self.committer.lanes.len(), "deliverer owns");
        Ok(())
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
        self.committer.take_over(partitions, Some(&wake), |tp| Intake {
            kind: if *tp.topic == *redeliver { Kind::Redeliver } else { Kind::Source },
            gate: Arc::default(),
            ready: flags.next().unwrap_or_default(),
        })
    }

    /// Waits for the deliveries in flight of these partitions, no longer than the deadline, carries out what follows and commits.
    fn drain(&mut self, partitions: &[TopicPartition]) -> Result<(), WorkError> {
        let tokens = self.committer.tokens_of(partitions);
        for lane in self.committer.lanes.iter().filter(|lane| tokens.contains(&lane.token)) {
            lane.own.gate.close();
        }
        let deadline = self.clock.now().later(self.drain);
        while self.clock.now() < deadline {
            self.committer.run_hops()?;
            let open = self.in_flight.keys().any(|id| tokens.contains(&id.token));
            if (!open && !self.committer.is_moving(&tokens)) || self.committer.source.assignment_lost() {
                break;
            }
            self.wait();
            // What is done holds its place in flight until it is committed, and partitions that stay go on meanwhile.
            self.commit(false)?;
        }
        self.committer.end_in_good_order(&tokens);
        self.commit(true)
    }

    fn commit(&mut self, at_once: bool) -> Result<(), WorkError> {
        self.committer.commit(at_once, self.dispatcher.most_unsettled())
    }
}

//! The deliverer (push): consumes source and redeliver, calls the handler, and carries out what follows.
//!
//! One thread owns the consumer, the producer and the state of every partition. It never calls the handler itself: deliveries run
//! on the runtime and come back as events. So whatever decides over a partition happens one after the other, and a late verdict
//! for a partition that has moved is recognised by the token of its assignment and dropped.
//!
//! Deliveries finish in any order. What is done is committed as a contiguous prefix with the set beyond it; what failed leaves in
//! a transaction that carries the same. On the happy path there is no transaction at all, and none is open while a handler runs.

mod barred;
mod dispatch;
mod hops;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;

use crate::config::KafkaConfig;
use crate::core::ack_tracker::{AckTracker, Arrival, CommitPoint};
use crate::core::decide::Decision;
use crate::core::envelope::{self, Envelope};
use crate::core::failure::Verdict;
use crate::core::headers::Header;
use crate::core::ladder::{Hops, Ladder};
use crate::core::leader_clock::LocalTime;
use crate::core::time::Timestamp;
use crate::core::topics;
use crate::kafka::clock::Clock;
use crate::kafka::consumer::{GroupConsumer, Membership, Next, PartitionQueue, Rebalance, Record, TopicPartition};
use crate::kafka::producer::{HopProducer, TopicId};
use crate::telemetry::events::DelivererMetrics;
use crate::worker::backoff::Backoff;
use crate::worker::deliverer::barred::BarredTopics;
use crate::worker::deliverer::dispatch::{Dispatcher, Event, Gate, Job, Kind, RecordId, Slots, due_of};
use crate::worker::deliverer::hops::{Content, Hop, Target, Targets};
use crate::worker::delivery::Delivery;
use crate::worker::error::WorkError;
use crate::worker::group::refuse_foreign_members;
use crate::worker::handler::Handler;
use crate::worker::leaders::Leaders;
use crate::worker::positions::committed_positions;
use crate::worker::supervisor::Presence;

/// The prefetch budget of a deliverer, all partitions together.
const PREFETCH_KIB: usize = 32 * 1024;

/// What is done is committed at the latest after this.
const COMMIT_INTERVAL: Duration = Duration::from_millis(200);

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
    /// How long a shutdown or a revoked partition waits for deliveries in flight.
    pub drain: Duration,
}

/// Delivers until it is told to stop.
pub struct Deliverer<H> {
    ladder: Arc<Ladder>,
    instance: String,
    redeliver_topic: String,
    drain: Duration,
    clock: Clock,
    consumer: GroupConsumer,
    producer: HopProducer,
    targets: Targets,
    leaders: Leaders,
    lanes: Vec<Lane>,
    next_token: u64,
    dispatcher: Dispatcher<H>,
    /// Bounded by what is taken from Kafka.
    events: Receiver<Event>,
    waker: Waker,
    in_flight: HashMap<RecordId, InFlight>,
    taken: [usize; 2],
    hops: Vec<Hop>,
    /// How many of them stand still.
    standing: usize,
    barred: BarredTopics,
    /// Of deliveries that are done with and not committed yet.
    unsettled: Vec<Slots>,
    metrics: DelivererMetrics,
    /// No transaction before then, after one failed.
    backoff: Backoff,
    /// The client gave the last transaction up; the first time, it is begun again at once.
    given_up: bool,
    commit_at: LocalTime,
    look_at: LocalTime,
    turn: usize,
}

/// A partition of source or redeliver that this member owns.
struct Lane {
    queue: PartitionQueue,
    kind: Kind,
    /// Names this assignment: a record that carries another one is not ours any more.
    token: u64,
    tracker: AckTracker,
    committed: CommitPoint,
    gate: Arc<Gate>,
    /// Whether its queue has something, as far as is known.
    ready: Arc<AtomicBool>,
    /// A record of it can be written nowhere: nothing new is taken.
    standstill: bool,
}

/// What has not begun of a lane that goes never does.
impl Drop for Lane {
    fn drop(&mut self) {
        self.gate.close();
    }
}

impl Lane {
    fn tp(&self) -> &TopicPartition {
        self.queue.partition()
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
        let mut producer = HopProducer::new(&settings.kafka, transactional, 500_000, clock.clone());
        refuse_foreign_members(&mut producer, &ladder, &settings.kafka)?;
        let tiers: Vec<TopicId> = ladder.tiers().iter().map(|t| producer.topic(t.topic())).collect();
        let dlq = producer.topic(&ladder.dlq_topic());
        let counts = producer.partition_counts()?;
        let counted = |id: TopicId| (id, counts[&id]);
        let targets = Targets { tiers: tiers.into_iter().map(counted).collect(), dlq: counted(dlq) };

        let mut consumed: Vec<String> = ladder.sources().to_vec();
        consumed.push(ladder.redeliver_topic());
        let mut partitions = 0;
        let mut membership = Membership {
            group: ladder.group().to_owned(),
            instance: settings.instance.clone(),
            topics: consumed,
            prefetch_kib: PREFETCH_KIB,
            partitions: 1,
        };
        for topic in &membership.topics {
            partitions += producer.partition_count(topic)?;
        }
        membership.partitions = usize::try_from(partitions).unwrap_or(1);
        let consumer = GroupConsumer::join(&settings.kafka, &membership)?;

        let metrics = DelivererMetrics::new(&ladder);
        let (sender, events) = mpsc::channel();
        let waker = Waker { events: sender.clone(), pending: Arc::new(AtomicBool::new(false)) };
        let (most, share) = (settings.max_in_flight, settings.redeliver_share);
        let dispatcher = Dispatcher::new(ladder.name(), runtime, handler, most, share, sender, metrics.clone());
        let zero = LocalTime::from_micros(0);
        Ok(Self {
            redeliver_topic: ladder.redeliver_topic(),
            ladder,
            instance: settings.instance.clone(),
            drain: settings.drain,
            clock,
            consumer,
            producer,
            targets,
            leaders: Leaders::default(),
            lanes: Vec::new(),
            next_token: 1,
            dispatcher,
            events,
            waker,
            in_flight: HashMap::new(),
            taken: [0, 0],
            hops: Vec::new(),
            standing: 0,
            barred: BarredTopics::default(),
            unsettled: Vec::new(),
            metrics,
            backoff: Backoff::new(),
            given_up: false,
            commit_at: zero,
            look_at: zero,
            turn: 0,
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
        self.lanes.clear();
        let deadline = self.clock.now().later(self.drain);
        while !self.in_flight.is_empty() && self.clock.now() < deadline {
            self.wait();
        }
    }

    fn work(&mut self, presence: &Presence) -> Result<(), WorkError> {
        while !presence.stop.is_set() {
            if let Some(change) = self.consumer.serve(Duration::ZERO)? {
                self.rebalance(change)?;
                presence.joined();
            }
            self.wait();
            self.feed()?;
            self.run_hops()?;
            self.commit(false)?;
            self.producer.idle();
        }
        let owned: Vec<TopicPartition> = self.lanes.iter().map(|lane| lane.tp().clone()).collect();
        self.drain(&owned)
    }

    fn wait(&mut self) {
        let mut event = self.events.recv_timeout(TICK).ok();
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

    /// A delivery is over: decides, notes what is finished and queues what has to hop.
    fn over(&mut self, id: RecordId, verdict: Option<Verdict>, slots: Slots) {
        let Some(record) = self.in_flight.remove(&id) else { return };
        self.taken[record.kind as usize] -= 1;
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.token == id.token) else {
            tracing::debug!(ladder = self.ladder.name(), "late verdict for a partition that has moved");
            return;
        };
        let Some(verdict) = verdict else { return };
        if lane.gate.is_shut() && verdict.as_ref().is_err_and(|f| f.is_connection_lost() || f.is_unsent()) {
            // Whoever stops us may have stopped the handler too: that is no failed attempt. The next owner delivers it.
            return;
        }
        let now = self.clock.now();
        let broker_now = Timestamp::from_millis(self.leaders.now(-1, now).div_euclid(1_000));
        let decision = self.ladder.decide(&record.envelope, &verdict, broker_now);
        tracing::debug!(
            ladder = self.ladder.name(),
            attempt = record.envelope.attempts + 1,
            decision = decision.name(),
            "decided"
        );
        match decision {
            Decision::Complete => {
                lane.tracker.finish(id.offset);
                self.unsettled.push(slots);
            }
            Decision::Hop { tier, envelope } => {
                self.hops.push(Hop::new(id, Target::Tier(tier), *envelope, record.content, slots));
            }
            Decision::DeadLetter { reason, envelope } => {
                self.hops.push(Hop::new(id, Target::Dlq(reason), *envelope, record.content, slots));
            }
        }
    }

    /// Takes what has arrived, as far as the budgets reach, each partition in turn.
    fn feed(&mut self) -> Result<(), WorkError> {
        let now = self.clock.now();
        let anyway = now >= self.look_at;
        if anyway {
            self.look_at = now.later(LOOK_ANYWAY);
        }
        // Records whose hops cannot be written at the moment do not pile up: what is taken stays bounded.
        if self.lanes.is_empty() || self.hops.len().saturating_sub(self.standing) > self.dispatcher.most_taken(Kind::Source) * 2 {
            return Ok(());
        }
        self.turn = (self.turn + 1) % self.lanes.len();
        for i in 0..self.lanes.len() {
            let index = (self.turn + i) % self.lanes.len();
            let lane = &self.lanes[index];
            if anyway || lane.ready.load(Ordering::Acquire) {
                self.feed_lane(index)?;
            }
        }
        Ok(())
    }

    fn feed_lane(&mut self, index: usize) -> Result<(), WorkError> {
        let mut reset = false;
        loop {
            let lane = &mut self.lanes[index];
            let room = self.taken[lane.kind as usize] < self.dispatcher.most_taken(lane.kind);
            if lane.standstill || !room || !lane.tracker.has_room() {
                return Ok(());
            }
            match lane.queue.poll() {
                None if reset => return Ok(()),
                // What arrives between this look and the next one wakes the loop again.
                None => {
                    lane.ready.store(false, Ordering::Release);
                    reset = true;
                }
                Some(next) => {
                    if reset {
                        lane.ready.store(true, Ordering::Release);
                        reset = false;
                    }
                    match next {
                        Next::Record(record) => self.take_record(index, &record),
                        Next::End(offset) => lane.tracker.reach_end(offset),
                        Next::OffsetLost => return Err(WorkError::offset_lost(lane.tp(), self.consumer.group())),
                        Next::Passing => {}
                    }
                }
            }
        }
    }

    fn take_record(&mut self, index: usize, record: &Record) {
        let lane = &mut self.lanes[index];
        let offset = record.offset();
        if lane.tracker.arrive(offset) != Arrival::New {
            return;
        }
        let at = record.coordinates(lane.tp());
        let envelope = match lane.kind {
            // Services copy the headers of what they received onto what they produce, so on a source they say nothing.
            Kind::Source => Envelope::fresh(self.ladder.name(), &at),
            Kind::Redeliver => {
                let reading = Envelope::read(&self.ladder, &at, record.headers());
                if let Some(malformed) = reading.malformed {
                    self.metrics.worker.malformed_headers();
                    tracing::warn!(partition = %lane.tp(), offset, %malformed, "envelope is not trusted, the record starts afresh");
                }
                reading.envelope
            }
        };
        let (key, value) = (record.key().map(Bytes::copy_from_slice), record.value().map(Bytes::copy_from_slice));
        let user = record.headers().filter(|(name, _)| !envelope::is_own(name));
        let user = user.map(|(name, value)| Header { name: name.to_vec(), value: value.map(<[u8]>::to_vec) }).collect();
        let delivery = Delivery::new(&envelope, &self.ladder, key.clone(), value.clone(), user);
        let id = RecordId { token: lane.token, offset };
        let due = (lane.kind == Kind::Redeliver).then(|| due_of(&self.ladder, &envelope)).flatten();
        let job = Job { id, kind: lane.kind, delivery, gate: lane.gate.clone(), due };
        let content = Content { key, value, headers: record.copy_headers() };
        self.taken[lane.kind as usize] += 1;
        self.in_flight.insert(id, InFlight { envelope, content, kind: lane.kind });
        self.dispatcher.dispatch(job);
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
                self.forget(&partitions);
                self.consumer.release(&partitions)?;
            }
        }
        tracing::info!(ladder = self.ladder.name(), partitions = self.lanes.len(), "deliverer owns");
        Ok(())
    }

    fn take_over(&mut self, partitions: Vec<TopicPartition>) -> Result<(), WorkError> {
        let positions = committed_positions(&self.consumer, &partitions)?;
        let at: Vec<(TopicPartition, i64)> = partitions.into_iter().zip(&positions).map(|(tp, p)| (tp, p.offset)).collect();
        let flags: Vec<Arc<AtomicBool>> = at.iter().map(|_| Arc::new(AtomicBool::new(true))).collect();
        let mut next_flag = flags.iter();
        let next_flag = std::cell::RefCell::new(&mut next_flag);
        let wake = || -> Box<dyn Fn() + Send + Sync> {
            let waker = self.waker.clone();
            let ready = next_flag.borrow_mut().next().cloned().unwrap_or_default();
            Box::new(move || {
                ready.store(true, Ordering::Release);
                waker.wake();
            })
        };
        let queues = self.consumer.start(&at, Some(&wake))?;
        for ((queue, position), ready) in queues.into_iter().zip(positions).zip(flags) {
            let (tracker, readable) = AckTracker::resume(position.offset, &position.metadata);
            if !readable {
                tracing::warn!(
                    partition = %queue.partition(),
                    "offset metadata is not kladder's: what was finished beyond the committed offset is delivered again"
                );
            }
            let redeliver = *queue.partition().topic == *self.redeliver_topic;
            self.lanes.push(Lane {
                queue,
                kind: if redeliver { Kind::Redeliver } else { Kind::Source },
                token: self.next_token,
                tracker,
                committed: CommitPoint { offset: position.offset, metadata: position.metadata },
                gate: Arc::default(),
                ready,
                standstill: false,
            });
            self.next_token += 1;
        }
        Ok(())
    }

    /// Waits for the deliveries in flight of these partitions, no longer than the deadline, carries out what follows and commits.
    fn drain(&mut self, partitions: &[TopicPartition]) -> Result<(), WorkError> {
        let tokens: Vec<u64> = self.lanes.iter().filter(|l| partitions.contains(l.tp())).map(|l| l.token).collect();
        for lane in self.lanes.iter().filter(|lane| tokens.contains(&lane.token)) {
            lane.gate.close();
        }
        let deadline = self.clock.now().later(self.drain);
        while self.clock.now() < deadline {
            self.run_hops()?;
            let open = self.in_flight.keys().any(|id| tokens.contains(&id.token));
            // What can be written nowhere is its next owner's.
            let hopping = self.hops.iter().any(|hop| tokens.contains(&hop.id.token) && !self.stands_still(hop));
            if (!open && !hopping) || self.consumer.assignment_lost() {
                break;
            }
            self.wait();
            // What is done holds its place in flight until it is committed, and partitions that stay go on meanwhile.
            self.commit(false)?;
        }
        self.commit(true)
    }

    fn forget(&mut self, partitions: &[TopicPartition]) {
        let gone: Vec<u64> = self.lanes.iter().filter(|l| partitions.contains(l.tp())).map(|l| l.token).collect();
        self.lanes.retain(|lane| !gone.contains(&lane.token));
        self.hops.retain(|hop| !gone.contains(&hop.id.token));
        // Those of partitions that stay are as good as settled: the drain has committed them, or will with the next commit.
        self.unsettled.clear();
        // Those still in flight are counted until their handlers answer: they take up slots until then.
    }

    /// Commits what has finished since the last time, if it is time or `now` is set.
    fn commit(&mut self, at_once: bool) -> Result<(), WorkError> {
        let now = self.clock.now();
        if !at_once && now < self.commit_at && self.unsettled.len() < self.dispatcher.most_unsettled() {
            return Ok(());
        }
        self.commit_at = now.later(COMMIT_INTERVAL);
        let points = self.points_with_nothing();
        self.metrics.worker.partitions_stopped(self.lanes.iter().filter(|lane| lane.standstill).count());
        if self.consumer.live_group().is_none() {
            return Ok(());
        }
        if points.is_empty() {
            self.unsettled.clear();
            return Ok(());
        }
        match self.consumer.commit(&points) {
            Ok(()) => self.note_committed(points),
            // The group will say what comes next; what is not committed is delivered again by its next owner.
            Err(error) if error.is_group_change() => tracing::debug!(%error, "offsets not committed"),
            Err(error) if error.is_fatal() || error.is_fenced() => return Err(error.into()),
            Err(error) => tracing::info!(ladder = self.ladder.name(), %error, "offsets are committed later"),
        }
        Ok(())
    }

    fn points_with_nothing(&self) -> Vec<(TopicPartition, CommitPoint)> {
        let changed = |lane: &Lane| {
            let point = lane.tracker.commit_point();
            (point != lane.committed).then(|| (lane.tp().clone(), point))
        };
        self.lanes.iter().filter_map(changed).collect()
    }

    fn note_committed(&mut self, points: Vec<(TopicPartition, CommitPoint)>) {
        for (tp, point) in points {
            if let Some(lane) = self.lanes.iter_mut().find(|lane| *lane.tp() == tp) {
                lane.committed = point;
            }
        }
        self.unsettled.clear();
    }
}

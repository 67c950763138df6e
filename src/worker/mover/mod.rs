//! The mover: one thread for all tiers of a ladder, that moves records to redeliver, or to their origins, when they are due.
//!
//! A tier has one delay and its topic `LogAppendTime`, so of each partition only the head matters. It is held. What is fetched
//! behind it is bounded by the prefetch budget, and where the head waits for long it is thrown away (`rest`).
//!
//! What is due in any tier goes into one transaction together with the offsets that it consumes: fewer, larger transactions cost
//! the broker less (measured: three movers, one a tier, needed 110 % of a core and were three times as late). Partitions take
//! turns, oldest due first, so that a backlog in one tier delays the others by no more than one batch. It never calls a handler,
//! so a slow handler cannot make the ladder late.

mod batch;
mod fresh;
mod lane;
mod rest;
mod route;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{KafkaConfig, Role};
use crate::core::ack_tracker::CommitPoint;
use crate::core::delay::Delay;
use crate::core::ladder::{Hops, Ladder, Tier};
use crate::core::leader_clock::LocalTime;
use crate::core::rate::RateLimit;
use crate::core::topics;
use crate::kafka::NativeHeaders;
use crate::kafka::clock::Clock;
use crate::kafka::consumer::{Fetch, GroupConsumer, Membership, Rebalance, TopicPartition};
use crate::kafka::error::{TxnError, WriteFault};
use crate::kafka::producer::{HopProducer, Outgoing};
use crate::telemetry::events::MoverMetrics;
use crate::telemetry::standing::ClientMetrics;
use crate::telemetry::tally::Tally;
use crate::worker::backoff::Backoff;
use crate::worker::error::WorkError;
use crate::worker::hold::Hold;
use crate::worker::leaders::{BrokersClock, Leaders};
use crate::worker::mover::batch::FIRST_FILL_TIME;
use crate::worker::mover::lane::{Lane, Taken};
use crate::worker::mover::rest::RestTimes;
use crate::worker::mover::route::Targets;
use crate::worker::positions::committed_positions;
use crate::worker::supervisor::Presence;

/// The prefetch budget of a mover, all partitions together.
const PREFETCH_KIB: usize = 32 * 1024;

/// A broker's clock that was not read for so long is read again by a write of our own.
const CLOCK_READ_INTERVAL: Duration = Duration::from_secs(60);

/// When the broker did not allow that write, it is tried again after this.
const DENIED_CLOCK_INTERVAL: Duration = Duration::from_secs(5);

/// How often the standing of the tiers is told.
const STANDING_INTERVAL: Duration = Duration::from_secs(1);

/// How long a fetch may wait, as a share of the shortest delay, and the bounds of that: what is fetched waits for its delay anyway,
/// but what is overdue after an outage waits for the fetch.
const FETCH_WAIT_SHARE: u32 = 20;
const SHORTEST_FETCH_WAIT: Duration = Duration::from_millis(10);
const LONGEST_FETCH_WAIT: Duration = Duration::from_millis(100);

/// What a mover needs to know.
#[derive(Clone)]
pub struct MoverSettings {
    /// The ladder.
    pub ladder: Arc<Ladder>,
    /// How to reach Kafka.
    pub kafka: KafkaConfig,
    /// The name of this worker, stable over restarts.
    pub instance: String,
    /// Whether the ladder is held.
    pub hold: Hold,
    /// Where what was done is counted, besides the metrics.
    pub tally: Tally,
    /// Where the time comes from that records are due by.
    pub clock: BrokersClock,
}

/// Moves until it is told to stop.
pub struct Mover {
    ladder: Arc<Ladder>,
    instance: String,
    clock: Clock,
    consumer: GroupConsumer,
    producer: HopProducer,
    targets: Targets,
    leaders: Leaders,
    lanes: Vec<Lane>,
    /// How fast the tiers may be emptied, by their delays; none where that is not limited.
    limits: BTreeMap<Delay, RateLimit>,
    /// How many partitions each tier has, whoever owns them.
    partitions: BTreeMap<Delay, usize>,
    metrics: MoverMetrics,
    /// No transaction before then, after one failed.
    backoff: Backoff,
    /// How long the next transaction is filled, where nothing but a backlog is due.
    fill_time: Duration,
    /// The client gave the last transaction up; the first time, it is begun again at once.
    given_up: bool,
    standing_at: LocalTime,
    /// Of these tiers it was told how they stand.
    delays_told: Vec<Delay>,
    /// No write to read a clock before then.
    clock_at: LocalTime,
    /// A plain commit that nobody answered and that may still be on its way. Nothing is moved until it was answered, since it would
    /// move the offsets of a later transaction back: requests of one client arrive in their order.
    in_doubt: Vec<(TopicPartition, CommitPoint)>,
    recount_at: LocalTime,
    rest: RestTimes,
    hold: Hold,
    /// Of the transaction that is being filled.
    #[cfg(feature = "otlp")]
    spans: Vec<crate::telemetry::spans::Span>,
}

impl Mover {
    /// Connects and joins.
    ///
    /// # Errors
    /// When a topic is missing or Kafka is not reachable.
    pub fn start(settings: &MoverSettings) -> Result<Self, WorkError> {
        let ladder = settings.ladder.clone();
        let clock = Clock::system();
        let transactional =
            (ladder.hops() == Hops::ExactlyOnce).then(|| topics::transactional_id(ladder.name(), "mover", &settings.instance));
        let clients = ClientMetrics::new(&ladder, Role::Mover);
        let mut producer = HopProducer::new(&settings.kafka, transactional, 500_000, clock.clone()).measured_by(&clients);
        let targets = Targets::of(&ladder, &mut producer)?;
        // Tiers that the configuration no longer names are emptied like the others: a changed ladder strands nobody.
        let existing = producer.existing_topics()?;
        let consumed: Vec<(String, usize)> =
            existing.into_iter().filter(|(topic, _)| topics::delay_of_tier_topic(ladder.name(), topic).is_some()).collect();
        let partitions: BTreeMap<Delay, usize> = consumed
            .iter()
            .filter_map(|(topic, count)| Some((topics::delay_of_tier_topic(ladder.name(), topic)?, *count)))
            .collect();
        let limits = ladder.max_rate().map(|rate| partitions.keys().map(|delay| (*delay, RateLimit::new(rate))).collect());
        let membership = Membership {
            group: topics::mover_group(ladder.name()),
            instance: settings.instance.clone(),
            prefetch_kib: PREFETCH_KIB,
            partitions: consumed.iter().map(|(_, partitions)| partitions).sum(),
            fetch: Fetch::Patient(fetch_wait(ladder.name(), &consumed)),
            topics: consumed.into_iter().map(|(topic, _)| topic).collect(),
        };
        let consumer = GroupConsumer::join(&settings.kafka, &membership, &clients)?;
        producer.made_anew_only_as(consumer.name());
        let metrics = MoverMetrics::new(&ladder).counted_by(&settings.tally);
        let zero = LocalTime::from_micros(0);
        Ok(Self {
            ladder,
            instance: settings.instance.clone(),
            clock,
            consumer,
            producer,
            targets,
            leaders: Leaders::with(settings.clock),
            lanes: Vec::new(),
            limits: limits.unwrap_or_default(),
            partitions,
            metrics,
            backoff: Backoff::new(),
            fill_time: FIRST_FILL_TIME,
            given_up: false,
            standing_at: zero,
            delays_told: Vec::new(),
            clock_at: zero,
            in_doubt: Vec::new(),
            recount_at: zero,
            rest: RestTimes::default(),
            hold: settings.hold.clone(),
            #[cfg(feature = "otlp")]
            spans: Vec::new(),
        })
    }

    /// Works until it is told to stop.
    ///
    /// # Errors
    /// When it cannot go on; see [`WorkError`].
    pub fn run(&mut self, presence: &Presence) -> Result<(), WorkError> {
        self.work(presence).map_err(|error| error.naming(self.ladder.name(), "mover", &self.instance))
    }

    fn work(&mut self, presence: &Presence) -> Result<(), WorkError> {
        self.read_clock()?;
        while !presence.stop.is_set() {
            if let Some(change) = self.consumer.serve(self.idle_time())? {
                self.rebalance(change)?;
                presence.joined();
            }
            self.take_heads()?;
            // Without any reading of a broker's clock nobody knows what is due.
            let knows_time = self.leaders.is_known();
            if knows_time && !self.hold.is_held() && self.in_doubt.is_empty() && self.clock.now() >= self.not_before() {
                self.move_due()?;
            }
            self.commit_ends()?;
            self.producer.idle();
            self.rest();
            self.tell_standing();
            self.read_clock()?;
        }
        self.commit_ends()
    }

    /// How long nothing will be due and no queue wants to be looked at: whole milliseconds for the client to wait in, the rest
    /// is slept here.
    fn idle_time(&self) -> Duration {
        if self.hold.is_held() {
            // What is due stays so: to look at it again and again would only burn the processor.
            return Duration::from_millis(50);
        }
        let now = self.clock.now();
        let mut wait: i64 = 50_000;
        for lane in &self.lanes {
            let until = match (lane.wait(&self.leaders, now), lane.next_poll()) {
                (Some(wait), _) => {
                    let resumes = lane.standstill.as_ref().map_or(0, |s| s.until.as_micros() - now.as_micros());
                    let limit =
                        self.limits.get(&lane.delay).map_or(0, |limit| limit.worthwhile_at().as_micros() - now.as_micros());
                    wait.max(resumes).max(limit)
                }
                (_, Some(poll)) => poll.as_micros() - now.as_micros(),
                _ => continue,
            };
            wait = wait.min(until);
        }
        wait = wait.max(self.not_before().as_micros() - now.as_micros()).clamp(0, 50_000);
        // The client counts in whole milliseconds, so what is left over is slept here.
        let rest = wait % 1_000;
        if wait < 1_000 && rest > 0 {
            std::thread::sleep(Duration::from_micros(u64::try_from(rest).unwrap_or(0)));
        }
        Duration::from_millis(u64::try_from(wait / 1_000).unwrap_or(0))
    }

    /// Nothing is moved before then.
    fn not_before(&self) -> LocalTime {
        self.backoff.until().max(self.producer.ready_at())
    }

    fn rebalance(&mut self, change: Rebalance) -> Result<(), WorkError> {
        self.metrics.worker.rebalanced();
        match change {
            Rebalance::Assigned(partitions) => {
                let positions = committed_positions(&self.consumer, &partitions)?;
                let at: Vec<(TopicPartition, i64)> =
                    partitions.into_iter().zip(&positions).map(|(tp, p)| (tp, p.offset)).collect();
                let queues = self.consumer.start(&at, None)?;
                for (queue, (tp, offset)) in queues.into_iter().zip(at) {
                    let Some(delay) = topics::delay_of_tier_topic(self.ladder.name(), &tp.topic) else { continue };
                    let metrics = self.metrics.tier(delay);
                    self.lanes.push(Lane::new(queue, delay, metrics, offset));
                }
                self.share_limits();
                tracing::info!(ladder = self.ladder.name(), partitions = self.lanes.len(), "mover owns");
            }
            Rebalance::Revoked { partitions, lost } => {
                if !lost {
                    self.commit_ends()?;
                }
                // Moves are finished before the group is served, so nothing is open for these.
                self.lanes.retain(|lane| !partitions.contains(lane.tp()));
                self.in_doubt.retain(|(tp, _)| !partitions.contains(tp));
                self.consumer.release(&partitions)?;
                self.share_limits();
                tracing::info!(ladder = self.ladder.name(), partitions = self.lanes.len(), lost, "mover owns");
            }
        }
        Ok(())
    }

    /// A tier's limit is that of all its movers together: each has the share of its partitions.
    fn share_limits(&mut self) {
        for (delay, limit) in &mut self.limits {
            let own = self.lanes.iter().filter(|lane| lane.delay == *delay).count();
            let all = self.partitions.get(delay).copied().unwrap_or(own).max(own);
            if own > 0 {
                #[expect(clippy::cast_precision_loss, reason = "a count of partitions")]
                limit.share(own as f64 / all as f64);
            }
        }
    }

    fn take_heads(&mut self) -> Result<(), WorkError> {
        let now = self.clock.now();
        for index in 0..self.lanes.len() {
            if self.lanes[index].head().is_none() {
                self.take_head(index, now)?;
            }
        }
        Ok(())
    }

    /// Sees to it that a partition has a head, if its queue has one.
    fn take_head(&mut self, index: usize, now: LocalTime) -> Result<(), WorkError> {
        let lane = &mut self.lanes[index];
        match lane.take(now) {
            Taken::Head => {
                lane.head().expect("just taken").tell_clock(&mut self.leaders, now);
                if let Some(wait) = lane.wait(&self.leaders, now).filter(|wait| *wait > 0) {
                    lane.settle_to_wait();
                    self.rest.has_to_wait(wait);
                }
                Ok(())
            }
            Taken::Nothing => Ok(()),
            Taken::OffsetLost => Err(WorkError::offset_lost(lane.tp(), self.consumer.group())),
        }
    }

    /// Commits what is past the last record of a partition that holds nothing: transaction markers, which lag counts too.
    fn commit_ends(&mut self) -> Result<(), WorkError> {
        let points: Vec<(TopicPartition, CommitPoint)> = self
            .lanes
            .iter()
            .map(|lane| (lane, lane.commit_position(lane.position)))
            .filter(|(lane, position)| *position > lane.committed)
            .map(|(lane, offset)| (lane.tp().clone(), CommitPoint { offset, metadata: String::new() }))
            .collect();
        let points = if self.in_doubt.is_empty() { points } else { std::mem::take(&mut self.in_doubt) };
        if points.is_empty() || self.consumer.live_group().is_none() {
            return Ok(());
        }
        match self.consumer.commit(&points) {
            Ok(()) => self.note_committed(&points),
            // The next owner finds the markers again.
            Err(error) if error.is_group_change() => {}
            Err(error) if error.is_fatal() || error.is_fenced() => return Err(error.into()),
            Err(error) => {
                tracing::debug!(%error, "end offsets are committed later");
                if error.is_outage() {
                    self.in_doubt = points;
                    self.backoff.failed(self.clock.now());
                }
            }
        }
        Ok(())
    }

    fn note_committed(&mut self, points: &[(TopicPartition, CommitPoint)]) {
        for (tp, point) in points {
            if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.tp() == tp) {
                lane.committed = point.offset;
            }
        }
    }

    /// Reads a broker's clock by a write of our own, where no hop has for a minute. The state topic is compacted, so one record
    /// an instance stays of it.
    fn read_clock(&mut self) -> Result<(), WorkError> {
        let now = self.clock.now();
        if self.leaders.was_read_within(CLOCK_READ_INTERVAL, now) || now < self.backoff.until().max(self.clock_at) {
            return Ok(());
        }
        let key = format!("clock/{}", self.instance);
        let value = now.timestamp().to_string();
        let outcome = self.producer.begin().and_then(|()| {
            let record = Outgoing { key: Some(key.as_bytes()), value: Some(value.as_bytes()) };
            let sent = self.producer.send(self.targets.state.0, 0, record, NativeHeaders::new(), 0);
            let settled = self.producer.settle()?;
            if sent.is_err() || !settled.faults.is_empty() {
                self.producer.abort();
            } else {
                self.producer.commit()?;
            }
            let denied = settled.denied.then_some(WriteFault::Denied);
            Ok((settled.clock, denied.or(sent.err()).or(settled.faults.first().map(|(_, fault)| *fault))))
        });
        match outcome {
            Ok((Some(reading), None)) => {
                self.leaders.read(&reading);
                self.metrics.clock_offset(self.leaders.furthest_offset(self.clock.now()));
                self.backoff.reset();
            }
            Ok((_, fault)) => {
                let topic = self.ladder.state_topic();
                if fault == Some(WriteFault::Denied) {
                    if self.backoff.is_to_be_told() {
                        tracing::error!(
                            topic,
                            "not authorised to write to the topic, so that the broker's clock cannot be read, before which nothing is \
                             moved; grant Write on it (`kladder generate acls --role mover` prints the rules)"
                        );
                    }
                    // Where a move has read it, the moves need not wait for that.
                    self.clock_at = now.later(DENIED_CLOCK_INTERVAL);
                } else {
                    let fault = fault.map(|f| f.to_string()).unwrap_or_default();
                    tracing::warn!(topic, fault, "broker's clock could not be read, trying again");
                    self.backoff.failed(self.clock.now());
                }
            }
            Err(error) => self.survive(error)?,
        }
        Ok(())
    }

    /// Aborts or rebuilds, as the error demands, and waits a little longer each time. Only a rival is not outlived.
    fn survive(&mut self, error: TxnError) -> Result<(), WorkError> {
        self.metrics.worker.transaction_aborted();
        self.producer.recover(&error);
        if error.cause().is_rival() {
            return Err(error.into());
        }
        self.backoff.failed(self.clock.now());
        let (is_denied, retry_in) = (error.cause().is_denied(), self.backoff.pause());
        if self.backoff.was_told() {
            tracing::debug!(ladder = self.ladder.name(), %error, ?retry_in, "mover's transaction failed again");
        } else if is_denied && self.backoff.is_to_be_told() {
            tracing::error!(ladder = self.ladder.name(), %error, ?retry_in, "mover is not allowed what it needs");
        } else if self.backoff.is_longest() && self.backoff.is_to_be_told() {
            tracing::warn!(ladder = self.ladder.name(), %error, "mover's transactions keep failing: nothing is moved meanwhile");
        } else {
            tracing::info!(ladder = self.ladder.name(), %error, ?retry_in, "mover's transaction failed");
        }
        Ok(())
    }

    fn tell_standing(&mut self) {
        let now = self.clock.now();
        if now.since(self.standing_at) < STANDING_INTERVAL {
            return;
        }
        self.standing_at = now;
        let mut delays: Vec<Delay> = self.ladder.tiers().iter().map(Tier::delay).collect();
        delays.extend(self.lanes.iter().map(|lane| lane.delay));
        // Of a tier that is not configured any more and whose partitions have gone to others, nothing is left here.
        delays.extend(std::mem::take(&mut self.delays_told));
        delays.sort_unstable();
        delays.dedup();
        self.delays_told.clone_from(&delays);
        for delay in delays {
            let (mut waiting, mut due, mut oldest) = (0, 0, Duration::ZERO);
            for lane in self.lanes.iter().filter(|lane| lane.delay == delay) {
                let here = lane.waiting(self.consumer.known_end(lane.tp()));
                waiting += here;
                let Some(overdue) = lane.overdue(&self.leaders, now) else { continue };
                oldest = oldest.max(overdue);
                // Nobody counts what is due without reading it: an even arrival since the head's is presumed.
                let age = overdue + lane.delay.duration();
                due += u64::try_from(u128::from(here) * overdue.as_millis() / age.as_millis().max(1)).unwrap_or(here);
            }
            self.metrics.tier(delay).standing(waiting, due, oldest);
        }
        self.metrics.worker.partitions_stopped(self.lanes.iter().filter(|lane| lane.is_stopped()).count());
        self.metrics.clock_offset(self.leaders.furthest_offset(now));
    }
}

/// How long a fetch of these tiers may wait.
fn fetch_wait(ladder: &str, tiers: &[(String, usize)]) -> Duration {
    let delays = tiers.iter().filter_map(|(topic, _)| topics::delay_of_tier_topic(ladder, topic));
    let shortest = delays.min().map_or(LONGEST_FETCH_WAIT, |delay| delay.duration() / FETCH_WAIT_SHARE);
    shortest.clamp(SHORTEST_FETCH_WAIT, LONGEST_FETCH_WAIT)
}

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
mod given_up;
mod lane;
mod rest;
mod route;
mod tiers;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use crate::config::{KafkaConfig, Role};
use crate::core::ack_tracker::CommitPoint;
use crate::core::delay::Delay;
use crate::core::ladder::{Hops, Ladder, Tier};
use crate::core::leader_clock::LocalTime;
use crate::core::rate::RateLimit;
use crate::core::topics;
use crate::kafka::clock::Clock;
use crate::kafka::consumer::{Fetch, GroupConsumer, Membership, Rebalance};
use crate::kafka::partition::TopicPartition;
use crate::kafka::producer::HopProducer;
use crate::telemetry::events::MoverMetrics;
use crate::telemetry::standing::ClientMetrics;
use crate::telemetry::tally::Tally;
use crate::worker::error::WorkError;
use crate::worker::hold::Hold;
use crate::worker::hop::engine::Engine;
use crate::worker::hop::leaders::{BrokersClock, Leaders};
use crate::worker::hop::ports::{HopSink, RecordSource, TierSource};
use crate::worker::hop::positions::committed_positions;
use crate::worker::hop::targets::Targets;
use crate::worker::mover::lane::Lane;
use crate::worker::mover::tiers::Tiers;
use crate::worker::supervisor::Presence;

pub(crate) use crate::worker::mover::tiers::Freshness;

/// The prefetch budget of a mover, all partitions together.
const PREFETCH_KIB: usize = 32 * 1024;

/// A broker's clock that was not read for so long is read again by a write of our own.
const CLOCK_READ_INTERVAL: Duration = Duration::from_secs(60);

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

/// What a mover brings along: its two ports.
pub(crate) trait Ports {
    /// Where its records come from.
    type Source: TierSource;
    /// Where they go.
    type Sink: HopSink<Group = <Self::Source as RecordSource>::Group>;
}

/// The ports of a mover that works.
pub(crate) struct KafkaPorts;

impl Ports for KafkaPorts {
    type Source = GroupConsumer;
    type Sink = HopProducer;
}

type LaneOf<P> = Lane<<<P as Ports>::Source as RecordSource>::Queue>;

/// Moves until it is told to stop.
pub(crate) struct Mover<P: Ports> {
    ladder: Arc<Ladder>,
    instance: String,
    clock: Clock,
    consumer: P::Source,
    engine: Engine<P::Sink>,
    tiers: Tiers<P>,
    next_token: u64,
    /// How many partitions each tier has, whoever owns them.
    partitions: BTreeMap<Delay, usize>,
    standing_at: LocalTime,
    /// Of these tiers it was told how they stand.
    delays_told: Vec<Delay>,
}

/// What a mover is made of.
pub(crate) struct Parts<P: Ports> {
    pub(crate) ladder: Arc<Ladder>,
    pub(crate) instance: String,
    pub(crate) clock: Clock,
    pub(crate) source: P::Source,
    pub(crate) sink: P::Sink,
    pub(in crate::worker) targets: Targets,
    pub(crate) metrics: MoverMetrics,
    pub(crate) fresh: Freshness,
}

/// What the movers of this process have in common.
static FRESH: LazyLock<Freshness> = LazyLock::new(Freshness::default);

impl Mover<KafkaPorts> {
    /// Connects and joins.
    ///
    /// # Errors
    /// When a topic is missing or Kafka is not reachable.
    pub(crate) fn start(settings: &MoverSettings) -> Result<Self, WorkError> {
        let ladder = settings.ladder.clone();
        let clock = Clock::system();
        let transactional =
            (ladder.hops() == Hops::ExactlyOnce).then(|| topics::transactional_id(ladder.name(), "mover", &settings.instance));
        let clients = ClientMetrics::new(&ladder, Role::Mover);
        let mut producer = HopProducer::new(&settings.kafka, transactional, 500_000, clock.clone()).measured_by(&clients);
        let targets = Targets::of_due(&ladder, &mut producer)?;
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
        let (instance, fresh) = (settings.instance.clone(), FRESH.clone());
        let mut mover = Self::of(Parts { ladder, instance, clock, source: consumer, sink: producer, targets, metrics, fresh });
        mover.engine.known.leaders = Leaders::with(settings.clock);
        mover.tiers.limits = limits.unwrap_or_default();
        mover.tiers.hold = settings.hold.clone();
        mover.partitions = partitions;
        Ok(mover)
    }
}

impl<P: Ports> Mover<P> {
    /// One that owns nothing yet.
    pub(crate) fn of(parts: Parts<P>) -> Self {
        let Parts { ladder, instance, clock, source, sink, targets, metrics, fresh } = parts;
        let engine = Engine::new(ladder.clone(), "mover", clock.clone(), sink, metrics.worker.clone());
        let tiers = Tiers::new(ladder.clone(), source.group().to_owned(), clock.clone(), targets, metrics, fresh);
        Self {
            ladder,
            instance,
            clock,
            consumer: source,
            engine,
            tiers,
            next_token: 1,
            partitions: BTreeMap::new(),
            standing_at: LocalTime::from_micros(0),
            delays_told: Vec::new(),
        }
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
            if self.go_round(self.idle_time())? {
                presence.joined();
            }
        }
        self.commit_ends()
    }

    /// Once round, after so long at most in which nothing happens. Whether partitions came or went is returned.
    pub(crate) fn go_round(&mut self, wait: Duration) -> Result<bool, WorkError> {
        let change = self.consumer.serve(wait)?;
        let has_changed = change.is_some();
        if let Some(change) = change {
            self.rebalance(change)?;
        }
        self.tiers.take_heads(&mut self.engine.known.leaders)?;
        // Without any reading of a broker's clock nobody knows what is due.
        if self.engine.known.leaders.is_known() && !self.tiers.hold.is_held() && self.engine.may_begin() {
            self.move_due()?;
        }
        self.commit_ends()?;
        self.engine.sink.idle();
        self.rest();
        self.tell_standing();
        self.read_clock()?;
        Ok(has_changed)
    }

    /// How long nothing will be due and no queue wants to be looked at: whole milliseconds for the client to wait in, the rest
    /// is slept here.
    fn idle_time(&self) -> Duration {
        if self.tiers.hold.is_held() {
            // What is due stays so: to look at it again and again would only burn the processor.
            return Duration::from_millis(50);
        }
        let now = self.clock.now();
        let mut wait: i64 = 50_000;
        for lane in &self.tiers.lanes {
            let until = match (lane.wait(&self.engine.known.leaders, now), lane.next_poll()) {
                (Some(wait), _) => {
                    let until = lane.rests_until(&self.engine.known.barred);
                    let resumes = until.map_or(0, |until| until.as_micros() - now.as_micros());
                    let limit =
                        self.tiers.limits.get(&lane.delay).map_or(0, |limit| limit.worthwhile_at().as_micros() - now.as_micros());
                    wait.max(resumes).max(limit)
                }
                (_, Some(poll)) => poll.as_micros() - now.as_micros(),
                _ => continue,
            };
            wait = wait.min(until);
        }
        wait = wait.max(self.engine.not_before().as_micros() - now.as_micros()).clamp(0, 50_000);
        // The client counts in whole milliseconds, so what is left over is slept here.
        let rest = wait % 1_000;
        if wait < 1_000 && rest > 0 {
            std::thread::sleep(Duration::from_micros(u64::try_from(rest).unwrap_or(0)));
        }
        Duration::from_millis(u64::try_from(wait / 1_000).unwrap_or(0))
    }

    fn rebalance(&mut self, change: Rebalance) -> Result<(), WorkError> {
        self.tiers.metrics.worker.rebalanced();
        match change {
            Rebalance::Assigned(partitions) => {
                let positions = committed_positions(&self.consumer, &partitions)?;
                let at: Vec<(TopicPartition, i64)> =
                    partitions.into_iter().zip(&positions).map(|(tp, p)| (tp, p.offset)).collect();
                let queues = self.consumer.start(&at, None)?;
                for (queue, (tp, offset)) in queues.into_iter().zip(at) {
                    let Some(delay) = topics::delay_of_tier_topic(self.ladder.name(), &tp.topic) else { continue };
                    let metrics = self.tiers.metrics.tier(delay);
                    self.tiers.lanes.push(Lane::new(queue, self.next_token, delay, metrics, offset));
                    self.next_token += 1;
                }
                tracing::info!(ladder = self.ladder.name(), partitions = self.tiers.lanes.len(), "mover owns");
            }
            Rebalance::Revoked { partitions, lost } => {
                if !lost {
                    self.commit_ends()?;
                }
                // Moves are finished before the group is served, so nothing is open for these.
                self.tiers.lanes.retain(|lane| !partitions.contains(lane.tp()));
                let lanes = &self.tiers.lanes;
                self.engine.forget(&partitions, |token| lanes.iter().any(|lane| lane.token == token));
                self.consumer.release(&partitions)?;
                tracing::info!(ladder = self.ladder.name(), partitions = self.tiers.lanes.len(), lost, "mover owns");
            }
        }
        self.tiers.share_limits(&self.partitions);
        Ok(())
    }

    /// Commits what is past the last record of a partition that holds nothing: transaction markers, which lag counts too.
    fn commit_ends(&mut self) -> Result<(), WorkError> {
        let lanes = self.tiers.lanes.iter().map(|lane| (lane, lane.commit_position(lane.position)));
        let points: Vec<(TopicPartition, CommitPoint)> = lanes
            .filter(|(lane, position)| *position > lane.committed)
            .map(|(lane, offset)| (lane.tp().clone(), CommitPoint { offset, metadata: String::new() }))
            .collect();
        if self.consumer.live_group().is_none() {
            return Ok(());
        }
        if points.is_empty() {
            return self.engine.commit_doubtful(&self.consumer);
        }
        if self.engine.commit(&self.consumer, &points)? {
            self.tiers.note_committed(points);
        }
        Ok(())
    }

    fn read_clock(&mut self) -> Result<(), WorkError> {
        let key = format!("clock/{}", self.instance);
        if self.engine.read_clock(CLOCK_READ_INTERVAL, self.tiers.targets.state, &key)? {
            let offset = self.engine.known.leaders.furthest_offset(self.clock.now());
            self.tiers.metrics.clock_offset(offset);
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
        delays.extend(self.tiers.lanes.iter().map(|lane| lane.delay));
        // Of a tier that is not configured any more and whose partitions have gone to others, nothing is left here.
        delays.extend(std::mem::take(&mut self.delays_told));
        delays.sort_unstable();
        delays.dedup();
        self.delays_told.clone_from(&delays);
        for delay in delays {
            let (mut waiting, mut due, mut oldest) = (0, 0, Duration::ZERO);
            for lane in self.tiers.lanes.iter().filter(|lane| lane.delay == delay) {
                let here = lane.waiting(self.consumer.known_end(lane.tp()));
                waiting += here;
                let Some(overdue) = lane.overdue(&self.engine.known.leaders, now) else { continue };
                oldest = oldest.max(overdue);
                // Nobody counts what is due without reading it: an even arrival since the head's is presumed.
                let age = overdue + lane.delay.duration();
                due += u64::try_from(u128::from(here) * overdue.as_millis() / age.as_millis().max(1)).unwrap_or(here);
            }
            self.tiers.metrics.tier(delay).standing(waiting, due, oldest);
        }
        self.tiers
            .metrics
            .worker
            .partitions_stopped(self.tiers.lanes.iter().filter(|lane| lane.is_stopped(&self.engine.known.barred)).count());
        self.tiers.metrics.clock_offset(self.engine.known.leaders.furthest_offset(now));
    }
}

/// How long a fetch of these tiers may wait.
fn fetch_wait(ladder: &str, tiers: &[(String, usize)]) -> Duration {
    let delays = tiers.iter().filter_map(|(topic, _)| topics::delay_of_tier_topic(ladder, topic));
    let shortest = delays.min().map_or(LONGEST_FETCH_WAIT, |delay| delay.duration() / FETCH_WAIT_SHARE);
    shortest.clamp(SHORTEST_FETCH_WAIT, LONGEST_FETCH_WAIT)
}

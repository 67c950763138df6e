//! The mover: one thread for all tiers of a ladder, which moves due records to redeliver, or to their origins.
//!
//! A tier has one delay and `LogAppendTime`, so only the head of each partition matters. It is kept. The records fetched after
//! it are bounded by the prefetch budget, and discarded if the head waits for long (`rest`).
//!
//! Due records of all tiers go into one transaction together with the offsets that they consume: fewer, larger transactions cost
//! the broker less (measured: three movers, one per tier, needed 110 % of a core and were three times as late). Partitions take
//! turns, oldest due first, so that a backlog in one tier delays the others by at most one batch. It never calls a handler, so a
//! slow handler cannot make the ladder late.

mod batch;
mod given_up;
mod lane;
mod rest;
mod route;
mod tiers;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use crate::config::KafkaConfig;
use crate::core::ack_tracker::CommitPoint;
use crate::core::delay::Delay;
use crate::core::ladder::{Ladder, Tier};
use crate::core::leader_clock::LocalTime;
use crate::core::rate::RateLimit;
use crate::core::role::Role;
use crate::core::topics;
use crate::kafka::clock::Clock;
use crate::kafka::consumer::{Fetch, GroupConsumer, Rebalance};
use crate::kafka::partition::TopicPartition;
use crate::kafka::producer::HopProducer;
use crate::telemetry::events::MoverMetrics;
use crate::telemetry::tally::Tally;
use crate::worker::clients::{Clients, Subscription};
use crate::worker::error::WorkError;
use crate::worker::hold::Hold;
use crate::worker::hop::engine::Engine;
use crate::worker::hop::leaders::{BrokersClock, Leaders};
use crate::worker::hop::ports::{HopSink, RecordSource, TierSource};
use crate::worker::hop::positions::committed_positions;
use crate::worker::hop::targets::Targets;
use crate::worker::mover::lane::Lane;
use crate::worker::mover::tiers::Tiers;
use crate::worker::no_way_back::NoWayBack;
use crate::worker::supervisor::Presence;

pub(crate) use crate::worker::mover::tiers::Freshness;

/// Prefetch budget of a mover, over all partitions.
const PREFETCH_KIB: usize = 32 * 1024;

/// If a broker's clock was not read for this long, it is read by writing a record.
const CLOCK_READ_INTERVAL: Duration = Duration::from_secs(60);

/// Interval of exporting the tiers' state.
const STANDING_INTERVAL: Duration = Duration::from_secs(1);

/// Maximum wait of a fetch, as a share of the shortest delay, and its bounds: fetched records wait for their delay anyway, but
/// overdue records after an outage wait for the fetch.
const FETCH_WAIT_SHARE: u32 = 20;
const SHORTEST_FETCH_WAIT: Duration = Duration::from_millis(10);
const LONGEST_FETCH_WAIT: Duration = Duration::from_millis(100);

/// Settings of a mover.
#[derive(Clone)]
pub struct MoverSettings {
    /// The ladder.
    pub ladder: Arc<Ladder>,
    /// How to reach Kafka.
    pub kafka: KafkaConfig,
    /// The instance name of this worker, stable over restarts.
    pub instance: String,
    /// Whether the ladder is held.
    pub hold: Hold,
    /// Counts of its work, besides the metrics.
    pub tally: Tally,
    /// Source of the time by which records are due.
    pub clock: BrokersClock,
}

/// The types of a mover's two ports.
pub(crate) trait Ports {
    /// The record source.
    type Source: TierSource;
    /// The hop sink.
    type Sink: HopSink<Group = <Self::Source as RecordSource>::Group>;
}

/// The real ports.
pub(crate) struct KafkaPorts;

impl Ports for KafkaPorts {
    type Source = GroupConsumer;
    type Sink = HopProducer;
}

type LaneOf<P> = Lane<<<P as Ports>::Source as RecordSource>::Queue>;

/// Moves records until it is stopped.
pub(crate) struct Mover<P: Ports> {
    ladder: Arc<Ladder>,
    instance: String,
    clock: Clock,
    consumer: P::Source,
    engine: Engine<P::Sink>,
    tiers: Tiers<P>,
    next_token: u64,
    /// Number of partitions of each tier, whoever owns them.
    partitions: BTreeMap<Delay, i32>,
    standing_at: LocalTime,
    /// Tiers whose state has been exported.
    delays_told: Vec<Delay>,
    no_way_back: NoWayBack,
}

/// The parts of a mover.
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

/// Shared by the movers of this process.
static FRESH: LazyLock<Freshness> = LazyLock::new(Freshness::default);

impl Mover<KafkaPorts> {
    /// Connects and joins.
    ///
    /// # Errors
    /// A topic is missing or Kafka is not reachable.
    pub(crate) fn start(settings: &MoverSettings) -> Result<Self, WorkError> {
        let ladder = settings.ladder.clone();
        let mut clients = Clients::new(&ladder, Role::Mover, &settings.kafka, &settings.instance);
        let targets = Targets::of_due(&ladder, &mut clients.producer)?;
        // Tiers removed from the configuration are still emptied: a changed ladder loses no records.
        let existing = clients.producer.existing_topics()?;
        let consumed: Vec<(String, i32)> =
            existing.into_iter().filter(|(topic, _)| topics::delay_of_tier_topic(ladder.name(), topic).is_some()).collect();
        let partitions: BTreeMap<Delay, i32> = consumed
            .iter()
            .filter_map(|(topic, count)| Some((topics::delay_of_tier_topic(ladder.name(), topic)?, *count)))
            .collect();
        let limits = ladder.max_rate().map(|rate| partitions.keys().map(|delay| (*delay, RateLimit::new(rate))).collect());
        let subscription = Subscription {
            group: topics::mover_group(ladder.name()),
            prefetch_kib: PREFETCH_KIB,
            fetch: Fetch::Patient(fetch_wait(ladder.name(), &consumed)),
            topics: consumed,
        };
        let source = clients.join(subscription, GroupConsumer::join, GroupConsumer::name)?;
        let Clients { clock, producer: sink, .. } = clients;
        let metrics = MoverMetrics::new(&ladder).counted_by(&settings.tally);
        let (instance, fresh) = (settings.instance.clone(), FRESH.clone());
        let mut mover = Self::of(Parts { ladder, instance, clock, source, sink, targets, metrics, fresh });
        mover.engine.cluster.leaders = Leaders::with(settings.clock);
        mover.tiers.limits = limits.unwrap_or_default();
        mover.tiers.hold = settings.hold.clone();
        mover.partitions = partitions;
        Ok(mover)
    }
}

impl<P: Ports> Mover<P> {
    /// Without partitions.
    pub(crate) fn of(parts: Parts<P>) -> Self {
        let Parts { ladder, instance, clock, source, sink, targets, metrics, fresh } = parts;
        let engine = Engine::new(ladder.clone(), Role::Mover, clock.clone(), sink, metrics.worker.clone());
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
            no_way_back: NoWayBack::default(),
        }
    }

    /// Works until it is stopped.
    ///
    /// # Errors
    /// It cannot continue; see [`WorkError`].
    pub fn run(&mut self, presence: &Presence) -> Result<(), WorkError> {
        self.work(presence).map_err(|error| error.naming(self.ladder.name(), Role::Mover, &self.instance))
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

    /// One iteration, which waits at most this long for an event. Returns whether partitions were assigned or
    /// revoked.
    pub(crate) fn go_round(&mut self, wait: Duration) -> Result<bool, WorkError> {
        let change = self.consumer.serve(wait)?;
        let has_changed = change.is_some();
        if let Some(change) = change {
            self.rebalance(change)?;
        }
        self.tiers.take_heads(&mut self.engine.cluster.leaders)?;
        // Without any reading of a broker's clock, due times are unknown.
        if self.engine.cluster.leaders.is_known() && !self.tiers.hold.is_held() && self.engine.may_begin() {
            self.move_due()?;
        }
        self.commit_ends()?;
        self.engine.sink.idle();
        self.no_way_back.log(&self.ladder, Role::Mover, self.clock.now());
        self.rest()?;
        self.tell_standing();
        self.read_clock()?;
        Ok(has_changed)
    }

    /// How long no record becomes due and no queue needs polling: returned in whole milliseconds for the client; the rest is
    /// slept here.
    fn idle_time(&self) -> Duration {
        if self.tiers.hold.is_held() {
            // Due records stay due: polling again and again would only use processor time.
            return Duration::from_millis(50);
        }
        let now = self.clock.now();
        let mut wait: i64 = 50_000;
        for lane in &self.tiers.lanes {
            let until = match (lane.wait(&self.engine.cluster.leaders, now), lane.next_poll()) {
                (Some(wait), _) => {
                    let until = lane.rests_until(&self.engine.cluster.barred);
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
        // The client waits in whole milliseconds, so the rest is slept here.
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
                tracing::info!(ladder = self.ladder.name(), partitions = self.tiers.lanes.len(), "partitions assigned");
            }
            Rebalance::Revoked { partitions, lost } => {
                if !lost {
                    self.commit_ends()?;
                }
                // Moves are finished before the group is served, so no transaction is open for
                // these.
                self.tiers.lanes.retain(|lane| !partitions.contains(lane.tp()));
                let lanes = &self.tiers.lanes;
                self.engine.forget(&partitions, |token| lanes.iter().any(|lane| lane.token == token));
                self.consumer.release(&partitions)?;
                tracing::info!(ladder = self.ladder.name(), partitions = self.tiers.lanes.len(), lost, "partitions revoked");
            }
        }
        self.tiers.share_limits(&self.partitions);
        Ok(())
    }

    /// Commits offsets beyond the last record of an empty partition: transaction markers, which lag counts too.
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
            let offset = self.engine.cluster.leaders.furthest_offset(self.clock.now());
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
        // A removed tier whose partitions went to others has nothing left here.
        delays.extend(std::mem::take(&mut self.delays_told));
        delays.sort_unstable();
        delays.dedup();
        self.delays_told.clone_from(&delays);
        for delay in delays {
            let (mut waiting, mut due, mut oldest) = (0, 0, Duration::ZERO);
            for lane in self.tiers.lanes.iter().filter(|lane| lane.delay == delay) {
                let here = lane.waiting(self.consumer.known_end(lane.tp()));
                waiting += here;
                let Some(overdue) = lane.overdue(&self.engine.cluster.leaders, now) else { continue };
                oldest = oldest.max(overdue);
                // The number of due records is unknown without reading them: arrivals are assumed to be even
                // since the head's.
                let age = overdue + lane.delay.duration();
                due += u64::try_from(u128::from(here) * overdue.as_millis() / age.as_millis().max(1)).unwrap_or(here);
            }
            self.tiers.metrics.tier(delay).standing(waiting, due, oldest);
        }
        self.tiers
            .metrics
            .worker
            .partitions_stopped(self.tiers.lanes.iter().filter(|lane| lane.is_stopped(&self.engine.cluster.barred)).count());
        self.tiers.metrics.clock_offset(self.engine.cluster.leaders.furthest_offset(now));
    }
}

/// Maximum wait of a fetch of these tiers.
fn fetch_wait(ladder: &str, tiers: &[(String, i32)]) -> Duration {
    let delays = tiers.iter().filter_map(|(topic, _)| topics::delay_of_tier_topic(ladder, topic));
    let shortest = delays.min().map_or(LONGEST_FETCH_WAIT, |delay| delay.duration() / FETCH_WAIT_SHARE);
    shortest.clamp(SHORTEST_FETCH_WAIT, LONGEST_FETCH_WAIT)
}

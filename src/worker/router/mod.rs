//! The router (relay): consumes the inbox, where applications put failed records, and carries out what follows.
//!
//! Each arrival counts as one more failed attempt of the record. What was made before stands in the headers that the application has
//! copied; where it drops them, a memory knows what is still out, so that no record loops in tier 1 for ever.
//!
//! An arrival is judged as soon as it is known what was redelivered before it, and leaves in the next transaction together with its
//! offset.

mod elsewhere;
mod redelivered;

use std::sync::Arc;
use std::time::Duration;

use crate::config::{KafkaConfig, Role};
use crate::core::coordinates::Coordinates;
use crate::core::dialect::Dialect;
use crate::core::envelope::{self, Envelope};
use crate::core::failure::Verdict;
use crate::core::failure::VerdictKind;
use crate::core::fingerprint::Fingerprint;
use crate::core::inbox::{self, Arrival, Carried};
use crate::core::ladder::{Hops, Ladder};
use crate::core::leader_clock::LocalTime;
use crate::core::topics;
use crate::kafka::clock::Clock;
use crate::kafka::consumer::{Fetch, GroupConsumer, Membership, Rebalance, Record};
use crate::kafka::partition::TopicPartition;
use crate::kafka::producer::HopProducer;
use crate::telemetry::events::RouterMetrics;
use crate::telemetry::standing::ClientMetrics;
use crate::worker::committer::{Committer, Parts, Polled, Start, Starts, Work};
use crate::worker::dlq_breaker::DlqBreaker;
use crate::worker::error::WorkError;
use crate::worker::hold::Hold;
use crate::worker::hop::content::{Content, RecordId};
use crate::worker::hop::targets::Targets;
use crate::worker::router::redelivered::{InboxEnds, Redelivered};
use crate::worker::supervisor::Presence;

/// The prefetch budget of a router, all partitions together.
const PREFETCH_KIB: usize = 16 * 1024;

/// How many arrivals are judged at a time, of one partition and of all: a transaction takes as many.
const TURN: usize = 250;
const MOST_AT_ONCE: usize = 2_000;

/// Where the redelivered topics end is asked again after this, if nobody has told, or if they were not read so far within that.
const ASK_AGAIN: Duration = Duration::from_secs(1);
const MARK_STANDS: Duration = Duration::from_secs(30);

/// How long the group is served while nothing arrives.
const IDLE: Duration = Duration::from_millis(20);
const HASTE: Duration = Duration::from_millis(2);

/// What a router needs to know.
#[derive(Clone)]
pub struct RouterSettings {
    /// The ladder.
    pub ladder: Arc<Ladder>,
    /// How to reach Kafka.
    pub kafka: KafkaConfig,
    /// The name of this worker, stable over restarts.
    pub instance: String,
    /// How long a shutdown or a revoked partition waits for what was judged to be written.
    pub drain: Duration,
    /// Whether the ladder is held.
    pub hold: Hold,
    /// What this process has begun with.
    pub starts: Starts,
    /// Where dead letters are held while there are too many; `None` where they never are.
    pub dlq_breaker: Option<Arc<DlqBreaker>>,
}

/// Routes until it is told to stop.
pub struct Router {
    ladder: Arc<Ladder>,
    instance: String,
    drain: Duration,
    clock: Clock,
    committer: Committer<Routing>,
    redelivered: Redelivered,
    hold: Hold,
    dlq_breaker: Option<Arc<DlqBreaker>>,
    was_held: bool,
    metrics: RouterMetrics,
    kafka: KafkaConfig,
    /// Arrivals whose records are elsewhere and could not be read there yet.
    unread: Vec<Taken>,
    /// Arrivals without an envelope, of which it has not been asked yet what was redelivered before them.
    bare: Vec<Taken>,
    /// Those of which it has.
    waiting: Vec<Taken>,
    /// Not before then, after nobody answered.
    ask_at: LocalTime,
}

/// What a router brings to its committer.
struct Routing;

impl Work for Routing {
    type Source = GroupConsumer;
    type Sink = HopProducer;
    type Lane = ();
    type Place = ();
}

/// An arrival that was taken and is to be judged.
struct Taken {
    id: RecordId,
    at: Coordinates,
    content: Content,
    arrival: Arrival,
    /// At how many starts it was the first, where those are too many.
    too_many_starts: Option<u32>,
    /// Where the record itself is, where only its dead letter came.
    elsewhere: Option<Coordinates>,
}

impl Router {
    /// Connects and joins.
    ///
    /// # Errors
    /// When a topic is missing or Kafka is not reachable.
    pub fn start(settings: &RouterSettings) -> Result<Self, WorkError> {
        let ladder = settings.ladder.clone();
        let clock = Clock::system();
        let transactional =
            (ladder.hops() == Hops::ExactlyOnce).then(|| topics::transactional_id(ladder.name(), "router", &settings.instance));
        let clients = ClientMetrics::new(&ladder, Role::Router);
        let mut producer = HopProducer::new(&settings.kafka, transactional, 500_000, clock.clone()).measured_by(&clients);
        let targets = Targets::of_failed(&ladder, &mut producer)?;
        let inbox = ladder.inbox_topic();
        let partitions = producer.partition_count(&inbox)?;
        let membership = Membership {
            group: topics::router_group(ladder.name()),
            instance: settings.instance.clone(),
            topics: vec![inbox],
            prefetch_kib: PREFETCH_KIB,
            partitions: usize::try_from(partitions).unwrap_or(1),
            fetch: Fetch::AtOnce,
        };
        // Before the group is joined: what came back must be known before any arrival is judged.
        let redelivered = Redelivered::open(settings, partitions)?;
        let consumer = GroupConsumer::join(&settings.kafka, &membership, &clients)?;
        producer.made_anew_only_as(consumer.name());
        let metrics = RouterMetrics::new(&ladder);
        let committer = Committer::new(Parts {
            ladder: ladder.clone(),
            role: "router",
            clock: clock.clone(),
            source: consumer,
            sink: producer,
            targets,
            metrics: metrics.worker.clone(),
            hop_metrics: metrics.hops.clone(),
            starts: settings.starts.clone(),
            dlq_breaker: settings.dlq_breaker.clone(),
        });
        let (instance, drain, hold) = (settings.instance.clone(), settings.drain, settings.hold.clone());
        let (bare, waiting, ask_at) = (Vec::new(), Vec::new(), LocalTime::from_micros(0));
        Ok(Self {
            ladder,
            instance,
            drain,
            clock,
            committer,
            redelivered,
            hold,
            dlq_breaker: settings.dlq_breaker.clone(),
            was_held: false,
            metrics,
            kafka: settings.kafka.clone(),
            unread: Vec::new(),
            bare,
            waiting,
            ask_at,
        })
    }

    /// Works until it is told to stop.
    ///
    /// # Errors
    /// When it cannot go on; see [`WorkError`].
    pub fn run(&mut self, presence: &Presence) -> Result<(), WorkError> {
        self.work(presence).map_err(|error| error.naming(self.ladder.name(), "router", &self.instance))
    }

    fn work(&mut self, presence: &Presence) -> Result<(), WorkError> {
        let mut found = false;
        while !presence.stop.is_set() {
            if let Some(change) = self.committer.source.serve(self.pause(found))? {
                self.rebalance(change)?;
                presence.joined();
            }
            self.redelivered.keep_up();
            let held = self.stands_still();
            found = !held && self.route()?;
            self.committer.run_hops()?;
            self.committer.commit(false, usize::MAX)?;
            self.committer.idle();
            // What is held back may be the return of what would be presumed done.
            if !held && self.bare.is_empty() && self.waiting.is_empty() {
                self.presume_done();
            }
        }
        self.drain(&self.committer.owned())
    }

    /// How long the group's events are waited for. What waits for the redelivered topics to be read holds up what comes behind it.
    fn pause(&self, found: bool) -> Duration {
        match (found, self.waiting.is_empty()) {
            (true, _) => Duration::ZERO,
            (false, true) => IDLE,
            (false, false) => HASTE,
        }
    }

    fn presume_done(&mut self) {
        let (committer, owned) = (&self.committer, self.committer.owned());
        let has_read = |ends: &InboxEnds| ends.iter().all(|(tp, end)| committer.has_read(tp, *end));
        let done = self.redelivered.presume_done(committer.broker_now(), &owned, has_read);
        done.attempts.iter().for_each(|attempt| self.metrics.presumed_done(*attempt));
        if let Some(breaker) = &self.dlq_breaker {
            breaker.done(done.count());
        }
        if !done.redriven.is_empty() {
            self.redelivered.tell_outcomes(done.redriven);
        }
    }

    /// Whether the ladder is held. Once it is released, the application is judged by what comes then.
    fn stands_still(&mut self) -> bool {
        let held = self.hold.is_held();
        if std::mem::replace(&mut self.was_held, held) && !held {
            self.redelivered.judge_anew(self.committer.broker_now());
        }
        held
    }

    /// Judges what has arrived, each partition in turn, and tells whether there was anything.
    ///
    /// What came back without headers was redelivered before it came: such arrivals wait until all that is known. Others do not wait
    /// for them.
    fn route(&mut self) -> Result<bool, WorkError> {
        let mut found = false;
        if !self.waiting.is_empty() && self.redelivered.has_reached_mark() {
            for taken in std::mem::take(&mut self.waiting) {
                self.judge(taken);
            }
            self.ask_at = self.clock.now();
            found = true;
        }
        let taken = self.take()?;
        let taken = self.whole(taken);
        found |= !taken.is_empty();
        let (whole, bare): (Vec<Taken>, Vec<Taken>) =
            taken.into_iter().partition(|taken| taken.arrival.carried == Carried::Envelope);
        for taken in whole {
            self.judge(taken);
        }
        self.bare.extend(bare);
        self.ask();
        Ok(found)
    }

    /// Asks where the redelivered topics end, once for all arrivals without an envelope; those that come meanwhile are in the next
    /// question. What was asked long ago is asked again: the topic may have been made anew since, and never get that far.
    fn ask(&mut self) {
        let now = self.clock.now();
        if now < self.ask_at || (self.waiting.is_empty() && self.bare.is_empty()) {
            return;
        }
        let answered = self.redelivered.mark();
        if answered {
            self.waiting.append(&mut self.bare);
        }
        self.ask_at = now.later(if answered { MARK_STANDS } else { ASK_AGAIN });
    }

    fn take(&mut self) -> Result<Vec<Taken>, WorkError> {
        let mut taken = Vec::new();
        // Records whose hops cannot be written at the moment do not pile up.
        if self.committer.moving() > 0 || !self.unread.is_empty() || self.bare.len() + self.waiting.len() >= MOST_AT_ONCE {
            return Ok(taken);
        }
        for index in self.committer.in_turn() {
            let most = MOST_AT_ONCE.min(taken.len() + TURN);
            while taken.len() < most && self.committer.has_room(index) {
                match self.committer.poll(index)? {
                    Polled::Empty => break,
                    Polled::Nothing => {}
                    Polled::New(record) => taken.push(self.read(index, &record)?),
                }
            }
        }
        Ok(taken)
    }

    fn read(&mut self, index: usize, record: &Record) -> Result<Taken, WorkError> {
        let id = RecordId { token: self.committer.lanes[index].token, offset: record.offset() };
        let too_many_starts = match self.committer.is_to_be_counted(index).then(|| self.committer.count_start(id)).transpose()? {
            Some(Start::Buried(starts)) => Some(starts),
            Some(Start::Begins | Start::Gone | Start::Later) | None => None,
        };
        let lane = &self.committer.lanes[index];
        let at = record.coordinates(lane.tp());
        let arrival = match self.ladder.dialect() {
            None => inbox::read(&self.ladder, &at, record.headers()),
            Some(dialect) => inbox::read_foreign(&self.ladder, dialect, &at, record.headers()),
        };
        if let Some(malformed) = &arrival.malformed {
            self.metrics.worker.malformed_headers();
            tracing::warn!(
                partition = %lane.tp(), offset = at.offset, %malformed,
                "headers of a record in the inbox are not trusted"
            );
        }
        let came_without = self.ladder.dialect() == Some(Dialect::ShareGroup) && record.value().is_none();
        let elsewhere = came_without.then(|| {
            let place = Dialect::ShareGroup.read(record.headers()).place;
            // One of which it is not told is nowhere.
            Coordinates {
                topic: place.topic.unwrap_or_default(),
                partition: place.partition.unwrap_or(-1),
                offset: place.offset.unwrap_or(-1),
                timestamp: at.timestamp,
            }
        });
        Ok(Taken { id, at, content: Content::of(record), arrival, too_many_starts, elsewhere })
    }

    /// Reads the records of arrivals that came without theirs. What cannot be read now is tried again, and nothing else is taken until
    /// then: it must not be redelivered as null.
    fn whole(&mut self, taken: Vec<Taken>) -> Vec<Taken> {
        let retries = if self.clock.now() < self.ask_at { Vec::new() } else { std::mem::take(&mut self.unread) };
        let mut whole = Vec::with_capacity(taken.len() + retries.len());
        for mut taken in retries.into_iter().chain(taken) {
            let Some(place) = &taken.elsewhere else {
                whole.push(taken);
                continue;
            };
            let known = self.ladder.sources().contains(&place.topic);
            match if known { elsewhere::read(&self.kafka, place) } else { Ok(None) } {
                Ok(Some(found)) => {
                    // What the ladder wrote stands on the record, what the share group did on its dead letter.
                    let own = found.headers.iter().filter(|(name, _)| envelope::is_own(name));
                    let foreign = taken.content.headers.iter().filter(|(name, _)| !envelope::is_own(name));
                    taken.arrival = inbox::read_foreign(&self.ladder, Dialect::ShareGroup, &taken.at, own.chain(foreign));
                    taken.content = found;
                }
                Ok(None) => {
                    tracing::warn!(
                        ladder = self.ladder.name(),
                        partition = taken.at.partition,
                        offset = taken.at.offset,
                        "a dead letter came without its record, which is not where it was consumed: it goes to the DLQ, reason no-origin"
                    );
                    taken.arrival.envelope = Envelope::fresh(self.ladder.name(), &taken.at);
                    taken.arrival.carried = Carried::Nothing;
                }
                Err(error) => {
                    tracing::info!(ladder = self.ladder.name(), %error, "a dead letter waits for its record");
                    self.ask_at = self.clock.now().later(ASK_AGAIN);
                    self.unread.push(taken);
                    continue;
                }
            }
            taken.elsewhere = None;
            whole.push(taken);
        }
        whole
    }

    fn judge(&mut self, taken: Taken) {
        let Taken { id, at, content, arrival, too_many_starts, .. } = taken;
        if self.committer.lane_of(id.token).is_none() {
            // Its next owner judges it.
            return;
        }
        let envelope = if arrival.carried == Carried::Envelope {
            self.redelivered.returned(&arrival.envelope);
            arrival.envelope
        } else {
            let print = Fingerprint::of(content.key.as_deref(), content.value.as_deref());
            match self.redelivered.without_headers(print, arrival.told_origin(), &at) {
                Some(envelope) => self.headers_missing(envelope, &at),
                None => arrival.envelope,
            }
        };
        if let Some(starts) = too_many_starts {
            self.committer.bury(id, &envelope, content, starts);
            return;
        }
        let verdict: Verdict = Err(arrival.failure);
        self.metrics.arrived(VerdictKind::of(&verdict));
        self.committer.judge(id, &envelope, content, &verdict, ());
    }

    fn headers_missing(&mut self, envelope: Envelope, at: &Coordinates) -> Envelope {
        self.metrics.headers_missing();
        tracing::debug!(
            ladder = self.ladder.name(),
            id = envelope.id,
            partition = at.partition,
            offset = at.offset,
            "record came back without its headers"
        );
        self.redelivered.hold_where_advised(at, &self.hold);
        envelope
    }

    fn rebalance(&mut self, change: Rebalance) -> Result<(), WorkError> {
        self.metrics.worker.rebalanced();
        match change {
            Rebalance::Assigned(partitions) => self.committer.take_over(partitions, None, |_, _| ())?,
            Rebalance::Revoked { partitions, lost } => {
                if !lost {
                    self.drain(&partitions)?;
                }
                self.committer.give_back(&partitions)?;
            }
        }
        tracing::info!(ladder = self.ladder.name(), partitions = self.committer.lanes.len(), "router owns");
        Ok(())
    }

    /// Writes what was judged of these partitions, no longer than the deadline, and commits.
    fn drain(&mut self, partitions: &[TopicPartition]) -> Result<(), WorkError> {
        let tokens = self.committer.tokens_of(partitions);
        let deadline = self.clock.now().later(self.drain);
        loop {
            self.committer.run_hops()?;
            let over = self.clock.now() >= deadline || self.committer.source.assignment_lost();
            if over || !self.committer.is_moving(&tokens) {
                break;
            }
            std::thread::sleep(IDLE);
        }
        self.committer.end_in_good_order(&tokens);
        self.committer.commit(true, 0)
    }
}

//! The router (relay): consumes the inbox, where applications put failed records, and carries out the
//! decisions.
//!
//! Each arrival counts as one more failed attempt of the record. Earlier attempts are in the headers that the application has
//! copied; if it drops them, a memory of outstanding records ensures that no record loops in tier 1 for ever.
//!
//! An arrival is judged once all earlier redeliveries are known, and leaves in the next transaction together with its offset.

mod drain;
mod missing_records;
mod redelivered;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::config::KafkaConfig;
use crate::core::coordinates::Coordinates;
use crate::core::dialect::Dialect;
use crate::core::envelope::{self, Envelope};
use crate::core::failure::Verdict;
use crate::core::failure::VerdictKind;
use crate::core::fingerprint::Fingerprint;
use crate::core::inbox::{self, Arrival, Carried};
use crate::core::ladder::Ladder;
use crate::core::leader_clock::LocalTime;
use crate::core::role::Role;
use crate::core::topics;
use crate::kafka::clock::Clock;
use crate::kafka::consumer::{ConsumerRecord, Fetch, GroupConsumer};
use crate::kafka::producer::HopProducer;
use crate::telemetry::events::RouterMetrics;
use crate::worker::clients::{Clients, Subscription};
use crate::worker::committer::{Committer, Parts, Polled, StartOutcome, Starts, Work};
use crate::worker::dlq_breaker::DlqBreaker;
use crate::worker::error::WorkError;
use crate::worker::hold::Hold;
use crate::worker::hop::content::{Content, RecordId};
use crate::worker::hop::targets::Targets;
use crate::worker::router::missing_records::{MissingRecords, Whereabouts};
use crate::worker::router::redelivered::{EarlierRedeliveries, InboxEnds, Redelivered};
use crate::worker::supervisor::Presence;

/// Prefetch budget of a router, over all partitions.
const PREFETCH_KIB: usize = 16 * 1024;

/// Number of arrivals judged at a time, per partition and in total: a transaction takes as many.
const TURN: usize = 250;
const MOST_AT_ONCE: usize = 2_000;

/// Interval of asking again for the ends of the redelivered topics, if there was no answer, or they were not read that far.
const ASK_AGAIN: Duration = Duration::from_secs(1);
const MARK_STANDS: Duration = Duration::from_secs(30);

/// How long the group is served while nothing arrives.
const IDLE: Duration = Duration::from_millis(20);
const HASTE: Duration = Duration::from_millis(2);

/// Settings of a router.
#[derive(Clone)]
pub struct RouterSettings {
    /// The ladder.
    pub ladder: Arc<Ladder>,
    /// How to reach Kafka.
    pub kafka: KafkaConfig,
    /// The instance name of this worker, stable over restarts.
    pub instance: String,
    /// How long a shutdown or a revocation waits for judged records to be written.
    pub drain: Duration,
    /// Whether the ladder is held.
    pub hold: Hold,
    /// Starts counted by this process.
    pub starts: Starts,
    /// The DLQ breaker; `None` if it is disabled.
    pub dlq_breaker: Option<Arc<DlqBreaker>>,
}

/// Routes until it is stopped.
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
    /// Arrivals whose records are missing and have not been read yet.
    missing: MissingRecords,
    /// Arrivals without an envelope, for which earlier redeliveries have not been requested yet.
    bare: Vec<PendingArrival>,
    /// Those for which they have.
    waiting: Vec<PendingArrival>,
    /// Assignments with arrivals that wait for redeliveries which cannot be read now.
    stuck: BTreeSet<u64>,
    /// Not before then, after a request without answer.
    ask_at: LocalTime,
}

/// The router's types for its committer.
struct Routing;

impl Work for Routing {
    type Source = GroupConsumer;
    type Sink = HopProducer;
    type Lane = ();
    type Place = ();
}

/// An arrival that was taken and is to be judged.
struct PendingArrival {
    id: RecordId,
    at: Coordinates,
    content: Content,
    arrival: Arrival,
    /// Number of its starts, if it is too high.
    too_many_starts: Option<u32>,
    /// Where the record itself is, since it may be missing.
    record: Whereabouts,
}

impl Router {
    /// Connects and joins.
    ///
    /// # Errors
    /// A topic is missing or Kafka is not reachable.
    pub fn start(settings: &RouterSettings) -> Result<Self, WorkError> {
        let ladder = settings.ladder.clone();
        let mut clients = Clients::new(&ladder, Role::Router, &settings.kafka, &settings.instance);
        let targets = Targets::of_failed(&ladder, &mut clients.producer)?;
        let subscription = Subscription {
            group: topics::router_group(ladder.name()),
            topics: clients.counted(vec![ladder.inbox_topic()])?,
            prefetch_kib: PREFETCH_KIB,
            fetch: Fetch::AtOnce,
        };
        // Before the group is joined: redeliveries must be known before any arrival is judged.
        let redelivered = Redelivered::open(settings, subscription.partitions())?;
        let source = clients.join(subscription, GroupConsumer::join, GroupConsumer::name)?;
        let Clients { clock, producer: sink, .. } = clients;
        let metrics = RouterMetrics::new(&ladder);
        let committer = Committer::new(Parts {
            ladder: ladder.clone(),
            role: Role::Router,
            clock: clock.clone(),
            source,
            sink,
            targets,
            metrics: metrics.worker.clone(),
            hop_metrics: metrics.hops.clone(),
            starts: settings.starts.clone(),
            dlq_breaker: settings.dlq_breaker.clone(),
        });
        let (instance, drain, hold) = (settings.instance.clone(), settings.drain, settings.hold.clone());
        let missing = MissingRecords::new(&ladder, &settings.kafka, &clock);
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
            missing,
            bare,
            waiting,
            stuck: BTreeSet::new(),
            ask_at,
        })
    }

    /// Works until it is stopped.
    ///
    /// # Errors
    /// It cannot continue; see [`WorkError`].
    pub fn run(&mut self, presence: &Presence) -> Result<(), WorkError> {
        self.work(presence).map_err(|error| error.naming(self.ladder.name(), Role::Router, &self.instance))
    }

    fn work(&mut self, presence: &Presence) -> Result<(), WorkError> {
        let mut found = false;
        while !presence.stop.is_set() {
            if let Some(change) = self.committer.source.serve(self.pause(found))? {
                self.rebalance(change)?;
                presence.joined();
            }
            self.redelivered.keep_up();
            let held = self.update_held();
            found = !held && self.route()?;
            self.committer.run_hops()?;
            self.committer.commit(false, usize::MAX)?;
            self.committer.idle();
            // A pending arrival may be the return of a record that would be presumed done.
            if !held && self.bare.is_empty() && self.waiting.is_empty() && self.missing.is_empty() {
                self.presume_done();
            }
        }
        self.end()
    }

    /// How long to wait for group events. Arrivals that wait for other reads delay those after them, except if these cannot be read at
    /// all.
    fn pause(&self, found: bool) -> Duration {
        let waits = self.waiting.iter().any(|taken| !self.stuck.contains(&taken.id.token)) || self.missing.is_reading();
        match (found, !waits) {
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

    /// Whether the ladder is held. After it is resumed, the application is judged by new arrivals
    /// only.
    fn update_held(&mut self) -> bool {
        let held = self.hold.is_held();
        if std::mem::replace(&mut self.was_held, held) && !held {
            self.redelivered.restart_judgement(self.committer.broker_now());
        }
        held
    }

    /// Judges arrivals, each partition in turn; returns whether there were any.
    ///
    /// A record that came back without headers was redelivered before: such arrivals wait until all redeliveries are known. Others
    /// do not wait for them.
    fn route(&mut self) -> Result<bool, WorkError> {
        let mut found = self.judge_what_waited();
        let taken = self.take()?;
        let taken = self.whole(taken)?;
        found |= !taken.is_empty();
        let needs_no_memory =
            |taken: &PendingArrival| taken.arrival.carried == Carried::Envelope || taken.record == Whereabouts::Nowhere;
        let (whole, bare): (Vec<PendingArrival>, Vec<PendingArrival>) = taken.into_iter().partition(needs_no_memory);
        for taken in whole {
            self.judge(taken);
        }
        self.bare.extend(bare);
        self.ask();
        Ok(found)
    }

    /// Judges waiting arrivals for which all earlier redeliveries are known; returns whether there were any.
    fn judge_what_waited(&mut self) -> bool {
        self.stuck.clear();
        let (mut known, mut still) = (Vec::new(), Vec::new());
        let mut waits = false;
        for taken in std::mem::take(&mut self.waiting) {
            match self.redelivered.knows_before(taken.arrival.named_origin()) {
                EarlierRedeliveries::AllRead => known.push(taken),
                EarlierRedeliveries::BeingRead => {
                    waits = true;
                    still.push(taken);
                }
                EarlierRedeliveries::Unreadable => {
                    self.stuck.insert(taken.id.token);
                    still.push(taken);
                }
            }
        }
        self.waiting = still;
        let found = !known.is_empty();
        for taken in known {
            self.judge(taken);
        }
        if found && !waits {
            self.ask_at = self.clock.now();
        }
        found
    }

    /// Asks for the ends of the redelivered topics, once for all arrivals without an envelope; later ones are in the next request.
    /// Old requests are repeated: the topic may have been recreated since, and never reach that end.
    fn ask(&mut self) {
        let now = self.clock.now();
        if now < self.ask_at || (self.waiting.is_empty() && self.bare.is_empty()) {
            return;
        }
        let answered = self.redelivered.mark();
        if answered {
            self.waiting.append(&mut self.bare);
        }
        self.ask_at = now.later(if answered && self.stuck.is_empty() { MARK_STANDS } else { ASK_AGAIN });
    }

    fn take(&mut self) -> Result<Vec<PendingArrival>, WorkError> {
        let mut taken = Vec::new();
        // Records whose hops cannot be written now must not accumulate, nor those that wait for other reads.
        let waiting = self.bare.iter().chain(&self.waiting).filter(|taken| !self.stuck.contains(&taken.id.token)).count();
        if self.committer.moving() > 0 || waiting >= MOST_AT_ONCE {
            return Ok(taken);
        }
        for index in self.committer.in_turn() {
            // Per partition: those of one may wait for long.
            let of_lane = TURN.min(MOST_AT_ONCE / self.committer.lanes.len()).max(1);
            let room = of_lane.saturating_sub(self.missing.waiting_of(self.committer.lanes[index].token));
            let most = MOST_AT_ONCE.min(taken.len() + room);
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

    fn read(&mut self, index: usize, record: &ConsumerRecord) -> Result<PendingArrival, WorkError> {
        let id = RecordId { token: self.committer.lanes[index].token, offset: record.offset() };
        let too_many_starts = match self.committer.is_to_be_counted(index).then(|| self.committer.count_start(id)).transpose()? {
            Some(StartOutcome::Buried(starts)) => Some(starts),
            Some(StartOutcome::Begins | StartOutcome::Gone | StartOutcome::Later) | None => None,
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
        let record_is = if came_without {
            Whereabouts::locate(&self.ladder, Dialect::ShareGroup.read(record.headers()).place)
        } else {
            Whereabouts::Here
        };
        Ok(PendingArrival {
            id,
            at,
            content: Content::of(record).held_by(&self.committer.held),
            arrival,
            too_many_starts,
            record: record_is,
        })
    }

    /// Starts reading the records of arrivals that came without theirs, which must not be redelivered as null; returns the complete
    /// arrivals.
    fn whole(&mut self, taken: Vec<PendingArrival>) -> Result<Vec<PendingArrival>, WorkError> {
        let mut whole = Vec::with_capacity(taken.len());
        for taken in taken {
            match taken.record.clone() {
                Whereabouts::Here => whole.push(taken),
                Whereabouts::Nowhere => whole.push(self.without_record(taken)),
                Whereabouts::At(tp, offset) => self.missing.read(taken, (tp, offset)),
            }
        }
        if self.committer.moving() == 0 {
            for (taken, found) in self.missing.take_read()? {
                whole.push(match found {
                    Some(found) => self.completed(taken, found),
                    None => self.without_record(taken),
                });
            }
        }
        for lane in &mut self.committer.lanes {
            lane.held_up = self.stuck.contains(&lane.token) || self.missing.is_held_up(lane.token);
        }
        Ok(whole)
    }

    /// The ladder's headers are on the record, the share group's on its dead letter.
    fn completed(&self, mut taken: PendingArrival, found: Content) -> PendingArrival {
        let own = found.headers.iter().filter(|(name, _)| envelope::is_own(name));
        let foreign = taken.content.headers.iter().filter(|(name, _)| !envelope::is_own(name));
        taken.arrival = inbox::read_foreign(&self.ladder, Dialect::ShareGroup, &taken.at, own.chain(foreign));
        taken.content = found;
        taken.record = Whereabouts::Here;
        taken
    }

    fn without_record(&self, mut taken: PendingArrival) -> PendingArrival {
        tracing::debug!(
            ladder = self.ladder.name(),
            partition = taken.at.partition,
            offset = taken.at.offset,
            "a dead letter came without its record, which is also missing at its origin: it goes to the DLQ, reason no-origin"
        );
        taken.record = Whereabouts::Nowhere;
        taken.arrival.envelope = Envelope::fresh(self.ladder.name(), &taken.at);
        taken.arrival.carried = Carried::Nothing;
        taken
    }

    fn judge(&mut self, taken: PendingArrival) {
        let PendingArrival { id, at, content, arrival, too_many_starts, record } = taken;
        if self.committer.lane_of(id.token).is_none() {
            // Its next owner judges it.
            return;
        }
        if record == Whereabouts::Nowhere {
            self.metrics.arrived(VerdictKind::of(&Err(arrival.failure.clone())));
            self.committer.without_record(id, &arrival.envelope, content, &arrival.failure);
            return;
        }
        let envelope = if arrival.carried == Carried::Envelope {
            self.redelivered.returned(&arrival.envelope);
            arrival.envelope
        } else {
            let print = Fingerprint::of(content.key.as_deref(), content.value.as_deref());
            match self.redelivered.without_headers(print, arrival.named_origin(), &at) {
                Some(envelope) => self.headers_missing(envelope, &at),
                None => arrival.envelope,
            }
        };
        if let Some(fault) = content.fault {
            self.committer.unfit(id, envelope, content, fault);
            return;
        }
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
}

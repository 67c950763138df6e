//! What happens, as functions to call: the only way by which code feeds metrics.
//!
//! All handles are made once, when a worker starts, and calling them neither allocates nor formats. A handle that is made before
//! [`crate::telemetry::exporter::install`] feeds nothing: the exporter comes first. Series exist from the start with the value 0,
//! so that the first event of a kind shows as a rise.
//!
//! Counters of hops and dead letters are raised when the hop is committed, never when it is sent: an aborted transaction has moved
//! nothing.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::config::types::Role;
use crate::core::delay::Delay;
use crate::core::dispatch::{BreakerState, Evidence, Standing, Trouble};
use crate::core::envelope::Reason;
use crate::core::failure::VerdictKind;
use crate::core::ladder::Ladder;
use crate::telemetry::names;
use crate::telemetry::tally::Tally;

/// What every worker has.
#[derive(Clone)]
pub struct WorkerMetrics {
    transaction: Histogram,
    aborted: Counter,
    rebalances: Counter,
    malformed: Counter,
    stopped: Gauge,
    restarts: Counter,
}

impl WorkerMetrics {
    /// Makes the handles of one worker.
    #[must_use]
    pub fn new(ladder: &Ladder, role: Role) -> Self {
        let (name, role) = (ladder.name(), names::role(role));
        let count = |metric: names::Metric| counter!(metric.name, names::LADDER => name.to_owned(), names::ROLE => role);
        Self {
            transaction: histogram!(names::TRANSACTION.name, names::LADDER => name.to_owned(), names::ROLE => role),
            aborted: count(names::TRANSACTIONS_ABORTED),
            rebalances: count(names::REBALANCES),
            malformed: count(names::MALFORMED_HEADERS),
            stopped: gauge!(names::PARTITIONS_STOPPED.name, names::LADDER => name.to_owned(), names::ROLE => role),
            restarts: count(names::WORKER_RESTARTS),
        }
    }

    /// A transaction was committed that long after it began.
    pub fn transaction_committed(&self, took: Duration) {
        self.transaction.record(took);
    }

    /// A transaction was aborted.
    pub fn transaction_aborted(&self) {
        self.aborted.increment(1);
    }

    /// Partitions were given or lost.
    pub fn rebalanced(&self) {
        self.rebalances.increment(1);
    }

    /// A record had kladder headers that cannot be trusted.
    pub fn malformed_headers(&self) {
        self.malformed.increment(1);
    }

    /// So many partitions stand still now.
    pub fn partitions_stopped(&self, count: usize) {
        self.stopped.set(lossy(count));
    }

    /// The worker failed and was started again.
    pub fn restarted(&self) {
        self.restarts.increment(1);
    }
}

/// Hops and dead letters, of whichever worker.
#[derive(Clone)]
pub struct HopMetrics {
    tiers: Vec<Counter>,
    redeliver: Counter,
    dlq: Counter,
    dead_letters: [Counter; Reason::ALL.len()],
    held: Counter,
    rules: Vec<Counter>,
    tally: Tally,
}

impl HopMetrics {
    /// Makes the handles of one ladder.
    #[must_use]
    pub fn new(ladder: &Ladder) -> Self {
        let name = ladder.name();
        let to = |target: String| counter!(names::HOPS.name, names::LADDER => name.to_owned(), names::TIER => target);
        let dead = |reason: Reason| counter!(names::DEAD_LETTERS.name, names::LADDER => name.to_owned(), names::REASON => reason.as_str());
        Self {
            tiers: ladder.tiers().iter().map(|t| to(t.delay().to_string())).collect(),
            redeliver: to(names::TO_REDELIVER.to_owned()),
            dlq: to(names::TO_DLQ.to_owned()),
            dead_letters: Reason::ALL.map(dead),
            held: counter!(names::DEAD_LETTERS_HELD.name, names::LADDER => name.to_owned()),
            rules: (0..ladder.rules().len()).map(|index| rule_counter(ladder, index)).collect(),
            tally: Tally::default(),
        }
    }

    /// The same handles, which count into this too.
    #[must_use]
    pub fn counted_by(self, tally: &Tally) -> Self {
        Self { tally: tally.clone(), ..self }
    }

    /// Records hopped into the tier of this number.
    pub fn to_tier(&self, number: u32, records: u64) {
        self.tally.to_tier(records);
        let counter = number.checked_sub(1).and_then(|n| self.tiers.get(usize::try_from(n).ok()?));
        if let Some(counter) = counter {
            counter.increment(records);
        }
    }

    /// What would be dead letters has hopped into a tier to wait there.
    pub fn held(&self, records: u64) {
        self.held.increment(records);
    }

    /// Records hopped back.
    pub fn to_redeliver(&self, records: u64) {
        self.tally.back(records);
        self.redeliver.increment(records);
    }

    /// The rule at this place (from 0) has decided what follows from a failure.
    pub fn classified(&self, rule: usize) {
        if let Some(counter) = self.rules.get(rule) {
            counter.increment(1);
        }
    }

    /// A record became a dead letter.
    pub fn dead_lettered(&self, reason: Reason) {
        self.tally.dead_lettered(reason);
        self.dlq.increment(1);
        if let Some(at) = Reason::ALL.iter().position(|r| *r == reason) {
            self.dead_letters[at].increment(1);
        }
    }
}

fn rule_counter(ladder: &Ladder, index: usize) -> Counter {
    let (name, rule, then) = (ladder.name().to_owned(), ladder.rule_name(index), ladder.rules()[index].then.as_str());
    counter!(names::CLASSIFIED.name, names::LADDER => name, names::RULE => rule, names::THEN => then)
}

/// One tier as the mover sees it.
#[derive(Clone)]
pub struct TierMetrics {
    left: Counter,
    lateness: Histogram,
    waiting: Gauge,
    due: Gauge,
    oldest_overdue: Gauge,
}

impl TierMetrics {
    fn new(ladder: &str, delay: Delay) -> Self {
        let delay = delay.to_string();
        let gauge = |metric: names::Metric| gauge!(metric.name, names::LADDER => ladder.to_owned(), names::TIER => delay.clone());
        Self {
            left: counter!(names::TIER_LEFT.name, names::LADDER => ladder.to_owned(), names::TIER => delay.clone()),
            lateness: histogram!(names::LATENESS.name, names::LADDER => ladder.to_owned(), names::TIER => delay.clone()),
            waiting: gauge(names::TIER_WAITING),
            due: gauge(names::TIER_DUE),
            oldest_overdue: gauge(names::TIER_OLDEST_OVERDUE),
        }
    }

    /// Records have left the tier, wherever to.
    pub fn left(&self, records: u64) {
        self.left.increment(records);
    }

    /// A record was redelivered that long after its due time.
    pub fn redelivered(&self, lateness: Duration) {
        self.lateness.record(lateness);
    }

    /// How the tier stands now, over the partitions that this process moves.
    pub fn standing(&self, waiting: u64, due: u64, oldest_overdue: Duration) {
        self.waiting.set(lossy(waiting));
        self.due.set(lossy(due));
        self.oldest_overdue.set(oldest_overdue);
    }
}

/// What the mover tells.
#[derive(Clone)]
pub struct MoverMetrics {
    /// What every worker tells.
    pub worker: WorkerMetrics,
    /// Hops back, and on to another tier.
    pub hops: HopMetrics,
    ladder: String,
    tiers: Vec<(Delay, TierMetrics)>,
    early: Counter,
    clock_offset: Gauge,
}

impl MoverMetrics {
    /// Makes the handles of the mover of one ladder.
    #[must_use]
    pub fn new(ladder: &Ladder) -> Self {
        let name = ladder.name();
        Self {
            worker: WorkerMetrics::new(ladder, Role::Mover),
            hops: HopMetrics::new(ladder),
            ladder: name.to_owned(),
            tiers: ladder.tiers().iter().map(|t| (t.delay(), TierMetrics::new(name, t.delay()))).collect(),
            early: counter!(names::EARLY.name, names::LADDER => name.to_owned()),
            clock_offset: gauge!(names::CLOCK_OFFSET.name, names::LADDER => name.to_owned()),
        }
    }

    /// The same handles, which count into this too.
    #[must_use]
    pub fn counted_by(self, tally: &Tally) -> Self {
        Self { hops: self.hops.counted_by(tally), ..self }
    }

    /// The handles of one tier, to be kept by whoever moves it. A tier that the ladder no longer has gets its own: it is emptied
    /// like the others.
    #[must_use]
    pub fn tier(&self, delay: Delay) -> TierMetrics {
        let known = self.tiers.iter().find(|(d, _)| *d == delay);
        known.map_or_else(|| TierMetrics::new(&self.ladder, delay), |(_, metrics)| metrics.clone())
    }

    /// A record was redelivered before its due time.
    pub fn early(&self) {
        self.early.increment(1);
    }

    /// The clock of the leader that is furthest off, minus ours, in microseconds.
    pub fn clock_offset(&self, micros: i64) {
        #[expect(clippy::cast_precision_loss, reason = "exact for any offset below 285 years")]
        self.clock_offset.set(micros as f64 / 1e6);
    }
}

/// What the deliverer tells.
#[derive(Clone)]
pub struct DelivererMetrics {
    /// What every worker tells.
    pub worker: WorkerMetrics,
    /// Hops into the tiers, and dead letters.
    pub hops: HopMetrics,
    deliveries: [Counter; VerdictKind::ALL.len()],
    repeated: Counter,
    attempts: Histogram,
    handler: Histogram,
    delays: Vec<Histogram>,
    delay_other: Histogram,
    tally: Tally,
}

impl DelivererMetrics {
    /// Makes the handles of the deliverer of one ladder.
    #[must_use]
    pub fn new(ladder: &Ladder) -> Self {
        let name = ladder.name();
        let delay =
            |tier: String| histogram!(names::REDELIVERY_DELAY.name, names::LADDER => name.to_owned(), names::TIER => tier);
        Self {
            worker: WorkerMetrics::new(ladder, Role::Deliverer),
            hops: HopMetrics::new(ladder),
            deliveries: deliveries(name),
            repeated: counter!(names::IMMEDIATE_RETRIES.name, names::LADDER => name.to_owned()),
            attempts: histogram!(names::ATTEMPTS_UNTIL_DONE.name, names::LADDER => name.to_owned()),
            handler: histogram!(names::HANDLER.name, names::LADDER => name.to_owned()),
            delays: ladder.tiers().iter().map(|t| delay(t.delay().to_string())).collect(),
            delay_other: delay(names::TIER_OTHER.to_owned()),
            tally: Tally::default(),
        }
    }

    /// The same handles, which count into this too.
    #[must_use]
    pub fn counted_by(self, tally: &Tally) -> Self {
        Self { hops: self.hops.counted_by(tally), tally: tally.clone(), ..self }
    }

    /// The handler is called, that long after the due time of a record that waited in the tier of this number.
    pub fn redelivered(&self, tier: u32, delay: Duration) {
        let known = tier.checked_sub(1).and_then(|n| self.delays.get(usize::try_from(n).ok()?));
        known.unwrap_or(&self.delay_other).record(delay);
    }

    /// A failed attempt is repeated in place.
    pub fn repeated(&self) {
        self.repeated.increment(1);
    }

    /// A record is done, at this attempt (from 1).
    pub fn done_at(&self, attempt: u32) {
        self.attempts.record(attempt);
    }

    /// The handler has answered after that time.
    pub fn delivered(&self, kind: VerdictKind, took: Duration) {
        self.tally.delivered(kind);
        self.deliveries[kind as usize].increment(1);
        if kind != VerdictKind::Unsent {
            self.handler.record(took);
        }
    }
}

/// What the router tells.
#[derive(Clone)]
pub struct RouterMetrics {
    /// What every worker tells.
    pub worker: WorkerMetrics,
    /// Hops into the tiers, and dead letters.
    pub hops: HopMetrics,
    deliveries: [Counter; VerdictKind::ALL.len()],
    attempts: Histogram,
    headers_missing: Counter,
}

impl RouterMetrics {
    /// Makes the handles of the router of one ladder.
    #[must_use]
    pub fn new(ladder: &Ladder) -> Self {
        let name = ladder.name();
        Self {
            worker: WorkerMetrics::new(ladder, Role::Router),
            hops: HopMetrics::new(ladder),
            deliveries: deliveries(name),
            attempts: histogram!(names::ATTEMPTS_UNTIL_DONE.name, names::LADDER => name.to_owned()),
            headers_missing: counter!(names::RELAY_HEADERS_MISSING.name, names::LADDER => name.to_owned()),
        }
    }

    /// A record has failed in the application.
    pub fn arrived(&self, kind: VerdictKind) {
        self.deliveries[kind as usize].increment(1);
    }

    /// A record is presumed to have succeeded, at this attempt (from 1).
    pub fn presumed_done(&self, attempt: u32) {
        self.deliveries[VerdictKind::Done as usize].increment(1);
        self.attempts.record(attempt);
    }

    /// A record came back without its headers.
    pub fn headers_missing(&self) {
        self.headers_missing.increment(1);
    }
}

fn deliveries(ladder: &str) -> [Counter; VerdictKind::ALL.len()] {
    VerdictKind::ALL
        .map(|kind| counter!(names::DELIVERIES.name, names::LADDER => ladder.to_owned(), names::VERDICT => kind.as_str()))
}

/// What the HTTP handler tells.
#[derive(Clone)]
pub struct HttpMetrics {
    odd: Counter,
}

impl HttpMetrics {
    /// Makes the handles of the HTTP handler of one ladder.
    #[must_use]
    pub fn new(ladder: &Ladder) -> Self {
        Self { odd: counter!(names::ODD_ANSWERS.name, names::LADDER => ladder.name().to_owned()) }
    }

    /// The handler gave an answer that it should not give.
    pub fn odd_answer(&self) {
        self.odd.increment(1);
    }
}

/// How a breaker can stand, as the label has it: closed, half-open, open.
pub(crate) const BREAKER_STATES: [&str; 3] = ["closed", "half-open", "open"];

/// What is told of the health of a ladder's handler.
#[derive(Clone)]
pub struct HandlerHealthMetrics {
    breaker: Gauge,
    /// Closed, half-open, open.
    changes: [Counter; 3],
    health: Gauge,
    allowed: Gauge,
    trouble: [Gauge; Trouble::ALL.len()],
    suspects: Gauge,
    stands_aside: Gauge,
    places: usize,
}

impl HandlerHealthMetrics {
    /// Makes the handles of one ladder, whose handler is up, and at which so many calls may run.
    #[must_use]
    pub fn new(ladder: &Ladder, places: usize) -> Self {
        let name = ladder.name();
        let of = |metric: names::Metric| gauge!(metric.name, names::LADDER => name.to_owned());
        let change =
            |state: &'static str| counter!(names::BREAKER_CHANGES.name, names::LADDER => name.to_owned(), names::STATE => state);
        let trouble = |kind: Trouble| gauge!(names::HANDLER_TROUBLE.name, names::LADDER => name.to_owned(), names::TROUBLE => kind.as_str());
        let metrics = Self {
            breaker: of(names::BREAKER_STATE),
            changes: BREAKER_STATES.map(change),
            health: of(names::HANDLER_HEALTH),
            allowed: of(names::HANDLER_CALLS_ALLOWED),
            trouble: Trouble::ALL.map(trouble),
            suspects: of(names::HANDLER_SUSPECTS),
            stands_aside: of(names::STANDS_ASIDE),
            places,
        };
        metrics.standing(Standing::Up, &Evidence::default(), 0);
        metrics.stands_aside(false);
        metrics
    }

    /// It is like this, by this evidence, with so many records under suspicion.
    pub fn standing(&self, standing: Standing, evidence: &Evidence, suspects: usize) {
        let (health, allowed) = match standing {
            Standing::Up => (0.0, self.places),
            Standing::Degraded { allowed } => (1.0, allowed),
            Standing::InDoubt => (1.0, 0),
            Standing::Probing | Standing::Down { .. } => (2.0, 0),
        };
        self.health.set(health);
        self.allowed.set(lossy(allowed));
        self.breaker.set(match standing.breaker() {
            BreakerState::Closed => 0.0,
            BreakerState::HalfOpen => 1.0,
            BreakerState::Open => 2.0,
        });
        for kind in Trouble::ALL {
            let calls = evidence.calls[kind as usize];
            self.trouble[kind as usize].set(lossy(usize::try_from(calls).unwrap_or(usize::MAX)));
        }
        self.suspects.set(lossy(suspects));
    }

    /// Whether the worker has left its partitions to others.
    pub fn stands_aside(&self, is_so: bool) {
        self.stands_aside.set(if is_so { 1.0 } else { 0.0 });
    }

    /// Its breaker has come to stand like this.
    pub fn changed(&self, state: BreakerState) {
        self.changes[state as usize].increment(1);
    }
}

/// What the watch over a ladder's state tells.
#[derive(Clone)]
pub struct HoldMetrics {
    held: Gauge,
    dead_letters_held: Gauge,
}

impl HoldMetrics {
    /// Makes the handle of one ladder, which is not held as far as is known.
    #[must_use]
    pub fn new(ladder: &Ladder) -> Self {
        let of = |name| gauge!(name, names::LADDER => ladder.name().to_owned());
        let metrics = Self { held: of(names::HELD.name), dead_letters_held: of(names::DLQ_BREAKER_OPEN.name) };
        metrics.held(false);
        metrics.dead_letters_held(false);
        metrics
    }

    /// Whether what would be dead letters is held now.
    pub fn dead_letters_held(&self, are_held: bool) {
        self.dead_letters_held.set(if are_held { 1.0 } else { 0.0 });
    }

    /// Whether the ladder is held now.
    pub fn held(&self, is_held: bool) {
        self.held.set(if is_held { 1.0 } else { 0.0 });
    }
}

/// Gauges are floats: exact up to 2^53, and near enough beyond.
#[expect(clippy::cast_precision_loss, reason = "a count of records, for people to read")]
fn lossy(count: impl TryInto<u64>) -> f64 {
    count.try_into().unwrap_or(u64::MAX) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_of_a_verdict_is_its_number() {
        for (i, kind) in VerdictKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, i);
        }
    }
}

//! Events as functions: the only way in which code updates metrics.
//!
//! All handles are created once, when a worker starts; calling them neither allocates nor formats. A handle created before
//! [`crate::telemetry::exporter::install`] records nothing: the exporter comes first. Series exist from the start with the value
//! 0, so that the first event is visible as a rise.
//!
//! Counters of hops and dead letters are increased when the hop is committed, not when it is sent: an aborted transaction has
//! moved nothing.

mod handler;

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::core::delay::Delay;
use crate::core::envelope::Reason;
use crate::core::failure::VerdictKind;
use crate::core::ladder::Ladder;
use crate::core::role::Role;
use crate::telemetry::names;
use crate::telemetry::tally::Tally;

#[cfg(feature = "cli")]
pub use handler::{BREAKER_STATES, HttpMetrics};
pub use handler::{HandlerHealthMetrics, HoldMetrics};

/// Metrics of every worker.
#[derive(Clone)]
pub struct WorkerMetrics {
    transaction: Histogram,
    aborted: Counter,
    rebalances: Counter,
    malformed: Counter,
    stopped: Gauge,
    in_hand: Option<Gauge>,
    restarts: Counter,
}

impl WorkerMetrics {
    /// Creates the handles of one worker.
    #[must_use]
    pub fn new(ladder: &Ladder, role: Role) -> Self {
        let (name, role) = (ladder.name(), role.as_str());
        let count = |metric: names::Metric| counter!(metric.name, names::LADDER => name.to_owned(), names::ROLE => role);
        Self {
            transaction: histogram!(names::TRANSACTION.name, names::LADDER => name.to_owned(), names::ROLE => role),
            aborted: count(names::TRANSACTIONS_ABORTED),
            rebalances: count(names::REBALANCES),
            malformed: count(names::MALFORMED_HEADERS),
            stopped: gauge!(names::PARTITIONS_STOPPED.name, names::LADDER => name.to_owned(), names::ROLE => role),
            // A mover holds only the head of each partition.
            in_hand: (role != Role::Mover.as_str())
                .then(|| gauge!(names::IN_HAND.name, names::LADDER => name.to_owned(), names::ROLE => role)),
            restarts: count(names::WORKER_RESTARTS),
        }
    }

    /// A transaction was committed this long after it began.
    pub fn transaction_committed(&self, took: Duration) {
        self.transaction.record(took);
    }

    /// A transaction was aborted.
    pub fn transaction_aborted(&self) {
        self.aborted.increment(1);
    }

    /// Partitions were assigned or revoked.
    pub fn rebalanced(&self) {
        self.rebalances.increment(1);
    }

    /// A record had kladder headers that cannot be trusted.
    pub fn malformed_headers(&self) {
        self.malformed.increment(1);
    }

    /// Number of partitions that are stopped now.
    pub fn partitions_stopped(&self, count: usize) {
        self.stopped.set(lossy(count));
    }

    /// Bytes of records that are taken and not finished.
    pub fn in_hand(&self, bytes: usize) {
        if let Some(gauge) = &self.in_hand {
            gauge.set(lossy(bytes));
        }
    }

    /// The worker failed and was restarted.
    pub fn restarted(&self) {
        self.restarts.increment(1);
    }
}

/// Hops and dead letters, of any worker.
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
    /// Creates the handles of one ladder.
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

    /// The same handles, which also count into this tally.
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

    /// Records that would be dead letters have hopped into a tier to wait there.
    pub fn held(&self, records: u64) {
        self.held.increment(records);
    }

    /// Records hopped back.
    pub fn to_redeliver(&self, records: u64) {
        self.tally.back(records);
        self.redeliver.increment(records);
    }

    /// The rule at this index (from 0) has decided about a failure.
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

/// One tier as seen by the mover.
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

    /// Records have left the tier, in any direction.
    pub fn left(&self, records: u64) {
        self.left.increment(records);
    }

    /// A record was redelivered this long after its due time.
    pub fn redelivered(&self, lateness: Duration) {
        self.lateness.record(lateness);
    }

    /// The current state of the tier, over the partitions that this process moves.
    pub fn standing(&self, waiting: u64, due: u64, oldest_overdue: Duration) {
        self.waiting.set(lossy(waiting));
        self.due.set(lossy(due));
        self.oldest_overdue.set(oldest_overdue);
    }
}

/// Metrics of the mover.
#[derive(Clone)]
pub struct MoverMetrics {
    /// Those of every worker.
    pub worker: WorkerMetrics,
    /// Hops to redeliver, and to other tiers.
    pub hops: HopMetrics,
    ladder: String,
    tiers: Vec<(Delay, TierMetrics)>,
    early: Counter,
    clock_offset: Gauge,
}

impl MoverMetrics {
    /// Creates the handles of the mover of one ladder.
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

    /// The same handles, which also count into this tally.
    #[must_use]
    pub fn counted_by(self, tally: &Tally) -> Self {
        Self { hops: self.hops.counted_by(tally), ..self }
    }

    /// Creates the handles of one tier, which the caller keeps. A tier no longer in the configuration has handles too: it is
    /// emptied like the others.
    #[must_use]
    pub fn tier(&self, delay: Delay) -> TierMetrics {
        let known = self.tiers.iter().find(|(d, _)| *d == delay);
        known.map_or_else(|| TierMetrics::new(&self.ladder, delay), |(_, metrics)| metrics.clone())
    }

    /// A record was redelivered before its due time.
    pub fn early(&self) {
        self.early.increment(1);
    }

    /// The offset of the leader clock that deviates most, minus the local clock, in microseconds.
    pub fn clock_offset(&self, micros: i64) {
        #[expect(clippy::cast_precision_loss, reason = "exact for any offset below 285 years")]
        self.clock_offset.set(micros as f64 / 1e6);
    }
}

/// Metrics of the deliverer.
#[derive(Clone)]
pub struct DelivererMetrics {
    /// Those of every worker.
    pub worker: WorkerMetrics,
    /// Hops into the tiers, and dead letters.
    pub hops: HopMetrics,
    deliveries: [Counter; VerdictKind::ALL.len()],
    repeated: Counter,
    attempts: Histogram,
    handler: Histogram,
    batches: Counter,
    delays: Vec<Histogram>,
    delay_other: Histogram,
    tally: Tally,
}

impl DelivererMetrics {
    /// Creates the handles of the deliverer of one ladder.
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
            batches: counter!(names::BATCHES.name, names::LADDER => name.to_owned()),
            delays: ladder.tiers().iter().map(|t| delay(t.delay().to_string())).collect(),
            delay_other: delay(names::TIER_OTHER.to_owned()),
            tally: Tally::default(),
        }
    }

    /// The same handles, which also count into this tally.
    #[must_use]
    pub fn counted_by(self, tally: &Tally) -> Self {
        Self { hops: self.hops.counted_by(tally), tally: tally.clone(), ..self }
    }

    /// The handler is called, this long after the due time of a record that waited in the tier of this number.
    pub fn redelivered(&self, tier: u32, delay: Duration) {
        let known = tier.checked_sub(1).and_then(|n| self.delays.get(usize::try_from(n).ok()?));
        known.unwrap_or(&self.delay_other).record(delay);
    }

    /// A failed attempt is retried in place.
    pub fn repeated(&self) {
        self.repeated.increment(1);
    }

    /// A batch was delivered.
    pub fn batch_delivered(&self) {
        self.batches.increment(1);
    }

    /// A record is done at this attempt (from 1).
    pub fn done_at(&self, attempt: u32) {
        self.attempts.record(attempt);
    }

    /// The handler has answered after this time.
    pub fn delivered(&self, kind: VerdictKind, took: Duration) {
        self.tally.delivered(kind);
        self.deliveries[kind as usize].increment(1);
        if kind != VerdictKind::Unsent {
            self.handler.record(took);
        }
    }
}

/// Metrics of the router.
#[derive(Clone)]
pub struct RouterMetrics {
    /// Those of every worker.
    pub worker: WorkerMetrics,
    /// Hops into the tiers, and dead letters.
    pub hops: HopMetrics,
    deliveries: [Counter; VerdictKind::ALL.len()],
    attempts: Histogram,
    headers_missing: Counter,
}

impl RouterMetrics {
    /// Creates the handles of the router of one ladder.
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

    /// A record was redelivered and has come back without its headers.
    pub fn headers_missing(&self) {
        self.headers_missing.increment(1);
    }
}

fn deliveries(ladder: &str) -> [Counter; VerdictKind::ALL.len()] {
    VerdictKind::ALL
        .map(|kind| counter!(names::DELIVERIES.name, names::LADDER => ladder.to_owned(), names::VERDICT => kind.as_str()))
}

/// Gauges are floats: exact up to 2^53, and close enough beyond.
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

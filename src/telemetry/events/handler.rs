//! Events of handlers, and of the watch over a ladder's state.

use metrics::{Counter, Gauge, counter, gauge};

use crate::core::dispatch::{BreakerState, Evidence, Standing, Trouble};
use crate::core::ladder::Ladder;
use crate::telemetry::events::lossy;
use crate::telemetry::names;

/// Metrics of the HTTP handler.
#[derive(Clone)]
pub struct HttpMetrics {
    odd: Counter,
}

impl HttpMetrics {
    /// Creates the handles of the HTTP handler of one ladder.
    #[must_use]
    pub fn new(ladder: &Ladder) -> Self {
        Self { odd: counter!(names::ODD_ANSWERS.name, names::LADDER => ladder.name().to_owned()) }
    }

    /// The handler gave an unexpected answer.
    pub fn odd_answer(&self) {
        self.odd.increment(1);
    }
}

/// The states of a breaker, as in the label: closed, half-open, open.
pub const BREAKER_STATES: [&str; 3] = ["closed", "half-open", "open"];

/// Metrics of the health of a ladder's handler.
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
    /// Creates the handles of one ladder, whose handler is up and may have this many calls in
    /// flight.
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
        metrics.set_stood_aside(false);
        metrics
    }

    /// The current health, its evidence, and the number of suspected records.
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
    pub fn set_stood_aside(&self, is_so: bool) {
        self.stands_aside.set(if is_so { 1.0 } else { 0.0 });
    }

    /// The breaker has changed to this state.
    pub fn changed(&self, state: BreakerState) {
        self.changes[state as usize].increment(1);
    }
}

/// Metrics of the watch over a ladder's state.
#[derive(Clone)]
pub struct HoldMetrics {
    held: Gauge,
    dead_letters_held: Gauge,
}

impl HoldMetrics {
    /// Creates the handles of one ladder, which is not held as far as known.
    #[must_use]
    pub fn new(ladder: &Ladder) -> Self {
        let of = |name| gauge!(name, names::LADDER => ladder.name().to_owned());
        let metrics = Self { held: of(names::HELD.name), dead_letters_held: of(names::DLQ_BREAKER_OPEN.name) };
        metrics.held(false);
        metrics.dead_letters_held(false);
        metrics
    }

    /// Whether dead letters are held now.
    pub fn dead_letters_held(&self, are_held: bool) {
        self.dead_letters_held.set(if are_held { 1.0 } else { 0.0 });
    }

    /// Whether the ladder is held now.
    pub fn held(&self, is_held: bool) {
        self.held.set(if is_held { 1.0 } else { 0.0 });
    }
}

//! Counts of what the workers of one process have done, for embedding applications.
//!
//! Metrics are lost if no recorder is installed, and an application may have its own recorder: so the
//! handles of [`crate::telemetry::events`] also increase these counts, at the same events.

use std::array::from_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::core::envelope::Reason;
use crate::core::failure::VerdictKind;

/// Counts shared by several workers; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Tally(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    deliveries: [AtomicU64; VerdictKind::ALL.len()],
    to_tiers: AtomicU64,
    back: AtomicU64,
    dead_letters: [AtomicU64; Reason::ALL.len()],
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            deliveries: from_fn(|_| AtomicU64::default()),
            to_tiers: AtomicU64::default(),
            back: AtomicU64::default(),
            dead_letters: from_fn(|_| AtomicU64::default()),
        }
    }
}

impl Tally {
    pub(super) fn delivered(&self, kind: VerdictKind) {
        add(&self.0.deliveries[kind as usize], 1);
    }

    pub(super) fn to_tier(&self, records: u64) {
        add(&self.0.to_tiers, records);
    }

    pub(super) fn back(&self, records: u64) {
        add(&self.0.back, records);
    }

    pub(super) fn dead_lettered(&self, reason: Reason) {
        if let Some(at) = Reason::ALL.iter().position(|r| *r == reason) {
            add(&self.0.dead_letters[at], 1);
        }
    }

    /// Deliveries with this verdict.
    #[must_use]
    pub fn deliveries(&self, kind: VerdictKind) -> u64 {
        get(&self.0.deliveries[kind as usize])
    }

    /// Records that hopped into a tier.
    #[must_use]
    pub fn hops_to_tiers(&self) -> u64 {
        get(&self.0.to_tiers)
    }

    /// Records that were redelivered.
    #[must_use]
    pub fn redelivered(&self) -> u64 {
        get(&self.0.back)
    }

    /// Dead letters by reason, without those that are zero.
    pub fn dead_letters(&self) -> impl Iterator<Item = (Reason, u64)> {
        Reason::ALL.into_iter().zip(&self.0.dead_letters).map(|(reason, count)| (reason, get(count))).filter(|(_, n)| *n > 0)
    }
}

fn add(count: &AtomicU64, by: u64) {
    count.fetch_add(by, Ordering::Relaxed);
}

fn get(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::core::ladder::Ladder;
    use crate::telemetry::events::{DelivererMetrics, MoverMetrics};

    #[test]
    fn the_workers_of_a_process_count_together_without_any_recorder() {
        let ladder = Ladder::builder("l", "g").source("s").tiers(["5s"]).build().unwrap();
        let tally = Tally::default();
        let deliverer = DelivererMetrics::new(&ladder).counted_by(&tally);
        let mover = MoverMetrics::new(&ladder).counted_by(&tally);
        deliverer.delivered(VerdictKind::Done, Duration::ZERO);
        deliverer.delivered(VerdictKind::Reject, Duration::ZERO);
        deliverer.hops.to_tier(1, 2);
        deliverer.hops.dead_lettered(Reason::Rejected);
        mover.hops.to_redeliver(5);
        mover.hops.to_tier(1, 1);
        mover.hops.dead_lettered(Reason::Oversize);
        assert_eq!([tally.deliveries(VerdictKind::Done), tally.deliveries(VerdictKind::Retry)], [1, 0]);
        assert_eq!([tally.hops_to_tiers(), tally.redelivered()], [3, 5]);
        assert_eq!(tally.dead_letters().collect::<Vec<_>>(), [(Reason::Rejected, 1), (Reason::Oversize, 1)]);
    }
}

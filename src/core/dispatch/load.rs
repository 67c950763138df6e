//! The number of allowed calls if it is below the number of slots, and the recent calls that determine it.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use crate::core::leader_clock::LocalTime;

/// Initial number of calls after a recovery; after a short outage an eighth of the slots.
pub(super) const FIRST_ALLOWED: usize = 2;
const SHORT_OUTAGE: Duration = Duration::from_secs(10);

/// Without failures the number of calls also grows with time: calls may take long.
const GROWTH_INTERVAL: Duration = Duration::from_millis(500);

/// A partition is slow if this share (one in so many) of its recent calls timed out.
const SLOW_SHARE: usize = 5;

/// The number of allowed calls.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    pub allowed: usize,
    /// Whether each good answer increases it; otherwise a whole round of them does.
    by_each: bool,
    good: usize,
    grown_at: LocalTime,
}

impl Limit {
    /// At least two.
    pub fn new(allowed: usize, by_each: bool, now: LocalTime) -> Self {
        Self { allowed: allowed.max(FIRST_ALLOWED), by_each, good: 0, grown_at: now }
    }

    /// After a recovery from an outage of this length.
    pub fn after_outage(lasted: Duration, places: usize, now: LocalTime) -> Self {
        Self::new(if lasted < SHORT_OUTAGE { places / 8 } else { 0 }, true, now)
    }

    /// A call was answered well.
    pub fn answered(&mut self) {
        self.good += 1;
        if self.by_each || self.good >= self.allowed {
            self.allowed += 1;
            self.good = 0;
        }
    }

    /// Time has passed; `is_well` says whether there were no failures since that moment.
    pub fn pass_time(&mut self, now: LocalTime, is_well: impl FnOnce(LocalTime) -> bool) {
        if now < self.grown_at.later(GROWTH_INTERVAL) {
            return;
        }
        if is_well(std::mem::replace(&mut self.grown_at, now)) {
            self.allowed = if self.by_each { self.allowed * 2 } else { self.allowed + 1 };
        }
    }
}

/// The recent calls.
#[derive(Debug, Default)]
pub(super) struct RecentCalls {
    since: Option<LocalTime>,
    /// Number of timeouts.
    pub timeouts: usize,
    /// Number of ended calls by partition, and of timeouts among them.
    partitions: HashMap<u64, (usize, usize)>,
}

impl RecentCalls {
    /// A call has ended. Calls longer ago than a second, or two call durations, are forgotten.
    pub fn note(&mut self, partition: u64, timed_out: bool, now: LocalTime, usual: Duration) {
        let span = (usual * 2).max(Duration::from_secs(1));
        if self.since.is_none_or(|since| now.since(since) > span) {
            (self.since, self.timeouts) = (Some(now), 0);
            self.partitions.clear();
        }
        self.timeouts += usize::from(timed_out);
        let (ended, timeouts) = self.partitions.entry(partition).or_default();
        *ended += 1;
        *timeouts += usize::from(timed_out);
    }

    /// The slow partitions, if most are slow.
    pub fn slow_partitions(&self) -> Option<BTreeSet<u64>> {
        let is_slow = |(ended, timeouts): &(usize, usize)| *timeouts > 0 && timeouts * SLOW_SHARE >= *ended;
        let slow: BTreeSet<u64> =
            self.partitions.iter().filter(|(_, calls)| is_slow(calls)).map(|(partition, _)| *partition).collect();
        (slow.len() * 2 > self.partitions.len()).then_some(slow)
    }
}

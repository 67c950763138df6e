//! How many calls may run where that is fewer than there are places, and what the calls of late say of it.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use crate::core::leader_clock::LocalTime;

/// After a recovery this many calls run at first; after a short outage an eighth of the places.
pub(super) const FIRST_ALLOWED: usize = 2;
const SHORT_OUTAGE: Duration = Duration::from_secs(10);

/// Without trouble the number of calls grows by time, too: calls may take long.
const GROWTH_INTERVAL: Duration = Duration::from_millis(500);

/// A partition is slow where this share (one in so many) of its calls of late timed out.
const SLOW_SHARE: usize = 5;

/// How many calls may run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    pub allowed: usize,
    /// Each good answer makes room for one more; otherwise a whole round of them does.
    by_each: bool,
    good: usize,
    grown_at: LocalTime,
}

impl Limit {
    /// So many, at least two.
    pub fn new(allowed: usize, by_each: bool, now: LocalTime) -> Self {
        Self { allowed: allowed.max(FIRST_ALLOWED), by_each, good: 0, grown_at: now }
    }

    /// After a recovery from an outage that lasted so long.
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

    /// Time passes; `is_well` says whether there was no trouble since that moment.
    pub fn pass_time(&mut self, now: LocalTime, is_well: impl FnOnce(LocalTime) -> bool) {
        if now < self.grown_at.later(GROWTH_INTERVAL) {
            return;
        }
        if is_well(std::mem::replace(&mut self.grown_at, now)) {
            self.allowed = if self.by_each { self.allowed * 2 } else { self.allowed + 1 };
        }
    }
}

/// The calls of late.
#[derive(Debug, Default)]
pub(super) struct Late {
    since: Option<LocalTime>,
    /// How many of them timed out.
    pub timeouts: usize,
    /// How many ended, by partition, and how many of them timed out.
    partitions: HashMap<u64, (usize, usize)>,
}

impl Late {
    /// A call has ended. What was longer ago than a second, or two calls, is forgotten.
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

    /// The slow partitions, where most are.
    pub fn slow_partitions(&self) -> Option<BTreeSet<u64>> {
        let is_slow = |(ended, timeouts): &(usize, usize)| *timeouts > 0 && timeouts * SLOW_SHARE >= *ended;
        let slow: BTreeSet<u64> =
            self.partitions.iter().filter(|(_, calls)| is_slow(calls)).map(|(partition, _)| *partition).collect();
        (slow.len() * 2 > self.partitions.len()).then_some(slow)
    }
}

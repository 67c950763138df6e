//! The result of a run, from the view of healthy records.

use std::time::Duration;

use crate::core::leader_clock::LocalTime;

/// The history of one record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way {
    pub healthy: bool,
    pub partition: usize,
    pub sent: LocalTime,
    /// When it first reached the handler, and when it was answered well.
    pub arrived: Option<LocalTime>,
    pub done: Option<LocalTime>,
    pub attempts: u32,
    pub dead: bool,
    pub calls: u32,
}

#[derive(Debug)]
pub(super) struct RunReport {
    pub began: LocalTime,
    pub ways: Vec<Way>,
    pub deaths: usize,
    /// The most calls that ran at a time in a worker, and the most that its crash would have repeated.
    pub most_running: usize,
    pub most_repeated: usize,
}

impl RunReport {
    fn healthy(&self) -> impl Iterator<Item = &Way> {
        self.ways.iter().filter(|way| way.healthy)
    }

    pub fn at(&self, after: Duration) -> LocalTime {
        self.began.later(after)
    }

    /// The longest time in which no healthy record of these partitions reached the handler for the first time.
    pub fn longest_gap(&self, from: Duration, until: Duration, among: impl Fn(usize) -> bool) -> Duration {
        let (from, until) = (self.at(from), self.at(until));
        let mut seen: Vec<LocalTime> = self
            .healthy()
            .filter(|way| among(way.partition))
            .filter_map(|way| way.arrived)
            .filter(|at| *at >= from && *at <= until)
            .collect();
        seen.push(until);
        seen.sort_unstable();
        let mut last = from;
        let mut longest = Duration::ZERO;
        for at in seen {
            longest = longest.max(at.since(last));
            last = at;
        }
        longest
    }

    /// The share of the healthy records sent in this time that arrived within it.
    pub fn rate(&self, from: Duration, until: Duration) -> f64 {
        let (from, until) = (self.at(from), self.at(until));
        let within = |at: LocalTime| at >= from && at < until;
        let sent = self.healthy().filter(|way| within(way.sent)).count();
        let arrived = self.healthy().filter_map(|way| way.arrived).filter(|at| within(*at)).count();
        ratio(arrived, sent)
    }

    /// Healthy records done per second in this time.
    pub fn done_a_second(&self, from: Duration, until: Duration) -> f64 {
        let (start, end) = (self.at(from), self.at(until));
        let done = self.healthy().filter_map(|way| way.done).filter(|at| *at >= start && *at < end).count();
        ratio(done, 1) / until.saturating_sub(from).as_secs_f64()
    }

    /// When the first healthy record after `then` reached the handler.
    pub fn first_after(&self, then: Duration) -> Duration {
        let then = self.at(then);
        let first = self.healthy().filter_map(|way| way.arrived).filter(|at| *at >= then).min();
        first.map_or(Duration::MAX, |at| at.since(then))
    }

    /// When the first healthy record after `then` was done.
    pub fn first_done_after(&self, then: Duration) -> Duration {
        let then = self.at(then);
        let first = self.healthy().filter_map(|way| way.done).filter(|at| *at >= then).min();
        first.map_or(Duration::MAX, |at| at.since(then))
    }

    /// Healthy records that were never done.
    pub fn left(&self) -> usize {
        self.healthy().filter(|way| way.done.is_none()).count()
    }

    /// Failed attempts of healthy records.
    pub fn burnt(&self) -> u32 {
        self.healthy().map(|way| way.attempts.saturating_sub(u32::from(way.done.is_some()))).sum()
    }

    pub fn dead_healthy(&self) -> usize {
        self.healthy().filter(|way| way.dead).count()
    }

    pub fn dead(&self) -> usize {
        self.ways.iter().filter(|way| way.dead).count()
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of records")]
fn ratio(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}

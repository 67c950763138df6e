//! Which offsets of a partition are finished, and what may be committed of it.
//!
//! Deliveries finish in any order, yet a hop must be atomic with its own offset. So a commit carries two things: as offset the
//! contiguous prefix, and as offset metadata what is finished beyond it. After a restart or a rebalance the next owner reads both
//! and skips what the set names.
//!
//! Records of a partition arrive in order, and an offset between two that arrived holds no record (a transaction marker, a
//! compacted or an aborted one). So it is enough to remember what is *unfinished*; everything else below the next offset is
//! finished. The memory is bounded by what is in flight, not by how far the slowest delivery lies behind.

use std::collections::{BTreeMap, BTreeSet};

/// The most bytes of offset metadata that are written. The broker's limit (`offset.metadata.max.bytes`) is 4,096.
pub const METADATA_LIMIT: usize = 3_000;

const VERSION: &str = "v1;";

/// Behind the runs: how often the first unfinished record was the first that was worked on.
const STARTS: &str = "starts=";

/// The most bytes that one run adds to the metadata: two numbers of up to 19 digits, `+` and `,`.
const RUN_LIMIT: usize = 40;

/// What a partition's commit carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitPoint {
    /// The contiguous prefix: every record below it is finished.
    pub offset: i64,
    /// What is finished beyond it; empty when nothing is.
    pub metadata: String,
}

impl CommitPoint {
    /// Whether this commit says that the record of this offset is finished.
    #[must_use]
    pub fn finishes(&self, offset: i64) -> bool {
        let beyond = || decode(self.offset, &self.metadata).map(|(runs, _)| runs).unwrap_or_default();
        offset < self.offset || beyond().range(..=offset).next_back().is_some_and(|(_, end)| offset < *end)
    }
}

/// What became of a record that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// To be worked on.
    New,
    /// Finished by an earlier owner: skip it.
    AlreadyFinished,
    /// It arrived before: skip it.
    Repeated,
}

/// The state of one partition, from assignment to revocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AckTracker {
    /// One past the highest offset that arrived (or the committed one, before any did).
    next: i64,
    /// Arrived, not finished.
    unfinished: BTreeSet<i64>,
    /// Runs (start → end, exclusive) that an earlier owner finished and that have not arrived again yet.
    restored: BTreeMap<i64, i64>,
    /// The first record that was worked on, and how often it was begun with: by earlier owners, and by this one once that is counted.
    begun: Option<(i64, u32)>,
    is_counted: bool,
}

impl AckTracker {
    /// Takes a partition over at its committed offset and metadata. The flag says whether the metadata could be read; when not,
    /// what was finished beyond the offset is unknown and those records are delivered again.
    #[must_use]
    pub fn resume(offset: i64, metadata: &str) -> (Self, bool) {
        let read = decode(offset, metadata);
        let readable = read.is_some();
        let (restored, starts) = read.unwrap_or_default();
        let begun = (starts > 0).then_some((offset, starts));
        (Self { next: offset, unfinished: BTreeSet::new(), restored, begun, is_counted: false }, readable)
    }

    /// How often the first record was begun with.
    #[must_use]
    pub fn starts(&self) -> u32 {
        self.begun.map_or(0, |(_, starts)| starts)
    }

    /// Counts that a record which has just arrived, with nothing unfinished before it, is about to be worked on; `again` says that it
    /// was counted already; `least` is what it counts at least, since workers have died over it or over one of its neighbours. Returns how
    /// often it was by now, which commits carry from here on until it is finished.
    pub fn begin(&mut self, offset: i64, again: bool, least: u32) -> u32 {
        let before = self.starts_at(offset);
        let starts = if again { before.max(1) } else { before.saturating_add(1).max(least) };
        (self.begun, self.is_counted) = (Some((offset, starts)), true);
        starts
    }

    /// Takes the last count back: the worker ends in good order, or has survived its work on the record.
    pub fn take_back(&mut self) {
        if std::mem::take(&mut self.is_counted)
            && let Some((_, starts)) = self.begun.as_mut()
        {
            *starts = starts.saturating_sub(1);
        }
    }

    /// The record that was begun with, while that counts.
    #[must_use]
    pub fn counted(&self) -> Option<i64> {
        self.begun.filter(|_| self.is_counted).map(|(offset, _)| offset)
    }

    /// The lowest offset that is not finished.
    #[must_use]
    pub fn prefix(&self) -> i64 {
        self.unfinished.first().copied().unwrap_or(self.next)
    }

    /// What is known of starts with the record of this offset.
    fn starts_at(&self, offset: i64) -> u32 {
        self.begun.filter(|(at, _)| *at == offset).map_or(0, |(_, starts)| starts)
    }

    /// Notes a record that arrived.
    pub fn arrive(&mut self, offset: i64) -> Arrival {
        if offset < self.next {
            return Arrival::Repeated;
        }
        self.next = offset + 1;
        let finished = self.restored.range(..=offset).next_back().is_some_and(|(_, end)| offset < *end);
        self.forget_arrived();
        if finished {
            return Arrival::AlreadyFinished;
        }
        self.unfinished.insert(offset);
        Arrival::New
    }

    /// Notes that the end of the partition was reached: below `end` nothing more will arrive.
    pub fn reach_end(&mut self, end: i64) {
        self.next = self.next.max(end);
        self.forget_arrived();
    }

    /// Drops the restored runs that have arrived again: those in front, since runs lie one behind the other.
    fn forget_arrived(&mut self) {
        while let Some(run) = self.restored.first_entry().filter(|run| *run.get() <= self.next) {
            run.remove();
        }
    }

    /// Notes that a record is finished. Unknown offsets change nothing.
    pub fn finish(&mut self, offset: i64) {
        self.unfinished.remove(&offset);
    }

    /// What may be committed now.
    #[must_use]
    pub fn commit_point(&self) -> CommitPoint {
        self.commit_point_with(&[])
    }

    /// What may be committed together with these, which are finished only if the commit succeeds.
    #[must_use]
    pub fn commit_point_with(&self, also: &[i64]) -> CommitPoint {
        let open: Vec<i64> = self.unfinished.iter().copied().filter(|o| !also.contains(o)).collect();
        let prefix = open.first().copied().unwrap_or(self.next);
        let mut runs: Vec<(i64, i64)> = Vec::with_capacity(open.len() + self.restored.len());
        for (i, offset) in open.iter().enumerate() {
            let end = open.get(i + 1).copied().unwrap_or(self.next);
            if offset + 1 < end {
                runs.push((offset + 1, end));
            }
        }
        for (&start, &end) in &self.restored {
            let start = start.max(self.next);
            match runs.last_mut() {
                Some(last) if last.1 == start => last.1 = end,
                _ => runs.push((start, end)),
            }
        }
        CommitPoint { offset: prefix, metadata: encode(prefix, &runs, self.starts_at(prefix)) }
    }

    /// Whether one more record may be taken: whatever finishes first, the set will still fit.
    #[must_use]
    pub fn has_room(&self) -> bool {
        // With nothing in flight one record more adds one run at the most to what is known to fit, and a partition must go on.
        if self.unfinished.is_empty() {
            return true;
        }
        let runs = self.unfinished.len() + self.restored.len() + 2;
        if VERSION.len() + runs * RUN_LIMIT <= METADATA_LIMIT {
            return true;
        }
        // Many are in flight. In the worst case every other one finishes, and each run costs what its numbers need: distances
        // are bounded by the span from the prefix to the next offset.
        let highest = self.restored.values().next_back().copied().unwrap_or(self.next).max(self.next);
        let lowest = self.unfinished.first().copied().unwrap_or(self.next);
        let digits = (highest - lowest + 1).to_string().len();
        VERSION.len() + runs * (2 * digits + 2) <= METADATA_LIMIT
    }

    /// How many records are in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.unfinished.len()
    }

    /// One past the highest offset that arrived.
    #[must_use]
    pub fn next_offset(&self) -> i64 {
        self.next
    }
}

/// `v1;` and then `gap+length` pairs, comma-separated: how many offsets lie between the prefix (or the last run) and the run, and
/// how many the run holds; then `;starts=` and a number, unless it is 0. Empty when there is neither.
fn encode(prefix: i64, runs: &[(i64, i64)], starts: u32) -> String {
    use std::fmt::Write;

    let mut text = String::new();
    let mut at = prefix;
    for (start, end) in runs {
        text.push_str(if text.is_empty() { VERSION } else { "," });
        let _ = write!(text, "{}+{}", start - at, end - start);
        at = *end;
    }
    if starts > 0 {
        text.push_str(if text.is_empty() { VERSION } else { "" });
        let _ = write!(text, ";{STARTS}{starts}");
    }
    text
}

/// Reads what [`encode`] wrote, the runs and the starts; `None` for anything else. Other things that follow a `;` are left to later
/// versions.
fn decode(prefix: i64, metadata: &str) -> Option<(BTreeMap<i64, i64>, u32)> {
    let mut runs = BTreeMap::new();
    if metadata.is_empty() {
        return Some((runs, 0));
    }
    let mut parts = metadata.strip_prefix(VERSION)?.split(';');
    let body = parts.next()?;
    let mut at = prefix;
    for pair in body.split(',').filter(|p| !p.is_empty()) {
        let (gap, length) = pair.split_once('+')?;
        let (gap, length): (u32, u32) = (gap.parse().ok()?, length.parse().ok()?);
        let start = at.checked_add(i64::from(gap))?;
        let end = start.checked_add(i64::from(length))?;
        if length == 0 {
            return None;
        }
        runs.insert(start, end);
        at = end;
    }
    let starts = parts.find_map(|part| part.strip_prefix(STARTS)?.parse().ok()).unwrap_or(0);
    Some((runs, starts))
}

#[cfg(test)]
#[path = "ack_tracker_tests.rs"]
mod tests;

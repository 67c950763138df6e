//! Tracks the finished offsets of a partition, and what may be committed.
//!
//! Deliveries finish in any order, yet a hop must be atomic with its own offset. So a commit carries two things: the contiguous
//! prefix as offset, and the offsets finished beyond it as offset metadata. After a restart or a rebalance the next owner reads
//! both and skips the offsets in the set.
//!
//! Records of a partition arrive in order, and an offset between two that arrived holds no record (a transaction marker, a
//! compacted or an aborted record). So it is enough to remember what is *unfinished*; everything else below the next offset
//! is finished. Memory is bounded by the records in flight, not by how far behind the slowest delivery is.

use std::collections::{BTreeMap, BTreeSet};

/// Maximum size of the written offset metadata, in bytes. The broker's limit (`offset.metadata.max.bytes`) is
/// 4,096.
pub const METADATA_LIMIT: usize = 3_000;

const VERSION: &str = "v1;";

/// Follows the runs: how often the first unfinished record was the first one processed after a
/// start.
const STARTS: &str = "starts=";

/// Maximum size of one run in the metadata: two numbers of up to 19 digits, `+` and `,`.
const RUN_LIMIT: usize = 40;

/// The content of a partition's commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitPoint {
    /// The contiguous prefix: every record below it is finished.
    pub offset: i64,
    /// The offsets finished beyond it; empty if none.
    pub metadata: String,
}

impl CommitPoint {
    /// Whether this commit marks the record of this offset as finished.
    #[must_use]
    pub fn finishes(&self, offset: i64) -> bool {
        let beyond = || decode(self.offset, &self.metadata).map(|(runs, _)| runs).unwrap_or_default();
        offset < self.offset || beyond().range(..=offset).next_back().is_some_and(|(_, end)| offset < *end)
    }
}

/// What to do with a record that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArrivalState {
    /// Process it.
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
    /// Arrived, but not finished.
    unfinished: BTreeSet<i64>,
    /// Runs (start → end, exclusive) finished by an earlier owner that have not arrived again yet.
    restored: BTreeMap<i64, i64>,
    /// The first record processed, and its number of starts: by earlier owners, and by this one once counted.
    begun: Option<(i64, u32)>,
    is_counted: bool,
}

impl AckTracker {
    /// Takes over a partition at its committed offset and metadata. The flag says whether the metadata was readable; if not,
    /// the offsets finished beyond the prefix are unknown and their records are delivered again.
    #[must_use]
    pub fn resume(offset: i64, metadata: &str) -> (Self, bool) {
        let read = decode(offset, metadata);
        let readable = read.is_some();
        let (restored, starts) = read.unwrap_or_default();
        let begun = (starts > 0).then_some((offset, starts));
        (Self { next: offset, unfinished: BTreeSet::new(), restored, begun, is_counted: false }, readable)
    }

    /// Number of starts with the first record.
    #[must_use]
    pub fn starts(&self) -> u32 {
        self.begun.map_or(0, |(_, starts)| starts)
    }

    /// Counts that a record which has just arrived, with nothing unfinished before it, is about to be processed; `again` says that it was
    /// already counted; `least` is the minimum count, because workers have died over this record or one of its neighbours. Returns the
    /// number of starts so far, which commits carry from here on until the record is finished.
    pub fn begin(&mut self, offset: i64, again: bool, least: u32) -> u32 {
        let before = self.starts_at(offset);
        let starts = if again { before.max(1) } else { before.saturating_add(1).max(least) };
        (self.begun, self.is_counted) = (Some((offset, starts)), true);
        starts
    }

    /// Undoes the last count: the worker ends in order, or has survived processing the record.
    pub fn take_back(&mut self) {
        if std::mem::take(&mut self.is_counted)
            && let Some((_, starts)) = self.begun.as_mut()
        {
            *starts = starts.saturating_sub(1);
        }
    }

    /// The counted record, while the count is in effect.
    #[must_use]
    pub fn counted(&self) -> Option<i64> {
        self.begun.filter(|_| self.is_counted).map(|(offset, _)| offset)
    }

    /// The lowest unfinished offset.
    #[must_use]
    pub fn prefix(&self) -> i64 {
        self.unfinished.first().copied().unwrap_or(self.next)
    }

    /// Number of starts with the record of this offset.
    fn starts_at(&self, offset: i64) -> u32 {
        self.begun.filter(|(at, _)| *at == offset).map_or(0, |(_, starts)| starts)
    }

    /// Records an arrival.
    pub fn arrive(&mut self, offset: i64) -> ArrivalState {
        if offset < self.next {
            return ArrivalState::Repeated;
        }
        self.next = offset + 1;
        let finished = self.restored.range(..=offset).next_back().is_some_and(|(_, end)| offset < *end);
        self.forget_arrived();
        if finished {
            return ArrivalState::AlreadyFinished;
        }
        self.unfinished.insert(offset);
        ArrivalState::New
    }

    /// Records that the end of the partition was reached: nothing more arrives below `end`.
    pub fn reach_end(&mut self, end: i64) {
        self.next = self.next.max(end);
        self.forget_arrived();
    }

    /// Removes the restored runs that have arrived again: those in front, since runs are in order.
    fn forget_arrived(&mut self) {
        while let Some(run) = self.restored.first_entry().filter(|run| *run.get() <= self.next) {
            run.remove();
        }
    }

    /// Marks a record as finished. Unknown offsets are ignored.
    pub fn finish(&mut self, offset: i64) {
        self.unfinished.remove(&offset);
    }

    /// The current commit.
    #[must_use]
    pub fn commit_point(&self) -> CommitPoint {
        self.commit_point_with(&[])
    }

    /// The commit including these offsets, which are finished only if the commit succeeds.
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

    /// Whether one more record may be taken: whichever finishes first, the set will still fit.
    #[must_use]
    pub fn has_room(&self) -> bool {
        // With nothing in flight, one more record adds at most one run to a set that fits, and a partition must go on.
        if self.unfinished.is_empty() {
            return true;
        }
        let runs = self.unfinished.len() + self.restored.len() + 2;
        if VERSION.len() + runs * RUN_LIMIT <= METADATA_LIMIT {
            return true;
        }
        // With many in flight, in the worst case every second one finishes, and each run takes as many bytes as its numbers
        // need: distances are bounded by the span from the prefix to the next offset.
        let highest = self.restored.values().next_back().copied().unwrap_or(self.next).max(self.next);
        let lowest = self.unfinished.first().copied().unwrap_or(self.next);
        let digits = (highest - lowest + 1).to_string().len();
        VERSION.len() + runs * (2 * digits + 2) <= METADATA_LIMIT
    }

    /// Number of records in flight.
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

/// `v1;` and then `gap+length` pairs, comma-separated: the number of offsets between the prefix (or the last run) and the run,
/// and the length of the run; then `;starts=` and a number, unless it is 0. Empty if there is neither.
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

/// Parses what [`encode`] wrote: runs and starts; `None` for anything else. Other parts after a `;` are reserved for later
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
        // Unsigned: the only sign is the one between the two.
        let number = |text: &str| text.parse::<u64>().ok().and_then(|number| i64::try_from(number).ok());
        let (gap, length) = (number(gap)?, number(length)?);
        let start = at.checked_add(gap)?;
        let end = start.checked_add(length)?;
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

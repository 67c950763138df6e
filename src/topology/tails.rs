//! How much waits in a topic, from what its partitions tell.

/// What is known of one partition and the group that empties it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionTail {
    /// The first offset that there is.
    pub low: i64,
    /// The offset that the next record will have.
    pub high: i64,
    /// Up to where the group is done; `None` where it has no offset.
    pub committed: Option<i64>,
    /// The first offset that is not due yet; `None` where all is due.
    pub first_not_due: Option<i64>,
}

/// The sums over a topic. Offsets, so transaction markers count too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TailTotals {
    /// What the group has not done.
    pub waiting: i64,
    /// What of it is due.
    pub due: i64,
    /// On how many partitions the group has no offset.
    pub without_offset: usize,
}

impl PartitionTail {
    /// Where the group goes on reading.
    #[must_use]
    pub fn position(&self) -> i64 {
        self.committed.unwrap_or(self.low).clamp(self.low, self.high.max(self.low))
    }

    /// What the group has not done.
    #[must_use]
    pub fn waiting(&self) -> i64 {
        (self.high - self.position()).max(0)
    }

    /// What of it is due.
    #[must_use]
    pub fn due(&self) -> i64 {
        (self.first_not_due.unwrap_or(self.high) - self.position()).clamp(0, self.waiting())
    }
}

/// Sums partitions up.
#[must_use]
pub fn tail_totals(tails: &[PartitionTail]) -> TailTotals {
    TailTotals {
        waiting: tails.iter().map(PartitionTail::waiting).sum(),
        due: tails.iter().map(PartitionTail::due).sum(),
        without_offset: tails.iter().filter(|t| t.committed.is_none()).count(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_and_due_count_from_the_committed_offset() {
        let some_due = PartitionTail { low: 0, high: 10, committed: Some(4), first_not_due: Some(6) };
        let none_due = PartitionTail { low: 0, high: 10, committed: Some(8), first_not_due: Some(6) };
        let all_due = PartitionTail { low: 3, high: 10, committed: None, first_not_due: None };
        assert_eq!(tail_totals(&[some_due, none_due, all_due]), TailTotals { waiting: 15, due: 9, without_offset: 1 });
    }

    #[test]
    fn an_offset_that_retention_has_passed_counts_from_the_oldest_record() {
        let passed = PartitionTail { low: 7, high: 10, committed: Some(2), first_not_due: None };
        assert_eq!((passed.waiting(), passed.due()), (3, 3));
    }
}

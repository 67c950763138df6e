//! The number of waiting records in a topic, from its partitions' offsets.

/// The offsets of one partition and its consumer group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionTail {
    /// The first offset.
    pub low: i64,
    /// The offset that the next record will have.
    pub high: i64,
    /// The committed offset; `None` if the group has none.
    pub committed: Option<i64>,
    /// The first offset that is not due yet; `None` if all are due.
    pub first_not_due: Option<i64>,
}

/// The sums over a topic. By offsets, so transaction markers count too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TailTotals {
    /// Waiting records.
    pub waiting: i64,
    /// Due ones among them.
    pub due: i64,
    /// Number of partitions without a committed offset.
    pub without_offset: usize,
}

impl PartitionTail {
    /// The offset at which the group continues.
    #[must_use]
    pub fn position(&self) -> i64 {
        self.committed.unwrap_or(self.low).clamp(self.low, self.high.max(self.low))
    }

    /// Waiting records.
    #[must_use]
    pub fn waiting(&self) -> i64 {
        (self.high - self.position()).max(0)
    }

    /// Due ones among them.
    #[must_use]
    pub fn due(&self) -> i64 {
        (self.first_not_due.unwrap_or(self.high) - self.position()).clamp(0, self.waiting())
    }
}

/// Sums over partitions.
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

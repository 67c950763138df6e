//! One assigned partition, from assignment to revocation.

use crate::core::ack_tracker::{AckTracker, CommitPoint};
use crate::core::leader_clock::LocalTime;
use crate::kafka::consumer::Committed;
use crate::kafka::partition::TopicPartition;
use crate::worker::committer::Work;
use crate::worker::hop::denied_partition::Denied;
use crate::worker::hop::ports::{RecordQueue, RecordSource};

/// From this number of starts, a partition is suspected: records of all suspected ones are processed one at a
/// time.
pub(super) const ALONE_FROM: u32 = 3;

/// Maximum number of a partition's records in flight after a worker has died of its first one; after the next death this many are processed
/// alone.
pub(super) const FEW: usize = 8;

/// A partition assigned to this member.
pub(in crate::worker) struct Lane<W: Work> {
    pub(super) queue: <W::Source as RecordSource>::Queue,
    /// Identifies this assignment: a record with another token does not belong to it.
    pub(in crate::worker) token: u64,
    pub(super) tracker: AckTracker,
    pub(super) committed: CommitPoint,
    /// Its end offset, if known.
    pub(super) end: Option<i64>,
    /// One of its records can be written nowhere: no new ones are taken.
    pub(super) standstill: bool,
    /// The worker cannot continue with one of its records: no new ones are taken.
    pub(in crate::worker) held_up: bool,
    pub(super) denied: Denied,
    /// Number of its next records that are processed one at a time.
    pub(super) alone: usize,
    /// A worker has died while the first record was processed one at a time, besides other partitions: now nothing else may run, until
    /// then (unset until it is first checked).
    pub(super) exclusive: Option<ExclusiveTurn>,
    /// Only a few records are in flight until the record of this offset is finished.
    pub(super) few_until: Option<i64>,
    /// Whether the first record of this assignment was taken.
    pub(super) has_first: bool,
    /// The worker's own state of it.
    pub(in crate::worker) own: W::Lane,
}

/// Nothing else may run besides the first record of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExclusiveTurn {
    /// Requested.
    Wanted,
    /// At most until then.
    Until(LocalTime),
}

/// The result of polling a partition's queue.
pub(in crate::worker) enum Polled<R> {
    /// A record to process.
    New(R),
    /// Something that is not a record to process; there may be more after it.
    Nothing,
    /// Nothing now.
    Empty,
}

impl<W: Work> Lane<W> {
    pub(super) fn new(queue: <W::Source as RecordSource>::Queue, token: u64, position: Committed, own: W::Lane) -> Self {
        let (tracker, readable) = AckTracker::resume(position.offset, &position.metadata);
        if !readable {
            tracing::warn!(
                partition = %queue.partition(),
                "offset metadata is not kladder's: records finished beyond the committed offset are delivered again"
            );
        }
        // The workers died of one of the records that may have been in flight.
        let next = tracker.starts() + 1;
        let alone = if next > ALONE_FROM { 1 } else { FEW * usize::from(next == ALONE_FROM) };
        let few_until = (next + 1 == ALONE_FROM).then_some(position.offset);
        let committed = CommitPoint { offset: position.offset, metadata: position.metadata };
        Self {
            queue,
            token,
            tracker,
            committed,
            end: None,
            standstill: false,
            held_up: false,
            denied: Denied::default(),
            alone,
            exclusive: (next > ALONE_FROM).then_some(ExclusiveTurn::Wanted),
            few_until,
            has_first: false,
            own,
        }
    }

    /// Whether only a few records may be in flight, since a worker has died of its first one.
    pub(super) fn is_under_watch(&self) -> bool {
        self.few_until.is_some_and(|offset| self.tracker.prefix() <= offset)
    }

    /// Whether one of its records waits for an operator, and no new ones are taken.
    pub(super) fn is_stopped(&self) -> bool {
        self.standstill || self.held_up
    }

    pub(in crate::worker) fn tp(&self) -> &TopicPartition {
        self.queue.partition()
    }
}

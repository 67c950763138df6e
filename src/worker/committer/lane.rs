//! One partition that is owned, from assignment to revocation.

use crate::core::ack_tracker::{AckTracker, CommitPoint};
use crate::core::leader_clock::LocalTime;
use crate::kafka::consumer::Committed;
use crate::kafka::partition::TopicPartition;
use crate::worker::committer::Work;
use crate::worker::committer::poison::{ALONE_FROM, FEW};
use crate::worker::hop::denied_partition::Denied;
use crate::worker::hop::ports::{RecordQueue, RecordSource};

/// A partition that this member owns.
pub(in crate::worker) struct Lane<W: Work> {
    pub(super) queue: <W::Source as RecordSource>::Queue,
    /// Names this assignment: a record that carries another one is not ours any more.
    pub(in crate::worker) token: u64,
    pub(super) tracker: AckTracker,
    pub(super) committed: CommitPoint,
    /// Where it ends, as far as that is known.
    pub(super) end: Option<i64>,
    /// A record of it can be written nowhere: nothing new is taken.
    pub(super) standstill: bool,
    pub(super) denied: Denied,
    /// So many of its next records are worked on one at a time.
    pub(super) alone: usize,
    /// A worker has died while its first record was worked on one at a time, with the others: nothing at all is worked on beside it, until
    /// then (unset as long as it was not looked at).
    pub(super) quiet: Option<Quiet>,
    /// Only a few are in hand until the record of this offset is finished.
    pub(super) few_until: Option<i64>,
    /// The first of this assignment was taken.
    pub(super) has_first: bool,
    /// What the worker keeps of it.
    pub(in crate::worker) own: W::Lane,
}

/// That nothing is to be worked on beside the first record of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quiet {
    /// As soon as it is looked for.
    Wanted,
    /// No longer than until then.
    Until(LocalTime),
}

/// What a partition's queue gave.
pub(in crate::worker) enum Polled<R> {
    /// A record to be worked on.
    New(R),
    /// Something that is no record to be worked on; there may be more behind it.
    Nothing,
    /// There is nothing now.
    Empty,
}

impl<W: Work> Lane<W> {
    pub(super) fn new(queue: <W::Source as RecordSource>::Queue, token: u64, position: Committed, own: W::Lane) -> Self {
        let (tracker, readable) = AckTracker::resume(position.offset, &position.metadata);
        if !readable {
            tracing::warn!(
                partition = %queue.partition(),
                "offset metadata is not kladder's: what was finished beyond the committed offset is delivered again"
            );
        }
        // On one of those that may have been in hand the workers died.
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
            denied: Denied::default(),
            alone,
            quiet: (next > ALONE_FROM).then_some(Quiet::Wanted),
            few_until,
            has_first: false,
            own,
        }
    }

    pub(in crate::worker) fn tp(&self) -> &TopicPartition {
        self.queue.partition()
    }
}

//! One partition that is owned, from assignment to revocation.

use crate::core::ack_tracker::{AckTracker, CommitPoint};
use crate::kafka::consumer::{Committed, TopicPartition};
use crate::worker::committer::Work;
use crate::worker::committer::starts::ALONE_FROM;
use crate::worker::denied::Denied;
use crate::worker::ports::{RecordQueue, RecordSource};

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
    /// How often the record that was taken last was begun with, where that was counted.
    pub(super) starts: u32,
    /// What the worker keeps of it.
    pub(in crate::worker) own: W::Lane,
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
    /// `most_at_once` is how many records may have been worked on beside the one that was counted: on one of them the workers died.
    pub(super) fn new(
        queue: <W::Source as RecordSource>::Queue,
        token: u64,
        position: Committed,
        most_at_once: usize,
        own: W::Lane,
    ) -> Self {
        let (tracker, readable) = AckTracker::resume(position.offset, &position.metadata);
        if !readable {
            tracing::warn!(
                partition = %queue.partition(),
                "offset metadata is not kladder's: what was finished beyond the committed offset is delivered again"
            );
        }
        let alone = if tracker.starts() + 1 >= ALONE_FROM { most_at_once } else { 0 };
        let committed = CommitPoint { offset: position.offset, metadata: position.metadata };
        Self { queue, token, tracker, committed, end: None, standstill: false, denied: Denied::default(), alone, starts: 0, own }
    }

    pub(in crate::worker) fn tp(&self) -> &TopicPartition {
        self.queue.partition()
    }
}

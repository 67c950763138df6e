//! Records, calls with them, and their outcomes.

use std::time::Duration;

use crate::core::backoff::Doubling;
use crate::core::dispatch::present::Witness;
use crate::core::dispatch::probes::Admission;
use crate::core::dispatch::standing::{BreakerSettings, Trouble};
use crate::core::leader_clock::LocalTime;

/// The source of a record, for the budgets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// From a source.
    Source = 0,
    /// From the redeliver topic.
    Redeliver = 1,
}

/// What the dispatch knows about a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// The assignment of the partition that it was taken from.
    pub lane: u64,
    /// Its origin partition, which a record and its redelivery share.
    pub partition: u64,
    /// The record.
    pub record: u64,
    /// Its key; the record itself if it has none.
    pub key: u64,
    /// How its last attempt failed, if that counted against the handler.
    pub failed_before: Option<Trouble>,
    /// Whether each start must be counted before it is called.
    pub count_start: bool,
}

impl Ticket {
    pub(super) fn witness(&self) -> Witness {
        Witness { record: self.record, key: self.key, partition: self.partition, failed_before: self.failed_before }
    }

    pub(super) fn row(&self) -> Row {
        if self.failed_before == Some(Trouble::Timeouts) { Row::Hung } else { Row::Usual }
    }
}

/// Number of calls, and when the handler counts as down.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DispatchSettings {
    /// Maximum number of running calls.
    pub places: usize,
    /// Maximum number of calls, beyond `places`, that have ended and wait for their commit: what a crash may repeat besides the
    /// running ones.
    pub unsettled: usize,
    /// The share of both for redeliveries.
    pub redeliver_share: f64,
    /// If `None`, the handler is never down, and every failure counts at once.
    pub breaker: Option<BreakerSettings>,
}

/// The outcome of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallOutcome {
    /// The handler works, whatever its verdict. With a time, it is retried in place after that.
    Good(Option<Duration>),
    /// It failed in a way that counts against the handler. With a time, it is retried in place
    /// after that.
    Trouble(Trouble, Option<Duration>),
    /// It failed together with others, and which of them was at fault is unknown: it is made again, and no attempt is counted. What that
    /// says about the handler is said by one of them.
    InCompany(Option<Trouble>),
    /// It was not made.
    NotMade,
}

/// An admitted call; exactly one [`Dispatch::ended`] or [`Dispatch::withdraw`] must follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallId(pub(super) usize);

/// A call to make.
#[derive(Debug)]
pub struct Begun<J> {
    /// Its id.
    pub call: CallId,
    /// The record.
    pub job: J,
    /// Whether to count its start first.
    pub count_start: bool,
    /// Whether it retries a failed attempt in place.
    pub is_repeat: bool,
    /// Whether no other record may be in its call: it may kill the handler, or probes it.
    pub is_alone: bool,
    /// Where the record is from.
    pub kind: Kind,
}

/// How a record leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// The outcome of its last call counts.
    Counts,
    /// It has failed while the handler is down, and makes room for others: it waits in its tier, and no attempt is counted.
    Postponed,
    /// Its partition was revoked, and its last call counts as not made.
    Dropped,
}

/// A record that has left.
#[derive(Debug)]
pub struct Over<J> {
    /// The record.
    pub job: J,
    /// How it left.
    pub fate: Departure,
    /// It counts as unsettled, of this kind, until [`Dispatch::release`].
    pub place: Option<Kind>,
}

/// The queues of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Row {
    /// Records that have never timed out.
    Usual = 0,
    /// Records that timed out before.
    Hung = 1,
    /// Records whose call did not count: a failed probe, or a lost connection.
    Tried = 2,
}

/// The history of a record since it arrived.
#[expect(clippy::struct_excessive_bools, reason = "independent flags")]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tries {
    pub(super) losses: u8,
    pub(super) deaths: u8,
    /// When it first lost its connection.
    pub(super) lost_first: Option<LocalTime>,
    pub(super) is_suspect: bool,
    pub(super) is_aside: bool,
    /// When its last call began.
    pub(super) began: Option<LocalTime>,
    /// The last round in which it was a probe.
    pub(super) round: u64,
    /// When it lost its connection as a probe, and how often the handler was unreachable afterwards.
    pub(super) lost_at: Option<LocalTime>,
    pub(super) lost_probes: u8,
    pub(super) unsent_since: Option<LocalTime>,
    /// Pauses between tries, once it could not be sent.
    pub(super) unsent_pauses: Option<Doubling>,
    /// A failed attempt is being retried in place.
    pub(super) has_failed: bool,
    /// It was called without a counted outcome: records not called yet come before it.
    pub(super) was_tried: bool,
}

#[derive(Debug)]
pub(super) struct DispatchEntry<J> {
    pub(super) job: J,
    pub(super) ticket: Ticket,
    pub(super) tries: Tries,
}

impl<J> DispatchEntry<J> {
    pub(super) fn row(&self) -> Row {
        if self.tries.was_tried { Row::Tried } else { self.ticket.row() }
    }
}

#[derive(Debug)]
pub(super) struct Call {
    pub(super) ticket: Ticket,
    pub(super) tries: Tries,
    pub(super) kind: Kind,
    pub(super) row: Row,
    pub(super) admission: Admission,
    pub(super) began: LocalTime,
}

/// A failure that counts once a good answer comes, or if nothing indicates an outage.
#[derive(Debug)]
pub(super) struct Pending<J> {
    pub(super) entry: DispatchEntry<J>,
    pub(super) trouble: Trouble,
    pub(super) since: LocalTime,
}

/// A good answer to a call begun after this moment proves that the handler works, and that a failure is the record's own. For lost
/// connections, the first loss counts, even if the handler has died again since.
pub(super) fn failed_since(tries: &Tries, trouble: Trouble) -> LocalTime {
    let since = if trouble == Trouble::LostConnections { tries.lost_first } else { tries.began };
    since.unwrap_or(LocalTime::from_micros(i64::MIN))
}

/// How a waiting record leaves when its partition is revoked: an attempt that was to be retried in place has failed.
pub(super) fn left_behind(tries: &Tries) -> Departure {
    if tries.has_failed { Departure::Counts } else { Departure::Dropped }
}

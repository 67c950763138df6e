//! Whether records come due at the moment that have not waited for long: by what any mover of this process has seen, since the
//! movers share its processors and its brokers.
//!
//! A transaction of a backlog holds up whatever becomes due while it is open, so beside fresh records it is kept short.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::core::leader_clock::LocalTime;

/// What has been due for longer is a backlog; what is due sooner might become so while a transaction is filled.
const BACKLOG: Duration = Duration::from_secs(1);

/// When a fresh record was last seen, in the microseconds of the workers' clock, which all of a process share.
static LAST: AtomicI64 = AtomicI64::new(0);

/// Whether a record is fresh that has so many microseconds to wait, or fewer than none when it is overdue.
pub(super) fn is_fresh(wait: i64) -> bool {
    Duration::from_micros(wait.unsigned_abs()) < BACKLOG
}

/// There is a fresh record.
pub(super) fn note(now: LocalTime) {
    LAST.store(now.as_micros(), Ordering::Relaxed);
}

/// Whether one was within the last second.
pub(super) fn was_recent(now: LocalTime) -> bool {
    now.since(LocalTime::from_micros(LAST.load(Ordering::Relaxed))) < BACKLOG
}

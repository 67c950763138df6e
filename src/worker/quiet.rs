//! Stops new deliveries in this process on request, so that the application behind the handler can shut down in
//! order.
//!
//! The requester must know when the last delivery has ended. A delivery counts itself before it checks whether it may begin, and
//! the request is set before the count is read (both sequentially consistent), so that one of the two always sees the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::worker::wait_until;

/// Whether deliveries may begin, and how many are in flight; clones share one state.
#[derive(Clone, Default)]
pub struct Quiet(Arc<Inner>);

#[derive(Default)]
struct Inner {
    asked: AtomicBool,
    under_way: AtomicUsize,
    changed: Notify,
}

/// A delivery in flight, until it is dropped.
pub(super) struct UnderWay<'a>(&'a Inner);

impl Quiet {
    /// Deliveries may begin.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// No delivery begins from now on. `false` if that was already requested.
    pub fn ask(&self) -> bool {
        !self.set(true)
    }

    /// Deliveries may begin again. `false` if they could before.
    pub fn release(&self) -> bool {
        self.set(false)
    }

    /// Returns the previous value.
    fn set(&self, asked: bool) -> bool {
        let before = self.0.asked.swap(asked, Ordering::SeqCst);
        self.0.changed.notify_waiters();
        before
    }

    /// Whether deliveries are stopped.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.0.asked.load(Ordering::SeqCst)
    }

    /// Number of deliveries in flight.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.0.under_way.load(Ordering::SeqCst)
    }

    /// Waits until none is in flight, but at most this long; returns how many are left.
    pub async fn silence(&self, within: Duration) -> usize {
        let silent = wait_until::notified(&self.0.changed, || self.under_way() == 0);
        let _ = tokio::time::timeout(within, silent).await;
        self.under_way()
    }

    /// Waits until deliveries may begin.
    pub(super) async fn over(&self) {
        wait_until::notified(&self.0.changed, || !self.is_asked()).await;
    }

    /// Begins a delivery, if allowed.
    pub(super) fn begin(&self) -> Option<UnderWay<'_>> {
        self.0.under_way.fetch_add(1, Ordering::SeqCst);
        let under_way = UnderWay(&self.0);
        (!self.is_asked()).then_some(under_way)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if self.0.under_way.fetch_sub(1, Ordering::SeqCst) == 1 && self.0.asked.load(Ordering::SeqCst) {
            self.0.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_hears_of_the_last_delivery_and_none_begins_after() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let quiet = Quiet::new();
        let first = quiet.begin().expect("not requested yet");
        assert!(quiet.ask());
        assert!(!quiet.ask(), "it was asked for before");
        assert!(quiet.begin().is_none());
        runtime.block_on(async {
            assert_eq!(quiet.silence(Duration::from_millis(1)).await, 1);
            let asking = quiet.clone();
            let asking = tokio::spawn(async move { asking.silence(Duration::from_secs(600)).await });
            tokio::task::yield_now().await;
            drop(first);
            assert_eq!(asking.await.unwrap(), 0);
            assert!(quiet.release());
            quiet.over().await;
        });
        assert!(quiet.begin().is_some());
    }
}

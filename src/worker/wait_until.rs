//! Waiting for a condition.

use tokio::sync::Notify;

/// Waits until `condition` is true. Code that changes what it depends on must notify the waiters.
pub(super) async fn notified(notify: &Notify, condition: impl Fn() -> bool) {
    loop {
        // Registered before the check, so that a notification in between is not missed.
        let mut next = std::pin::pin!(notify.notified());
        next.as_mut().enable();
        if condition() {
            return;
        }
        next.await;
    }
}

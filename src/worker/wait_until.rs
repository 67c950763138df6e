//! Waiting to be told.

use tokio::sync::Notify;

/// Comes back when the condition holds: at once, where it does. Whoever changes what it looks at tells those who wait.
pub(super) async fn told(told: &Notify, condition: impl Fn() -> bool) {
    loop {
        // Registered before the look, so that a word in between is heard.
        let mut next = std::pin::pin!(told.notified());
        next.as_mut().enable();
        if condition() {
            return;
        }
        next.await;
    }
}

//! Waiting: always for a condition, never longer than a deadline.

use std::time::{Duration, Instant};

/// How long a test waits for what must happen. Generous: a slow machine is not a defect, a blocked
/// worker is.
pub const PATIENCE: Duration = Duration::from_secs(180);

#[expect(clippy::disallowed_methods, reason = "the tests' only clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// Milliseconds since the epoch, for unique names.
#[expect(clippy::disallowed_methods, reason = "the tests' only clock")]
pub fn epoch_millis() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_millis())
}

/// Polls until there is a result; `None` after the deadline.
pub fn poll<T>(within: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = now() + within;
    loop {
        if let Some(found) = probe() {
            return Some(found);
        }
        if now() >= deadline {
            return None;
        }
        pause(Duration::from_millis(50));
    }
}

/// Waits until the condition holds, and fails the test otherwise.
pub fn eventually(what: &str, within: Duration, mut probe: impl FnMut() -> bool) {
    assert!(poll(within, || probe().then_some(())).is_some(), "not within {within:?}: {what}");
}

/// Sleeps where the passing of time is what the test needs.
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

//! Waiting: always for something, never longer than a deadline.

use std::time::{Duration, Instant};

/// How long a test waits for what must happen. Generous: a slow machine is no defect, standing still is.
pub const PATIENCE: Duration = Duration::from_secs(60);

#[expect(clippy::disallowed_methods, reason = "the tests' only clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// Milliseconds since the epoch, to make names unique.
#[expect(clippy::disallowed_methods, reason = "the tests' only clock")]
pub fn epoch_millis() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_millis())
}

/// Asks again and again until there is an answer; `None` when the time is over.
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

/// Waits until it is so, and fails the test when it does not come.
pub fn eventually(what: &str, within: Duration, mut probe: impl FnMut() -> bool) {
    assert!(poll(within, || probe().then_some(())).is_some(), "not within {within:?}: {what}");
}

/// Lets time pass where the passing itself is what the test needs.
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

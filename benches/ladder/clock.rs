//! The wall clock. Broker, worker and benchmark run on one machine, so they share it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Microseconds since the Unix epoch.
pub fn epoch_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    i64::try_from(since.as_micros()).expect("a date that fits")
}

/// Seconds between two times in microseconds.
#[expect(clippy::cast_precision_loss, reason = "microseconds of minutes")]
pub fn seconds(from: i64, to: i64) -> f64 {
    (to - from) as f64 / 1e6
}

pub fn now() -> std::time::Instant {
    std::time::Instant::now()
}

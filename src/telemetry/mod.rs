//! Metrics and logs: every metric name in one file, and the events by which code feeds them.

pub mod events;
pub mod exporter;
pub mod logging;
pub mod names;
pub mod process;
pub mod reference;
#[cfg(feature = "otlp")]
pub mod spans;
pub mod standing;
pub mod tally;

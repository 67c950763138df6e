//! Metrics and logs: every metric name in one file, the events by which code feeds them, the dashboards and alert rules that are made
//! of them.

pub mod alerts;
pub mod dashboards;
pub mod events;
pub mod exporter;
pub mod logging;
pub mod names;
pub mod process;
pub mod promql;
pub mod reference;
#[cfg(feature = "otlp")]
pub mod spans;
pub mod standing;
pub mod tally;

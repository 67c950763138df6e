//! Metrics and logs: every metric name in one file, the events by which code updates metrics, and the dashboards and alert rules
//! generated from them.

#[cfg(feature = "cli")]
pub mod alerts;
#[cfg(feature = "cli")]
pub mod dashboards;
pub mod events;
#[cfg(feature = "cli")]
pub mod exporter;
#[cfg(feature = "cli")]
pub mod log_writer;
#[cfg(feature = "cli")]
pub mod logging;
pub mod names;
#[cfg(feature = "cli")]
pub mod process;
#[cfg(feature = "cli")]
pub mod promql;
#[cfg(feature = "cli")]
pub mod reference;
#[cfg(feature = "otlp")]
pub mod spans;
pub mod standing;
pub mod tally;

//! HTTP: probes and metrics.

pub mod health;

//! HTTP: probes and metrics, and what acts on the process.

pub mod control;
pub mod health;

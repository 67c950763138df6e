//! HTTP: probes, metrics, and requests that act on the process.

pub mod control;
pub mod health;
pub mod listener;

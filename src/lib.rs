//! kladder: a retry-topic ladder for Apache Kafka.
//!
//! A record that fails is republished to the delay topic of its next tier, waits there without blocking anybody, comes back when
//! it is due, and goes to the dead-letter topic after the last tier.
//!
//! # Map of the architecture
//!
//! Layers import downwards only; a test keeps it so.
//!
//! | layer | what it is |
//! |---|---|
//! | [`core`] | pure: ladder, decisions, envelope, ack tracker; no clock, no randomness, no I/O |
//! | [`config`] | the configuration file as domain types, all mistakes at once |
//! | [`topology`] | which topics and offsets there should be, the plan from what there is, and its application |
//! | [`kafka`] | the only place that knows rdkafka: consumer, producer, administration |
//! | [`worker`] | mover, deliverer, handlers, and what keeps them running |
//! | [`admin`] | HTTP: probes and metrics |
//! | [`cli`] | the commands, one file each |
//! | [`telemetry`] | every metric name in one file; used by all layers above `config` |

pub mod admin;
pub mod cli;
pub mod config;
pub mod core;
pub mod kafka;
pub mod telemetry;
pub mod topology;
pub mod worker;

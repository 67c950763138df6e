//! kladder: a retry-topic ladder for Apache Kafka.
//!
//! A record that fails is republished to the delay topic of its next tier, waits there without blocking anybody, comes back when
//! it is due, and goes to the dead-letter topic after the last tier.
//!
//! This crate is the `kladder` binary and, for a Rust program, the same as a library. All that a user needs stands at the root:
//!
//! - **Push**: a [`Worker`] consumes the sources, calls a [`Handler`] (a closure will do), and brings back what failed when it is
//!   due. [`set_up`] makes the topics that it needs.
//! - **Relay**: an application that consumes the source itself makes, with [`Ladder::relay`], an inbox [`Record`] of what it could
//!   not handle, and produces it with its own client.
//! - **Tests**: [`testing::climb`] tells how a record would climb, without Kafka and in no time.
//!
//! ```
//! use std::time::Duration;
//!
//! use kladder::{Delivery, Failure, Handler, Ladder, OrReject, Record, testing};
//!
//! struct Billing;
//!
//! impl Handler for Billing {
//!     async fn handle(&self, delivery: Delivery) -> Result<(), Failure> {
//!         // What will never be text is not tried again: it is dead-lettered at once.
//!         let order = std::str::from_utf8(delivery.value().unwrap_or_default()).or_reject()?;
//!         // Any error becomes a retry by `?`.
//!         let amount: u32 = order.trim().parse()?;
//!         match amount {
//!             0 => Err(Failure::retry("Busy", "the bank is closed").after(Duration::from_secs(30))),
//!             _ => Ok(()),
//!         }
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), kladder::LadderErrors> {
//! let ladder = Ladder::builder("billing-orders", "billing").source("orders").tiers(["5s", "1m", "10m"]).build()?;
//! let steps = testing::climb(&ladder, &Billing, Record::to("orders").value("no number")).await;
//! assert_eq!(steps.len(), 4);
//! assert!(steps[3].is_dead());
//! assert_eq!(steps[3].at, Duration::from_secs(5 + 60 + 600));
//! # Ok(())
//! # }
//! ```
//!
//! With the brokers it is `Worker::new(ladder, KafkaConfig::new("localhost:9092"), Billing).run_until(stop).await`; see [`Worker`].
//! Handlers are called at least once, so one with effects looks at [`Delivery::id`].
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
//! | [`worker`] | mover, deliverer and router over their committer, handlers, hold, and what keeps them running |
//! | [`dlq`] | dead letters: filter, index, groups, what becomes of them, payloads, redrive |
//! | [`admin`] | HTTP: probes and metrics |
//! | [`cli`] | the commands, one file each |
//! | [`telemetry`] | every metric name in one file; used by all layers above `config` |

pub mod admin;
pub mod cli;
pub mod config;
pub mod core;
pub mod dlq;
pub mod kafka;
pub mod telemetry;
pub mod topology;
pub mod worker;

pub use crate::config::{KafkaConfig, PropertyError, Role, Start};
pub use crate::core::coordinates::Coordinates;
pub use crate::core::decide::{Decision, Judgement};
pub use crate::core::dispatch::BreakerSettings;
pub use crate::core::dlq_breaker::DlqBreakerSettings;
pub use crate::core::envelope::{Envelope, Reason};
pub use crate::core::failure::{Classify, Disposition, ErrorInfo, Failure, OrClassified, OrReject, Verdict};
pub use crate::core::headers::{Header, Headers};
pub use crate::core::ladder::{
    Hops, Immediate, Ladder, LadderBuilder, LadderError, LadderErrors, Mode, Redelivery, RuleError, Tier,
};
pub use crate::core::rate::{Rate, RateError};
pub use crate::core::record::{Consumed, Record};
pub use crate::core::rules::{Expression, Pattern, Rule, StatusError, StatusRange, Then, When};
pub use crate::core::time::Timestamp;
pub use crate::worker::delivery::Delivery;
pub use crate::worker::handler::Handler;
pub use crate::worker::runner::{Report, RunError, Worker};
pub use crate::worker::set_up::{NotSetUp, SetUpError, set_up};
pub use crate::worker::testing;

/// The README's own Rust, which has to compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

//! kladder: a retry-topic ladder for Apache Kafka.
//!
//! A record that fails is republished to the delay topic of its next tier, waits there without blocking anybody, comes back when
//! it is due, and goes to the dead-letter topic after the last tier.
//!
//! This crate is the `kladder` binary and, for a Rust program, the same as a library. The public interface is at the crate root:
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
//! # Features
//!
//! A program that uses the library turns the default features off. It needs at most `tls`, if its brokers use TLS.
//!
//! | feature | default | content |
//! |---|---|---|
//! | `tls` | yes | TLS, SCRAM and OAUTHBEARER, with OpenSSL built from source; `tls-system` uses the system's |
//! | `cli` | yes | the program `kladder` and its dependencies |
//! | `jemalloc` | yes | the program's allocator |
//! | `jq` | yes | jq programs for changing dead letters; implies `cli` |
//! | `schemas` | yes | Avro and Protobuf dead letters with schemas of a registry; implies `cli` |
//! | `otlp` | no | spans of hops and deliveries by OTLP over HTTP; implies `cli` |
//!
//! # Map of the architecture
//!
//! Layers import downwards only; a test keeps it so.
//!
//! | layer | what it is |
//! |---|---|
//! | `core` | pure: ladder, decisions, envelope, ack tracker; no clock, no randomness, no I/O |
//! | `config` | the configuration file as domain types, all mistakes at once |
//! | `topology` | which topics and offsets there should be, the plan from what there is, and its application |
//! | `kafka` | the only place that knows rdkafka: consumer, producer, administration |
//! | `http_client` | HTTP requests that a command waits for |
//! | `worker` | mover, deliverer and router over their committer, handlers, hold, and what keeps them running |
//! | `dlq` | dead letters: filter, index, groups, what becomes of them, payloads, redrive |
//! | `observe` | what is read of running ladders, for the commands that show it |
//! | `admin` | HTTP: probes and metrics |
//! | `cli` | the commands, one file each |
//! | `telemetry` | every metric name in one file; used by all layers above `config` |

// These macros panic when the reader of the output is gone; cli::output does not.
#![deny(clippy::print_stderr, clippy::print_stdout)]
// Dead code is found by the build with the feature.
#![cfg_attr(not(feature = "cli"), expect(dead_code, reason = "the program needs more of the layers than the library does"))]

#[cfg(feature = "cli")]
mod admin;
#[cfg(feature = "cli")]
mod cli;
mod config;
mod core;
#[cfg(feature = "cli")]
mod dlq;
#[cfg(feature = "cli")]
mod http_client;
mod kafka;
#[cfg(feature = "cli")]
mod observe;
mod telemetry;
mod topology;
mod worker;

pub use crate::config::{KafkaConfig, PropertyError, Start};
pub use crate::core::batch::BatchLimits;
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
pub use crate::core::role::{Role, RoleError};
pub use crate::core::rules::{Expression, Pattern, Rule, StatusError, StatusRange, Then, When};
pub use crate::core::time::Timestamp;
pub use crate::worker::batch_handler::{BatchHandler, BatchReport, InBatches};
pub use crate::worker::delivery::Delivery;
pub use crate::worker::handler::Handler;
pub use crate::worker::runner::{Report, RunError, Worker};
pub use crate::worker::set_up::{NotSetUp, SetUpError, set_up};
pub use crate::worker::testing;

/// For the binary: parses the command line, runs the command, maps the exit code.
#[cfg(feature = "cli")]
#[doc(hidden)]
pub use crate::cli::main as run_program;

/// For the crate's own tests and benchmarks. Not part of the public interface; may change in any version.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals {
    pub use crate::config::RegistryConfig;
    pub use crate::core::ack_tracker::AckTracker;
    pub use crate::core::dialect::is_foreign_control;
    pub use crate::core::envelope::{Glance, Trim, glance, is_own};
    pub use crate::core::fingerprint::{Fingerprint, Memory};
    #[cfg(feature = "cli")]
    pub use crate::dlq::filter::Filter;
    #[cfg(feature = "cli")]
    pub use crate::dlq::index::{Index, Order};
    #[cfg(feature = "cli")]
    pub use crate::dlq::payload::{Decoded, Decoder, EncodeError, PayloadFormat, Registry};
    pub use crate::kafka::NativeHeaders;
    pub use crate::kafka::consumer::ConsumerRecord;
    pub use crate::kafka::isolation::Isolation;
    pub use crate::kafka::partition::TopicPartition;
    pub use crate::kafka::tail::{ASK_WITHIN, TailFrom, TopicTail};
}

/// Compiles the Rust code of the library's page.
#[cfg(doctest)]
#[doc = include_str!("../docs/library.md")]
struct LibraryPage;

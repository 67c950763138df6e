//! kladder with a real Kafka broker, as a black box: the binary, real topics, the tests' own HTTP handler.
//!
//! The broker is that of `KLADDER_TEST_BROKERS`, or the one that `scripts/kafka up` starts. The
//! test of outages needs three, and those of hosted clusters one with rules, which they start and stop themselves. Likewise the schema registry: `KLADDER_TEST_REGISTRY`, or that of
//! `scripts/registry up`.

#![cfg(feature = "cli")]

mod acls;
mod answers;
mod bad_input;
mod batches;
mod breaker;
mod changes;
mod classify;
mod control;
mod demo;
mod dialects;
mod dlq;
mod dlq_breaker;
mod doctor;
mod elsewhere;
mod empty;
mod examples;
mod harness;
mod header_flood;
mod hold;
mod hosted;
mod hostile;
mod hostile_text;
mod idle;
mod idle_connections;
mod kill;
mod library;
mod log_reader;
mod logs;
mod lost;
mod metrics;
mod monitoring;
mod newer_protocol;
mod origin;
mod outage;
mod oversize;
mod poison;
mod push;
mod quiesce;
mod readme;
mod rebalance;
#[cfg(feature = "schemas")]
mod registry;
mod relay;
mod relay_fleet;
mod rest;
mod resume;
mod rivals;
mod roles;
mod scale;
mod signals;
mod slow_link;
#[cfg(feature = "otlp")]
mod spans;
mod starvation;
mod storm;
mod support;
mod tail;
mod tier;
mod top;
mod transactions;
mod waits;

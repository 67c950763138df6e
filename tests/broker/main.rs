//! kladder against a real Kafka broker, as a black box: the binary, real topics, an HTTP handler of the tests' own.
//!
//! The broker is that of `KLADDER_TEST_BROKERS`, or the one that `scripts/kafka up` starts. The
//! test of outages needs three, which it starts and stops itself. Likewise the schema registry: `KLADDER_TEST_REGISTRY`, or that of
//! `scripts/registry up`.

mod acls;
mod answers;
mod bad_input;
mod breaker;
mod changes;
mod classify;
mod control;
mod demo;
mod dialects;
mod dlq;
mod dlq_breaker;
mod doctor;
mod empty;
mod examples;
mod harness;
mod hold;
mod hostile;
mod idle;
mod kill;
mod library;
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
mod registry;
mod relay;
mod relay_fleet;
mod rest;
mod resume;
mod rivals;
mod scale;
mod signals;
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

//! The pure core: no clock, no randomness, no I/O.
//!
//! Everything that decides what happens to a record is here and takes its input (`now`, the ladder, the headers) as
//! arguments, so that the same code runs in the workers, in tests and in virtual time.

pub mod ack_tracker;
pub mod backoff;
pub mod batch;
#[cfg(test)]
pub(crate) mod chance;
pub mod classify;
pub mod coordinates;
pub mod dead_letter;
pub mod decide;
pub mod delay;
pub mod dialect;
pub mod dispatch;
pub mod dlq_breaker;
pub mod due;
pub mod envelope;
pub mod failure;
pub mod fingerprint;
pub mod fnv;
pub mod halving;
pub mod harmless;
pub mod headers;
pub mod inbox;
pub mod ladder;
pub mod leader_clock;
pub mod rate;
pub mod record;
pub mod role;
pub mod rules;
pub mod state;
pub mod step_aside;
pub mod time;
pub mod topics;
#[cfg(feature = "otlp")]
pub mod trace_context;

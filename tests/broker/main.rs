//! kladder against a real Kafka broker, as a black box: the binary, real topics, an HTTP handler of the tests' own.
//!
//! The broker is that of `KLADDER_TEST_BROKERS`, or the one that `scripts/kafka up` starts.

mod acls;
mod bad_input;
mod empty;
mod harness;
mod kill;
mod push;
mod readme;
mod support;
mod tier;

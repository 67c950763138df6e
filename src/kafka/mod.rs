//! The only place that knows rdkafka: clients, partitions' queues, transactions, administration. No type of it is public.

mod client_config;
pub mod clock;
pub mod consumer;
pub mod error;
mod ffi;
pub mod producer;
pub mod properties;

pub use ffi::{HeaderIter, NativeHeaders};

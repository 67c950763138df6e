//! The only place that knows rdkafka: clients, partitions' queues, transactions, administration. No type of it is public.

pub mod admin;
mod asker;
mod client_config;
pub mod clock;
pub mod consumer;
pub mod embedded;
pub mod error;
pub mod fetch;
mod ffi;
pub mod group_offsets;
pub mod isolation;
mod lookup;
mod marker_gap;
mod observe;
pub mod onlooker;
pub mod partition;
pub mod producer;
pub mod properties;
mod reader;
pub mod stable;
pub mod state;
mod statistics;
pub mod tail;
pub mod tails;
pub mod topic_consumers;
pub(crate) mod transaction;
mod watch;

pub use client_config::client_id;
pub use ffi::{HeaderIter, NativeHeaders};
pub(crate) use ffi::{hand_freed_memory_back, memory_is_handed_back_by};

//! The only module that uses rdkafka: clients, partition queues, transactions, administration. None of its types is
//! public.

pub mod admin;
mod asker;
pub(crate) mod budget;
mod client_config;
pub mod clock;
pub mod consumer;
#[cfg(feature = "cli")]
pub mod embedded;
pub mod error;
#[cfg(feature = "cli")]
pub mod fetch;
mod ffi;
pub mod group_offsets;
pub mod headers;
pub mod isolation;
mod lookup;
mod marker_gap;
mod observe;
#[cfg(feature = "cli")]
pub mod onlooker;
pub mod outgoing;
pub mod partition;
pub mod pick;
pub mod producer;
pub mod property_check;
mod reader;
pub mod stable;
pub mod state;
mod statistics;
pub mod tail;
#[cfg(feature = "cli")]
pub mod tails;
pub mod topic_consumers;
pub(crate) mod transaction;
pub mod trial;
mod watch;

pub use client_config::client_id;
pub use ffi::NativeHeaders;
pub(crate) use ffi::hand_freed_memory_back;
#[cfg(feature = "cli")]
pub(crate) use ffi::memory_is_handed_back_by;

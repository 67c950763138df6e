//! The workers: mover, deliverer, handlers, and what keeps them running.

pub mod batch_handler;
mod clients;
pub mod cluster_watch;
mod committer;
pub mod crew;
pub mod deliverer;
pub mod delivery;
pub mod dlq_breaker;
pub mod error;
mod group;
pub mod handler;
pub mod hold;
pub mod hop;
#[cfg(feature = "cli")]
mod http_batch;
#[cfg(feature = "cli")]
mod http_connect;
#[cfg(feature = "cli")]
mod http_connections;
#[cfg(feature = "cli")]
pub mod http_handler;
#[cfg(feature = "cli")]
mod http_request;
#[cfg(test)]
mod model;
pub mod mover;
mod no_way_back;
pub mod quiet;
pub mod router;
pub mod runner;
pub mod set_up;
pub mod stop;
pub mod supervisor;
pub mod testing;
mod wait_until;

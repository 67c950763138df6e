//! The workers: mover, deliverer, handlers, and what keeps them running.

mod backoff;
pub mod cluster_watch;
mod committer;
pub mod crew;
pub mod deliverer;
pub mod delivery;
mod denied;
pub mod dlq_breaker;
pub mod error;
mod group;
pub mod handler;
pub mod hold;
mod http_connect;
pub mod http_handler;
mod http_request;
pub mod leaders;
pub mod mover;
mod ports;
pub mod positions;
pub mod quiet;
pub mod router;
pub mod runner;
pub mod set_up;
pub mod stop;
pub mod supervisor;
pub mod testing;
mod told;

//! The workers: mover, deliverer, handlers, and what keeps them running.

mod backoff;
pub mod deliverer;
pub mod delivery;
pub mod error;
mod group;
pub mod handler;
mod http_connect;
pub mod http_handler;
mod http_request;
pub mod leaders;
pub mod mover;
pub mod positions;
pub mod stop;
pub mod supervisor;

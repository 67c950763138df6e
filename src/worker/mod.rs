//! The workers: mover, deliverer, handlers, and what keeps them running.

pub mod clock;
pub mod delivery;
pub mod handler;
mod http_connect;
pub mod http_handler;
mod http_request;

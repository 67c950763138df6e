//! A hop: a record is written from one topic to another, in one transaction with the offset that it consumes. Shared by mover, deliverer
//! and router: ports, engine, and target topics.

pub(in crate::worker) mod barred;
pub(in crate::worker) mod bisect;
pub(in crate::worker) mod content;
pub(in crate::worker) mod denied_partition;
pub(in crate::worker) mod engine;
pub(in crate::worker) mod held;
pub mod leaders;
pub(in crate::worker) mod ports;
pub mod positions;
pub(in crate::worker) mod targets;

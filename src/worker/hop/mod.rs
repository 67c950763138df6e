//! A hop: a record goes from one topic to the next, in one transaction with the offset that it consumes. What mover, deliverer and router
//! have in common for that: the ports, the engine and what it knows, and the topics that records go to.

pub(in crate::worker) mod backoff;
pub(in crate::worker) mod barred;
pub(in crate::worker) mod bisect;
pub(in crate::worker) mod budget;
pub(in crate::worker) mod content;
pub(in crate::worker) mod denied_partition;
pub(in crate::worker) mod engine;
pub mod leaders;
pub(in crate::worker) mod ports;
pub mod positions;
pub(in crate::worker) mod targets;

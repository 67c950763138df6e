//! The only place that knows rdkafka.

pub mod properties;

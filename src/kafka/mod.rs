//! The only place that knows rdkafka.

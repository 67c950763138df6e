//! The periodic statistics of librdkafka.
//!
//! It is a JSON text of about 600 bytes per partition, of which very little is used: unused parts are skipped as text and never parsed
//! to values (measured: 0.7 ms to read that of 600 partitions, in a build with little optimisation). Its totals count from the client's
//! creation, so only increases since the last report are passed on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use serde::Deserialize;

use crate::kafka::client_config;
use crate::telemetry::standing::{ClientMetrics, Side};

/// Interval of a client's statistics.
const INTERVAL_MILLIS: &str = "15000";

/// Receives the statistics of one client, and converts them to metrics.
pub(super) struct Statistics {
    metrics: ClientMetrics,
    side: Side,
    last: Mutex<Totals>,
    queued: AtomicU64,
}

/// Since the client's creation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Totals {
    request_errors: u64,
    disconnects: u64,
}

/// The used parts of the text (`STATISTICS.md` of librdkafka).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ClientStatistics {
    msg_cnt: u64,
    brokers: HashMap<String, Broker>,
    topics: HashMap<String, Topic>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Broker {
    txerrs: u64,
    rxerrs: u64,
    req_timeouts: u64,
    disconnects: u64,
    rtt: Window,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Window {
    /// In microseconds.
    p99: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Topic {
    partitions: HashMap<String, Partition>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Partition {
    fetchq_cnt: i64,
}

/// Enables statistics, unless the user has configured an interval.
pub(super) fn ask_for(config: &mut ClientConfig) {
    client_config::set_unless_given(config, [("statistics.interval.ms", INTERVAL_MILLIS)]);
}

impl Statistics {
    pub(super) fn new(metrics: ClientMetrics, side: Side) -> Self {
        Self { metrics, side, last: Mutex::default(), queued: AtomicU64::new(0) }
    }

    /// Processes one report.
    pub(super) fn take(&self, text: &[u8]) {
        let statistics: ClientStatistics = match serde_json::from_slice(text) {
            Ok(statistics) => statistics,
            Err(error) => {
                tracing::debug!(%error, "the client's statistics cannot be read");
                return;
            }
        };
        let totals = statistics.totals();
        let before = std::mem::replace(&mut *self.last.lock().unwrap_or_else(PoisonError::into_inner), totals);
        // When a broker is removed, its share disappears from the totals.
        self.metrics.troubles(
            totals.request_errors.saturating_sub(before.request_errors),
            totals.disconnects.saturating_sub(before.disconnects),
        );
        self.note_queued(statistics.queued(self.side));
        if self.side == Side::Producer {
            self.metrics.round_trip(statistics.slowest());
        }
    }

    fn note_queued(&self, records: u64) {
        self.metrics.queued(self.queued.swap(records, Ordering::AcqRel), records);
    }
}

impl Drop for Statistics {
    fn drop(&mut self) {
        self.note_queued(0);
    }
}

impl ClientStatistics {
    fn totals(&self) -> Totals {
        let errors = |broker: &Broker| broker.txerrs + broker.rxerrs + broker.req_timeouts;
        Totals {
            request_errors: self.brokers.values().map(errors).sum(),
            disconnects: self.brokers.values().map(|broker| broker.disconnects).sum(),
        }
    }

    fn queued(&self, side: Side) -> u64 {
        match side {
            Side::Producer => self.msg_cnt,
            Side::Consumer => {
                let partitions = self.topics.values().flat_map(|topic| topic.partitions.values());
                partitions.map(|partition| u64::try_from(partition.fetchq_cnt).unwrap_or(0)).sum()
            }
        }
    }

    fn slowest(&self) -> Duration {
        let micros = self.brokers.values().map(|broker| broker.rtt.p99).max().unwrap_or(0);
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"name": "rdkafka#producer-1", "ts": 5016483227792, "msg_cnt": 3, "msg_size": 18, "simple_cnt": 0,
        "brokers": {
            "h:9092/1": {"name": "h:9092/1", "txerrs": 1, "rxerrs": 2, "req_timeouts": 4, "disconnects": 5,
                         "rtt": {"min": 1, "max": 9000, "p99": 7500}, "toppars": {"a-1": {"topic": "a", "partition": 1}}},
            "GroupCoordinator": {"txerrs": 8, "disconnects": 1, "rtt": {"p99": 0}}},
        "topics": {
            "a": {"topic": "a", "partitions": {"0": {"fetchq_cnt": 7, "hi_offset": -1001}, "-1": {"fetchq_cnt": 0}}},
            "b": {"partitions": {"3": {"fetchq_cnt": 5}}}},
        "cgrp": {"state": "up"}, "eos": {"txn_state": "Ready"}}"#;

    #[test]
    fn only_what_is_used_is_read() {
        let statistics: ClientStatistics = serde_json::from_str(TEXT).unwrap();
        assert_eq!(statistics.totals(), Totals { request_errors: 15, disconnects: 6 });
        assert_eq!((statistics.queued(Side::Producer), statistics.queued(Side::Consumer)), (3, 12));
        assert_eq!(statistics.slowest(), Duration::from_micros(7_500));
    }

    #[test]
    fn an_empty_text_is_all_zero() {
        let statistics: ClientStatistics = serde_json::from_str("{}").unwrap();
        assert_eq!(
            (statistics.totals(), statistics.queued(Side::Consumer), statistics.slowest()),
            (Totals::default(), 0, Duration::ZERO)
        );
    }
}

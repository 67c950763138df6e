//! Gauges that are set from periodic observations instead of single events, as functions.
//!
//! As in [`events`](crate::telemetry::events), handles are created once. An unknown gauge is absent rather than 0, except for
//! those that are 0 until something happens.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::{Counter, Gauge, counter, gauge};

use crate::core::ladder::Ladder;
use crate::core::role::Role;
use crate::telemetry::names;

/// The kind of a worker's Kafka client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Reads.
    Consumer,
    /// Writes.
    Producer,
}

/// Statistics of one worker's Kafka clients; cheap to clone.
#[derive(Clone)]
pub struct ClientMetrics {
    queued: Gauge,
    request_errors: Counter,
    reconnects: Counter,
    rtt: Gauge,
    rebuilds: Counter,
    /// Number of records queued in all of them.
    in_queues: Arc<AtomicU64>,
}

impl ClientMetrics {
    /// Creates the handles of one worker.
    #[must_use]
    pub fn new(ladder: &Ladder, role: Role) -> Self {
        let (name, role) = (ladder.name(), role.as_str());
        let count = |metric: names::Metric| counter!(metric.name, names::LADDER => name.to_owned(), names::ROLE => role);
        let of = |metric: names::Metric| gauge!(metric.name, names::LADDER => name.to_owned(), names::ROLE => role);
        Self {
            queued: of(names::CLIENT_QUEUED),
            request_errors: count(names::CLIENT_REQUEST_ERRORS),
            reconnects: count(names::CLIENT_RECONNECTS),
            rtt: of(names::BROKER_RTT),
            rebuilds: count(names::PRODUCER_REBUILDS),
            in_queues: Arc::default(),
        }
    }

    /// Number of records in one client's queues, now and at its previous report.
    pub fn queued(&self, before: u64, records: u64) {
        let all = self.in_queues.fetch_add(records.wrapping_sub(before), Ordering::AcqRel);
        self.queued.set(lossy(all.wrapping_add(records).wrapping_sub(before)));
    }

    /// Number of failed requests and lost connections since the previous report.
    pub fn troubles(&self, request_errors: u64, reconnects: u64) {
        self.request_errors.increment(request_errors);
        self.reconnects.increment(reconnects);
    }

    /// Duration of the producer's requests at the slowest broker.
    pub fn round_trip(&self, rtt: Duration) {
        self.rtt.set(rtt);
    }

    /// The producer was recreated.
    pub fn rebuilt(&self) {
        self.rebuilds.increment(1);
    }
}

/// A worker's lag.
pub struct LagMetrics(Vec<(String, Gauge)>);

impl LagMetrics {
    /// Creates the handles of the worker that consumes these topics of the configuration.
    #[must_use]
    pub fn new(ladder: &Ladder) -> Self {
        let of = |topic: &String| gauge!(names::CONSUMER_LAG.name, names::LADDER => ladder.name().to_owned(), names::TOPIC => topic.clone());
        Self(ladder.consumed_topics().into_iter().map(|topic| (topic.clone(), of(&topic))).collect())
    }

    /// The lag by topic and partition, for the partitions that it owns; 0 for a topic without any.
    pub fn behind<'a>(&self, partitions: impl Iterator<Item = (&'a str, u64)>) {
        let mut sums = vec![0_u64; self.0.len()];
        for (topic, lag) in partitions {
            if let Some(at) = self.0.iter().position(|(known, _)| known == topic) {
                sums[at] += lag;
            }
        }
        self.0.iter().zip(sums).for_each(|((_, gauge), sum)| gauge.set(lossy(sum)));
    }
}

/// What the observation of the cluster reports about one ladder.
pub struct ClusterMetrics {
    stall: Gauge,
    drift: Gauge,
}

impl ClusterMetrics {
    /// Creates the handles of one ladder, without values yet.
    #[must_use]
    pub fn new(ladder: &Ladder) -> Self {
        let of = |metric: names::Metric| gauge!(metric.name, names::LADDER => ladder.name().to_owned());
        let metrics = Self { stall: of(names::STABLE_OFFSET_STALL), drift: of(names::TOPOLOGY_DRIFT) };
        metrics.stalled(Duration::ZERO);
        metrics.differs(None);
        metrics
    }

    /// How long the last stable offset of a partition has not moved although there are more records.
    pub fn stalled(&self, time: Duration) {
        self.stall.set(time);
    }

    /// Number of differences between cluster and configuration; `None` if unknown.
    pub fn differs(&self, things: Option<usize>) {
        self.drift.set(things.map_or(-1.0, lossy));
    }
}

/// Counts of dead letters.
pub struct DlqMetrics {
    letters: Gauge,
    open: Gauge,
    oldest: Gauge,
    at_risk: Gauge,
    new_groups: Gauge,
}

impl DlqMetrics {
    /// Creates the handles of one ladder, or of a [dlq] section.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let of = |metric: names::Metric| gauge!(metric.name, names::LADDER => name.to_owned());
        Self {
            letters: of(names::DLQ_RECORDS),
            open: of(names::DLQ_OPEN),
            oldest: of(names::DLQ_OLDEST),
            at_risk: of(names::DLQ_AT_RISK),
            new_groups: of(names::DLQ_NEW_GROUPS),
        }
    }

    /// Number of letters, number of open ones, age of the oldest open one, number that retention deletes within a day, number of new
    /// groups.
    pub fn sizes(&self, letters: u64, open: u64, oldest: Duration, at_risk: u64, new_groups: u64) {
        self.letters.set(lossy(letters));
        self.open.set(lossy(open));
        self.oldest.set(oldest);
        self.at_risk.set(lossy(at_risk));
        self.new_groups.set(lossy(new_groups));
    }
}

/// State of the index.
pub struct IndexMetrics(Counter);

impl IndexMetrics {
    /// Creates the handle of one ladder.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let role = Role::Index.as_str();
        Self(counter!(names::WORKER_RESTARTS.name, names::LADDER => name.to_owned(), names::ROLE => role))
    }

    /// It failed, and is retried.
    pub fn failed(&self) {
        self.0.increment(1);
    }
}

/// Progress of redrives.
pub struct RedriveMetrics {
    jobs: Gauge,
    sent: Gauge,
    left: Gauge,
}

impl RedriveMetrics {
    /// Creates the handles of one ladder, or of a [dlq] section.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let of = |metric: names::Metric| gauge!(metric.name, names::LADDER => name.to_owned());
        Self { jobs: of(names::REDRIVE_JOBS), sent: of(names::REDRIVE_SENT), left: of(names::REDRIVE_LEFT) }
    }

    /// Number of running jobs, and of letters sent and left.
    pub fn running(&self, jobs: u64, sent: u64, left: u64) {
        self.jobs.set(lossy(jobs));
        self.sent.set(lossy(sent));
        self.left.set(lossy(left));
    }
}

/// Gauges are floats: exact up to 2^53, and close enough beyond.
#[expect(clippy::cast_precision_loss, reason = "a count of records, for people to read")]
fn lossy(count: impl TryInto<u64>) -> f64 {
    count.try_into().unwrap_or(u64::MAX) as f64
}

//! How things stand, as functions to call: what is looked at from time to time and not counted as it happens.
//!
//! As with [`events`](crate::telemetry::events), handles are made once. A gauge of which nothing is known yet is not there rather
//! than 0, but for those that are 0 until something happens.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::{Counter, Gauge, counter, gauge};

use crate::config::types::Role;
use crate::core::ladder::Ladder;
use crate::telemetry::names;

/// What a Kafka client of a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// It reads.
    Consumer,
    /// It writes.
    Producer,
}

/// What the Kafka clients of one worker tell of themselves; cheap to clone.
#[derive(Clone)]
pub struct ClientMetrics {
    queued: Gauge,
    request_errors: Counter,
    reconnects: Counter,
    rtt: Gauge,
    rebuilds: Counter,
    /// What is queued in all of them.
    in_queues: Arc<AtomicU64>,
}

impl ClientMetrics {
    /// Makes the handles of one worker.
    #[must_use]
    pub fn new(ladder: &Ladder, role: Role) -> Self {
        let (name, role) = (ladder.name(), names::role(role));
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

    /// So many records are in the queues of one of the clients, and so many were when it told last.
    pub fn queued(&self, before: u64, records: u64) {
        let all = self.in_queues.fetch_add(records.wrapping_sub(before), Ordering::AcqRel);
        self.queued.set(lossy(all.wrapping_add(records).wrapping_sub(before)));
    }

    /// So many requests failed, and so many connections were lost, since this was told last.
    pub fn troubles(&self, request_errors: u64, reconnects: u64) {
        self.request_errors.increment(request_errors);
        self.reconnects.increment(reconnects);
    }

    /// So long do the producer's requests take with the slowest broker.
    pub fn round_trip(&self, rtt: Duration) {
        self.rtt.set(rtt);
    }

    /// The producer was made anew.
    pub fn rebuilt(&self) {
        self.rebuilds.increment(1);
    }
}

/// How far a worker is behind in what it consumes.
pub struct LagMetrics(Vec<(String, Gauge)>);

impl LagMetrics {
    /// Makes the handles of the worker that consumes these topics of the configuration.
    #[must_use]
    pub fn new(ladder: &Ladder) -> Self {
        let of = |topic: &String| gauge!(names::CONSUMER_LAG.name, names::LADDER => ladder.name().to_owned(), names::TOPIC => topic.clone());
        Self(ladder.consumed_topics().into_iter().map(|topic| (topic.clone(), of(&topic))).collect())
    }

    /// How far it is behind, by the topics and partitions that it owns; where it owns none of a topic it is 0.
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

/// What a look at the whole cluster tells of one ladder.
pub struct ClusterMetrics {
    stall: Gauge,
    drift: Gauge,
}

impl ClusterMetrics {
    /// Makes the handles of one ladder, of which nothing is known yet.
    #[must_use]
    pub fn new(ladder: &Ladder) -> Self {
        let of = |metric: names::Metric| gauge!(metric.name, names::LADDER => ladder.name().to_owned());
        let metrics = Self { stall: of(names::STABLE_OFFSET_STALL), drift: of(names::TOPOLOGY_DRIFT) };
        metrics.stalled(Duration::ZERO);
        metrics.differs(None);
        metrics
    }

    /// So long has the last stable offset of a partition not moved although there is more behind it.
    pub fn stalled(&self, time: Duration) {
        self.stall.set(time);
    }

    /// In so many things the cluster differs from the configuration; `None` where it cannot be told.
    pub fn differs(&self, things: Option<usize>) {
        self.drift.set(things.map_or(-1.0, lossy));
    }
}

/// How many dead letters there are.
pub struct DlqMetrics {
    letters: Gauge,
    open: Gauge,
    oldest: Gauge,
    at_risk: Gauge,
    new_groups: Gauge,
}

impl DlqMetrics {
    /// Makes the handles of one ladder, or of a dead-letter topic that has a name of its own.
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

    /// How many there are, how many of them are open, how old the oldest of those is, how many of those retention takes within a day,
    /// and how many groups are new.
    pub fn sizes(&self, letters: u64, open: u64, oldest: Duration, at_risk: u64, new_groups: u64) {
        self.letters.set(lossy(letters));
        self.open.set(lossy(open));
        self.oldest.set(oldest);
        self.at_risk.set(lossy(at_risk));
        self.new_groups.set(lossy(new_groups));
    }
}

/// How the index gets on.
pub struct IndexMetrics(Counter);

impl IndexMetrics {
    /// Makes the handle of one ladder.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let role = names::role(Role::Index);
        Self(counter!(names::WORKER_RESTARTS.name, names::LADDER => name.to_owned(), names::ROLE => role))
    }

    /// It failed, and is tried again.
    pub fn failed(&self) {
        self.0.increment(1);
    }
}

/// How far redrives are.
pub struct RedriveMetrics {
    jobs: Gauge,
    sent: Gauge,
    left: Gauge,
}

impl RedriveMetrics {
    /// Makes the handles of one ladder, or of a dead-letter topic that has a name of its own.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let of = |metric: names::Metric| gauge!(metric.name, names::LADDER => name.to_owned());
        Self { jobs: of(names::REDRIVE_JOBS), sent: of(names::REDRIVE_SENT), left: of(names::REDRIVE_LEFT) }
    }

    /// So many jobs run, have sent so much, and have so much left.
    pub fn running(&self, jobs: u64, sent: u64, left: u64) {
        self.jobs.set(lossy(jobs));
        self.sent.set(lossy(sent));
        self.left.set(lossy(left));
    }
}

/// Gauges are floats: exact up to 2^53, and near enough beyond.
#[expect(clippy::cast_precision_loss, reason = "a count of records, for people to read")]
fn lossy(count: impl TryInto<u64>) -> f64 {
    count.try_into().unwrap_or(u64::MAX) as f64
}

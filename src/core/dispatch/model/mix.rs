//! The input of a run: records, their behaviour, and the handler's behaviour.

use std::time::Duration;

use crate::core::dispatch::{BreakerSettings, DispatchSettings};

/// How the handler answers a record while it is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nature {
    /// Well, after the usual time.
    Healthy,
    /// Always with 500, quickly.
    Errors,
    /// Never.
    Hangs,
    /// The connection is dropped after the usual time; the handler survives.
    Drops,
    /// The handler dies after the usual time, and recovers after the mix's `revival`.
    Kills,
    /// Rejected, which is a good answer.
    Rejected,
    /// With 500 at first, and well after that.
    FailsOnce,
}

/// The share of records with a nature: one in so many.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    pub nature: Nature,
    pub one_in: usize,
}

/// A run of consecutive records of one partition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    pub nature: Nature,
    pub at: Duration,
    pub partition: usize,
    pub count: usize,
    pub is_of_one_key: bool,
}

/// How the handler treats every record meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weather {
    /// 503.
    Errors,
    /// No answer.
    Hangs,
    /// Accepts the connection and closes it.
    Drops,
    /// Unreachable; calls in flight are lost.
    Away,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Outage {
    pub weather: Weather,
    pub from: Duration,
    pub until: Duration,
}

impl Outage {
    pub fn lasts(&self) -> Duration {
        self.until.saturating_sub(self.from)
    }
}

/// The description of one run.
#[derive(Debug, Clone)]
pub(super) struct Mix {
    /// Number of workers, which share the partitions and call the same handler.
    pub workers: usize,
    pub partitions: usize,
    pub places: usize,
    pub unsettled: usize,
    /// How long a finished delivery waits for its commit.
    pub commit: Duration,
    pub timeout: Duration,
    /// Duration of a healthy call.
    pub takes: Duration,
    /// Records per second over all partitions.
    pub rate: f64,
    /// For how long records arrive, and for how many seconds healthy ones follow, one per second.
    pub lasts: Duration,
    pub afterwards: u64,
    pub tiers: Vec<Duration>,
    pub shares: Vec<Share>,
    pub runs: Vec<Run>,
    pub outages: Vec<Outage>,
    /// How long the handler takes to recover after it died.
    pub revival: Duration,
    /// Interval at which a worker hands a partition to the next one.
    pub rebalance: Option<Duration>,
    pub breaker: BreakerSettings,
}

pub(super) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(super) const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl Mix {
    /// A worker with production settings, six partitions, and a handler that is well.
    pub fn usual(rate: f64, takes: Duration, lasts: Duration) -> Self {
        Self {
            workers: 1,
            partitions: 6,
            places: 64,
            unsettled: 500,
            commit: ms(3),
            timeout: s(5),
            takes,
            rate,
            lasts,
            afterwards: 120,
            tiers: vec![s(2), s(5), s(10)],
            shares: Vec::new(),
            runs: Vec::new(),
            outages: Vec::new(),
            revival: ms(500),
            rebalance: None,
            breaker: BreakerSettings::default(),
        }
    }

    pub fn with_share(mut self, nature: Nature, one_in: usize) -> Self {
        self.shares.push(Share { nature, one_in });
        self
    }

    pub fn with_run(mut self, nature: Nature, at: Duration, count: usize) -> Self {
        self.runs.push(Run { nature, at, partition: 0, count, is_of_one_key: false });
        self
    }

    pub fn with_outage(mut self, weather: Weather, from: Duration, lasts: Duration) -> Self {
        self.outages.push(Outage { weather, from, until: from + lasts });
        self
    }

    pub fn settings(&self) -> DispatchSettings {
        DispatchSettings { places: self.places, unsettled: self.unsettled, redeliver_share: 0.5, breaker: Some(self.breaker) }
    }
}

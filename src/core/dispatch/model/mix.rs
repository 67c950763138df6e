//! What happens in a run: the records, how they misbehave, and what becomes of the handler.

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
    /// It drops the connection after the usual time, and lives on.
    Drops,
    /// It dies over it after the usual time, and is back after the mix's own.
    Kills,
    /// It rejects it, which is a good answer.
    Rejected,
    /// With 500 at first, and well ever after.
    FailsOnce,
}

/// Records of a nature among the others, one in so many.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    pub nature: Nature,
    pub one_in: usize,
}

/// So many of them one after the other, of one partition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    pub nature: Nature,
    pub at: Duration,
    pub partition: usize,
    pub count: usize,
    pub is_of_one_key: bool,
}

/// What the handler does meanwhile with whatever record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weather {
    /// 503.
    Errors,
    /// No answer.
    Hangs,
    /// It accepts and hangs up.
    Drops,
    /// It cannot be reached, and whatever was with it is lost.
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

/// One run.
#[derive(Debug, Clone)]
pub(super) struct Mix {
    /// How many share the partitions, and call the same handler.
    pub workers: usize,
    pub partitions: usize,
    pub places: usize,
    pub timeout: Duration,
    /// What a healthy record takes.
    pub takes: Duration,
    /// Records a second, all partitions together.
    pub rate: f64,
    /// For how long records come, and for how many seconds healthy ones come afterwards, one a second.
    pub lasts: Duration,
    pub afterwards: u64,
    pub tiers: Vec<Duration>,
    pub shares: Vec<Share>,
    pub runs: Vec<Run>,
    pub outages: Vec<Outage>,
    /// How long the handler takes to come back after it died over a record.
    pub revival: Duration,
    /// After each so long a worker gives a partition away, and the next one takes it.
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
    /// A worker as shipped, over six partitions, and a handler that is well.
    pub fn usual(rate: f64, takes: Duration, lasts: Duration) -> Self {
        Self {
            workers: 1,
            partitions: 6,
            places: 64,
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
        DispatchSettings { places: self.places, redeliver_share: 0.5, breaker: Some(self.breaker) }
    }
}

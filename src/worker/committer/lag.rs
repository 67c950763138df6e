//! Exports a worker's lag periodically.
//!
//! The end of a partition is known from its last fetch. A partition whose queue is full does not fetch: so if records are fetched and
//! not taken, above all while a ladder is held or a breaker open, the broker is asked now and then.

use std::time::Duration;

use crate::core::leader_clock::LocalTime;
use crate::kafka::partition::TopicPartition;
use crate::telemetry::standing::LagMetrics;
use crate::worker::committer::{Committer, Work};
use crate::worker::hop::ports::RecordSource;

/// Interval of exporting.
const TELL_INTERVAL: Duration = Duration::from_secs(1);

/// Interval of asking the broker, and time limit: the worker does nothing else meanwhile.
const ASK_INTERVAL: Duration = Duration::from_secs(10);
const ASK_WITHIN: Duration = Duration::from_millis(500);

/// When to export and ask next.
pub(super) struct Lag {
    metrics: LagMetrics,
    tell_at: LocalTime,
    ask_at: LocalTime,
}

impl Lag {
    pub(super) fn new(metrics: LagMetrics) -> Self {
        let zero = LocalTime::from_micros(0);
        Self { metrics, tell_at: zero, ask_at: zero }
    }
}

impl<W: Work> Committer<W> {
    /// Exports the lag, if it is time.
    pub(super) fn tell_lag(&mut self) {
        let now = self.clock.now();
        if now < self.lag.tell_at {
            return;
        }
        self.lag.tell_at = now.later(TELL_INTERVAL);
        for lane in &mut self.lanes {
            let end = self.source.known_end(lane.tp());
            lane.end = lane.end.max(end);
        }
        if now >= self.lag.ask_at {
            self.ask_ends(now);
        }
        let behind = self.lanes.iter().map(|lane| {
            let offsets = lane.end.map_or(0, |end| end.saturating_sub(lane.committed.offset));
            (&*lane.tp().topic, u64::try_from(offsets).unwrap_or(0))
        });
        self.lag.metrics.behind(behind);
    }

    fn ask_ends(&mut self, now: LocalTime) {
        let is_behind = |end: Option<i64>, next: i64| end.is_none_or(|end| next < end);
        let lanes = self.lanes.iter().filter(|lane| is_behind(lane.end, lane.tracker.next_offset()));
        let partitions: Vec<TopicPartition> = lanes.map(|lane| lane.tp().clone()).collect();
        if partitions.is_empty() {
            return;
        }
        self.lag.ask_at = now.later(ASK_INTERVAL);
        match self.source.ends(&partitions, ASK_WITHIN) {
            Ok(ends) => {
                for (tp, end) in ends {
                    if let Some(lane) = self.lanes.iter_mut().find(|lane| *lane.tp() == tp) {
                        lane.end = lane.end.max(Some(end));
                    }
                }
            }
            Err(error) => tracing::debug!(ladder = self.ladder.name(), %error, "cannot determine the lag; retrying later"),
        }
    }
}

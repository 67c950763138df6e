//! Logs records without a usable origin by number: a single one may be an accident, many mean a missing source or a wrong dialect, and one
//! line each would fill the log.

use std::time::Duration;

use crate::core::coordinates::Coordinates;
use crate::core::ladder::Ladder;
use crate::core::leader_clock::LocalTime;
use crate::core::role::Role;

/// Minimum time between two log lines.
const QUIET: Duration = Duration::from_secs(60);

/// Counts records that went to the DLQ with reason `no-origin` and were not logged yet.
#[derive(Debug, Default)]
pub(in crate::worker) struct NoWayBack {
    records: u64,
    /// Why the last of them had no usable origin.
    why: String,
    quiet_until: Option<LocalTime>,
}

impl NoWayBack {
    /// Adds records, one of which came from that origin.
    pub(in crate::worker) fn seen(&mut self, ladder: &Ladder, records: u64, origin: Option<&Coordinates>) {
        self.records += records;
        if let Some(Err(why)) = origin.map(|origin| ladder.origin_of(origin)) {
            self.why = why.to_string();
        }
    }

    /// The number since the last log line, if it is time for one.
    fn due(&mut self, now: LocalTime) -> Option<u64> {
        if self.records == 0 || self.quiet_until.is_some_and(|until| now < until) {
            return None;
        }
        self.quiet_until = Some(now.later(QUIET));
        Some(std::mem::take(&mut self.records))
    }

    /// Logs at once, and then once a minute as long as there are more.
    pub(in crate::worker) fn log(&mut self, ladder: &Ladder, role: Role, now: LocalTime) {
        let Some(records) = self.due(now) else { return };
        let dialect = ladder.dialect().map(crate::core::dialect::Dialect::name);
        tracing::warn!(
            ladder = ladder.name(),
            role = role.as_str(),
            records,
            dialect,
            why = self.why,
            "records cannot return to their origin and went to the DLQ with reason no-origin: add the topic to `sources`, or make sure \
             that `dialect` is that of the framework that writes to the inbox; kladder_dead_letters_total counts them"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_at_once_and_the_others_once_a_minute() {
        let ladder = Ladder::builder("billing", "billing").source("orders").tiers(["1s"]).build().expect("a ladder");
        let at = |seconds| LocalTime::from_micros(0).later(Duration::from_secs(seconds));
        let mut noted = NoWayBack::default();
        assert_eq!(noted.due(at(0)), None);
        noted.seen(&ladder, 1, None);
        assert_eq!(noted.due(at(1)), Some(1));
        let origin = Coordinates {
            topic: "payments".to_owned(),
            partition: 0,
            offset: 1,
            timestamp: crate::core::time::Timestamp::from_millis(0),
        };
        for second in 2..60 {
            noted.seen(&ladder, 3, Some(&origin));
            assert_eq!(noted.due(at(second)), None);
        }
        assert_eq!((noted.due(at(61)), noted.due(at(200))), (Some(58 * 3), None));
        assert_eq!(noted.why, "its origin `payments` is not among the ladder's sources");
    }
}

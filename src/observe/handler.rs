//! Health of a ladder's handler, from the metrics of the worker that answered.

use serde::Serialize;

use crate::core::dispatch::Trouble;
use crate::observe::scrape::Samples;
use crate::telemetry::names;

/// Health of a handler in one worker.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HandlerSeen {
    /// `up`, `degraded`, `in-doubt` or `down`.
    pub health: HealthSeen,
    /// Maximum number of concurrent deliveries; 0 while only probes run.
    pub deliveries_allowed: u64,
    /// Failed calls since the last good answer, by kind.
    pub trouble: Vec<TroubleSeen>,
    /// The worker has left its partitions to other workers.
    pub stands_aside: bool,
}

/// The health in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HealthSeen {
    /// It answers.
    Up,
    /// Fewer deliveries run at a time than `max_in_flight` allows.
    Degraded,
    /// Many calls have failed in a row.
    InDoubt,
    /// It does not answer.
    Down,
}

/// Number of failed calls of one kind.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TroubleSeen {
    /// The kind's label in the metric.
    pub kind: &'static str,
    /// Number of calls.
    pub calls: u64,
}

impl HandlerSeen {
    /// From a worker's metrics; `None` if it has no handler or no such metrics.
    pub fn of(samples: &Samples, ladder: &str) -> Option<Self> {
        let gauge = |metric: names::Metric| samples.sum(metric.name, &[(names::LADDER, ladder)]);
        let allowed = whole(gauge(names::HANDLER_CALLS_ALLOWED)?);
        let health = match whole(gauge(names::HANDLER_HEALTH)?) {
            0 => HealthSeen::Up,
            1 if allowed > 0 => HealthSeen::Degraded,
            1 => HealthSeen::InDoubt,
            _ => HealthSeen::Down,
        };
        let trouble = Trouble::ALL.into_iter().filter_map(|kind| {
            let labels = [(names::LADDER, ladder), (names::TROUBLE, kind.as_str())];
            let calls = whole(samples.sum(names::HANDLER_TROUBLE.name, &labels)?);
            (calls > 0).then_some(TroubleSeen { kind: kind.as_str(), calls })
        });
        Some(Self {
            health,
            deliveries_allowed: allowed,
            trouble: trouble.collect(),
            stands_aside: gauge(names::STANDS_ASIDE).is_some_and(|is_so| is_so >= 1.0),
        })
    }

    /// `handler up`, `handler DOWN (43 errors, 2 timeouts)`
    pub fn text(&self) -> String {
        let word = match self.health {
            HealthSeen::Up => return "handler up".to_owned(),
            HealthSeen::Degraded => return format!("handler DEGRADED ({} deliveries at a time)", self.deliveries_allowed),
            HealthSeen::InDoubt => "handler IN DOUBT",
            HealthSeen::Down => "handler DOWN",
        };
        let trouble: Vec<String> =
            self.trouble.iter().map(|trouble| format!("{} {}", trouble.calls, trouble.kind.replace('_', " "))).collect();
        let why = if trouble.is_empty() { String::new() } else { format!(" ({})", trouble.join(", ")) };
        let aside = if self.stands_aside { ", partitions left to other workers" } else { "" };
        format!("{word}{why}{aside}")
    }
}

/// A gauge that holds a count.
fn whole(gauge: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count, and written without a point")]
    let count = gauge.max(0.0) as u64;
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::scrape::parse;

    fn seen(text: &str) -> Option<HandlerSeen> {
        HandlerSeen::of(&parse(text), "b")
    }

    #[test]
    fn health_is_told_with_its_evidence() {
        let up = "kladder_handler_health{ladder=\"b\"} 0\nkladder_handler_calls_allowed{ladder=\"b\"} 64\n";
        assert_eq!(seen(up).unwrap().text(), "handler up");
        let degraded = "kladder_handler_health{ladder=\"b\"} 1\nkladder_handler_calls_allowed{ladder=\"b\"} 12\n";
        assert_eq!(seen(degraded).unwrap().text(), "handler DEGRADED (12 deliveries at a time)");
        let down = "kladder_handler_health{ladder=\"b\"} 2\nkladder_handler_calls_allowed{ladder=\"b\"} 0\n\
                    kladder_handler_trouble_calls{ladder=\"b\",trouble=\"errors\"} 43\n\
                    kladder_handler_trouble_calls{ladder=\"b\",trouble=\"lost_connections\"} 2\n\
                    kladder_handler_trouble_calls{ladder=\"b\",trouble=\"timeouts\"} 0\nkladder_stands_aside{ladder=\"b\"} 1\n";
        assert_eq!(seen(down).unwrap().text(), "handler DOWN (43 errors, 2 lost connections), partitions left to other workers");
        assert_eq!(seen("kladder_handler_health{ladder=\"c\"} 0\n"), None);
    }
}

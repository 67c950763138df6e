//! All ladders at a glance: which of them need attention.

use crate::telemetry::dashboards::panel::{Panel, Unit};
use crate::telemetry::names as n;
use crate::telemetry::promql::{RATE_INTERVAL, count, max, of_ours, quantile, rate, series, sum};

/// Purpose of the dashboard.
pub const ABOUT: &str =
    "All ladders: which are late, held or broken, and how many records wait. A ladder's own dashboard has a row per tier.";

const SCOPE: &str = r#"ladder=~"$ladder""#;
const LADDER: &[&str] = &[n::LADDER];

/// Query for the values of `$ladder`: from every process, whatever its roles.
pub fn ladders() -> String {
    format!("label_values({}, {})", n::HELD.name, n::LADDER)
}

/// The panels, in order.
pub fn panels() -> Vec<Panel> {
    let of = |metric| series(metric, SCOPE);
    let a_second = |metric, scope: &str| rate(metric, scope, RATE_INTERVAL);
    let both = [n::LADDER, n::ROLE];
    vec![
        Panel::stat("Ladders", n::HELD, Unit::Count, count(&[], &max(LADDER, &of(n::HELD)))),
        Panel::stat("Waiting", n::TIER_WAITING, Unit::Count, sum(&[], &of(n::TIER_WAITING))),
        Panel::stat("Oldest overdue", n::TIER_OLDEST_OVERDUE, Unit::Seconds, max(&[], &of(n::TIER_OLDEST_OVERDUE)))
            .limits(10.0, 60.0),
        Panel::stat("Breakers open", n::BREAKER_STATE, Unit::Count, breakers_open()).limit(1.0),
        Panel::stat("Partitions stopped", n::PARTITIONS_STOPPED, Unit::Count, sum(&[], &of(n::PARTITIONS_STOPPED))).limit(1.0),
        Panel::stat("Early", n::EARLY, Unit::Count, sum(&[], &of(n::EARLY))).limit(1.0),
        Panel::table("Ladders", "One line per ladder, as of now. Hops and dead letters are counted since the workers started.")
            .column("Waiting", Unit::Count, sum(LADDER, &of(n::TIER_WAITING)))
            .column("Due", Unit::Count, sum(LADDER, &of(n::TIER_DUE)))
            .column("Oldest overdue", Unit::Seconds, max(LADDER, &of(n::TIER_OLDEST_OVERDUE)))
            .column("Hops", Unit::Count, sum(LADDER, &of(n::HOPS)))
            .column("Dead letters", Unit::Count, sum(LADDER, &of(n::DEAD_LETTERS)))
            .column("Dead letters open", Unit::Count, max(LADDER, &of(n::DLQ_OPEN)))
            .column("Oldest dead letter", Unit::Seconds, max(LADDER, &of(n::DLQ_OLDEST)))
            .column("Breaker (2 open)", Unit::Count, max(LADDER, &of(n::BREAKER_STATE)))
            .column("Held", Unit::Count, max(LADDER, &of(n::HELD)))
            .column("Partitions stopped", Unit::Count, sum(LADDER, &of(n::PARTITIONS_STOPPED))),
        Panel::graph("Deliveries", n::DELIVERIES, Unit::PerSecond)
            .query("{{ladder}}", sum(LADDER, &a_second(n::DELIVERIES, SCOPE))),
        Panel::graph("Hops", n::HOPS, Unit::PerSecond).query("{{ladder}}", sum(LADDER, &a_second(n::HOPS, SCOPE))),
        Panel::graph("Dead letters", n::DEAD_LETTERS, Unit::PerSecond)
            .query("{{ladder}}", sum(LADDER, &a_second(n::DEAD_LETTERS, SCOPE))),
        Panel::graph("Lateness, p99", n::LATENESS, Unit::Seconds)
            .query("{{ladder}}", quantile(0.99, n::LATENESS, LADDER, SCOPE, RATE_INTERVAL))
            .limits(1.0, 10.0),
        Panel::graph("Waiting", n::TIER_WAITING, Unit::Count).query("{{ladder}}", sum(LADDER, &of(n::TIER_WAITING))),
        Panel::graph("Lag", n::CONSUMER_LAG, Unit::Count).query("{{ladder}}", sum(LADDER, &of(n::CONSUMER_LAG))),
        Panel::graph("Handler, p99", n::HANDLER, Unit::Seconds)
            .query("{{ladder}}", quantile(0.99, n::HANDLER, LADDER, SCOPE, RATE_INTERVAL)),
        Panel::graph("Worker restarts", n::WORKER_RESTARTS, Unit::PerSecond)
            .query("{{ladder}} {{role}}", sum(&both, &a_second(n::WORKER_RESTARTS, SCOPE))),
        Panel::graph("Rebalances", n::REBALANCES, Unit::PerSecond)
            .query("{{ladder}} {{role}}", sum(&both, &a_second(n::REBALANCES, SCOPE))),
        Panel::graph("Differences from the configuration", n::TOPOLOGY_DRIFT, Unit::Count)
            .query("{{ladder}}", max(LADDER, &of(n::TOPOLOGY_DRIFT)))
            .limit(1.0),
        Panel::graph("Memory", n::PROCESS_MEMORY, Unit::Bytes)
            .query("{{instance}}", max(&["instance"], &of_ours(&series(n::PROCESS_MEMORY, "")))),
        Panel::graph("Log lines lost", n::LOG_LINES_LOST, Unit::PerSecond)
            .query("{{instance}}", max(&["instance"], &a_second(n::LOG_LINES_LOST, ""))),
        Panel::graph("Processes by version", n::BUILD_INFO, Unit::Count)
            .query("{{version}}", count(&[n::VERSION], &series(n::BUILD_INFO, ""))),
    ]
}

/// Number of processes with an open breaker: 0 if none, so that a missing series is noticed.
fn breakers_open() -> String {
    sum(&[], &format!("{} == bool 2", series(n::BREAKER_STATE, SCOPE)))
}

//! One ladder: source, tiers, dead letters, and the workers that move records between them.

use crate::telemetry::dashboards::panel::{Panel, Unit};
use crate::telemetry::names as n;
use crate::telemetry::promql::{RATE_INTERVAL, count_rate, increase, max, mean, of_ours, quantile, rate, series, sum};

/// Purpose of the dashboard.
pub const ABOUT: &str =
    "One ladder, from the handler's verdicts over each of its tiers to the transactions that carry the records.";

const SCOPE: &str = r#"ladder="$ladder""#;
const IN_TIER: &str = r#"ladder="$ladder",tier="$tier""#;
const TIER: &[&str] = &[n::TIER];
const ROLE: &[&str] = &[n::ROLE];

/// Query for the values of `$tier`: the tiers with a mover.
pub fn tiers() -> String {
    format!("label_values({}, {})", series(n::TIER_LEFT, SCOPE), n::TIER)
}

/// The panels, in order.
pub fn panels() -> Vec<Panel> {
    [overview(), flow(), tier(), carriage()].concat()
}

fn of(metric: n::Metric) -> String {
    series(metric, SCOPE)
}

fn a_second(metric: n::Metric) -> String {
    rate(metric, SCOPE, RATE_INTERVAL)
}

fn overview() -> Vec<Panel> {
    vec![
        Panel::row("Now"),
        Panel::stat("Waiting", n::TIER_WAITING, Unit::Count, sum(&[], &of(n::TIER_WAITING))),
        Panel::stat("Due", n::TIER_DUE, Unit::Count, sum(&[], &of(n::TIER_DUE))),
        Panel::stat("Oldest overdue", n::TIER_OLDEST_OVERDUE, Unit::Seconds, max(&[], &of(n::TIER_OLDEST_OVERDUE)))
            .limits(10.0, 60.0),
        Panel::stat("Dead letters open", n::DLQ_OPEN, Unit::Count, max(&[], &of(n::DLQ_OPEN))).limits(1.0, 1000.0),
        Panel::stat("Handler's breaker", n::BREAKER_STATE, Unit::Count, max(&[], &of(n::BREAKER_STATE)))
            .word(0, "closed", "green")
            .word(1, "half-open", "yellow")
            .word(2, "open", "red"),
        Panel::stat("Held", n::HELD, Unit::Count, max(&[], &of(n::HELD))).word(0, "no", "green").word(1, "held", "red"),
        Panel::table("Hops since the workers started", n::HOPS.help).size(8, 8).column(
            "Hops into",
            Unit::Count,
            sum(TIER, &of(n::HOPS)),
        ),
        Panel::table("Records that left a tier, since the workers started", n::TIER_LEFT.help).size(8, 8).column(
            "Left",
            Unit::Count,
            sum(TIER, &of(n::TIER_LEFT)),
        ),
        Panel::table("Dead letters since the workers started", n::DEAD_LETTERS.help).size(8, 8).column(
            "Dead letters",
            Unit::Count,
            sum(&[n::REASON], &of(n::DEAD_LETTERS)),
        ),
    ]
}

fn flow() -> Vec<Panel> {
    vec![
        Panel::row("Deliveries"),
        Panel::graph("Deliveries by verdict", n::DELIVERIES, Unit::PerSecond)
            .query("{{verdict}}", sum(&[n::VERDICT], &a_second(n::DELIVERIES))),
        Panel::graph("Handler", n::HANDLER, Unit::Seconds)
            .query("p50", quantile(0.5, n::HANDLER, &[], SCOPE, RATE_INTERVAL))
            .query("p99", quantile(0.99, n::HANDLER, &[], SCOPE, RATE_INTERVAL)),
        Panel::graph("Attempts until done", n::ATTEMPTS_UNTIL_DONE, Unit::Count)
            .query("mean", mean(n::ATTEMPTS_UNTIL_DONE, &[], SCOPE, RATE_INTERVAL))
            .query("p99", quantile(0.99, n::ATTEMPTS_UNTIL_DONE, &[], SCOPE, RATE_INTERVAL)),
        Panel::graph("Hops by target", n::HOPS, Unit::PerSecond).query("{{tier}}", sum(TIER, &a_second(n::HOPS))),
        Panel::states("Breaker of the handler", n::BREAKER_STATE)
            .query("{{instance}}", max(&["instance"], &of(n::BREAKER_STATE)))
            .word(0, "closed", "green")
            .word(1, "half-open", "yellow")
            .word(2, "open", "red"),
        Panel::graph("Changes of the breaker, in an hour", n::BREAKER_CHANGES, Unit::Count)
            .query("{{state}}", sum(&[n::STATE], &increase(n::BREAKER_CHANGES, SCOPE, "1h"))),
        Panel::states("Health of the handler", n::HANDLER_HEALTH)
            .query("{{instance}}", max(&["instance"], &of(n::HANDLER_HEALTH)))
            .word(0, "up", "green")
            .word(1, "degraded", "yellow")
            .word(2, "down", "red"),
        Panel::graph("Deliveries allowed at a time, per process", n::HANDLER_CALLS_ALLOWED, Unit::Count)
            .query("{{instance}}", max(&["instance"], &of(n::HANDLER_CALLS_ALLOWED))),
        Panel::graph("Failed calls since the last good answer", n::HANDLER_TROUBLE, Unit::Count)
            .query("{{trouble}}", sum(&[n::TROUBLE], &of(n::HANDLER_TROUBLE))),
        Panel::graph("Workers that leave their partitions to others", n::STANDS_ASIDE, Unit::Count)
            .query("{{instance}}", max(&["instance"], &of(n::STANDS_ASIDE))),
        Panel::graph("Records suspected of killing the handler", n::HANDLER_SUSPECTS, Unit::Count)
            .query("records", sum(&[], &of(n::HANDLER_SUSPECTS))),
        Panel::graph("Dead letters by reason", n::DEAD_LETTERS, Unit::PerSecond)
            .query("{{reason}}", sum(&[n::REASON], &a_second(n::DEAD_LETTERS))),
        Panel::graph("Retried in place", n::IMMEDIATE_RETRIES, Unit::PerSecond)
            .query("repeated", sum(&[], &a_second(n::IMMEDIATE_RETRIES))),
        Panel::graph("Batches", n::BATCHES, Unit::PerSecond).query("batches", sum(&[], &a_second(n::BATCHES))),
        Panel::graph("Odd answers", n::ODD_ANSWERS, Unit::PerSecond).query("answers", sum(&[], &a_second(n::ODD_ANSWERS))),
    ]
}

fn tier() -> Vec<Panel> {
    let within = |metric| series(metric, IN_TIER);
    let time = |metric, share| quantile(share, metric, &[], IN_TIER, RATE_INTERVAL);
    vec![
        Panel::row("Tier $tier").repeat("tier"),
        Panel::graph("Waiting", n::TIER_WAITING, Unit::Count)
            .size(6, 8)
            .query("waiting", sum(&[], &within(n::TIER_WAITING)))
            .query("due", sum(&[], &within(n::TIER_DUE))),
        Panel::graph("In and out", n::TIER_LEFT, Unit::PerSecond)
            .size(6, 8)
            .query("in", sum(&[], &rate(n::HOPS, IN_TIER, RATE_INTERVAL)))
            .query("out", sum(&[], &rate(n::TIER_LEFT, IN_TIER, RATE_INTERVAL))),
        Panel::graph("Lateness", n::LATENESS, Unit::Seconds)
            .size(6, 8)
            .query("p50", time(n::LATENESS, 0.5))
            .query("p99", time(n::LATENESS, 0.99))
            .query("to the handler, p99", time(n::REDELIVERY_DELAY, 0.99))
            .limits(1.0, 10.0),
        Panel::graph("Oldest overdue", n::TIER_OLDEST_OVERDUE, Unit::Seconds)
            .size(6, 8)
            .query("overdue", max(&[], &within(n::TIER_OLDEST_OVERDUE)))
            .limits(10.0, 60.0),
    ]
}

fn carriage() -> Vec<Panel> {
    vec![
        Panel::row("Transactions, clients and workers"),
        Panel::graph("Lag", n::CONSUMER_LAG, Unit::Count).query("{{topic}}", sum(&[n::TOPIC], &of(n::CONSUMER_LAG))),
        Panel::graph("Open transactions that block readers", n::STABLE_OFFSET_STALL, Unit::Seconds)
            .query("longest", max(&[], &of(n::STABLE_OFFSET_STALL)))
            .limits(10.0, 60.0),
        Panel::graph("Differences from the configuration", n::TOPOLOGY_DRIFT, Unit::Count)
            .query("differences", max(&[], &of(n::TOPOLOGY_DRIFT)))
            .limit(1.0),
        Panel::graph("Transactions", n::TRANSACTION, Unit::PerSecond)
            .query("{{role}}", sum(ROLE, &count_rate(n::TRANSACTION, SCOPE, RATE_INTERVAL))),
        Panel::graph("Transaction time, p99", n::TRANSACTION, Unit::Seconds)
            .query("{{role}}", quantile(0.99, n::TRANSACTION, ROLE, SCOPE, RATE_INTERVAL)),
        Panel::graph("Transactions aborted", n::TRANSACTIONS_ABORTED, Unit::PerSecond)
            .query("{{role}}", sum(ROLE, &a_second(n::TRANSACTIONS_ABORTED))),
        Panel::graph("Producers recreated", n::PRODUCER_REBUILDS, Unit::PerSecond)
            .query("{{role}}", sum(ROLE, &a_second(n::PRODUCER_REBUILDS))),
        Panel::graph("Broker response time of writes, p99", n::BROKER_RTT, Unit::Seconds)
            .query("{{role}}", max(ROLE, &of(n::BROKER_RTT))),
        Panel::graph("Queued in the clients", n::CLIENT_QUEUED, Unit::Count).query("{{role}}", sum(ROLE, &of(n::CLIENT_QUEUED))),
        Panel::graph("Requests that failed", n::CLIENT_REQUEST_ERRORS, Unit::PerSecond)
            .query("{{role}}", sum(ROLE, &a_second(n::CLIENT_REQUEST_ERRORS))),
        Panel::graph("Connections lost", n::CLIENT_RECONNECTS, Unit::PerSecond)
            .query("{{role}}", sum(ROLE, &a_second(n::CLIENT_RECONNECTS))),
        Panel::graph("Rebalances", n::REBALANCES, Unit::PerSecond).query("{{role}}", sum(ROLE, &a_second(n::REBALANCES))),
        Panel::graph("Broker clock offset", n::CLOCK_OFFSET, Unit::Seconds)
            .query("{{instance}}", max(&["instance"], &of(n::CLOCK_OFFSET))),
        Panel::graph("Partitions stopped", n::PARTITIONS_STOPPED, Unit::Count)
            .query("{{role}}", sum(ROLE, &of(n::PARTITIONS_STOPPED)))
            .limit(1.0),
        Panel::graph("Malformed headers", n::MALFORMED_HEADERS, Unit::PerSecond)
            .query("{{role}}", sum(ROLE, &a_second(n::MALFORMED_HEADERS))),
        Panel::graph("Worker restarts", n::WORKER_RESTARTS, Unit::PerSecond)
            .query("{{role}}", sum(ROLE, &a_second(n::WORKER_RESTARTS))),
        Panel::graph("Early", n::EARLY, Unit::Count).query("early", sum(&[], &of(n::EARLY))).limit(1.0),
        Panel::graph("Processor", n::PROCESS_CPU, Unit::Share)
            .query("{{instance}}", sum(&["instance"], &of_ours(&rate(n::PROCESS_CPU, "", RATE_INTERVAL)))),
        Panel::graph("Memory", n::PROCESS_MEMORY, Unit::Bytes)
            .query("{{instance}}", max(&["instance"], &of_ours(&series(n::PROCESS_MEMORY, "")))),
        Panel::graph("Records in hand", n::IN_HAND, Unit::Bytes).query("{{role}}", sum(ROLE, &of(n::IN_HAND))),
        Panel::graph("Open files", n::PROCESS_OPEN_FDS, Unit::Count)
            .query("{{instance}}", max(&["instance"], &of_ours(&series(n::PROCESS_OPEN_FDS, "")))),
    ]
}

//! Every metric and label name, with its help text, in one table.
//!
//! Names are an interface: dashboards and alert rules are made of them. Labels are closed sets (ladder names, tier delays, verdicts,
//! reasons, roles), never error text, keys or offsets, so the number of series is known when the configuration is.

use crate::config::types::Role;

/// The ladder's name.
pub const LADDER: &str = "ladder";
/// The delay of a tier as its topic spells it (`5s`), or where else a record goes; see [`HOPS`].
pub const TIER: &str = "tier";
/// What the handler said; see [`crate::telemetry::events::VerdictKind`].
pub const VERDICT: &str = "verdict";
/// Why a record is in the DLQ; see [`crate::core::envelope::Reason`].
pub const REASON: &str = "reason";
/// Which of the workers; see [`role`].
pub const ROLE: &str = "role";
/// The name of a rule, or its number, counted from 1.
pub const RULE: &str = "rule";
/// What a rule says: retry, reject or done.
pub const THEN: &str = "then";
/// How a breaker stands: closed, half-open or open.
pub const STATE: &str = "state";
/// The version of kladder.
pub const VERSION: &str = "version";

/// The value of [`TIER`] for a hop to the redeliver topic.
pub const TO_REDELIVER: &str = "redeliver";
/// The value of [`TIER`] for a hop to the DLQ.
pub const TO_DLQ: &str = "dlq";
/// The value of [`TIER`] for a tier that the configuration no longer names.
pub const TIER_OTHER: &str = "other";

/// One metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    /// As Prometheus knows it.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts in these buckets (upper bounds, in seconds).
    Histogram(&'static [f64]),
}

/// 1 ms to 1 h: how late a record is may be a matter of one commit or of an outage.
const WAITING: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0];
/// 1 ms to 60 s: handlers have a timeout, and so have transactions.
const WORKING: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, labels, help }
}

const fn histogram(name: &'static str, labels: &'static [&'static str], buckets: &'static [f64], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Histogram(buckets), labels, help }
}

/// Deliveries by what the handler said.
pub const DELIVERIES: Metric = counter(
    "kladder_deliveries_total",
    &[LADDER, VERDICT],
    "Deliveries by verdict: done, retry, retry_after, reject; unsent ones never reached the handler and count no attempt. In relay \
     the arrivals in the inbox, and done where success is presumed.",
);
/// Hops that have been committed.
pub const HOPS: Metric = counter(
    "kladder_hops_total",
    &[LADDER, TIER],
    "Committed hops by target: the delay of the tier (such as 5s), redeliver for the way back, dlq for dead letters.",
);
/// From due to redeliver.
pub const LATENESS: Metric = histogram(
    "kladder_lateness_seconds",
    &[LADDER, TIER],
    WAITING,
    "Time from a record's due time to its place in the redeliver topic, by the tier that it waited in.",
);
/// From due to the handler's call.
pub const REDELIVERY_DELAY: Metric = histogram(
    "kladder_redelivery_delay_seconds",
    &[LADDER, TIER],
    WAITING,
    "Time from a record's due time to the call of the handler, by the tier that it waited in.",
);
/// Records in a tier.
pub const TIER_WAITING: Metric = gauge(
    "kladder_tier_waiting_records",
    &[LADDER, TIER],
    "Records in the partitions of the tier that this process moves, due or not; an estimate from offsets.",
);
/// Records in a tier that are due.
pub const TIER_DUE: Metric = gauge(
    "kladder_tier_due_records",
    &[LADDER, TIER],
    "Records that are due and have not been moved yet, in the partitions of the tier that this process moves.",
);
/// How long the oldest due record has been due.
pub const TIER_OLDEST_OVERDUE: Metric = gauge(
    "kladder_tier_oldest_overdue_seconds",
    &[LADDER, TIER],
    "How long the oldest due record of the tier has been due; 0 when none is.",
);
/// Records sent to the DLQ.
pub const DEAD_LETTERS: Metric =
    counter("kladder_dead_letters_total", &[LADDER, REASON], "Records that went to the dead-letter topic, by reason.");
/// Failures by the rule that decided.
pub const CLASSIFIED: Metric = counter(
    "kladder_classified_total",
    &[LADDER, RULE, THEN],
    "Failed attempts by the rule of the configuration that decided what follows; with then done they were dropped.",
);
/// Attempts that were repeated in place.
pub const IMMEDIATE_RETRIES: Metric = counter(
    "kladder_immediate_retries_total",
    &[LADDER],
    "Deliveries that repeated a failed attempt in place (immediate); each is counted by its verdict, too.",
);
/// How the handler's breaker stands.
pub const BREAKER_STATE: Metric = gauge(
    "kladder_breaker_state",
    &[LADDER],
    "Breaker of the handler in this process: 0 closed, 1 half-open (one delivery probes the handler), 2 open (deliveries wait).",
);
/// Changes of the breaker.
pub const BREAKER_CHANGES: Metric =
    counter("kladder_breaker_changes_total", &[LADDER, STATE], "Changes of the handler's breaker, by the state that followed.");
/// How long handlers take.
pub const HANDLER: Metric = histogram(
    "kladder_handler_seconds",
    &[LADDER],
    WORKING,
    "Time that the handler took for a delivery, whatever it said; deliveries that never reached it are left out.",
);
/// How long transactions take.
pub const TRANSACTION: Metric =
    histogram("kladder_transaction_seconds", &[LADDER, ROLE], WORKING, "Time from the beginning of a transaction to its commit.");
/// Transactions that were aborted.
pub const TRANSACTIONS_ABORTED: Metric =
    counter("kladder_transactions_aborted_total", &[LADDER, ROLE], "Transactions that were aborted; their hops are done again.");
/// Assignments of partitions.
pub const REBALANCES: Metric =
    counter("kladder_rebalances_total", &[LADDER, ROLE], "Rebalances in which this process was given or lost partitions.");
/// The broker's clock against ours.
pub const CLOCK_OFFSET: Metric = gauge(
    "kladder_clock_offset_seconds",
    &[LADDER],
    "Clock of the partition leaders minus the clock of this process: of all leaders, the one that is furthest off.",
);
/// Records that came back too early.
pub const EARLY: Metric = counter(
    "kladder_early_total",
    &[LADDER],
    "Records that were redelivered before their due time by the leader's clock: a defect.",
);
/// Envelopes that could not be trusted.
pub const MALFORMED_HEADERS: Metric = counter(
    "kladder_malformed_headers_total",
    &[LADDER, ROLE],
    "Records whose kladder headers were malformed; each was treated as a fresh one.",
);
/// Records that came back to the inbox without their headers.
pub const RELAY_HEADERS_MISSING: Metric = counter(
    "kladder_relay_headers_missing_total",
    &[LADDER],
    "Records that came back to the inbox without their kladder headers, known again by their content: the application drops headers.",
);
/// Partitions that stand still.
pub const PARTITIONS_STOPPED: Metric = gauge(
    "kladder_partitions_stopped",
    &[LADDER, ROLE],
    "Partitions that stand still because a record can be written nowhere or an offset is lost: somebody must act.",
);
/// Workers that had to be started again.
pub const WORKER_RESTARTS: Metric =
    counter("kladder_worker_restarts_total", &[LADDER, ROLE], "Times that a worker failed and was started again.");
/// Answers that no handler should give.
pub const ODD_ANSWERS: Metric = counter(
    "kladder_odd_answers_total",
    &[LADDER],
    "Answers of the handler that it should not give: status 1xx, 3xx or above 599, an unknown Kladder-Verdict, not HTTP.",
);
/// Whether a ladder is held.
pub const HELD: Metric = gauge(
    "kladder_held",
    &[LADDER],
    "1 while the ladder is held, so that nothing is moved and no delivery begun (kladder resume releases it); else 0.",
);
/// Whether dead letters are held.
pub const DLQ_BREAKER_OPEN: Metric = gauge(
    "kladder_dlq_breaker_open",
    &[LADDER],
    "1 while too many records would be dead letters and wait in the largest tier instead (kladder resume lets them go); else 0.",
);
/// Dead letters that are held.
pub const DEAD_LETTERS_HELD: Metric = counter(
    "kladder_dead_letters_held_total",
    &[LADDER],
    "Records that hopped into the largest tier instead of the dead-letter topic, because too many would have been dead letters.",
);
/// How many dead letters there are.
pub const DLQ_RECORDS: Metric =
    gauge("kladder_dlq_records", &[LADDER], "Dead letters in the topics of the ladder, whatever became of them.");
/// How many of them are open.
pub const DLQ_OPEN: Metric =
    gauge("kladder_dlq_open_records", &[LADDER], "Dead letters that nothing was done about yet, those included that are parked.");
/// How old the oldest open one is.
pub const DLQ_OLDEST: Metric = gauge(
    "kladder_dlq_oldest_seconds",
    &[LADDER],
    "Age of the oldest open dead letter, from its append time; 0 where there is none.",
);
/// How many open ones will be gone soon.
pub const DLQ_AT_RISK: Metric =
    gauge("kladder_dlq_at_risk_records", &[LADDER], "Open dead letters that the retention of their topic deletes within a day.");
/// How many groups are new.
pub const DLQ_NEW_GROUPS: Metric = gauge(
    "kladder_dlq_new_groups",
    &[LADDER],
    "Groups of dead letters (error class, reason and message) of which the first was seen within the last hour.",
);
/// Which build runs.
pub const BUILD_INFO: Metric = gauge("kladder_build_info", &[VERSION], "1, labelled with the version of kladder.");

/// All of them.
pub const ALL: [Metric; 32] = [
    DELIVERIES,
    HOPS,
    LATENESS,
    REDELIVERY_DELAY,
    TIER_WAITING,
    TIER_DUE,
    TIER_OLDEST_OVERDUE,
    DEAD_LETTERS,
    CLASSIFIED,
    IMMEDIATE_RETRIES,
    BREAKER_STATE,
    BREAKER_CHANGES,
    HANDLER,
    TRANSACTION,
    TRANSACTIONS_ABORTED,
    REBALANCES,
    CLOCK_OFFSET,
    EARLY,
    MALFORMED_HEADERS,
    RELAY_HEADERS_MISSING,
    PARTITIONS_STOPPED,
    WORKER_RESTARTS,
    ODD_ANSWERS,
    HELD,
    DLQ_BREAKER_OPEN,
    DEAD_LETTERS_HELD,
    DLQ_RECORDS,
    DLQ_OPEN,
    DLQ_OLDEST,
    DLQ_AT_RISK,
    DLQ_NEW_GROUPS,
    BUILD_INFO,
];

/// A role as metrics and probes name it.
#[must_use]
pub const fn role(role: Role) -> &'static str {
    match role {
        Role::Mover => "mover",
        Role::Deliverer => "deliverer",
        Role::Router => "router",
        Role::Index => "index",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_kept_to_one_form() {
        let names: BTreeSet<&str> = ALL.iter().map(|m| m.name).collect();
        assert_eq!(names.len(), ALL.len(), "a name appears twice");
        for metric in ALL {
            let name = metric.name;
            assert!(name.starts_with("kladder_"), "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}");
            assert!(metric.help.ends_with('.') && metric.help.len() > 20, "{name}");
            if let Kind::Histogram(buckets) = metric.kind {
                assert!(name.ends_with("_seconds"), "{name}");
                assert!(buckets.is_sorted(), "{name}");
            }
        }
    }
}

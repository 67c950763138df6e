//! Every metric and label name, with its help text, in one table.
//!
//! Names are an interface: dashboards and alert rules are made of them. Labels are closed sets (ladder names, tier delays, verdicts,
//! reasons, roles), never error text, keys or offsets, so the number of series is known when the configuration is.

use crate::config::types::Role;

/// The ladder's name.
pub const LADDER: &str = "ladder";
/// The delay of a tier as its topic spells it (`5s`), or where else a record goes; see [`HOPS`].
pub const TIER: &str = "tier";
/// What the handler said; see [`crate::core::failure::VerdictKind`].
pub const VERDICT: &str = "verdict";
/// Why a record is in the DLQ; see [`crate::core::envelope::Reason`].
pub const REASON: &str = "reason";
/// Which of the workers; see [`role`].
pub const ROLE: &str = "role";
/// The name of a rule, or its number, counted from 1.
pub const RULE: &str = "rule";
/// What a rule says: retry, reject or done.
pub const THEN: &str = "then";
/// What kind of trouble a call met.
pub const TROUBLE: &str = "trouble";
/// How a breaker stands: closed, half-open or open.
pub const STATE: &str = "state";
/// A topic that a worker consumes: a source, redeliver or the inbox.
pub const TOPIC: &str = "topic";
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
    /// Counts in these buckets: upper bounds, in the unit that ends the name, and where there is none a number.
    Histogram(&'static [f64]),
}

/// 1 ms to 1 h: how late a record is may be a matter of one commit or of an outage.
const WAITING: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0];
/// 1 ms to 60 s: handlers have a timeout, and so have transactions.
const WORKING: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Few records take more attempts than a ladder has tiers.
const ATTEMPTS: &[f64] = &[1.0, 2.0, 3.0, 4.0, 5.0, 8.0, 13.0, 21.0];

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
/// Records that have left a tier.
pub const TIER_LEFT: Metric = counter(
    "kladder_tier_left_total",
    &[LADDER, TIER],
    "Records that have left a tier, back to redeliver, on to another tier or to the dead-letter topic; what came in is \
     kladder_hops_total.",
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
    "Records that are due and have not been moved yet, in the partitions of the tier that this process moves; an estimate, as if they had \
     come evenly since the oldest.",
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
/// Attempts until a record was done.
pub const ATTEMPTS_UNTIL_DONE: Metric = histogram(
    "kladder_attempts_until_done",
    &[LADDER],
    ATTEMPTS,
    "Attempts that a record had taken when it was done, the last one included. In relay only records that were redelivered are \
     seen, whose success is presumed.",
);
/// How the handler's breaker stands.
pub const BREAKER_STATE: Metric = gauge(
    "kladder_breaker_state",
    &[LADDER],
    "Breaker of the handler in this process: 0 closed, 1 half-open (a few deliveries go on, or probe the handler), 2 open (deliveries \
     wait).",
);
/// How the handler is.
pub const HANDLER_HEALTH: Metric = gauge(
    "kladder_handler_health",
    &[LADDER],
    "Health of the handler as this process sees it: 0 up, 1 degraded (fewer deliveries run than may), 2 down.",
);
/// How many calls may run.
pub const HANDLER_CALLS_ALLOWED: Metric = gauge(
    "kladder_handler_calls_allowed",
    &[LADDER],
    "Deliveries that may run at a time now: max_in_flight while the handler is up, fewer while it is degraded, 0 while it is down or in \
     doubt and only probes run.",
);
/// By what the handler is known to be down.
pub const HANDLER_TROUBLE: Metric = gauge(
    "kladder_handler_trouble_calls",
    &[LADDER, TROUBLE],
    "Calls that met trouble since the handler last answered well, by what they met: errors, timeouts, lost_connections, unreachable. \
     Records that fail as they failed before are not counted.",
);
/// Records under suspicion.
pub const HANDLER_SUSPECTS: Metric = gauge(
    "kladder_handler_suspects",
    &[LADDER],
    "Records whose connections were lost together, which are delivered again in small groups to find the one over which the handler dies.",
);
/// Whether a worker has left its partitions to others.
pub const STANDS_ASIDE: Metric = gauge(
    "kladder_stands_aside",
    &[LADDER],
    "1 while this worker has left its partitions to other workers, since its handler is down and theirs is not.",
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
/// Producers that had to be made anew.
pub const PRODUCER_REBUILDS: Metric = counter(
    "kladder_producer_rebuilds_total",
    &[LADDER, ROLE],
    "Times that the producer of a worker was made anew, after connection trouble inside a transaction or an error that it does not \
     outlive.",
);
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
    "Partitions that stand still because a record can be written nowhere or their topic may not be read: somebody must act.",
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
/// How far a worker is behind.
pub const CONSUMER_LAG: Metric = gauge(
    "kladder_consumer_lag_records",
    &[LADDER, TOPIC],
    "Offsets between what is committed and the end of the topic, over the partitions that this process owns: of the sources and \
     redeliver (push) or the inbox (relay). Transaction markers count, until the end is reached.",
);
/// How long an open transaction has held up those who read committed.
pub const STABLE_OFFSET_STALL: Metric = gauge(
    "kladder_last_stable_offset_stall_seconds",
    &[LADDER],
    "How long the last stable offset of a partition has stood below its end without moving, since an open transaction holds up \
     those who read committed: the longest of the topics that this process reads, looked at every 15 seconds; 0 when none does.",
);
/// Redrives that run.
pub const REDRIVE_JOBS: Metric =
    gauge("kladder_redrive_jobs", &[LADDER], "Redrive jobs that are running or paused, as the state topic tells the role index.");
/// How many letters they have sent.
pub const REDRIVE_SENT: Metric =
    gauge("kladder_redrive_sent_records", &[LADDER], "Dead letters that the running redrive jobs have sent so far.");
/// How many letters are left to them.
pub const REDRIVE_LEFT: Metric =
    gauge("kladder_redrive_left_records", &[LADDER], "Dead letters that the running redrive jobs have still to send.");
/// What waits in the clients.
pub const CLIENT_QUEUED: Metric = gauge(
    "kladder_client_queued_records",
    &[LADDER, ROLE],
    "Records in the queues of a worker's Kafka clients: fetched and not yet taken, or written and not yet confirmed.",
);
/// Requests that failed.
pub const CLIENT_REQUEST_ERRORS: Metric = counter(
    "kladder_client_request_errors_total",
    &[LADDER, ROLE],
    "Requests of a worker's Kafka clients that could not be sent, whose answer could not be read, or that timed out.",
);
/// Connections that were lost.
pub const CLIENT_RECONNECTS: Metric = counter(
    "kladder_client_reconnects_total",
    &[LADDER, ROLE],
    "Connections of a worker's Kafka clients that the broker or the network ended, after which they connect again.",
);
/// How long brokers take to answer.
pub const BROKER_RTT: Metric = gauge(
    "kladder_broker_rtt_seconds",
    &[LADDER, ROLE],
    "Time that the requests of a worker's producer took to be answered, as the 99th percentile of the last 15 seconds, of the \
     slowest broker; 0 when nothing was sent. Fetches are left out: brokers delay their answers on purpose.",
);
/// How far the cluster is from the configuration.
pub const TOPOLOGY_DRIFT: Metric = gauge(
    "kladder_topology_drift",
    &[LADDER],
    "Differences between the configuration and the cluster, as kladder setup --dry-run lists them, looked at every 10 minutes; -1 \
     while the cluster cannot be asked or does not let its settings be seen.",
);
/// Which build runs.
pub const BUILD_INFO: Metric = gauge("kladder_build_info", &[VERSION], "1, labelled with the version of kladder.");

/// Processor time.
pub const PROCESS_CPU: Metric =
    counter("process_cpu_seconds_total", &[], "Processor time that the process has spent, in user and system mode.");
/// Memory.
pub const PROCESS_MEMORY: Metric = gauge("process_resident_memory_bytes", &[], "Resident memory of the process.");
/// Open files.
pub const PROCESS_OPEN_FDS: Metric = gauge("process_open_fds", &[], "File descriptors that the process has open.");
/// How many there may be.
pub const PROCESS_MAX_FDS: Metric = gauge("process_max_fds", &[], "File descriptors that the process may have open.");
/// Threads.
pub const PROCESS_THREADS: Metric = gauge("process_threads", &[], "Threads of the process.");
/// Since when it runs.
pub const PROCESS_START: Metric =
    gauge("process_start_time_seconds", &[], "When the process was started, in seconds since the epoch.");

/// Those of the process itself, which every exporter of Prometheus has by these names; see [`crate::telemetry::process`].
pub const PROCESS: [Metric; 6] = [PROCESS_CPU, PROCESS_MEMORY, PROCESS_OPEN_FDS, PROCESS_MAX_FDS, PROCESS_THREADS, PROCESS_START];

/// All of kladder's own.
pub const ALL: [Metric; 50] = [
    DELIVERIES,
    HOPS,
    TIER_LEFT,
    LATENESS,
    REDELIVERY_DELAY,
    TIER_WAITING,
    TIER_DUE,
    TIER_OLDEST_OVERDUE,
    DEAD_LETTERS,
    CLASSIFIED,
    IMMEDIATE_RETRIES,
    ATTEMPTS_UNTIL_DONE,
    BREAKER_STATE,
    BREAKER_CHANGES,
    HANDLER_HEALTH,
    HANDLER_CALLS_ALLOWED,
    HANDLER_TROUBLE,
    HANDLER_SUSPECTS,
    STANDS_ASIDE,
    HANDLER,
    TRANSACTION,
    TRANSACTIONS_ABORTED,
    PRODUCER_REBUILDS,
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
    REDRIVE_JOBS,
    REDRIVE_SENT,
    REDRIVE_LEFT,
    CONSUMER_LAG,
    STABLE_OFFSET_STALL,
    CLIENT_QUEUED,
    CLIENT_REQUEST_ERRORS,
    CLIENT_RECONNECTS,
    BROKER_RTT,
    TOPOLOGY_DRIFT,
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
        let names: BTreeSet<&str> = ALL.iter().chain(&PROCESS).map(|m| m.name).collect();
        assert_eq!(names.len(), ALL.len() + PROCESS.len(), "a name appears twice");
        for metric in ALL.into_iter().chain(PROCESS) {
            let name = metric.name;
            assert!(name.starts_with("kladder_") != PROCESS.contains(&metric), "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}");
            assert!(metric.help.ends_with('.') && metric.help.len() > 20, "{name}");
            if let Kind::Histogram(buckets) = metric.kind {
                // Of time in its base unit, or a bare number.
                assert!(name.ends_with("_seconds") || metric == ATTEMPTS_UNTIL_DONE, "{name}");
                assert!(buckets.is_sorted(), "{name}");
            }
        }
    }
}

//! Every metric and label name, with its help text, in one table.
//!
//! Names are an interface: dashboards and alert rules are generated from them. Labels are closed sets (ladder names, tier delays,
//! verdicts, reasons, roles), never error text, keys or offsets, so the number of series follows from the configuration.

/// The ladder's name.
pub const LADDER: &str = "ladder";
/// The delay of a tier as in its topic name (`5s`), or another target of a record; see [`HOPS`].
pub const TIER: &str = "tier";
/// The handler's verdict; see [`crate::core::failure::VerdictKind`].
pub const VERDICT: &str = "verdict";
/// Why a record is in the DLQ; see [`crate::core::envelope::Reason`].
pub const REASON: &str = "reason";
/// The worker's role; see [`role`].
pub const ROLE: &str = "role";
/// The name of a rule, or its number, counted from 1.
pub const RULE: &str = "rule";
/// The verdict of a rule: retry, reject or done.
pub const THEN: &str = "then";
/// The kind of a failed call.
pub const TROUBLE: &str = "trouble";
/// The state of a breaker: closed, half-open or open.
pub const STATE: &str = "state";
/// A topic that a worker consumes: a source, redeliver or the inbox.
pub const TOPIC: &str = "topic";
/// The version of kladder.
pub const VERSION: &str = "version";

/// The value of [`TIER`] for a hop to the redeliver topic.
pub const TO_REDELIVER: &str = "redeliver";
/// The value of [`TIER`] for a hop to the DLQ.
pub const TO_DLQ: &str = "dlq";
/// The value of [`TIER`] for a tier that is no longer in the configuration.
pub const TIER_OTHER: &str = "other";

/// One metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    /// Its name in Prometheus.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: MetricKind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// Its help text.
    pub help: &'static str,
}

/// The type of a metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MetricKind {
    /// Only increases.
    Counter,
    /// Increases and decreases.
    Gauge,
    /// Counts in these buckets: upper bounds in the unit at the end of the name, or plain numbers.
    Histogram(&'static [f64]),
}

/// 1 ms to 1 h: lateness ranges from one commit to a whole outage.
const WAITING: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0];
/// 1 ms to 60 s: handler calls and transactions have timeouts.
const WORKING: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Few records take more attempts than a ladder has tiers.
const ATTEMPTS: &[f64] = &[1.0, 2.0, 3.0, 4.0, 5.0, 8.0, 13.0, 21.0];

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Gauge, labels, help }
}

const fn histogram(name: &'static str, labels: &'static [&'static str], buckets: &'static [f64], help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Histogram(buckets), labels, help }
}

/// Deliveries by verdict.
pub const DELIVERIES: Metric = counter(
    "kladder_deliveries_total",
    &[LADDER, VERDICT],
    "Deliveries by verdict: done, retry, retry_after, reject; unsent ones never reached the handler and do not count as attempts. In relay \
     mode arrivals in the inbox, and done if success is presumed.",
);
/// Hops that have been committed.
pub const HOPS: Metric = counter(
    "kladder_hops_total",
    &[LADDER, TIER],
    "Committed hops by target: the delay of the tier (such as 5s), redeliver for redeliveries, dlq for dead letters.",
);
/// Records that have left a tier.
pub const TIER_LEFT: Metric = counter(
    "kladder_tier_left_total",
    &[LADDER, TIER],
    "Records that have left a tier, back to redeliver, to another tier or to the dead-letter topic; arrivals are in \
     kladder_hops_total.",
);
/// From the due time to redelivery.
pub const LATENESS: Metric = histogram(
    "kladder_lateness_seconds",
    &[LADDER, TIER],
    WAITING,
    "Time from a record's due time to its place in the redeliver topic, by the tier that it waited in.",
);
/// From the due time to the handler call.
pub const REDELIVERY_DELAY: Metric = histogram(
    "kladder_redelivery_delay_seconds",
    &[LADDER, TIER],
    WAITING,
    "Time from a record's due time to the handler call, by the tier that it waited in.",
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
    "Records that are due and have not been moved yet, in the partitions of the tier that this process moves; an estimate that assumes that they \
     arrived evenly since the oldest.",
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
/// Failures by the rule that matched.
pub const CLASSIFIED: Metric = counter(
    "kladder_classified_total",
    &[LADDER, RULE, THEN],
    "Failed attempts by the rule of the configuration that matched; with then = done the records were dropped.",
);
/// In-place retries.
pub const IMMEDIATE_RETRIES: Metric = counter(
    "kladder_immediate_retries_total",
    &[LADDER],
    "Deliveries that retried a failed attempt in place (immediate); each is also counted by its verdict.",
);
/// Attempts until a record was done.
pub const ATTEMPTS_UNTIL_DONE: Metric = histogram(
    "kladder_attempts_until_done",
    &[LADDER],
    ATTEMPTS,
    "Attempts of a record until it was done, the last one included. In relay mode only redelivered records are \
     counted, whose success is presumed.",
);
/// State of the handler's breaker.
pub const BREAKER_STATE: Metric = gauge(
    "kladder_breaker_state",
    &[LADDER],
    "Breaker of the handler in this process: 0 closed, 1 half-open (a few deliveries continue, or probe the handler), 2 open (deliveries \
     wait).",
);
/// Health of the handler.
pub const HANDLER_HEALTH: Metric = gauge(
    "kladder_handler_health",
    &[LADDER],
    "Health of the handler as this process sees it: 0 up, 1 degraded (fewer deliveries at a time), 2 down.",
);
/// Number of calls allowed.
pub const HANDLER_CALLS_ALLOWED: Metric = gauge(
    "kladder_handler_calls_allowed",
    &[LADDER],
    "Deliveries allowed at a time now: max_in_flight while the handler is up, fewer while it is degraded, 0 while it is down or in \
     doubt and only probes run.",
);
/// The failed calls by which the handler is known to be down.
pub const HANDLER_TROUBLE: Metric = gauge(
    "kladder_handler_trouble_calls",
    &[LADDER, TROUBLE],
    "Failed calls since the handler's last good answer, by kind: errors, timeouts, lost_connections, unreachable. \
     Records that fail in the same way as before are not counted.",
);
/// Suspected records.
pub const HANDLER_SUSPECTS: Metric = gauge(
    "kladder_handler_suspects",
    &[LADDER],
    "Records whose connections were lost at the same time; they are delivered again in small groups to find the one that kills the handler.",
);
/// Whether a worker has left its partitions to others.
pub const STANDS_ASIDE: Metric = gauge(
    "kladder_stands_aside",
    &[LADDER],
    "1 while this worker has left its partitions to other workers, because its handler is down and theirs is not; else 0.",
);
/// Changes of the breaker.
pub const BREAKER_CHANGES: Metric =
    counter("kladder_breaker_changes_total", &[LADDER, STATE], "Changes of the handler's breaker, by new state.");
/// Duration of handler calls.
pub const HANDLER: Metric = histogram(
    "kladder_handler_seconds",
    &[LADDER],
    WORKING,
    "Duration of deliveries at the handler, whatever the verdict; without deliveries that never reached it.",
);
/// Batches delivered to the handler.
pub const BATCHES: Metric = counter(
    "kladder_batches_total",
    &[LADDER],
    "Batches delivered to the handler; only with handler.batch. Their mean size is kladder_deliveries_total divided by this.",
);
/// Duration of transactions.
pub const TRANSACTION: Metric =
    histogram("kladder_transaction_seconds", &[LADDER, ROLE], WORKING, "Time from the beginning of a transaction to its commit.");
/// Transactions that were aborted.
pub const TRANSACTIONS_ABORTED: Metric =
    counter("kladder_transactions_aborted_total", &[LADDER, ROLE], "Aborted transactions; their hops are repeated.");
/// Producers that had to be recreated.
pub const PRODUCER_REBUILDS: Metric = counter(
    "kladder_producer_rebuilds_total",
    &[LADDER, ROLE],
    "Number of times that a worker's producer was recreated, after a connection failure inside a transaction or a fatal \
     error.",
);
/// Rebalances.
pub const REBALANCES: Metric = counter(
    "kladder_rebalances_total",
    &[LADDER, ROLE],
    "Rebalances in which partitions were assigned to or revoked from this process.",
);
/// The brokers' clocks against the local one.
pub const CLOCK_OFFSET: Metric = gauge(
    "kladder_clock_offset_seconds",
    &[LADDER],
    "Clock of the partition leaders minus the clock of this process: for the leader that deviates most.",
);
/// Records that were redelivered too early.
pub const EARLY: Metric = counter(
    "kladder_early_total",
    &[LADDER],
    "Records that were redelivered before their due time by the leader's clock: a bug in kladder.",
);
/// Headers that could not be trusted.
pub const MALFORMED_HEADERS: Metric = counter(
    "kladder_malformed_headers_total",
    &[LADDER, ROLE],
    "Records whose kladder headers were malformed; each was treated as a new record.",
);
/// Records that came back to the inbox without their headers.
pub const RELAY_HEADERS_MISSING: Metric = counter(
    "kladder_relay_headers_missing_total",
    &[LADDER],
    "Records that came back to the inbox without their kladder headers, recognised by their content: the application drops headers.",
);
/// Stopped partitions.
pub const PARTITIONS_STOPPED: Metric = gauge(
    "kladder_partitions_stopped",
    &[LADDER, ROLE],
    "Partitions that are stopped because a record can be written nowhere, or cannot be read: action is needed.",
);
/// Bytes of records that are taken and not finished.
pub const IN_HAND: Metric = gauge(
    "kladder_in_hand_bytes",
    &[LADDER, ROLE],
    "Bytes of records that the deliverer or router has taken and not yet finished or written elsewhere; above 67108864 it takes no more.",
);
/// Workers that had to be restarted.
pub const WORKER_RESTARTS: Metric =
    counter("kladder_worker_restarts_total", &[LADDER, ROLE], "Number of times that a worker failed and was restarted.");
/// Unexpected answers of the handler.
pub const ODD_ANSWERS: Metric = counter(
    "kladder_odd_answers_total",
    &[LADDER],
    "Unexpected answers of the handler: status 1xx, 3xx or above 599, an unknown Kladder-Verdict, not HTTP.",
);
/// Whether a ladder is held.
pub const HELD: Metric = gauge(
    "kladder_held",
    &[LADDER],
    "1 while the ladder is held, so that no record is moved or delivered (kladder resume releases it); else 0.",
);
/// Whether dead letters are held.
pub const DLQ_BREAKER_OPEN: Metric = gauge(
    "kladder_dlq_breaker_open",
    &[LADDER],
    "1 while too many records would be dead letters and wait in the largest tier instead (kladder resume releases them); else 0.",
);
/// Dead letters that are held.
pub const DEAD_LETTERS_HELD: Metric = counter(
    "kladder_dead_letters_held_total",
    &[LADDER],
    "Records that hopped into the largest tier instead of the dead-letter topic, because too many would have been dead letters.",
);
/// Number of dead letters.
pub const DLQ_RECORDS: Metric =
    gauge("kladder_dlq_records", &[LADDER], "Dead letters in the topics of the ladder, in any state.");
/// Number of open dead letters.
pub const DLQ_OPEN: Metric = gauge("kladder_dlq_open_records", &[LADDER], "Open dead letters, including parked ones.");
/// Age of the oldest open dead letter.
pub const DLQ_OLDEST: Metric = gauge(
    "kladder_dlq_oldest_seconds",
    &[LADDER],
    "Age of the oldest open dead letter, from its append time; 0 if there is none.",
);
/// Open dead letters that will soon be deleted.
pub const DLQ_AT_RISK: Metric =
    gauge("kladder_dlq_at_risk_records", &[LADDER], "Open dead letters that the retention of their topic deletes within a day.");
/// Number of new groups.
pub const DLQ_NEW_GROUPS: Metric = gauge(
    "kladder_dlq_new_groups",
    &[LADDER],
    "Groups of dead letters (error class, reason and message) whose first letter arrived within the last hour.",
);
/// Lag of a worker.
pub const CONSUMER_LAG: Metric = gauge(
    "kladder_consumer_lag_records",
    &[LADDER, TOPIC],
    "Offsets between the committed one and the end of the topic, over the partitions that this process owns: sources and \
     redeliver (push) or inbox (relay). Transaction markers count, until the end is reached.",
);
/// How long an open transaction has blocked read-committed consumers.
pub const STABLE_OFFSET_STALL: Metric = gauge(
    "kladder_last_stable_offset_stall_seconds",
    &[LADDER],
    "How long the last stable offset of a partition has been below its end without moving, because an open transaction blocks \
     read-committed consumers: the maximum over the topics that this process reads, checked every 15 seconds; 0 if none is blocked.",
);
/// Running redrives.
pub const REDRIVE_JOBS: Metric = gauge(
    "kladder_redrive_jobs",
    &[LADDER],
    "Redrive jobs that are running or paused, from the state topic as read by the role index.",
);
/// Number of letters that they have sent.
pub const REDRIVE_SENT: Metric =
    gauge("kladder_redrive_sent_records", &[LADDER], "Dead letters that the running redrive jobs have sent so far.");
/// Number of letters left to send.
pub const REDRIVE_LEFT: Metric =
    gauge("kladder_redrive_left_records", &[LADDER], "Dead letters that the running redrive jobs have still to send.");
/// Records queued in the clients.
pub const CLIENT_QUEUED: Metric = gauge(
    "kladder_client_queued_records",
    &[LADDER, ROLE],
    "Records in the queues of a worker's Kafka clients: fetched and not yet processed, or written and not yet confirmed.",
);
/// Failed requests.
pub const CLIENT_REQUEST_ERRORS: Metric = counter(
    "kladder_client_request_errors_total",
    &[LADDER, ROLE],
    "Requests of a worker's Kafka clients that could not be sent, whose answer could not be read, or that timed out.",
);
/// Lost connections.
pub const CLIENT_RECONNECTS: Metric = counter(
    "kladder_client_reconnects_total",
    &[LADDER, ROLE],
    "Connections of a worker's Kafka clients that were closed by the broker or the network; the clients reconnect.",
);
/// Response time of the brokers.
pub const BROKER_RTT: Metric = gauge(
    "kladder_broker_rtt_seconds",
    &[LADDER, ROLE],
    "Response time of a worker's producer requests, as the 99th percentile over the last 15 seconds, of the \
     slowest broker; 0 when nothing was sent. Without fetches, whose answers brokers delay on purpose.",
);
/// Differences between the cluster and the configuration.
pub const TOPOLOGY_DRIFT: Metric = gauge(
    "kladder_topology_drift",
    &[LADDER],
    "Differences between the configuration and the cluster, as kladder setup --dry-run lists them, checked every 10 minutes; -1 \
     while the cluster does not answer or does not permit reading its settings.",
);
/// Lost log lines.
pub const LOG_LINES_LOST: Metric = counter(
    "kladder_log_lines_lost_total",
    &[],
    "Log lines that were lost because stderr could not be written to or its reader did not keep up.",
);
/// The version of the build.
pub const BUILD_INFO: Metric = gauge("kladder_build_info", &[VERSION], "1, labelled with the version of kladder.");

/// Processor time.
pub const PROCESS_CPU: Metric = counter("process_cpu_seconds_total", &[], "Processor time of the process, user and system.");
/// Memory.
pub const PROCESS_MEMORY: Metric = gauge("process_resident_memory_bytes", &[], "Resident memory of the process.");
/// Open files.
pub const PROCESS_OPEN_FDS: Metric = gauge("process_open_fds", &[], "File descriptors that the process has open.");
/// Limit of open files.
pub const PROCESS_MAX_FDS: Metric = gauge("process_max_fds", &[], "File descriptors that the process may have open.");
/// Threads.
pub const PROCESS_THREADS: Metric = gauge("process_threads", &[], "Threads of the process.");
/// Start time.
pub const PROCESS_START: Metric =
    gauge("process_start_time_seconds", &[], "When the process was started, in seconds since the epoch.");

/// Metrics of the process itself, with the names used by all Prometheus exporters; see [`crate::telemetry::process`].
pub const PROCESS: [Metric; 6] = [PROCESS_CPU, PROCESS_MEMORY, PROCESS_OPEN_FDS, PROCESS_MAX_FDS, PROCESS_THREADS, PROCESS_START];

/// All of kladder's own metrics.
pub const ALL: [Metric; 53] = [
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
    BATCHES,
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
    IN_HAND,
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
    LOG_LINES_LOST,
    BUILD_INFO,
];

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
            assert_eq!(name.ends_with("_total"), metric.kind == MetricKind::Counter, "{name}");
            assert!(metric.help.ends_with('.') && metric.help.len() > 20, "{name}");
            if let MetricKind::Histogram(buckets) = metric.kind {
                // Of time in its base unit, or a bare number.
                assert!(name.ends_with("_seconds") || metric == ATTEMPTS_UNTIL_DONE, "{name}");
                assert!(buckets.is_sorted(), "{name}");
            }
        }
    }
}

//! The alert rules and their thresholds.

use std::time::Duration;

use crate::config::types::{AlertsConfig, LadderConfig};
use crate::core::delay::format_duration;
use crate::core::ladder::Mode;
use crate::core::role::Role;
use crate::telemetry::alerts::{Alert, AlertSeverity};
use crate::telemetry::names as n;
use crate::telemetry::promql::{increase, max, quantile, series, sum};

/// Window of rates and quantiles: several scrapes, even at long intervals.
const WINDOW: &str = "5m";
/// Window of rules about transactions.
const TRANSACTION_WINDOW: &str = "10m";
/// Number of aborts within it that rebalances and leader elections do not reach.
const ABORTS: u32 = 10;
/// Number of recreated producers within it that one restart of a broker does not reach.
const REBUILDS: u32 = 3;
/// Longest normal time of an open transaction: kladder's own time out after 10 s, those of other producers after a minute by
/// default.
const STALL_SECONDS: u32 = 60;
/// Part of the retention after which open dead letters raise a warning, in percent.
const AGEING_PERCENT: u32 = 75;
/// A recovering handler is degraded for less than this.
const DEGRADED_FOR: Duration = Duration::from_secs(600);
/// Retentions shorter than this use a share of the retention instead of its last day.
const FEW_DAYS: Duration = Duration::from_secs(4 * 86_400);
const LAST_PERCENT: u32 = 90;
/// A worker that was restarted more often than this within the window does not work.
const RESTARTS: u32 = 3;
/// Shorter windows than a few scrapes are meaningless.
const SHORTEST_WINDOW: Duration = Duration::from_secs(300);

const LADDER: &[&str] = &[n::LADDER];
/// The label by which Prometheus distinguishes scraped processes.
const INSTANCE: &str = "instance";

/// The rules of one ladder.
pub fn of(ladder: &LadderConfig, settings: &AlertsConfig, roles: &[Role]) -> Vec<Alert> {
    let name = ladder.ladder.name();
    let rules = Rules { ladder, settings, roles, name, scope: format!("{}=\"{name}\"", n::LADDER) };
    let mut all = rules.tiers();
    all.extend(rules.handler());
    all.extend(rules.dead_letters());
    all.extend(rules.workers());
    all.extend(rules.kafka());
    all
}

struct Rules<'a> {
    ladder: &'a LadderConfig,
    settings: &'a AlertsConfig,
    /// The roles of this configuration's processes.
    roles: &'a [Role],
    name: &'a str,
    scope: String,
}

impl Rules<'_> {
    fn alert(&self, name: &'static str, severity: AlertSeverity, expr: String, summary: String, description: String) -> Alert {
        let labels = vec![(n::LADDER, self.name.to_owned())];
        Alert { name, expr, hold: self.settings.hold, severity, labels, summary, description }
    }

    /// A gauge for which every process reports the same value.
    fn largest(&self, metric: n::Metric) -> String {
        max(LADDER, &series(metric, &self.scope))
    }

    /// Late or stopped tiers: each compared with its own delay.
    fn tiers(&self) -> Vec<Alert> {
        let by = [n::LADDER, n::TIER];
        // One of several movers may be stopped while the others work.
        let of_one = [n::LADDER, n::TIER, INSTANCE];
        let held = self.largest(n::HELD);
        let mut alerts = Vec::new();
        for tier in self.ladder.ladder.tiers() {
            let delay = tier.delay();
            let scope = format!("{},{}=\"{delay}\"", self.scope, n::TIER);
            let tenth = (delay.duration() / 10).clamp(Duration::from_secs(10), Duration::from_secs(600));
            let limit = self.settings.lateness.unwrap_or(tenth);
            let before = alerts.len();
            let (seconds, shown) = (limit.as_secs_f64(), format_duration(limit));
            alerts.push(self.alert(
                "KladderLateness",
                AlertSeverity::Warning,
                format!("{} > {seconds}", quantile(0.99, n::LATENESS, &by, &scope, WINDOW)),
                format!("{}: records of tier {delay} are redelivered late", self.name),
                format!("One record in a hundred was redelivered {{{{ $value | humanizeDuration }}}} or more after it was due; the limit is {shown}."),
            ));
            let overdue = max(&of_one, &series(n::TIER_OLDEST_OVERDUE, &scope));
            let left = sum(&of_one, &increase(n::TIER_LEFT, &scope, WINDOW));
            alerts.push(self.alert(
                "KladderTierStalled",
                AlertSeverity::Critical,
                format!("{overdue} > {seconds} and on ({}) {left} == 0 unless on ({}) {held} == 1", of_one.join(", "), n::LADDER),
                format!("{}: tier {delay} is stuck", self.name),
                format!("Its oldest record has been due for {{{{ $value | humanizeDuration }}}}, and none has left it within {WINDOW}."),
            ));
            for alert in &mut alerts[before..] {
                alert.labels.push((n::TIER, delay.to_string()));
            }
        }
        alerts
    }

    /// A handler that does not recover, or has reduced capacity.
    fn handler(&self) -> Vec<Alert> {
        let Some(breaker) = self.ladder.breaker.as_ref().filter(|_| self.ladder.ladder.mode() == Mode::Push) else {
            return Vec::new();
        };
        let mut alert = self.alert(
            "KladderBreakerOpen",
            AlertSeverity::Critical,
            // With nothing to deliver, a recovery cannot be noticed.
            format!(
                "{} >= 1 and on ({}) {} > 0",
                self.largest(n::BREAKER_STATE),
                n::LADDER,
                sum(LADDER, &series(n::CONSUMER_LAG, &self.scope))
            ),
            format!("{}: the handler is down", self.name),
            "The breaker of the handler has not closed: nothing is delivered, no attempt is counted, and records wait."
                .to_owned(),
        );
        // Two probes at the longest pause have failed, unless configured longer. If nothing waits, there are no probes.
        alert.hold = if alert.hold.is_zero() { Duration::ZERO } else { alert.hold.max(breaker.open_most * 2) };
        let mut degraded = self.alert(
            "KladderHandlerDegraded",
            AlertSeverity::Warning,
            format!("{} == 1", self.largest(n::HANDLER_HEALTH)),
            format!("{}: the handler is degraded", self.name),
            "Fewer deliveries run at a time than max_in_flight allows: many time out, or the handler keeps crashing.".to_owned(),
        );
        // A recovering handler is degraded for a while.
        degraded.hold = if degraded.hold.is_zero() { Duration::ZERO } else { degraded.hold.max(DEGRADED_FOR) };
        let of_one = [n::LADDER, INSTANCE];
        let aside = self.alert(
            "KladderWorkerAside",
            AlertSeverity::Warning,
            format!("{} == 1", max(&of_one, &series(n::STANDS_ASIDE, &self.scope))),
            format!("{}: {{{{ $labels.instance }}}} has left its partitions to others", self.name),
            "Its handler is down and another worker's is not: the others take over its work until its handler is back."
                .to_owned(),
        );
        vec![alert, degraded, aside]
    }

    /// Too many dead letters, new kinds, and old ones.
    fn dead_letters(&self) -> Vec<Alert> {
        let breaker = self.ladder.dlq_breaker.unwrap_or_default();
        let window = format_duration(breaker.window.max(SHORTEST_WINDOW));
        let dead = sum(LADDER, &increase(n::DEAD_LETTERS, &self.scope, &window));
        let done = sum(LADDER, &increase(n::DELIVERIES, &format!("{},{}=\"done\"", self.scope, n::VERDICT), &window));
        // Half of the breaker's threshold, so that the alert comes first.
        let (share, minimum) = (breaker.share / 2.0, breaker.minimum.div_ceil(2));
        let mut share = self.alert(
            "KladderDeadLetterShare",
            AlertSeverity::Warning,
            format!("{dead} / ({dead} + {done}) > {share} and on ({}) {dead} >= {minimum}", n::LADDER),
            format!("{}: many records become dead letters", self.name),
            format!("{{{{ $value | humanizePercentage }}}} of all records that finished within {window} are dead letters."),
        );
        share.hold = Duration::ZERO;
        let mut new = self.alert(
            "KladderNewErrorGroup",
            AlertSeverity::Info,
            format!("{} > 0", self.largest(n::DLQ_NEW_GROUPS)),
            format!("{}: new kind of dead letters", self.name),
            "{{ $value }} groups of dead letters (error class, reason, message) were first seen within the last hour.".to_owned(),
        );
        new.hold = Duration::ZERO;
        let retention = self.ladder.topics.dlq_retention;
        let ageing = retention.as_secs_f64() * f64::from(AGEING_PERCENT) / 100.0;
        let mut alerts = vec![
            share,
            new,
            self.alert(
                "KladderDeadLettersAgeing",
                AlertSeverity::Warning,
                format!("{} > {ageing}", self.largest(n::DLQ_OLDEST)),
                format!("{}: dead letters near the end of their retention", self.name),
                format!(
                    "The oldest open one is {{{{ $value | humanizeDuration }}}} old; after {} it is deleted.",
                    format_duration(retention)
                ),
            ),
            self.at_risk(retention),
        ];
        if self.ladder.dlq_breaker.is_some() {
            let mut held = self.alert(
                "KladderDeadLettersHeld",
                AlertSeverity::Critical,
                format!("{} == 1", self.largest(n::DLQ_BREAKER_OPEN)),
                format!("{}: too many records would be dead letters", self.name),
                "The DLQ breaker is open: records wait in the largest tier instead of becoming dead letters.".to_owned(),
            );
            held.hold = Duration::ZERO;
            alerts.push(held);
        }
        alerts
    }

    /// The last day before dead letters are deleted, or the last tenth of a short retention.
    fn at_risk(&self, retention: Duration) -> Alert {
        let (expr, summary, description) = if retention > FEW_DAYS {
            let summary = format!("{}: open dead letters are deleted within a day", self.name);
            let description = "{{ $value }} open dead letters reach the end of their retention within a day.".to_owned();
            (format!("{} > 0", self.largest(n::DLQ_AT_RISK)), summary, description)
        } else {
            let last = retention.as_secs_f64() * f64::from(LAST_PERCENT) / 100.0;
            let summary = format!("{}: open dead letters are about to be deleted", self.name);
            let kept = format_duration(retention);
            let description =
                format!("The oldest open one is {{{{ $value | humanizeDuration }}}} old; after {kept} it is deleted.");
            (format!("{} > {last}", self.largest(n::DLQ_OLDEST)), summary, description)
        };
        self.alert("KladderDeadLettersAtRisk", AlertSeverity::Critical, expr, summary, description)
    }

    /// Missing or failing workers.
    fn workers(&self) -> Vec<Alert> {
        let second = match self.ladder.ladder.mode() {
            Mode::Push => Role::Deliverer,
            Mode::Relay => Role::Router,
        };
        let absent = |metric, role: Role| {
            let mut alert = self.alert(
                "KladderWorkerAbsent",
                AlertSeverity::Critical,
                format!("absent({})", series(metric, &self.scope)),
                format!("{}: no {role} runs", self.name),
                format!("Prometheus scrapes no process with the role {role} of the ladder."),
            );
            alert.labels.push((n::ROLE, role.to_string()));
            alert
        };
        let mut stopped = self.alert(
            "KladderPartitionStopped",
            AlertSeverity::Critical,
            format!("{} > 0", sum(&[n::LADDER, n::ROLE], &series(n::PARTITIONS_STOPPED, &self.scope))),
            format!("{}: partitions are stopped", self.name),
            "{{ $value }} partitions of the {{ $labels.role }} are stopped: records can be written nowhere, or a topic may not be read.".to_owned(),
        );
        stopped.hold = stopped.hold.min(Duration::from_secs(60));
        let limit = self.settings.clock_offset;
        let mut alerts = vec![absent(n::TIER_LEFT, Role::Mover), absent(n::DELIVERIES, second)];
        if self.roles.contains(&Role::Index) {
            alerts.push(absent(n::DLQ_OPEN, Role::Index));
        }
        let again = sum(&[n::LADDER, n::ROLE], &increase(n::WORKER_RESTARTS, &self.scope, TRANSACTION_WINDOW));
        let mut failing = self.alert(
            "KladderWorkerFails",
            AlertSeverity::Critical,
            format!("{again} > {RESTARTS}"),
            format!("{}: the {{{{ $labels.role }}}} keeps failing", self.name),
            format!("It was restarted {{{{ $value | humanize }}}} times within {TRANSACTION_WINDOW}."),
        );
        failing.hold = Duration::ZERO;
        alerts.extend([
            failing,
            stopped,
            self.alert(
                "KladderClockOffset",
                AlertSeverity::Warning,
                format!(
                    "{} > {}",
                    max(&[n::LADDER, INSTANCE], &format!("abs({})", series(n::CLOCK_OFFSET, &self.scope))),
                    limit.as_secs_f64()
                ),
                format!("{}: the clocks of {{{{ $labels.instance }}}} and a broker differ", self.name),
                format!("They differ by {{{{ $value | humanizeDuration }}}}; the limit is {}.", format_duration(limit)),
            ),
        ]);
        alerts
    }

    /// Failing transactions, and differing topics.
    fn kafka(&self) -> Vec<Alert> {
        let by = [n::LADDER, n::ROLE];
        let risen = |metric| sum(&by, &increase(metric, &self.scope, TRANSACTION_WINDOW));
        let mut transactions = self.alert(
            "KladderTransactionTrouble",
            AlertSeverity::Warning,
            format!(
                "{} > {ABORTS} or {} > {REBUILDS} or {} > {STALL_SECONDS}",
                risen(n::TRANSACTIONS_ABORTED),
                risen(n::PRODUCER_REBUILDS),
                self.largest(n::STABLE_OFFSET_STALL)
            ),
            format!("{}: transactions fail or block readers", self.name),
            format!(
                "More than {ABORTS} aborted or more than {REBUILDS} producers recreated within {TRANSACTION_WINDOW}, or one has been open \
                 for more than {STALL_SECONDS} s: {{{{ $value }}}}."
            ),
        );
        transactions.hold = Duration::ZERO;
        vec![
            transactions,
            self.alert(
                "KladderTopologyDrift",
                AlertSeverity::Warning,
                format!("{} > 0", self.largest(n::TOPOLOGY_DRIFT)),
                format!("{}: the topics differ from the configuration", self.name),
                "{{ $value }} differences; kladder setup --dry-run lists them.".to_owned(),
            ),
        ]
    }
}

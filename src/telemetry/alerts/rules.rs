//! What fires, and from when on.

use std::time::Duration;

use crate::config::types::{AlertsConfig, LadderConfig, Role};
use crate::core::delay::format_duration;
use crate::core::ladder::Mode;
use crate::telemetry::alerts::{Alert, Severity};
use crate::telemetry::names as n;
use crate::telemetry::promql::{increase, max, quantile, series, sum};

/// How far rates and quantiles look back: several scrapes, however rarely is scraped.
const WINDOW: &str = "5m";
/// How far transactions are looked back on.
const TRANSACTION_WINDOW: &str = "10m";
/// So many aborts within it are more than rebalances and leader elections make.
const ABORTS: u32 = 10;
/// So many producers made anew within it are more than one restart of a broker makes.
const REBUILDS: u32 = 3;
/// An open transaction that holds up readers for longer was left behind: kladder's own time out after 10 s, those of other producers
/// after a minute by default.
const STALL_SECONDS: u32 = 60;
/// Dead letters are warned of when so much of their retention is over, in percent.
const AGEING_PERCENT: u32 = 75;
/// A handler that recovers is degraded for less.
const DEGRADED_FOR: Duration = Duration::from_secs(600);
/// The last day of a retention is told as a share of it where it is no more than a few days long.
const FEW_DAYS: Duration = Duration::from_secs(4 * 86_400);
const LAST_PERCENT: u32 = 90;
/// A worker that was started again so often within the window does not get on.
const RESTARTS: u32 = 3;
/// Shorter windows than a few scrapes tell nothing.
const SHORTEST_WINDOW: Duration = Duration::from_secs(300);

const LADDER: &[&str] = &[n::LADDER];
/// By which Prometheus tells the processes apart that it scrapes.
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
    /// What the processes of this configuration do.
    roles: &'a [Role],
    name: &'a str,
    scope: String,
}

impl Rules<'_> {
    fn alert(&self, name: &'static str, severity: Severity, expr: String, summary: String, description: String) -> Alert {
        let labels = vec![(n::LADDER, self.name.to_owned())];
        Alert { name, expr, hold: self.settings.hold, severity, labels, summary, description }
    }

    /// A gauge of which every process tells the same.
    fn largest(&self, metric: n::Metric) -> String {
        max(LADDER, &series(metric, &self.scope))
    }

    /// Late, or not moving at all: each tier by its own delay.
    fn tiers(&self) -> Vec<Alert> {
        let by = [n::LADDER, n::TIER];
        // Of several movers one may stand still while the others move.
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
                Severity::Warning,
                format!("{} > {seconds}", quantile(0.99, n::LATENESS, &by, &scope, WINDOW)),
                format!("{}: records come back late from tier {delay}", self.name),
                format!("One record in a hundred came back {{{{ $value | humanizeDuration }}}} after it was due or later; the limit is {shown}."),
            ));
            let overdue = max(&of_one, &series(n::TIER_OLDEST_OVERDUE, &scope));
            let left = sum(&of_one, &increase(n::TIER_LEFT, &scope, WINDOW));
            alerts.push(self.alert(
                "KladderTierStalled",
                Severity::Critical,
                format!("{overdue} > {seconds} and on ({}) {left} == 0 unless on ({}) {held} == 1", of_one.join(", "), n::LADDER),
                format!("{}: tier {delay} stands still", self.name),
                format!("Its oldest record has been due for {{{{ $value | humanizeDuration }}}}, and none has left it within {WINDOW}."),
            ));
            for alert in &mut alerts[before..] {
                alert.labels.push((n::TIER, delay.to_string()));
            }
        }
        alerts
    }

    /// A handler that does not come back by itself, or carries less than it should.
    fn handler(&self) -> Vec<Alert> {
        let Some(breaker) = self.ladder.breaker.as_ref().filter(|_| self.ladder.ladder.mode() == Mode::Push) else {
            return Vec::new();
        };
        let mut alert = self.alert(
            "KladderBreakerOpen",
            Severity::Critical,
            // With nothing to deliver nobody can find out that the handler is back.
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
        // Two probes at the longest pause have failed, unless more is asked for. With nothing to wait for, nobody wants to.
        alert.hold = if alert.hold.is_zero() { Duration::ZERO } else { alert.hold.max(breaker.open_most * 2) };
        let mut degraded = self.alert(
            "KladderHandlerDegraded",
            Severity::Warning,
            format!("{} == 1", self.largest(n::HANDLER_HEALTH)),
            format!("{}: the handler is degraded", self.name),
            "Fewer deliveries run at a time than max_in_flight allows: many time out, or the handler dies again and again."
                .to_owned(),
        );
        // After a recovery it is for a while.
        degraded.hold = if degraded.hold.is_zero() { Duration::ZERO } else { degraded.hold.max(DEGRADED_FOR) };
        let of_one = [n::LADDER, INSTANCE];
        let aside = self.alert(
            "KladderWorkerAside",
            Severity::Warning,
            format!("{} == 1", max(&of_one, &series(n::STANDS_ASIDE, &self.scope))),
            format!("{}: {{{{ $labels.instance }}}} has left its partitions to others", self.name),
            "Its handler is down and another worker's is not: the others do its work until it is back.".to_owned(),
        );
        vec![alert, degraded, aside]
    }

    /// Too many, new ones, and those that nobody has looked at for too long.
    fn dead_letters(&self) -> Vec<Alert> {
        let breaker = self.ladder.dlq_breaker.unwrap_or_default();
        let window = format_duration(breaker.window.max(SHORTEST_WINDOW));
        let dead = sum(LADDER, &increase(n::DEAD_LETTERS, &self.scope, &window));
        let done = sum(LADDER, &increase(n::DELIVERIES, &format!("{},{}=\"done\"", self.scope, n::VERDICT), &window));
        // Half of what the breaker opens at, so that people hear of it first.
        let (share, minimum) = (breaker.share / 2.0, breaker.minimum.div_ceil(2));
        let mut share = self.alert(
            "KladderDeadLetterShare",
            Severity::Warning,
            format!("{dead} / ({dead} + {done}) > {share} and on ({}) {dead} >= {minimum}", n::LADDER),
            format!("{}: many records become dead letters", self.name),
            format!("{{{{ $value | humanizePercentage }}}} of all records that ended within {window} are dead letters."),
        );
        share.hold = Duration::ZERO;
        let mut new = self.alert(
            "KladderNewErrorGroup",
            Severity::Info,
            format!("{} > 0", self.largest(n::DLQ_NEW_GROUPS)),
            format!("{}: dead letters of a kind that was not there before", self.name),
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
                Severity::Warning,
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
                Severity::Critical,
                format!("{} == 1", self.largest(n::DLQ_BREAKER_OPEN)),
                format!("{}: nearly everything would be a dead letter", self.name),
                "The DLQ breaker is open: what would be dead letters waits in the largest tier.".to_owned(),
            );
            held.hold = Duration::ZERO;
            alerts.push(held);
        }
        alerts
    }

    /// The last day before dead letters are deleted; of a retention of few days the last tenth.
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
        self.alert("KladderDeadLettersAtRisk", Severity::Critical, expr, summary, description)
    }

    /// Nobody there, or nobody who gets on.
    fn workers(&self) -> Vec<Alert> {
        let second = match self.ladder.ladder.mode() {
            Mode::Push => "deliverer",
            Mode::Relay => "router",
        };
        let absent = |metric, role: &'static str| {
            let mut alert = self.alert(
                "KladderWorkerAbsent",
                Severity::Critical,
                format!("absent({})", series(metric, &self.scope)),
                format!("{}: no {role} runs", self.name),
                format!("Prometheus scrapes no process that works as {role} of the ladder."),
            );
            alert.labels.push((n::ROLE, role.to_owned()));
            alert
        };
        let mut stopped = self.alert(
            "KladderPartitionStopped",
            Severity::Critical,
            format!("{} > 0", sum(&[n::LADDER, n::ROLE], &series(n::PARTITIONS_STOPPED, &self.scope))),
            format!("{}: partitions stand still", self.name),
            "{{ $value }} partitions of the {{ $labels.role }} stand still: records can be written nowhere, or a topic may not be read.".to_owned(),
        );
        stopped.hold = stopped.hold.min(Duration::from_secs(60));
        let limit = self.settings.clock_offset;
        let mut alerts = vec![absent(n::TIER_LEFT, "mover"), absent(n::DELIVERIES, second)];
        if self.roles.contains(&Role::Index) {
            alerts.push(absent(n::DLQ_OPEN, "index"));
        }
        let again = sum(&[n::LADDER, n::ROLE], &increase(n::WORKER_RESTARTS, &self.scope, TRANSACTION_WINDOW));
        let mut failing = self.alert(
            "KladderWorkerFails",
            Severity::Critical,
            format!("{again} > {RESTARTS}"),
            format!("{}: the {{{{ $labels.role }}}} fails again and again", self.name),
            format!("It was started again {{{{ $value | humanize }}}} times within {TRANSACTION_WINDOW}."),
        );
        failing.hold = Duration::ZERO;
        alerts.extend([
            failing,
            stopped,
            self.alert(
                "KladderClockOffset",
                Severity::Warning,
                format!(
                    "{} > {}",
                    max(&[n::LADDER, INSTANCE], &format!("abs({})", series(n::CLOCK_OFFSET, &self.scope))),
                    limit.as_secs_f64()
                ),
                format!("{}: the clocks of {{{{ $labels.instance }}}} and of a broker are apart", self.name),
                format!("They are {{{{ $value | humanizeDuration }}}} apart; the limit is {}.", format_duration(limit)),
            ),
        ]);
        alerts
    }

    /// Transactions that fail, and topics that are not as they should be.
    fn kafka(&self) -> Vec<Alert> {
        let by = [n::LADDER, n::ROLE];
        let risen = |metric| sum(&by, &increase(metric, &self.scope, TRANSACTION_WINDOW));
        let mut transactions = self.alert(
            "KladderTransactionTrouble",
            Severity::Warning,
            format!(
                "{} > {ABORTS} or {} > {REBUILDS} or {} > {STALL_SECONDS}",
                risen(n::TRANSACTIONS_ABORTED),
                risen(n::PRODUCER_REBUILDS),
                self.largest(n::STABLE_OFFSET_STALL)
            ),
            format!("{}: transactions fail or hold up readers", self.name),
            format!(
                "More than {ABORTS} aborted or more than {REBUILDS} producers made anew within {TRANSACTION_WINDOW}, or one has been open \
                 for more than {STALL_SECONDS} s: {{{{ $value }}}}."
            ),
        );
        transactions.hold = Duration::ZERO;
        vec![
            transactions,
            self.alert(
                "KladderTopologyDrift",
                Severity::Warning,
                format!("{} > 0", self.largest(n::TOPOLOGY_DRIFT)),
                format!("{}: the topics differ from the configuration", self.name),
                "{{ $value }} differences, which kladder setup --dry-run lists.".to_owned(),
            ),
        ]
    }
}

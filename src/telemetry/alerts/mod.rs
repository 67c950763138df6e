//! Alert rules for Prometheus, generated from the metrics' names and the configuration's
//! thresholds.
//!
//! There is a rule per ladder, and if the threshold depends on the delay, per tier, so that a tier of a day is not judged like a tier
//! of five seconds. Disabled features have no rules. No rule substitutes a value for a missing series: if no process reports a
//! ladder, `KladderWorkerAbsent` fires.

mod rules;

use std::fmt::Write as _;
use std::time::Duration;

use crate::config::types::Config;
use crate::core::delay::format_duration;

/// How urgent an alert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlertSeverity {
    /// Act now: records are blocked or about to be lost.
    Critical,
    /// Look into it soon.
    Warning,
    /// For information.
    Info,
}

impl AlertSeverity {
    /// The value of the label `severity`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

/// One rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Alert {
    /// Its name; in lower case also the anchor of its section in `docs/runbook.md` and in an operator's runbook.
    pub name: &'static str,
    /// The query; its results fire.
    pub expr: String,
    /// How long it must have results before it fires.
    pub hold: Duration,
    /// How urgent it is.
    pub severity: AlertSeverity,
    /// Labels that identify its subject. Most queries return them anyway; without them the rules of two ladders would look
    /// the same.
    pub labels: Vec<(&'static str, String)>,
    /// One line; `{{ $labels.… }}` is filled in by Prometheus.
    pub summary: String,
    /// Its meaning.
    pub description: String,
}

/// The rule file for all ladders of a configuration, in YAML, with one group per ladder.
#[must_use]
pub fn rule_file(config: &Config) -> String {
    let runbook = config.alerts.runbook.as_deref();
    let mut text = String::from("groups:\n");
    for ladder in &config.ladders {
        // Writing to a string cannot fail.
        let _ = write!(text, "  - name: {}\n    rules:\n", quoted(&format!("kladder-{}", ladder.ladder.name())));
        for alert in rules::of(ladder, &config.alerts, &config.worker.roles) {
            text += &rule(&alert, runbook);
        }
    }
    text
}

fn rule(alert: &Alert, runbook: Option<&str>) -> String {
    let mut lines = vec![format!("      - alert: {}", alert.name), format!("        expr: {}", quoted(&alert.expr))];
    if !alert.hold.is_zero() {
        lines.push(format!("        for: {}", format_duration(alert.hold)));
    }
    lines.push("        labels:".to_owned());
    lines.push(format!("          severity: {}", alert.severity.as_str()));
    lines.extend(alert.labels.iter().map(|(name, value)| format!("          {name}: {}", quoted(value))));
    lines.push("        annotations:".to_owned());
    // Only the operator's own address: no default link would be known to be reachable for them.
    let page = runbook.map(|runbook| format!("{runbook}#{}", alert.name.to_lowercase()));
    let annotations =
        [("summary", Some(&alert.summary)), ("description", Some(&alert.description)), ("runbook_url", page.as_ref())];
    for (name, value) in annotations.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        lines.push(format!("          {name}: {}", quoted(value)));
    }
    lines.join("\n") + "\n"
}

/// A JSON string is also a valid YAML string.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests;

//! Alert rules for Prometheus, made of the metrics' names and the configuration's own thresholds.
//!
//! A rule is written for each ladder, and where the threshold follows the delay for each tier, so that a tier of a day is not held to
//! what a tier of five seconds must keep. What is switched off has no rule. No rule makes up a value for a series that is missing:
//! where nobody tells of a ladder, `KladderWorkerAbsent` is what fires.

mod rules;

use std::fmt::Write as _;
use std::time::Duration;

use crate::config::types::Config;
use crate::core::delay::format_duration;

/// Where the paragraphs stand that tell what to do, unless the configuration has a page of its own.
const RUNBOOK: &str = concat!("https://crates.io/crates/kladder/", env!("CARGO_PKG_VERSION"));

/// How urgent an alert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Somebody must act now: records stand still or are about to be lost.
    Critical,
    /// Somebody must look before long.
    Warning,
    /// Good to know.
    Info,
}

impl Severity {
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
    /// Its name, and in lower case the anchor of what to do.
    pub name: &'static str,
    /// The query: what it gives fires.
    pub expr: String,
    /// How long it must give it.
    pub hold: Duration,
    /// How urgent it is.
    pub severity: Severity,
    /// What it is about. Most queries give these labels anyway; without them the rules of two ladders would be taken for one.
    pub labels: Vec<(&'static str, String)>,
    /// One line; `{{ $labels.… }}` is filled in by Prometheus.
    pub summary: String,
    /// What it means.
    pub description: String,
}

/// The rule file for all ladders of a configuration, in YAML, with a group a ladder.
#[must_use]
pub fn rule_file(config: &Config) -> String {
    let runbook = config.alerts.runbook.as_deref().unwrap_or(RUNBOOK);
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

fn rule(alert: &Alert, runbook: &str) -> String {
    let mut lines = vec![format!("      - alert: {}", alert.name), format!("        expr: {}", quoted(&alert.expr))];
    if !alert.hold.is_zero() {
        lines.push(format!("        for: {}", format_duration(alert.hold)));
    }
    lines.push("        labels:".to_owned());
    lines.push(format!("          severity: {}", alert.severity.as_str()));
    lines.extend(alert.labels.iter().map(|(name, value)| format!("          {name}: {}", quoted(value))));
    lines.push("        annotations:".to_owned());
    let page = format!("{runbook}#{}", alert.name.to_lowercase());
    for (name, value) in [("summary", &alert.summary), ("description", &alert.description), ("runbook_url", &page)] {
        lines.push(format!("          {name}: {}", quoted(value)));
    }
    lines.join("\n") + "\n"
}

/// What JSON calls a string is one in YAML, too.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests;

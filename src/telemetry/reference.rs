//! The reference page of all metrics, made of the table of their names, so that it cannot say anything else.

use std::fmt::Write;

use crate::config::types::Role;
use crate::core::dispatch::Trouble;
use crate::core::envelope::Reason;
use crate::core::failure::VerdictKind;
use crate::core::rules::Then;
use crate::telemetry::events::BREAKER_STATES;
use crate::telemetry::names::{self, Kind, Metric};

/// The page, in Markdown; `kladder generate metrics` prints it.
#[must_use]
pub fn markdown() -> String {
    let mut page = String::from(HEAD);
    page += "\n## Labels\n\n| label | values |\n|---|---|\n";
    for (label, values) in labels() {
        let _ = writeln!(page, "| `{label}` | {values} |");
    }
    page += "\n## Metrics of the ladders\n\n";
    page += &table(&names::ALL);
    page += "\n## Metrics of the process\n\n";
    page += &table(&names::PROCESS);
    page += "\n## Buckets\n\nUpper bounds, to which `+Inf` is added; of those that end in `_seconds`, in seconds.\n\n| metric | buckets |\n|---|---|\n";
    for metric in names::ALL {
        if let Kind::Histogram(buckets) = metric.kind {
            let bounds: Vec<String> = buckets.iter().map(ToString::to_string).collect();
            let _ = writeln!(page, "| `{}` | {} |", metric.name, bounds.join(", "));
        }
    }
    page
}

const HEAD: &str = "\
# Metrics

Made by `kladder generate metrics`; do not edit.

`/metrics` at the address of `[health]` gives them in the text format of Prometheus. Times are seconds and sizes bytes. A counter or
histogram is there from the start, with 0; gauges are there as soon as the role that tells them runs. Labels are closed: their values
are those of the table and of the configuration, never those of records.
";

/// Each label with what it can be.
fn labels() -> [(&'static str, String); 11] {
    let listed = |values: &[&str]| values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ");
    let verdicts = VerdictKind::ALL.map(VerdictKind::as_str);
    let reasons = Reason::ALL.map(Reason::as_str);
    let roles = [Role::Mover, Role::Deliverer, Role::Router].map(names::role);
    let then = [Then::Retry { from_tier: 1, attempts: None }, Then::Reject { dlq: None }, Then::Done];
    let tiers = format!(
        "the delays of the tiers as their topics spell them, such as `5s`; of `{}` also `{}` and `{}`; of `{}` also `{}`, for tiers \
         that the configuration no longer names",
        names::HOPS.name,
        names::TO_REDELIVER,
        names::TO_DLQ,
        names::REDELIVERY_DELAY.name,
        names::TIER_OTHER
    );
    [
        (names::LADDER, "the names of the ladders".to_owned()),
        (names::TIER, tiers),
        (names::VERDICT, listed(&verdicts)),
        (names::REASON, listed(&reasons)),
        (names::ROLE, listed(&roles)),
        (names::RULE, "the names of the rules, or their numbers counted from 1".to_owned()),
        (names::THEN, listed(&then.map(|then| then.as_str()))),
        (names::STATE, listed(&BREAKER_STATES)),
        (names::TROUBLE, listed(&Trouble::ALL.map(Trouble::as_str))),
        (names::TOPIC, "the sources and the redeliver topic (push), or the inbox (relay)".to_owned()),
        (names::VERSION, "the version of kladder".to_owned()),
    ]
}

fn table(metrics: &[Metric]) -> String {
    let mut table = String::from("| metric | type | labels | what it says |\n|---|---|---|---|\n");
    for metric in metrics {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let _ = writeln!(table, "| `{}` | {kind} | {} | {} |", metric.name, labels.join(", "), metric.help);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_the_repository_is_the_one_that_is_made() {
        let kept = include_str!("metrics.md");
        assert!(kept == markdown(), "make it anew: cargo run -- generate metrics > src/telemetry/metrics.md");
    }

    #[test]
    fn every_label_of_every_metric_is_explained() {
        let known = labels().map(|(label, _)| label);
        for label in names::ALL.iter().chain(&names::PROCESS).flat_map(|metric| metric.labels) {
            assert!(known.contains(label), "{label}");
        }
    }
}

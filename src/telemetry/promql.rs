//! Prometheus queries, built from the metrics of [`names`](crate::telemetry::names).
//!
//! No metric name is written by hand: dashboards and alert rules name the metric, the selected series and the labels to sum by. A
//! scope is the text between the braces, such as `ladder="$ladder"`; a window is the text between the brackets, such as `5m`.

use crate::telemetry::names::{BUILD_INFO, Metric};

/// The window of a dashboard: wide enough for a rate at the displayed step and the scrape interval.
pub const RATE_INTERVAL: &str = "$__rate_interval";

/// The plain series.
#[must_use]
pub fn series(metric: Metric, scope: &str) -> String {
    selected(metric, "", scope)
}

/// Increase of a counter per second.
#[must_use]
pub fn rate(metric: Metric, scope: &str, window: &str) -> String {
    format!("rate({}[{window}])", series(metric, scope))
}

/// Increase of a counter.
#[must_use]
pub fn increase(metric: Metric, scope: &str, window: &str) -> String {
    format!("increase({}[{window}])", series(metric, scope))
}

/// Observations of a histogram per second.
#[must_use]
pub fn count_rate(metric: Metric, scope: &str, window: &str) -> String {
    format!("rate({}[{window}])", selected(metric, "_count", scope))
}

/// A quantile (0 to 1) of a histogram over the window.
#[must_use]
pub fn quantile(quantile: f64, metric: Metric, labels: &[&str], scope: &str, window: &str) -> String {
    let by: Vec<&str> = ["le"].into_iter().chain(labels.iter().copied()).collect();
    let buckets = format!("rate({}[{window}])", selected(metric, "_bucket", scope));
    format!("histogram_quantile({quantile}, {})", sum(&by, &buckets))
}

/// The mean of a histogram over the window.
#[must_use]
pub fn mean(metric: Metric, labels: &[&str], scope: &str, window: &str) -> String {
    let of = |suffix| sum(labels, &format!("rate({}[{window}])", selected(metric, suffix, scope)));
    format!("{} / {}", of("_sum"), of("_count"))
}

/// The sum over all series with the same values of these labels: for parts reported by every
/// process.
#[must_use]
pub fn sum(labels: &[&str], inner: &str) -> String {
    aggregate("sum", labels, inner)
}

/// Restricts series that every program has to those of kladder's processes.
#[must_use]
pub fn of_ours(inner: &str) -> String {
    format!("{inner} and on (job, instance) {}", series(BUILD_INFO, ""))
}

/// The maximum over all series with the same values of these labels: for one thing reported by
/// several processes.
#[must_use]
pub fn max(labels: &[&str], inner: &str) -> String {
    aggregate("max", labels, inner)
}

/// Number of series with the same values of these labels.
#[must_use]
pub fn count(labels: &[&str], inner: &str) -> String {
    aggregate("count", labels, inner)
}

fn aggregate(operator: &str, labels: &[&str], inner: &str) -> String {
    if labels.is_empty() { format!("{operator}({inner})") } else { format!("{operator} by ({}) ({inner})", labels.join(", ")) }
}

fn selected(metric: Metric, suffix: &str, scope: &str) -> String {
    if scope.is_empty() { format!("{}{suffix}", metric.name) } else { format!("{}{suffix}{{{scope}}}", metric.name) }
}

/// Helpers for tests of queries.
#[cfg(test)]
pub mod testing {
    use regex::Regex;

    use crate::telemetry::names::{ALL, Metric, MetricKind, PROCESS};

    /// Labels that Prometheus adds to every target.
    const OF_THE_TARGET: [&str; 2] = ["instance", "job"];

    /// The metrics of a query; checks that each exists, has the labels used, and is used according to its type.
    #[track_caller]
    pub fn metrics_of(query: &str) -> Vec<Metric> {
        let name = Regex::new(r"\b(?:kladder|process)_[a-z_]+\b").unwrap();
        let found: Vec<Metric> = name
            .find_iter(query)
            .map(|found| {
                let metric =
                    known(found.as_str()).unwrap_or_else(|| panic!("{} is not a metric of kladder: {query}", found.as_str()));
                let rest = &query[found.end()..];
                if let Some(scope) = rest.strip_prefix('{') {
                    let scope = scope.split('}').next().unwrap();
                    for matcher in scope.split(',') {
                        let label = matcher.split(['=', '!']).next().unwrap();
                        assert!(metric.labels.contains(&label), "{} has no label {label}: {query}", metric.name);
                    }
                }
                let before = &query[..found.start()];
                let is_counted = ["rate(", "increase("].iter().any(|function| before.ends_with(function));
                if metric.kind == MetricKind::Gauge {
                    assert!(!is_counted, "{} is not a counter: {query}", metric.name);
                }
                metric
            })
            .collect();
        assert!(!found.is_empty(), "no metric in {query}");
        for by in Regex::new(r"\b(?:by|on) \(([^)]*)\)").unwrap().captures_iter(query) {
            for label in by[1].split(", ") {
                let exists = label == "le" || OF_THE_TARGET.contains(&label) || found.iter().any(|m| m.labels.contains(&label));
                assert!(exists, "no metric of the query has a label {label}: {query}");
            }
        }
        assert!(!query.contains("or vector"), "a missing series must be seen: {query}");
        found
    }

    fn known(name: &str) -> Option<Metric> {
        ALL.into_iter().chain(PROCESS).find(|metric| match metric.kind {
            MetricKind::Histogram(_) => {
                ["_bucket", "_sum", "_count"].iter().any(|suffix| name.strip_suffix(suffix) == Some(metric.name))
            }
            MetricKind::Counter | MetricKind::Gauge => metric.name == name,
        })
    }
}

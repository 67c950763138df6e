//! Process metrics from the operating system, by the names that all Prometheus exporters use.
//!
//! Read on each scrape and rendered as text here: processor time is a counter with fractions of a second, which the recorder of the
//! other metrics does not support. Without `/proc` there are no such metrics.

use std::fmt::Write;
use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};

use crate::telemetry::names::{self, Metric, MetricKind};

/// All available metrics of [`names::PROCESS`], in the Prometheus text format.
#[must_use]
pub fn render() -> String {
    let mut text = String::new();
    for (metric, value) in figures() {
        let kind = if metric.kind == MetricKind::Counter { "counter" } else { "gauge" };
        let name = metric.name;
        let _ = write!(text, "# HELP {name} {}\n# TYPE {name} {kind}\n{name} {value}\n\n", metric.help);
    }
    text
}

fn figures() -> Vec<(Metric, f64)> {
    let mut figures = Vec::new();
    if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(Stat::parse) {
        figures.push((names::PROCESS_CPU, seconds(stat.cpu_ticks)));
        figures.push((names::PROCESS_MEMORY, lossy(stat.resident_pages) * lossy(page_size() as u64)));
        figures.push((names::PROCESS_THREADS, lossy(stat.threads)));
        if let Some(boot) = fs::read_to_string("/proc/stat").ok().as_deref().and_then(boot_time) {
            figures.push((names::PROCESS_START, lossy(boot) + seconds(stat.start_ticks)));
        }
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // The descriptor that reads the directory is counted too; it is subtracted.
        figures.push((names::PROCESS_OPEN_FDS, lossy((open.count() as u64).saturating_sub(1))));
    }
    if let Some(most) = fs::read_to_string("/proc/self/limits").ok().as_deref().and_then(most_files) {
        figures.push((names::PROCESS_MAX_FDS, most));
    }
    figures
}

/// The used fields of `/proc/self/stat` (proc(5)).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    start_ticks: u64,
    resident_pages: u64,
}

impl Stat {
    fn parse(line: &str) -> Option<Self> {
        // The program's name is in parentheses and may contain anything; field 3 follows it.
        let fields: Vec<&str> = line.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: field(14)? + field(15)?,
            threads: field(20)?,
            start_ticks: field(22)?,
            resident_pages: field(24)?,
        })
    }
}

/// Boot time of the machine, in seconds since the epoch.
fn boot_time(stat: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
}

/// The soft limit.
fn most_files(limits: &str) -> Option<f64> {
    let soft = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?;
    if soft == "unlimited" { Some(f64::INFINITY) } else { soft.parse().ok() }
}

fn seconds(ticks: u64) -> f64 {
    lossy(ticks) / lossy(clock_ticks_per_second())
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
fn lossy(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_may_have_any_name() {
        let line = "7 (odd) name) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 9 0 12345 1000000 321 18446744073709551615";
        let stat = Stat { cpu_ticks: 300, threads: 9, start_ticks: 12345, resident_pages: 321 };
        assert_eq!(Stat::parse(line), Some(stat));
        assert_eq!(Stat::parse("nonsense"), None);
    }

    #[test]
    fn limits_and_boot_time_are_found() {
        let limits =
            "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 4096                 files\n";
        assert_eq!(most_files(limits), Some(1024.0));
        assert_eq!(boot_time("cpu 1 2\nbtime 1700000000\nprocesses 3\n"), Some(1_700_000_000));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_told_of_by_the_usual_names() {
        let text = render();
        for metric in names::PROCESS {
            let prefix = format!("{} ", metric.name);
            let line = text.lines().find(|line| line.starts_with(&prefix)).unwrap_or_else(|| panic!("{prefix} in\n{text}"));
            let value: f64 = line[prefix.len()..].parse().unwrap();
            assert!(value > 0.0 || metric == names::PROCESS_CPU, "{line}");
        }
    }
}

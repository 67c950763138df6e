//! The Prometheus exporter, without a listener: [`crate::admin::health`] serves the result of [`Exporter::render`].

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Counter, counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use crate::telemetry::log_writer;
use crate::telemetry::names::{self, MetricKind};
use crate::telemetry::process;

/// Histograms keep every sample until it is sorted into its bucket: this bounds the memory of a process that is not
/// scraped.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Renders all metrics of the process.
#[derive(Clone)]
pub struct Exporter {
    handle: PrometheusHandle,
    lines_lost: Counter,
}

impl Exporter {
    /// All metrics, including process metrics, in the Prometheus text format.
    #[must_use]
    pub fn render(&self) -> String {
        self.lines_lost.absolute(log_writer::lost());
        self.handle.render() + &process::render()
    }
}

/// Installs the exporter for the whole process; further calls return the same one.
///
/// Must come first: metrics created before this call record nothing. An application that embeds kladder and has its own `metrics`
/// recorder does not call it: then the events go to that recorder.
pub fn install() -> Exporter {
    static INSTALLED: OnceLock<Exporter> = OnceLock::new();
    INSTALLED
        .get_or_init(|| {
            let recorder = recorder();
            let handle = recorder.handle();
            if metrics::set_global_recorder(recorder).is_err() {
                tracing::error!("another metrics recorder is installed in this process: /metrics stays empty");
            }
            let lines_lost = describe();
            let upkeep = handle.clone();
            let thread = std::thread::Builder::new().name("kladder-metrics".to_owned());
            let spawned = thread.spawn(move || {
                loop {
                    std::thread::sleep(UPKEEP_EVERY);
                    upkeep.run_upkeep();
                }
            });
            if let Err(error) = spawned {
                tracing::error!(%error, "cannot start the upkeep thread of metrics: memory grows unless /metrics is scraped");
            }
            Exporter { handle, lines_lost }
        })
        .clone()
}

fn recorder() -> PrometheusRecorder {
    let mut builder = PrometheusBuilder::new();
    for metric in names::ALL {
        if let MetricKind::Histogram(buckets) = metric.kind {
            builder = builder
                .set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)
                .expect("the table has no histogram without buckets");
        }
    }
    builder.build_recorder()
}

/// Registers the help texts and the constant metric; returns the counter that is read on each render.
fn describe() -> Counter {
    for metric in names::ALL {
        match metric.kind {
            MetricKind::Counter => describe_counter!(metric.name, metric.help),
            MetricKind::Gauge => describe_gauge!(metric.name, metric.help),
            MetricKind::Histogram(_) => describe_histogram!(metric.name, metric.help),
        }
    }
    gauge!(names::BUILD_INFO.name, names::VERSION => env!("CARGO_PKG_VERSION")).set(1.0);
    counter!(names::LOG_LINES_LOST.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::envelope::Reason;
    use crate::core::failure::VerdictKind;
    use crate::core::ladder::Ladder;
    use crate::core::role::Role;
    use crate::core::rules::{Rule, Then, When};
    use crate::telemetry::events::{
        DelivererMetrics, HandlerHealthMetrics, HoldMetrics, HttpMetrics, MoverMetrics, RouterMetrics,
    };
    use crate::telemetry::standing::{ClientMetrics, ClusterMetrics, DlqMetrics, IndexMetrics, LagMetrics, RedriveMetrics};

    fn rendered(touch: impl FnOnce(&Ladder)) -> String {
        let recorder = recorder();
        let handle = recorder.handle();
        let lines_lost = metrics::with_local_recorder(&recorder, || {
            let lines_lost = describe();
            let when = When { status: vec!["404".parse().unwrap()], ..When::default() };
            let rule = Rule { name: None, when, then: Then::Done };
            let ladder = Ladder::builder("billing", "g").source("orders").tiers(["5s", "90s"]).rule(rule).build().unwrap();
            touch(&ladder);
            lines_lost
        });
        Exporter { handle, lines_lost }.render()
    }

    #[test]
    fn every_name_of_the_table_is_rendered_as_what_it_is() {
        let text = rendered(|ladder| {
            let _ =
                (MoverMetrics::new(ladder), DelivererMetrics::new(ladder), HttpMetrics::new(ladder), HoldMetrics::new(ladder));
            let _ = (RouterMetrics::new(ladder), HandlerHealthMetrics::new(ladder, 1), DlqMetrics::new(ladder.name()));
            let _ = (ClientMetrics::new(ladder, Role::Mover), LagMetrics::new(ladder), ClusterMetrics::new(ladder));
            let _ = RedriveMetrics::new(ladder.name());
        });
        for metric in names::ALL {
            let name = metric.name;
            assert!(text.contains(&format!("# HELP {name} {}\n", metric.help)), "{name}\n{text}");
            let kind = match metric.kind {
                MetricKind::Counter => "counter",
                MetricKind::Gauge => "gauge",
                MetricKind::Histogram(_) => "histogram",
            };
            assert!(text.contains(&format!("# TYPE {name} {kind}\n")), "{name}\n{text}");
            let suffix = if metric.labels.is_empty() { " " } else { "{" };
            let series = if kind == "histogram" { format!("{name}_bucket{suffix}") } else { format!("{name}{suffix}") };
            let line = text.lines().find(|l| l.starts_with(&series)).unwrap_or_else(|| panic!("no {series} in\n{text}"));
            for label in metric.labels {
                assert!(line.contains(&format!("{label}=\"")), "{line} lacks {label}");
            }
        }
        assert!(text.contains(r#"kladder_lateness_seconds_bucket{ladder="billing",tier="1m30s",le="3600"}"#), "{text}");
        assert!(text.contains(r#"kladder_handler_seconds_bucket{ladder="billing",le="60"}"#), "{text}");
    }

    #[test]
    fn events_arrive_in_their_series() {
        let text = rendered(|ladder| {
            let deliverer = DelivererMetrics::new(ladder);
            deliverer.delivered(VerdictKind::Retry, Duration::from_millis(3));
            deliverer.delivered(VerdictKind::Unsent, Duration::from_millis(3));
            deliverer.redelivered(9, Duration::ZERO);
            deliverer.hops.to_tier(2, 3);
            deliverer.hops.to_tier(0, 1);
            deliverer.hops.dead_lettered(Reason::Rejected);
            deliverer.hops.classified(0);
            let mover = MoverMetrics::new(ladder);
            mover.tier("5s".parse().unwrap()).redelivered(Duration::from_millis(20));
            mover.tier("7s".parse().unwrap()).standing(5, 2, Duration::from_secs(1));
            mover.clock_offset(-1_500_000);
            mover.worker.partitions_stopped(2);
            HoldMetrics::new(ladder).held(true);
        });
        for line in [
            r#"kladder_deliveries_total{ladder="billing",verdict="retry"} 1"#,
            r#"kladder_deliveries_total{ladder="billing",verdict="unsent"} 1"#,
            r#"kladder_deliveries_total{ladder="billing",verdict="done"} 0"#,
            r#"kladder_handler_seconds_count{ladder="billing"} 1"#,
            r#"kladder_redelivery_delay_seconds_count{ladder="billing",tier="other"} 1"#,
            r#"kladder_hops_total{ladder="billing",tier="1m30s"} 3"#,
            r#"kladder_hops_total{ladder="billing",tier="dlq"} 1"#,
            r#"kladder_dead_letters_total{ladder="billing",reason="rejected"} 1"#,
            r#"kladder_classified_total{ladder="billing",rule="1",then="done"} 1"#,
            r#"kladder_lateness_seconds_bucket{ladder="billing",tier="5s",le="0.01"} 0"#,
            r#"kladder_lateness_seconds_bucket{ladder="billing",tier="5s",le="0.025"} 1"#,
            r#"kladder_tier_waiting_records{ladder="billing",tier="7s"} 5"#,
            r#"kladder_tier_oldest_overdue_seconds{ladder="billing",tier="7s"} 1"#,
            r#"kladder_clock_offset_seconds{ladder="billing"} -1.5"#,
            r#"kladder_partitions_stopped{ladder="billing",role="mover"} 2"#,
            r#"kladder_held{ladder="billing"} 1"#,
        ] {
            assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
        }
    }

    /// The number of series follows from the configuration. Each rule of a ladder adds one series, each further tier or source as many as
    /// have it as a label.
    /// carries it as a label.
    #[test]
    fn twenty_ladders_of_three_tiers_are_so_many_series() {
        let recorder = recorder();
        let handle = recorder.handle();
        let lines_lost = metrics::with_local_recorder(&recorder, || {
            let lines_lost = describe();
            for number in 0..20 {
                let name = format!("ladder-{number}");
                let ladder = Ladder::builder(&name, "g").source("orders").tiers(["5s", "1m", "10m"]).build().unwrap();
                let _ = (MoverMetrics::new(&ladder), ClientMetrics::new(&ladder, Role::Mover), HoldMetrics::new(&ladder));
                let _ = (DelivererMetrics::new(&ladder), ClientMetrics::new(&ladder, Role::Deliverer), LagMetrics::new(&ladder));
                let _ = (HttpMetrics::new(&ladder), HandlerHealthMetrics::new(&ladder, 1), ClusterMetrics::new(&ladder));
                let _ = (DlqMetrics::new(&name), RedriveMetrics::new(&name), IndexMetrics::new(&name));
            }
            lines_lost
        });
        let text = Exporter { handle, lines_lost }.render();
        let own = text.lines().filter(|line| line.starts_with("kladder_")).count();
        assert_eq!(own, 20 * 295 + 2, "kladder_build_info and kladder_log_lines_lost_total belong to no ladder");
        let all = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count();
        assert!(all < 6_000, "{all} series");
    }

    #[test]
    fn installing_twice_gives_the_same_exporter() {
        install();
        assert!(install().render().contains("kladder_build_info"));
    }
}

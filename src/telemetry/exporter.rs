//! The Prometheus exporter, without a listener of its own: [`crate::admin::health`] serves what [`Exporter::render`] gives.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use crate::telemetry::names::{self, Kind};
use crate::telemetry::process;

/// Histograms keep every sample until it is put into its bucket: this bounds what a process holds that nobody scrapes.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Renders all metrics of the process.
#[derive(Clone)]
pub struct Exporter {
    handle: PrometheusHandle,
}

impl Exporter {
    /// The metrics in the text format of Prometheus, those of the process among them.
    #[must_use]
    pub fn render(&self) -> String {
        self.handle.render() + &process::render()
    }
}

/// Installs the exporter for the whole process; further calls return the same one.
///
/// Metrics that were made before this call feed nothing, so it comes first. An application that embeds kladder and has a `metrics`
/// recorder of its own does not call it: the events go to that recorder then.
pub fn install() -> Exporter {
    static INSTALLED: OnceLock<Exporter> = OnceLock::new();
    INSTALLED
        .get_or_init(|| {
            let recorder = recorder();
            let handle = recorder.handle();
            if metrics::set_global_recorder(recorder).is_err() {
                tracing::error!("another metrics recorder is installed in this process: /metrics stays empty");
            }
            describe();
            let upkeep = handle.clone();
            let thread = std::thread::Builder::new().name("kladder-metrics".to_owned());
            let spawned = thread.spawn(move || {
                loop {
                    std::thread::sleep(UPKEEP_EVERY);
                    upkeep.run_upkeep();
                }
            });
            if let Err(error) = spawned {
                tracing::error!(%error, "cannot start the thread that tidies metrics: memory grows unless /metrics is scraped");
            }
            Exporter { handle }
        })
        .clone()
}

fn recorder() -> PrometheusRecorder {
    let mut builder = PrometheusBuilder::new();
    for metric in names::ALL {
        if let Kind::Histogram(buckets) = metric.kind {
            builder = builder
                .set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)
                .expect("the table has no histogram without buckets");
        }
    }
    builder.build_recorder()
}

/// Gives the recorder the help texts and the one metric that never changes.
fn describe() {
    for metric in names::ALL {
        match metric.kind {
            Kind::Counter => describe_counter!(metric.name, metric.help),
            Kind::Gauge => describe_gauge!(metric.name, metric.help),
            Kind::Histogram(_) => describe_histogram!(metric.name, metric.help),
        }
    }
    gauge!(names::BUILD_INFO.name, names::VERSION => env!("CARGO_PKG_VERSION")).set(1.0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::types::Role;
    use crate::core::envelope::Reason;
    use crate::core::failure::VerdictKind;
    use crate::core::ladder::Ladder;
    use crate::core::rules::{Rule, Then, When};
    use crate::telemetry::events::{
        DelivererMetrics, HandlerHealthMetrics, HoldMetrics, HttpMetrics, MoverMetrics, RouterMetrics,
    };
    use crate::telemetry::standing::{ClientMetrics, ClusterMetrics, DlqMetrics, IndexMetrics, LagMetrics, RedriveMetrics};

    fn rendered(touch: impl FnOnce(&Ladder)) -> String {
        let recorder = recorder();
        let exporter = Exporter { handle: recorder.handle() };
        metrics::with_local_recorder(&recorder, || {
            describe();
            let when = When { status: vec!["404".parse().unwrap()], ..When::default() };
            let rule = Rule { name: None, when, then: Then::Done };
            let ladder = Ladder::builder("billing", "g").source("orders").tiers(["5s", "90s"]).rule(rule).build().unwrap();
            touch(&ladder);
        });
        exporter.render()
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
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram(_) => "histogram",
            };
            assert!(text.contains(&format!("# TYPE {name} {kind}\n")), "{name}\n{text}");
            let series = if kind == "histogram" { format!("{name}_bucket{{") } else { format!("{name}{{") };
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

    /// What Prometheus has to keep is known from the configuration. Each rule of a ladder adds one series, each further tier or source what
    /// carries it as a label.
    #[test]
    fn twenty_ladders_of_three_tiers_are_so_many_series() {
        let recorder = recorder();
        let exporter = Exporter { handle: recorder.handle() };
        metrics::with_local_recorder(&recorder, || {
            describe();
            for number in 0..20 {
                let name = format!("ladder-{number}");
                let ladder = Ladder::builder(&name, "g").source("orders").tiers(["5s", "1m", "10m"]).build().unwrap();
                let _ = (MoverMetrics::new(&ladder), ClientMetrics::new(&ladder, Role::Mover), HoldMetrics::new(&ladder));
                let _ = (DelivererMetrics::new(&ladder), ClientMetrics::new(&ladder, Role::Deliverer), LagMetrics::new(&ladder));
                let _ = (HttpMetrics::new(&ladder), HandlerHealthMetrics::new(&ladder, 1), ClusterMetrics::new(&ladder));
                let _ = (DlqMetrics::new(&name), RedriveMetrics::new(&name), IndexMetrics::new(&name));
            }
        });
        let text = exporter.render();
        let own = text.lines().filter(|line| line.starts_with("kladder_")).count();
        assert_eq!(own, 20 * 292 + 1, "kladder_build_info is the one of no ladder");
        let all = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count();
        assert!(all < 6_000, "{all} series");
    }

    #[test]
    fn installing_twice_gives_the_same_exporter() {
        install();
        assert!(install().render().contains("kladder_build_info"));
    }
}

//! Dashboards and alerts in practice: a Prometheus that scrapes a ladder has data for every panel, with the right numbers; an alert
//! arrives at the Alertmanager's webhook.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use crate::support::broker;
use crate::support::clock::{self, PATIENCE};
use crate::support::handler::{Answer, Call, ClosedPort, Handler};
use crate::support::process::{self, Kladder};
use crate::support::prometheus::{Alertmanager, Prometheus};
use crate::support::raw::RawProducer;
use crate::support::records;
use crate::support::scene::{Scene, path};

const PARTITIONS: i32 = 3;
/// This many records always fail, each with a hop into both tiers, two back, and one to the DLQ: 5
/// hops.
const DEAD: usize = 40;
/// This many fail once, each with a hop into the first tier and one back.
const ONCE: usize = 50;
/// This many are done at once, after the one that finds the handler down.
const DONE: usize = 20;
const HOPS: usize = DEAD * 5 + ONCE * 2;

/// By the record number: 404 is retried, and not a failure for the breaker.
fn by_plan(call: &Call) -> Answer {
    let order: Value = serde_json::from_slice(&call.body).expect("an order");
    let number = usize::try_from(order["order"].as_u64().expect("a number")).expect("a small number");
    match number {
        n if (1..=DEAD).contains(&n) => Answer::fail(404, "never"),
        n if (DEAD + 1..=DEAD + ONCE).contains(&n) && call.attempt < 2 => Answer::fail(404, "not yet"),
        _ => Answer::ok(),
    }
}

/// Title, query and kind of each panel of a dashboard.
struct Query {
    panel: String,
    text: String,
    /// It shows the current value, not its history.
    is_instant: bool,
}

fn dashboard(name: &str) -> Value {
    let printed = process::kladder(&["generate", "grafana", "--dashboard", name]).succeeds();
    serde_json::from_str(&printed.stdout).expect("JSON")
}

/// Every query with its variables replaced, as Grafana does.
fn queries(dashboard: &Value, ladder: &str, tiers: &[&str]) -> Vec<Query> {
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        let title = panel["title"].as_str().expect("a title");
        for target in panel["targets"].as_array().into_iter().flatten() {
            let text = target["expr"].as_str().expect("a query").replace("$ladder", ladder).replace("$__rate_interval", "5m");
            let filled = if text.contains("$tier") { tiers } else { &[""] };
            found.extend(filled.iter().map(|tier| Query {
                panel: format!("{}: {title} {tier}", dashboard["title"]),
                text: text.replace("$tier", tier),
                is_instant: target["instant"] == true,
            }));
        }
    }
    found
}

/// The only query of a panel.
fn query_of(queries: &[Query], title: &str) -> String {
    let mut found = queries.iter().filter(|query| query.panel.trim_end().ends_with(title));
    let query = found.next().unwrap_or_else(|| panic!("no panel {title}"));
    assert!(found.next().is_none(), "several queries of {title}");
    query.text.clone()
}

fn numbers(expected: &[(&str, usize)]) -> BTreeMap<String, f64> {
    let number = |n: usize| f64::from(u32::try_from(n).expect("a small number"));
    expected.iter().map(|(label, n)| ((*label).to_owned(), number(*n))).collect()
}

#[test]
fn every_panel_has_data_and_prometheus_gives_the_numbers_that_the_ladder_made() {
    let port = ClosedPort::reserve();
    let mut scene = Scene::with_source("panels", &["1s", "2s"], PARTITIONS);
    scene.handler = port.url();
    scene.breaker = "consecutive = 3\nopen_for = \"15s\"";
    scene.settings.push_str("\nimmediate = { attempts = 2, backoff = \"10ms\" }");
    let config = scene.set_up();
    let ladder = scene.ladder.clone();
    let prometheus = Prometheus::start(scene.health_port());
    let mut kladder = Kladder::run(&config);
    let hops = format!("sum(kladder_hops_total{{ladder=\"{ladder}\"}})");
    let state = format!("kladder_breaker_state{{ladder=\"{ladder}\"}}");
    clock::eventually("nothing is what is told at first", PATIENCE, || prometheus.value(&hops) == Some(0.0));

    let producer = RawProducer::new(&scene.brokers);
    let write = |orders: &[std::ops::RangeInclusive<usize>]| {
        let written: Vec<_> = orders.iter().cloned().flatten().map(|n| records::plain(n, PARTITIONS)).collect();
        producer.write(&scene.source, &written);
    };
    write(&[0..=0]);
    clock::eventually("the breaker opens", PATIENCE, || prometheus.value(&state) == Some(2.0));
    let handler: Handler = port.open(by_plan);
    clock::eventually("the breaker closes", PATIENCE, || prometheus.value(&state) == Some(0.0));

    // In two waves: for the first scraped values of a histogram, no rate is defined.
    let half = |n: usize| f64::from(u32::try_from(n).expect("a small number")) / 2.0;
    let done = DEAD + ONCE + 1;
    // Each with some that are done: if all failed, the handler would be down.
    write(&[1..=DEAD / 2, done..=done + DONE / 2, DEAD + 1..=DEAD + ONCE / 2]);
    clock::eventually("the first half has climbed", PATIENCE * 2, || prometheus.value(&hops) == Some(half(HOPS)));
    write(&[DEAD / 2 + 1..=DEAD, DEAD + ONCE / 2 + 1..=DEAD + ONCE, done + DONE / 2 + 1..=DEAD + ONCE + DONE]);
    clock::eventually("all has climbed", PATIENCE * 2, || {
        kladder.assert_running();
        prometheus.value(&hops) == Some(half(HOPS * 2))
            && handler.calls().iter().filter(|c| by_plan(c).status == 200).count() == ONCE + DONE + 1
    });
    assert_eq!(broker::read(&scene.dlq_topic()).len(), DEAD);
    clock::eventually("the dead letters are counted", PATIENCE, || {
        prometheus.value(&format!("max(kladder_dlq_open_records{{ladder=\"{ladder}\"}})")) == Some(half(DEAD * 2))
    });

    let of_ladder = queries(&dashboard("ladder"), &ladder, &scene.tiers);
    let of_letters = queries(&dashboard("dlq"), &ladder, &scene.tiers);
    let of_fleet = queries(&dashboard("fleet"), &ladder, &scene.tiers);

    // Exactly the planned numbers, per tier.
    let into = prometheus.by("tier", &query_of(&of_ladder, "Hops since the workers started"));
    let mut expected = numbers(&[("1s", DEAD + ONCE), ("2s", DEAD), ("redeliver", DEAD * 2 + ONCE), ("dlq", DEAD)]);
    assert_eq!(Some(into.values().sum::<f64>()), Some(half(HOPS * 2)), "{into:?}");
    expected.extend(into.iter().filter(|(_, n)| **n == 0.0).map(|(tier, n)| (tier.clone(), *n)));
    assert_eq!(into, expected);
    let left = prometheus.by("tier", &query_of(&of_ladder, "Records that left a tier, since the workers started"));
    assert_eq!((left["1s"], left["2s"]), (half((DEAD + ONCE) * 2), half(DEAD * 2)));
    for all in [&of_ladder, &of_letters] {
        let dead = prometheus.by("reason", &query_of(all, "Dead letters since the workers started"));
        assert_eq!((dead["exhausted"], dead.values().sum::<f64>()), (half(DEAD * 2), half(DEAD * 2)), "{dead:?}");
    }
    let opened = format!("sum by (state) (kladder_breaker_changes_total{{ladder=\"{ladder}\"}})");
    let changes = prometheus.by("state", &opened);
    // One outage. The number of probes before the handler was up depends on the machine; one more is possible while its state was
    // uncertain.
    assert!((changes["closed"] - 1.0).abs() < f64::EPSILON, "{changes:?}");
    assert!(changes["open"] >= 1.0, "{changes:?}");
    assert!((changes["open"]..=changes["open"] + 1.0).contains(&changes["half-open"]), "{changes:?}");
    let in_an_hour = prometheus.by("state", &query_of(&of_ladder, "Changes of the breaker, in an hour"));
    assert!((in_an_hour["open"].round() - changes["open"]).abs() < f64::EPSILON, "{in_an_hour:?} {changes:?}");

    // The variables have the existing values.
    let tiers = prometheus.by("tier", &format!("count by (tier) (kladder_tier_left_total{{ladder=\"{ladder}\"}})"));
    assert!(scene.tiers.iter().all(|tier| tiers.contains_key(*tier)), "{tiers:?}");

    // Some are reported after a while only.
    for Query { panel, text, is_instant } in of_ladder.iter().chain(&of_letters).chain(&of_fleet) {
        clock::eventually(&format!("{panel} has data: {text}"), PATIENCE, || {
            let numbers = if *is_instant { prometheus.numbers_now(text) } else { prometheus.numbers(text) };
            !numbers.is_empty()
        });
    }
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
}

#[test]
fn an_alert_arrives_at_the_webhook_of_the_alertmanager_and_says_what_to_do() {
    let handler = Handler::start(|_| Answer::fail(503, "down"));
    let hook = Handler::start(|_| Answer::ok());
    let mut scene = Scene::with_source("alert", &["1s"], 1);
    scene.handler = handler.url().to_owned();
    scene.breaker = "consecutive = 3\nopen_for = \"1m\"";
    scene.kafka = "[alerts]\nfor = \"0s\"\nrunbook = \"https://wiki.example/kladder\"".to_owned();
    let config = scene.set_up();
    let printed = process::kladder(&["generate", "alerts", "-c", path(&config)]).succeeds();
    let rules = config.with_extension("rules.yml");
    fs::write(&rules, printed.stdout).expect("a file");
    let alertmanager = Alertmanager::start(hook.url());
    let _prometheus = Prometheus::alerting(scene.health_port(), &rules, &alertmanager);
    let mut kladder = Kladder::run(&config);
    RawProducer::new(&scene.brokers).write(&scene.source, &(0..10).map(|n| records::plain(n, 1)).collect::<Vec<_>>());

    let arrived = clock::poll(PATIENCE * 2, || {
        let calls = hook.calls();
        let alerts = calls.iter().flat_map(|call| {
            let message: Value = serde_json::from_slice(&call.body).expect("JSON");
            message["alerts"].as_array().cloned().unwrap_or_default()
        });
        alerts.into_iter().find(|alert| alert["labels"]["alertname"] == "KladderBreakerOpen" && alert["status"] == "firing")
    });
    let alert = arrived.expect("the alert arrives");
    assert_eq!(alert["labels"]["ladder"].as_str(), Some(scene.ladder.as_str()), "{alert}");
    assert_eq!(alert["labels"]["severity"], "critical");
    assert_eq!(alert["annotations"]["summary"].as_str(), Some(format!("{}: the handler is down", scene.ladder).as_str()));
    assert_eq!(alert["annotations"]["runbook_url"], "https://wiki.example/kladder#kladderbreakeropen");
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
}

//! The rules use existing metrics and follow the configuration.

use std::collections::BTreeSet;

use super::*;
use crate::config::types::{AlertsConfig, HandlerConfig, LadderConfig, RedriveConfig, TopicsConfig};
use crate::core::dispatch::BreakerSettings;
use crate::core::dlq_breaker::DlqBreakerSettings;
use crate::core::ladder::Ladder;
use crate::core::role::Role;
use crate::telemetry::promql::testing::metrics_of;

const ALL: &[Role] = &[Role::Mover, Role::Deliverer, Role::Router, Role::Index];

fn ladder() -> LadderConfig {
    let url = "http://127.0.0.1:1/".to_owned();
    LadderConfig {
        ladder: Ladder::builder("orders", "billing").source("orders-in").tiers(["10s", "20m", "1d"]).build().unwrap(),
        start: None,
        handler: Some(HandlerConfig {
            url,
            timeout: Duration::from_secs(10),
            max_in_flight: 1,
            batch: None,
            max_unsettled: 500,
            redeliver_share: 0.5,
        }),
        breaker: Some(BreakerSettings::default()),
        dlq_breaker: Some(DlqBreakerSettings::default()),
        redrive: RedriveConfig::default(),
        topics: TopicsConfig::default(),
    }
}

fn expressions(alerts: &[Alert], name: &str) -> Vec<String> {
    alerts.iter().filter(|alert| alert.name == name).map(|alert| alert.expr.clone()).collect()
}

#[test]
fn every_expression_asks_for_metrics_and_labels_that_there_are() {
    for alert in rules::of(&ladder(), &AlertsConfig::default(), ALL) {
        metrics_of(&alert.expr);
    }
}

#[test]
fn each_tier_is_held_to_a_tenth_of_its_delay_within_bounds_or_to_what_is_configured() {
    let limits = |settings: &AlertsConfig| -> Vec<String> {
        let all = expressions(&rules::of(&ladder(), settings, ALL), "KladderLateness");
        all.iter().map(|expr| expr.rsplit_once(" > ").unwrap().1.to_owned()).collect()
    };
    assert_eq!(limits(&AlertsConfig::default()), ["10", "120", "600"]);
    let settings = AlertsConfig { lateness: Some(Duration::from_millis(1500)), ..AlertsConfig::default() };
    assert_eq!(limits(&settings), ["1.5", "1.5", "1.5"]);
}

#[test]
fn what_is_switched_off_has_no_rule() {
    let mut quiet = ladder();
    (quiet.breaker, quiet.dlq_breaker) = (None, None);
    let names = |ladder: &LadderConfig| -> BTreeSet<&'static str> {
        rules::of(ladder, &AlertsConfig::default(), ALL).iter().map(|alert| alert.name).collect()
    };
    let gone: Vec<&str> = names(&ladder()).difference(&names(&quiet)).copied().collect();
    assert_eq!(gone, ["KladderBreakerOpen", "KladderDeadLettersHeld", "KladderHandlerDegraded", "KladderWorkerAside"]);
}

#[test]
fn shares_and_ages_follow_the_ladder_s_own_settings() {
    let mut own = ladder();
    let hour = Duration::from_secs(3_600);
    own.dlq_breaker = Some(DlqBreakerSettings { window: hour, minimum: 7, share: 0.2, ..DlqBreakerSettings::default() });
    own.topics.dlq_retention = hour * 100;
    let alerts = rules::of(&own, &AlertsConfig::default(), ALL);
    let share = expressions(&alerts, "KladderDeadLetterShare").remove(0);
    assert!(share.contains("[1h]") && share.contains("> 0.1 and") && share.ends_with(">= 4"), "{share}");
    assert!(expressions(&alerts, "KladderDeadLettersAgeing")[0].ends_with("> 270000"), "{alerts:?}");
}

#[test]
fn short_windows_and_retentions_are_told_in_time() {
    let mut own = ladder();
    own.dlq_breaker = Some(DlqBreakerSettings { window: Duration::from_secs(10), ..DlqBreakerSettings::default() });
    own.topics.dlq_retention = Duration::from_secs(86_400);
    let alerts = rules::of(&own, &AlertsConfig::default(), ALL);
    let share = expressions(&alerts, "KladderDeadLetterShare").remove(0);
    assert!(share.contains("[5m]"), "{share}");
    let [ageing, at_risk] =
        ["KladderDeadLettersAgeing", "KladderDeadLettersAtRisk"].map(|name| expressions(&alerts, name).remove(0));
    assert!(ageing.ends_with("> 64800") && at_risk.ends_with("> 77760"), "{ageing}; {at_risk}");
}

#[test]
fn nobody_misses_an_index_that_is_not_kept() {
    let absent = |roles: &[Role]| expressions(&rules::of(&ladder(), &AlertsConfig::default(), roles), "KladderWorkerAbsent");
    assert_eq!(absent(ALL).len(), 3);
    assert!(absent(ALL)[2].contains("kladder_dlq_open_records"));
    assert_eq!(absent(&[Role::Mover, Role::Deliverer]).len(), 2);
}

#[test]
fn the_runbook_tells_for_each_alert_what_to_do() {
    let runbook = include_str!("../../../docs/runbook.md");
    let told: BTreeSet<&str> = runbook.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let names: BTreeSet<&str> = rules::of(&ladder(), &AlertsConfig::default(), ALL).iter().map(|alert| alert.name).collect();
    assert_eq!(told, names);
}

//! Findings for a ladder in order, and for one with everything wrong.

use std::time::Duration;

use crate::config::LadderConfig;
use crate::core::state::{DlqBreakerRecord, HoldRecord, LadderState, OwnerRecord, StateError, StateValue};
use crate::core::time::Timestamp;
use crate::topology::doctor::{Check, Diagnosis, Finding, LadderObservation, Severity, examine, render};
use crate::topology::fixtures::{applied, limits, push, relay, source, with_sources};
use crate::topology::{GroupMember, Observed, Watermarks, desired, plan};

const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

/// What is seen of a ladder that is set up and running.
fn in_order(config: &LadderConfig) -> LadderObservation {
    let empty = with_sources(&[("orders", source(3, 3, 2))]);
    let observed = applied(&plan(&[desired(config, &empty.topics)], &empty, &limits()), &empty);
    let group = config.ladder.group();
    let owner = StateValue::Read(OwnerRecord { group: group.to_owned(), at: NOW });
    let worker = || vec![member("kladder", &["billing-orders.redeliver"])];
    LadderObservation {
        standing: observed.clone(),
        observed,
        settings: true,
        state: Some(LadderState { owner, ..LadderState::default() }),
        members: [group, "billing-orders.mover", "billing-orders.router"].map(|g| (g.to_owned(), worker())).into(),
        ..LadderObservation::default()
    }
}

fn member(client_id: &str, topics: &[&str]) -> GroupMember {
    GroupMember {
        id: "x".to_owned(),
        instance: None,
        client_id: client_id.to_owned(),
        host: "/10.0.0.7".to_owned(),
        topics: topics.iter().map(|t| ((*t).to_owned(), [0].into())).collect(),
    }
}

fn examined(config: &LadderConfig, seen: &LadderObservation) -> Diagnosis {
    examine(config, seen, "kladder", "kafka:9092", NOW)
}

fn set(observed: &mut Observed, topic: &str, setting: &str, value: &str) {
    observed.topics.get_mut(topic).unwrap().settings.insert(setting.to_owned(), value.to_owned());
}

fn commit(observed: &mut Observed, group: &str, topic: &str, offset: i64) {
    observed.groups.entry(group.to_owned()).or_default().offsets.entry(topic.to_owned()).or_default().insert(0, offset);
}

/// The checks with findings, and their severity.
fn found(diagnosis: &Diagnosis) -> Vec<(Severity, Check)> {
    diagnosis.findings.iter().map(|f| (f.severity, f.check)).collect()
}

#[test]
fn of_a_ladder_in_order_nothing_is_told() {
    for config in [push(), relay()] {
        let diagnosis = examined(&config, &in_order(&config));
        assert_eq!(diagnosis.findings, [], "{}", render(std::slice::from_ref(&diagnosis)));
    }
}

#[test]
fn a_ladder_with_everything_wrong() {
    let config = push();
    let mut seen = in_order(&config);
    set(&mut seen.observed, "billing-orders.retry-5s", "message.timestamp.type", "CreateTime");
    set(&mut seen.observed, "billing-orders.retry-1m", "retention.ms", "3600000");
    set(&mut seen.observed, "billing-orders.redeliver", "message.timestamp.type", "CreateTime");
    set(&mut seen.observed, "billing-orders.redeliver", "cleanup.policy", "compact");
    set(&mut seen.observed, "billing-orders.redeliver", "max.message.bytes", "1000000");
    set(&mut seen.observed, "billing-orders.dlq", "min.insync.replicas", "1");
    set(&mut seen.observed, "billing-orders.dlq", "retention.ms", "86400000");
    set(&mut seen.observed, "billing-orders.state", "cleanup.policy", "delete");
    seen.observed.topics.get_mut("billing-orders.state").unwrap().replication_factor = 1;
    seen.observed.groups.get_mut("billing").unwrap().offsets.remove("billing-orders.redeliver");
    let strays = ["retry-2m", "retry-5s", "retry-1m"].map(|t| format!("billing-orders.{t}"));
    let stray = seen.observed.topics["billing-orders.retry-1m"].clone();
    seen.observed.topics.insert(strays[0].clone(), stray);
    seen.observed.topics.get_mut(&strays[0]).unwrap().partitions[0].high = 7;
    seen.standing = seen.observed.clone();
    commit(&mut seen.standing, "billing-orders.mover", "billing-orders.retry-5s", 40);
    commit(&mut seen.standing, "billing", "orders", 4);
    let hold = HoldRecord { held: true, by: "anna@ops-1".to_owned(), at: NOW - Duration::from_secs(300), why: None };
    seen.state.as_mut().unwrap().hold = StateValue::Read(hold);
    let strangers = vec![member("old-app", &["orders"]), member("kladder", &["shipping.redeliver"])];
    seen.members.insert("billing".to_owned(), strangers);
    seen.members.insert("billing-orders.mover".to_owned(), Vec::new());
    seen.oldest = strays.map(|topic| (topic, NOW - Duration::from_secs(190))).into();
    seen.unchecked = vec![Finding::unchecked(Check::Members, "x", "the group's members could not be read", "not authorised")];
    insta::assert_snapshot!("everything_wrong", render(&[examined(&config, &seen)]));
}

#[test]
fn an_application_that_drops_the_headers_is_known_by_the_hold_of_its_router_and_by_the_metric() {
    let config = relay();
    let mut seen = in_order(&config);
    seen.headers_missing = Some(3.0);
    let hold = HoldRecord::of_router("billing-orders", "pod-0", NOW - Duration::from_secs(60));
    seen.state.as_mut().unwrap().hold = StateValue::Read(hold);
    insta::assert_snapshot!("headers_dropped", render(&[examined(&config, &seen)]));

    // A router of another ladder does not count, nor a released hold.
    for (ladder, held) in [("shipping-orders", true), ("billing-orders", false)] {
        seen.headers_missing = Some(0.0);
        let hold = HoldRecord { held, ..HoldRecord::of_router(ladder, "pod-0", NOW) };
        seen.state.as_mut().unwrap().hold = StateValue::Read(hold);
        let expected: &[_] = if held { &[(Severity::Hazard, Check::Held)] } else { &[] };
        assert_eq!(found(&examined(&config, &seen)), expected);
    }
}

#[test]
fn dead_letters_that_are_held_are_a_hazard_until_the_time_is_over() {
    let config = push();
    let mut seen = in_order(&config);
    for (until, expected) in [
        (Some(NOW + Duration::from_secs(60)), &[(Severity::Hazard, Check::DlqBreaker)][..]),
        (Some(NOW - Duration::from_secs(1)), &[]),
        (None, &[]),
    ] {
        let record = DlqBreakerRecord { until, by: "worker a of billing-orders".to_owned(), at: NOW, why: None };
        seen.state.as_mut().unwrap().dlq_breaker = StateValue::Read(record);
        assert_eq!(found(&examined(&config, &seen)), expected);
    }
}

#[test]
fn whose_the_ladder_is_has_to_be_on_record() {
    let config = push();
    let another = OwnerRecord { group: "shipping".to_owned(), at: NOW };
    for owner in [StateValue::Absent, StateValue::Read(another), StateValue::Unreadable(StateError::Version(9))] {
        let mut seen = in_order(&config);
        seen.observed.owners.insert("billing-orders".to_owned(), owner.clone());
        assert_eq!(found(&examined(&config, &seen)), [(Severity::Hazard, Check::Owner)], "{owner:?}");
    }
    let mut seen = in_order(&config);
    seen.state.as_mut().unwrap().hold = StateValue::Unreadable(StateError::Version(9));
    assert_eq!(found(&examined(&config, &seen)), [(Severity::Hazard, Check::Held)]);
}

#[test]
fn a_ladder_that_is_not_set_up_has_one_finding() {
    let observed = with_sources(&[("orders", source(3, 3, 2))]);
    let seen = LadderObservation { standing: observed.clone(), observed, settings: true, ..LadderObservation::default() };
    let diagnosis = examined(&push(), &seen);
    assert_eq!(found(&diagnosis), [(Severity::Hazard, Check::Setup)], "{diagnosis:?}");
    assert_eq!(diagnosis.findings[0].problem, "the ladder is not set up");
}

#[test]
fn a_marker_that_retention_has_taken_is_no_lost_record() {
    let config = relay();
    let gap = |topic: &str, offset, low| {
        let mut seen = in_order(&config);
        seen.standing.topics.get_mut(topic).unwrap().partitions[0] = Watermarks { low, high: low };
        let group = if topic.ends_with("redeliver") { "billing" } else { "billing-orders.router" };
        commit(&mut seen.standing, group, topic, offset);
        found(&examined(&config, &seen))
    };
    assert_eq!(gap("billing-orders.redeliver", 8, 9), []);
    assert_eq!(gap("billing-orders.redeliver", 8, 10), [(Severity::Hazard, Check::Offsets)]);
    // Applications write the inbox, where each offset is a record.
    assert_eq!(gap("billing-orders.inbox", 8, 9), [(Severity::Hazard, Check::Offsets)]);
}

#[test]
fn weak_sources_and_late_movers_are_notes() {
    let config = push();
    let empty = with_sources(&[("orders", source(3, 1, 1))]);
    let mut seen = in_order(&config);
    seen.observed = applied(&plan(&[desired(&config, &empty.topics)], &empty, &limits()), &empty);
    seen.oldest.insert("billing-orders.retry-5s".to_owned(), NOW - Duration::from_secs(66));
    let diagnosis = examined(&config, &seen);
    assert_eq!(found(&diagnosis), [(Severity::Note, Check::Setup), (Severity::Note, Check::Overdue)]);
    assert!(diagnosis.findings[0].problem.contains("replication factor 1 (that of the source)"), "{diagnosis:?}");
    seen.oldest.insert("billing-orders.retry-5s".to_owned(), NOW - Duration::from_secs(64));
    assert_eq!(found(&examined(&config, &seen)), [(Severity::Note, Check::Setup)]);
}

#[test]
fn nothing_is_concluded_from_settings_that_were_not_seen() {
    let config = push();
    let mut seen = in_order(&config);
    seen.observed.topics.values_mut().for_each(|topic| topic.settings.clear());
    seen.settings = false;
    assert_eq!(examined(&config, &seen).findings, []);
}

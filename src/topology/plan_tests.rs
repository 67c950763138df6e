//! Plans for an empty, a complete, a drifted and a dangerous cluster.

use std::time::Duration;

use crate::config::Start;
use crate::core::ladder::Mode;
use crate::core::state::{OwnerRecord, StateError, StateValue};
use crate::core::time::Timestamp;
use crate::topology::fixtures::{applied, ladder, limits, push, relay, relay_to_origin, source, with_sources};
use crate::topology::{Change, GroupFacts, Limits, Observed, Plan, Position, desired, plan, render};

fn planned(config: &crate::config::LadderConfig, observed: &Observed) -> Plan {
    plan(&[desired(config, &observed.topics)], observed, &limits())
}

/// A cluster on which the ladder is complete.
fn complete(config: &crate::config::LadderConfig) -> Observed {
    let empty = with_sources(&[("orders", source(3, 3, 2))]);
    applied(&planned(config, &empty), &empty)
}

fn set(observed: &mut Observed, topic: &str, setting: &str, value: &str) {
    observed.topics.get_mut(topic).unwrap().settings.insert(setting.to_owned(), value.to_owned());
}

fn refusals(plan: &Plan) -> Vec<String> {
    plan.ladders.iter().flat_map(|l| &l.refusals).chain(&plan.refusals).map(|r| format!("{}: {}", r.subject, r.problem)).collect()
}

#[test]
fn an_empty_cluster_gets_everything() {
    let plan = planned(&push(), &with_sources(&[("orders", source(3, 3, 2))]));
    insta::assert_snapshot!("empty_push_text", render(&plan));
    insta::assert_snapshot!("empty_push_json", serde_json::to_string_pretty(&plan).unwrap());
}

#[test]
fn relay_has_an_inbox_and_leaves_the_source_to_the_application() {
    let plan = planned(&relay(), &with_sources(&[("orders", source(1, 1, 1))]));
    insta::assert_snapshot!("empty_relay_text", render(&plan));
}

#[test]
fn where_records_come_back_in_their_origins_there_is_no_redeliver_topic() {
    let observed = with_sources(&[("orders", source(1, 3, 2))]);
    let plan = planned(&relay_to_origin(), &observed);
    insta::assert_snapshot!("empty_relay_to_origin_text", render(&plan));
    let after = applied(&plan, &observed);
    assert!(planned(&relay_to_origin(), &after).is_in_order());
    assert!(!plan.changes().any(|change| change.to_string().contains("orders ") || change.to_string().contains("redeliver")));
}

#[test]
fn a_redeliver_topic_from_before_is_told() {
    let mut observed = applied(&planned(&relay(), &with_sources(&[("orders", source(3, 3, 2))])), &Observed::default());
    observed.topics.insert("orders".to_owned(), source(3, 3, 2));
    observed.topics.get_mut("billing-orders.redeliver").unwrap().partitions[0].high = 4;
    let plan = planned(&relay_to_origin(), &observed);
    let told = |plan: &Plan| plan.ladders[0].notes.iter().find(|n| n.subject == "billing-orders.redeliver").unwrap().text.clone();
    assert!(told(&plan).contains("about 4 records that group billing has not read"), "{}", told(&plan));
    assert!(plan.is_in_order(), "{}", render(&plan));
}

#[test]
fn a_complete_cluster_is_in_order() {
    let plan = planned(&push(), &complete(&push()));
    assert!(plan.is_in_order(), "{}", render(&plan));
    insta::assert_snapshot!("complete_text", render(&plan));
}

#[test]
fn drift_is_told_with_the_command_that_mends_it() {
    let mut observed = complete(&push());
    set(&mut observed, "billing-orders.retry-5s", "retention.ms", "3600000");
    set(&mut observed, "billing-orders.retry-1m", "retention.bytes", "1073741824");
    set(&mut observed, "billing-orders.redeliver", "max.message.bytes", "1048588");
    set(&mut observed, "billing-orders.redeliver", "message.timestamp.type", "CreateTime");
    set(&mut observed, "billing-orders.dlq", "retention.ms", "-1");
    set(&mut observed, "billing-orders.state", "cleanup.policy", "delete");
    observed.topics.get_mut("billing-orders.dlq").unwrap().replication_factor = 1;
    let plan = planned(&push(), &observed);
    assert!(!plan.is_refused() && !plan.has_changes());
    insta::assert_snapshot!("drift_text", render(&plan));
    insta::assert_snapshot!("drift_json", serde_json::to_string_pretty(&plan).unwrap());
}

#[test]
fn what_is_more_than_needed_is_no_drift() {
    let mut observed = complete(&push());
    set(&mut observed, "billing-orders.retry-5s", "retention.ms", "-1");
    set(&mut observed, "billing-orders.retry-1m", "max.message.bytes", "10485760");
    set(&mut observed, "billing-orders.retry-1m", "min.insync.replicas", "3");
    assert!(planned(&push(), &observed).is_in_order());
}

#[test]
fn what_would_lose_records_or_make_them_early_is_refused() {
    let mut observed = complete(&push());
    set(&mut observed, "billing-orders.retry-5s", "cleanup.policy", "compact,delete");
    set(&mut observed, "billing-orders.retry-5s", "message.timestamp.type", "CreateTime");
    set(&mut observed, "billing-orders.retry-1m", "retention.ms", "59999");
    set(&mut observed, "billing-orders.dlq", "cleanup.policy", "compact");
    let plan = planned(&push(), &observed);
    insta::assert_snapshot!("refused_text", render(&plan));
}

fn owned_by(config: &crate::config::LadderConfig, entry: StateValue<OwnerRecord>) -> Observed {
    let mut observed = complete(config);
    observed.owners.insert("billing-orders".to_owned(), entry);
    observed
}

#[test]
fn a_ladder_that_was_set_up_before_owners_were_put_down_is_claimed() {
    for entry in [None, Some(StateValue::Absent)] {
        let mut observed = complete(&push());
        observed.owners.clear();
        observed.owners.extend(entry.map(|entry| ("billing-orders".to_owned(), entry)));
        let plan = planned(&push(), &observed);
        assert!(!plan.is_refused());
        let changes: Vec<String> = plan.changes().map(ToString::to_string).collect();
        assert_eq!(changes, ["+ record group billing as the ladder's owner in billing-orders.state"]);
        assert!(planned(&push(), &applied(&plan, &observed)).is_in_order());
    }
}

#[test]
fn a_ladder_of_another_group_is_refused_unless_it_is_taken_over() {
    let shipping = StateValue::Read(OwnerRecord { group: "shipping".to_owned(), at: Timestamp::from_millis(7) });
    for (name, entry) in [("other", shipping), ("unreadable", StateValue::Unreadable(StateError::Version(2)))] {
        let observed = owned_by(&push(), entry);
        let refused = planned(&push(), &observed);
        assert!(refused.is_refused() && !refused.has_changes());
        insta::assert_snapshot!(format!("{name}_owner_text"), render(&refused));
        let limits = Limits { take_over: true, ..limits() };
        let taken = plan(&[desired(&push(), &observed.topics)], &observed, &limits);
        insta::assert_snapshot!(format!("{name}_owner_take_over_text"), render(&taken));
        assert!(planned(&push(), &applied(&taken, &observed)).is_in_order());
    }
}

#[test]
fn a_source_that_is_missing_is_refused() {
    let plan = planned(&push(), &Observed::default());
    assert_eq!(refusals(&plan), ["orders: source topic does not exist, or Describe is not permitted"]);
    assert!(!plan.has_changes());
}

#[test]
fn a_group_without_offsets_needs_a_start() {
    let config = ladder(Mode::Push, &["orders"], &["5s"], None);
    let plan = planned(&config, &with_sources(&[("orders", source(3, 1, 1))]));
    assert_eq!(refusals(&plan), ["orders: group billing has no offsets on it, and `start` is not set"]);
    assert_eq!(plan.ladders[0].refusals[0].remedy, "add start = \"earliest\" or \"latest\" to [ladder.billing-orders]");
}

#[test]
fn a_group_that_has_offsets_needs_no_start_and_added_partitions_begin_at_the_oldest() {
    let config = ladder(Mode::Push, &["orders"], &["5s"], Some(Start::Latest));
    let mut observed = with_sources(&[("orders", source(3, 1, 1))]);
    observed.groups.insert(
        "billing".to_owned(),
        GroupFacts { members: 0, offsets: [("orders".to_owned(), [(0, 50), (1, 60)].into())].into() },
    );
    let expected = Change::CommitOffsets {
        group: "billing".to_owned(),
        topic: "orders".to_owned(),
        at: Position::Oldest,
        partitions: vec![2],
    };
    assert!(planned(&config, &observed).changes().any(|c| *c == expected));
}

#[test]
fn a_start_at_the_end_tells_what_it_skips() {
    let config = ladder(Mode::Push, &["orders"], &["5s"], Some(Start::Latest));
    let plan = planned(&config, &with_sources(&[("orders", source(3, 3, 2))]));
    assert!(plan.ladders[0].notes.iter().any(|n| n.text.contains("about 300 existing records will be skipped")));
}

#[test]
fn a_group_with_members_cannot_be_given_offsets() {
    let mut observed = complete(&push());
    observed.topics.get_mut("orders").unwrap().partitions.push(crate::topology::Watermarks::default());
    observed.groups.get_mut("billing").unwrap().members = 2;
    let plan = planned(&push(), &observed);
    assert!(
        refusals(&plan)
            .iter()
            .any(|r| r.contains("group billing lacks offsets on it, and none can be set while it has 2 active members"))
    );
}

#[test]
fn in_relay_the_application_may_go_on_running() {
    let mut observed = with_sources(&[("orders", source(3, 3, 2))]);
    observed.groups.insert("billing".to_owned(), GroupFacts { members: 3, ..GroupFacts::default() });
    let plan = planned(&relay(), &observed);
    assert!(!plan.is_refused() && plan.has_changes() && plan.has_drift(), "{}", render(&plan));
}

#[test]
fn a_removed_tier_is_told_and_keeps_its_place() {
    let mut observed = complete(&push());
    observed.topics.get_mut("billing-orders.retry-1m").unwrap().partitions[1].high = 7;
    let config = ladder(Mode::Push, &["orders"], &["5s", "10m"], Some(Start::Earliest));
    let plan = planned(&config, &observed);
    let notes: Vec<&str> = plan.ladders[0].notes.iter().map(|n| n.text.as_str()).collect();
    assert_eq!(
        notes,
        ["is no longer configured, holds about 7 waiting records and is still emptied by the mover: it is not dropped"]
    );
}

#[test]
fn partitions_are_added_and_never_taken_away() {
    let mut config = push();
    let observed = complete(&config);
    config.topics.partitions = Some(5);
    let plan = planned(&config, &observed);
    let added = plan.changes().filter(|c| matches!(c, Change::AddPartitions { have: 3, want: 5, .. })).count();
    assert_eq!(added, 4, "{}", render(&plan));
    config.topics.partitions = Some(1);
    assert!(planned(&config, &observed).is_in_order());
}

#[test]
fn many_source_partitions_do_not_make_many_tier_partitions() {
    let observed = with_sources(&[("orders", source(200, 3, 2))]);
    assert!(desired(&push(), &observed.topics).topics.iter().all(|t| t.partitions <= 12));
}

#[test]
fn a_plan_beyond_the_cap_is_refused() {
    let observed = with_sources(&[("orders", source(12, 3, 2))]);
    let limits = Limits { max_partitions: 40, ..limits() };
    let plan = plan(&[desired(&push(), &observed.topics)], &observed, &limits);
    assert_eq!(refusals(&plan), ["--max-partitions: 49 partitions in total are more than 40"]);
}

#[test]
fn retention_covers_the_delay_and_the_outage_budget() {
    let mut config = push();
    config.topics.outage_budget = Duration::from_secs(3_600);
    let observed = with_sources(&[("orders", source(1, 3, 2))]);
    let retention = |name: &str| {
        desired(&config, &observed.topics).topics.into_iter().find(|t| t.name == name).unwrap().settings["retention.ms"].clone()
    };
    assert_eq!(retention("billing-orders.retry-1m"), "3660000");
    assert_eq!(retention("billing-orders.redeliver"), "3600000");
    assert_eq!(retention("billing-orders.dlq"), "2592000000");
}

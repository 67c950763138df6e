//! Property tests: an applied plan leaves nothing to do.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use crate::config::{LadderConfig, Start};
use crate::core::ladder::{Mode, Redelivery};
use crate::core::state::{OwnerRecord, StateError, StateValue};
use crate::core::time::Timestamp;
use crate::topology::fixtures::{applied, ladder, limits, redelivering, source, with_sources};
use crate::topology::{Observed, Watermarks, desired, plan};

fn ladders() -> impl Strategy<Value = LadderConfig> {
    let tiers = proptest::sample::subsequence(vec!["1s", "5s", "1m", "10m", "1d"], 1..=5);
    let numbers = (proptest::option::of(1..20_i32), proptest::option::of(1..4_i32));
    let kinds = [(Mode::Push, Redelivery::Topic), (Mode::Relay, Redelivery::Topic), (Mode::Relay, Redelivery::Origin)].to_vec();
    (proptest::sample::select(kinds), any::<bool>(), 1..3_usize, tiers, numbers).prop_map(
        |((mode, redelivery), earliest, sources, tiers, (partitions, replicas))| {
            let start = if earliest { Start::Earliest } else { Start::Latest };
            let sources = &["orders", "refunds"][..sources];
            let mut config = ladder(mode, sources, &tiers, Some(start));
            if redelivery == Redelivery::Origin {
                config = redelivering(redelivery, sources, &tiers);
            }
            config.topics.partitions = partitions;
            config.topics.replication_factor = replicas;
            config
        },
    )
}

/// A cluster with the sources, some offsets, and some of the ladder's topics, right or wrong.
fn clusters() -> impl Strategy<Value = Observed> {
    let names = ["retry-1s", "retry-5s", "retry-1m", "retry-2m", "redeliver", "inbox", "dlq", "state"]
        .map(|n| format!("billing-orders.{n}"));
    let marks = vec((0..50_i64, 0..50_i64).prop_map(|(low, more)| Watermarks { low, high: low + more }), 1..15);
    let settings = (
        proptest::sample::select(vec!["delete", "compact"]),
        proptest::sample::select(vec!["1000", "604800000", "700000000", "-1"]),
        proptest::sample::select(vec!["LogAppendTime", "CreateTime"]),
    );
    let own = btree_map(proptest::sample::select(names.to_vec()), (marks, settings, 1..4_i32), 0..6);
    let offsets = btree_map(
        (
            proptest::sample::select(vec!["billing", "billing-orders.mover", "billing-orders.router"]),
            proptest::sample::select([names.as_slice(), &["orders".to_owned(), "refunds".to_owned()]].concat()),
        ),
        btree_map(0..15_i32, 0..100_i64, 0..15),
        0..8,
    );
    let owners = proptest::option::of(proptest::sample::select(vec!["billing", "shipping", ""]));
    ((1..40_usize, 1..40_usize), 1..4_i32, own, offsets, owners).prop_map(|((orders, refunds), replicas, own, offsets, owner)| {
        let mut observed = with_sources(&[
            ("orders", source(orders, replicas, replicas - replicas / 2)),
            ("refunds", source(refunds, replicas, 1)),
        ]);
        for (name, (partitions, (policy, retention, timestamps), replicas)) in own {
            let mut facts = source(0, replicas, 1);
            facts.partitions = partitions;
            facts.settings.extend([
                ("cleanup.policy".to_owned(), policy.to_owned()),
                ("retention.ms".to_owned(), retention.to_owned()),
                ("message.timestamp.type".to_owned(), timestamps.to_owned()),
            ]);
            observed.topics.insert(name, facts);
        }
        for ((group, topic), offsets) in offsets {
            observed.groups.entry(group.to_owned()).or_default().offsets.insert(topic, offsets);
        }
        if let Some(owner) = owner {
            let record = OwnerRecord { group: owner.to_owned(), at: Timestamp::from_millis(1) };
            let entry = if owner.is_empty() { StateValue::Unreadable(StateError::Version(2)) } else { StateValue::Read(record) };
            observed.owners.insert("billing-orders".to_owned(), entry);
        }
        observed
    })
}

proptest! {
    #[test]
    fn an_empty_cluster_is_in_order_after_one_plan(config in ladders(), partitions in 1..40_usize, replicas in 1..5_i32) {
        let empty = with_sources(&[("orders", source(partitions, replicas, 1)), ("refunds", source(2, replicas, 1))]);
        let first = plan(&[desired(&config, &empty.topics)], &empty, &limits());
        prop_assert!(!first.is_refused() && !first.has_drift());
        let after = applied(&first, &empty);
        let second = plan(&[desired(&config, &after.topics)], &after, &limits());
        prop_assert!(second.is_in_order(), "{second:?}");
    }

    #[test]
    fn a_plan_leaves_no_change_for_the_next_one_and_touches_no_source(config in ladders(), observed in clusters()) {
        let first = plan(&[desired(&config, &observed.topics)], &observed, &limits());
        let after = applied(&first, &observed);
        let second = plan(&[desired(&config, &after.topics)], &after, &limits());
        prop_assert!(!second.has_changes(), "{second:?}");
        prop_assert_eq!(&first.ladders[0].drift, &second.ladders[0].drift);
        prop_assert_eq!(&first.ladders[0].refusals, &second.ladders[0].refusals);
        for name in ["orders", "refunds"] {
            prop_assert_eq!(&observed.topics[name], &after.topics[name]);
        }
    }
}

//! Ladders and clusters for the tests of this module.

use std::time::Duration;

use crate::config::{LadderConfig, RedriveConfig, Start, TopicsConfig};
use crate::core::ladder::{Ladder, LadderBuilder, Mode, Redelivery};
use crate::core::state::{OwnerRecord, StateValue};
use crate::core::time::Timestamp;
use crate::topology::{Change, Limits, Observed, Plan, Position, TopicFacts, Watermarks};

pub fn push() -> LadderConfig {
    ladder(Mode::Push, &["orders"], &["5s", "1m"], Some(Start::Earliest))
}

pub fn relay() -> LadderConfig {
    ladder(Mode::Relay, &["orders"], &["5s", "1m"], None)
}

pub fn relay_to_origin() -> LadderConfig {
    redelivering(Redelivery::Origin, &["orders"], &["5s", "1m"])
}

/// A relay ladder with this redelivery.
pub fn redelivering(redelivery: Redelivery, sources: &[&str], tiers: &[&str]) -> LadderConfig {
    let ladder = builder(Mode::Relay, sources, tiers).redelivery(redelivery).reaches_all_groups(true);
    LadderConfig {
        ladder: ladder.build().unwrap(),
        start: None,
        handler: None,
        breaker: None,
        dlq_breaker: None,
        redrive: RedriveConfig::default(),
        topics: TopicsConfig::default(),
    }
}

fn builder(mode: Mode, sources: &[&str], tiers: &[&str]) -> LadderBuilder {
    let builder = Ladder::builder("billing-orders", "billing").tiers(tiers.iter().copied()).mode(mode);
    // No longer than its tiers support.
    let builder = builder.max_not_before(Duration::from_secs(3_600));
    sources.iter().fold(builder, |b, s| b.source(*s))
}

pub fn ladder(mode: Mode, sources: &[&str], tiers: &[&str], start: Option<Start>) -> LadderConfig {
    LadderConfig {
        ladder: builder(mode, sources, tiers).build().unwrap(),
        start,
        handler: None,
        breaker: None,
        dlq_breaker: None,
        redrive: RedriveConfig::default(),
        topics: TopicsConfig::default(),
    }
}

pub fn limits() -> Limits {
    Limits { max_partitions: 1_000, take_over: false, bootstrap_servers: "kafka:9092".to_owned() }
}

/// A source with the settings that a broker reports.
pub fn source(partitions: usize, replication_factor: i32, min_insync_replicas: i32) -> TopicFacts {
    let settings = [
        ("cleanup.policy", "compact".to_owned()),
        ("max.message.bytes", "1048588".to_owned()),
        ("message.timestamp.type", "CreateTime".to_owned()),
        ("min.insync.replicas", min_insync_replicas.to_string()),
        ("retention.bytes", "-1".to_owned()),
        ("retention.ms", "604800000".to_owned()),
    ];
    TopicFacts {
        replication_factor,
        partitions: vec![Watermarks { low: 10, high: 110 }; partitions],
        settings: settings.map(|(name, value)| (name.to_owned(), value)).into(),
    }
}

pub fn with_sources(topics: &[(&str, TopicFacts)]) -> Observed {
    Observed { topics: topics.iter().map(|(n, t)| ((*n).to_owned(), t.clone())).collect(), ..Observed::default() }
}

/// The cluster after a plan was applied.
pub fn applied(plan: &Plan, observed: &Observed) -> Observed {
    let mut after = observed.clone();
    for change in plan.changes() {
        match change {
            Change::CreateTopic { topic, partitions, replication_factor, settings } => {
                let facts = TopicFacts {
                    replication_factor: *replication_factor,
                    partitions: vec![Watermarks::default(); usize::try_from(*partitions).unwrap()],
                    settings: settings.clone(),
                };
                assert!(after.topics.insert(topic.clone(), facts).is_none(), "{topic} existed");
            }
            Change::AddPartitions { topic, want, .. } => {
                let facts = after.topics.get_mut(topic).unwrap();
                facts.partitions.resize(usize::try_from(*want).unwrap(), Watermarks::default());
            }
            Change::Claim { topic, group, .. } => {
                assert!(after.topics.contains_key(topic), "{topic} does not exist");
                let owner = OwnerRecord { group: group.clone(), at: Timestamp::from_millis(1) };
                after.owners.insert(topic.trim_end_matches(".state").to_owned(), StateValue::Read(owner));
            }
            Change::CommitOffsets { group, topic, at, partitions } => {
                let marks = after.topics[topic].partitions.clone();
                let offsets = after.groups.entry(group.clone()).or_default().offsets.entry(topic.clone()).or_default();
                for partition in partitions {
                    let marks = marks[usize::try_from(*partition).unwrap()];
                    let offset = if *at == Position::Oldest { marks.low } else { marks.high };
                    assert!(offsets.insert(*partition, offset).is_none(), "{group} had an offset on {topic} {partition}");
                }
            }
        }
    }
    after
}

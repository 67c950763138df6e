//! Carries a plan out.

use std::collections::BTreeMap;

use crate::topology::{Change, Cluster, ClusterError, Plan};

/// What is being done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step<'a> {
    /// Topics are being made.
    CreatingTopics(usize),
    /// A topic is getting partitions.
    AddingPartitions(&'a str, i32),
    /// Waiting for leaders.
    Waiting(usize),
    /// A group is getting offsets.
    Committing(&'a str, &'a str),
    /// A group is being put down as the owner, in this state topic.
    Claiming(&'a str, &'a str),
}

/// Carries the changes of a plan out: topics first, then, when they can be used, whose they are and the offsets on them.
///
/// # Errors
/// The first failure. What was done until then stays; the next plan goes on from there.
///
/// # Panics
/// When the plan is refused: that is for the caller to tell.
pub fn apply(plan: &Plan, cluster: &dyn Cluster, mut progress: impl FnMut(&Step)) -> Result<(), ClusterError> {
    assert!(!plan.is_refused(), "a refused plan must not be applied");
    let mut grown = BTreeMap::new();
    let creations: Vec<&Change> = plan.changes().filter(|c| matches!(c, Change::CreateTopic { .. })).collect();
    if !creations.is_empty() {
        progress(&Step::CreatingTopics(creations.len()));
        cluster.create_topics(&creations)?;
    }
    for change in plan.changes() {
        match change {
            Change::CreateTopic { topic, partitions, .. } => {
                grown.insert(topic.clone(), *partitions);
            }
            Change::AddPartitions { topic, want, .. } => {
                progress(&Step::AddingPartitions(topic, *want));
                cluster.create_partitions(topic, *want)?;
                grown.insert(topic.clone(), *want);
            }
            Change::CommitOffsets { .. } | Change::Claim { .. } => {}
        }
    }
    if !grown.is_empty() {
        progress(&Step::Waiting(grown.len()));
        cluster.wait_usable(&grown)?;
    }
    for change in plan.changes() {
        match change {
            Change::Claim { topic, group, .. } => {
                progress(&Step::Claiming(group, topic));
                cluster.claim(topic, group)?;
            }
            Change::CommitOffsets { group, topic, at, partitions } => {
                progress(&Step::Committing(group, topic));
                cluster.commit_offsets(group, topic, partitions, *at)?;
            }
            Change::CreateTopic { .. } | Change::AddPartitions { .. } => {}
        }
    }
    Ok(())
}

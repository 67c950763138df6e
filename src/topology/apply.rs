//! Applies a plan.

use std::collections::BTreeMap;

use crate::topology::{Change, Cluster, ClusterError, Plan};

/// The step in progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApplyStep<'a> {
    /// Creating topics.
    CreatingTopics(usize),
    /// Adding partitions to a topic.
    AddingPartitions(&'a str, i32),
    /// Waiting for leaders.
    Waiting(usize),
    /// Committing offsets of a group.
    Committing(&'a str, &'a str),
    /// Recording a group as the owner, in this state topic.
    Claiming(&'a str, &'a str),
}

/// Applies the changes of a plan: topics first; once they are usable, owner records and offsets.
///
/// # Errors
/// The first failure. Changes applied until then stay; the next plan continues from there.
///
/// # Panics
/// The plan is refused: the caller must check that.
pub fn apply(plan: &Plan, cluster: &dyn Cluster, mut progress: impl FnMut(&ApplyStep)) -> Result<(), ClusterError> {
    assert!(!plan.is_refused(), "a refused plan must not be applied");
    let mut grown = BTreeMap::new();
    let creations: Vec<&Change> = plan.changes().filter(|c| matches!(c, Change::CreateTopic { .. })).collect();
    if !creations.is_empty() {
        progress(&ApplyStep::CreatingTopics(creations.len()));
        let refused = cluster.create_topics(&creations)?;
        if !refused.is_empty() {
            return Err(ClusterError::Refused { made: creations.len() - refused.len(), refused });
        }
    }
    for change in plan.changes() {
        match change {
            Change::CreateTopic { topic, partitions, .. } => {
                grown.insert(topic.clone(), *partitions);
            }
            Change::AddPartitions { topic, want, .. } => {
                progress(&ApplyStep::AddingPartitions(topic, *want));
                cluster.create_partitions(topic, *want)?;
                grown.insert(topic.clone(), *want);
            }
            Change::CommitOffsets { .. } | Change::Claim { .. } => {}
        }
    }
    if !grown.is_empty() {
        progress(&ApplyStep::Waiting(grown.len()));
        cluster.wait_usable(&grown)?;
    }
    for change in plan.changes() {
        match change {
            Change::Claim { topic, group, .. } => {
                progress(&ApplyStep::Claiming(group, topic));
                cluster.claim(topic, group)?;
            }
            Change::CommitOffsets { group, topic, at, partitions } => {
                progress(&ApplyStep::Committing(group, topic));
                cluster.commit_offsets(group, topic, partitions, *at)?;
            }
            Change::CreateTopic { .. } | Change::AddPartitions { .. } => {}
        }
    }
    Ok(())
}

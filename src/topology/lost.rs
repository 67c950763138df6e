//! Offsets missing from a ladder that was set up: there a missing offset means that it was lost.

use std::fmt;

use crate::topology::{Change, LadderPlan};

/// A group that has lost its offsets on a topic: the user must decide where it continues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostOffsets {
    /// The group.
    pub group: String,
    /// The topic.
    pub topic: String,
    /// The brokers' addresses, for the command that sets offsets.
    pub bootstrap_servers: String,
}

impl LostOffsets {
    /// How to set the offsets.
    #[must_use]
    pub fn remedy(&self) -> String {
        let Self { group, topic, bootstrap_servers } = self;
        format!(
            "`kladder setup` shows the start offsets and the number of records concerned, and commits them after confirmation; any \
             other offset is set with `kafka-consumer-groups.sh --bootstrap-server {bootstrap_servers} --group {group} --topic \
             {topic} --reset-offsets --to-datetime TIME --execute` (or --to-earliest, --to-latest, --to-offset N)"
        )
    }
}

impl fmt::Display for LostOffsets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, topic, .. } = self;
        write!(
            f,
            "group {group} has no offsets on {topic}, although the ladder is set up: they were deleted or have expired, unless {topic} \
             is a new source. No worker starts, since records would be skipped or repeated. Set an offset, while no worker \
             runs: {}",
            self.remedy()
        )
    }
}

/// Missing offsets in a ladder whose topics all exist: it was set up before, so the offsets existed.
#[must_use]
pub fn lost_offsets(ladder: &LadderPlan, bootstrap_servers: &str) -> Vec<LostOffsets> {
    if ladder.changes.iter().any(|change| matches!(change, Change::CreateTopic { .. })) {
        return Vec::new();
    }
    let lacking = ladder.changes.iter().filter(|change| change.is_missing());
    let lost = lacking.filter_map(|change| match change {
        Change::CommitOffsets { group, topic, .. } => {
            Some(LostOffsets { group: group.clone(), topic: topic.clone(), bootstrap_servers: bootstrap_servers.to_owned() })
        }
        _ => None,
    });
    lost.collect()
}

impl Change {
    /// A missing topic or start offset: no worker starts without. Partitions added later are consumed anyway, and a ladder without
    /// an owner record belongs to no other group.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        match self {
            Self::CreateTopic { .. } => true,
            Self::AddPartitions { .. } | Self::Claim { .. } => false,
            Self::CommitOffsets { partitions, .. } => partitions.contains(&0),
        }
    }
}

//! Offsets that groups no longer have, although their ladder was set up: from then on a missing offset is a loss.

use std::fmt;

use crate::topology::{Change, LadderPlan};

/// A group that has lost its offsets on a topic: where it goes on is for somebody to decide.
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
    /// How somebody says where to go on.
    #[must_use]
    pub fn remedy(&self) -> String {
        let Self { group, topic, bootstrap_servers } = self;
        format!(
            "`kladder setup` tells where it would begin and how many records that concerns, and does it once it is confirmed; any \
             other place is set with `kafka-consumer-groups.sh --bootstrap-server {bootstrap_servers} --group {group} --topic \
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
             is a new source. Nothing starts, since records would be skipped or moved again. Decide where to go on, while no worker \
             runs: {}",
            self.remedy()
        )
    }
}

/// Groups that lack the offsets of a topic in a ladder whose topics are all there: it was set up once, so they had them.
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
    /// A topic that is not there, or a group that does not know it: no worker starts without. Partitions that were added later are
    /// taken up by the workers, and a ladder that was set up before owners were put down is nobody else's.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        match self {
            Self::CreateTopic { .. } => true,
            Self::AddPartitions { .. } | Self::Claim { .. } => false,
            Self::CommitOffsets { partitions, .. } => partitions.contains(&0),
        }
    }
}

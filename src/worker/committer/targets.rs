//! The topics that hops go to.

use crate::core::ladder::Ladder;
use crate::core::topics;
use crate::kafka::error::ClientError;
use crate::kafka::producer::{HopProducer, TopicId};
use crate::worker::committer::hop::{Hop, Target};

/// The topics that failed records go to, with their partition counts.
pub(in crate::worker) struct Targets {
    pub(super) tiers: Vec<(TopicId, i32)>,
    pub(super) dlq: (TopicId, i32),
}

impl Targets {
    /// Looks the topics of a ladder up.
    pub(in crate::worker) fn look_up(producer: &mut HopProducer, ladder: &Ladder) -> Result<Self, ClientError> {
        let tiers: Vec<TopicId> = ladder.tiers().iter().map(|t| producer.topic(t.topic())).collect();
        let dlq = producer.topic(&ladder.dlq_topic());
        let counts = producer.partition_counts()?;
        let counted = |id: TopicId| (id, counts[&id]);
        Ok(Self { tiers: tiers.into_iter().map(counted).collect(), dlq: counted(dlq) })
    }

    pub(super) fn resolve<P>(&self, hop: &Hop<P>) -> (TopicId, i32) {
        let (topic, count) = match hop.target {
            Target::Tier(number) => {
                let index = usize::try_from(number).unwrap_or(1).saturating_sub(1);
                self.tiers.get(index).copied().unwrap_or(self.dlq)
            }
            Target::Dlq(_) => self.dlq,
        };
        (topic, topics::target_partition(hop.envelope.origin.partition, count))
    }
}

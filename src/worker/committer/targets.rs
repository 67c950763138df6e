//! The topics that hops go to.

use crate::core::ladder::Ladder;
use crate::core::topics;
use crate::kafka::error::ClientError;
use crate::kafka::producer::{HopProducer, TopicId};
use crate::worker::committer::hop::{Hop, Target};

/// The topics that failed records go to, with their partition counts.
pub(in crate::worker) struct Targets {
    pub(super) tiers: Vec<(TopicId, i32)>,
    /// In the order of [`Ladder::dlq_topics`]; never empty.
    pub(super) dlqs: Vec<(TopicId, i32)>,
    pub(super) state: TopicId,
}

impl Targets {
    /// Looks the topics of a ladder up.
    pub(in crate::worker) fn look_up(producer: &mut HopProducer, ladder: &Ladder) -> Result<Self, ClientError> {
        let tiers: Vec<TopicId> = ladder.tiers().iter().map(|t| producer.topic(t.topic())).collect();
        let dlqs: Vec<TopicId> = ladder.dlq_topics().iter().map(|topic| producer.topic(topic)).collect();
        let state = producer.topic(&ladder.state_topic());
        let counts = producer.partition_counts()?;
        let counted = |id: TopicId| (id, counts[&id]);
        Ok(Self { tiers: tiers.into_iter().map(counted).collect(), dlqs: dlqs.into_iter().map(counted).collect(), state })
    }

    pub(super) fn resolve<P>(&self, hop: &Hop<P>) -> (TopicId, i32) {
        let (topic, count) = match hop.target {
            Target::Tier(number) => {
                let index = usize::try_from(number).unwrap_or(1).saturating_sub(1);
                self.tiers.get(index).copied().unwrap_or(self.dlqs[0])
            }
            Target::Dlq(_, which) => self.dlqs.get(which).copied().unwrap_or(self.dlqs[0]),
            Target::Outcome => return (self.state, 0),
        };
        (topic, topics::target_partition(hop.envelope.origin.partition, count))
    }
}

//! The topics that records go to.

use crate::core::envelope::Reason;
use crate::core::ladder::{Ladder, Redelivery};
use crate::core::topics;
use crate::kafka::error::ClientError;
use crate::kafka::producer::{HopProducer, TopicId};
use crate::worker::hop::ports::HopSink;

/// Where a record goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::worker) enum Target {
    Redeliver,
    /// The source of this place among the ladder's.
    Source(usize),
    Tier(u32),
    /// Why, and which of the ladder's dead-letter topics.
    Dlq(Reason, usize),
    /// No hop of the record: the state topic is told that it is done, since somebody sent it back from the DLQ and waits for that.
    Outcome,
}

impl Target {
    /// Whether the record is redelivered.
    pub(in crate::worker) fn is_back(self) -> bool {
        matches!(self, Self::Redeliver | Self::Source(_))
    }
}

/// The topics that a worker writes to, with their partition counts; only those that it has to. Those of the ladder may grow meanwhile, which
/// makes a worse spread, no error; a source is looked up again where a record comes from a partition that it did not have.
pub(in crate::worker) struct Targets {
    pub(in crate::worker) redeliver: Option<(TopicId, i32)>,
    pub(in crate::worker) sources: Vec<(TopicId, i32)>,
    pub(in crate::worker) tiers: Vec<(TopicId, i32)>,
    /// In the order of [`Ladder::dlq_topics`].
    pub(in crate::worker) dlqs: Vec<(TopicId, i32)>,
    pub(in crate::worker) state: TopicId,
}

impl Targets {
    /// Looks up where failed records go: tiers, dead-letter topics, and the state topic.
    pub(in crate::worker) fn of_failed(ladder: &Ladder, producer: &mut HopProducer) -> Result<Self, ClientError> {
        let tiers: Vec<TopicId> = ladder.tiers().iter().map(|t| producer.topic(t.topic())).collect();
        let dlqs: Vec<TopicId> = ladder.dlq_topics().iter().map(|topic| producer.topic(topic)).collect();
        let state = producer.topic(&ladder.state_topic());
        let counts = producer.partition_counts()?;
        let counted = |ids: Vec<TopicId>| ids.into_iter().map(|id| (id, counts[&id])).collect();
        Ok(Self { redeliver: None, sources: Vec::new(), tiers: counted(tiers), dlqs: counted(dlqs), state })
    }

    /// Looks up where due records go: redeliver, or the sources and the DLQ of what has no way back; other tiers, and the state topic.
    pub(in crate::worker) fn of_due(ladder: &Ladder, producer: &mut HopProducer) -> Result<Self, ClientError> {
        let mut counted = |name: &str| Ok((producer.topic(name), producer.partition_count(name)?));
        let (mut redeliver, mut sources, mut dlqs) = (None, Vec::new(), Vec::new());
        match ladder.redelivery() {
            Redelivery::Topic => redeliver = Some(counted(&ladder.redeliver_topic())?),
            Redelivery::Origin => {
                sources = ladder.sources().iter().map(|source| counted(source)).collect::<Result<_, ClientError>>()?;
                dlqs = vec![counted(&ladder.dlq_topic())?];
            }
        }
        let tiers = ladder.tiers().iter().map(|tier| counted(tier.topic())).collect::<Result<_, ClientError>>()?;
        let (state, _) = counted(&ladder.state_topic())?;
        Ok(Self { redeliver, sources, tiers, dlqs, state })
    }

    /// The topic, and the partition of it for what came from this partition.
    pub(in crate::worker) fn resolve(&self, target: Target, partition: i32) -> (TopicId, i32) {
        let (topic, count) = match target {
            Target::Outcome => return (self.state, 0),
            Target::Redeliver => self.redeliver,
            Target::Source(source) => self.sources.get(source).copied(),
            Target::Tier(number) => self.tiers.get(usize::try_from(number).unwrap_or(1).saturating_sub(1)).copied(),
            Target::Dlq(_, which) => self.dlqs.get(which).copied(),
        }
        .unwrap_or_else(|| self.refuge());
        (topic, topics::target_partition(partition, count))
    }

    /// Where records go that have no other place.
    fn refuge(&self) -> (TopicId, i32) {
        self.dlqs.first().copied().or(self.redeliver).unwrap_or((self.state, 1))
    }

    /// Looks a source up again that has not the partition which it was thought to have: it was made anew, with fewer.
    pub(in crate::worker) fn recount(&mut self, target: Target, sink: &mut impl HopSink) {
        let Target::Source(source) = target else { return };
        let Some((topic, count)) = self.sources.get_mut(source) else { return };
        match sink.partition_count(*topic) {
            Ok(now) => *count = now,
            Err(error) => tracing::debug!(%error, "source could not be looked up"),
        }
    }

    /// Whether a source has the partition that a record came from, as far as is known. (Other topics have as many as they want.)
    pub(in crate::worker) fn cover(&self, target: Target, partition: i32) -> bool {
        let Target::Source(source) = target else { return true };
        self.sources.get(source).is_none_or(|(_, count)| partition < *count)
    }

    /// Where most of what waits in this partition of a tier goes, to tell how many partitions a transaction will touch.
    ///
    /// For origins that is a guess: a source has more partitions than the tiers, of several of which one tier partition holds
    /// records. While few records are due few are touched, and what a backlog's transactions cost, their many records share.
    pub(in crate::worker) fn likely_partition(&self, partition: i32) -> i32 {
        self.redeliver.map_or(partition, |(_, count)| topics::target_partition(partition, count))
    }
}

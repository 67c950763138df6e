//! The target topics of records.

use crate::core::envelope::Reason;
use crate::core::ladder::{Ladder, Redelivery};
use crate::core::topics;
use crate::kafka::error::ClientError;
use crate::kafka::outgoing::TopicId;
use crate::kafka::producer::HopProducer;
use crate::worker::hop::ports::HopSink;

/// The target of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::worker) enum Target {
    Redeliver,
    /// The source with this index in the ladder.
    Source(usize),
    Tier(u32),
    /// The reason, and the index of the dead-letter topic.
    Dlq(Reason, usize),
    /// Not a hop of the record: a report to the state topic that it is done, since a redrive waits for its outcome.
    Outcome,
}

impl Target {
    /// Whether the record is redelivered.
    pub(in crate::worker) fn is_back(self) -> bool {
        matches!(self, Self::Redeliver | Self::Source(_))
    }
}

/// The topics that a worker writes to, with their partition counts; only those that it needs. The ladder's topics may get more partitions
/// meanwhile, which only makes the distribution uneven; a source is looked up again if a record comes from a partition that it did not have.
pub(in crate::worker) struct Targets {
    pub(in crate::worker) redeliver: Option<(TopicId, i32)>,
    pub(in crate::worker) sources: Vec<(TopicId, i32)>,
    pub(in crate::worker) tiers: Vec<(TopicId, i32)>,
    /// In the order of [`Ladder::dlq_topics`].
    pub(in crate::worker) dlqs: Vec<(TopicId, i32)>,
    pub(in crate::worker) state: TopicId,
}

impl Targets {
    /// Looks up the targets of failed records: tiers, dead-letter topics, and the state topic.
    pub(in crate::worker) fn of_failed(ladder: &Ladder, producer: &mut HopProducer) -> Result<Self, ClientError> {
        let tiers: Vec<TopicId> = ladder.tiers().iter().map(|t| producer.topic(t.topic())).collect();
        let dlqs: Vec<TopicId> = ladder.dlq_topics().iter().map(|topic| producer.topic(topic)).collect();
        let state = producer.topic(&ladder.state_topic());
        let counts = producer.partition_counts()?;
        let counted = |ids: Vec<TopicId>| ids.into_iter().map(|id| (id, counts[&id])).collect();
        Ok(Self { redeliver: None, sources: Vec::new(), tiers: counted(tiers), dlqs: counted(dlqs), state })
    }

    /// Looks up the targets of due records: redeliver, or the sources; the DLQ, for records that cannot return or be moved with their
    /// headers; other tiers, and the state topic.
    pub(in crate::worker) fn of_due(ladder: &Ladder, producer: &mut HopProducer) -> Result<Self, ClientError> {
        let mut counted = |name: &str| Ok((producer.topic(name), producer.partition_count(name)?));
        let (mut redeliver, mut sources) = (None, Vec::new());
        match ladder.redelivery() {
            Redelivery::Topic => redeliver = Some(counted(&ladder.redeliver_topic())?),
            Redelivery::Origin => {
                sources = ladder.sources().iter().map(|source| counted(source)).collect::<Result<_, ClientError>>()?;
            }
        }
        let dlqs = vec![counted(&ladder.dlq_topic())?];
        let tiers = ladder.tiers().iter().map(|tier| counted(tier.topic())).collect::<Result<_, ClientError>>()?;
        let (state, _) = counted(&ladder.state_topic())?;
        Ok(Self { redeliver, sources, tiers, dlqs, state })
    }

    /// The topic, and its partition for a record of this partition.
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

    /// The target of records without any other.
    fn refuge(&self) -> (TopicId, i32) {
        self.dlqs.first().copied().or(self.redeliver).unwrap_or((self.state, 1))
    }

    /// Looks up a source again that lacks an expected partition: it was recreated with fewer.
    pub(in crate::worker) fn recount(&mut self, target: Target, sink: &mut impl HopSink) {
        let Target::Source(source) = target else { return };
        let Some((topic, count)) = self.sources.get_mut(source) else { return };
        match sink.partition_count(*topic) {
            Ok(now) => *count = now,
            Err(error) => tracing::debug!(%error, "source could not be looked up"),
        }
    }

    /// Whether a source has the partition that a record came from, as far as known. (Other topics may have any number.)
    pub(in crate::worker) fn cover(&self, target: Target, partition: i32) -> bool {
        let Target::Source(source) = target else { return true };
        self.sources.get(source).is_none_or(|(_, count)| partition < *count)
    }

    /// The likely target partition of records in this partition of a tier, to estimate the number of partitions of a
    /// transaction.
    ///
    /// For origins that is a guess: a source has more partitions than the tiers, and one tier partition contains records of
    /// several. While few records are due, few partitions are touched, and the cost of a backlog's transactions is shared by
    /// many records.
    pub(in crate::worker) fn likely_partition(&self, partition: i32) -> i32 {
        self.redeliver.map_or(partition, |(_, count)| topics::target_partition(partition, count))
    }
}

//! Where a due record goes, and what it carries there.
//!
//! Back means the redeliver topic, or, where the ladder says so, the topic that the record first came from. Then its origin is read
//! of every record, and one that has none goes to the DLQ: also what any client put into a tier without headers, since nobody has
//! said where that came from.
//!
//! On the way to an origin foreign control headers are stripped, which would drive the framework of whoever reads that topic;
//! kladder's envelope stays, so that a copy of the record counts on. A source takes records as large as its own, without the budget
//! for headers that the ladder's topics have: what is too large for it gives up its diagnostics one after the other, and then goes
//! to the DLQ.

use crate::core::dialect;
use crate::core::due::{Move, next_move};
use crate::core::envelope::{self, Envelope, Glance, Reason, Trim};
use crate::core::ladder::{Ladder, Redelivery, Tier};
use crate::core::time::Timestamp;
use crate::core::topics;
use crate::kafka::NativeHeaders;
use crate::kafka::error::ClientError;
use crate::kafka::producer::{HopProducer, TopicId};
use crate::worker::mover::lane::{Held, Lane};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    Redeliver,
    /// The source of this place among the ladder's.
    Source(usize),
    Tier(u32),
    Dlq(Reason),
}

impl Target {
    /// Whether the record is redelivered.
    pub(super) fn is_back(self) -> bool {
        matches!(self, Self::Redeliver | Self::Source(_))
    }
}

/// What a record has given up that was too large for its origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GivenUp {
    Diagnostics(Trim),
    /// The way back itself.
    Origin,
}

impl GivenUp {
    pub(super) const NOTHING: Self = Self::Diagnostics(Trim::Nothing);

    /// The next step, or `None` when nothing is left.
    pub(super) fn more(self) -> Option<Self> {
        match self {
            Self::Diagnostics(trim) => Some(trim.next().map_or(Self::Origin, Self::Diagnostics)),
            Self::Origin => None,
        }
    }
}

/// A due record's way.
pub(super) struct Way {
    pub(super) target: Target,
    /// The source partition, or what stands for it; to be taken modulo the target's count.
    pub(super) partition: i32,
    pub(super) headers: NativeHeaders,
    /// Its envelope could not be trusted.
    pub(super) is_malformed: bool,
}

/// Where a due record goes and what it carries. While dead letters are held (`holds_dead_letters`), what waits because of that waits on.
pub(super) fn route(ladder: &Ladder, held: &mut Held, lane: &Lane, now: Timestamp, holds_dead_letters: bool) -> Way {
    let mut headers = held.take_headers();
    let partition = lane.tp().partition;
    let to_origin = ladder.redelivery() == Redelivery::Origin;
    if !to_origin && envelope::glance(ladder, headers.iter()) == Glance::Plain {
        return Way { target: Target::Redeliver, partition, headers, is_malformed: false };
    }
    let reading = Envelope::read(ladder, &held.coordinates(lane.tp()), headers.iter());
    let is_malformed = reading.malformed.is_some();
    let mut envelope = reading.envelope;
    let given_up = lane.given_up.filter(|(offset, _)| *offset == held.offset).map_or(GivenUp::NOTHING, |(_, given_up)| given_up);
    let target = match next_move(ladder, envelope.not_before, now) {
        _ if envelope.held && holds_dead_letters => Target::Tier(ladder.tiers().last().map_or(1, Tier::number)),
        Move::WaitOn(tier) => Target::Tier(tier.number()),
        Move::Redeliver if !to_origin => Target::Redeliver,
        Move::Redeliver if given_up == GivenUp::Origin => Target::Dlq(Reason::Oversize),
        Move::Redeliver => match ladder.origin_of(&envelope.origin) {
            Ok(source) => Target::Source(source),
            Err(error) => {
                tracing::trace!(partition = %lane.tp(), offset = held.offset, %error, "no way back");
                Target::Dlq(Reason::NoOrigin)
            }
        },
    };
    let here = ladder.tiers().iter().find(|t| t.delay() == lane.delay).map(Tier::number);
    let mut trim = Trim::Nothing;
    let mut partition = partition;
    match target {
        Target::Tier(number) => envelope.tier = Some(number),
        Target::Redeliver => envelope.tier = envelope.tier.or(here),
        Target::Dlq(reason) => {
            partition = envelope.origin.partition;
            envelope.tier = envelope.tier.or(here);
            envelope.reason = Some(reason);
        }
        Target::Source(_) => {
            partition = envelope.origin.partition;
            headers.remove_if(dialect::is_foreign_control);
            if let GivenUp::Diagnostics(given_up) = given_up {
                trim = given_up;
            }
        }
    }
    headers.remove_if(envelope::is_own);
    for (name, value) in envelope.headers(trim) {
        headers.push(name.as_bytes(), Some(value.as_bytes()));
    }
    Way { target, partition, headers, is_malformed }
}

/// The topics that a mover writes to, with their partition counts. Those of the ladder may grow meanwhile, which makes a worse spread,
/// no error; a source is looked up again where a record comes from a partition that it did not have.
pub(super) struct Targets {
    back: Back,
    tiers: Vec<(TopicId, i32)>,
    pub(super) state: (TopicId, i32),
}

enum Back {
    Redeliver((TopicId, i32)),
    Origin { sources: Vec<(TopicId, i32)>, dlq: (TopicId, i32) },
}

impl Targets {
    /// Looks the ladder's up.
    pub(super) fn of(ladder: &Ladder, producer: &mut HopProducer) -> Result<Self, ClientError> {
        let mut counted = |name: &str| Ok((producer.topic(name), producer.partition_count(name)?));
        let back = match ladder.redelivery() {
            Redelivery::Topic => Back::Redeliver(counted(&ladder.redeliver_topic())?),
            Redelivery::Origin => Back::Origin {
                sources: ladder.sources().iter().map(|source| counted(source)).collect::<Result<_, ClientError>>()?,
                dlq: counted(&ladder.dlq_topic())?,
            },
        };
        let tiers = ladder.tiers().iter().map(|tier| counted(tier.topic())).collect::<Result<_, ClientError>>()?;
        Ok(Self { back, tiers, state: counted(&ladder.state_topic())? })
    }

    /// Looks a source up again that has not the partition which it was thought to have: it was made anew, with fewer.
    pub(super) fn recount(&mut self, target: Target, producer: &mut HopProducer) {
        let Back::Origin { sources, .. } = &mut self.back else { return };
        let Target::Source(source) = target else { return };
        let Some((topic, count)) = sources.get_mut(source) else { return };
        let name = producer.topic_name(*topic).to_owned();
        match producer.partition_count(&name) {
            Ok(now) => *count = now,
            Err(error) => tracing::debug!(%error, "source could not be looked up"),
        }
    }

    /// Whether a source has the partition that a record came from, as far as is known. (Other topics have as many as they want.)
    pub(super) fn cover(&self, target: Target, partition: i32) -> bool {
        match (target, &self.back) {
            (Target::Source(source), Back::Origin { sources, .. }) => {
                sources.get(source).is_none_or(|(_, count)| partition < *count)
            }
            _ => true,
        }
    }

    /// All that due records go to.
    pub(super) fn written(&self) -> impl Iterator<Item = TopicId> {
        let back: Vec<&(TopicId, i32)> = match &self.back {
            Back::Redeliver(topic) => vec![topic],
            Back::Origin { sources, dlq } => sources.iter().chain([dlq]).collect(),
        };
        self.tiers.iter().chain(back).map(|(topic, _)| *topic)
    }

    /// Where most of what waits in this partition of a tier goes, to tell how many partitions a transaction will touch.
    ///
    /// For origins that is a guess: a source has more partitions than the tiers, of several of which one tier partition holds
    /// records. While few records are due few are touched, and what a backlog's transactions cost, their many records share.
    pub(super) fn likely_partition(&self, partition: i32) -> i32 {
        match &self.back {
            Back::Redeliver((_, count)) => topics::target_partition(partition, *count),
            Back::Origin { .. } => partition,
        }
    }

    /// The topic, and the partition of it for what came from this partition.
    pub(super) fn resolve(&self, target: Target, partition: i32) -> (TopicId, i32) {
        let (topic, count) = match (target, &self.back) {
            (Target::Tier(number), back) => {
                let index = usize::try_from(number).unwrap_or(1).saturating_sub(1);
                self.tiers.get(index).copied().unwrap_or(back.refuge())
            }
            (Target::Source(source), Back::Origin { sources, dlq }) => sources.get(source).copied().unwrap_or(*dlq),
            (Target::Redeliver | Target::Dlq(_) | Target::Source(_), back) => back.refuge(),
        };
        (topic, topics::target_partition(partition, count))
    }
}

impl Back {
    /// Where records go that have no other place.
    fn refuge(&self) -> (TopicId, i32) {
        match self {
            Self::Redeliver(topic) | Self::Origin { dlq: topic, .. } => *topic,
        }
    }
}

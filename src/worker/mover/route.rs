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
use crate::kafka::NativeHeaders;
use crate::worker::hop::ports::RecordQueue;
use crate::worker::hop::targets::Target;
use crate::worker::mover::given_up::GivenUp;
use crate::worker::mover::lane::{Held, Lane};

/// A due record's way.
pub(super) struct Way {
    pub(super) target: Target,
    /// The source partition, or what stands for it; to be taken modulo the target's count.
    pub(super) partition: i32,
    /// The record's headers as they were.
    pub(super) headers: NativeHeaders,
    /// What is written into them; nothing where they go along unchanged.
    envelope: Option<(Envelope, Trim)>,
    /// Its envelope could not be trusted.
    pub(super) is_malformed: bool,
}

impl Way {
    /// Where a due record goes; its headers are taken out of it. While dead letters are held (`holds_dead_letters`), what waits because of
    /// that waits on.
    pub(super) fn of<Q: RecordQueue>(
        ladder: &Ladder,
        held: &mut Held<Q::Record>,
        lane: &Lane<Q>,
        now: Timestamp,
        holds_dead_letters: bool,
    ) -> Self {
        let headers = held.take_headers();
        let partition = lane.tp().partition;
        let to_origin = ladder.redelivery() == Redelivery::Origin;
        if !to_origin && envelope::glance(ladder, headers.iter()) == Glance::Plain {
            return Self { target: Target::Redeliver, partition, headers, envelope: None, is_malformed: false };
        }
        let reading = Envelope::read(ladder, &held.coordinates(lane.tp()), headers.iter());
        let is_malformed = reading.malformed.is_some();
        let mut envelope = reading.envelope;
        let given_up =
            lane.given_up.filter(|(offset, _)| *offset == held.offset).map_or(GivenUp::NOTHING, |(_, given_up)| given_up);
        let target = match next_move(ladder, envelope.not_before, now) {
            _ if envelope.held && holds_dead_letters => Target::Tier(ladder.tiers().last().map_or(1, Tier::number)),
            Move::WaitOn(tier) => Target::Tier(tier.number()),
            Move::Redeliver if !to_origin => Target::Redeliver,
            Move::Redeliver if given_up == GivenUp::Origin => Target::Dlq(Reason::Oversize, 0),
            Move::Redeliver => match ladder.origin_of(&envelope.origin) {
                Ok(source) => Target::Source(source),
                Err(error) => {
                    tracing::trace!(partition = %lane.tp(), offset = held.offset, %error, "no way back");
                    Target::Dlq(Reason::NoOrigin, 0)
                }
            },
        };
        let here = ladder.tiers().iter().find(|t| t.delay() == lane.delay).map(Tier::number);
        let (mut trim, mut partition) = (Trim::Nothing, partition);
        match target {
            Target::Tier(number) => envelope.tier = Some(number),
            Target::Dlq(reason, _) => {
                partition = envelope.origin.partition;
                envelope.tier = envelope.tier.or(here);
                envelope.reason = Some(reason);
            }
            Target::Source(_) => {
                partition = envelope.origin.partition;
                if let GivenUp::Diagnostics(given_up) = given_up {
                    trim = given_up;
                }
            }
            Target::Redeliver | Target::Outcome => envelope.tier = envelope.tier.or(here),
        }
        Self { target, partition, headers, envelope: Some((envelope, trim)), is_malformed }
    }

    /// The headers that it carries there.
    pub(super) fn into_headers(self) -> NativeHeaders {
        let mut headers = self.headers;
        let Some((envelope, trim)) = self.envelope else { return headers };
        let is_stripped = |name: &[u8]| matches!(self.target, Target::Source(_)) && dialect::is_foreign_control(name);
        headers.remove_if(|name| envelope::is_own(name) || is_stripped(name));
        for (name, value) in envelope.headers(trim) {
            headers.push(name.as_bytes(), Some(value.as_bytes()));
        }
        headers
    }
}

//! The target of a due record, and the headers that it gets.
//!
//! The target is the redeliver topic or, if configured, the record's origin topic. Then the origin of every record is parsed, and a
//! record without one goes to the DLQ, including records without headers that any client has put into a tier.
//!
//! On the way to an origin, foreign control headers are removed, which would control the framework of that topic's consumers;
//! kladder's envelope stays, so that attempts continue to count. A source accepts records of its own size only, without the header
//! budget of the ladder's topics: a record too large for it drops its diagnostics step by step, and then goes to the DLQ. So does a
//! record that the broker refuses permanently: waiting would block all records after it for ever.

use crate::core::decide::unfit;
use crate::core::dialect;
use crate::core::due::{Move, next_move};
use crate::core::envelope::{self, Envelope, Glance, Reason, Trim};
use crate::core::ladder::{Ladder, Redelivery, Tier};
use crate::core::time::Timestamp;
use crate::kafka::NativeHeaders;
use crate::worker::hop::content::keep_readable;
use crate::worker::hop::ports::RecordQueue;
use crate::worker::hop::targets::Target;
use crate::worker::mover::given_up::DroppedParts;
use crate::worker::mover::lane::{HeldRecord, Lane};

/// The route of a due record.
pub(super) struct Route {
    pub(super) target: Target,
    /// The source partition, or its substitute; taken modulo the target's count.
    pub(super) partition: i32,
    /// The record's original headers.
    pub(super) headers: NativeHeaders,
    /// The envelope to write; `None` to leave the headers unchanged.
    envelope: Option<(Envelope, Trim)>,
    /// Whether its envelope could not be trusted.
    pub(super) is_malformed: bool,
}

impl Route {
    /// The route of a due record, whose headers are taken. While dead letters are held (`holds_dead_letters`), held records wait again.
    pub(super) fn of<Q: RecordQueue>(
        ladder: &Ladder,
        held: &mut HeldRecord<Q::Record>,
        lane: &Lane<Q>,
        now: Timestamp,
        holds_dead_letters: bool,
    ) -> Self {
        let mut headers = held.take_headers();
        let partition = lane.tp().partition;
        let to_origin = ladder.redelivery() == Redelivery::Origin;
        if let Some(fault) = held.fault {
            let at = held.coordinates(lane.tp());
            let envelope = unfit(Envelope::read(ladder, &at, headers.iter()).envelope, &fault.to_string());
            keep_readable(&mut headers);
            let (target, partition) = (Target::Dlq(Reason::Poison, 0), envelope.origin.partition);
            return Self { target, partition, headers, envelope: Some((envelope, Trim::Nothing)), is_malformed: false };
        }
        if !to_origin && envelope::glance(ladder, headers.iter()) == Glance::Plain {
            return Self { target: Target::Redeliver, partition, headers, envelope: None, is_malformed: false };
        }
        let reading = Envelope::read(ladder, &held.coordinates(lane.tp()), headers.iter());
        let is_malformed = reading.malformed.is_some();
        let mut envelope = reading.envelope;
        let given_up =
            lane.given_up.filter(|(offset, _)| *offset == held.offset).map_or(DroppedParts::NOTHING, |(_, given_up)| given_up);
        let target = match next_move(ladder, envelope.not_before, now) {
            _ if envelope.held && holds_dead_letters => Target::Tier(ladder.tiers().last().map_or(1, Tier::number)),
            Move::WaitOn(tier) => Target::Tier(tier.number()),
            Move::Redeliver if !to_origin => Target::Redeliver,
            Move::Redeliver if given_up == DroppedParts::Origin => Target::Dlq(Reason::Oversize, 0),
            Move::Redeliver if matches!(given_up, DroppedParts::Refused(_)) => Target::Dlq(Reason::Refused, 0),
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
                if let DroppedParts::Refused(words) = given_up {
                    let keyless = if held.has_key() { "" } else { "; this record has no key" };
                    envelope.refusal = Some(format!("{}: {words}{keyless}", envelope.origin.topic));
                }
            }
            Target::Source(_) => {
                partition = envelope.origin.partition;
                if let DroppedParts::Diagnostics(given_up) = given_up {
                    trim = given_up;
                }
            }
            Target::Redeliver | Target::Outcome => envelope.tier = envelope.tier.or(here),
        }
        Self { target, partition, headers, envelope: Some((envelope, trim)), is_malformed }
    }

    /// The headers for the target.
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

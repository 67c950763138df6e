//! Who else is in the deliverer's group: strangers, or the deliverers of another ladder.
//!
//! Its other members would be given a part of the partitions, and what fails with them would never climb the ladder. Nothing would
//! look wrong. So a deliverer does not join a group with members that are not kladder's, nor one in which another ladder's
//! deliverers are, whom their redeliver topic tells.

use std::time::Duration;

use crate::config::KafkaConfig;
use crate::core::ladder::Ladder;
use crate::kafka::client_id;
use crate::kafka::producer::HopProducer;
use crate::topology::{foreign_members, other_ladder};
use crate::worker::error::WorkError;

/// How long the question may take.
const ASK_WITHIN: Duration = Duration::from_secs(15);

/// Makes sure that the group has no members but this ladder's. Where that may not be looked at, it is said.
pub(super) fn refuse_foreign_members(producer: &mut HopProducer, ladder: &Ladder, kafka: &KafkaConfig) -> Result<(), WorkError> {
    let group = ladder.group();
    let members = match producer.group_members(group, ASK_WITHIN) {
        Ok(members) => members,
        Err(error) if error.is_outage() => return Err(error.into()),
        Err(error) => {
            tracing::warn!(group, %error, "cannot see whether the group has members that are not kladder's, joining it anyway");
            return Ok(());
        }
    };
    if let Some(members) = foreign_members(&members, &client_id(kafka)) {
        return Err(WorkError::ForeignMembers { group: group.to_owned(), members });
    }
    let other = other_ladder(&members, ladder.name());
    other.map_or(Ok(()), |other| Err(WorkError::SharedGroup { group: group.to_owned(), other: other.to_owned() }))
}

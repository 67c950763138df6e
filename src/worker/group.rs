//! Checks the deliverer's group for foreign members and for deliverers of another ladder.
//!
//! Foreign members would be assigned a part of the partitions, and failed records there would never climb the ladder. Nothing
//! would look wrong. So a deliverer does not join a group with members other than kladder's, or with another ladder's deliverers,
//! which are recognised by their redeliver topic.

use std::time::Duration;

use crate::config::KafkaConfig;
use crate::core::ladder::Ladder;
use crate::kafka::client_id;
use crate::kafka::producer::HopProducer;
use crate::topology::{foreign_members, other_ladder};
use crate::worker::error::WorkError;

/// Time limit of the request.
const ASK_WITHIN: Duration = Duration::from_secs(15);

/// Makes sure that the group has only this ladder's members. If that may not be read, it is logged.
pub(super) fn refuse_foreign_members(producer: &mut HopProducer, ladder: &Ladder, kafka: &KafkaConfig) -> Result<(), WorkError> {
    let group = ladder.group();
    let members = match producer.group_members(group, ASK_WITHIN) {
        Ok(members) => members,
        Err(error) if error.is_outage() => return Err(error.into()),
        Err(error) => {
            tracing::warn!(group, %error, "cannot check the group for members other than kladder's, joining it anyway");
            return Ok(());
        }
    };
    if let Some(members) = foreign_members(&members, &client_id(kafka)) {
        return Err(WorkError::ForeignMembers { group: group.to_owned(), members });
    }
    let other = other_ladder(&members, ladder.name());
    other.map_or(Ok(()), |other| Err(WorkError::SharedGroup { group: group.to_owned(), other: other.to_owned() }))
}

//! Who else is in the deliverer's group.
//!
//! Its other members would be given a part of the partitions, and what fails with them would never climb the ladder. Nothing would
//! look wrong. So a deliverer does not join a group with members that are not kladder's. They are told apart by their `client.id`:
//! `kladder` unless it is configured, and one configuration is shared by a fleet.

use crate::config::KafkaConfig;
use crate::kafka::GroupMember;
use crate::kafka::client_id;
use crate::kafka::producer::HopProducer;
use crate::worker::error::WorkError;

/// So many of them are named.
const NAMED: usize = 3;

/// Makes sure that the group has no members but kladder's. Where that may not be looked at, it is said.
pub(super) fn refuse_foreign_members(producer: &mut HopProducer, group: &str, kafka: &KafkaConfig) -> Result<(), WorkError> {
    let members = match producer.group_members(group) {
        Ok(members) => members,
        Err(error) if error.is_outage() => return Err(error.into()),
        Err(error) => {
            tracing::warn!(group, %error, "cannot see whether the group has members that are not kladder's, joining it anyway");
            return Ok(());
        }
    };
    let foreign = foreigners(&members, &client_id(kafka));
    let Some(named) = foreign.get(..foreign.len().min(NAMED)).filter(|named| !named.is_empty()) else { return Ok(()) };
    let more = foreign.len() - named.len();
    let suffix = if more > 0 { format!(" and {more} more") } else { String::new() };
    Err(WorkError::ForeignMembers { group: group.to_owned(), members: named.join(", ") + &suffix })
}

fn foreigners(members: &[GroupMember], own: &str) -> Vec<String> {
    let is_foreign = |m: &&GroupMember| m.client_id != own && !m.client_id.starts_with("kladder");
    members.iter().filter(is_foreign).map(|m| format!("client.id `{}` from {}", m.client_id, m.host)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_known_by_their_client_id() {
        let member = |client_id: &str| GroupMember {
            id: "x".to_owned(),
            instance: None,
            client_id: client_id.to_owned(),
            host: "/10.0.0.7".to_owned(),
        };
        let members = ["kladder", "kladder-2", "fleet", "rdkafka", ""].map(member);
        assert_eq!(foreigners(&members, "fleet"), ["client.id `rdkafka` from /10.0.0.7", "client.id `` from /10.0.0.7"]);
        assert_eq!(foreigners(&members[..2], "kladder"), [""; 0]);
    }
}

//! Who else is in the deliverer's group: strangers, or the deliverers of another ladder.
//!
//! Its other members would be given a part of the partitions, and what fails with them would never climb the ladder. Nothing would
//! look wrong. So a deliverer does not join a group with members that are not kladder's. They are told apart by their `client.id`
//! (`kladder` unless it is configured), and where that is another on each host by the redeliver topic, which nobody else reads. Nor
//! does it join a group in which another ladder's deliverers are, whom their redeliver topic tells too.

use crate::config::KafkaConfig;
use crate::core::ladder::Ladder;
use crate::core::topics;
use crate::kafka::GroupMember;
use crate::kafka::client_id;
use crate::kafka::producer::HopProducer;
use crate::worker::error::WorkError;

/// So many of them are named.
const NAMED: usize = 3;

/// Makes sure that the group has no members but this ladder's. Where that may not be looked at, it is said.
pub(super) fn refuse_foreign_members(producer: &mut HopProducer, ladder: &Ladder, kafka: &KafkaConfig) -> Result<(), WorkError> {
    let group = ladder.group();
    let members = match producer.group_members(group) {
        Ok(members) => members,
        Err(error) if error.is_outage() => return Err(error.into()),
        Err(error) => {
            tracing::warn!(group, %error, "cannot see whether the group has members that are not kladder's, joining it anyway");
            return Ok(());
        }
    };
    let foreign = foreigners(&members, &client_id(kafka));
    if foreign.is_empty() {
        let other = other_ladder(&members, ladder.name());
        return other.map_or(Ok(()), |other| Err(WorkError::SharedGroup { group: group.to_owned(), other: other.to_owned() }));
    }
    let named = &foreign[..foreign.len().min(NAMED)];
    let more = foreign.len() - named.len();
    let suffix = if more > 0 { format!(" and {more} more") } else { String::new() };
    Err(WorkError::ForeignMembers { group: group.to_owned(), members: named.join(", ") + &suffix })
}

fn foreigners(members: &[GroupMember], own: &str) -> Vec<String> {
    let reads_ladder = |m: &GroupMember| m.topics.iter().any(|topic| topics::ladder_of_redeliver_topic(topic).is_some());
    let is_foreign = |m: &&GroupMember| m.client_id != own && !m.client_id.starts_with("kladder") && !reads_ladder(m);
    members.iter().filter(is_foreign).map(|m| format!("client.id `{}` from {}", m.client_id, m.host)).collect()
}

/// A source may be taken out of a ladder while workers still have it; only a redeliver topic says whose member it is.
fn other_ladder<'a>(members: &'a [GroupMember], own: &str) -> Option<&'a str> {
    let ladders = members.iter().flat_map(|m| &m.topics).filter_map(|topic| topics::ladder_of_redeliver_topic(topic));
    ladders.into_iter().find(|ladder| *ladder != own)
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
            topics: ["orders".to_owned()].into(),
        };
        let members = ["kladder", "kladder-2", "fleet", "rdkafka", ""].map(member);
        assert_eq!(foreigners(&members, "fleet"), ["client.id `rdkafka` from /10.0.0.7", "client.id `` from /10.0.0.7"]);
        assert_eq!(foreigners(&members[..2], "kladder"), [""; 0]);
        let of_a = [GroupMember { topics: ["orders", "a.redeliver"].map(str::to_owned).into(), ..member("host-7") }];
        assert_eq!(foreigners(&of_a, "host-8"), [""; 0]);
        assert_eq!((other_ladder(&of_a, "a"), other_ladder(&of_a, "b")), (None, Some("a")));
    }
}

//! The members of a consumer group: kladder's own, foreign ones, or deliverers of another ladder.
//!
//! Kladder's members are recognised by their `client.id` (`kladder` unless configured), and if that differs between hosts, by the
//! redeliver topic, which nobody else reads: a reader of it and members with the same `client.id` and host are kladder's.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::harmless::OneLine;
use crate::core::topics;

/// Number of members that are named.
const NAMED: usize = 3;

/// A member of a consumer group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMember {
    /// Its member id; changes each time it joins.
    pub id: String,
    /// Its group.instance.id, if it is a static member.
    pub instance: Option<String>,
    /// Its client.id.
    pub client_id: String,
    /// The host that it connects from.
    pub host: String,
    /// Its partitions, by topic.
    pub topics: BTreeMap<String, BTreeSet<i32>>,
}

/// The members that are not kladder's, in words; `None` if there are none. `own` is the `client.id` of this configuration.
#[must_use]
pub fn foreign_members(members: &[GroupMember], own: &str) -> Option<String> {
    let reads_ladder = |m: &&GroupMember| m.topics.keys().any(|topic| topics::ladder_of_redeliver_topic(topic).is_some());
    let known: BTreeSet<(&str, &str)> =
        members.iter().filter(reads_ladder).map(|m| (m.client_id.as_str(), m.host.as_str())).collect();
    let is_foreign = |m: &&GroupMember| {
        m.client_id != own && !m.client_id.starts_with("kladder") && !known.contains(&(m.client_id.as_str(), m.host.as_str()))
    };
    let told = |m: &GroupMember| format!("client.id `{}` from {}", OneLine(&m.client_id), OneLine(&m.host));
    let foreign: Vec<String> = members.iter().filter(is_foreign).map(told).collect();
    let named = foreign[..foreign.len().min(NAMED)].join(", ");
    match foreign.len() {
        0 => None,
        count if count > NAMED => Some(format!("{named} and {} more", count - NAMED)),
        _ => Some(named),
    }
}

/// The other ladder with members in this group. A source may be removed from a ladder while workers still consume it; only a
/// redeliver topic identifies the ladder.
#[must_use]
pub fn other_ladder<'a>(members: &'a [GroupMember], own: &str) -> Option<&'a str> {
    let ladders = members.iter().flat_map(|m| m.topics.keys()).filter_map(|topic| topics::ladder_of_redeliver_topic(topic));
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
            topics: [("orders".to_owned(), [0].into())].into(),
        };
        let members = ["kladder", "kladder-2", "fleet", "rdkafka", ""].map(member);
        let told = "client.id `rdkafka` from /10.0.0.7, client.id `` from /10.0.0.7";
        assert_eq!(foreign_members(&members, "fleet").as_deref(), Some(told));
        assert_eq!(foreign_members(&members[..2], "kladder"), None);
        let many = foreign_members(&["a", "b", "c", "d", "e"].map(member), "kladder").unwrap();
        assert!(many.ends_with("client.id `c` from /10.0.0.7 and 2 more"), "{many}");
        let redeliver = GroupMember { topics: [("a.redeliver".to_owned(), [0].into())].into(), ..member("host-7") };
        let of_a = [member("host-7"), redeliver];
        assert_eq!(foreign_members(&of_a, "host-8"), None);
        let elsewhere = [GroupMember { host: "/10.0.0.8".to_owned(), ..member("host-7") }, of_a[1].clone()];
        assert!(foreign_members(&elsewhere, "host-8").is_some());
        assert_eq!((other_ladder(&of_a, "a"), other_ladder(&of_a, "b")), (None, Some("a")));
    }
}

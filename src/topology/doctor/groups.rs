//! Checks of a ladder's groups: their members, the validity of their offsets, and overdue records.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::config::LadderConfig;
use crate::core::delay::format_duration;
use crate::core::ladder::{Hops, Mode};
use crate::core::time::Timestamp;
use crate::core::topics::{delay_of_tier_topic, mover_group, router_group};
use crate::topology::doctor::{Check, Finding, LadderObservation};
use crate::topology::{Desired, foreign_members, other_ladder};

/// A running mover is never that late unless something else is wrong.
const OVERDUE_AFTER: Duration = Duration::from_secs(60);

/// The groups that only kladder may join: any other member takes a part of the partitions.
#[must_use]
pub fn own_groups(config: &LadderConfig) -> [String; 2] {
    let ladder = &config.ladder;
    match ladder.mode() {
        Mode::Push => [ladder.group().to_owned(), mover_group(ladder.name())],
        // The application's group is its own.
        Mode::Relay => [router_group(ladder.name()), mover_group(ladder.name())],
    }
}

pub(super) fn members(config: &LadderConfig, seen: &LadderObservation, client_id: &str) -> Vec<Finding> {
    let ladder = &config.ladder;
    let mut findings = Vec::new();
    for group in own_groups(config) {
        let Some(members) = seen.members.get(&group) else { continue };
        if let Some(foreign) = foreign_members(members, client_id) {
            findings.push(Finding::hazard(
                Check::Members,
                &group,
                format!("the group has members other than kladder: {foreign}"),
                "they take a part of the partitions, whose failed records never reach the ladder; no deliverer starts while they are members",
                "stop them, or give the ladder its own group",
            ));
        }
        if let Some(other) = other_ladder(members, ladder.name()) {
            findings.push(Finding::hazard(
                Check::Members,
                &group,
                format!("workers of ladder {other} are also in the group"),
                "each ladder is assigned partitions of the other one's topics",
                "give each ladder its own group, or name both sources in one ladder",
            ));
        }
    }
    findings
}

/// Offsets out of range: below the first offset, or beyond the end of a recreated topic.
pub(super) fn out_of_range(
    config: &LadderConfig,
    desired: &Desired,
    seen: &LadderObservation,
    bootstrap_servers: &str,
) -> Vec<Finding> {
    let mover = mover_group(config.ladder.name());
    let configured = desired.offsets.iter().map(|o| (o.group.as_str(), o.topic.as_str()));
    let tiers = seen.standing.topics.keys().filter(|t| delay_of_tier_topic(config.ladder.name(), t).is_some());
    let pairs: BTreeSet<(&str, &str)> = configured.chain(tiers.map(|t| (mover.as_str(), t.as_str()))).collect();
    let mut findings = Vec::new();
    for (group, topic) in pairs {
        let Some(facts) = seen.standing.topics.get(topic) else { continue };
        let stands = (0..).zip(&facts.partitions).filter_map(|(p, marks)| {
            let offset = seen.standing.offset(group, topic, p)?;
            Some((p, offset, *marks))
        });
        let stands: Vec<_> = stands.collect();
        let remedy = format!(
            "set an offset, while no member runs: kafka-consumer-groups.sh --bootstrap-server {bootstrap_servers} --group \
             {group} --topic {topic} --reset-offsets --to-earliest --execute (or --to-latest, --to-datetime TIME)"
        );
        let above: Vec<_> = stands.iter().filter(|(_, offset, marks)| *offset > marks.high).collect();
        if let Some((p, offset, marks)) = above.first() {
            findings.push(Finding::hazard(
                Check::Offsets,
                topic,
                format!("group {group} has offset {offset} on partition {p}, which ends at {}{}", marks.high, more(above.len())),
                "the topic was recreated or has lost its last records: the group stops there, or skips records that it has not read",
                &remedy,
            ));
        }
        // The last offset of a transaction is its marker, which an application does not commit past: it is not a record.
        let is_hop_target = desired.topics.iter().any(|t| t.name == topic) && topic != config.ladder.inbox_topic();
        let markers = i64::from(is_hop_target && config.ladder.hops() == Hops::ExactlyOnce);
        let below: Vec<_> = stands.iter().filter(|(_, offset, marks)| marks.low - offset > markers).collect();
        if let Some((p, offset, marks)) = below.first() {
            findings.push(Finding::hazard(
                Check::Offsets,
                topic,
                format!(
                    "group {group} has offset {offset} on partition {p}, which begins at {}{}: {} offsets are lost",
                    marks.low,
                    more(below.len()),
                    below.iter().map(|(_, offset, marks)| marks.low - offset).sum::<i64>()
                ),
                "records were deleted before they were read; the group stops there, or continues after them",
                &remedy,
            ));
        }
    }
    findings
}

fn more(partitions: usize) -> String {
    if partitions > 1 { format!(" (and so on {} more)", partitions - 1) } else { String::new() }
}

/// Records that are long overdue, above all because no mover runs.
pub(super) fn overdue(config: &LadderConfig, seen: &LadderObservation, now: Timestamp) -> Vec<Finding> {
    let ladder = &config.ladder;
    let group = mover_group(ladder.name());
    let is_held = seen.state.as_ref().is_some_and(crate::core::state::LadderState::is_held);
    let mut findings = Vec::new();
    for (topic, appended) in &seen.oldest {
        let Some(delay) = delay_of_tier_topic(ladder.name(), topic) else { continue };
        let late = now.since(*appended + delay.duration());
        if late <= OVERDUE_AFTER {
            continue;
        }
        let late = format_duration(Duration::from_secs(late.as_secs()));
        match seen.members.get(&group).map(Vec::len) {
            Some(0) => findings.push(Finding::hazard(
                Check::Overdue,
                topic,
                format!("the oldest record was due {late} ago, and group {group} has no members"),
                "no mover runs: waiting records are not redelivered",
                "start a worker with the role mover: kladder run",
            )),
            // The hold is a finding of its own.
            _ if is_held => {}
            Some(count) => findings.push(Finding::note(
                Check::Overdue,
                topic,
                format!("the oldest record was due {late} ago, although group {group} has members ({count})"),
                Some("check kladder_lateness_seconds and the workers' logs: the mover is behind, or cannot write".to_owned()),
            )),
            None => findings.push(Finding::note(
                Check::Overdue,
                topic,
                format!("the oldest record was due {late} ago; it is unknown whether a mover runs"),
                Some("make sure that a worker with the role mover runs".to_owned()),
            )),
        }
    }
    findings
}

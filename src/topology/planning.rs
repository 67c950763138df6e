//! Makes the plan: pure, so that its idempotence is a property test.

use std::collections::BTreeMap;

use crate::config::Start;
use crate::core::ladder::Mode;
use crate::core::state::StateValue;
use crate::core::topics::{delay_of_tier_topic, mover_group, redeliver_topic, state_topic};
use crate::topology::compare::compare;
use crate::topology::desired::MIN_INSYNC_REPLICAS;
use crate::topology::{
    Change, Desired, DesiredOffsets, DesiredTopic, Drift, LadderPlan, Limits, Note, Observed, Plan, Position, Refusal, StartRule,
    TopicFacts, Totals,
};

/// Compares what the ladders need with what exists.
#[must_use]
pub fn plan(desired: &[Desired], observed: &Observed, limits: &Limits) -> Plan {
    let ladders: Vec<LadderPlan> = desired.iter().map(|d| plan_ladder(d, observed, limits)).collect();
    let totals = totals(desired, observed);
    let grows =
        ladders.iter().flat_map(|l| &l.changes).any(|c| matches!(c, Change::CreateTopic { .. } | Change::AddPartitions { .. }));
    let mut refusals = Vec::new();
    if grows && totals.partitions > i64::from(limits.max_partitions) {
        refusals.push(Refusal {
            subject: "--max-partitions".to_owned(),
            problem: format!("{} partitions in total are more than {}", totals.partitions, limits.max_partitions),
            remedy: "reduce them with [ladder.NAME.topics] partitions = N, or raise --max-partitions".to_owned(),
        });
    }
    Plan { ladders, totals, refusals }
}

fn totals(desired: &[Desired], observed: &Observed) -> Totals {
    let mut totals = Totals::default();
    for topic in desired.iter().flat_map(|d| &d.topics) {
        let facts = observed.topics.get(&topic.name);
        let partitions = i64::from(facts.map_or(topic.partitions, |f| f.partition_count().max(topic.partitions)));
        totals.topics += 1;
        totals.partitions += partitions;
        totals.replicas += partitions * i64::from(facts.map_or(topic.replication_factor, |f| f.replication_factor));
    }
    totals
}

fn plan_ladder(desired: &Desired, observed: &Observed, limits: &Limits) -> LadderPlan {
    let mut plan = LadderPlan {
        ladder: desired.ladder.clone(),
        group: desired.group.clone(),
        changes: Vec::new(),
        drift: Vec::new(),
        caps: Vec::new(),
        refusals: Vec::new(),
        notes: desired.hazards.iter().map(|text| note(&desired.ladder, text.clone())).collect(),
    };
    for source in &desired.missing_sources {
        plan.refusals.push(Refusal {
            subject: source.clone(),
            problem: "source topic does not exist, or Describe is not permitted".to_owned(),
            remedy:
                "create it, correct `sources`, or allow Describe and DescribeConfigs on it (kladder generate acls --role setup)"
                    .to_owned(),
        });
    }
    if let Some(inbox) = &desired.missing_inbox {
        plan.refusals.push(Refusal {
            subject: inbox.clone(),
            problem: "the dead-letter topic does not exist, or Describe is not permitted".to_owned(),
            remedy:
                "let its framework create it, correct its name in the configuration, or allow Describe and DescribeConfigs on it (kladder generate acls \
                     --role setup)"
                    .to_owned(),
        });
    }
    let mut counts: BTreeMap<&str, i32> = observed.topics.iter().map(|(name, t)| (name.as_str(), t.partition_count())).collect();
    for topic in &desired.topics {
        let partitions = plan_topic(&mut plan, topic, observed, limits);
        counts.insert(&topic.name, partitions);
    }
    plan_owner(&mut plan, desired, observed, limits);
    // A tier removed from the configuration must still be emptied, so the mover needs a start offset on it.
    let removed = removed_tiers(desired, observed);
    for topic in &removed {
        let waiting = observed.waiting(&mover_group(&desired.ladder), topic);
        let text = if waiting == 0 {
            "is no longer configured and holds no waiting records: it may be deleted once no worker has it configured".to_owned()
        } else {
            format!(
                "is no longer configured, holds about {waiting} waiting records and is still emptied by the mover: it is not dropped"
            )
        };
        plan.notes.push(note(topic, text));
    }
    plan.notes.extend(left_behind(desired, observed));
    let mover = mover_group(&desired.ladder);
    let strays = removed.iter().map(|t| DesiredOffsets { group: mover.clone(), topic: t.clone(), start: StartRule::Oldest });
    for offsets in desired.offsets.iter().cloned().chain(strays) {
        if let Some(count) = counts.get(offsets.topic.as_str()) {
            plan_offsets(&mut plan, desired, &offsets, *count, observed, limits);
        }
    }
    plan
}

/// Two groups never share a ladder: they would take each other's records. A ladder without an owner record is claimed by the
/// group that sets it up next.
fn plan_owner(plan: &mut LadderPlan, desired: &Desired, observed: &Observed, limits: &Limits) {
    // Its topics depend on the sources: without any there is nothing to own yet.
    let topic = state_topic(&desired.ladder);
    if desired.topics.is_empty() || desired.group.is_empty() {
        return;
    }
    let group = desired.group.clone();
    let (from, problem) = match observed.owners.get(&desired.ladder) {
        None | Some(StateValue::Absent) => {
            plan.changes.push(Change::Claim { topic, group, from: None });
            return;
        }
        Some(StateValue::Read(owner)) if owner.group == group => return,
        Some(StateValue::Read(owner)) => {
            let from = format!("group {}", owner.group);
            (from.clone(), format!("the ladder belongs to {from}, not to group {group}"))
        }
        Some(StateValue::Unreadable(error)) => {
            let problem = format!("the owner record of the ladder cannot be read: {error}");
            ("an unreadable record".to_owned(), problem)
        }
    };
    if limits.take_over {
        plan.changes.push(Change::Claim { topic, group, from: Some(from) });
        return;
    }
    plan.refusals.push(Refusal {
        subject: topic,
        problem,
        remedy: format!(
            "give this ladder another name, or correct `group` of [ladder.{}]; if group {group} is to own it from now on, stop the \
             workers of the other group and run kladder setup --take-over --ladder {}",
            desired.ladder, desired.ladder
        ),
    });
}

/// A redeliver topic from before redelivery to the origins.
fn left_behind(desired: &Desired, observed: &Observed) -> Option<Note> {
    let redeliver = redeliver_topic(&desired.ladder);
    if desired.topics.is_empty() || desired.topics.iter().any(|topic| topic.name == redeliver) {
        return None;
    }
    observed.topics.get(&redeliver)?;
    let text = match observed.waiting(&desired.group, &redeliver) {
        0 => "is no longer used, since records are redelivered to their origins: it may be deleted once no worker has it configured"
            .to_owned(),
        waiting => format!(
            "is no longer used, since records are redelivered to their origins, and holds about {waiting} records that group {} has not \
             read: let it read them first",
            desired.group
        ),
    };
    Some(note(&redeliver, text))
}

fn removed_tiers(desired: &Desired, observed: &Observed) -> Vec<String> {
    let is_tier = |name: &&String| delay_of_tier_topic(&desired.ladder, name).is_some();
    let is_configured = |name: &str| desired.offsets.iter().any(|o| o.topic == name);
    observed.topics.keys().filter(is_tier).filter(|name| !is_configured(name)).cloned().collect()
}

/// Plans one topic and returns the number of partitions that it will have.
fn plan_topic(plan: &mut LadderPlan, topic: &DesiredTopic, observed: &Observed, limits: &Limits) -> i32 {
    let Some(facts) = observed.topics.get(&topic.name) else {
        plan.refusals.extend(refused_writes(topic));
        plan.changes.push(Change::CreateTopic {
            topic: topic.name.clone(),
            partitions: topic.partitions,
            replication_factor: topic.replication_factor,
            settings: topic.settings_to_make(),
        });
        return topic.partitions;
    };
    let found = compare(topic, facts, observed, limits);
    plan.drift.extend(found.drift);
    plan.caps.extend(found.caps);
    plan.refusals.extend(found.refusals);
    let (have, want) = (facts.partition_count(), topic.partitions);
    if have < want {
        plan.changes.push(Change::AddPartitions { topic: topic.name.clone(), have, want });
    } else if have > want {
        plan.notes
            .push(note(&topic.name, format!("has {have} partitions where {want} would suffice: partitions cannot be removed")));
    }
    have.max(want)
}

/// A minimum of in-sync replicas above their number refuses every write. Values derived from the source never do
/// that.
fn refused_writes(topic: &DesiredTopic) -> Option<Refusal> {
    let made = topic.settings_to_make();
    let min_insync = made.get(MIN_INSYNC_REPLICAS)?;
    (min_insync.parse::<i32>().ok()? > topic.replication_factor).then(|| Refusal {
        subject: topic.name.clone(),
        problem: format!(
            "{MIN_INSYNC_REPLICAS}={min_insync} is more than its replication factor of {}: every write would be refused",
            topic.replication_factor
        ),
        remedy: "lower it in `settings`, or raise `replication_factor`, of [ladder.NAME.topics]".to_owned(),
    })
}

fn plan_offsets(
    plan: &mut LadderPlan,
    desired: &Desired,
    offsets: &DesiredOffsets,
    count: i32,
    observed: &Observed,
    limits: &Limits,
) {
    let DesiredOffsets { group, topic, start } = offsets;
    let partitions: Vec<i32> = (0..count).filter(|p| observed.offset(group, topic, *p).is_none()).collect();
    if partitions.is_empty() {
        return;
    }
    let has_none = i32::try_from(partitions.len()) == Ok(count);
    let at = match start {
        StartRule::Configured(_) if !has_none => Position::Oldest,
        StartRule::Oldest | StartRule::Configured(Some(Start::Earliest)) => Position::Oldest,
        StartRule::Configured(Some(Start::Latest)) => Position::End,
        StartRule::Configured(None) => {
            plan.refusals.push(Refusal {
                subject: topic.clone(),
                problem: format!("group {group} has no offsets on it, and `start` is not set"),
                remedy: format!("add start = \"earliest\" or \"latest\" to [ladder.{}]", desired.ladder),
            });
            return;
        }
    };
    let members = observed.groups.get(group).map_or(0, |g| g.members);
    if members > 0 {
        refuse_active_group(plan, desired, offsets, members, limits);
        return;
    }
    if let Some(facts) = observed.topics.get(topic) {
        note_existing_records(plan, offsets, at, &partitions, facts);
    }
    plan.changes.push(Change::CommitOffsets { group: group.clone(), topic: topic.clone(), at, partitions });
}

/// Kafka accepts offsets from outside only for a group without members. For the ladder's own groups that is a refusal: they would
/// find partitions without an offset. In relay mode the redeliver topic is read by the application's group, which need not be
/// stopped before the topics even exist.
fn refuse_active_group(plan: &mut LadderPlan, desired: &Desired, offsets: &DesiredOffsets, members: usize, limits: &Limits) {
    let DesiredOffsets { group, topic, .. } = offsets;
    if desired.mode == Mode::Relay && *group == desired.group {
        plan.drift.push(Drift {
            topic: topic.clone(),
            setting: format!("offsets of group {group}"),
            have: format!("none, and {members} active members"),
            want: "the oldest record (stop the members, or let them start with auto.offset.reset=earliest)".to_owned(),
            command: format!(
                "kafka-consumer-groups.sh --bootstrap-server {} --group {group} --topic {topic} --reset-offsets --to-earliest --execute",
                limits.bootstrap_servers
            ),
        });
        return;
    }
    plan.refusals.push(Refusal {
        subject: topic.clone(),
        problem: format!("group {group} lacks offsets on it, and none can be set while it has {members} active members"),
        remedy:
            "stop the group's members and run setup again; a worker's name stays in its group for ten seconds after it has ended"
                .to_owned(),
    });
}

fn note_existing_records(plan: &mut LadderPlan, offsets: &DesiredOffsets, at: Position, partitions: &[i32], facts: &TopicFacts) {
    let marks = (0..).zip(&facts.partitions).filter(|(p, _)| partitions.contains(p));
    let held: i64 = marks.map(|(_, w)| w.high - w.low).sum();
    if held == 0 {
        return;
    }
    let DesiredOffsets { group, topic, .. } = offsets;
    let text = match at {
        Position::Oldest => {
            format!("group {group} has no offsets there: about {held} existing records will be read from the oldest")
        }
        Position::End => format!("group {group} has no offsets there: about {held} existing records will be skipped"),
    };
    plan.notes.push(note(topic, text));
}

fn note(subject: &str, text: String) -> Note {
    Note { subject: subject.to_owned(), text }
}

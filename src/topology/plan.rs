//! What must be done to a cluster so that the ladders find what they need.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::config::Start;
use crate::core::delay::Delay;
use crate::core::ladder::Mode;
use crate::core::topics::{delay_of_tier_topic, mover_group};
use crate::topology::compare::compare;
use crate::topology::{Desired, DesiredOffsets, DesiredTopic, Observed, StartRule, TopicFacts};

/// The whole plan. With a refusal in it nothing of it is carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// What each ladder needs.
    pub ladders: Vec<LadderPlan>,
    /// What the ladders' own topics come to, once the plan is applied.
    pub totals: Totals,
    /// What is refused of the whole.
    pub refusals: Vec<Refusal>,
}

/// The plan for one ladder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LadderPlan {
    /// The ladder's name.
    pub ladder: String,
    /// The group that it belongs to.
    pub group: String,
    /// What setup will do, in this order.
    pub changes: Vec<Change>,
    /// What differs and somebody else must change.
    pub drift: Vec<Drift>,
    /// Why nothing will be done.
    pub refusals: Vec<Refusal>,
    /// What is worth knowing.
    pub notes: Vec<Note>,
}

/// Something that setup does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum Change {
    /// A topic is made.
    CreateTopic {
        /// The topic.
        topic: String,
        /// How many partitions it gets.
        partitions: i32,
        /// How many replicas each of them gets.
        replication_factor: i32,
        /// Its settings.
        settings: BTreeMap<String, String>,
    },
    /// A topic gets more partitions.
    AddPartitions {
        /// The topic.
        topic: String,
        /// How many it has.
        have: i32,
        /// How many it gets.
        want: i32,
    },
    /// A group gets an offset on partitions where it has none.
    CommitOffsets {
        /// The group.
        group: String,
        /// The topic.
        topic: String,
        /// Where it starts.
        at: Position,
        /// On these partitions.
        partitions: Vec<i32>,
    },
}

/// A place in a partition that is looked up when the plan is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Position {
    /// The oldest record.
    Oldest,
    /// The next record to be produced.
    End,
}

/// A setting that differs, and the command that alters it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Drift {
    /// The topic.
    pub topic: String,
    /// What differs.
    pub setting: String,
    /// What it is.
    pub have: String,
    /// What it should be.
    pub want: String,
    /// Alters exactly that.
    pub command: String,
}

/// Why the plan is not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// The topic, group or option.
    pub subject: String,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
}

/// Something worth knowing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    /// The topic or ladder.
    pub subject: String,
    /// What is worth knowing of it.
    pub text: String,
}

/// What the ladders' own topics come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Topics.
    pub topics: i64,
    /// Partitions of them.
    pub partitions: i64,
    /// Replicas of those.
    pub replicas: i64,
}

/// What a plan keeps to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// No plan adds to more partitions than that in total.
    pub max_partitions: u32,
    /// The brokers' addresses, for the commands that it prints.
    pub bootstrap_servers: String,
}

impl Plan {
    /// Nothing to do, nothing that differs, nothing refused.
    #[must_use]
    pub fn is_in_order(&self) -> bool {
        !self.is_refused() && !self.has_changes() && !self.has_drift()
    }

    /// Whether it must not be carried out.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        !self.refusals.is_empty() || self.ladders.iter().any(|l| !l.refusals.is_empty())
    }

    /// Whether there is something to carry out.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        self.changes().next().is_some()
    }

    /// Whether something differs that somebody else must change.
    #[must_use]
    pub fn has_drift(&self) -> bool {
        self.ladders.iter().any(|l| !l.drift.is_empty())
    }

    /// All changes, ladder by ladder.
    pub fn changes(&self) -> impl Iterator<Item = &Change> {
        self.ladders.iter().flat_map(|l| &l.changes)
    }
}

/// Compares what the ladders need with what there is.
#[must_use]
pub fn plan(desired: &[Desired], observed: &Observed, limits: &Limits) -> Plan {
    let ladders: Vec<LadderPlan> = desired.iter().map(|d| plan_ladder(d, observed, limits)).collect();
    let totals = totals(desired, observed);
    let grows = ladders.iter().flat_map(|l| &l.changes).any(|c| !matches!(c, Change::CommitOffsets { .. }));
    let mut refusals = Vec::new();
    if grows && totals.partitions > i64::from(limits.max_partitions) {
        refusals.push(Refusal {
            subject: "--max-partitions".to_owned(),
            problem: format!("{} partitions in total are more than {}", totals.partitions, limits.max_partitions),
            remedy: "give the ladders fewer with [ladder.NAME.topics] partitions = N, or raise --max-partitions".to_owned(),
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
        refusals: Vec::new(),
        notes: desired.hazards.iter().map(|text| note(&desired.ladder, text.clone())).collect(),
    };
    for source in &desired.missing_sources {
        plan.refusals.push(Refusal {
            subject: source.clone(),
            problem: "source topic does not exist, or may not be described".to_owned(),
            remedy: "create it, correct `sources`, or allow Describe and DescribeConfigs on it (kladder generate acls --role setup)"
                .to_owned(),
        });
    }
    let mut counts: BTreeMap<&str, i32> = observed.topics.iter().map(|(name, t)| (name.as_str(), t.partition_count())).collect();
    for topic in &desired.topics {
        let partitions = plan_topic(&mut plan, topic, observed.topics.get(&topic.name), limits);
        counts.insert(&topic.name, partitions);
    }
    // A tier that was taken out of the configuration still waits to be emptied, so its mover needs a place to start from.
    let removed = removed_tiers(desired, observed);
    for topic in removed.keys() {
        let waiting = observed.waiting(&mover_group(&desired.ladder), topic);
        let text = if waiting == 0 {
            "is no longer configured and holds nothing that waits: it may be deleted once no worker still has it configured".to_owned()
        } else {
            format!("is no longer configured, holds about {waiting} waiting records and is still emptied by the mover: it is not dropped")
        };
        plan.notes.push(note(topic, text));
    }
    let mover = mover_group(&desired.ladder);
    let strays = removed.keys().map(|t| DesiredOffsets { group: mover.clone(), topic: t.clone(), start: StartRule::Oldest });
    for offsets in desired.offsets.iter().cloned().chain(strays) {
        if let Some(count) = counts.get(offsets.topic.as_str()) {
            plan_offsets(&mut plan, desired, &offsets, *count, observed, limits);
        }
    }
    plan
}

fn removed_tiers(desired: &Desired, observed: &Observed) -> BTreeMap<String, Delay> {
    let is_desired = |name: &str| desired.topics.iter().any(|t| t.name == name) || desired.offsets.iter().any(|o| o.topic == name);
    let tiers = observed.topics.keys().filter(|name| !is_desired(name));
    tiers.filter_map(|name| Some((name.clone(), delay_of_tier_topic(&desired.ladder, name)?))).collect()
}

/// Plans one topic and tells how many partitions it will have.
fn plan_topic(plan: &mut LadderPlan, topic: &DesiredTopic, facts: Option<&TopicFacts>, limits: &Limits) -> i32 {
    let Some(facts) = facts else {
        plan.changes.push(Change::CreateTopic {
            topic: topic.name.clone(),
            partitions: topic.partitions,
            replication_factor: topic.replication_factor,
            settings: topic.settings.clone(),
        });
        return topic.partitions;
    };
    let found = compare(topic, facts, limits);
    plan.drift.extend(found.drift);
    plan.refusals.extend(found.refusals);
    let (have, want) = (facts.partition_count(), topic.partitions);
    if have < want {
        plan.changes.push(Change::AddPartitions { topic: topic.name.clone(), have, want });
    } else if have > want {
        plan.notes.push(note(&topic.name, format!("has {have} partitions where {want} would do: partitions cannot be taken away")));
    }
    have.max(want)
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
        StartRule::Oldest => Position::Oldest,
        StartRule::Configured(_) if !has_none => Position::Oldest,
        StartRule::Configured(Some(Start::Earliest)) => Position::Oldest,
        StartRule::Configured(Some(Start::Latest)) => Position::End,
        StartRule::Configured(None) => {
            plan.refusals.push(Refusal {
                subject: topic.clone(),
                problem: format!("group {group} has no offsets on it, and nothing says where to start"),
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

/// Kafka takes offsets from outside only for a group without members. For the ladder's own groups that is a reason to stop: they
/// would meet partitions without an offset. In relay the redeliver topic is read by the application's group, which is none of ours
/// to stop before the topics even exist.
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
        problem: format!("group {group} lacks offsets on it and has {members} active members, so that none can be set"),
        remedy: "stop the group's members and run setup again".to_owned(),
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
        Position::Oldest => format!("group {group} has no offsets there: about {held} records that it holds will be read from the oldest"),
        Position::End => format!("group {group} has no offsets there: about {held} records that it holds will be skipped"),
    };
    plan.notes.push(note(topic, text));
}

fn note(subject: &str, text: String) -> Note {
    Note { subject: subject.to_owned(), text }
}

//! One observation of the ladders as it is drawn: plain data, from a cluster or from anywhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::config::LadderConfig;
use crate::core::harmless::on_one_line;
use crate::core::ladder::{Ladder, Mode};
use crate::core::role::Role;
use crate::core::state::LadderState;
use crate::core::time::Timestamp;
use crate::core::topics::worker_of_member;
use crate::observe::{self, GroupSeen, HandlerSeen, LadderFacts, Lateness, Part, QueueFacts, TierFacts, Unseen, held_text};
use crate::topology::ClusterError;

/// One observation of all ladders shown.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TopObservation {
    /// When it was made, by the clock of this process.
    pub at: Timestamp,
    /// In the order in which they are numbered.
    pub ladders: Vec<LadderSeen>,
    /// Address of the worker whose metrics were read; `None` if none answered, and then its data is unknown.
    pub worker: Option<String>,
}

/// One ladder.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LadderSeen {
    pub name: String,
    pub mode: Mode,
    pub group: String,
    pub hold: HoldSeen,
    /// Until when dead letters are held in the largest tier, by whom and why; `None` if they are not.
    pub dead_letters_held: Option<String>,
    /// The handler of the worker that answered.
    pub handler: Option<HandlerSeen>,
    /// The workers that report their handler as down.
    pub handlers_down: Vec<String>,
    pub sources: Vec<QueueSeen>,
    /// The inbox (relay).
    pub inbox: Option<QueueSeen>,
    pub tiers: Vec<TierSeen>,
    pub redeliver: Option<QueueSeen>,
    pub dead_letters: Option<DeadLetters>,
    /// Members of the ladder's groups; `None` if unknown.
    pub members: Option<Vec<MemberSeen>>,
    /// What could not be observed, in words.
    pub notes: Vec<String>,
}

/// Whether a ladder is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum HoldSeen {
    /// Unknown.
    Unknown,
    /// Not held.
    Running,
    /// Held, with the text that says since when and by whom.
    Held(String),
}

/// A topic and the group that consumes it. Counts are in offsets, so they include transaction
/// markers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct QueueSeen {
    pub topic: String,
    /// Records that the group has not finished.
    pub waiting: i64,
    /// Sum of the end offsets of all partitions: two observations give the rate in.
    pub ends: i64,
    /// Sum of the group's offsets: two observations give the rate out.
    pub done: i64,
}

/// A tier.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TierSeen {
    pub queue: QueueSeen,
    pub delay: Duration,
    /// How many of the waiting records are due.
    pub due: i64,
    /// When the oldest waiting record is due, by the clock of this process.
    pub next_due: Option<Timestamp>,
    /// Since the start of the worker that answered.
    pub lateness: Option<Lateness>,
}

/// The dead letters of all dead-letter topics of a ladder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct DeadLetters {
    /// Records still in the topics.
    pub records: i64,
    /// Sum of the end offsets of all partitions.
    pub ends: i64,
    /// Open letters, if a worker counts them.
    pub open: Option<i64>,
}

/// A member of one of the ladder's groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MemberSeen {
    /// The worker's instance name, or the client's own name.
    pub worker: String,
    /// The host that it connects from.
    pub host: String,
    /// deliverer, mover, router, or application.
    pub role: &'static str,
    /// Its partitions, by topic.
    pub partitions: BTreeMap<String, BTreeSet<i32>>,
}

impl TopObservation {
    /// From an observation of these ladders, with the address of the worker whose metrics were read.
    ///
    /// # Errors
    /// Something could not be read for another reason than a missing permission.
    pub fn of(
        mut observed: observe::Observation,
        ladders: &[LadderConfig],
        worker: Option<String>,
    ) -> Result<Self, ClusterError> {
        let facts = std::mem::take(&mut observed.ladders);
        let ladders = ladders.iter().zip(facts).map(|(config, facts)| ladder(&config.ladder, facts, &observed));
        Ok(Self { at: observed.at, ladders: ladders.collect::<Result<_, _>>()?, worker })
    }
}

fn ladder(ladder: &Ladder, facts: LadderFacts, observed: &observe::Observation) -> Result<LadderSeen, ClusterError> {
    let mut notes = Vec::new();
    let all = ladder.sources().iter().cloned().chain(ladder.tiers().iter().map(|tier| tier.topic().to_owned()));
    let missing: Vec<String> = all.chain([ladder.state_topic()]).filter(|topic| !observed.has(topic)).collect();
    if !missing.is_empty() {
        notes.push(format!("{} does not exist, or may not be described: run kladder setup", missing.join(", ")));
    }
    // Without all groups, the list would look as if it were whole.
    let mut members = Some(members(ladder, facts.members));
    for Unseen { part, error } in facts.unseen {
        let note = match (part, error) {
            (Part::Members(_), _) if members.is_none() => continue,
            // Not every broker supports this; the rest was answered and is still shown.
            (Part::Members(_), ClusterError::Unsupported { .. }) => "this broker does not support describing groups".to_owned(),
            (Part::Members(_), error) => format!("the workers are unknown: {error}"),
            // A missing permission hides nothing else; any other error fails the whole observation.
            (Part::State, error @ ClusterError::NotAuthorised { .. }) => {
                notes.push(format!("whether the ladder is held is unknown: {error}"));
                continue;
            }
            (Part::Oldest(_), error @ ClusterError::NotAuthorised { .. }) => {
                notes.push(format!("the due time of the next record is unknown: {error}"));
                continue;
            }
            (Part::State | Part::Oldest(_), error) => return Err(error),
        };
        notes.push(note);
        members = None;
    }
    let (state, now) = (facts.state.as_ref(), observed.at);
    Ok(LadderSeen {
        name: ladder.name().to_owned(),
        mode: ladder.mode(),
        group: ladder.group().to_owned(),
        hold: state.map_or(HoldSeen::Unknown, |state| hold(state, now)),
        dead_letters_held: state
            .and_then(|state| state.dead_letters_held_until(now))
            .map(|(until, record)| record.text(until, now)),
        handler: facts.handler,
        handlers_down: state.map(handlers_down).unwrap_or_default(),
        sources: facts.sources.into_iter().map(queue).collect(),
        inbox: facts.inbox.map(queue),
        tiers: facts.tiers.into_iter().map(tier).collect(),
        redeliver: facts.redeliver.map(queue),
        dead_letters: dead_letters(&facts.dead_letters, facts.open_dead_letters),
        members,
        notes,
    })
}

/// `HELD since …` without its first word, which the picture adds itself.
fn hold(state: &LadderState, now: Timestamp) -> HoldSeen {
    let Some(told) = held_text(state, now) else { return HoldSeen::Running };
    HoldSeen::Held(told.strip_prefix("HELD ").map(str::to_owned).unwrap_or(told))
}

/// The workers that report their handler as down.
fn handlers_down(state: &LadderState) -> Vec<String> {
    state.handlers_down.keys().map(|worker| on_one_line(worker)).collect()
}

fn queue(facts: QueueFacts) -> QueueSeen {
    let QueueFacts { topic, waiting, ends, done, .. } = facts;
    QueueSeen { topic, waiting, ends, done }
}

fn tier(facts: TierFacts) -> TierSeen {
    let TierFacts { queue: facts, delay, due, next_due, lateness, .. } = facts;
    TierSeen { queue: queue(facts), delay: delay.duration(), due, next_due, lateness }
}

fn dead_letters(topics: &[QueueFacts], open: Option<f64>) -> Option<DeadLetters> {
    let (records, ends) = (topics.iter().map(|queue| queue.waiting).sum(), topics.iter().map(|queue| queue.ends).sum());
    (!topics.is_empty()).then(|| DeadLetters { records, ends, open: open.map(count_of) })
}

fn members(ladder: &Ladder, groups: Vec<GroupSeen>) -> Vec<MemberSeen> {
    let consumed = ladder.consumed_topics();
    let mut members: Vec<MemberSeen> = Vec::new();
    for GroupSeen { role, members: found, .. } in groups {
        let role = role.map_or("application", Role::as_str);
        for member in found {
            let name = member.instance.as_deref().map(|name| worker_of_member(name, &consumed).to_owned());
            let (worker, partitions) = (on_one_line(&name.unwrap_or(member.client_id)), member.topics);
            // A deliverer has one member per topic.
            let is_same = |known: &&mut MemberSeen| known.role == role && known.worker == worker && known.host == member.host;
            match members.iter_mut().find(is_same) {
                Some(known) => known.partitions.extend(partitions),
                None => members.push(MemberSeen { worker, host: member.host, role, partitions }),
            }
        }
    }
    members
}

/// A gauge that holds a count.
fn count_of(gauge: f64) -> i64 {
    // Whole numbers are written without a point, and no topic has so many records that a float would round
    // them.
    format!("{gauge:.0}").parse().unwrap_or(0)
}

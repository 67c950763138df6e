//! What the plan of `setup` finds, weighed.

use std::time::Duration;

use crate::config::LadderConfig;
use crate::core::topics::TopicRole;
use crate::topology::desired::{
    CLEANUP_POLICY, MIN_INSYNC_REPLICAS, REPLICATION_FACTOR, RETENTION_BYTES, RETENTION_MS, TIMESTAMP_TYPE,
};
use crate::topology::doctor::{Check, Finding};
use crate::topology::{Change, Desired, Drift, LadderPlan, Observed, Refusal, lost_offsets};

/// Retention that is shorter than what is configured is drift; records are in danger where it leaves no more than this beyond the
/// delay.
const MARGIN: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) fn of_plan(
    config: &LadderConfig,
    desired: &Desired,
    plan: &LadderPlan,
    observed: &Observed,
    bootstrap_servers: &str,
) -> Vec<Finding> {
    let mut findings: Vec<Finding> = plan.refusals.iter().map(|refusal| refused(config, desired, refusal)).collect();
    findings.extend(plan.drift.iter().map(|drift| drifted(config, desired, drift)));
    findings.extend(missing(config, desired, plan, observed));
    for lost in lost_offsets(plan, bootstrap_servers) {
        findings.push(Finding::hazard(
            Check::Offsets,
            &lost.topic,
            format!("group {} has no offsets on it, although the ladder is set up", lost.group),
            "they were deleted or have expired, unless it is a new source: no worker starts, since records would be skipped or moved again",
            format!("decide where to go on, while no worker runs: {}", lost.remedy()),
        ));
    }
    // What setup would note of a ladder that it has yet to make is not found in one.
    if !plan.changes.iter().any(|change| matches!(change, Change::CreateTopic { .. })) {
        findings.extend(plan.notes.iter().map(|note| Finding::note(Check::Setup, &note.subject, &note.text, None)));
    }
    findings
}

fn refused(config: &LadderConfig, desired: &Desired, refusal: &Refusal) -> Finding {
    let Refusal { subject, problem, remedy } = refusal;
    let (check, why) = if *subject == config.ladder.state_topic() {
        (
            Check::Owner,
            "two groups on one ladder take each other's records, so the workers of this one do not start or stand still",
        )
    } else if desired.topics.iter().any(|topic| topic.name == *subject) {
        (Check::Settings, "no worker starts while it is so; those that run go on with it")
    } else {
        (Check::Setup, "no worker starts while it is so")
    };
    Finding::hazard(check, subject, problem, why, remedy)
}

fn drifted(config: &LadderConfig, desired: &Desired, drift: &Drift) -> Finding {
    let Drift { topic, setting, have, want, command } = drift;
    let problem = format!("{setting} is {have} where {want} is needed");
    let role = desired.topics.iter().find(|t| t.name == *topic).map(|t| &t.role);
    match role.and_then(|role| loses_records(config, role, drift)) {
        Some(why) => Finding::hazard(Check::Settings, topic, problem, why, command),
        None => {
            Finding::note(Check::Settings, topic, problem, Some(format!("{command} (`kladder setup` tells all that differs)")))
        }
    }
}

/// Why a difference is more than one, where it is.
fn loses_records(config: &LadderConfig, role: &TopicRole, drift: &Drift) -> Option<&'static str> {
    let have: Option<i128> = drift.have.parse().ok();
    let is_less = || have.zip(drift.want.parse().ok()).is_some_and(|(have, want)| have < want);
    match (drift.setting.as_str(), role) {
        (RETENTION_MS, TopicRole::Tier(_) | TopicRole::Redeliver | TopicRole::Inbox) => {
            let delay = if let TopicRole::Tier(delay) = role { delay.duration() } else { Duration::ZERO };
            let least = delay.saturating_add(MARGIN.min(config.topics.outage_budget)).as_millis();
            have.is_some_and(|have| u128::try_from(have).is_ok_and(|have| have < least))
                .then_some("records that wait out an outage, or a hold, of a day are deleted before anybody has read them")
        }
        (RETENTION_BYTES, _) => Some("the oldest records are deleted by size, however long they have still to be kept"),
        (TIMESTAMP_TYPE, TopicRole::Redeliver | TopicRole::Inbox) => {
            Some("retention counts from what producers say: a record with an old time is deleted before anybody has read it")
        }
        (CLEANUP_POLICY, TopicRole::State) => Some("whether the ladder is held, and whose it is, is deleted after a time"),
        (MIN_INSYNC_REPLICAS, _) if is_less() => {
            Some("a record that fewer brokers have confirmed than those of the source can be lost with them")
        }
        (MIN_INSYNC_REPLICAS, _) => Some("more replicas in sync are asked for than there are: every write is refused"),
        (REPLICATION_FACTOR, _) if is_less() => Some("a disk that is lost takes records along that the source would have kept"),
        _ => None,
    }
}

/// What `setup` would still make.
fn missing(config: &LadderConfig, desired: &Desired, plan: &LadderPlan, observed: &Observed) -> Vec<Finding> {
    let name = config.ladder.name();
    let setup = "kladder setup";
    let topic_of = |change: &Change| match change {
        Change::CreateTopic { topic, .. } => Some(topic.clone()),
        _ => None,
    };
    let topics: Vec<String> = plan.changes.iter().filter_map(topic_of).collect();
    if !topics.is_empty() {
        let problem = if topics.len() == desired.topics.len() {
            "the ladder is not set up".to_owned()
        } else {
            format!("topics of the ladder are missing, or may not be described: {}", topics.join(", "))
        };
        return vec![Finding::hazard(Check::Setup, name, problem, "no worker starts without them", setup)];
    }
    let mut findings = Vec::new();
    let is_unowned = plan.changes.iter().any(|change| matches!(change, Change::Claim { .. }));
    if is_unowned && observed.topics.contains_key(&config.ladder.state_topic()) {
        findings.push(Finding::hazard(
            Check::Owner,
            &config.ladder.state_topic(),
            "nothing says whom the ladder belongs to",
            "workers of another group, which would take each other's records, are not refused",
            format!("{setup} puts group {} down", config.ladder.group()),
        ));
    }
    let has_grown = |change: &Change| matches!(change, Change::AddPartitions { .. } | Change::CommitOffsets { .. });
    if plan.changes.iter().any(|change| has_grown(change) && !change.is_missing()) {
        let text = "the sources have more partitions than when the ladder was set up; workers take them up nevertheless";
        findings.push(Finding::note(Check::Setup, name, text, Some(format!("{setup} makes the ladder grow along"))));
    }
    findings
}

//! Findings from the plan of `setup`, with their severity.

use std::time::Duration;

use crate::config::LadderConfig;
use crate::core::topics::TopicRole;
use crate::topology::desired::{
    CLEANUP_POLICY, MIN_INSYNC_REPLICAS, REPLICATION_FACTOR, RETENTION_BYTES, RETENTION_MS, TIMESTAMP_TYPE,
};
use crate::topology::doctor::{Check, Finding};
use crate::topology::{Cap, Change, Desired, Drift, LadderPlan, Observed, Refusal, lost_offsets};

/// Retention shorter than configured is drift; records are in danger if it leaves no more than this in addition to the delay.
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
    findings.extend(plan.caps.iter().map(|cap| capped(config, desired, cap)));
    findings.extend(missing(config, desired, plan, observed));
    for lost in lost_offsets(plan, bootstrap_servers) {
        findings.push(Finding::hazard(
            Check::Offsets,
            &lost.topic,
            format!("group {} has no offsets on it, although the ladder is set up", lost.group),
            "they were deleted or have expired, unless it is a new source: no worker starts, since records would be skipped or repeated",
            format!("set an offset, while no worker runs: {}", lost.remedy()),
        ));
    }
    // Notes about topics that setup has yet to create do not concern a missing ladder.
    if !plan.changes.iter().any(|change| matches!(change, Change::CreateTopic { .. })) {
        findings.extend(plan.notes.iter().map(|note| Finding::note(Check::Setup, &note.subject, &note.text, None)));
    }
    findings
}

fn refused(config: &LadderConfig, desired: &Desired, refusal: &Refusal) -> Finding {
    let Refusal { subject, problem, remedy } = refusal;
    let (check, why) = if *subject == config.ladder.state_topic() {
        (Check::Owner, "two groups on one ladder take each other's records, so the workers of this one do not start, or stop")
    } else if desired.topics.iter().any(|topic| topic.name == *subject) {
        (Check::Settings, "no worker starts until it is fixed; running workers continue")
    } else {
        (Check::Setup, "no worker starts until it is fixed")
    };
    Finding::hazard(check, subject, problem, why, remedy)
}

fn drifted(config: &LadderConfig, desired: &Desired, drift: &Drift) -> Finding {
    let Drift { topic, setting, have, want, command } = drift;
    let problem = format!("{setting} is {have}, but {want} is needed");
    let role = desired.topics.iter().find(|t| t.name == *topic).map(|t| &t.role);
    match role.and_then(|role| loses_records(config, role, setting, have, want)) {
        Some(why) => Finding::hazard(Check::Settings, topic, problem, why, command),
        None => {
            Finding::note(Check::Settings, topic, problem, Some(format!("{command} (`kladder setup` lists all differences)")))
        }
    }
}

/// Nobody can change it, so if it loses records the ladder's configuration must be lowered to it.
fn capped(config: &LadderConfig, desired: &Desired, cap: &Cap) -> Finding {
    let Cap { topic, setting, have, want, words } = cap;
    let problem = format!("{setting} is {have}, but {want} is needed, which the cluster does not accept: {words}");
    let role = desired.topics.iter().find(|t| t.name == *topic).map(|t| &t.role);
    match role.and_then(|role| loses_records(config, role, setting, have, want)) {
        Some(why) => {
            let remedy = "lower tiers, outage_budget or settings of [ladder.NAME.topics] to what the cluster accepts, or \
                          ask its operators";
            Finding::hazard(Check::Settings, topic, problem, why, remedy)
        }
        None => Finding::note(Check::Settings, topic, problem, None),
    }
}

/// Why a difference is a hazard, if it is.
fn loses_records(config: &LadderConfig, role: &TopicRole, setting: &str, have: &str, want: &str) -> Option<&'static str> {
    let (have, want) = (have.parse::<i128>().ok(), want.parse::<i128>().ok());
    let is_less = || have.zip(want).is_some_and(|(have, want)| have < want);
    match (setting, role) {
        (RETENTION_MS, TopicRole::Tier(_) | TopicRole::Redeliver | TopicRole::Inbox) => {
            let delay = if let TopicRole::Tier(delay) = role { delay.duration() } else { Duration::ZERO };
            let least = delay.saturating_add(MARGIN.min(config.topics.outage_budget)).as_millis();
            have.is_some_and(|have| u128::try_from(have).is_ok_and(|have| have < least))
                .then_some("records that wait through an outage or a hold of a day are deleted before they are read")
        }
        (RETENTION_BYTES, _) => Some("the oldest records are deleted by size, even if their retention time has not passed"),
        (TIMESTAMP_TYPE, TopicRole::Redeliver | TopicRole::Inbox) => {
            Some("retention counts from the producer's timestamp: a record with an old one is deleted before it is read")
        }
        (CLEANUP_POLICY, TopicRole::State) => Some("the hold and owner records are deleted after a time"),
        (MIN_INSYNC_REPLICAS, _) if is_less() => {
            Some("a record confirmed by fewer brokers than on the source can be lost with them")
        }
        (MIN_INSYNC_REPLICAS, _) => Some("it is more than the number of replicas: every write is refused"),
        (REPLICATION_FACTOR, _) if is_less() => Some("a lost disk loses records that the source would have kept"),
        _ => None,
    }
}

/// What `setup` would still create.
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
            "the ladder has no owner record",
            "workers of another group are not refused, and would take this group's records",
            format!("{setup} records group {} as the owner", config.ladder.group()),
        ));
    }
    let has_grown = |change: &Change| matches!(change, Change::AddPartitions { .. } | Change::CommitOffsets { .. });
    if plan.changes.iter().any(|change| has_grown(change) && !change.is_missing()) {
        let text = "the sources have more partitions than when the ladder was set up; workers consume them nevertheless";
        findings.push(Finding::note(Check::Setup, name, text, Some(format!("{setup} adds partitions to the ladder's topics"))));
    }
    findings
}

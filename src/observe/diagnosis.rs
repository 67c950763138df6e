//! The checks of `kladder doctor` on a ladder of a cluster.

use crate::config::{KafkaConfig, LadderConfig};
use crate::kafka::client_id;
use crate::observe::facts::{LadderFacts, Part, Unseen};
use crate::observe::observer::{Depth, Observer};
use crate::observe::scrape::Samples;
use crate::topology::doctor::{self, Check, Diagnosis, Finding, LadderObservation};
use crate::topology::{self, Cluster, ClusterError};

/// Checks one ladder. What may not be read is reported as unchecked; the rest is still checked. `samples` are the metrics of a
/// worker.
///
/// # Errors
/// The cluster does not answer.
pub fn diagnose(kafka: &KafkaConfig, config: &LadderConfig, samples: Option<&Samples>) -> Result<Diagnosis, ClusterError> {
    let mut observer = Observer::connect(kafka, &[config])?;
    match look(&mut observer, config, samples) {
        Ok((seen, now)) => Ok(doctor::examine(config, &seen, &client_id(kafka), kafka.brokers(), now)),
        Err(error @ ClusterError::NotAuthorised { .. }) => Ok(unseen(config, &error.to_string())),
        Err(error) => Err(error),
    }
}

fn unseen(config: &LadderConfig, reason: &str) -> Diagnosis {
    let ladder = &config.ladder;
    Diagnosis {
        ladder: ladder.name().to_owned(),
        group: ladder.group().to_owned(),
        findings: vec![Finding::unchecked(Check::Setup, ladder.name(), "the ladder could not be checked", reason)],
    }
}

/// Missing permissions, which leave only their part unchecked.
fn denied(check: Check, subject: &str, what: &str, error: ClusterError) -> Result<Finding, ClusterError> {
    match error {
        ClusterError::NotAuthorised { .. } => Ok(Finding::unchecked(check, subject, what, &error.to_string())),
        error => Err(error),
    }
}

fn look(
    observer: &mut Observer,
    config: &LadderConfig,
    samples: Option<&Samples>,
) -> Result<(LadderObservation, crate::core::time::Timestamp), ClusterError> {
    let mut unchecked = Vec::new();
    let (cluster, scope) = (observer.cluster(), observer.scope());
    let (mut observed, settings) = match cluster.observe(scope) {
        Ok(observed) => (observed, true),
        Err(error) => {
            let what = "the settings of the topics could not be read";
            unchecked.push(denied(Check::Settings, config.ladder.name(), what, error)?);
            (cluster.look_without_settings(scope)?, false)
        }
    };
    if settings {
        let desired = topology::desired(config, &observed.topics);
        topology::ask_caps(std::slice::from_ref(&desired), &mut observed, cluster)?;
    }
    let observation = observer.look(samples, Depth { members: true, former_tiers: true, exact: false })?;
    let facts = observation.ladders.into_iter().next().unwrap_or_default();
    let LadderFacts { state, tiers, former_tiers, headers_missing, members, unseen, .. } = facts;
    let own_groups = doctor::own_groups(config);
    for Unseen { part, error } in unseen {
        unchecked.push(match part {
            Part::State => return Err(error),
            Part::Members(group) if !own_groups.contains(&group) => continue,
            Part::Members(group) => denied(Check::Members, &group, "the group's members could not be read", error)?,
            Part::Oldest(topic) => denied(Check::Overdue, &topic, "overdue records could not be looked up", error)?,
        });
    }
    let members = members.into_iter().filter(|seen| own_groups.contains(&seen.group));
    let tiers = tiers.into_iter().chain(former_tiers);
    let seen = LadderObservation {
        observed,
        settings,
        standing: observation.standing,
        state,
        members: members.map(|seen| (seen.group, seen.members)).collect(),
        oldest: tiers.filter_map(|tier| Some((tier.queue.topic, tier.oldest?))).collect(),
        headers_missing,
        unchecked,
    };
    Ok((seen, observation.at))
}

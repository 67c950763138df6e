//! What workers need of the cluster before they start: the check for it, and, from code, what `kladder setup` does.
//!
//! Half a ladder would look like a whole one, so nothing starts without all of it. What has grown since it was set up stops nobody:
//! a fleet must be able to restart at any time.

use std::collections::BTreeMap;
use std::fmt;

use thiserror::Error;

use crate::config::{KafkaConfig, LadderConfig, RedriveConfig, Start, TopicsConfig};
use crate::core::ladder::Ladder;
use crate::kafka::admin::KafkaCluster;
use crate::topology::{self, Change, Cluster, ClusterError, LadderPlan, Limits, LostOffsets, Observed, Plan, Refusal, Scope};

/// What code sets up at once is one ladder; more partitions than this are a slip.
const MAX_PARTITIONS: u32 = 1_000;

/// A ladder was not set up, or could not be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SetUpError {
    /// The cluster could not be asked, or refused something.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// Something is missing, or in the way.
    #[error(transparent)]
    NotSetUp(#[from] NotSetUp),
}

/// What a ladder lacks.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct NotSetUp {
    /// What is in the way, with the remedy of each.
    pub refusals: Vec<Refusal>,
    /// What is missing and would be made by setting the ladder up.
    pub missing: Vec<Change>,
    /// Offsets that are gone although the ladder was set up.
    pub lost: Vec<LostOffsets>,
}

impl fmt::Display for NotSetUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the ladder is not set up")?;
        for refusal in &self.refusals {
            write!(f, "; {}: {} ({})", refusal.subject, refusal.problem, refusal.remedy)?;
        }
        for change in &self.missing {
            write!(f, "; missing: {change}")?;
        }
        if !self.lost.is_empty() {
            return self.lost.iter().try_for_each(|lost| write!(f, "; {lost}"));
        }
        if self.missing.is_empty() { Ok(()) } else { f.write_str("; run `kladder setup`, or call `kladder::set_up` before") }
    }
}

/// Sets a ladder up, as `kladder setup --yes` does: makes its topics, puts down whose it is, and commits where its groups start.
/// Done again it changes nothing. It never touches a source topic, which has to exist, and never alters a setting of a topic that
/// exists.
///
/// Partitions and replicas follow the sources. `start` is where the group begins on a source on which it has no offsets.
///
/// # Errors
/// When the cluster cannot be reached or refuses something, or when something is in the way, above all a missing source; then
/// nothing was changed.
pub async fn set_up(ladder: &Ladder, kafka: &KafkaConfig, start: Start) -> Result<(), SetUpError> {
    let (config, kafka) = (config_of(ladder, start), kafka.clone());
    let made = tokio::task::spawn_blocking(move || make(&config, &kafka)).await;
    made.unwrap_or_else(|ended| match ended.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        // The runtime itself ends.
        Err(_) => {
            Err(ClusterError::Failed { action: "set the ladder up".to_owned(), reason: "the runtime has ended".to_owned() }
                .into())
        }
    })
}

/// A ladder that was built in code, with what a configuration would say besides.
pub(crate) fn config_of(ladder: &Ladder, start: Start) -> LadderConfig {
    LadderConfig {
        ladder: ladder.clone(),
        start: Some(start),
        handler: None,
        breaker: None,
        dlq_breaker: None,
        redrive: RedriveConfig::default(),
        topics: TopicsConfig::default(),
    }
}

fn make(config: &LadderConfig, kafka: &KafkaConfig) -> Result<(), SetUpError> {
    apply(config, kafka, &KafkaCluster::connect(kafka)?)
}

/// Sets a ladder up on a cluster that was reached; [`set_up`] says what that means.
///
/// # Errors
/// As [`set_up`].
pub(crate) fn apply(config: &LadderConfig, kafka: &KafkaConfig, cluster: &dyn Cluster) -> Result<(), SetUpError> {
    let make_plan = || -> Result<Plan, ClusterError> {
        let observed = cluster.observe(&Scope::of(&[config]))?;
        Ok(plan(&[config], &observed, kafka, MAX_PARTITIONS))
    };
    let plan = make_plan()?;
    tell_drift(&plan);
    not_refused(&plan)?;
    if !plan.has_changes() {
        return Ok(());
    }
    topology::apply(&plan, cluster, |step| tracing::debug!(?step, "setting the ladder up"))?;
    // What was made must be what was asked for: others may have been at it at the same time.
    let after = make_plan()?;
    not_refused(&after)?;
    let missing: Vec<Change> = after.changes().cloned().collect();
    if missing.is_empty() { Ok(()) } else { Err(NotSetUp { refusals: Vec::new(), missing, lost: Vec::new() }.into()) }
}

fn not_refused(plan: &Plan) -> Result<(), NotSetUp> {
    let refusals = refusals(plan);
    if refusals.is_empty() { Ok(()) } else { Err(NotSetUp { refusals, missing: Vec::new(), lost: Vec::new() }) }
}

/// Whether the workers of these ladders will find what they need. What differs without stopping anybody is logged.
///
/// # Errors
/// When the cluster cannot be asked, and when something is missing.
pub fn check(kafka: &KafkaConfig, ladders: &[&LadderConfig]) -> Result<(), SetUpError> {
    let cluster = KafkaCluster::connect(kafka)?;
    let mut observed = match cluster.observe(&Scope::of(ladders)) {
        Ok(observed) => observed,
        Err(ClusterError::NotAuthorised { .. }) => match cluster.look_without_settings(&Scope::of(ladders)) {
            Ok(observed) => {
                tracing::info!(
                    "the settings of the topics are not checked: that takes DescribeConfigs, which a worker can do without"
                );
                observed
            }
            Err(error @ ClusterError::NotAuthorised { .. }) => {
                // A worker of one role may not see what the others need, and will tell what it lacks itself.
                tracing::warn!(%error, "cannot check whether the ladders are set up");
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        },
        Err(error) => return Err(error.into()),
    };
    // Setup needs groups without members; a worker is about to be one.
    observed.groups.values_mut().for_each(|group| group.members = 0);
    let plan = plan(ladders, &observed, kafka, u32::MAX);
    tell_drift(&plan);
    let missing: Vec<Change> = plan.changes().filter(|change| change.is_missing()).cloned().collect();
    let has_grown = |change: &Change| matches!(change, Change::AddPartitions { .. } | Change::CommitOffsets { .. });
    if missing.is_empty() && plan.changes().any(has_grown) {
        tracing::warn!("sources have more partitions than when the ladder was set up: `kladder setup` makes it grow along");
    }
    for change in plan.changes() {
        if let Change::Claim { topic, group, .. } = change {
            tracing::warn!(topic, group, "nothing says yet whom the ladder belongs to: `kladder setup` puts the group down");
        }
    }
    let refusals = refusals(&plan);
    if refusals.is_empty() && missing.is_empty() {
        return Ok(());
    }
    let lost = plan.ladders.iter().flat_map(|ladder| topology::lost_offsets(ladder, kafka.brokers())).collect();
    Err(NotSetUp { refusals, missing, lost }.into())
}

/// In how many things the cluster differs from what each of the ladders asks for, by their names, as `kladder setup --dry-run` lists
/// them. That a group is at work is none.
///
/// # Errors
/// When the cluster cannot be asked, or does not let something be seen.
pub(crate) fn differences(kafka: &KafkaConfig, ladders: &[&LadderConfig]) -> Result<BTreeMap<String, usize>, ClusterError> {
    let cluster = KafkaCluster::connect(kafka)?;
    let mut observed = cluster.observe(&Scope::of(ladders))?;
    observed.groups.values_mut().for_each(|group| group.members = 0);
    let plan = plan(ladders, &observed, kafka, u32::MAX);
    let differences = |ladder: &LadderPlan| ladder.changes.len() + ladder.drift.len() + ladder.refusals.len();
    Ok(plan.ladders.iter().map(|ladder| (ladder.ladder.clone(), differences(ladder))).collect())
}

fn plan(ladders: &[&LadderConfig], observed: &Observed, kafka: &KafkaConfig, max_partitions: u32) -> Plan {
    let desired: Vec<_> = ladders.iter().map(|l| topology::desired(l, &observed.topics)).collect();
    let limits = Limits { max_partitions, take_over: false, bootstrap_servers: kafka.brokers().to_owned() };
    topology::plan(&desired, observed, &limits)
}

fn tell_drift(plan: &Plan) {
    for drift in plan.ladders.iter().flat_map(|ladder| &ladder.drift) {
        tracing::warn!(
            topic = drift.topic,
            setting = drift.setting,
            have = drift.have,
            want = drift.want,
            "topic differs from what the ladder needs: `kladder setup` says how to mend it"
        );
    }
}

fn refusals(plan: &Plan) -> Vec<Refusal> {
    plan.refusals.iter().chain(plan.ladders.iter().flat_map(|l| &l.refusals)).cloned().collect()
}

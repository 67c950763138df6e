//! What workers need in the cluster before they start: the check for it, and `kladder setup` from code.
//! Half a ladder would look like a whole one, so no worker starts without all of it. Partitions added since setup stop no worker: a
//! fleet must be able to restart at any time.

use std::collections::BTreeMap;
use std::fmt;

use thiserror::Error;

use crate::config::{KafkaConfig, LadderConfig, RedriveConfig, Start, TopicsConfig};
use crate::core::ladder::Ladder;
use crate::kafka::admin::KafkaCluster;
use crate::topology::{self, Change, Cluster, ClusterError, LadderPlan, Limits, LostOffsets, Observed, Plan, Refusal, Scope};

/// Limit for setup from code, which sets up one ladder; more partitions are probably a mistake.
const MAX_PARTITIONS: u32 = 1_000;

/// A ladder was not set up, or could not be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SetUpError {
    /// The cluster did not answer, or refused a request.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// Something is missing, or refused.
    #[error(transparent)]
    NotSetUp(#[from] NotSetUp),
}

/// What a ladder lacks.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct NotSetUp {
    /// Refusals, each with its remedy.
    pub refusals: Vec<Refusal>,
    /// What is missing and would be created by setup.
    pub missing: Vec<Change>,
    /// Offsets that are missing although the ladder was set up.
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

/// Sets up a ladder, as `kladder setup --yes` does: creates its topics, records its owner, and commits start offsets. Running it
/// again changes nothing. Source topics, which must exist, and settings of existing topics are never changed.
///
/// Partitions and replicas follow the sources. `start` is where the group begins on a source without offsets.
///
/// # Errors
/// The cluster cannot be reached or refuses a request, or the plan is refused, usually because of a missing source; then
/// nothing was changed.
pub async fn set_up(ladder: &Ladder, kafka: &KafkaConfig, start: Start) -> Result<(), SetUpError> {
    let (config, kafka) = (config_of(ladder, start), kafka.clone());
    let made = tokio::task::spawn_blocking(move || make(&config, &kafka)).await;
    made.unwrap_or_else(|ended| match ended.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        // The runtime is shutting down.
        Err(_) => {
            Err(ClusterError::Failed { action: "set the ladder up".to_owned(), reason: "the runtime has ended".to_owned() }
                .into())
        }
    })
}

/// A ladder built in code, with the settings that a configuration would have.
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

/// Sets up a ladder on a connected cluster; see [`set_up`].
///
/// # Errors
/// As [`set_up`].
pub(crate) fn apply(config: &LadderConfig, kafka: &KafkaConfig, cluster: &dyn Cluster) -> Result<(), SetUpError> {
    let make_plan = || -> Result<Plan, ClusterError> {
        let mut observed = cluster.observe(&Scope::of(&[config]))?;
        let mut plan = plan(&[config], &mut observed, kafka, MAX_PARTITIONS, cluster)?;
        topology::ask_first(&mut plan, cluster)?;
        Ok(plan)
    };
    let plan = make_plan()?;
    tell_drift(&plan);
    not_refused(&plan)?;
    if !plan.has_changes() {
        return Ok(());
    }
    topology::apply(&plan, cluster, |step| tracing::debug!(?step, "setting the ladder up"))?;
    // Everything must be as planned: others may have changed the cluster at the same time.
    let after = make_plan()?;
    not_refused(&after)?;
    let missing: Vec<Change> = after.changes().cloned().collect();
    if missing.is_empty() { Ok(()) } else { Err(NotSetUp { refusals: Vec::new(), missing, lost: Vec::new() }.into()) }
}

fn not_refused(plan: &Plan) -> Result<(), NotSetUp> {
    let refusals = refusals(plan);
    if refusals.is_empty() { Ok(()) } else { Err(NotSetUp { refusals, missing: Vec::new(), lost: Vec::new() }) }
}

/// Checks that the workers of these ladders find what they need. Differences that stop no worker are logged.
///
/// # Errors
/// The cluster does not answer, or something is missing.
pub fn check(kafka: &KafkaConfig, ladders: &[&LadderConfig]) -> Result<(), SetUpError> {
    let cluster = KafkaCluster::connect(kafka)?;
    let mut observed = match cluster.observe(&Scope::of(ladders)) {
        Ok(observed) => observed,
        Err(ClusterError::NotAuthorised { .. }) => match cluster.look_without_settings(&Scope::of(ladders)) {
            Ok(observed) => {
                tracing::info!("topic settings are not checked: that needs DescribeConfigs, which a worker does not require");
                observed
            }
            Err(error @ ClusterError::NotAuthorised { .. }) => {
                // A worker of one role may not see what other roles need, and reports missing permissions
                // itself.
                tracing::warn!(%error, "cannot check whether the ladders are set up");
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        },
        Err(error) => return Err(error.into()),
    };
    // Setup needs groups without members; a worker is about to be one.
    observed.groups.values_mut().for_each(|group| group.members = 0);
    let plan = plan(ladders, &mut observed, kafka, u32::MAX, &cluster)?;
    tell_drift(&plan);
    let missing: Vec<Change> = plan.changes().filter(|change| change.is_missing()).cloned().collect();
    let has_grown = |change: &Change| matches!(change, Change::AddPartitions { .. } | Change::CommitOffsets { .. });
    if missing.is_empty() && plan.changes().any(has_grown) {
        tracing::warn!(
            "sources have more partitions than when the ladder was set up: `kladder setup` adds partitions to its topics"
        );
    }
    for change in plan.changes() {
        if let Change::Claim { topic, group, .. } = change {
            tracing::warn!(topic, group, "the ladder has no owner record yet: `kladder setup` records its group");
        }
    }
    let refusals = refusals(&plan);
    if refusals.is_empty() && missing.is_empty() {
        return Ok(());
    }
    let lost = plan.ladders.iter().flat_map(|ladder| topology::lost_offsets(ladder, kafka.brokers())).collect();
    Err(NotSetUp { refusals, missing, lost }.into())
}

/// The number of differences between the cluster and the needs of each ladder, by name, as `kladder setup --dry-run` lists them.
/// Running group members are not a difference.
///
/// # Errors
/// The cluster does not answer, or does not permit reading something.
pub(crate) fn differences(kafka: &KafkaConfig, ladders: &[&LadderConfig]) -> Result<BTreeMap<String, usize>, ClusterError> {
    let cluster = KafkaCluster::connect(kafka)?;
    let mut observed = cluster.observe(&Scope::of(ladders))?;
    observed.groups.values_mut().for_each(|group| group.members = 0);
    let plan = plan(ladders, &mut observed, kafka, u32::MAX, &cluster)?;
    let differences = |ladder: &LadderPlan| ladder.changes.len() + ladder.drift.len() + ladder.refusals.len();
    Ok(plan.ladders.iter().map(|ladder| (ladder.ladder.clone(), differences(ladder))).collect())
}

/// The plan, in which values that the cluster does not accept are not drift.
fn plan(
    ladders: &[&LadderConfig],
    observed: &mut Observed,
    kafka: &KafkaConfig,
    max_partitions: u32,
    cluster: &dyn Cluster,
) -> Result<Plan, ClusterError> {
    let desired: Vec<_> = ladders.iter().map(|l| topology::desired(l, &observed.topics)).collect();
    topology::ask_caps(&desired, observed, cluster)?;
    let limits = Limits { max_partitions, take_over: false, bootstrap_servers: kafka.brokers().to_owned() };
    Ok(topology::plan(&desired, observed, &limits))
}

fn tell_drift(plan: &Plan) {
    for drift in plan.ladders.iter().flat_map(|ladder| &ladder.drift) {
        tracing::warn!(
            topic = drift.topic,
            setting = drift.setting,
            have = drift.have,
            want = drift.want,
            "topic differs from what the ladder needs: `kladder setup` shows how to fix it"
        );
    }
}

fn refusals(plan: &Plan) -> Vec<Refusal> {
    plan.refusals.iter().chain(plan.ladders.iter().flat_map(|l| &l.refusals)).cloned().collect()
}

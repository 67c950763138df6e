//! Administration of a real cluster: implements [`Cluster`] of the topology.
//!
//! Blocking, for the command line. Nothing here alters the settings of an existing topic: the client's `alter_configs` is the
//! legacy call that resets every setting not passed to it.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::admin::AdminClient;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList, TopicPartitionListElem};

use crate::config::KafkaConfig;
use crate::core::backoff::Doubling;
use crate::core::leader_clock::LocalTime;
use crate::core::state::{OWNER_KEY, OwnerRecord};
use crate::kafka::client_config::{consumer_config, observing, producer_config};
use crate::kafka::clock::Clock;
use crate::kafka::error::{ClientError, is_denial};
use crate::kafka::ffi;
use crate::kafka::ffi::admin::{Denial, Earnest, TopicToMake, validate_setting};
use crate::kafka::group_offsets::GroupOffsets;
use crate::kafka::trial;
use crate::kafka::watch::Watch;
use crate::topology::{Change, Cluster, ClusterError, Observed, Position, Refused, RefusedFor, Scope};

/// Time limit of connecting.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// Time limit of a request to the cluster.
pub(super) const ASK_WITHIN: Duration = Duration::from_secs(15);
/// Time limit for new partitions to get leaders.
const USABLE_WITHIN: Duration = Duration::from_secs(30);

/// A connected cluster.
pub struct KafkaCluster {
    pub(super) kafka: KafkaConfig,
    /// Without a group: for metadata and offsets.
    pub(super) client: BaseConsumer<Watch>,
    pub(super) admin: AdminClient<Watch>,
    pub(super) watch: Watch,
    pub(super) clock: Clock,
    runtime: tokio::runtime::Runtime,
}

impl KafkaCluster {
    /// Connects, and makes sure that a broker answers.
    ///
    /// # Errors
    /// The properties are refused, no broker answers within 10 s, or authentication fails.
    pub fn connect(kafka: &KafkaConfig) -> Result<Self, ClusterError> {
        for properties in [kafka.for_consumer(), kafka.for_producer()] {
            trial::login(&properties).map_err(|reason| ClusterError::Settings { reason })?;
        }
        let watch = Watch::default();
        let client = observing(consumer_config(kafka)).create_with_context(watch.clone()).map_err(|e| settings_refused(&e))?;
        let admin = producer_config(kafka).create_with_context(watch.clone()).map_err(|e| settings_refused(&e))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(|error| ClusterError::Failed { action: "start a runtime".to_owned(), reason: error.to_string() })?;
        let cluster = Self { kafka: kafka.clone(), client, admin, watch, clock: Clock::system(), runtime };
        cluster.reach()?;
        Ok(cluster)
    }

    /// In short rounds, since librdkafka's connection errors are only received between them.
    fn reach(&self) -> Result<(), ClusterError> {
        let deadline = self.deadline(CONNECT_WITHIN);
        let mut rounds = Doubling::new(Duration::from_millis(500), CONNECT_WITHIN);
        loop {
            let round = rounds.take().min(self.left(deadline));
            match self.client.fetch_metadata(None, round) {
                Ok(_) => return Ok(()),
                Err(error) if !is_unreachable(&error) => return Err(self.error("read the metadata", &error)),
                Err(_) => {}
            }
            self.listen();
            if let Some(refusal) = self.watch.refusal(self.kafka.brokers()) {
                return Err(refusal);
            }
            if self.left(deadline).is_zero() {
                return Err(self.watch.nobody(self.kafka.brokers(), CONNECT_WITHIN));
            }
        }
    }

    /// Serves received events; [`Watch`] stores the relevant ones.
    fn listen(&self) {
        // An event consumed internally looks like none, so an empty result does not mean the end.
        for _ in 0..32 {
            let _ = self.client.poll(Duration::ZERO);
        }
    }

    pub(super) fn deadline(&self, within: Duration) -> LocalTime {
        let micros = i64::try_from(within.as_micros()).unwrap_or(i64::MAX);
        LocalTime::from_micros(self.clock.now().as_micros().saturating_add(micros))
    }

    pub(super) fn left(&self, deadline: LocalTime) -> Duration {
        deadline.since(self.clock.now())
    }

    /// A client for the offsets of a group. Its connection errors count as those of the cluster.
    pub(super) fn group_offsets(&self, group: &str) -> Result<GroupOffsets, ClusterError> {
        GroupOffsets::watched(&self.kafka, group, self.watch.clone()).map_err(|error| settings_refused(&error))
    }

    /// Why there was no answer, as far as reported.
    fn refusal(&self, action: &str) -> Option<ClusterError> {
        let brokers = self.kafka.brokers();
        self.watch.refusal(brokers).or_else(|| self.watch.advertised(action, brokers))
    }

    /// Converts an error for the operator.
    pub(super) fn error(&self, action: &str, error: &KafkaError) -> ClusterError {
        self.listen();
        if is_unreachable(error)
            && let Some(refusal) = self.refusal(action)
        {
            return refusal;
        }
        error.rdkafka_error_code().map_or_else(
            || ClusterError::Failed { action: action.to_owned(), reason: error.to_string() },
            |code| Self::code(action, code),
        )
    }

    pub(super) fn code(action: &str, code: RDKafkaErrorCode) -> ClusterError {
        use RDKafkaErrorCode as Code;
        let (action, reason) = (action.to_owned(), code.to_string());
        match code {
            Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed | Code::ClusterAuthorizationFailed => {
                ClusterError::NotAuthorised { action, reason }
            }
            Code::UnsupportedFeature => ClusterError::Unsupported { action },
            _ => ClusterError::Failed { action, reason },
        }
    }

    /// Runs an admin call, which is a future only because its answer comes from another thread.
    pub(super) fn wait<T>(&self, call: impl Future<Output = Result<T, KafkaError>>, action: &str) -> Result<T, ClusterError> {
        self.runtime.block_on(call).map_err(|error| self.error(action, &error))
    }

    /// Looks up offsets, for all partitions in one round trip per broker.
    pub(super) fn offsets(&self, wanted: &[(&str, i32, Offset)], action: &str) -> Result<Vec<Offset>, ClusterError> {
        self.patiently(action, || self.offsets_within(wanted, ASK_WITHIN))
    }

    /// Repeats a request while its error is temporary.
    pub(super) fn patiently<T>(&self, action: &str, ask: impl Fn() -> KafkaResult<T>) -> Result<T, ClusterError> {
        let deadline = self.deadline(ASK_WITHIN);
        loop {
            match ask() {
                Err(error) if is_passing(&error) && !self.left(deadline).is_zero() => {
                    std::thread::sleep(Duration::from_millis(100));
                }
                answer => return answer.map_err(|error| self.error(action, &error)),
            }
        }
    }

    fn offsets_within(&self, wanted: &[(&str, i32, Offset)], within: Duration) -> KafkaResult<Vec<Offset>> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let mut list = TopicPartitionList::with_capacity(wanted.len());
        for (topic, partition, at) in wanted {
            // The call takes a timestamp in place of the offset; -1 and -2, the logical offsets, are the end and the beginning.
            list.add_partition_offset(topic, *partition, *at)?;
        }
        let found = self.client.offsets_for_times(list, within)?;
        found.elements().iter().try_for_each(TopicPartitionListElem::error)?;
        let offsets = found.to_topic_map();
        let offset = |topic: &str, partition: i32| offsets.get(&(topic.to_owned(), partition)).copied();
        Ok(wanted.iter().map(|(topic, p, _)| offset(topic, *p).unwrap_or(Offset::Invalid)).collect())
    }

    fn is_usable(&self, topic: &str, partitions: i32) -> bool {
        let Ok(metadata) = self.client.fetch_metadata(Some(topic), Duration::from_secs(5)) else { return false };
        let Some(found) = metadata.topics().iter().find(|t| t.name() == topic) else { return false };
        let led = found.partitions().iter().filter(|p| p.error().is_none() && p.leader() >= 0).count();
        if i32::try_from(led).unwrap_or(0) < partitions {
            return false;
        }
        let ends: Vec<_> = (0..partitions).map(|p| (topic, p, Offset::End)).collect();
        self.offsets_within(&ends, Duration::from_secs(5)).is_ok()
    }
}

pub(super) fn settings_refused(error: &KafkaError) -> ClusterError {
    ClusterError::Settings { reason: error.to_string() }
}

fn is_unreachable(error: &KafkaError) -> bool {
    error.rdkafka_error_code().is_some_and(is_unreachable_code)
}

fn is_unreachable_code(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::OperationTimedOut
            | Code::RequestTimedOut
            | Code::Resolve
            | Code::TimedOutQueue
    )
}

/// A partition that was just created, or is being moved, is visible before it has a leader; and the first request about any group
/// makes a new cluster create the topic of its coordinators.
fn is_passing(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::NotLeaderForPartition
                | Code::LeaderNotAvailable
                | Code::UnknownTopicOrPartition
                | Code::UnknownPartition
                | Code::UnknownLeaderEpoch
                | Code::FencedLeaderEpoch
                | Code::NotCoordinator
                | Code::CoordinatorNotAvailable
                | Code::CoordinatorLoadInProgress
        )
    )
}

impl Cluster for KafkaCluster {
    fn observe(&self, scope: &Scope) -> Result<Observed, ClusterError> {
        self.look(scope)
    }

    fn validate(&self, changes: &[&Change]) -> Result<Vec<Refused>, ClusterError> {
        match self.make_topics(changes, Earnest::OnlyValidate) {
            Ok(mut refused) => {
                for change in changes {
                    let Change::AddPartitions { topic, want, .. } = change else { continue };
                    let denial = self.make_partitions(topic, *want, Earnest::OnlyValidate)?;
                    refused.extend(denial.map(|denial| Self::refused(topic.clone(), denial)));
                }
                Ok(refused)
            }
            Err(ClusterError::Unsupported { .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    fn refuses(&self, topic: &str, setting: &str, have: &str, want: &str) -> Result<Option<String>, ClusterError> {
        let rk = self.admin.inner().native_ptr();
        // If it cannot be determined (permissions, an older broker), the change is assumed to be accepted: the suggested
        // command will then say more.
        if let Ok(Some(denial)) = validate_setting(rk, topic, setting, want, ASK_WITHIN)
            && is_policy(denial.code)
        {
            return Ok(Some(denial.words));
        }
        // Policies for new topics apply in clusters that have none for existing ones. Whether they concern this setting is tested with
        // the topic's current value.
        let name = format!("{topic}{TO_ASK_WITH}");
        let asked = |value: &str| {
            let settings = BTreeMap::from([(setting.to_owned(), value.to_owned())]);
            let topic = TopicToMake { name: &name, partitions: 1, replication_factor: -1, settings: &settings };
            let denials = ffi::admin::create_topics(rk, &[topic], Earnest::OnlyValidate, ASK_WITHIN);
            denials.map(|mut denials| denials.pop().map(|(_, denial)| denial))
        };
        match (asked(want), asked(have)) {
            (Ok(Some(denial)), Ok(None)) if is_policy(denial.code) => Ok(Some(denial.words)),
            _ => Ok(None),
        }
    }

    fn create_topics(&self, topics: &[&Change]) -> Result<Vec<Refused>, ClusterError> {
        self.make_topics(topics, Earnest::Do)
    }

    fn create_partitions(&self, topic: &str, total: i32) -> Result<(), ClusterError> {
        match self.make_partitions(topic, total, Earnest::Do)? {
            Some(denial) => Err(Self::denied(&format!("add partitions to {topic}"), &denial)),
            None => Ok(()),
        }
    }

    fn wait_usable(&self, topics: &BTreeMap<String, i32>) -> Result<(), ClusterError> {
        let deadline = self.deadline(USABLE_WITHIN);
        for (topic, partitions) in topics {
            while !self.is_usable(topic, *partitions) {
                if self.left(deadline).is_zero() {
                    return Err(ClusterError::NotUsable { topic: topic.clone(), within: USABLE_WITHIN });
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        Ok(())
    }

    fn commit_offsets(&self, group: &str, topic: &str, partitions: &[i32], at: Position) -> Result<(), ClusterError> {
        let action = format!("commit offsets of group {group} on {topic}");
        let at = match at {
            Position::Oldest => Offset::Beginning,
            Position::End => Offset::End,
        };
        let wanted: Vec<_> = partitions.iter().map(|p| (topic, *p, at)).collect();
        let starts = self.offsets(&wanted, &action)?;
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for (partition, start) in partitions.iter().zip(&starts) {
            list.add_partition_offset(topic, *partition, *start).map_err(|e| self.error(&action, &e))?;
        }
        self.group_offsets(group)?.commit(&list).map_err(|error| match error.rdkafka_error_code() {
            // A commit from outside has no generation; a group with members accepts only those of its own.
            Some(
                RDKafkaErrorCode::UnknownMemberId
                | RDKafkaErrorCode::IllegalGeneration
                | RDKafkaErrorCode::RebalanceInProgress
                | RDKafkaErrorCode::StaleMemberEpoch,
            ) => ClusterError::GroupActive { group: group.to_owned(), topic: topic.to_owned() },
            _ => self.error(&action, &error),
        })
    }

    fn claim(&self, topic: &str, group: &str) -> Result<(), ClusterError> {
        let owner = OwnerRecord { group: group.to_owned(), at: self.clock.now().timestamp() };
        self.write_state(topic, OWNER_KEY, &owner.to_value())
    }
}

/// Converts an error of a worker's client for the operator.
pub(super) fn cluster_error(action: &str, error: &ClientError) -> ClusterError {
    let (action, reason) = (action.to_owned(), error.without_remedy());
    if error.is_denied() { ClusterError::NotAuthorised { action, reason } } else { ClusterError::Failed { action, reason } }
}

/// Suffix of the name of a topic that is only validated and never created.
const TO_ASK_WITH: &str = ".asked";

/// Whether the cause is a policy or limit of the cluster's operators.
fn is_policy(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::PolicyViolation | RDKafkaErrorCode::InvalidConfig | RDKafkaErrorCode::InvalidRequest)
}

impl KafkaCluster {
    /// Returns those that were refused. Other kinds of changes are ignored.
    fn make_topics(&self, changes: &[&Change], earnest: Earnest) -> Result<Vec<Refused>, ClusterError> {
        let new: Vec<TopicToMake<'_>> = changes.iter().filter_map(|change| topic_to_make(change)).collect();
        if new.is_empty() {
            return Ok(Vec::new());
        }
        let denials = ffi::admin::create_topics(self.admin.inner().native_ptr(), &new, earnest, USABLE_WITHIN);
        let denials = denials.map_err(|denial| self.failed("create topics", &denial))?;
        let refused = denials.into_iter().filter(|(_, denial)| denial.code != RDKafkaErrorCode::TopicAlreadyExists);
        Ok(refused.map(|(topic, denial)| Self::refused(topic, denial)).collect())
    }

    fn make_partitions(&self, topic: &str, total: i32, earnest: Earnest) -> Result<Option<Denial>, ClusterError> {
        let total = usize::try_from(total).unwrap_or(0);
        let answer = ffi::admin::create_partitions(self.admin.inner().native_ptr(), topic, total, earnest, USABLE_WITHIN);
        answer.map_err(|denial| self.failed(&format!("add partitions to {topic}"), &denial))
    }

    fn refused(topic: String, denial: Denial) -> Refused {
        use RDKafkaErrorCode as Code;
        let cause = match denial.code {
            Code::PolicyViolation | Code::InvalidConfig | Code::InvalidRequest => RefusedFor::Policy,
            Code::InvalidTopic => RefusedFor::Name,
            Code::InvalidReplicationFactor | Code::InvalidReplicaAssignment => RefusedFor::Replicas,
            Code::InvalidPartitions => RefusedFor::Partitions,
            code if is_denial(code) => RefusedFor::Rights,
            _ => RefusedFor::Other,
        };
        Refused { topic, cause, words: denial.words }
    }

    /// Converts a refusal of a whole request for the operator.
    pub(super) fn failed(&self, action: &str, denial: &Denial) -> ClusterError {
        self.listen();
        let refusal = if is_unreachable_code(denial.code) { self.refusal(action) } else { None };
        refusal.unwrap_or_else(|| Self::denied(action, denial))
    }

    /// A refusal with the broker's message.
    pub(super) fn denied(action: &str, denial: &Denial) -> ClusterError {
        match Self::code(action, denial.code) {
            ClusterError::Failed { action, .. } => ClusterError::Failed { action, reason: denial.words.clone() },
            ClusterError::NotAuthorised { action, .. } => ClusterError::NotAuthorised { action, reason: denial.words.clone() },
            other => other,
        }
    }
}

fn topic_to_make(change: &Change) -> Option<TopicToMake<'_>> {
    let Change::CreateTopic { topic, partitions, replication_factor, settings } = change else { return None };
    Some(TopicToMake { name: topic, partitions: *partitions, replication_factor: *replication_factor, settings })
}

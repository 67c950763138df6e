//! Administration of a real cluster: the [`Cluster`] of the topology.
//!
//! Blocking, for the command line. Nothing here alters the settings of a topic that exists: the client's `alter_configs` is the
//! legacy call that resets every setting which it is not given.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList, TopicPartitionListElem};

use crate::config::KafkaConfig;
use crate::core::leader_clock::LocalTime;
use crate::core::state::{OWNER_KEY, OwnerRecord};
use crate::kafka::client_config::{consumer_config, producer_config};
use crate::kafka::clock::Clock;
use crate::kafka::error::ClientError;
use crate::kafka::watch::Watch;
use crate::topology::{Change, Cluster, ClusterError, Observed, Position, Scope};

/// How long until nobody is there.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// How long one question to the cluster may take.
pub(super) const ASK_WITHIN: Duration = Duration::from_secs(15);
/// How long new partitions may take to find their leaders.
const USABLE_WITHIN: Duration = Duration::from_secs(30);

/// A cluster that was reached.
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
    /// Connects, and makes sure that somebody answers.
    ///
    /// # Errors
    /// When the properties are refused, nobody answers within 10 s, or the login fails.
    pub fn connect(kafka: &KafkaConfig) -> Result<Self, ClusterError> {
        let settings = |error: KafkaError| ClusterError::Settings { reason: error.to_string() };
        let watch = Watch::default();
        let client = observing(consumer_config(kafka)).create_with_context(watch.clone()).map_err(settings)?;
        let admin = producer_config(kafka).create_with_context(watch.clone()).map_err(settings)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(|error| ClusterError::Failed { action: "start a runtime".to_owned(), reason: error.to_string() })?;
        let cluster = Self { kafka: kafka.clone(), client, admin, watch, clock: Clock::system(), runtime };
        cluster.reach()?;
        Ok(cluster)
    }

    /// In short rounds, since what librdkafka has to say of the connection is only heard between them.
    fn reach(&self) -> Result<(), ClusterError> {
        let deadline = self.deadline(CONNECT_WITHIN);
        let mut round = Duration::from_millis(250);
        loop {
            round = round.saturating_mul(2).min(self.left(deadline));
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

    /// Serves the events that have come in; [`Watch`] keeps what matters of them.
    fn listen(&self) {
        // An event that was consumed within looks like no event, so an empty answer is no end.
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

    /// A consumer that can read and commit the offsets of a group, without joining it.
    pub(super) fn of_group(&self, group: &str, more: &[(&str, &str)]) -> Result<BaseConsumer<Watch>, ClusterError> {
        let mut config = observing(consumer_config(&self.kafka));
        config.set("group.id", group);
        for (key, value) in more {
            config.set(*key, *value);
        }
        config.create_with_context(self.watch.clone()).map_err(|error| ClusterError::Settings { reason: error.to_string() })
    }

    /// What an error means to an operator.
    pub(super) fn error(&self, action: &str, error: &KafkaError) -> ClusterError {
        self.listen();
        if let Some(refusal) = self.watch.refusal(self.kafka.brokers()).filter(|_| is_unreachable(error)) {
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

    /// Looks offsets up, all partitions in one round trip a broker.
    pub(super) fn offsets(&self, wanted: &[(&str, i32, Offset)], action: &str) -> Result<Vec<Offset>, ClusterError> {
        self.patiently(action, || self.offsets_within(wanted, ASK_WITHIN))
    }

    /// Asks again while the answer is one that passes.
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
            // The call takes a time where a list has its offset; -1 and -2, the logical offsets, are the end and the beginning.
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

/// Open transactions must not hold an answer up.
fn observing(mut config: ClientConfig) -> ClientConfig {
    config.set("enable.auto.commit", "false").set("isolation.level", "read_uncommitted");
    config
}

fn is_unreachable(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::BrokerTransportFailure
                | Code::AllBrokersDown
                | Code::OperationTimedOut
                | Code::RequestTimedOut
                | Code::Resolve
                | Code::TimedOutQueue
        )
    )
}

/// A partition that has just been made, or moves, is told of before it is led; and the first question about any group makes a new
/// cluster create the topic that its coordinators are found by.
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

    fn create_topics(&self, topics: &[&Change]) -> Result<(), ClusterError> {
        let new: Vec<NewTopic> = topics.iter().filter_map(|change| new_topic(change)).collect();
        let options = AdminOptions::new().operation_timeout(Some(USABLE_WITHIN)).request_timeout(Some(USABLE_WITHIN));
        for result in self.wait(self.admin.create_topics(&new, &options), "create topics")? {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => return Err(Self::code(&format!("create topic {topic}"), code)),
            }
        }
        Ok(())
    }

    fn create_partitions(&self, topic: &str, total: i32) -> Result<(), ClusterError> {
        let action = format!("add partitions to {topic}");
        let new = [NewPartitions::new(topic, usize::try_from(total).unwrap_or(0))];
        let options = AdminOptions::new().operation_timeout(Some(USABLE_WITHIN)).request_timeout(Some(USABLE_WITHIN));
        for result in self.wait(self.admin.create_partitions(&new, &options), &action)? {
            result.map_err(|(_, code)| Self::code(&action, code))?;
        }
        Ok(())
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
        let consumer = self.of_group(group, &[])?;
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for (partition, start) in partitions.iter().zip(&starts) {
            list.add_partition_offset(topic, *partition, *start).map_err(|e| self.error(&action, &e))?;
        }
        consumer.commit(&list, CommitMode::Sync).map_err(|error| match error.rdkafka_error_code() {
            // A commit from outside has no generation; a group with members takes only those of its own.
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

/// What an error of a worker's client means to an operator.
pub(super) fn told(action: &str, error: &ClientError) -> ClusterError {
    let (action, reason) = (action.to_owned(), error.without_remedy());
    if error.is_denied() { ClusterError::NotAuthorised { action, reason } } else { ClusterError::Failed { action, reason } }
}

fn new_topic(change: &Change) -> Option<NewTopic<'_>> {
    let Change::CreateTopic { topic, partitions, replication_factor, settings } = change else { return None };
    let new = NewTopic::new(topic, *partitions, TopicReplication::Fixed(*replication_factor));
    Some(settings.iter().fold(new, |new, (name, value)| new.set(name, value)))
}

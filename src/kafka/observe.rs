//! Observes a real cluster.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::AdminOptions;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::MetadataTopic;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList, TopicPartitionListElem};

use crate::core::state::{LadderState, OwnerRecord, StateValue};
use crate::core::topics::state_topic;
use crate::kafka::admin::{ASK_WITHIN, KafkaCluster, cluster_error};
use crate::kafka::ffi;
use crate::kafka::group_offsets::GroupOffsets;
use crate::kafka::lookup::raw;
use crate::kafka::partition::TopicPartition;
use crate::kafka::state::{read_states, write_state};
use crate::topology::{ClusterError, GroupFacts, GroupMember, Observed, Scope, TopicFacts, Watermarks};

/// Retention of records that are never deleted by age: a thousand years.
const FOR_EVER: Duration = Duration::from_secs(1_000 * 365 * 86_400);

impl KafkaCluster {
    pub(super) fn look(&self, scope: &Scope) -> Result<Observed, ClusterError> {
        let mut observed = self.look_without_settings(scope)?;
        self.settings(&mut observed.topics)?;
        Ok(observed)
    }

    /// Without settings, for users who may not read them: a worker needs them for nothing else.
    ///
    /// # Errors
    /// The cluster does not answer, or a topic or group may not be described.
    pub fn look_without_settings(&self, scope: &Scope) -> Result<Observed, ClusterError> {
        let mut topics = self.topics(scope)?;
        for topic in scope.named_topics().filter(|topic| !topics.contains_key(*topic)) {
            self.is_missing(topic)?;
        }
        self.watermarks(&mut topics)?;
        let partitions = partitions_of(&topics);
        let groups = scope.groups().map(|group| Ok((group.to_owned(), self.group(group, &partitions)?)));
        let groups = groups.collect::<Result<_, ClusterError>>()?;
        let owners = self.owners(scope, &topics)?;
        Ok(Observed { topics, groups, owners, ..Observed::default() })
    }

    /// The owner records of existing state topics.
    fn owners(
        &self,
        scope: &Scope,
        topics: &BTreeMap<String, TopicFacts>,
    ) -> Result<BTreeMap<String, StateValue<OwnerRecord>>, ClusterError> {
        let existing =
            scope.ladders().map(|ladder| (ladder, state_topic(ladder))).filter(|(_, state)| topics.contains_key(state));
        let (ladders, states): (Vec<&str>, Vec<String>) = existing.unzip();
        let mut found = self.states(&states)?;
        let owner = |(ladder, state): (&str, &String)| (ladder.to_owned(), found.remove(state).unwrap_or_default().owner);
        Ok(ladders.into_iter().zip(&states).map(owner).collect())
    }

    /// The members of a group.
    ///
    /// # Errors
    /// The group may not be described, or the cluster does not answer.
    pub fn members_of(&self, group: &str) -> Result<Vec<GroupMember>, ClusterError> {
        let action = format!("list the members of group {group}");
        self.patiently(&action, || {
            ffi::group_members(self.client.client().native_ptr(), group, ASK_WITHIN).map_err(KafkaError::GroupListFetch)
        })
    }

    /// The current content of these state topics, by name.
    ///
    /// # Errors
    /// When one does not exist or may not be read, or the cluster does not answer.
    pub fn states(&self, topics: &[String]) -> Result<BTreeMap<String, LadderState>, ClusterError> {
        read_states(&self.kafka, topics).map_err(|error| cluster_error("read the state of the ladders", &error))
    }

    /// Writes one record to a state topic, confirmed by all in-sync replicas.
    ///
    /// # Errors
    /// It was refused or not confirmed.
    pub fn write_state(&self, topic: &str, key: &str, value: &str) -> Result<(), ClusterError> {
        write_state(&self.kafka, topic, key, value).map_err(|error| cluster_error(&format!("write {key} to {topic}"), &error))
    }

    /// From the metadata of all topics: requesting one by name might create it.
    pub(super) fn topics(&self, scope: &Scope) -> Result<BTreeMap<String, TopicFacts>, ClusterError> {
        let metadata = self.client.fetch_metadata(None, ASK_WITHIN).map_err(|e| self.error("read the metadata", &e))?;
        let within = metadata.topics().iter().filter(|t| t.error().is_none() && scope.contains(t.name()));
        Ok(within
            .map(|topic| {
                let replicas = topic.partitions().iter().map(|p| p.replicas().len()).min().unwrap_or(0);
                let facts = TopicFacts {
                    replication_factor: i32::try_from(replicas).unwrap_or(i32::MAX),
                    partitions: vec![Watermarks::default(); topic.partitions().len()],
                    settings: BTreeMap::new(),
                };
                (topic.name().to_owned(), facts)
            })
            .collect())
    }

    /// The list of all topics omits those that may not be described. Requested by name, such a topic is distinguished from a
    /// missing one.
    fn is_missing(&self, topic: &str) -> Result<(), ClusterError> {
        let action = format!("describe topic {topic}");
        let metadata = self.client.fetch_metadata(Some(topic), ASK_WITHIN).map_err(|e| self.error(&action, &e))?;
        let code = metadata.topics().iter().filter(|t| t.name() == topic).find_map(MetadataTopic::error);
        match code.map(RDKafkaErrorCode::from) {
            Some(code @ RDKafkaErrorCode::TopicAuthorizationFailed) => Err(Self::code(&action, code)),
            _ => Ok(()),
        }
    }

    /// The first offset of each partition of a topic, and its end, whether committed or not.
    ///
    /// # Errors
    /// It does not exist, may not be described, or the cluster does not answer.
    pub fn bounds(&self, topic: &str) -> Result<Vec<Watermarks>, ClusterError> {
        let action = format!("look topic {topic} up");
        let metadata = self.client.fetch_metadata(Some(topic), ASK_WITHIN).map_err(|e| self.error(&action, &e))?;
        let found = metadata.topics().iter().find(|t| t.name() == topic);
        if let Some(code) = found.and_then(MetadataTopic::error) {
            let code = RDKafkaErrorCode::from(code);
            return Err(match code {
                RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => {
                    ClusterError::Failed { action, reason: "it does not exist".to_owned() }
                }
                code => Self::code(&action, code),
            });
        }
        let partitions = vec![Watermarks::default(); found.map_or(0, |t| t.partitions().len())];
        let facts = TopicFacts { replication_factor: 0, partitions, settings: BTreeMap::new() };
        let mut topics = BTreeMap::from([(topic.to_owned(), facts)]);
        self.watermarks(&mut topics)?;
        Ok(topics.remove(topic).map(|facts| facts.partitions).unwrap_or_default())
    }

    /// The retention time of a topic; `None` if unlimited or unknown.
    #[must_use]
    pub fn retention(&self, topic: &str) -> Option<Duration> {
        let facts = TopicFacts { replication_factor: 0, partitions: Vec::new(), settings: BTreeMap::new() };
        let mut topics = BTreeMap::from([(topic.to_owned(), facts)]);
        self.settings(&mut topics).ok()?;
        match topics.get(topic)?.settings.get("retention.ms")?.as_str() {
            "-1" => Some(FOR_EVER),
            millis => millis.parse().ok().map(Duration::from_millis),
        }
    }

    /// The cluster id; empty if the cluster has none.
    #[must_use]
    pub fn cluster_id(&self) -> String {
        self.client.client().fetch_cluster_id(ASK_WITHIN).unwrap_or_default()
    }

    /// Deletes the records of a topic below these offsets, by partition, and returns the reasons of failures. Below the first offset of
    /// a partition there is nothing to delete, so such a request tests whether deletion is permitted.
    ///
    /// # Errors
    /// The cluster does not answer, and it is unknown what it has deleted.
    pub fn delete_below(&self, topic: &str, offsets: &[(i32, i64)]) -> Result<Vec<(i32, ClusterError)>, ClusterError> {
        let action = format!("delete records of {topic}");
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for (partition, offset) in offsets {
            list.add_partition_offset(topic, *partition, Offset::Offset(*offset)).map_err(|e| self.error(&action, &e))?;
        }
        let options = AdminOptions::new().request_timeout(Some(ASK_WITHIN)).operation_timeout(Some(ASK_WITHIN));
        let deleted = self.wait(self.admin.delete_records(&list, &options), &action)?;
        let failed = |element: TopicPartitionListElem<'_>| {
            let error = element.error().err()?;
            let code = error.rdkafka_error_code();
            let reason = match code {
                Some(RDKafkaErrorCode::PolicyViolation) => {
                    let remedy = "Kafka cannot delete from a topic whose cleanup.policy is only compact: set it to `compact,delete`, or wait for \
                                  tombstones to be compacted";
                    ClusterError::Failed { action: action.clone(), reason: remedy.to_owned() }
                }
                Some(code) => Self::code(&action, code),
                None => self.error(&action, &error),
            };
            Some((element.partition(), reason))
        };
        Ok(deleted.elements().into_iter().filter_map(failed).collect())
    }

    pub(super) fn watermarks(&self, topics: &mut BTreeMap<String, TopicFacts>) -> Result<(), ClusterError> {
        let names: Vec<(String, i32)> =
            topics.iter().flat_map(|(name, t)| (0..t.partition_count()).map(|p| (name.clone(), p))).collect();
        let at = |offset: Offset| -> Vec<(&str, i32, Offset)> { names.iter().map(|(t, p)| (t.as_str(), *p, offset)).collect() };
        let lows = self.offsets(&at(Offset::Beginning), "read the first offsets")?;
        let highs = self.offsets(&at(Offset::End), "read the end offsets")?;
        let mut found = lows.into_iter().zip(highs);
        for marks in topics.values_mut().flat_map(|t| &mut t.partitions) {
            if let Some((low, high)) = found.next() {
                *marks = Watermarks { low: raw(low).unwrap_or(0), high: raw(high).unwrap_or(0) };
            }
        }
        Ok(())
    }

    fn settings(&self, topics: &mut BTreeMap<String, TopicFacts>) -> Result<(), ClusterError> {
        if topics.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = topics.keys().map(String::as_str).collect();
        let described = ffi::admin::describe_topics(self.admin.inner().native_ptr(), &names, ASK_WITHIN);
        let described = described.map_err(|denial| self.failed("read the settings of the topics", &denial))?;
        for (name, settings) in described {
            let settings = settings.map_err(|denial| Self::denied(&format!("read the settings of topic {name}"), &denial))?;
            if let Some(facts) = topics.get_mut(&name) {
                facts.settings = settings;
            }
        }
        Ok(())
    }

    /// A group and its offsets on these partitions.
    fn group(&self, group: &str, partitions: &[TopicPartition]) -> Result<GroupFacts, ClusterError> {
        let members = self.members(group);
        if partitions.is_empty() {
            return Ok(GroupFacts { members, offsets: BTreeMap::new() });
        }
        Ok(GroupFacts { members, offsets: self.offsets_of(&self.group_offsets(group)?, partitions)? })
    }

    /// The offsets of a group on these partitions, by topic and partition.
    pub(super) fn offsets_of(
        &self,
        group: &GroupOffsets,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<String, BTreeMap<i32, i64>>, ClusterError> {
        let mut offsets: BTreeMap<String, BTreeMap<i32, i64>> = BTreeMap::new();
        if partitions.is_empty() {
            return Ok(offsets);
        }
        let action = format!("read the offsets of group {}", group.group());
        for (tp, offset) in self.patiently(&action, || group.read(partitions, ASK_WITHIN))? {
            offsets.entry(tp.topic.to_string()).or_default().insert(tp.partition, offset);
        }
        Ok(offsets)
    }

    /// Number of members of a group; 0 if the broker does not say, since then the commit itself will fail.
    fn members(&self, group: &str) -> usize {
        let Ok(list) = self.client.fetch_group_list(Some(group), ASK_WITHIN) else { return 0 };
        list.groups().iter().filter(|g| g.name() == group).map(|g| g.members().len()).sum()
    }
}

/// The partitions of these topics.
pub(super) fn partitions_of(topics: &BTreeMap<String, TopicFacts>) -> Vec<TopicPartition> {
    let mut partitions = Vec::new();
    for (name, facts) in topics {
        let topic: Arc<str> = name.as_str().into();
        partitions.extend((0..facts.partition_count()).map(|partition| TopicPartition { topic: topic.clone(), partition }));
    }
    partitions
}

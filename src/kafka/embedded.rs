//! A broker inside the process, for trying things out: librdkafka's mock cluster behind real sockets.
//!
//! It serves whatever kladder's clients need to run a ladder, but it is no Kafka. Topics cannot be made over the wire, so they are
//! made here; they have no settings, and records carry the time at which they were produced. It keeps 5 MiB a partition, in memory.
//! Offsets that are committed in a transaction are discarded, so a ladder on it runs with at-least-once hops.

use std::collections::BTreeMap;

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use crate::config::KafkaConfig;
use crate::kafka::admin::KafkaCluster;
use crate::kafka::error::ClientError;
use crate::topology::{Change, Cluster, ClusterError, Observed, Position, Scope};

/// A broker that lives as long as this value. It listens on a free port of 127.0.0.1.
pub struct EmbeddedBroker {
    mock: MockCluster<'static, DefaultProducerContext>,
}

impl EmbeddedBroker {
    /// Starts it.
    ///
    /// # Errors
    /// When it cannot listen, or there are no threads for it.
    pub fn start() -> Result<Self, ClientError> {
        let mock = MockCluster::new(1).map_err(|e| ClientError::new("starting the embedded broker", &e))?;
        Ok(Self { mock })
    }

    /// Where it listens.
    #[must_use]
    pub fn brokers(&self) -> String {
        self.mock.bootstrap_servers()
    }

    /// Its administration; `kafka` has to lead to it.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub fn cluster(&self, kafka: &KafkaConfig) -> Result<EmbeddedCluster<'_>, ClusterError> {
        Ok(EmbeddedCluster { broker: self, reached: KafkaCluster::connect(kafka)? })
    }
}

/// The embedded broker as the [`Cluster`] of the topology.
pub struct EmbeddedCluster<'a> {
    broker: &'a EmbeddedBroker,
    reached: KafkaCluster,
}

impl Cluster for EmbeddedCluster<'_> {
    fn observe(&self, scope: &Scope) -> Result<Observed, ClusterError> {
        // There are no settings that could be in the way.
        self.reached.look_without_settings(scope)
    }

    fn create_topics(&self, topics: &[&Change]) -> Result<(), ClusterError> {
        for change in topics {
            let Change::CreateTopic { topic, partitions, .. } = change else { continue };
            let created = self.broker.mock.create_topic(topic, *partitions, 1);
            created.map_err(|error| failed(&format!("create topic {topic}"), &error.to_string()))?;
        }
        Ok(())
    }

    fn create_partitions(&self, topic: &str, _: i32) -> Result<(), ClusterError> {
        Err(failed(&format!("add partitions to {topic}"), "the embedded broker cannot"))
    }

    fn wait_usable(&self, topics: &BTreeMap<String, i32>) -> Result<(), ClusterError> {
        self.reached.wait_usable(topics)
    }

    fn commit_offsets(&self, group: &str, topic: &str, partitions: &[i32], at: Position) -> Result<(), ClusterError> {
        self.reached.commit_offsets(group, topic, partitions, at)
    }

    fn claim(&self, topic: &str, group: &str) -> Result<(), ClusterError> {
        self.reached.claim(topic, group)
    }
}

fn failed(action: &str, reason: &str) -> ClusterError {
    ClusterError::Failed { action: action.to_owned(), reason: reason.to_owned() }
}

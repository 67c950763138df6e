//! A broker inside the process, for demos: librdkafka's mock cluster behind real sockets.
//!
//! It supports everything that kladder's clients need to run a ladder, but it is not Kafka. Topics cannot be created over the wire,
//! so they are created here; they have no settings, and records have the time at which they were produced. It keeps 5 MiB per
//! partition, in memory. Offsets committed in a transaction are discarded, so a ladder on it runs with at-least-once hops.

use std::collections::BTreeMap;

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use crate::config::KafkaConfig;
use crate::kafka::admin::KafkaCluster;
use crate::kafka::error::ClientError;
use crate::topology::{Change, Cluster, ClusterError, Observed, Position, Refused, Scope};

/// A broker that lives as long as this value. It listens on a free port of 127.0.0.1.
pub struct EmbeddedBroker {
    mock: MockCluster<'static, DefaultProducerContext>,
}

impl EmbeddedBroker {
    /// Starts it.
    ///
    /// # Errors
    /// It cannot listen, or its threads cannot be created.
    pub fn start() -> Result<Self, ClientError> {
        let mock = MockCluster::new(1).map_err(|e| ClientError::new("starting the embedded broker", &e))?;
        Ok(Self { mock })
    }

    /// Its address.
    #[must_use]
    pub fn brokers(&self) -> String {
        self.mock.bootstrap_servers()
    }

    /// Its administration; `kafka` must point to it.
    ///
    /// # Errors
    /// It cannot be reached.
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
        // There are no settings that could be wrong.
        self.reached.look_without_settings(scope)
    }

    fn validate(&self, _: &[&Change]) -> Result<Vec<Refused>, ClusterError> {
        Ok(Vec::new())
    }

    fn refuses(&self, _: &str, _: &str, _: &str, _: &str) -> Result<Option<String>, ClusterError> {
        Ok(None)
    }

    fn create_topics(&self, topics: &[&Change]) -> Result<Vec<Refused>, ClusterError> {
        for change in topics {
            let Change::CreateTopic { topic, partitions, .. } = change else { continue };
            let created = self.broker.mock.create_topic(topic, *partitions, 1);
            created.map_err(|error| failed(&format!("create topic {topic}"), &error.to_string()))?;
        }
        Ok(Vec::new())
    }

    fn create_partitions(&self, topic: &str, _: i32) -> Result<(), ClusterError> {
        Err(failed(&format!("add partitions to {topic}"), "the embedded broker does not support it"))
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

//! The port to a Kafka cluster, and its errors.

use std::collections::BTreeMap;
use std::time::Duration;

use thiserror::Error;

use crate::core::delay::format_duration;
use crate::topology::{Change, Observed, Position, Scope};

/// A cluster that can be observed and extended. Nothing here alters or deletes what exists.
pub trait Cluster {
    /// Observes what exists within the scope.
    ///
    /// # Errors
    /// The cluster does not answer.
    fn observe(&self, scope: &Scope) -> Result<Observed, ClusterError>;

    /// The refusals of changes that create topics or partitions, by a dry run. Also empty if the cluster does not support dry runs.
    ///
    /// # Errors
    /// The cluster does not answer.
    fn validate(&self, changes: &[&Change]) -> Result<Vec<Refused>, ClusterError>;

    /// Why a setting of an existing topic could not be altered from `have` to `want`; `None` if it could, or if that cannot be
    /// determined. Nothing is altered.
    ///
    /// # Errors
    /// The cluster does not answer.
    fn refuses(&self, topic: &str, setting: &str, have: &str, want: &str) -> Result<Option<String>, ClusterError>;

    /// Creates the topics of these [`Change::CreateTopic`], and returns those that were refused. One that already exists is not among
    /// them: the next plan will check it.
    ///
    /// # Errors
    /// The cluster does not answer.
    fn create_topics(&self, topics: &[&Change]) -> Result<Vec<Refused>, ClusterError>;

    /// Increases the partitions of a topic to this total.
    ///
    /// # Errors
    /// It was refused.
    fn create_partitions(&self, topic: &str, total: i32) -> Result<(), ClusterError>;

    /// Waits until all of these topics have that many partitions, each with a leader that answers.
    ///
    /// # Errors
    /// That takes too long.
    fn wait_usable(&self, topics: &BTreeMap<String, i32>) -> Result<(), ClusterError>;

    /// Commits offsets for a group without members.
    ///
    /// # Errors
    /// It was refused, usually because the group has members.
    fn commit_offsets(&self, group: &str, topic: &str, partitions: &[i32], at: Position) -> Result<(), ClusterError>;

    /// Writes the owner record to a state topic.
    ///
    /// # Errors
    /// It was refused or not confirmed.
    fn claim(&self, topic: &str, group: &str) -> Result<(), ClusterError>;
}

/// A topic that the cluster refuses to create or to extend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The topic.
    pub topic: String,
    /// The cause, as far as the remedy depends on it.
    pub cause: RefusedFor,
    /// The broker's message.
    pub words: String,
}

/// Causes of refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusedFor {
    /// A setting, or a policy of the cluster's operators.
    Policy,
    /// Its name.
    Name,
    /// More replicas than there are brokers.
    Replicas,
    /// The number of partitions.
    Partitions,
    /// Missing permissions.
    Rights,
    /// Any other cause.
    Other,
}

/// Errors of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ClusterError {
    /// The client could not be created.
    #[error("the Kafka client refused its settings: {reason}: check the properties under [kafka]")]
    Settings {
        /// librdkafka's message.
        reason: String,
    },
    /// No broker answered.
    #[error("no broker answered at {brokers} within {}: check [kafka] bootstrap.servers and security.protocol, and that a broker runs there{}", format_duration(*within), because(.reason.as_deref()))]
    NoBroker {
        /// The addresses tried.
        brokers: String,
        /// The time limit.
        within: Duration,
        /// librdkafka's last message.
        reason: Option<String>,
    },
    /// A broker is not reachable at its advertised address.
    #[error(
        "cannot {action}: the broker at {brokers} answers, but broker {id} does not answer at its advertised address {address}: check \
         that it is running, and that its advertised.listeners are reachable from here ({reason})"
    )]
    Advertised {
        /// The attempted action.
        action: String,
        /// The addresses of the configuration.
        brokers: String,
        /// The broker's number.
        id: i32,
        /// Its advertised address.
        address: String,
        /// librdkafka's message.
        reason: String,
    },
    /// Authentication failed.
    #[error(
        "the broker at {brokers} refused the login: check sasl.mechanism, sasl.username and sasl.password under [kafka] ({reason})"
    )]
    Authentication {
        /// The addresses tried.
        brokers: String,
        /// librdkafka's message.
        reason: String,
    },
    /// The TLS handshake failed.
    #[error(
        "TLS with the broker at {brokers} failed: check security.protocol, ssl.ca.location and the certificates under [kafka] ({reason})"
    )]
    Tls {
        /// The addresses tried.
        brokers: String,
        /// librdkafka's message.
        reason: String,
    },
    /// The broker does not support the request.
    #[error("cannot {action}: the broker does not support it")]
    Unsupported {
        /// The attempted action.
        action: String,
    },
    /// Permission denied.
    #[error("not authorised to {action}: `kladder generate acls` prints the required rules ({reason})")]
    NotAuthorised {
        /// The attempted action.
        action: String,
        /// The broker's message.
        reason: String,
    },
    /// The broker accepts offsets for a group with members only from those members.
    #[error(
        "offsets of group {group} on {topic} were refused because it has active members: stop them, or let them commit first"
    )]
    GroupActive {
        /// The group.
        group: String,
        /// The topic.
        topic: String,
    },
    /// The topics exist, but are not usable yet.
    #[error("{topic} has no leader for every partition after {}: check that enough brokers are up, then run setup again", format_duration(*within))]
    NotUsable {
        /// The first such topic.
        topic: String,
        /// The time waited.
        within: Duration,
    },
    /// Topics that passed the dry run were refused.
    #[error("the cluster refused to create {}; {made} of the topics were created: fix that and run setup again, which continues from there", refused_text(.refused))]
    Refused {
        /// Number of topics created.
        made: usize,
        /// The refused topics.
        refused: Vec<Refused>,
    },
    /// Any other error.
    #[error("failed to {action}: {reason}")]
    Failed {
        /// The attempted action.
        action: String,
        /// The message of the broker or of librdkafka.
        reason: String,
    },
}

fn refused_text(refused: &[Refused]) -> String {
    refused.iter().map(|r| format!("{} ({})", r.topic, r.words)).collect::<Vec<_>>().join(", ")
}

fn because(reason: Option<&str>) -> String {
    reason.map(|r| format!(" ({r})")).unwrap_or_default()
}

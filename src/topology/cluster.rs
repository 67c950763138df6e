//! The port to a Kafka cluster, and what can go wrong behind it.

use std::collections::BTreeMap;
use std::time::Duration;

use thiserror::Error;

use crate::core::delay::format_duration;
use crate::topology::{Change, Observed, Position, Scope};

/// A cluster that can be observed and extended. Nothing here can alter or delete what exists.
pub trait Cluster {
    /// What there is within the scope.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    fn observe(&self, scope: &Scope) -> Result<Observed, ClusterError>;

    /// Makes the topics of these [`Change::CreateTopic`]. One that exists by now is no error: the next plan will look at it.
    ///
    /// # Errors
    /// The first topic that was refused.
    fn create_topics(&self, topics: &[&Change]) -> Result<(), ClusterError>;

    /// Gives a topic this many partitions in all.
    ///
    /// # Errors
    /// When it was refused.
    fn create_partitions(&self, topic: &str, total: i32) -> Result<(), ClusterError>;

    /// Waits until all of these topics have that many partitions, each with a leader that answers.
    ///
    /// # Errors
    /// When that takes too long.
    fn wait_usable(&self, topics: &BTreeMap<String, i32>) -> Result<(), ClusterError>;

    /// Commits a place for a group without members.
    ///
    /// # Errors
    /// When it was refused, above all because the group has members.
    fn commit_offsets(&self, group: &str, topic: &str, partitions: &[i32], at: Position) -> Result<(), ClusterError>;

    /// Writes into a state topic which group its ladder belongs to.
    ///
    /// # Errors
    /// When it was refused or not confirmed.
    fn claim(&self, topic: &str, group: &str) -> Result<(), ClusterError>;
}

/// What can go wrong with a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ClusterError {
    /// The client was not made.
    #[error("the Kafka client refused its settings: {reason}: check the properties under [kafka]")]
    Settings {
        /// What librdkafka says.
        reason: String,
    },
    /// Nobody there.
    #[error("no broker answered at {brokers} within {}: check [kafka] bootstrap.servers and security.protocol, and that a broker runs there{}", format_duration(*within), because(.reason.as_deref()))]
    NoBroker {
        /// The addresses that were tried.
        brokers: String,
        /// For so long.
        within: Duration,
        /// The last that librdkafka had to say.
        reason: Option<String>,
    },
    /// The login was refused.
    #[error(
        "the broker at {brokers} refused the login: check sasl.mechanism, sasl.username and sasl.password under [kafka] ({reason})"
    )]
    Authentication {
        /// The addresses that were tried.
        brokers: String,
        /// What librdkafka says.
        reason: String,
    },
    /// TLS did not come about.
    #[error(
        "TLS with the broker at {brokers} failed: check security.protocol, ssl.ca.location and the certificates under [kafka] ({reason})"
    )]
    Tls {
        /// The addresses that were tried.
        brokers: String,
        /// What librdkafka says.
        reason: String,
    },
    /// The brokers do not know such a request.
    #[error("cannot {action}: the broker does not know how")]
    Unsupported {
        /// What was attempted.
        action: String,
    },
    /// Not allowed.
    #[error("not authorised to {action}: `kladder generate acls` prints the rules that are needed ({reason})")]
    NotAuthorised {
        /// What was tried.
        action: String,
        /// What the broker says.
        reason: String,
    },
    /// A group with members takes offsets from nobody else.
    #[error(
        "offsets of group {group} on {topic} were refused because it has active members: stop them, or let them commit first"
    )]
    GroupActive {
        /// The group.
        group: String,
        /// The topic.
        topic: String,
    },
    /// The topics are there, but not yet for use.
    #[error("{topic} has no leader for every partition after {}: check that enough brokers are up, then run setup again", format_duration(*within))]
    NotUsable {
        /// The first of them.
        topic: String,
        /// After so long.
        within: Duration,
    },
    /// Anything else.
    #[error("failed to {action}: {reason}")]
    Failed {
        /// What was tried.
        action: String,
        /// What the broker or librdkafka says.
        reason: String,
    },
}

fn because(reason: Option<&str>) -> String {
    reason.map(|r| format!(" ({r})")).unwrap_or_default()
}

//! The domain types of the configuration.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::redact;
use crate::core::dialect::Dialect;
use crate::core::dispatch::BreakerSettings;
use crate::core::dlq_breaker::DlqBreakerSettings;
use crate::core::ladder::Ladder;

/// How long a shutdown or a revoked partition waits for deliveries in flight, unless told otherwise.
pub const DEFAULT_DRAIN: Duration = Duration::from_secs(25);
/// How many deliveries are open at most, unless told otherwise.
pub const DEFAULT_MAX_IN_FLIGHT: usize = 64;
/// The share of them that redeliveries may take, unless told otherwise.
pub const DEFAULT_REDELIVER_SHARE: f64 = 0.5;

/// How often a dead letter is sent back before it is parked, unless told otherwise.
pub const DEFAULT_PARK_AFTER: u32 = 3;

/// The whole configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// How to reach Kafka.
    pub kafka: KafkaConfig,
    /// Where probes and metrics are served.
    pub health: HealthConfig,
    /// Where everything is served that can act or show payloads.
    pub admin: AdminConfig,
    /// How this process works.
    pub worker: WorkerConfig,
    /// Where schemas of payloads are found.
    pub schema_registry: Option<RegistryConfig>,
    /// When alert rules fire.
    pub alerts: AlertsConfig,
    /// The ladders, by name.
    pub ladders: Vec<LadderConfig>,
    /// Dead-letter topics of other frameworks, by name.
    pub queues: Vec<QueueConfig>,
}

/// The dead-letter topic of another framework, whose letters are looked at and sent back as those of a ladder are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueConfig {
    /// What it is called here.
    pub name: String,
    /// The topic.
    pub topic: String,
    /// Whose headers it has; found out where that is not said.
    pub dialect: Option<Dialect>,
    /// The topics that its letters may be sent to.
    pub targets: Vec<String>,
    /// A letter that was sent back so often is parked (1 to 1,000).
    pub park_after: u32,
}

/// Where dead letters of a ladder may be sent, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedriveConfig {
    /// Topics that they may be sent to beside the redeliver topic and the sources.
    pub targets: Vec<String>,
    /// A letter that was sent back so often is parked (1 to 1,000); default 3.
    pub park_after: u32,
}

impl Default for RedriveConfig {
    fn default() -> Self {
        Self { targets: Vec::new(), park_after: DEFAULT_PARK_AFTER }
    }
}

/// How to reach Kafka: librdkafka's properties, by their dotted names.
///
/// ```
/// use kladder::KafkaConfig;
///
/// let kafka = KafkaConfig::new("localhost:9092").set("security.protocol", "ssl")?.set("consumer.fetch.min.bytes", "1000")?;
/// let refused = KafkaConfig::new("localhost:9092").set("group.id", "billing").unwrap_err();
/// assert!(refused.to_string().starts_with("`group.id` is set by kladder itself: each worker's group follows from the ladder"));
/// # let _ = kafka;
/// # Ok::<(), kladder::PropertyError>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct KafkaConfig {
    /// For every client.
    pub common: BTreeMap<String, String>,
    /// For producers only.
    pub producer: BTreeMap<String, String>,
    /// For consumers only.
    pub consumer: BTreeMap<String, String>,
}

/// The probes and `/metrics`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthConfig {
    /// The address; default `0.0.0.0:9646`.
    pub listen: SocketAddr,
}

/// The admin interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminConfig {
    /// The address, on loopback; by default the port after that of the probes, `127.0.0.1:9647` beside theirs. Port 0 lets the
    /// system choose.
    pub listen: SocketAddr,
}

/// How this process works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerConfig {
    /// The name of this worker, stable over restarts; the host name unless configured.
    pub instance: String,
    /// What this process does.
    pub roles: Vec<Role>,
    /// Where state is kept.
    pub state_dir: Option<PathBuf>,
    /// How long a shutdown or a revoked partition waits for deliveries in flight; default 25 s.
    pub drain: Duration,
}

/// A schema registry that speaks Confluent's REST API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryConfig {
    /// Where it is reached, with the path that its API stands below: `http` or `https`, without user and password.
    pub url: String,
    /// Who asks, where it wants to know.
    pub credentials: Option<RegistryCredentials>,
}

/// User and password for basic authentication.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistryCredentials {
    /// The user; no colon in it.
    pub username: String,
    /// The password.
    pub password: String,
}

/// When the rules fire that `generate alerts` writes; what else they need is the ladder's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertsConfig {
    /// How long a condition must hold (0 s to 1 d), where it does not look back over a time anyway; default 5 m.
    pub hold: Duration,
    /// From which lateness on (100 ms to 30 m); a tenth of the tier's delay, from 10 s to 10 m, unless said.
    pub lateness: Option<Duration>,
    /// How far the clocks of brokers and workers may be apart (100 ms to 1 h); default 5 s.
    pub clock_offset: Duration,
    /// The page that says what to do, one heading an alert; kladder's own README unless said.
    pub runbook: Option<String>,
}

impl Default for AlertsConfig {
    fn default() -> Self {
        Self { hold: Duration::from_secs(5 * 60), lateness: None, clock_offset: Duration::from_secs(5), runbook: None }
    }
}

/// One of the things that a process can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Moves due records from the tiers to redeliver.
    Mover,
    /// Consumes source and redeliver and calls the handler (push).
    Deliverer,
    /// Consumes the inbox (relay).
    Router,
    /// Feeds the index of dead letters.
    Index,
}

/// One ladder with all that surrounds it.
#[derive(Debug, Clone)]
pub struct LadderConfig {
    /// The ladder itself.
    pub ladder: Ladder,
    /// Where the group starts on the sources while it has no offsets.
    pub start: Option<Start>,
    /// The handler (push).
    pub handler: Option<HandlerConfig>,
    /// When deliveries wait because the handler is down (push); `None` where that is switched off.
    pub breaker: Option<BreakerSettings>,
    /// When what would be a dead letter waits because there are too many; `None` where that is switched off.
    pub dlq_breaker: Option<DlqBreakerSettings>,
    /// Where its dead letters may be sent, and how often.
    pub redrive: RedriveConfig,
    /// How the ladder's topics are made.
    pub topics: TopicsConfig,
}

/// Where a group without offsets starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With the oldest record that there is.
    Earliest,
    /// With what is produced from now on.
    Latest,
}

/// The handler of a ladder.
#[derive(Clone, PartialEq)]
pub struct HandlerConfig {
    /// Where deliveries are posted: `http` or `https`.
    pub url: String,
    /// How long an answer may take; default 10 s.
    pub timeout: Duration,
    /// How many deliveries are open at most (1 to 10,000); default 64.
    pub max_in_flight: usize,
    /// The share of them that redeliveries may take (above 0, at most 1); default 0.5.
    pub redeliver_share: f64,
}

/// How the topics of a ladder are made. What is `None` follows the sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicsConfig {
    /// Partitions of every topic but state; min(largest source, 12) unless said.
    pub partitions: Option<i32>,
    /// Replication factor; that of the source unless said.
    pub replication_factor: Option<i32>,
    /// How long records must survive an outage of everything, beyond their delay; default 7 d.
    pub outage_budget: Duration,
    /// How long dead letters are kept; default 30 d.
    pub dlq_retention: Duration,
}

impl HandlerConfig {
    /// The URL without user and password, for people and logs.
    #[must_use]
    pub fn shown_url(&self) -> String {
        redact::hide_userinfo(&self.url)
    }
}

/// The password stays out of logs.
impl std::fmt::Debug for RegistryCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryCredentials").field("username", &self.username).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for HandlerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HandlerConfig")
            .field("url", &self.shown_url())
            .field("timeout", &self.timeout)
            .field("max_in_flight", &self.max_in_flight)
            .field("redeliver_share", &self.redeliver_share)
            .finish()
    }
}

impl Default for TopicsConfig {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Self { partitions: None, replication_factor: None, outage_budget: 7 * DAY, dlq_retention: 30 * DAY }
    }
}

impl KafkaConfig {
    /// What a consumer is made with, before kladder's own settings.
    #[must_use]
    pub fn for_consumer(&self) -> BTreeMap<String, String> {
        merged(&self.common, &self.consumer)
    }

    /// What a producer is made with, before kladder's own settings.
    #[must_use]
    pub fn for_producer(&self) -> BTreeMap<String, String> {
        merged(&self.common, &self.producer)
    }

    /// Whether consumers join by the newer group protocol (KIP-848), under which the broker decides over sessions and assignment.
    #[must_use]
    pub fn has_newer_group_protocol(&self) -> bool {
        self.for_consumer().get("group.protocol").is_some_and(|protocol| protocol.eq_ignore_ascii_case("consumer"))
    }

    /// The brokers to start from, for messages.
    #[must_use]
    pub fn brokers(&self) -> &str {
        self.common.get("bootstrap.servers").map_or("", String::as_str)
    }
}

/// Values stay out of logs: any of them may be a secret.
impl std::fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&String> = self.common.keys().chain(self.producer.keys()).chain(self.consumer.keys()).collect();
        f.debug_struct("KafkaConfig").field("brokers", &self.brokers()).field("properties", &names).finish()
    }
}

fn merged(common: &BTreeMap<String, String>, own: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut all = common.clone();
    all.extend(own.iter().map(|(k, v)| (k.clone(), v.clone())));
    all
}

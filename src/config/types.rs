//! The domain types of the configuration.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::redact;
use crate::core::batch::{BatchFormat, BatchLimits};
use crate::core::dialect::Dialect;
use crate::core::dispatch::{BreakerSettings, DispatchSettings};
use crate::core::dlq_breaker::DlqBreakerSettings;
use crate::core::ladder::Ladder;
use crate::core::role::Role;

/// Default of `drain`: how long a shutdown or a revocation waits for deliveries in flight.
pub const DEFAULT_DRAIN: Duration = Duration::from_secs(25);
/// Default `session.timeout.ms`; shorter than librdkafka's 45 s, so that the partitions of a killed worker are soon reassigned.
pub const DEFAULT_SESSION_TIMEOUT: Duration = Duration::from_secs(10);
/// The brokers' default of `group.consumer.session.timeout.ms`.
const BROKERS_SESSION_TIMEOUT: Duration = Duration::from_secs(45);
/// Default maximum of deliveries in flight.
pub const DEFAULT_MAX_IN_FLIGHT: usize = 64;

/// Default of `max_in_flight` for a handler that takes batches.
pub const DEFAULT_BATCHES_IN_FLIGHT: usize = 8;

/// Default of `max_unsettled`.
pub const DEFAULT_MAX_UNSETTLED: usize = 500;
/// Default share of redeliveries among them.
pub const DEFAULT_REDELIVER_SHARE: f64 = 0.5;

/// Default number of redrives after which a dead letter is parked.
pub const DEFAULT_PARK_AFTER: u32 = 3;

/// The whole configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// How to reach Kafka.
    pub kafka: KafkaConfig,
    /// Listen address of probes and metrics.
    pub health: HealthConfig,
    /// Listen address of everything that can act or show payloads.
    pub admin: AdminConfig,
    /// The settings of this process.
    pub worker: WorkerConfig,
    /// The schema registry for payloads.
    pub schema_registry: Option<RegistryConfig>,
    /// Thresholds of the alert rules.
    pub alerts: AlertsConfig,
    /// The ladders, by name.
    pub ladders: Vec<LadderConfig>,
    /// Dead-letter topics of other frameworks, by name.
    pub queues: Vec<QueueConfig>,
}

/// The dead-letter topic of another framework, whose letters can be searched and redriven like those of a ladder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueConfig {
    /// Its name in the configuration.
    pub name: String,
    /// The topic.
    pub topic: String,
    /// The dialect of its headers; detected if not set.
    pub dialect: Option<Dialect>,
    /// Topics that its letters may be sent to.
    pub targets: Vec<String>,
    /// Number of redrives after which a letter is parked (1 to 1,000).
    pub park_after: u32,
    /// Settings of its state topic that override kladder's.
    pub settings: TopicSettings,
}

/// Redrive targets of a ladder's dead letters, and the number of redrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedriveConfig {
    /// Topics allowed besides the redeliver topic and the sources.
    pub targets: Vec<String>,
    /// Number of redrives after which a letter is parked (1 to 1,000); default 3.
    pub park_after: u32,
}

impl Default for RedriveConfig {
    fn default() -> Self {
        Self { targets: Vec::new(), park_after: DEFAULT_PARK_AFTER }
    }
}

/// How to reach Kafka: librdkafka's properties by their dotted names.
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
    /// The address, on loopback; by default with the port after that of the probes: `127.0.0.1:9647` for their default. Port 0
    /// lets the system choose.
    pub listen: SocketAddr,
}

/// The settings of this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerConfig {
    /// The instance name of this worker, stable over restarts; default: the host name.
    pub instance: String,
    /// The roles of this process.
    pub roles: Vec<Role>,
    /// The state directory.
    pub state_dir: Option<PathBuf>,
    /// How long a shutdown or a revocation waits for deliveries in flight; default 25 s.
    pub drain: Duration,
}

/// A schema registry with Confluent's REST API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryConfig {
    /// URL of the API, with its path if it has one: `http` or `https`, without user and password.
    pub url: String,
    /// Credentials, if the registry needs them.
    pub credentials: Option<RegistryCredentials>,
}

/// User and password for basic authentication.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistryCredentials {
    /// The user; contains no colon.
    pub username: String,
    /// The password.
    pub password: String,
}

/// Thresholds of the rules that `generate alerts` prints; other thresholds follow from the ladder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertsConfig {
    /// How long a condition must hold (0 s to 1 d) if it does not look back over a time anyway; default 5 m.
    pub hold: Duration,
    /// Lateness that fires an alert (100 ms to 30 m); default: a tenth of the tier's delay, from 10 s to 10
    /// m.
    pub lateness: Option<Duration>,
    /// Allowed difference between the clocks of brokers and workers (100 ms to 1 h); default 5 s.
    pub clock_offset: Duration,
    /// URL of the runbook, with one heading per alert as in `docs/runbook.md`; alerts have no `runbook_url` if it is not set.
    pub runbook: Option<String>,
}

impl Default for AlertsConfig {
    fn default() -> Self {
        Self { hold: Duration::from_secs(5 * 60), lateness: None, clock_offset: Duration::from_secs(5), runbook: None }
    }
}

/// A ladder with all its settings.
#[derive(Debug, Clone)]
pub struct LadderConfig {
    /// The ladder itself.
    pub ladder: Ladder,
    /// Where the group starts on the sources while it has no offsets.
    pub start: Option<Start>,
    /// The handler (push).
    pub handler: Option<HandlerConfig>,
    /// The handler's breaker (push); `None` if it is disabled.
    pub breaker: Option<BreakerSettings>,
    /// The DLQ breaker; `None` if it is disabled.
    pub dlq_breaker: Option<DlqBreakerSettings>,
    /// Redrive targets, and the number of redrives.
    pub redrive: RedriveConfig,
    /// How the ladder's topics are created.
    pub topics: TopicsConfig,
}

/// Where a group without offsets starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the oldest record.
    Earliest,
    /// At the end of the topic.
    Latest,
}

/// The handler of a ladder.
#[derive(Clone, PartialEq)]
pub struct HandlerConfig {
    /// URL that deliveries are posted to: `http` or `https`.
    pub url: String,
    /// Time limit for an answer; default 10 s.
    pub timeout: Duration,
    /// Maximum number of deliveries in flight (1 to 10,000), or of batches; default 64, with `batch` 8.
    pub max_in_flight: usize,
    /// How records are put together, and the format of the body; default: each is delivered on its own. Then `max_in_flight` limits the
    /// batches.
    pub batch: Option<(BatchLimits, BatchFormat)>,
    /// Maximum number of finished deliveries whose commit or transaction is still to come (0 to 100,000); default 500. After a crash at
    /// most this many deliveries are repeated, besides those in flight.
    pub max_unsettled: usize,
    /// The share of both for redeliveries (above 0, at most 1); default 0.5.
    pub redeliver_share: f64,
}

/// How the topics of a ladder are created. `None` follows the sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicsConfig {
    /// Partitions of every topic but state; default: min(largest source, 12).
    pub partitions: Option<i32>,
    /// Replication factor; default: that of the source.
    pub replication_factor: Option<i32>,
    /// How long records must survive a complete outage, in addition to their delay; default 7 d.
    pub outage_budget: Duration,
    /// Retention of dead letters; default 30 d.
    pub dlq_retention: Duration,
    /// Topic settings that override kladder's, by their Kafka names.
    pub settings: TopicSettings,
}

/// Configured topic settings, by their Kafka names.
pub type TopicSettings = BTreeMap<String, TopicSetting>;

/// The value of a topic setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicSetting {
    /// This value.
    Value(String),
    /// The cluster's value: the setting is neither set nor compared. For settings that the cluster does not allow to
    /// set.
    OfCluster,
}

impl HandlerConfig {
    /// The URL without user, password and query values, for messages and logs.
    #[must_use]
    pub fn shown_url(&self) -> String {
        redact::hide_in_urls(&self.url)
    }

    /// The limits of deliveries.
    #[must_use]
    pub fn limits(&self, breaker: Option<BreakerSettings>) -> DispatchSettings {
        let Self { max_unsettled: unsettled, redeliver_share, .. } = *self;
        let places = BatchLimits::records_of(self.batch.map(|(limits, _)| limits), self.max_in_flight);
        DispatchSettings { places, unsettled, redeliver_share, breaker }
    }
}

/// The password must not appear in logs.
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
            .field("max_unsettled", &self.max_unsettled)
            .field("batch", &self.batch)
            .field("redeliver_share", &self.redeliver_share)
            .finish()
    }
}

impl Default for TopicsConfig {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Self {
            partitions: None,
            replication_factor: None,
            outage_budget: 7 * DAY,
            dlq_retention: 30 * DAY,
            settings: TopicSettings::new(),
        }
    }
}

impl KafkaConfig {
    /// The properties of a consumer, before kladder's own settings.
    #[must_use]
    pub fn for_consumer(&self) -> BTreeMap<String, String> {
        merged(&self.common, &self.consumer)
    }

    /// The properties of a producer, before kladder's own settings.
    #[must_use]
    pub fn for_producer(&self) -> BTreeMap<String, String> {
        merged(&self.common, &self.producer)
    }

    /// Whether consumers use the newer group protocol (KIP-848), in which the broker controls sessions and assignment.
    #[must_use]
    pub fn has_newer_group_protocol(&self) -> bool {
        self.for_consumer().get("group.protocol").is_some_and(|protocol| protocol.eq_ignore_ascii_case("consumer"))
    }

    /// How long after its last heartbeat a member's partitions are given to others. In the newer protocol this is a broker
    /// setting, assumed to have its default.
    #[must_use]
    pub fn session_timeout(&self) -> Duration {
        if self.has_newer_group_protocol() {
            return BROKERS_SESSION_TIMEOUT;
        }
        let given = self.for_consumer().get("session.timeout.ms").and_then(|millis| millis.trim().parse().ok());
        given.map_or(DEFAULT_SESSION_TIMEOUT, Duration::from_millis)
    }

    /// The bootstrap brokers, for messages.
    #[must_use]
    pub fn brokers(&self) -> &str {
        self.common.get("bootstrap.servers").map_or("", String::as_str)
    }
}

/// Values must not appear in logs: any of them may be a secret.
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

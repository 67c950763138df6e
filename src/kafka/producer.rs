//! Writes hops: in transactions with the offsets that they consume, or idempotently with every delivery confirmed.
//!
//! All calls block and belong on a worker's own thread. The order within a transaction is fixed: write, wait for every delivery,
//! send the offsets, commit. (Waiting for deliveries inside `commit_transaction` costs 100 ms each time with rust-rdkafka 0.39,
//! whose flush polls in slices of that length.)
//!
//! librdkafka does not support transaction protocol v2 (KIP-890); without it a delayed `EndTxn` could end the *next* transaction.
//! So after any lost connection or timeout within a transaction, the producer is recreated under the same transactional.id, which
//! increments its epoch.
//!
//! Recreating it fences any other user of the transactional.id. There must be none, or two workers with one name would fence each other
//! for ever. So a producer that is fenced although its transaction was younger than its timeout has a rival ([`TxnError::Rival`]) and is
//! not recreated. One whose transaction was older may have been fenced by the coordinator, which aborts timed-out transactions; it
//! pauses first, so that the group can report whether the name is taken. And in any case, before it is recreated the group is asked who
//! has the name ([`HopProducer::made_anew_only_as`]).
//!
//! A transaction has ended only when its markers are written in all its partitions. One of these may be unavailable, without leader or
//! with too few in-sync replicas, and for that time the coordinator answers `CONCURRENT_TRANSACTIONS` to every other request with its
//! transactional.id (measured on 4.3.1). So a producer with spare ids continues under the next one ([`HopProducer::with_spare_ids`]).

mod live;
mod lookups;
mod writer;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rdkafka::ClientConfig;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer};

use crate::config::KafkaConfig;
use crate::core::leader_clock::LocalTime;
use crate::kafka::client_config;
use crate::kafka::clock::Clock;
use crate::kafka::error::{ClientError, TxnError, is_fence};
use crate::kafka::ffi::{RawEventQueue, RawTopic};
use crate::kafka::marker_gap::MarkerGap;
use crate::kafka::outgoing::TopicId;
use crate::kafka::producer::live::{Context, Live};
pub use crate::kafka::producer::lookups::PartitionLook;
use crate::kafka::statistics::{self, Statistics};
use crate::kafka::topic_consumers::OwnNames;
use crate::kafka::transaction::Writer;
use crate::telemetry::standing::{ClientMetrics, Side};

/// Maximum size of a batch in bytes for a ladder's topics: at most half the smallest `max.message.bytes`, whose default is 1 MiB.
pub const LARGEST_BATCH: usize = 500_000;

/// Transaction timeout. It limits how long a dead owner's transaction blocks its successor.
pub const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Time limit of a delivery: below the transaction timeout, so that the cause is reported rather than a fence.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(8);

/// How long a producer that was fenced without a certain rival waits before it is recreated: longer than a heartbeat and its
/// answer, by which a member learns that another has its name.
const FENCED_REST: Duration = Duration::from_secs(4);

/// Time limit of the first contact with the transaction coordinator.
const INIT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long an open transaction of the same transactional.id may take to end before another id is used.
const STUCK_AFTER: Duration = Duration::from_secs(5);

/// Number of ids besides the first. Each may be blocked by another partition.
const SPARE_IDS: usize = 8;

/// Writes hops.
pub struct HopProducer {
    config: ClientConfig,
    transactional_id: Option<String>,
    /// Number of other ids that it may use, and the one in use: 0 is its own.
    spare_ids: usize,
    spare_id: usize,
    clock: Clock,
    topic_names: Vec<String>,
    live: Option<Live>,
    in_transaction: bool,
    /// When the open transaction began, or the last one that failed.
    began: Option<Began>,
    /// Not recreated before then, after it was fenced.
    rests_until: LocalTime,
    /// The client refused a record of this transaction.
    not_taken: bool,
    first_sent: Option<LocalTime>,
    gap: MarkerGap,
    ready_at: LocalTime,
    /// The worker's member names in its group, once it has joined.
    names: Option<OwnNames>,
    made: u64,
    metrics: Option<ClientMetrics>,
}

/// When a transaction began: by the monotonic clock, and by the one that continues while the machine sleeps.
#[derive(Debug, Clone, Copy)]
struct Began {
    at: LocalTime,
    wall: SystemTime,
}

impl HopProducer {
    /// A producer for transactions, or without a transactional.id, an idempotent one. `largest_batch` (in bytes) must be at
    /// most half the smallest `max.message.bytes` of the target topics. It connects at the first use.
    #[must_use]
    pub fn new(kafka: &KafkaConfig, transactional_id: Option<String>, largest_batch: usize, clock: Clock) -> Self {
        let mut config = client_config::producer_config(kafka);
        let defaults = [
            ("linger.ms", "0".to_owned()),
            ("compression.type", "zstd".to_owned()),
            ("batch.size", largest_batch.clamp(1_000, 1_000_000).to_string()),
            // The broker decides what is too large: a record may have been compressed at its source.
            ("message.max.bytes", "1000000000".to_owned()),
            // Everything written must be confirmed before its transaction can end, so a long queue would only delay it. Its bytes are
            // counted here ([`WINDOW_BYTES`]): the client refuses any record larger than its own limit.
            ("queue.buffering.max.messages", "20000".to_owned()),
            ("queue.buffering.max.kbytes", "1048576".to_owned()),
            ("socket.nagle.disable", "true".to_owned()),
            // After a commit the coordinator answers CONCURRENT_TRANSACTIONS until its markers are written, and the client
            // retries after this time: with the default of 100 ms a transaction of one record takes 101 ms instead of 9.
            ("retry.backoff.ms", "5".to_owned()),
            ("retry.backoff.max.ms", "50".to_owned()),
        ];
        client_config::set_unless_given(&mut config, defaults);
        config.set("enable.idempotence", "true").set("acks", "all").set_log_level(RDKafkaLogLevel::Info);
        if let Some(id) = &transactional_id {
            config
                .set("transactional.id", id)
                .set("transaction.timeout.ms", TRANSACTION_TIMEOUT.as_millis().to_string())
                .set("message.timeout.ms", DELIVERY_TIMEOUT.as_millis().to_string());
        }
        Self {
            config,
            transactional_id,
            spare_ids: 0,
            spare_id: 0,
            clock,
            topic_names: Vec::new(),
            live: None,
            in_transaction: false,
            began: None,
            rests_until: LocalTime::from_micros(0),
            not_taken: false,
            first_sent: None,
            gap: MarkerGap::default(),
            ready_at: LocalTime::from_micros(0),
            names: None,
            made: 0,
            metrics: None,
        }
    }

    /// The same, with metrics.
    #[must_use]
    pub fn measured_by(mut self, metrics: &ClientMetrics) -> Self {
        statistics::ask_for(&mut self.config);
        self.metrics = Some(metrics.clone());
        self
    }

    /// Continues under another transactional.id if its own is blocked by a transaction that cannot end. Only for producers whose offsets
    /// are fenced by their group (KIP-447): a predecessor's open transaction under another id either ends before the group returns its
    /// offsets, or contains none. Not for producers that take turns under one id.
    #[must_use]
    pub fn with_spare_ids(mut self) -> Self {
        self.spare_ids = SPARE_IDS;
        self
    }

    /// How often the client was created: a producer that takes turns under one transactional.id has lost its turn when this
    /// has changed.
    #[must_use]
    pub fn times_made(&self) -> u64 {
        self.made
    }

    /// From now on the producer is recreated only while no other member of the group has this name: initialising its transactions
    /// fences any other user of the transactional.id, and a process that was suspended for long finds its transaction failed in one
    /// of many ways before it learns of the newcomer that took its place.
    pub fn made_anew_only_as(&mut self, names: impl Into<OwnNames>) {
        self.names = Some(names.into());
    }

    /// Registers a topic.
    pub fn topic(&mut self, name: &str) -> TopicId {
        let known = self.topic_names.iter().position(|n| n == name);
        TopicId(known.unwrap_or_else(|| {
            self.topic_names.push(name.to_owned());
            self.topic_names.len() - 1
        }))
    }

    /// The name of a registered topic.
    #[must_use]
    pub fn topic_name(&self, topic: TopicId) -> &str {
        self.topic_names.get(topic.0).map_or("", String::as_str)
    }

    /// Connects if it is not connected. With a transactional.id this ends the open transaction of a predecessor of the
    /// same name.
    ///
    /// # Errors
    /// A property is refused, or the coordinator does not answer within 30 s.
    pub fn connect(&mut self) -> Result<(), TxnError> {
        if self.is_transactional() && self.live.as_ref().is_some_and(|live| live.suspect) {
            tracing::info!(
                transactional_id = self.transactional_id,
                "connection failure inside a transaction: recreating the producer"
            );
            if self.live.as_ref().and_then(|live| live.fatal.as_ref()).is_some_and(|(code, _)| is_fence(*code)) {
                self.rest();
            }
            self.rebuild();
        }
        if self.live.is_none() {
            if self.clock.now() < self.rests_until {
                let why = "fenced, perhaps by the coordinator because a transaction took too long, so waiting for the group \
                           to report whether the name is taken";
                return Err(TxnError::Rebuild(ClientError::text("making a producer", why)));
            }
            if let Some(names) = self.names.as_ref().filter(|_| self.is_transactional()) {
                names.look_for_rival().map_err(TxnError::Rival)?;
            }
            let client = self.make()?;
            let events = RawEventQueue::main(client.client().native_ptr(), client.clone());
            let reports = Vec::new();
            if let Some(metrics) = self.metrics.as_ref().filter(|_| self.made > 0) {
                metrics.rebuilt();
            }
            self.made += 1;
            let statistics = self.metrics.clone().map(|metrics| Statistics::new(metrics, Side::Producer));
            self.live = Some(Live {
                topics: Vec::new(),
                events,
                client,
                statistics,
                reports,
                on_the_way: 0,
                suspect: false,
                fatal: None,
            });
        }
        let live = self.live.as_mut().expect("just made");
        for name in &self.topic_names[live.topics.len()..] {
            let topic = RawTopic::new(live.client.client().native_ptr(), live.client.clone(), name);
            let refused = || TxnError::Rebuild(ClientError::text(format!("opening topic {name}"), "refused by the client"));
            live.topics.push(topic.ok_or_else(refused)?);
        }
        Ok(())
    }

    /// Creates a client, and ends the open transaction of its transactional.id. If that does not end, another id is
    /// used.
    fn make(&mut self) -> Result<Arc<BaseProducer<Context>>, TxnError> {
        let begun = self.clock.now();
        loop {
            let client = BaseProducer::from_config_and_context(&self.config, Context)
                .map_err(|e| TxnError::Rebuild(ClientError::new("making a producer", &e)))?;
            let Some(id) = self.current_id() else { return Ok(Arc::new(client)) };
            let Err((error, is_stuck)) = self.init(&client) else { return Ok(Arc::new(client)) };
            if is_stuck && self.spare_ids > 0 {
                self.spare_id = (self.spare_id + 1) % (self.spare_ids + 1);
                let next = self.current_id().unwrap_or_default();
                self.config.set("transactional.id", &next);
                tracing::warn!(
                    transactional_id = id,
                    next,
                    "a transaction cannot end, since one of its partitions is unavailable: continuing under another id"
                );
                if self.clock.now().since(begun) < INIT_TIMEOUT {
                    continue;
                }
            }
            return Err(TxnError::Rebuild(ClientError::new(format!("initialising transactions of {id}"), &error)));
        }
    }

    /// The transactional.id in use. No instance name contains a `#`.
    fn current_id(&self) -> Option<String> {
        let id = self.transactional_id.as_ref()?;
        Some(if self.spare_id == 0 { id.clone() } else { format!("{id}#{}", self.spare_id) })
    }

    /// Ends the open transaction of the transactional.id. On failure, also returns whether that
    /// transaction does not end.
    fn init(&self, client: &BaseProducer<Context>) -> Result<(), (KafkaError, bool)> {
        let begun = self.clock.now();
        loop {
            let Err(error) = client.init_transactions(STUCK_AFTER) else { return Ok(()) };
            let is_stuck = error.rdkafka_error_code() == Some(RDKafkaErrorCode::ConcurrentTransactions);
            let is_retriable = matches!(&error, KafkaError::Transaction(native) if native.is_retriable());
            let goes_on = is_retriable && !(is_stuck && self.spare_ids > 0) && self.clock.now().since(begun) < INIT_TIMEOUT;
            if !goes_on {
                return Err((error, is_stuck));
            }
        }
    }

    fn rest(&mut self) {
        self.rests_until = self.clock.now().later(FENCED_REST);
    }

    /// Classifies an error of a transaction call.
    fn failed(&self, doing: &str, error: &KafkaError) -> TxnError {
        self.judge(match self.beyond_repair(error) {
            Some(fatal) => TxnError::Rebuild(ClientError::beyond_repair(doing, fatal)),
            None => TxnError::of(doing, error),
        })
    }

    /// After a fatal error, all calls of a client only report that.
    fn beyond_repair(&self, error: &KafkaError) -> Option<(RDKafkaErrorCode, String)> {
        let is_one = error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal);
        self.live.as_ref().filter(|_| is_one).and_then(|live| live.client.client().fatal_error())
    }

    /// Distinguishes a rival from a coordinator that aborted a timed-out transaction.
    fn judge(&self, error: TxnError) -> TxnError {
        let is_young = self.began.is_some() && !self.is_overdue();
        match error {
            TxnError::Rebuild(cause) | TxnError::Unknown(cause) | TxnError::Abort(cause) if is_young && cause.is_fenced() => {
                TxnError::Rival(cause.by_rival())
            }
            other => other,
        }
    }

    /// Whether the coordinator may have aborted the transaction, because it has been open for longer than its
    /// timeout.
    fn is_overdue(&self) -> bool {
        self.began.is_some_and(|began| {
            // A wall clock that was set back is no evidence.
            let slept = self.clock.wall().duration_since(began.wall).unwrap_or_default();
            self.clock.now().since(began.at).max(slept) >= TRANSACTION_TIMEOUT
        })
    }

    /// Drops the client; the next use creates a new one under the same transactional.id.
    pub fn rebuild(&mut self) {
        self.live = None;
        self.in_transaction = false;
    }

    /// Before then the last transaction's markers are probably not written, which would delay the next one.
    #[must_use]
    pub fn ready_at(&self) -> LocalTime {
        self.ready_at
    }

    /// Serves the client's events between transactions, without waiting. A connection lost then does no harm.
    pub fn idle(&mut self) {
        if let Some(live) = self.live.as_mut() {
            let suspect = live.suspect;
            live.serve(Duration::ZERO);
            live.suspect = suspect || live.fatal.is_some();
        }
    }
}

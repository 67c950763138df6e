//! Writes hops: in transactions together with the offsets that they consume, or idempotently with every delivery confirmed.
//!
//! All calls block and belong on a worker's own thread. The order inside a transaction is fixed: write, wait for every delivery,
//! send the offsets, commit. (Waiting for delivery inside `commit_transaction` costs 100 ms a time with rust-rdkafka 0.39, whose
//! flush polls in slices of that length.)
//!
//! librdkafka does not speak transaction protocol v2 (KIP-890), under which a delayed `EndTxn` could end the *next* transaction.
//! So after any lost connection or time-out inside a transaction the producer is made anew under the same transactional.id, which
//! moves its epoch on.
//!
//! To rebuild fences whoever else uses the transactional.id. That must be nobody, or two workers of one name would fence each other
//! in turn for ever. So a producer that is fenced although its transaction was younger than its timeout has a rival
//! ([`TxnError::Rival`]) and is not rebuilt. One whose transaction was older may have been fenced by the coordinator, which ends what
//! times out; it rests first, for the group to tell whether the name is taken. And whatever the reason, before it is made anew the group
//! is asked who has the name ([`HopProducer::made_anew_only_as`]).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::metadata::{MetadataPartition, MetadataTopic};
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};

use crate::config::KafkaConfig;
use crate::core::ack_tracker::CommitPoint;
use crate::core::leader_clock::LocalTime;
use crate::core::time::Timestamp;
use crate::kafka::client_config;
use crate::kafka::clock::Clock;
use crate::kafka::consumer::{LiveGroup, points_list};
use crate::kafka::error::{ClientError, TxnError, WriteFault, is_fence};
use crate::kafka::ffi::{self, NativeHeaders, RawEventQueue, RawTopic};
use crate::kafka::lookup;
use crate::kafka::marker_gap::MarkerGap;
use crate::kafka::partition::TopicPartition;
use crate::kafka::statistics::{self, Statistics};
use crate::kafka::topic_consumers::OwnNames;
use crate::kafka::transaction::Writer;
use crate::telemetry::standing::{ClientMetrics, Side};
use crate::topology::GroupMember;

/// How long a transaction may stay open. It bounds how long a dead owner's holds up its successor.
pub const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a delivery may take: below the transaction's own limit, so that the fault is told rather than the fence.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(8);

/// How long a commit is asked for again before its outcome counts as unknown.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(12);

/// How long a producer that was fenced by no certain rival waits before it is made anew: longer than a heartbeat and its answer, by
/// which a member learns that another has its name.
const FENCED_REST: Duration = Duration::from_secs(4);

/// So many bytes are on their way to the brokers at most; a single record in any case.
const WINDOW_BYTES: usize = 8 * 1024 * 1024;

/// Records that were handed over within this time are looked after from the first one on.
const SOON: Duration = Duration::from_millis(5);

/// How long the first contact with the transaction coordinator may take.
const INIT_TIMEOUT: Duration = Duration::from_secs(30);

/// A topic to write to, by the number under which the producer knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicId(usize);

/// For the model of the workers, which numbers its topics itself.
#[cfg(test)]
impl TopicId {
    pub(crate) fn numbered(number: usize) -> Self {
        Self(number)
    }

    pub(crate) fn number(self) -> usize {
        self.0
    }
}

/// A record to write, borrowed from wherever it is.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// Null and empty are different.
    pub key: Option<&'a [u8]>,
    /// Null and empty are different.
    pub value: Option<&'a [u8]>,
}

/// A reading of a broker's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockReading {
    /// The broker.
    pub broker: i32,
    /// Before it was sent.
    pub sent: LocalTime,
    /// What the broker noted.
    pub appended: Timestamp,
    /// After it was confirmed.
    pub confirmed: LocalTime,
}

/// What became of everything that was written since the last time.
#[derive(Debug, Default)]
pub struct Settled {
    /// The tags of the records that were not written, and why.
    pub faults: Vec<(usize, WriteFault)>,
    /// When brokers that date records themselves appended those that were written, by their tags.
    pub appended: Vec<(usize, Timestamp)>,
    /// The transaction failed because some topic in it may not be written to. Which one is not told: the coordinator refused to
    /// add its partitions, whereupon the client dropped every record that was not written yet.
    pub denied: bool,
    /// A reading of the clock of the broker that confirmed last.
    pub clock: Option<ClockReading>,
}

/// Writes hops.
pub struct HopProducer {
    config: ClientConfig,
    transactional_id: Option<String>,
    clock: Clock,
    topic_names: Vec<String>,
    live: Option<Live>,
    in_transaction: bool,
    /// When the open transaction began, or the last one that did not end well.
    began: Option<Began>,
    /// Not made anew before then, after it was fenced.
    rests_until: LocalTime,
    /// The client did not take a record of this transaction.
    not_taken: bool,
    first_sent: Option<LocalTime>,
    gap: MarkerGap,
    ready_at: LocalTime,
    /// Under which the worker is a member of its group, once it is one.
    names: Option<OwnNames>,
    made: u64,
    metrics: Option<ClientMetrics>,
}

/// When a transaction began: by the clock that never jumps, and by the one that goes on while the machine sleeps.
#[derive(Debug, Clone, Copy)]
struct Began {
    at: LocalTime,
    wall: SystemTime,
}

/// What is made anew by a rebuild. Handles go before the client that they came from.
struct Live {
    topics: Vec<RawTopic>,
    events: RawEventQueue,
    client: Arc<BaseProducer<Context>>,
    statistics: Option<Statistics>,
    /// What has become of records, until [`Writer::settle`] takes it.
    reports: Vec<ffi::Report>,
    /// The bytes of what was handed over and has not been reported.
    on_the_way: usize,
    /// A connection was lost, or something timed out, since the transaction began.
    suspect: bool,
    /// The client has declared itself beyond repair.
    fatal: Option<(RDKafkaErrorCode, String)>,
}

impl Live {
    /// Waits for one event and serves it, then whatever else is there.
    fn serve(&mut self, timeout: Duration) {
        let mut timeout = timeout;
        loop {
            let (reports, suspect, fatal) = (&mut self.reports, &mut self.suspect, &mut self.fatal);
            let on_the_way = &mut self.on_the_way;
            let statistics = &self.statistics;
            let client = self.client.client();
            let served = self.events.serve(timeout, |event| match event {
                ffi::Event::Report(report) => {
                    *on_the_way = on_the_way.saturating_sub(report.bytes);
                    reports.push(report);
                }
                ffi::Event::Statistics(text) => {
                    if let Some(statistics) = statistics {
                        statistics.take(text);
                    }
                }
                ffi::Event::Error { code, text, is_fatal } => {
                    tracing::debug!(%code, text, "producer error");
                    *suspect = true;
                    if is_fatal {
                        // The event itself only says that there is one.
                        *fatal = Some(client.fatal_error().unwrap_or((code, text)));
                    }
                }
                ffi::Event::Log { level, facility, text } => {
                    *suspect |= tells_of_lost_request(&facility, &text);
                    client_config::log(level, &facility, &text);
                }
            });
            if !served {
                return;
            }
            timeout = Duration::ZERO;
        }
    }

    /// Whether the open transaction failed by a denied topic. Beginning another one inside it is refused in any case, by the error
    /// that the transaction failed with if it has.
    fn is_denied(&self) -> bool {
        let refusal = self.client.begin_transaction().err();
        refusal.and_then(|error| error.rdkafka_error_code()) == Some(RDKafkaErrorCode::TopicAuthorizationFailed)
    }
}

/// Whether a line of the client's log says that a request may have been lost on its way. To the client that is no error: it sends
/// the request again by itself (`rd_kafka_broker_conn_closed`, `rd_kafka_broker_bufq_timeout_scan`). A broker that does not answer
/// connection attempts has lost nothing.
fn tells_of_lost_request(facility: &str, text: &str) -> bool {
    facility == "REQTMOUT" || facility == "FAIL" && text.contains("in state UP")
}

struct Context;

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client_config::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "producer");
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = usize;

    fn delivery(&self, _: &DeliveryResult<'_>, _: usize) {
        // Reports are taken from the event queue; what comes here comes after a purge.
    }
}

impl HopProducer {
    /// A producer for transactions, or, without a transactional.id, an idempotent one. `largest_batch` (in bytes) must be at
    /// most half the smallest `max.message.bytes` of the topics written to. It connects at the first use.
    #[must_use]
    pub fn new(kafka: &KafkaConfig, transactional_id: Option<String>, largest_batch: usize, clock: Clock) -> Self {
        let mut config = client_config::producer_config(kafka);
        let defaults = [
            ("linger.ms", "0".to_owned()),
            ("compression.type", "zstd".to_owned()),
            ("batch.size", largest_batch.clamp(1_000, 1_000_000).to_string()),
            // The broker decides what is too large: a record may have been compressed where it came from.
            ("message.max.bytes", "1000000000".to_owned()),
            // What is written must be confirmed before its transaction can end, so a long queue would only make all wait. Its bytes are
            // counted here ([`WINDOW_BYTES`]): the client takes no record at all that is larger than its own limit.
            ("queue.buffering.max.messages", "20000".to_owned()),
            ("queue.buffering.max.kbytes", "1048576".to_owned()),
            ("socket.nagle.disable", "true".to_owned()),
            // After a commit the coordinator answers CONCURRENT_TRANSACTIONS until its markers are written, and the client asks
            // again after this: with the default of 100 ms a transaction of one record takes 101 ms instead of 9.
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

    /// The same, which tells of itself by these.
    #[must_use]
    pub fn measured_by(mut self, metrics: &ClientMetrics) -> Self {
        statistics::ask_for(&mut self.config);
        self.metrics = Some(metrics.clone());
        self
    }

    /// How often the client was made: whoever takes turns under one transactional.id has lost its turn when this has changed.
    #[must_use]
    pub fn times_made(&self) -> u64 {
        self.made
    }

    /// From now on the producer is made anew only while no other member of the group has this name: to initialise its transactions
    /// fences whoever writes under the same transactional.id, and a process that was stopped for long finds its transaction failed in
    /// one of many ways before it learns of the newcomer that took its place.
    pub fn made_anew_only_as(&mut self, names: impl Into<OwnNames>) {
        self.names = Some(names.into());
    }

    /// Makes a topic known.
    pub fn topic(&mut self, name: &str) -> TopicId {
        let known = self.topic_names.iter().position(|n| n == name);
        TopicId(known.unwrap_or_else(|| {
            self.topic_names.push(name.to_owned());
            self.topic_names.len() - 1
        }))
    }

    /// The name of a topic that was made known.
    #[must_use]
    pub fn topic_name(&self, topic: TopicId) -> &str {
        self.topic_names.get(topic.0).map_or("", String::as_str)
    }

    /// Looks at a topic again that could not be written to, and gives those of its partitions that have no leader. The client
    /// remembers for minutes that it was denied one, and asks nobody meanwhile.
    #[must_use]
    pub fn look_again(&self, topic: TopicId) -> Vec<i32> {
        let Some(live) = &self.live else { return Vec::new() };
        let name = self.topic_name(topic);
        match live.client.client().fetch_metadata(Some(name), Duration::from_secs(5)) {
            Ok(metadata) => {
                let partitions = metadata.topics().iter().filter(|t| t.name() == name).flat_map(MetadataTopic::partitions);
                partitions.filter(|partition| partition.leader() < 0).map(MetadataPartition::id).collect()
            }
            Err(error) => {
                tracing::debug!(topic = name, %error, "could not be looked at again");
                Vec::new()
            }
        }
    }

    /// Connects if it is not connected. With a transactional.id this ends what a predecessor of the same name left open.
    ///
    /// # Errors
    /// When a property is refused, or the coordinator does not answer within 30 s.
    pub fn connect(&mut self) -> Result<(), TxnError> {
        if self.is_transactional() && self.live.as_ref().is_some_and(|live| live.suspect) {
            tracing::info!(transactional_id = self.transactional_id, "connection trouble inside a transaction: rebuilding");
            if self.live.as_ref().and_then(|live| live.fatal.as_ref()).is_some_and(|(code, _)| is_fence(*code)) {
                self.rest();
            }
            self.rebuild();
        }
        if self.live.is_none() {
            if self.clock.now() < self.rests_until {
                let why = "fenced, perhaps by the coordinator that ended a transaction which took too long, so waiting for the group \
                           to tell whether the name is taken";
                return Err(TxnError::Rebuild(ClientError::text("making a producer", why)));
            }
            if let Some(names) = self.names.as_ref().filter(|_| self.is_transactional()) {
                names.look_for_rival().map_err(TxnError::Rival)?;
            }
            let doing = || "making a producer".to_owned();
            let client = BaseProducer::from_config_and_context(&self.config, Context)
                .map_err(|e| TxnError::Rebuild(ClientError::new(doing(), &e)))?;
            let client: Arc<BaseProducer<Context>> = Arc::new(client);
            if let Some(id) = &self.transactional_id {
                let doing = format!("initialising transactions of {id}");
                client.init_transactions(INIT_TIMEOUT).map_err(|e| TxnError::Rebuild(ClientError::new(doing, &e)))?;
            }
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

    fn rest(&mut self) {
        self.rests_until = self.clock.now().later(FENCED_REST);
    }

    /// Sorts an error of a transaction call.
    fn failed(&self, doing: &str, error: &KafkaError) -> TxnError {
        self.judge(match self.beyond_repair(error) {
            Some(fatal) => TxnError::Rebuild(ClientError::beyond_repair(doing, fatal)),
            None => TxnError::of(doing, error),
        })
    }

    /// The calls of a client that is beyond repair only say that it is.
    fn beyond_repair(&self, error: &KafkaError) -> Option<(RDKafkaErrorCode, String)> {
        let is_one = error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal);
        self.live.as_ref().filter(|_| is_one).and_then(|live| live.client.client().fatal_error())
    }

    /// Tells a rival from a coordinator that ended what took too long.
    fn judge(&self, error: TxnError) -> TxnError {
        let is_young = self.began.is_some() && !self.is_overdue();
        match error {
            TxnError::Rebuild(cause) | TxnError::Unknown(cause) | TxnError::Abort(cause) if is_young && cause.is_fenced() => {
                TxnError::Rival(cause.by_rival())
            }
            other => other,
        }
    }

    /// Whether the coordinator may have ended the transaction, because it has been open for longer than it may.
    fn is_overdue(&self) -> bool {
        self.began.is_some_and(|began| {
            // A wall clock that was set back says nothing.
            let slept = self.clock.wall().duration_since(began.wall).unwrap_or_default();
            self.clock.now().since(began.at).max(slept) >= TRANSACTION_TIMEOUT
        })
    }

    /// Throws the client away; the next use makes a new one under the same transactional.id.
    pub fn rebuild(&mut self) {
        self.live = None;
        self.in_transaction = false;
    }

    /// Before then the last transaction's markers are hardly written, and the next one would be held up by them.
    #[must_use]
    pub fn ready_at(&self) -> LocalTime {
        self.ready_at
    }

    /// Serves the client's events between transactions, without waiting. A connection that is lost then harms nobody.
    pub fn idle(&mut self) {
        if let Some(live) = self.live.as_mut() {
            let suspect = live.suspect;
            live.serve(Duration::ZERO);
            live.suspect = suspect || live.fatal.is_some();
        }
    }

    /// The members of a group.
    ///
    /// # Errors
    /// When the broker does not answer within 15 s or refuses.
    pub fn group_members(&mut self, group: &str, within: Duration) -> Result<Vec<GroupMember>, ClientError> {
        self.connect().map_err(|error| error.cause().clone())?;
        let client = &self.live.as_ref().expect("connected").client;
        ffi::group_members(client.client().native_ptr(), group, within)
            .map_err(|code| ClientError::code(format!("listing the members of group {group}"), code))
    }

    /// How many partitions the topics have that were made known.
    ///
    /// # Errors
    /// When one does not exist or the broker does not answer within 15 s.
    pub fn partition_counts(&mut self) -> Result<HashMap<TopicId, i32>, ClientError> {
        let names = self.topic_names.clone();
        let counted = |(index, name): (usize, &String)| Ok((TopicId(index), self.partition_count(name)?));
        names.iter().enumerate().map(counted).collect()
    }

    /// All topics that this client may see, with their partition counts.
    ///
    /// # Errors
    /// When the broker does not answer within 15 s.
    pub fn existing_topics(&mut self) -> Result<Vec<(String, usize)>, ClientError> {
        self.connect().map_err(|error| error.cause().clone())?;
        let client = &self.live.as_ref().expect("connected").client;
        let metadata =
            client.client().fetch_metadata(None, Duration::from_secs(15)).map_err(|e| ClientError::new("listing topics", &e))?;
        let usable = metadata.topics().iter().filter(|t| t.error().is_none());
        Ok(usable.map(|t| (t.name().to_owned(), t.partitions().len())).collect())
    }

    /// How many partitions a topic has.
    ///
    /// # Errors
    /// When it does not exist or the broker does not answer within 15 s.
    pub fn partition_count(&mut self, name: &str) -> Result<i32, ClientError> {
        self.connect().map_err(|error| error.cause().clone())?;
        lookup::partition_count(self.live.as_ref().expect("connected").client.client(), name, Duration::from_secs(15))
    }
}

impl Writer for HopProducer {
    type Group = LiveGroup;

    fn is_transactional(&self) -> bool {
        self.transactional_id.is_some()
    }

    fn begin(&mut self) -> Result<(), TxnError> {
        self.connect()?;
        self.first_sent = None;
        self.not_taken = false;
        if self.is_transactional() {
            let client = &self.live.as_ref().expect("connected").client;
            client.begin_transaction().map_err(|e| TxnError::of("beginning a transaction", &e))?;
            self.in_transaction = true;
            self.began = Some(Began { at: self.clock.now(), wall: self.clock.wall() });
        }
        Ok(())
    }

    fn send(
        &mut self,
        (topic, partition): (TopicId, i32),
        record: Outgoing<'_>,
        headers: NativeHeaders,
        tag: usize,
    ) -> Result<(), WriteFault> {
        self.first_sent.get_or_insert_with(|| self.clock.now());
        let live = self.live.as_mut().expect("a transaction was begun");
        let rk = live.client.client().native_ptr();
        let mut headers = headers;
        let mut full_since = None;
        let size = record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
        loop {
            let has_room = live.on_the_way == 0 || live.on_the_way + size <= WINDOW_BYTES;
            let produced = if has_room {
                ffi::produce(rk, &live.topics[topic.0], partition, record.key, record.value, headers, tag)
            } else {
                Err((RDKafkaErrorCode::QueueFull, headers))
            };
            match produced {
                Ok(()) => {
                    live.on_the_way += size;
                    return Ok(());
                }
                Err((RDKafkaErrorCode::QueueFull, _)) if live.client.in_flight_count() == 0 && live.on_the_way == 0 => {
                    self.not_taken = true;
                    return Err(WriteFault::Refused("larger than the client's queue.buffering.max.kbytes"));
                }
                // There is no room, and only serving the reports makes some.
                Err((RDKafkaErrorCode::QueueFull, back)) => {
                    let now = self.clock.now();
                    if now.since(*full_since.get_or_insert(now)) > DELIVERY_TIMEOUT * 2 {
                        return Err(WriteFault::Passing("the client's queue stays full"));
                    }
                    live.serve(Duration::from_millis(20));
                    headers = back;
                }
                Err((code, _)) => {
                    self.not_taken = true;
                    return Err(WriteFault::of(code));
                }
            }
        }
    }

    fn settle(&mut self) -> Result<Settled, TxnError> {
        let Some(live) = self.live.as_mut() else { return Ok(Settled::default()) };
        let started = self.clock.now();
        let (mut stuck, mut first_confirmed) = (false, None);
        while live.client.in_flight_count() > 0 && live.fatal.is_none() && !stuck {
            live.serve(Duration::from_millis(100));
            if !live.reports.is_empty() {
                first_confirmed.get_or_insert_with(|| self.clock.now());
            }
            stuck = self.clock.now().since(started) > DELIVERY_TIMEOUT * 4;
        }
        // What was told with the last of them.
        live.serve(Duration::ZERO);
        if live.client.in_flight_count() == 0 {
            live.on_the_way = 0;
        }
        let mut settled = Settled { appended: Vec::with_capacity(live.reports.len()), ..Settled::default() };
        let mut last = None;
        for report in live.reports.drain(..) {
            match report.error {
                Some(code) => settled.faults.push((report.tag, WriteFault::of(code))),
                None => {
                    if let Some(appended) = report.append_time {
                        let appended = Timestamp::from_millis(appended);
                        settled.appended.push((report.tag, appended));
                        last = Some((report.broker, appended));
                    }
                }
            }
        }
        if self.in_transaction && (self.not_taken || !settled.faults.is_empty()) {
            settled.denied = live.is_denied();
        }
        // A denial is an answer: no connection was lost.
        live.suspect |= !settled.denied && settled.faults.iter().any(|(_, fault)| fault.is_passing());
        // Of many records the first is confirmed long before anybody looks, so only few tell.
        if let (true, Some(sent), Some(confirmed)) = (self.in_transaction, self.first_sent, first_confirmed)
            && started.since(sent) < SOON
        {
            self.gap.first_delivery(confirmed.since(sent));
        }
        if let (Some((broker, appended)), Some(sent)) = (last, self.first_sent.take()) {
            settled.clock = Some(ClockReading { broker, sent, appended, confirmed: self.clock.now() });
        }
        if stuck {
            let cause = ClientError::text("writing", "deliveries were neither confirmed nor refused");
            return Err(TxnError::Rebuild(cause));
        }
        // It may be told later than what it did to the records.
        let unsaid = || live.client.client().fatal_error().filter(|_| !settled.faults.is_empty());
        match live.fatal.take().or_else(unsaid) {
            Some(fatal) => Err(self.judge(TxnError::Rebuild(ClientError::beyond_repair("writing", fatal)))),
            None => Ok(settled),
        }
    }

    fn send_offsets(&mut self, group: &LiveGroup, points: &[(TopicPartition, CommitPoint)]) -> Result<(), TxnError> {
        let doing = "sending offsets to the transaction";
        let divided = group.divide(points);
        if divided.iter().map(|(_, own)| own.len()).sum::<usize>() != points.len() {
            // Their transaction must not commit without them.
            return Err(TxnError::Abort(ClientError::text(doing, "they are of a topic of which this worker is no member")));
        }
        for (member, own) in divided {
            let list = points_list(&own).map_err(|e| TxnError::of(doing, &e))?;
            let live = self.live.as_mut().expect("a transaction is open");
            let outcome = live.client.send_offsets_to_transaction(&list, member, TRANSACTION_TIMEOUT);
            let Err(error) = outcome else { continue };
            live.suspect |= error.rdkafka_error_code() == Some(RDKafkaErrorCode::OperationTimedOut);
            return Err(self.failed(doing, &error));
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), TxnError> {
        if !self.is_transactional() {
            return Ok(());
        }
        let started = self.clock.now();
        let live = self.live.as_mut().expect("a transaction is open");
        loop {
            let Err(error) = live.client.commit_transaction(TRANSACTION_TIMEOUT) else {
                (self.in_transaction, self.began) = (false, None);
                self.ready_at = self.clock.now().later(self.gap.width());
                // A connection that was lost while it committed is told now.
                live.serve(Duration::ZERO);
                return Ok(());
            };
            live.suspect = true;
            let (retriable, abortable) = match &error {
                KafkaError::Transaction(native) => (native.is_retriable(), native.txn_requires_abort()),
                _ => (false, false),
            };
            if retriable && self.clock.now().since(started) < COMMIT_TIMEOUT {
                continue;
            }
            let doing = "committing a transaction";
            let cause = match self.beyond_repair(&error) {
                Some(fatal) => ClientError::beyond_repair(doing, fatal),
                None => ClientError::new(doing, &error),
            };
            return Err(self.judge(if abortable { TxnError::Abort(cause) } else { TxnError::Unknown(cause) }));
        }
    }

    fn abort(&mut self) {
        // The coordinator has ended it, or is about to. To abort it all the same can harm whoever has the name now: after some errors
        // the client bumps its epoch for that, and the coordinator answers such a request by fencing the transaction that is open,
        // before it looks at the epoch that was sent along (measured on 4.3.1).
        if self.in_transaction && self.is_overdue() {
            tracing::info!("transaction took longer than it may, rebuilding the producer");
            self.rest();
            self.rebuild();
            return;
        }
        let Some(live) = self.live.as_mut().filter(|_| self.in_transaction) else { return };
        let outcome = live.client.abort_transaction(TRANSACTION_TIMEOUT);
        self.in_transaction = false;
        if let Err(error) = outcome {
            tracing::info!(%error, "transaction could not be aborted, rebuilding the producer");
            // No sure sign of a rival here: a producer id that the coordinator has forgotten ends in a fence as well. If there is one,
            // it will be the one to find the other.
            if self.beyond_repair(&error).map(|(code, _)| code).or(error.rdkafka_error_code()).is_some_and(is_fence) {
                self.rest();
            }
            self.rebuild();
        }
    }

    fn recover(&mut self, error: &TxnError) {
        match error {
            TxnError::Abort(_) => self.abort(),
            TxnError::Rebuild(cause) | TxnError::Unknown(cause) | TxnError::Rival(cause) => {
                if cause.is_fenced() {
                    self.rest();
                }
                self.rebuild();
            }
        }
    }
}

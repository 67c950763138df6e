//! A group consumer with one queue per partition.
//!
//! rust-rdkafka answers a rebalance inside the callback. Here the callback only stores it: the loop that owns the consumer gets
//! it from [`GroupConsumer::serve`], drains and commits, and answers it with [`GroupConsumer::start`] or
//! [`GroupConsumer::release`]. Until then, the group waits for it. So everything that touches a partition — building a batch,
//! taking the group metadata, sending offsets, committing, releasing the partition — happens on one thread, one after the other,
//! and no lock can be forgotten.
//!
//! A member is static: under its name it gets its partitions back. Two live workers with one name would fence each other in turn,
//! so a worker that finds its name taken does not join again ([`ClientError::is_rival`]). In the classic protocol the newcomer wins
//! and the other one learns it with its next heartbeat, unless it was suspended for longer than its session: then the client
//! forgets its member id and would join like a restarted one. Before it may, the group is asked who has the name. A member that is
//! dropped with an unanswered rebalance is closed first and answers then, or the answer would make it join again.
//!
//! While a member rejoins, no other request of it reaches its coordinator: `JoinGroup` is answered only when all members of the group
//! have joined, a broker processes the requests of a connection one after the other, and librdkafka 2.12 sends both that and
//! `OffsetCommit` over its single connection to the coordinator (`rd_kafka_JoinGroupRequest` marks it as blocking). A member may start
//! rejoining at any time, without notice, when a heartbeat reports a rebalance. So a commit may wait for all other members, and a thread
//! with several members must not wait for it: another of its members may be the one that the group waits for
//! ([`GroupConsumer::commit_in_time`]).
//!
//! A member may also be fenced without a rival: when its session expires because no coordinator answered, librdkafka forgets the
//! member id but continues heartbeats until its partitions are released, which the next coordinator answers with a fence (librdkafka
//! #3437, open; also in 2.12). Then too the group is asked, and without a rival the fence is resolved by a new client.

mod close;
mod commit;
mod name;
mod record;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;

use crate::config::KafkaConfig;
use crate::kafka::client_config;
use crate::kafka::clock::Clock;
pub use crate::kafka::consumer::commit::LiveGroup;
use crate::kafka::consumer::commit::UnansweredCommit;
pub(crate) use crate::kafka::consumer::commit::points_list;
pub use crate::kafka::consumer::name::OwnName;
pub use crate::kafka::consumer::record::{ConsumerRecord, Next, PartitionQueue};
use crate::kafka::error::ClientError;
use crate::kafka::ffi::{self, RawPartitionQueue};
use crate::kafka::lookup;
use crate::kafka::partition::TopicPartition;
use crate::kafka::statistics::{self, Statistics};
use crate::telemetry::standing::{ClientMetrics, Side};

/// A change of this member's assignment, to be answered by [`GroupConsumer::start`] or
/// [`GroupConsumer::release`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rebalance {
    /// New partitions.
    Assigned(Vec<TopicPartition>),
    /// Revoked partitions.
    Revoked {
        /// The partitions.
        partitions: Vec<TopicPartition>,
        /// They are already lost: another member may own them, so nothing may be written for them any more.
        lost: bool,
    },
}

/// How a consumer joins its group.
#[derive(Debug, Clone)]
pub struct Membership {
    /// The group.
    pub group: String,
    /// The static member's name (`group.instance.id`).
    pub instance: String,
    /// The topics.
    pub topics: Vec<String>,
    /// Maximum memory of fetched records that were not taken, in KiB, for all partitions together.
    pub prefetch_kib: usize,
    /// Number of partitions that share it.
    pub partitions: usize,
    /// When a broker should answer a fetch.
    pub fetch: Fetch,
}

/// When a broker answers a fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetch {
    /// As soon as there are records.
    AtOnce,
    /// When there are more than a few records, or after this time: for records that wait longer anyway. A fetch names all
    /// partitions, so one fetch per arriving record is the largest cost for a broker.
    Patient(Duration),
}

/// The committed position of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The next offset.
    pub offset: i64,
    /// The offset metadata of the last commit.
    pub metadata: String,
}

/// A member of a consumer group.
pub struct GroupConsumer {
    inner: Arc<BaseConsumer<Context>>,
    group: String,
    name: OwnName,
    /// Rebalance delivered but not acknowledged: closing waits for the answer.
    unanswered: Mutex<Option<Rebalance>>,
    late: Mutex<UnansweredCommit>,
}

struct Context {
    statistics: Statistics,
    pending: Mutex<VecDeque<Rebalance>>,
    closing: AtomicBool,
    /// No coordinator answered for the length of a session, and nothing was assigned since.
    session_ended: AtomicBool,
}

/// Time limit of a blocking request to the broker.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// Interval at which the client refreshes the partition counts of its topics: new partitions may wait this long for a consumer. The
/// client's default is five minutes. At 200 workers with two consumers each it makes 13 small requests per second, over all brokers.
const METADATA_REFRESH: Duration = Duration::from_secs(30);

/// Maximum size of a fetch per partition: more makes nothing faster, and uses memory.
const MOST_FETCHED_KIB: usize = 512;

/// Minimum prefetch per partition; below it, one fetch would not contain a typical record.
const MIN_PREFETCH_KIB: usize = 16;

impl GroupConsumer {
    /// Creates a consumer and subscribes it. It has joined once [`GroupConsumer::serve`] returns an
    /// assignment.
    ///
    /// # Errors
    /// A property is refused or the client cannot be created.
    pub fn join(kafka: &KafkaConfig, membership: &Membership, metrics: &ClientMetrics) -> Result<Self, ClientError> {
        let mut config = client_config::consumer_config(kafka);
        // With split queues the limit applies to each partition (measured: 1 GiB over 600 of them with the default).
        let each = (membership.prefetch_kib / membership.partitions.max(1)).max(MIN_PREFETCH_KIB);
        let mut defaults = vec![
            ("queued.max.messages.kbytes", each.to_string()),
            // Compressed size, which is several times more in memory.
            ("fetch.message.max.bytes", (each.min(MOST_FETCHED_KIB) * 1024).to_string()),
            // With the default of 1000, a queue that was just drained waits for a second.
            ("fetch.queue.backoff.ms", "10".to_owned()),
            ("topic.metadata.refresh.interval.ms", METADATA_REFRESH.as_millis().to_string()),
            ("socket.nagle.disable", "true".to_owned()),
        ];
        if kafka.has_newer_group_protocol() {
            // Session, heartbeat and assignor are broker settings then, and the client refuses them.
        } else {
            config.set("partition.assignment.strategy", "cooperative-sticky");
            defaults.push(("session.timeout.ms", kafka.session_timeout().as_millis().to_string()));
            defaults.push(("heartbeat.interval.ms", "2000".to_owned()));
        }
        if let Fetch::Patient(wait) = membership.fetch {
            // Never more than one partition alone can have: it may be the only one with records.
            defaults.push(("fetch.min.bytes", (each.min(MOST_FETCHED_KIB) * 1024 / 4).to_string()));
            defaults.push(("fetch.wait.max.ms", wait.as_millis().max(1).to_string()));
        }
        client_config::set_unless_given(&mut config, defaults);
        statistics::ask_for(&mut config);
        config
            .set("group.id", &membership.group)
            .set("group.instance.id", &membership.instance)
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            .set_log_level(RDKafkaLogLevel::Warning);
        let doing = || format!("joining group {}", membership.group);
        let context = Context {
            statistics: Statistics::new(metrics.clone(), Side::Consumer),
            pending: Mutex::default(),
            closing: AtomicBool::default(),
            session_ended: AtomicBool::default(),
        };
        let inner = BaseConsumer::from_config_and_context(&config, context).map_err(|e| ClientError::new(doing(), &e))?;
        let topics: Vec<&str> = membership.topics.iter().map(String::as_str).collect();
        inner.subscribe(&topics).map_err(|e| ClientError::new(doing(), &e))?;
        let inner = Arc::new(inner);
        let name = OwnName {
            client: Arc::downgrade(&inner),
            group: membership.group.clone(),
            instance: membership.instance.clone(),
            member_id: Arc::default(),
        };
        let late = Mutex::new(UnansweredCommit::new(Clock::system()));
        Ok(Self { inner, group: membership.group.clone(), name, unanswered: Mutex::default(), late })
    }

    /// The member's name, to check whether it is still its own.
    #[must_use]
    pub fn name(&self) -> OwnName {
        self.name.clone()
    }

    /// Serves the group for at most this long (in whole milliseconds; returns at once after an event) and returns a rebalance,
    /// which must be answered before the next call.
    ///
    /// # Errors
    /// The member is fenced, its name is taken by another, or the client has failed fatally.
    pub fn serve(&self, timeout: Duration) -> Result<Option<Rebalance>, ClientError> {
        let mut timeout = timeout;
        loop {
            let polled = self.inner.poll(timeout);
            timeout = Duration::ZERO;
            let pending = lock(&self.inner.context().pending).pop_front();
            if pending.is_some() {
                lock(&self.unanswered).clone_from(&pending);
                if matches!(pending, Some(Rebalance::Revoked { lost: true, .. })) {
                    self.name.look_for_rival()?;
                }
                return Ok(pending);
            }
            match polled {
                None => return Ok(None),
                Some(Err(error)) => self.judge(&error)?,
                // Partitions are split before the assignment takes effect, so no records arrive here. If that ever fails, a
                // record must not be lost: the member restarts from the committed offsets.
                Some(Ok(_)) => {
                    let text = "a record arrived outside of its partition's queue";
                    return Err(ClientError::text(format!("consuming as group {}", self.group), text));
                }
            }
        }
    }

    fn judge(&self, error: &KafkaError) -> Result<(), ClientError> {
        let error_of = || self.error(format!("consuming as group {}", self.group), error);
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::PollExceeded) {
            self.name.look_for_rival()?;
        }
        match error {
            KafkaError::PartitionEOF(_) => Ok(()),
            KafkaError::MessageConsumptionFatal(_) => Err(error_of()),
            other if other.rdkafka_error_code().is_some_and(ends_membership) => Err(error_of()),
            // librdkafka recovers by itself: unreachable brokers, topics being created.
            _ => {
                tracing::debug!(group = %self.group, %error, "consumer error that passes");
                Ok(())
            }
        }
    }

    /// After a fatal error, all calls of a client only report that.
    fn error(&self, doing: String, error: &KafkaError) -> ClientError {
        let told = ClientError::new(doing.clone(), error);
        let fatal = self.inner.client().fatal_error().filter(|_| told.is_fatal());
        let error = fatal.map_or(told, |fatal| ClientError::beyond_repair(doing.clone(), fatal));
        if error.is_rival() && self.inner.context().session_ended.load(Ordering::Acquire) {
            let by_nobody = "no coordinator answered until the session ended, whereupon the client was fenced by nobody else";
            return self.name.look_for_rival().err().unwrap_or_else(|| ClientError::done_for(doing, by_nobody));
        }
        error
    }

    /// The committed offsets and their metadata, from the broker. Waits for transactions that are still open on them.
    ///
    /// # Errors
    /// The broker does not answer within 15 s or refuses.
    pub fn committed(&self, partitions: &[TopicPartition]) -> Result<Vec<Option<Committed>>, ClientError> {
        let doing = || format!("reading the committed offsets of group {}", self.group);
        let answer =
            self.inner.committed_offsets(list_of(partitions), CALL_TIMEOUT).map_err(|e| ClientError::new(doing(), &e))?;
        partitions
            .iter()
            .map(|tp| {
                let Some(element) = answer.find_partition(&tp.topic, tp.partition) else { return Ok(None) };
                element.error().map_err(|e| ClientError::new(doing(), &e))?;
                Ok(match element.offset() {
                    Offset::Offset(offset) => Some(Committed { offset, metadata: element.metadata().to_owned() }),
                    _ => None,
                })
            })
            .collect()
    }

    /// The first offset of a partition and its end.
    ///
    /// # Errors
    /// The broker does not answer within 15 s or refuses.
    pub fn bounds(&self, tp: &TopicPartition) -> Result<(i64, i64), ClientError> {
        self.inner
            .fetch_watermarks(&tp.topic, tp.partition, CALL_TIMEOUT)
            .map_err(|e| ClientError::new(format!("reading the bounds of {tp}"), &e))
    }

    /// The end of a partition from the last fetch, without asking the broker.
    #[must_use]
    pub fn known_end(&self, tp: &TopicPartition) -> Option<i64> {
        ffi::known_end(self.inner.client().native_ptr(), &tp.topic, tp.partition)
    }

    /// The ends of partitions for read-committed consumers, from their leaders; those that did not answer are left out.
    ///
    /// # Errors
    /// There is no answer in time.
    pub fn ends(&self, partitions: &[TopicPartition], within: Duration) -> Result<Vec<(TopicPartition, i64)>, ClientError> {
        let ends = lookup::ends(&self.inner, partitions, within)?;
        Ok(partitions.iter().zip(ends).filter_map(|(tp, end)| Some((tp.clone(), end?))).collect())
    }

    /// Stops fetching partitions and discards fetched records that were not taken. Fetching continues after the last record
    /// taken, of which there must be one.
    ///
    /// # Errors
    /// The client refuses; some may be paused then.
    pub fn pause(&self, partitions: &[TopicPartition]) -> Result<(), ClientError> {
        self.inner.pause(&list_of(partitions)).map_err(|e| ClientError::new("pausing partitions", &e))
    }

    /// Fetches partitions again; no effect on partitions that are not paused.
    ///
    /// # Errors
    /// The client refuses; some may be resumed then.
    pub fn resume(&self, partitions: &[TopicPartition]) -> Result<(), ClientError> {
        self.inner.resume(&list_of(partitions)).map_err(|e| ClientError::new("resuming partitions", &e))
    }

    /// Starts assigned partitions, each at its offset. Returns their queues, in the same order. The wake function is called by a
    /// client thread when an empty queue gets records.
    ///
    /// # Errors
    /// The client refuses.
    pub fn start(
        &self,
        assigned: &[(TopicPartition, i64)],
        wake: Option<&(dyn Fn() -> Box<dyn Fn() + Send + Sync> + '_)>,
    ) -> Result<Vec<PartitionQueue>, ClientError> {
        let doing = || format!("taking over partitions for group {}", self.group);
        let mut queues = Vec::with_capacity(assigned.len());
        for (tp, _) in assigned {
            let client = self.inner.clone();
            let raw =
                RawPartitionQueue::split(self.inner.client().native_ptr(), client, &tp.topic, tp.partition, wake.map(|w| w()));
            let raw = raw.ok_or_else(|| ClientError::text(doing(), format!("no queue for {tp}")))?;
            queues.push(PartitionQueue { raw, tp: tp.clone() });
        }
        let list = positions_list(assigned).map_err(|e| ClientError::new(doing(), &e))?;
        self.inner.incremental_assign(&list).map_err(|e| ClientError::new(doing(), &e))?;
        // It does not change while these partitions are assigned: whatever ends it revokes them first, and waits for an answer.
        *lock(&self.name.member_id) = ffi::member_id(self.inner.client().native_ptr());
        self.inner.context().session_ended.store(false, Ordering::Release);
        lock(&self.unanswered).take();
        Ok(queues)
    }

    /// Goes back in partitions of this member: their queues yield the records from these offsets again.
    ///
    /// # Errors
    /// The client refuses. A part of a partition may be skipped then, so the member must restart.
    pub fn go_back(&self, to: &[(TopicPartition, i64)]) -> Result<(), ClientError> {
        let doing = || format!("reading once more as group {}", self.group);
        let list = positions_list(to).map_err(|e| ClientError::new(doing(), &e))?;
        let sought = self.inner.seek_partitions(list, CALL_TIMEOUT).map_err(|e| ClientError::new(doing(), &e))?;
        sought.elements().iter().try_for_each(|e| e.error().map_err(|e| ClientError::new(doing(), &e)))
    }

    /// Releases revoked partitions; must be called after all their records are committed or aborted and their queues are
    /// dropped.
    ///
    /// # Errors
    /// The client refuses.
    pub fn release(&self, partitions: &[TopicPartition]) -> Result<(), ClientError> {
        // A partition that is paused when released would come back paused (confluent-kafka-go #193, librdkafka
        // #1849).
        self.resume(partitions)?;
        self.inner
            .incremental_unassign(&list_of(partitions))
            .map_err(|e| ClientError::new(format!("giving partitions back to group {}", self.group), &e))?;
        lock(&self.unanswered).take();
        Ok(())
    }

    /// Whether partitions of this member have already been lost, although the event is not
    /// delivered yet.
    #[must_use]
    pub fn assignment_lost(&self) -> bool {
        self.inner.assignment_lost()
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.group
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // `rd_kafka_cgrp_session_timeout_check` reports it nowhere else.
        if facility == "SESSTMOUT" {
            self.session_ended.store(true, Ordering::Release);
        }
        client_config::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "consumer");
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.statistics.take(statistics);
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, err: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let assigned = err == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::Acquire) {
            let _ = if assigned { consumer.incremental_assign(list) } else { consumer.incremental_unassign(list) };
            return;
        }
        let elements = list.elements();
        let partitions = elements.iter().map(|e| TopicPartition { topic: e.topic().into(), partition: e.partition() }).collect();
        lock(&self.pending).push_back(if assigned {
            Rebalance::Assigned(partitions)
        } else {
            Rebalance::Revoked { partitions, lost: consumer.assignment_lost() }
        });
    }
}

fn ends_membership(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::FencedInstanceId
            | RDKafkaErrorCode::PollExceeded
            | RDKafkaErrorCode::Fatal
    )
}

fn positions_list(positions: &[(TopicPartition, i64)]) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::with_capacity(positions.len());
    for (tp, offset) in positions {
        list.add_partition_offset(&tp.topic, tp.partition, Offset::Offset(*offset))?;
    }
    Ok(list)
}

fn list_of(partitions: &[TopicPartition]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for tp in partitions {
        list.add_partition(&tp.topic, tp.partition);
    }
    list
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! A group consumer with one queue a partition.
//!
//! rust-rdkafka answers a rebalance inside the callback. Here the callback only notes it: the loop that owns the consumer is told
//! by [`GroupConsumer::serve`], drains and commits, and answers itself with [`GroupConsumer::start`] or
//! [`GroupConsumer::release`]. Until it does, the group waits for it. So all that touches a partition — building a batch, taking
//! the group metadata, sending offsets, committing, giving the partition away — happens on one thread, one after the other, and
//! no lock can be forgotten.
//!
//! A member is static: under its name it comes back to its partitions. Two live workers of one name would throw each other out in
//! turn, so whoever finds its name taken does not join again ([`ClientError::is_rival`]). By the classic protocol the newcomer wins
//! and the other is told with its next heartbeat, unless it was stopped for longer than its session: then the client forgets its
//! member id and would join like a restarted one. Before it may, the group is asked who has the name. A member that is dropped with
//! something unanswered is closed first and answers then, or the answer would make it join once more.
//!
//! While a member rejoins, nothing else of it reaches its coordinator: `JoinGroup` is answered only when all members of the group have
//! come, a broker takes the requests of a connection one after the other, and librdkafka 2.12 sends both that and `OffsetCommit` over the
//! one connection that it has to the coordinator (`rd_kafka_JoinGroupRequest` marks it as blocking). A member may begin to at any time,
//! without a word, when a heartbeat tells it that the group rebalances. So a commit may wait for all the others, and one thread that has
//! several members must not wait for it: another one of them may be what the group waits for ([`GroupConsumer::commit_in_time`]).
//!
//! A member may also be fenced by nobody: when its session ends because no coordinator answered, librdkafka forgets the member id and
//! yet goes on with heartbeats until its partitions are given back, which the next coordinator answers with a fence (librdkafka
//! #3437, open; so it is in 2.12). Then too the group is asked, and without a rival the fence is one that passes with a new client.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;

use crate::config::KafkaConfig;
use crate::core::ack_tracker::CommitPoint;
use crate::core::coordinates::Coordinates;
use crate::core::leader_clock::LocalTime;
use crate::core::time::Timestamp;
use crate::kafka::client_config;
use crate::kafka::clock::Clock;
use crate::kafka::error::{ClientError, is_denial};
use crate::kafka::ffi::{self, CommitOnItsWay, HeaderIter, NativeHeaders, Polled, RawMessage, RawPartitionQueue};
use crate::kafka::lookup;
use crate::kafka::partition::TopicPartition;
use crate::kafka::statistics::{self, Statistics};
use crate::telemetry::standing::{ClientMetrics, Side};
use crate::topology::GroupMember;

/// A change of what this member owns, to be answered by [`GroupConsumer::start`] or [`GroupConsumer::release`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rebalance {
    /// These are new.
    Assigned(Vec<TopicPartition>),
    /// These go.
    Revoked {
        /// Which.
        partitions: Vec<TopicPartition>,
        /// They are gone already: another member may own them, so nothing may be written for them any more.
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
    /// The most memory that fetched and not yet taken records may hold, in KiB, for all partitions together.
    pub prefetch_kib: usize,
    /// Over how many partitions it may have to be divided.
    pub partitions: usize,
    /// When a broker is to answer a fetch.
    pub fetch: Fetch,
}

/// When a broker answers a fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetch {
    /// As soon as there is anything.
    AtOnce,
    /// When there is more than a few records, or after this time: for records that wait for longer anyway. A fetch names all
    /// partitions, so one for each record that arrives is what costs a broker most.
    Patient(Duration),
}

/// The committed position of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The next offset.
    pub offset: i64,
    /// What the last commit said beyond it.
    pub metadata: String,
}

/// A live membership, without which no offset may be sent.
#[derive(Default)]
pub struct LiveGroup(Vec<(Option<Arc<str>>, ConsumerGroupMetadata)>);

impl LiveGroup {
    /// Of another member, for this topic.
    pub(crate) fn add(&mut self, topic: &Arc<str>, member: Self) {
        self.0.extend(member.0.into_iter().map(|(_, metadata)| (Some(topic.clone()), metadata)));
    }

    /// Divides points among the members to whose topics they belong; those of no member are left out.
    pub(crate) fn divide<'a>(
        &'a self,
        points: &[(TopicPartition, CommitPoint)],
    ) -> Vec<(&'a ConsumerGroupMetadata, Vec<(TopicPartition, CommitPoint)>)> {
        let own = |topic: &Option<Arc<str>>| {
            points.iter().filter(|(tp, _)| topic.as_ref().is_none_or(|topic| *topic == tp.topic)).cloned().collect()
        };
        let divided = self.0.iter().map(|(topic, metadata)| (metadata, own(topic)));
        divided.filter(|(_, points): &(_, Vec<_>)| !points.is_empty()).collect()
    }
}

/// A member of a consumer group.
pub struct GroupConsumer {
    inner: Arc<BaseConsumer<Context>>,
    group: String,
    name: OwnName,
    /// Told, and not answered yet: closing waits for an answer.
    unanswered: Mutex<Option<Rebalance>>,
    late: Mutex<Late>,
}

/// The commit that was not answered in time.
struct Late {
    commit: Option<(CommitOnItsWay, LocalTime)>,
    clock: Clock,
    /// How long the next is waited for.
    patience: Duration,
}

impl Late {
    /// Looks whether it is answered now. A coordinator that is merely slow is given the time that it needs from then on.
    fn is_on_its_way(&mut self) -> bool {
        let answer = self.commit.as_ref().and_then(|(commit, since)| Some((commit.answer(Duration::ZERO)?, *since)));
        if let Some((answer, since)) = answer {
            self.commit = None;
            self.learn(answer.is_ok(), since);
        }
        self.commit.is_some()
    }

    fn learn(&mut self, is_committed: bool, since: LocalTime) {
        if is_committed {
            self.patience = (self.clock.now().since(since) * 2).clamp(LEAST_PATIENCE, CALL_TIMEOUT);
        }
    }
}

/// The name that a member has in its group, and perhaps has no longer.
#[derive(Clone)]
pub struct OwnName {
    client: Weak<BaseConsumer<Context>>,
    group: String,
    instance: String,
    /// What the coordinator called this member when it last gave it partitions.
    member_id: Arc<Mutex<Option<String>>>,
}

struct Context {
    statistics: Statistics,
    pending: Mutex<VecDeque<Rebalance>>,
    closing: AtomicBool,
    /// No coordinator answered for as long as a session lasts, and nothing was assigned since.
    session_ended: AtomicBool,
}

/// How long a call may take that asks the broker and waits.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a commit is waited for at least that may be held up by the group. It is answered within milliseconds otherwise.
const LEAST_PATIENCE: Duration = Duration::from_millis(250);

/// How long the question may take who has this member's name; nobody is a rival while there is no answer.
const RIVAL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a poll of a member that is being closed waits for what the group still has to say.
const CLOSE_POLL: Duration = Duration::from_millis(100);

/// How often it is looked whether it is closed, and how long one that is closed is waited for to say so.
const CLOSE_LOOK: Duration = Duration::from_millis(5);
const CLOSE_GRACE: Duration = Duration::from_millis(500);

/// How often the client asks for the partition counts of its topics: so long may partitions that were added wait for a consumer. The
/// client's default is five minutes. At 200 workers of two consumers each it makes 13 small requests a second, all brokers together.
const METADATA_REFRESH: Duration = Duration::from_secs(30);

/// The most that one fetch takes of a partition: more of it at a time makes nothing faster, and is memory.
const MOST_FETCHED_KIB: usize = 512;

/// The least that a partition may prefetch; below it, one fetch would not carry a usual record.
const MIN_PREFETCH_KIB: usize = 16;

impl GroupConsumer {
    /// Makes a consumer and subscribes it. It has joined once [`GroupConsumer::serve`] gives an assignment.
    ///
    /// # Errors
    /// When a property is refused or the client cannot be made.
    pub fn join(kafka: &KafkaConfig, membership: &Membership, metrics: &ClientMetrics) -> Result<Self, ClientError> {
        let mut config = client_config::consumer_config(kafka);
        // With split queues the limit counts for each partition (measured: 1 GiB over 600 of them with the default).
        let each = (membership.prefetch_kib / membership.partitions.max(1)).max(MIN_PREFETCH_KIB);
        let mut defaults = vec![
            ("queued.max.messages.kbytes", each.to_string()),
            // As compressed, which is a few times more in memory.
            ("fetch.message.max.bytes", (each.min(MOST_FETCHED_KIB) * 1024).to_string()),
            // The default of 1000 makes a queue that was just drained wait for a second.
            ("fetch.queue.backoff.ms", "10".to_owned()),
            ("topic.metadata.refresh.interval.ms", METADATA_REFRESH.as_millis().to_string()),
            ("socket.nagle.disable", "true".to_owned()),
        ];
        if kafka.has_newer_group_protocol() {
            // Session, heartbeat and assignor are the broker's business then, and the client refuses to be told of them.
        } else {
            config.set("partition.assignment.strategy", "cooperative-sticky");
            defaults.push(("session.timeout.ms", "10000".to_owned()));
            defaults.push(("heartbeat.interval.ms", "2000".to_owned()));
        }
        if let Fetch::Patient(wait) = membership.fetch {
            // Never more than one partition alone can give: it may be the only one that has anything.
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
            .set("allow.auto.create.topics", "false")
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
        let late = Mutex::new(Late { commit: None, clock: Clock::system(), patience: LEAST_PATIENCE });
        Ok(Self { inner, group: membership.group.clone(), name, unanswered: Mutex::default(), late })
    }

    /// The member's name, for whoever has to know whether it is still its own.
    #[must_use]
    pub fn name(&self) -> OwnName {
        self.name.clone()
    }

    /// Serves the group for at most this long (in whole milliseconds; it returns at once when something happened) and says what
    /// changed, which is to be answered before the next call.
    ///
    /// # Errors
    /// When the member is fenced, its name is taken by another, or the client is beyond repair.
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
                // Split before the assignment took effect, a partition leaves nothing here. Should that ever fail, a record
                // must not vanish: the member starts anew from the committed offsets.
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
            // librdkafka goes on by itself: brokers that are away, topics that are being made.
            _ => {
                tracing::debug!(group = %self.group, %error, "consumer error that passes");
                Ok(())
            }
        }
    }

    /// The calls of a client that is beyond repair only say that it is.
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
    /// When the broker does not answer within 15 s or refuses.
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

    /// The oldest offset of a partition and its end.
    ///
    /// # Errors
    /// When the broker does not answer within 15 s or refuses.
    pub fn bounds(&self, tp: &TopicPartition) -> Result<(i64, i64), ClientError> {
        self.inner
            .fetch_watermarks(&tp.topic, tp.partition, CALL_TIMEOUT)
            .map_err(|e| ClientError::new(format!("reading the bounds of {tp}"), &e))
    }

    /// The end of a partition as the last fetch told it, without asking the broker.
    #[must_use]
    pub fn known_end(&self, tp: &TopicPartition) -> Option<i64> {
        ffi::known_end(self.inner.client().native_ptr(), &tp.topic, tp.partition)
    }

    /// Where partitions end for those who read committed, as their leaders say; those that did not answer are left out.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub fn ends(&self, partitions: &[TopicPartition], within: Duration) -> Result<Vec<(TopicPartition, i64)>, ClientError> {
        let ends = lookup::ends(&self.inner, partitions, within)?;
        Ok(partitions.iter().zip(ends).filter_map(|(tp, end)| Some((tp.clone(), end?))).collect())
    }

    /// Stops fetching partitions and throws away what was fetched of them and not yet taken. It goes on behind the last record
    /// that was taken, of which there must be one.
    ///
    /// # Errors
    /// When the client refuses; some may be paused then.
    pub fn pause(&self, partitions: &[TopicPartition]) -> Result<(), ClientError> {
        self.inner.pause(&list_of(partitions)).map_err(|e| ClientError::new("pausing partitions", &e))
    }

    /// Fetches partitions again; nothing happens to those that are not paused.
    ///
    /// # Errors
    /// When the client refuses; some may go on then.
    pub fn resume(&self, partitions: &[TopicPartition]) -> Result<(), ClientError> {
        self.inner.resume(&list_of(partitions)).map_err(|e| ClientError::new("resuming partitions", &e))
    }

    /// Takes over what was assigned, each partition at its offset. Returns their queues, in the same order. The wake function is
    /// called, from a thread of the client, when a queue that was empty has something.
    ///
    /// # Errors
    /// When the client refuses.
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
        // It stays the same for as long as these partitions do: whatever ends it takes them away first, and waits for an answer.
        *lock(&self.name.member_id) = ffi::member_id(self.inner.client().native_ptr());
        self.inner.context().session_ended.store(false, Ordering::Release);
        lock(&self.unanswered).take();
        Ok(queues)
    }

    /// Goes back in partitions of this member: their queues give what they had given from these offsets on once more.
    ///
    /// # Errors
    /// When the client refuses. A partition may then have been passed over in part, so the member must start anew.
    pub fn go_back(&self, to: &[(TopicPartition, i64)]) -> Result<(), ClientError> {
        let doing = || format!("reading once more as group {}", self.group);
        let list = positions_list(to).map_err(|e| ClientError::new(doing(), &e))?;
        let sought = self.inner.seek_partitions(list, CALL_TIMEOUT).map_err(|e| ClientError::new(doing(), &e))?;
        sought.elements().iter().try_for_each(|e| e.error().map_err(|e| ClientError::new(doing(), &e)))
    }

    /// Gives away what was revoked; to be called after everything of it is committed or aborted and its queues are dropped.
    ///
    /// # Errors
    /// When the client refuses.
    pub fn release(&self, partitions: &[TopicPartition]) -> Result<(), ClientError> {
        // What is paused when it is given away would come back paused (confluent-kafka-go #193, librdkafka #1849).
        self.resume(partitions)?;
        self.inner
            .incremental_unassign(&list_of(partitions))
            .map_err(|e| ClientError::new(format!("giving partitions back to group {}", self.group), &e))?;
        lock(&self.unanswered).take();
        Ok(())
    }

    /// Commits and waits for the answer. Never to be called while a transaction is open that carries offsets of this group: mixed,
    /// they move offsets back.
    ///
    /// # Errors
    /// When the broker refuses or does not answer. [`ClientError::is_group_change`] says that the group has moved on.
    pub fn commit(&self, points: &[(TopicPartition, CommitPoint)]) -> Result<(), ClientError> {
        let doing = || format!("committing offsets of group {}", self.group);
        let list = points_list(points).map_err(|e| ClientError::new(doing(), &e))?;
        self.inner.commit(&list, CommitMode::Sync).map_err(|e| self.error(doing(), &e))
    }

    /// Commits like [`GroupConsumer::commit`], but waits no longer than the answer takes usually. One that is not answered in time is
    /// still on its way, and may yet arrive; until it has, no other is sent.
    ///
    /// # Errors
    /// As there, and when it was not answered in time ([`ClientError::is_outage`]).
    pub fn commit_in_time(&self, points: &[(TopicPartition, CommitPoint)]) -> Result<(), ClientError> {
        let doing = || format!("committing offsets of group {}", self.group);
        let mut late = lock(&self.late);
        if late.is_on_its_way() {
            return Err(ClientError::code(doing(), RDKafkaErrorCode::OperationTimedOut));
        }
        let list = points_list(points).map_err(|e| ClientError::new(doing(), &e))?;
        let refused = |code| self.error(doing(), &KafkaError::ConsumerCommit(code));
        let since = late.clock.now();
        let commit = CommitOnItsWay::send(self.inner.client().native_ptr(), self.inner.clone(), &list).map_err(refused)?;
        let Some(answer) = commit.answer(late.patience) else {
            late.commit = Some((commit, since));
            return Err(ClientError::code(doing(), RDKafkaErrorCode::OperationTimedOut));
        };
        late.learn(answer.is_ok(), since);
        answer.map_err(refused)
    }

    /// The membership, if it is live: the broker does not fence offsets that are sent without a generation.
    #[must_use]
    pub fn live_group(&self) -> Option<LiveGroup> {
        if self.inner.assignment_lost() || ffi::generation(self.inner.client().native_ptr()) < 0 {
            return None;
        }
        self.inner.group_metadata().map(|metadata| LiveGroup(vec![(None, metadata)]))
    }

    /// Whether partitions of this member were lost already, although it has not been told yet.
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

impl Drop for GroupConsumer {
    fn drop(&mut self) {
        // From here on a rebalance is answered in the callback: nobody else is left to do it.
        self.inner.context().closing.store(true, Ordering::Release);
        let unanswered = lock(&self.unanswered).take();
        let pending = std::mem::take(&mut *lock(&self.inner.context().pending));
        // To close comes before the answers: a member that gives back what it lost while it is not closing joins again at once
        // (`rd_kafka_cgrp_unassign_done`), without its member id, which takes its name from a rival that has it by right.
        let is_closing = self.inner.close_queue().is_ok();
        let client = self.inner.clone();
        let answer = move || {
            for change in unanswered.into_iter().chain(pending) {
                let _ = match change {
                    Rebalance::Assigned(partitions) => client.incremental_assign(&list_of(&partitions)),
                    Rebalance::Revoked { partitions, .. } => client.incremental_unassign(&list_of(&partitions)),
                };
            }
            // One that is fenced for good is not closed but thrown away, with the last that holds a queue of it.
            while is_closing && !client.closed() {
                client.poll(CLOSE_POLL);
            }
        };
        // On a thread of its own, since it may never end: librdkafka 2.12 destroys without a reply what reaches a group that has just
        // terminated (`rd_kafka_cgrp_op_serve`), and an answer waits for its reply for ever (`rd_kafka_assign0`). A change that was
        // told when the closing began is such an answer. Once the group has terminated there is nothing more to wait for.
        let Ok(answering) = std::thread::Builder::new().name("closing".to_owned()).spawn(answer) else { return };
        let mut grace = CLOSE_GRACE;
        while !answering.is_finished() && !grace.is_zero() {
            std::thread::sleep(CLOSE_LOOK);
            if is_closing && self.inner.closed() {
                grace = grace.saturating_sub(CLOSE_LOOK);
            }
        }
        if !answering.is_finished() {
            tracing::debug!(group = %self.group, "closed, but for an answer that its client does not hear any more");
        }
    }
}

impl OwnName {
    /// Asks whether another member has this one's name now. As long as nobody answers, nobody is a rival.
    ///
    /// # Errors
    /// When there is one; see [`ClientError::is_rival`].
    pub fn look_for_rival(&self) -> Result<(), ClientError> {
        let (Some(before), Some(client)) = (lock(&self.member_id).clone(), self.client.upgrade()) else { return Ok(()) };
        let client = client.client().native_ptr();
        let now = ffi::member_id(client);
        match ffi::group_members(client, &self.group, RIVAL_TIMEOUT) {
            Ok(members) => {
                let is_own = |id: &str| id == before || now.as_deref() == Some(id);
                let is_rival = |m: &&GroupMember| m.instance.as_deref() == Some(&self.instance) && !is_own(&m.id);
                let Some(rival) = members.iter().find(is_rival) else { return Ok(()) };
                let cause = format!("a member from {} has taken the name {}", rival.host, self.instance);
                Err(ClientError::text(format!("coming back to group {}", self.group), cause).by_rival())
            }
            Err(code) => {
                tracing::debug!(group = %self.group, %code, "cannot see who has this member's name");
                Ok(())
            }
        }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // `rd_kafka_cgrp_session_timeout_check` tells it nowhere else.
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

/// The queue of one partition of this member.
pub struct PartitionQueue {
    raw: RawPartitionQueue,
    tp: TopicPartition,
}

/// What a partition's queue holds.
pub enum Next<R = Box<Record>> {
    /// A record.
    Record(R),
    /// The end was reached; below the offset nothing more will come.
    End(i64),
    /// The offset that was asked for is gone (retention, a topic made anew).
    OffsetLost,
    /// The topic may not be read. The client tries again and says nothing until it may.
    Denied,
    /// Something that passes; the partition goes on by itself.
    Passing,
}

impl PartitionQueue {
    /// The next, if there is something now.
    #[must_use]
    pub fn poll(&self) -> Option<Next> {
        Some(match self.raw.poll()? {
            Polled::Message(raw) => Next::Record(Box::new(Record { raw })),
            Polled::End(offset) => Next::End(offset),
            Polled::Error(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => Next::OffsetLost,
            Polled::Error(code) if is_denial(code) => Next::Denied,
            Polled::Error(code) => {
                tracing::debug!(partition = %self.tp, %code, "partition error that passes");
                Next::Passing
            }
        })
    }

    /// Which partition it is.
    #[must_use]
    pub fn partition(&self) -> &TopicPartition {
        &self.tp
    }
}

/// A fetched record, still in the memory that it was fetched into: to be held only for short, since it keeps the whole fetch.
pub struct Record {
    raw: RawMessage,
}

impl From<RawMessage> for Record {
    fn from(raw: RawMessage) -> Self {
        Self { raw }
    }
}

impl Record {
    /// The offset.
    #[must_use]
    pub fn offset(&self) -> i64 {
        self.raw.offset()
    }

    /// The timestamp: the append time where the topic has `LogAppendTime`.
    #[must_use]
    pub fn timestamp(&self) -> Timestamp {
        Timestamp::from_millis(self.raw.timestamp())
    }

    /// Whether the timestamp is the broker's (`LogAppendTime`), not the producer's.
    #[must_use]
    pub fn has_append_time(&self) -> bool {
        self.raw.has_append_time()
    }

    /// The key; null and empty are different.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.raw.key()
    }

    /// The value; null and empty are different.
    #[must_use]
    pub fn value(&self) -> Option<&[u8]> {
        self.raw.value()
    }

    /// The headers, names as bytes.
    #[must_use]
    pub fn headers(&self) -> HeaderIter<'_> {
        self.raw.headers()
    }

    /// The headers, to be written on, without a copy: the record has none from then on.
    #[must_use]
    pub fn take_headers(&mut self) -> NativeHeaders {
        self.raw.take_headers()
    }

    /// A copy of the headers, to be written on.
    #[must_use]
    pub fn copy_headers(&self) -> NativeHeaders {
        self.raw.copy_headers()
    }

    /// The broker that it was fetched from.
    #[must_use]
    pub fn broker(&self) -> i32 {
        self.raw.broker()
    }

    /// Where it stands.
    #[must_use]
    pub fn coordinates(&self, tp: &TopicPartition) -> Coordinates {
        Coordinates { topic: tp.topic.to_string(), partition: tp.partition, offset: self.offset(), timestamp: self.timestamp() }
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

pub(crate) fn points_list(points: &[(TopicPartition, CommitPoint)]) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::with_capacity(points.len());
    for (tp, point) in points {
        let mut element = list.add_partition(&tp.topic, tp.partition);
        element.set_offset(Offset::Offset(point.offset))?;
        element.set_metadata(&point.metadata);
    }
    Ok(list)
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

//! Observes ladders repeatedly, for a live picture.
//!
//! [`KafkaCluster`] creates a client for each request about a group or a record, which is right for a command that asks once. With
//! a request per second that would be a dozen connections per second, so here they are kept: one client per group, one for the
//! state topics, which continues where the last observation ended, and one for the heads of the tiers. A head is read once per
//! committed offset, since it does not change as long as the offset does not.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;

use crate::core::leader_clock::LocalTime;
use crate::core::state::LadderState;
use crate::core::time::Timestamp;
use crate::kafka::admin::{ASK_WITHIN, KafkaCluster, cluster_error};
use crate::kafka::clock::Clock;
use crate::kafka::consumer::ConsumerRecord;
use crate::kafka::error::{ClientError, is_denial};
use crate::kafka::ffi::{Polled, RawReader};
use crate::kafka::group_offsets::GroupOffsets;
use crate::kafka::isolation::Isolation;
use crate::kafka::observe::partitions_of;
use crate::kafka::reader::{self, LostPlace};
use crate::kafka::tail::{TailFrom, TopicTail};
use crate::kafka::watch::Watch;
use crate::topology::{ClusterError, GroupFacts, Observed, PartitionTail, Scope, TopicFacts};

/// How long the topic list is cached: it covers the whole cluster, and rarely changes.
const TOPICS_FOR: Duration = Duration::from_secs(10);

/// Observes the same ladders repeatedly.
pub struct Onlooker {
    cluster: KafkaCluster,
    topics: Option<(LocalTime, BTreeMap<String, TopicFacts>)>,
    groups: BTreeMap<String, GroupOffsets>,
    tail: TopicTail,
    states: BTreeMap<String, LadderState>,
    heads: Heads,
}

impl Onlooker {
    /// For a connected cluster.
    ///
    /// # Errors
    /// A client cannot be created.
    pub fn new(cluster: KafkaCluster) -> Result<Self, ClusterError> {
        let made = |error: ClientError| cluster_error("make a reader", &error);
        // The records read from state topics are never written in transactions.
        let tail = TopicTail::new(&cluster.kafka, TailFrom::Beginning, Isolation::Uncommitted).map_err(made)?;
        let heads = Heads::new(&cluster).map_err(made)?;
        Ok(Self { cluster, topics: None, groups: BTreeMap::new(), tail, states: BTreeMap::new(), heads })
    }

    /// The observed cluster.
    #[must_use]
    pub fn cluster(&self) -> &KafkaCluster {
        &self.cluster
    }

    /// Topic ends and group offsets; without settings and members. Never less than the true number of waiting records, see
    /// [`PartitionTail`]. New topics are seen within 10 s.
    ///
    /// # Errors
    /// The cluster does not answer.
    pub fn standing(&mut self, scope: &Scope) -> Result<Observed, ClusterError> {
        let mut topics = self.topics(scope)?;
        let partitions = partitions_of(&topics);
        let mut groups = BTreeMap::new();
        for group in scope.groups() {
            let client = match self.groups.entry(group.to_owned()) {
                Entry::Occupied(kept) => kept.into_mut(),
                Entry::Vacant(free) => free.insert(self.cluster.group_offsets(group)?),
            };
            let offsets = self.cluster.offsets_of(client, &partitions)?;
            groups.insert(group.to_owned(), GroupFacts { offsets, ..GroupFacts::default() });
        }
        // After the offsets: a record on its way from one topic to the next is then seen in one of them, or in both.
        self.cluster.watermarks(&mut topics)?;
        Ok(Observed { topics, groups, ..Observed::default() })
    }

    fn topics(&mut self, scope: &Scope) -> Result<BTreeMap<String, TopicFacts>, ClusterError> {
        let now = self.cluster.clock.now();
        match &self.topics {
            Some((until, topics)) if now < *until => Ok(topics.clone()),
            _ => {
                let topics = self.cluster.topics(scope)?;
                self.topics = Some((now.later(TOPICS_FOR), topics.clone()));
                Ok(topics)
            }
        }
    }

    /// The current content of a state topic.
    ///
    /// # Errors
    /// When it does not exist or may not be read, or the cluster does not answer.
    pub fn state(&mut self, topic: &str) -> Result<&LadderState, ClusterError> {
        let failed = |error: ClientError| cluster_error(&format!("read {topic}"), &error);
        self.tail.add(topic, ASK_WITHIN).map_err(failed)?;
        let states = &mut self.states;
        let caught_up = self.tail.catch_up(ASK_WITHIN, |tp, record| {
            states.entry(tp.topic.to_string()).or_default().apply(record.key(), record.value());
        });
        caught_up.map_err(failed)?;
        Ok(self.states.entry(topic.to_owned()).or_default())
    }

    /// When the oldest waiting record was appended; `None` if there are only transaction markers, or nothing.
    ///
    /// # Errors
    /// The topic may not be read, or nothing arrives for 15 s.
    pub fn oldest(&mut self, topic: &str, tails: &[PartitionTail]) -> Result<Option<Timestamp>, ClusterError> {
        self.heads.oldest(topic, tails).map_err(|error| cluster_error(&format!("read {topic}"), &error))
    }
}

/// Reads the first waiting record of each partition.
struct Heads {
    // Declared before its client, so that it is dropped first.
    reader: RawReader,
    client: Arc<BaseConsumer<Watch>>,
    clock: Clock,
    /// The offset, and when the record found there was appended.
    known: BTreeMap<(String, i32), (i64, Timestamp)>,
}

impl Heads {
    fn new(cluster: &KafkaCluster) -> Result<Self, ClientError> {
        // For one record per partition the default of 1 MiB each would be a waste.
        let defaults = [("fetch.message.max.bytes", "16384"), ("fetch.queue.backoff.ms", "10"), ("fetch.wait.max.ms", "50")];
        let (reader, client) = reader::make(&cluster.kafka, Isolation::Committed, LostPlace::Oldest, &defaults)?;
        Ok(Self { reader, client, clock: cluster.clock.clone(), known: BTreeMap::new() })
    }

    fn oldest(&mut self, topic: &str, tails: &[PartitionTail]) -> Result<Option<Timestamp>, ClientError> {
        let waiting = || (0..).zip(tails).filter(|(_, tail)| tail.waiting() > 0);
        let is_known = |heads: &Self, partition: i32, tail: &PartitionTail| {
            heads.known.get(&(topic.to_owned(), partition)).is_some_and(|(at, _)| *at == tail.position())
        };
        let wanted: Vec<(i32, PartitionTail)> =
            waiting().filter(|(partition, tail)| !is_known(self, *partition, tail)).map(|(p, tail)| (p, *tail)).collect();
        if !wanted.is_empty() {
            let outcome = self.look_up(topic, &wanted);
            // In any case the next observation begins elsewhere.
            for (partition, _) in &wanted {
                self.reader.stop(topic, *partition);
            }
            outcome?;
        }
        let heads = waiting().filter(|(partition, tail)| is_known(self, *partition, tail));
        Ok(heads.filter_map(|(partition, _)| self.known.get(&(topic.to_owned(), partition))).map(|(_, appended)| *appended).min())
    }

    fn look_up(&mut self, topic: &str, wanted: &[(i32, PartitionTail)]) -> Result<(), ClientError> {
        let doing = || format!("reading {topic}");
        for (partition, tail) in wanted {
            let started = self.reader.start(self.client.client().native_ptr(), topic, *partition, tail.position());
            started.map_err(|code| ClientError::code(doing(), code))?;
        }
        let mut open: BTreeSet<i32> = wanted.iter().map(|(partition, _)| *partition).collect();
        let deadline = self.clock.now().later(ASK_WITHIN);
        while !open.is_empty() {
            // The client's own events: errors, tokens to be renewed.
            let _ = self.client.poll(Duration::ZERO);
            let mut denied = None;
            let known = &mut self.known;
            self.reader.poll(Duration::from_millis(100), |name, partition, polled| {
                let Some((_, tail)) = wanted.iter().find(|(p, _)| *p == partition && name == topic) else { return };
                match polled {
                    Polled::Message(raw) => {
                        let record = ConsumerRecord::from(raw);
                        if open.remove(&partition) && record.offset() < tail.high {
                            known.insert((topic.to_owned(), partition), (tail.position(), record.timestamp()));
                        }
                    }
                    // Only markers, or an open transaction: perhaps there is a record the next time.
                    Polled::End(_) => drop(open.remove(&partition)),
                    Polled::Error(code) if is_denial(code) => denied = Some(code),
                    Polled::Error(code) => tracing::debug!(topic, partition, %code, "partition error that passes"),
                }
            });
            if let Some(code) = denied {
                return Err(ClientError::code(doing(), code));
            }
            if !open.is_empty() && self.clock.now() >= deadline {
                return Err(ClientError::code(doing(), RDKafkaErrorCode::OperationTimedOut));
            }
        }
        Ok(())
    }
}

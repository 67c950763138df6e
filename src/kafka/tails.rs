//! The waiting records of a ladder's topics, read from the cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::core::time::Timestamp;
use crate::kafka::admin::{KafkaCluster, settings_refused};
use crate::kafka::client_config::consumer_config;
use crate::kafka::lookup::raw;
use crate::kafka::watch::Watch;
use crate::topology::{ClusterError, Observed, PartitionTail};

/// Maximum time that a scan may stall.
const SCAN_STALLS_AFTER: Duration = Duration::from_secs(15);

/// A group's unread records of a topic, counted individually.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scanned {
    /// Committed records after the group's offsets.
    pub records: u64,
    /// Those appended at or before the given time.
    pub due: u64,
    /// When the oldest of them was appended.
    pub oldest: Option<Timestamp>,
}

impl KafkaCluster {
    /// A group's offsets on a topic. With `due_before`, also the first offset appended later.
    ///
    /// # Errors
    /// The cluster does not answer.
    pub fn tails(
        &self,
        standing: &Observed,
        group: &str,
        topic: &str,
        due_before: Option<Timestamp>,
    ) -> Result<Vec<PartitionTail>, ClusterError> {
        let Some(facts) = standing.topics.get(topic) else { return Ok(Vec::new()) };
        let not_due = match due_before {
            None => vec![Offset::End; facts.partitions.len()],
            Some(moment) => {
                // The first record appended later than that.
                let after = Offset::Offset((moment.as_millis() + 1).max(0));
                let wanted: Vec<_> = (0..facts.partition_count()).map(|p| (topic, p, after)).collect();
                self.offsets(&wanted, "look due records up")?
            }
        };
        let partitions = (0..).zip(&facts.partitions).zip(not_due);
        Ok(partitions
            .map(|((partition, marks), not_due)| PartitionTail {
                low: marks.low,
                high: marks.high,
                committed: standing.offset(group, topic, partition),
                first_not_due: raw(not_due),
            })
            .collect())
    }

    /// Counts the waiting committed records. Takes time proportional to their number.
    ///
    /// # Errors
    /// The cluster does not answer, or the scan stalls.
    pub fn count(
        &self,
        group: &str,
        topic: &str,
        tails: &[PartitionTail],
        due_before: Timestamp,
    ) -> Result<Scanned, ClusterError> {
        let action = format!("read {topic}");
        let mut scanned = Scanned::default();
        let mut open: BTreeMap<i32, i64> = (0..).zip(tails).filter(|(_, t)| t.waiting() > 0).map(|(p, t)| (p, t.high)).collect();
        if open.is_empty() {
            return Ok(scanned);
        }
        let mut start = TopicPartitionList::with_capacity(open.len());
        for (partition, tail) in (0..).zip(tails).filter(|(p, _)| open.contains_key(p)) {
            let at = Offset::Offset(tail.position());
            start.add_partition_offset(topic, partition, at).map_err(|e| self.error(&action, &e))?;
        }
        let consumer = self.reader(group)?;
        consumer.assign(&start).map_err(|e| self.error(&action, &e))?;
        let mut deadline = self.deadline(SCAN_STALLS_AFTER);
        while !open.is_empty() {
            let ended = match consumer.poll(Duration::from_millis(200)) {
                None if self.left(deadline).is_zero() => {
                    let reason = format!("no answer for {} s", SCAN_STALLS_AFTER.as_secs());
                    return Err(ClusterError::Failed { action, reason });
                }
                None => continue,
                // The end of the committed records: only transaction markers, or an open transaction, are between here and the
                // end that was seen.
                Some(Err(KafkaError::PartitionEOF(partition))) => Some(partition),
                Some(Err(error)) if is_passing(&error) && !self.left(deadline).is_zero() => continue,
                Some(Err(error)) => return Err(self.error(&action, &error)),
                Some(Ok(message)) => {
                    let Some(end) = open.get(&message.partition()).copied() else { continue };
                    if message.offset() < end {
                        let appended = message.timestamp().to_millis().map(Timestamp::from_millis);
                        scanned.records += 1;
                        scanned.due += u64::from(appended.is_some_and(|t| t <= due_before));
                        scanned.oldest = scanned.oldest.into_iter().chain(appended).min();
                    }
                    (message.offset() + 1 >= end).then_some(message.partition())
                }
            };
            deadline = self.deadline(SCAN_STALLS_AFTER);
            if let Some(partition) = ended {
                open.remove(&partition);
            }
        }
        Ok(scanned)
    }

    fn reader(&self, group: &str) -> Result<BaseConsumer<Watch>, ClusterError> {
        let mut config = consumer_config(&self.kafka);
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "earliest")
            .set("fetch.queue.backoff.ms", "10");
        config.create_with_context(self.watch.clone()).map_err(|error| settings_refused(&error))
    }
}

fn is_passing(error: &KafkaError) -> bool {
    matches!(error, KafkaError::MessageConsumption(_))
        && !matches!(
            error.rdkafka_error_code(),
            Some(
                rdkafka::error::RDKafkaErrorCode::TopicAuthorizationFailed
                    | rdkafka::error::RDKafkaErrorCode::GroupAuthorizationFailed
                    | rdkafka::error::RDKafkaErrorCode::UnknownTopicOrPartition
            )
        )
}

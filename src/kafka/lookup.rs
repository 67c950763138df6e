//! Looks up topics and partitions, with any kind of client.

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use rdkafka::metadata::{MetadataPartition, MetadataTopic};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::kafka::error::{ClientError, is_denial};
use crate::kafka::partition::TopicPartition;

/// Number of partitions of a topic.
///
/// # Errors
/// It does not exist, may not be described, or the broker does not answer in time.
pub(super) fn partition_count<C: ClientContext>(client: &Client<C>, name: &str, within: Duration) -> Result<i32, ClientError> {
    Ok(i32::try_from(leaders(client, name, within)?.len()).unwrap_or(i32::MAX))
}

/// The partitions of a topic: whether each has a leader now.
///
/// # Errors
/// It does not exist, may not be described, or the broker does not answer in time.
pub(super) fn leaders<C: ClientContext>(client: &Client<C>, name: &str, within: Duration) -> Result<Vec<bool>, ClientError> {
    let doing = || format!("looking up topic {name}");
    let metadata = client.fetch_metadata(Some(name), within).map_err(|e| ClientError::new(doing(), &e))?;
    let found = metadata.topics().iter().find(|t| t.name() == name);
    if let Some(denial) = found.and_then(MetadataTopic::error).map(RDKafkaErrorCode::from).filter(|code| is_denial(*code)) {
        return Err(ClientError::code(doing(), denial));
    }
    let partitions = found.filter(|t| t.error().is_none()).map_or(&[][..], MetadataTopic::partitions);
    if partitions.is_empty() {
        return Err(ClientError::text(doing(), "it does not exist: run `kladder setup`, or create it if it is a source"));
    }
    let led: BTreeSet<i32> = partitions.iter().filter(|p| p.leader() >= 0).map(MetadataPartition::id).collect();
    Ok((0..).zip(partitions).map(|(partition, _)| led.contains(&partition)).collect())
}

/// Those of these partitions that have a leader now. One without would make a request for all of them wait until it times out.
///
/// # Errors
/// There is no answer in time.
pub(super) fn led<C: ClientContext>(
    client: &Client<C>,
    partitions: &[TopicPartition],
    within: Duration,
) -> Result<BTreeSet<TopicPartition>, ClientError> {
    let topics: BTreeSet<&str> = partitions.iter().map(|tp| &*tp.topic).collect();
    let mut led = BTreeSet::new();
    for topic in topics {
        let metadata = client.fetch_metadata(Some(topic), within);
        let metadata = metadata.map_err(|e| ClientError::new(format!("looking up topic {topic}"), &e))?;
        let found = metadata.topics().iter().filter(|found| found.name() == topic).flat_map(MetadataTopic::partitions);
        let with_leader: BTreeSet<i32> = found.filter(|p| p.leader() >= 0).map(MetadataPartition::id).collect();
        led.extend(partitions.iter().filter(|tp| *tp.topic == *topic && with_leader.contains(&tp.partition)).cloned());
    }
    Ok(led)
}

/// The offset of each partition at a position or, for a number, of the first record with at least this timestamp (epoch milliseconds).
///
/// # Errors
/// There is no answer in time; an error of a single partition is in the result.
pub(super) fn offsets<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    partitions: &[TopicPartition],
    at: Offset,
    within: Duration,
) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for tp in partitions {
        // The call takes a timestamp in place of the offset; logical offsets are the end and the beginning.
        list.add_partition_offset(&tp.topic, tp.partition, at)?;
    }
    client.offsets_for_times(list, within)
}

/// Serves a client's own events: errors, tokens to be renewed. An event consumed internally looks like none, so once is not enough.
pub(super) fn serve<C: ConsumerContext>(client: &BaseConsumer<C>) {
    for _ in 0..8 {
        let _ = client.poll(Duration::ZERO);
    }
}

/// The ends of partitions at the client's isolation level, from their leaders, in order; `None` if one does not answer.
///
/// # Errors
/// There is no answer in time.
pub(super) fn ends<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    partitions: &[TopicPartition],
    within: Duration,
) -> Result<Vec<Option<i64>>, ClientError> {
    let answer = offsets(client, partitions, Offset::End, within);
    let answer = answer.map_err(|e| ClientError::new("asking where partitions end".to_owned(), &e))?;
    let end = |tp: &TopicPartition| {
        let element = answer.find_partition(&tp.topic, tp.partition)?;
        element.error().ok()?;
        raw(element.offset())
    };
    Ok(partitions.iter().map(end).collect())
}

/// A real offset, not a logical one.
pub(super) fn raw(offset: Offset) -> Option<i64> {
    match offset {
        Offset::Offset(number) => Some(number),
        _ => None,
    }
}

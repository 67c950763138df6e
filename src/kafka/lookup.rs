//! Looks topics and partitions up, whatever kind of client asks.

use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use rdkafka::metadata::MetadataTopic;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::kafka::error::{ClientError, is_denial};
use crate::kafka::partition::TopicPartition;

/// How many partitions a topic has.
///
/// # Errors
/// When it does not exist or may not be seen, or the broker does not answer in time.
pub(super) fn partition_count<C: ClientContext>(client: &Client<C>, name: &str, within: Duration) -> Result<i32, ClientError> {
    let doing = || format!("looking up topic {name}");
    let metadata = client.fetch_metadata(Some(name), within).map_err(|e| ClientError::new(doing(), &e))?;
    let found = metadata.topics().iter().find(|t| t.name() == name);
    if let Some(denial) = found.and_then(MetadataTopic::error).map(RDKafkaErrorCode::from).filter(|code| is_denial(*code)) {
        return Err(ClientError::code(doing(), denial));
    }
    let found = found.filter(|t| t.error().is_none());
    match found.map_or(0, |t| t.partitions().len()) {
        0 => Err(ClientError::text(doing(), "it does not exist: run `kladder setup`, or create it if it is a source")),
        count => Ok(i32::try_from(count).unwrap_or(i32::MAX)),
    }
}

/// The offset of each partition at a place or, where that is a number, of the first record as young as that (milliseconds since the epoch).
///
/// # Errors
/// When there is no answer in time; one partition alone that has none is an error of its own in the answer.
pub(super) fn offsets<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    partitions: &[TopicPartition],
    at: Offset,
    within: Duration,
) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for tp in partitions {
        // The call takes a time where a list has its offset; the logical offsets are the end and the beginning.
        list.add_partition_offset(&tp.topic, tp.partition, at)?;
    }
    client.offsets_for_times(list, within)
}

/// Serves a client's own events: errors, tokens to be renewed. One that was consumed within looks like none, so once is not enough.
pub(super) fn serve<C: ConsumerContext>(client: &BaseConsumer<C>) {
    for _ in 0..8 {
        let _ = client.poll(Duration::ZERO);
    }
}

/// Where partitions end by the isolation of the client, as their leaders say, in their order; `None` where one does not answer.
///
/// # Errors
/// When there is no answer in time.
pub(super) fn ends<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    partitions: &[TopicPartition],
    within: Duration,
) -> Result<Vec<Option<i64>>, ClientError> {
    let answer = offsets(client, partitions, Offset::End, within);
    let answer = answer.map_err(|e| ClientError::new("asking where partitions end".to_owned(), &e))?;
    let end = |tp: &TopicPartition| {
        let element = answer.find_partition(&tp.topic, tp.partition)?;
        match (element.error(), element.offset()) {
            (Ok(()), Offset::Offset(offset)) => Some(offset),
            _ => None,
        }
    };
    Ok(partitions.iter().map(end).collect())
}

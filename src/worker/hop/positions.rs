//! The start offset of an assigned partition: the committed one, or an error.

use crate::kafka::consumer::Committed;
use crate::kafka::error::ClientError;
use crate::kafka::partition::TopicPartition;
use crate::worker::error::PositionError;
use crate::worker::hop::ports::RecordSource;

/// The committed offsets of partitions, in order.
///
/// A partition added to a topic whose other partitions have offsets starts at its beginning. Any other missing offset was lost.
///
/// # Errors
/// See [`PositionError`].
pub(in crate::worker) fn committed_positions(
    consumer: &impl RecordSource,
    assigned: &[TopicPartition],
) -> Result<Vec<Committed>, PositionError> {
    let found = consumer.committed(assigned)?;
    let mut missing = Vec::new();
    let mut positions = Vec::with_capacity(assigned.len());
    for (tp, committed) in assigned.iter().zip(found) {
        match committed {
            Some(committed) => positions.push(committed),
            None => match added_partition(consumer, tp)? {
                Some(offset) => positions.push(Committed { offset, metadata: String::new() }),
                None => missing.push(tp.to_string()),
            },
        }
    }
    if missing.is_empty() {
        return Ok(positions);
    }
    let more = missing.len().saturating_sub(3);
    missing.truncate(3);
    let suffix = if more > 0 { format!(" and {more} more") } else { String::new() };
    Err(PositionError::Missing { group: consumer.group().to_owned(), partitions: missing.join(", ") + &suffix })
}

/// The first offset of a partition added later: all lower partitions have committed offsets, so the group knows the topic.
fn added_partition(consumer: &impl RecordSource, tp: &TopicPartition) -> Result<Option<i64>, ClientError> {
    if tp.partition == 0 {
        return Ok(None);
    }
    let first = TopicPartition { topic: tp.topic.clone(), partition: 0 };
    if consumer.committed(&[first])?.into_iter().flatten().next().is_none() {
        return Ok(None);
    }
    let (low, _) = consumer.bounds(tp)?;
    tracing::info!(partition = %tp, offset = low, "partition was added since setup, starting at its beginning");
    Ok(Some(low))
}

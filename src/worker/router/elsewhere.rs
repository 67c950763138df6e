//! A dead letter of a share group that came without its record: KIP-1191 copies it only where the group is configured so. A null value
//! is not told from a missing one, so the record is read where it was consumed.

use std::time::Duration;

use crate::config::KafkaConfig;
use crate::core::coordinates::Coordinates;
use crate::kafka::clock::Clock;
use crate::kafka::error::ClientError;
use crate::kafka::partition::TopicPartition;
use crate::kafka::tail::{TailFrom, TopicTail};
use crate::worker::hop::content::Content;

/// How long it may take to read one.
const WITHIN: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);

/// The partitions that are not meant are read from here on: nothing is there.
const LATER: Duration = Duration::from_secs(86_400);

/// The record that stands there; `None` where it is gone, or never was.
///
/// # Errors
/// When the brokers do not answer within 5 s, or refuse: it may be there.
pub(super) fn read(kafka: &KafkaConfig, at: &Coordinates) -> Result<Option<Content>, ClientError> {
    let clock = Clock::system();
    let tp = TopicPartition { topic: at.topic.as_str().into(), partition: at.partition };
    let from = TailFrom::Time(clock.now().timestamp() + LATER, vec![(tp.clone(), at.offset)]);
    let mut tail = TopicTail::open(kafka, std::slice::from_ref(&at.topic), from)?;
    if !tail.partitions().contains(&tp) {
        return Ok(None);
    }
    let ends = tail.ends(&[&at.topic], WITHIN)?;
    let deadline = clock.now().later(WITHIN);
    while clock.now() < deadline {
        let (mut found, mut is_gone) = (None, false);
        tail.poll(POLL, |seen, record| {
            if *seen == tp && found.is_none() {
                match record.offset() {
                    offset if offset == at.offset => found = Some(Content::of(record)),
                    _ => is_gone = true,
                }
            }
        })?;
        if found.is_some() || is_gone || tail.has_reached(&ends) {
            return Ok(found);
        }
    }
    Err(ClientError::text(format!("reading {tp} at {}", at.offset), "no answer in time"))
}

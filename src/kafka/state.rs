//! Reads and writes the records of a ladder's state topic about the ladder as a whole.
//!
//! The records read here are never written in a transaction, so they are read uncommitted: a mover's open transaction, or that of
//! a killed mover, must not hide a hold after it for seconds.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::KafkaConfig;
use crate::core::state::LadderState;
use crate::kafka::NativeHeaders;
use crate::kafka::clock::Clock;
use crate::kafka::error::ClientError;
use crate::kafka::isolation::Isolation;
use crate::kafka::outgoing::Outgoing;
use crate::kafka::producer::HopProducer;
use crate::kafka::tail::{ASK_WITHIN, TailFrom, TopicTail};
use crate::kafka::transaction::{Ended, Transaction};

/// Pause between two tries to read partitions without a leader.
const PAUSE: Duration = Duration::from_millis(100);

/// Larger than any state record.
const LARGEST_BATCH: usize = 100_000;

/// The current content of the state topics, by name.
///
/// # Errors
/// When one does not exist or may not be read, or the brokers do not answer within 15 s.
pub fn read_states(kafka: &KafkaConfig, topics: &[String]) -> Result<BTreeMap<String, LadderState>, ClientError> {
    let mut states: BTreeMap<String, LadderState> = topics.iter().map(|topic| (topic.clone(), LadderState::default())).collect();
    if topics.is_empty() {
        return Ok(states);
    }
    let clock = Clock::system();
    let deadline = clock.now().later(ASK_WITHIN);
    let mut tail = TopicTail::new(kafka, TailFrom::Beginning, Isolation::Uncommitted)?;
    for topic in topics {
        while let Err(error) = tail.add(topic, ASK_WITHIN) {
            if !error.is_outage() || clock.now() >= deadline {
                return Err(error);
            }
            std::thread::sleep(PAUSE);
        }
    }
    tail.catch_up(ASK_WITHIN, |tp, record| {
        if let Some(state) = states.get_mut(&*tp.topic) {
            state.apply(record.key(), record.value());
        }
    })?;
    Ok(states)
}

/// Writes one record to a state topic and waits until all its replicas in sync have it.
///
/// # Errors
/// When it is not confirmed, or refused.
pub fn write_state(kafka: &KafkaConfig, topic: &str, key: &str, value: &str) -> Result<(), ClientError> {
    write_all(kafka, topic, &[(key, Some(value))])
}

/// Says that nothing counts any more that stands under a key.
///
/// # Errors
/// When it is not confirmed, or refused.
pub fn clear_state(kafka: &KafkaConfig, topic: &str, key: &str) -> Result<(), ClientError> {
    write_all(kafka, topic, &[(key, None)])
}

/// See [`write_state`]; several records.
///
/// # Errors
/// A record was not confirmed, or was refused.
pub fn write_states(kafka: &KafkaConfig, topic: &str, entries: &[(String, String)]) -> Result<(), ClientError> {
    let entries: Vec<_> = entries.iter().map(|(key, value)| (key.as_str(), Some(value.as_str()))).collect();
    write_all(kafka, topic, &entries)
}

fn write_all(kafka: &KafkaConfig, topic: &str, entries: &[(&str, Option<&str>)]) -> Result<(), ClientError> {
    let doing = || format!("writing to {topic}");
    let mut producer = HopProducer::new(kafka, None, LARGEST_BATCH, Clock::system());
    let id = producer.topic(topic);
    let mut writing = Transaction::new(&mut producer);
    for (tag, (key, value)) in entries.iter().enumerate() {
        let record = Outgoing { key: Some(key.as_bytes()), value: value.map(str::as_bytes) };
        writing.send((id, 0), record, NativeHeaders::new(), tag);
    }
    match writing.commit(None).map_err(|error| error.cause().clone())? {
        Ended::Committed(_) => Ok(()),
        Ended::Refused(refusal) => Err(ClientError::fault(doing(), refusal.fault())),
    }
}

//! Requests to a running job: pause, resume, cancel.

use std::time::Duration;

use crate::config::KafkaConfig;
use crate::core::dead_letter::{DeadLetterEntry, Wish};
use crate::core::state::StateError;
use crate::kafka::error::ClientError;
use crate::kafka::isolation::Isolation;
use crate::kafka::tail::{TailFrom, TopicTail};

/// Reads only one job's requests from the state topic. They are written outside of transactions, and must not wait for one.
pub(super) struct WishWatch {
    tail: TopicTail,
    key: String,
    last: Option<Wish>,
}

impl WishWatch {
    pub fn open(kafka: &KafkaConfig, state_topic: &str, job: &str) -> Result<Self, ClientError> {
        let mut tail = TopicTail::new(kafka, TailFrom::End, Isolation::Uncommitted)?;
        tail.add(state_topic, Duration::from_secs(15))?;
        Ok(Self { tail, key: Wish::key_of(job), last: None })
    }

    /// The latest request, if there is a new one.
    pub fn poll(&mut self) -> Result<Option<Wish>, ClientError> {
        let (key, last) = (&self.key, &mut self.last);
        self.tail.poll(Duration::ZERO, |_, record| {
            if record.key() == Some(key.as_bytes())
                && let Some(Ok(DeadLetterEntry::Wish(_, wish))) = read(record.key(), record.value())
            {
                *last = wish;
            }
        })?;
        Ok(self.last.take())
    }
}

fn read(key: Option<&[u8]>, value: Option<&[u8]>) -> Option<Result<DeadLetterEntry, StateError>> {
    DeadLetterEntry::read("", key, value)
}

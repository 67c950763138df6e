//! Reads single records by offset, without a group.
//!
//! Wanted offsets near each other are read in one go, dropping the records between them; for far ones the client is repositioned,
//! which costs a round trip.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;

use crate::config::KafkaConfig;
use crate::kafka::clock::Clock;
use crate::kafka::consumer::ConsumerRecord;
use crate::kafka::error::{ClientError, is_denial};
use crate::kafka::ffi::{Polled, RawReader};
use crate::kafka::isolation::Isolation;
use crate::kafka::partition::TopicPartition;
use crate::kafka::reader::{self, LostPlace};
use crate::kafka::watch::Watch;

/// Number of records that are read and dropped rather than skipped.
const NEAR: i64 = 1_000;

/// Maximum silence before a fetch has failed.
const PATIENCE: Duration = Duration::from_secs(15);

/// Reads records by offset.
pub struct Fetcher {
    // Declared before its client, so that it is dropped first.
    reader: RawReader,
    client: Arc<BaseConsumer<Watch>>,
    clock: Clock,
    /// The partition being read, and its next offset.
    open: Option<(TopicPartition, i64)>,
    reads: u64,
}

impl Fetcher {
    /// Connects at the first fetch.
    ///
    /// # Errors
    /// The client cannot be created.
    pub fn new(kafka: &KafkaConfig) -> Result<Self, ClientError> {
        // At the end of a partition, the client's last request for it waits on the broker that long, and delays the first one for the
        // next partition: with the default of 500 ms that was half the time of sending back dead letters of six partitions.
        let defaults = [("fetch.queue.backoff.ms", "10"), ("fetch.wait.max.ms", "20"), ("queued.max.messages.kbytes", "16384")];
        let (reader, client) = reader::make(kafka, Isolation::Committed, LostPlace::Oldest, &defaults)?;
        Ok(Self { reader, client, clock: Clock::system(), open: None, reads: 0 })
    }

    /// Passes on the records of a partition with these offsets, which must be ascending. Deleted or nonexistent ones are skipped.
    ///
    /// # Errors
    /// The partition may not be read, or nothing arrives for 15 s.
    pub fn fetch(
        &mut self,
        tp: &TopicPartition,
        offsets: &[i64],
        mut each: impl FnMut(ConsumerRecord),
    ) -> Result<(), ClientError> {
        // Negative offsets have a special meaning to the client: end and beginning.
        let mut wanted = offsets.iter().copied().filter(|offset| *offset >= 0).peekable();
        let mut heard = self.clock.now();
        while let Some(first) = wanted.peek().copied() {
            self.go_to(tp, first)?;
            let mut outcome = Ok(());
            let (mut over, mut next) = (false, None);
            // Errors, tokens to be renewed.
            if self.reads.is_multiple_of(1_000) {
                let _ = self.client.poll(Duration::ZERO);
            }
            self.reads = self.reads.wrapping_add(1);
            let something = self.reader.poll(Duration::from_millis(100), |topic, partition, polled| {
                if partition != tp.partition || topic != &*tp.topic {
                    return;
                }
                match polled {
                    Polled::Message(raw) => {
                        let record = ConsumerRecord::from(raw);
                        let offset = record.offset();
                        next = Some(offset + 1);
                        while wanted.next_if(|wanted| *wanted < offset).is_some() {}
                        if wanted.next_if_eq(&offset).is_some() {
                            each(record);
                        }
                    }
                    // There is nothing beyond it.
                    Polled::End(offset) => {
                        next = Some(offset);
                        over = true;
                    }
                    Polled::Error(code) if is_denial(code) => outcome = Err(ClientError::code(format!("reading {tp}"), code)),
                    Polled::Error(code) => tracing::debug!(partition = %tp, %code, "partition error that passes"),
                }
            });
            outcome?;
            if let (Some(next), Some((_, at))) = (next, self.open.as_mut()) {
                *at = next;
            }
            if over {
                return Ok(());
            }
            if something {
                heard = self.clock.now();
            } else if self.clock.now().since(heard) > PATIENCE {
                return Err(ClientError::code(format!("reading {tp} at {first}"), RDKafkaErrorCode::OperationTimedOut));
            }
        }
        Ok(())
    }

    /// Makes sure that the offset comes next, or soon.
    fn go_to(&mut self, tp: &TopicPartition, offset: i64) -> Result<(), ClientError> {
        if let Some((open, at)) = &self.open {
            if open == tp && (*at..=*at + NEAR).contains(&offset) {
                return Ok(());
            }
            self.reader.stop(&open.topic, open.partition);
            self.open = None;
        }
        let started = self.reader.start(self.client.client().native_ptr(), &tp.topic, tp.partition, offset);
        started.map_err(|code| ClientError::code(format!("reading {tp}"), code))?;
        self.open = Some((tp.clone(), offset));
        Ok(())
    }
}

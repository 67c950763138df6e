//! Reads single records by their offsets, without a group.
//!
//! Wanted offsets that are near one another are read in one go, and what lies between them is passed over; for far ones the client is
//! told to begin elsewhere, which costs a round trip.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;

use crate::config::KafkaConfig;
use crate::kafka::clock::Clock;
use crate::kafka::consumer::Record;
use crate::kafka::error::{ClientError, is_denial};
use crate::kafka::ffi::{Polled, RawReader};
use crate::kafka::isolation::Isolation;
use crate::kafka::partition::TopicPartition;
use crate::kafka::reader;
use crate::kafka::watch::Watch;

/// Fewer records than that are read and passed over rather than skipped.
const NEAR: i64 = 1_000;

/// How long nothing may come before a fetch has failed.
const PATIENCE: Duration = Duration::from_secs(15);

/// Reads records by their offsets.
pub struct Fetcher {
    // Before the client that it came from.
    reader: RawReader,
    client: Arc<BaseConsumer<Watch>>,
    clock: Clock,
    /// What is being read, and the offset that comes next.
    open: Option<(TopicPartition, i64)>,
    reads: u64,
}

impl Fetcher {
    /// Connects at the first fetch.
    ///
    /// # Errors
    /// When the client cannot be made.
    pub fn new(kafka: &KafkaConfig) -> Result<Self, ClientError> {
        // Where a partition has ended, the client's last request for it waits on the broker that long, and holds up the first one for the
        // next partition: with the default of 500 ms that was half the time of sending dead letters of six partitions back.
        let defaults = [("fetch.queue.backoff.ms", "10"), ("fetch.wait.max.ms", "20"), ("queued.max.messages.kbytes", "16384")];
        let (reader, client) = reader::make(kafka, Isolation::Committed, &defaults)?;
        Ok(Self { reader, client, clock: Clock::system(), open: None, reads: 0 })
    }

    /// Hands over the records of a partition that have these offsets, which must rise. Those that are gone, or never were, are passed
    /// over.
    ///
    /// # Errors
    /// When the partition may not be read, or nothing comes for 15 s.
    pub fn fetch(&mut self, tp: &TopicPartition, offsets: &[i64], mut each: impl FnMut(Record)) -> Result<(), ClientError> {
        let mut wanted = offsets.iter().copied().peekable();
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
                        let record = Record::from(raw);
                        let offset = record.offset();
                        next = Some(offset + 1);
                        while wanted.next_if(|wanted| *wanted < offset).is_some() {}
                        if wanted.next_if_eq(&offset).is_some() {
                            each(record);
                        }
                    }
                    // Nothing is there beyond it.
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

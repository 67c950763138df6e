//! One transaction from its beginning to its end: the protocol, in one place.
//!
//! The order is fixed: write, wait until every record is written or not, put the consumed offsets in, commit. If any record could not be
//! written, nothing of it happens and what was written is aborted. A writer without a transactional.id has no transactions; there the same
//! steps are a batch of confirmed writes, and the offsets are committed by whoever owns them.
//!
//! What an error demands is done before it is told ([`Writer::recover`]), so whoever gets one may begin anew at any time.

use crate::core::ack_tracker::CommitPoint;
use crate::core::time::Timestamp;
use crate::kafka::NativeHeaders;
use crate::kafka::error::{TxnError, WriteFault};
use crate::kafka::partition::TopicPartition;
use crate::kafka::producer::{ClockReading, Outgoing, Settled, TopicId};

/// A producer, by the steps of a transaction. What they do and how they fail stands at [`HopProducer`]; nobody but [`Transaction`] takes
/// them.
///
/// [`HopProducer`]: crate::kafka::producer::HopProducer
pub(crate) trait Writer {
    /// What offsets are sent under.
    type Group;

    /// Whether there are transactions.
    fn is_transactional(&self) -> bool;
    /// Connects if need be, and opens a transaction (nothing more for an idempotent producer).
    fn begin(&mut self) -> Result<(), TxnError>;
    /// Hands a record over; what becomes of it is told by `settle` under this tag. Fails when this record cannot be written.
    fn send(&mut self, to: (TopicId, i32), record: Outgoing<'_>, headers: NativeHeaders, tag: usize) -> Result<(), WriteFault>;
    /// Waits until every record that was handed over is written or not. Fails when the producer is beyond repair.
    fn settle(&mut self) -> Result<Settled, TxnError>;
    /// Puts consumed offsets into the transaction.
    fn send_offsets(&mut self, group: &Self::Group, points: &[(TopicPartition, CommitPoint)]) -> Result<(), TxnError>;
    /// Commits the transaction. [`TxnError::Unknown`] when the coordinator's answer never came.
    fn commit(&mut self) -> Result<(), TxnError>;
    /// Aborts the open transaction, if there is one; where that fails, the producer is made anew, which aborts it too.
    fn abort(&mut self);
    /// Does what an error demands before anything is written again: aborts, or has the producer made anew.
    fn recover(&mut self, error: &TxnError);
}

/// Consumed offsets, and the membership that they are sent under.
type Offsets<'a, W> = (&'a <W as Writer>::Group, &'a [(TopicPartition, CommitPoint)]);

/// An open transaction. Dropped, it is aborted.
#[must_use = "what is dropped is aborted"]
pub(crate) struct Transaction<'a, W: Writer> {
    writer: &'a mut W,
    faults: Vec<(usize, WriteFault)>,
    is_open: bool,
}

/// How a transaction ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// All of it is written, and the offsets are committed along with it.
    Committed(Written),
    /// Some records could not be written, and so nothing was.
    Refused(Refusal),
}

/// What brokers said of what was written.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// When brokers that date records themselves appended them, by their tags.
    pub appended: Vec<(usize, Timestamp)>,
    /// A reading of the clock of the broker that confirmed last.
    pub clock: Option<ClockReading>,
}

/// Why nothing was written.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// The tags of the records that could not be written, and why; at least one.
    pub faults: Vec<(usize, WriteFault)>,
    /// Some topic in it may not be written to. Which one is not told; see [`Settled::denied`].
    pub denied: bool,
    /// A reading of the clock of the broker that confirmed last.
    pub clock: Option<ClockReading>,
}

impl Refusal {
    /// Why the first of them could not be written.
    pub fn fault(&self) -> WriteFault {
        self.faults.first().map_or(WriteFault::Aborted, |(_, fault)| *fault)
    }
}

impl<'a, W: Writer> Transaction<'a, W> {
    /// Opens one.
    ///
    /// # Errors
    /// See [`TxnError`].
    pub fn begin(writer: &'a mut W) -> Result<Self, TxnError> {
        if let Err(error) = writer.begin() {
            writer.recover(&error);
            return Err(error);
        }
        Ok(Self { writer, faults: Vec::new(), is_open: true })
    }

    /// Hands a record over; the tag names it if it cannot be written.
    pub fn send(&mut self, to: (TopicId, i32), record: Outgoing<'_>, headers: NativeHeaders, tag: usize) {
        if let Err(fault) = self.writer.send(to, record, headers, tag) {
            self.faults.push((tag, fault));
        }
    }

    /// Whether a record could not even be handed over, so that the transaction will not be committed.
    pub fn is_refused(&self) -> bool {
        !self.faults.is_empty()
    }

    /// The producer.
    pub fn writer(&self) -> &W {
        self.writer
    }

    /// Waits for all that was handed over, and commits it together with these consumed offsets.
    ///
    /// # Errors
    /// See [`TxnError`]; the transaction is over then, too, or its outcome unknown.
    pub fn commit(mut self, offsets: Option<Offsets<'_, W>>) -> Result<Ended, TxnError> {
        self.is_open = false;
        let ended = self.end(offsets);
        if let Err(error) = &ended {
            self.writer.recover(error);
        }
        ended
    }

    fn end(&mut self, offsets: Option<Offsets<'_, W>>) -> Result<Ended, TxnError> {
        let Settled { faults, appended, denied, clock } = self.writer.settle()?;
        self.faults.extend(faults);
        if self.is_refused() {
            self.writer.abort();
            return Ok(Ended::Refused(Refusal { faults: std::mem::take(&mut self.faults), denied, clock }));
        }
        if self.writer.is_transactional() {
            if let Some((group, points)) = offsets {
                self.writer.send_offsets(group, points)?;
            }
            self.writer.commit()?;
        }
        Ok(Ended::Committed(Written { appended, clock }))
    }
}

impl<W: Writer> Drop for Transaction<'_, W> {
    fn drop(&mut self) {
        if self.is_open {
            self.writer.abort();
        }
    }
}

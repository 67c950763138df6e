//! One transaction from its beginning to its end: the protocol, in one place.
//!
//! The order is fixed: write, wait until every record is written or has failed, add the consumed offsets, commit. If any record could not
//! be written, the transaction is aborted. A writer without a transactional.id has no transactions; there the same steps are a batch of
//! confirmed writes, and the offsets are committed by their owner.
//!
//! The recovery from an error is done before it is returned ([`Writer::recover`]), so the caller may begin again at any
//! time.
//!
//! Workers use [`Transaction::new`], which begins when the first record is ready to be sent: while a transaction is open, read-committed
//! consumers of its topics wait.

use crate::core::ack_tracker::CommitPoint;
use crate::core::time::Timestamp;
use crate::kafka::NativeHeaders;
use crate::kafka::error::{TxnError, WriteFault};
use crate::kafka::outgoing::{ClockReading, Outgoing, Settled, TopicId};
use crate::kafka::partition::TopicPartition;

/// A producer, by the steps of a transaction, for use by [`Transaction`] only. For their effects and errors see [`HopProducer`].
///
/// [`HopProducer`]: crate::kafka::producer::HopProducer
pub(crate) trait Writer {
    /// The membership under which offsets are sent.
    type Group;

    /// Whether there are transactions.
    fn is_transactional(&self) -> bool;
    /// Connects if necessary, and begins a transaction (nothing more for an idempotent producer).
    fn begin(&mut self) -> Result<(), TxnError>;
    /// Hands a record over; its result is returned by `settle` under this tag. Fails if this record cannot be written.
    fn send(&mut self, to: (TopicId, i32), record: Outgoing<'_>, headers: NativeHeaders, tag: usize) -> Result<(), WriteFault>;
    /// Waits until every handed-over record is written or has failed. Fails if the producer has failed fatally.
    fn settle(&mut self) -> Result<Settled, TxnError>;
    /// Adds consumed offsets to the transaction.
    fn send_offsets(&mut self, group: &Self::Group, points: &[(TopicPartition, CommitPoint)]) -> Result<(), TxnError>;
    /// Commits the transaction. [`TxnError::Unknown`] if the coordinator's answer never came.
    fn commit(&mut self) -> Result<(), TxnError>;
    /// Aborts the open transaction, if there is one; if that fails, the producer is recreated, which aborts it too.
    fn abort(&mut self);
    /// Recovers from an error before anything is written again: aborts, or recreates the producer.
    fn recover(&mut self, error: &TxnError);
}

/// Consumed offsets, and the membership under which they are sent.
type Offsets<'a, W> = (&'a <W as Writer>::Group, &'a [(TopicPartition, CommitPoint)]);

/// A transaction. Dropping it aborts it.
#[must_use = "dropping a transaction aborts it"]
pub(crate) struct Transaction<'a, W: Writer> {
    writer: &'a mut W,
    faults: Vec<(usize, WriteFault)>,
    progress: Progress,
}

enum Progress {
    NotBegun,
    Open,
    /// It could not begin.
    Failed(TxnError),
    Over,
}

/// How a transaction ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// Everything is written, and the offsets are committed with it.
    Committed(Written),
    /// Some records could not be written, so nothing was.
    Refused(TransactionRefusal),
}

/// The brokers' reports of a committed transaction.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// Append times by tag, from brokers that set them.
    pub appended: Vec<(usize, Timestamp)>,
    /// A reading of the clock of the broker that confirmed last.
    pub clock: Option<ClockReading>,
}

/// Why nothing was written.
#[derive(Debug)]
pub(crate) struct TransactionRefusal {
    /// The tags of the records that could not be written, and why; at least one.
    pub faults: Vec<(usize, WriteFault)>,
    /// A topic of the transaction may not be written to. It is unknown which one; see
    /// [`Settled::denied`].
    pub denied: bool,
    /// A reading of the clock of the broker that confirmed last.
    pub clock: Option<ClockReading>,
}

impl TransactionRefusal {
    /// Why the first of them could not be written.
    pub fn fault(&self) -> WriteFault {
        self.faults.first().map_or(WriteFault::Aborted, |(_, fault)| *fault)
    }
}

impl<'a, W: Writer> Transaction<'a, W> {
    /// Begins with the first record that is sent.
    pub fn new(writer: &'a mut W) -> Self {
        Self { writer, faults: Vec::new(), progress: Progress::NotBegun }
    }

    /// Begins at once.
    ///
    /// # Errors
    /// See [`TxnError`].
    pub fn begin(writer: &'a mut W) -> Result<Self, TxnError> {
        let mut transaction = Self::new(writer);
        match transaction.open() {
            Progress::Failed(error) => return Err(error),
            progress => transaction.progress = progress,
        }
        Ok(transaction)
    }

    /// Hands a record over; the tag identifies it if it cannot be written.
    pub fn send(&mut self, to: (TopicId, i32), record: Outgoing<'_>, headers: NativeHeaders, tag: usize) {
        if matches!(self.progress, Progress::NotBegun) {
            self.progress = self.open();
        }
        if matches!(self.progress, Progress::Open)
            && let Err(fault) = self.writer.send(to, record, headers, tag)
        {
            self.faults.push((tag, fault));
        }
    }

    fn open(&mut self) -> Progress {
        match self.writer.begin() {
            Ok(()) => Progress::Open,
            Err(error) => {
                self.writer.recover(&error);
                Progress::Failed(error)
            }
        }
    }

    /// Whether it could not begin, or a record could not even be handed over, so that it will not be committed.
    pub fn is_refused(&self) -> bool {
        !self.faults.is_empty() || matches!(self.progress, Progress::Failed(_))
    }

    /// The producer.
    pub fn writer(&self) -> &W {
        self.writer
    }

    /// Waits for all handed-over records, and commits them together with these consumed offsets.
    ///
    /// # Errors
    /// See [`TxnError`]; the transaction is over then too, or its outcome unknown.
    pub fn commit(mut self, offsets: Option<Offsets<'_, W>>) -> Result<Ended, TxnError> {
        let progress = match std::mem::replace(&mut self.progress, Progress::Over) {
            Progress::NotBegun => self.open(),
            progress => progress,
        };
        if let Progress::Failed(error) = progress {
            return Err(error);
        }
        let ended = self.end(offsets);
        if let Err(error) = &ended {
            self.writer.recover(error);
        }
        ended
    }

    fn end(&mut self, offsets: Option<Offsets<'_, W>>) -> Result<Ended, TxnError> {
        let Settled { faults, appended, denied, clock } = self.writer.settle()?;
        self.faults.extend(faults);
        if !self.faults.is_empty() {
            self.writer.abort();
            return Ok(Ended::Refused(TransactionRefusal { faults: std::mem::take(&mut self.faults), denied, clock }));
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
        if matches!(self.progress, Progress::Open) {
            self.writer.abort();
        }
    }
}

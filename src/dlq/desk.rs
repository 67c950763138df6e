//! Writes the states of dead letters: in turns, one writer at a time.
//!
//! A record that is sent back and its state record are one transaction, so a crash in between loses or duplicates neither. Two
//! concurrent writers would each be atomic, but could send a letter twice. So all writers share one transactional.id and take turns:
//! beginning a turn fences the previous writer (whose open transaction is aborted, and whose next call fails), then the state topic is
//! read to its very end, and only letters that are open *then* are touched. Any error in a transaction ends the turn, also an unknown
//! outcome, since the next turn reads it, and a client that was recreated meanwhile.
//!
//! The lease is a courtesy to users; correctness does not depend on it. It makes a second redrive refuse to start, and ends the
//! first one if the second was told to take over.

use thiserror::Error;

use crate::config::KafkaConfig;
use crate::core::backoff::Backoff;
use crate::core::dead_letter::{Fate, Job, JobStatus, LEASE_KEY, Lease, LetterKey, LetterState, RedriveOutcome, to_value};
use crate::core::time::Timestamp;
use crate::dlq::content::Body;
use crate::dlq::feed::{Feed, FeedError, Progress};
use crate::dlq::index::Index;
use crate::dlq::queue::Queue;
use crate::kafka::NativeHeaders;
use crate::kafka::admin::KafkaCluster;
use crate::kafka::clock::Clock;
use crate::kafka::error::{ClientError, TxnError, WriteFault};
use crate::kafka::outgoing::{Outgoing, TopicId};
use crate::kafka::producer::{HopProducer, LARGEST_BATCH};
use crate::kafka::transaction::{Ended, Transaction, TransactionRefusal};

/// Maximum number of state records in a transaction.
const MOST_FATES: usize = 2_000;

/// Number of states of deleted letters that are removed at a time.
const MOST_FORGOTTEN: usize = 1_000;

/// How long, in milliseconds, a letter's redrive is remembered even if the letter itself has been deleted: a file exported before
/// must not send it again. 30 days.
const SENT_REMEMBERED: i64 = 30 * 86_400_000;

/// Maximum number of turns lost in a row.
const MOST_LOST: usize = 30;

/// Why nothing was written.
#[derive(Debug, Error)]
pub enum DeskError {
    /// The topics or the index cannot be read.
    #[error(transparent)]
    Feed(#[from] FeedError),
    /// Writing failed.
    #[error("writing the states of dead letters: {0}")]
    Client(#[from] ClientError),
    /// The queue has no state topic.
    #[error(
        "{topic} is read-only: there is no topic for the states of its letters; give it a section [dlq.NAME] in \
         the configuration and run `kladder setup`"
    )]
    ReadOnly {
        /// The topic.
        topic: String,
    },
    /// Another redriver holds the lease.
    #[error("{} is redriving here ({}, last active {ago} s ago); wait for it, or pause or cancel it, or add --take-over", .lease.owner, .lease.job.as_deref().unwrap_or("no job"))]
    Leased {
        /// Its lease.
        lease: Lease,
        /// Time since its last heartbeat, in seconds.
        ago: i64,
    },
    /// Too many turns were lost in a row.
    #[error(
        "{turns} turns were lost in a row, the last one because of: {cause}; if others keep writing here, `kladder dlq jobs` \
         lists them; sent letters are recorded, so the same command continues from there"
    )]
    Crowded {
        /// Number of lost turns.
        turns: usize,
        /// Why the last one was lost.
        cause: ClientError,
    },
}

impl From<crate::dlq::index::IndexError> for DeskError {
    fn from(error: crate::dlq::index::IndexError) -> Self {
        Self::Feed(error.into())
    }
}

/// A key of the state topic and its new value; `None` is a tombstone.
pub type StateEntry = (String, Option<String>);

/// A record to send.
pub struct Sending {
    /// The topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: i32,
    /// Its key and value.
    pub body: Body,
    /// Its headers.
    pub headers: NativeHeaders,
}

/// The outcome of a transaction.
#[derive(Debug)]
pub enum WriteOutcome {
    /// All of it was written.
    Committed,
    /// Nothing was written, because of these records (their indices).
    Refused(Vec<(usize, WriteFault)>),
    /// The outcome is unknown, and the turn is lost.
    TurnLost,
}

/// Writes the states of one queue's letters.
pub struct Desk {
    feed: Feed,
    producer: HopProducer,
    state: TopicId,
    turn: Option<u64>,
    lost: usize,
    /// Pauses after turns that were lost.
    backoff: Backoff,
    lost_by: Option<ClientError>,
    clock: Clock,
    owner: String,
}

impl Desk {
    /// Opens the writer; writes nothing.
    ///
    /// # Errors
    /// The queue is read-only, or its topics cannot be read.
    pub fn open(kafka: &KafkaConfig, cluster: KafkaCluster, queue: &Queue, index: Index, owner: &str) -> Result<Self, DeskError> {
        let Some(state) = &queue.state_topic else { return Err(DeskError::ReadOnly { topic: queue.topic.clone() }) };
        let clock = Clock::system();
        let mut producer = HopProducer::new(kafka, Some(queue.transactional_id()), LARGEST_BATCH, clock.clone());
        let state = producer.topic(state);
        let feed = Feed::open(kafka, cluster, queue, index)?;
        Ok(Self {
            feed,
            producer,
            state,
            turn: None,
            lost: 0,
            backoff: Backoff::of_transactions(),
            lost_by: None,
            clock,
            owner: owner.to_owned(),
        })
    }

    /// The index and its feed.
    #[must_use]
    pub fn feed(&mut self) -> &mut Feed {
        &mut self.feed
    }

    /// The index.
    #[must_use]
    pub fn index(&self) -> &Index {
        self.feed.index()
    }

    /// The queue.
    #[must_use]
    pub fn queue(&self) -> &Queue {
        self.feed.queue()
    }

    /// The current time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now().timestamp()
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.clock.clone()
    }

    /// Registers a topic to send to.
    pub fn topic(&mut self, name: &str) -> TopicId {
        self.producer.topic(name)
    }

    /// Number of partitions of a topic.
    ///
    /// # Errors
    /// It does not exist, or the brokers do not answer.
    pub fn partition_count(&mut self, name: &str) -> Result<i32, DeskError> {
        Ok(self.producer.partition_count(name)?)
    }

    /// Whether the turn is held, as far as known.
    #[must_use]
    pub fn has_turn(&self) -> bool {
        self.turn == Some(self.producer.times_made())
    }

    /// Ends the turn for a known reason: a new one is needed before the next write.
    pub fn give_turn_up(&mut self) {
        self.turn = None;
    }

    /// Ends the turn for an unknown reason: the number of such turns is limited.
    pub fn lose_turn(&mut self) {
        self.turn = None;
        self.lost += 1;
        self.backoff.failed(self.clock.now());
    }

    /// Reads both topics to their committed ends. (Uncommitted records of others are not included; whoever takes the turn reads the state
    /// to its very end.)
    ///
    /// # Errors
    /// They cannot be read.
    pub fn catch_up(&mut self, tell: impl FnMut(Progress)) -> Result<(), DeskError> {
        let ends = self.feed.ends()?;
        self.feed.catch_up(&ends, None, tell)?;
        Ok(())
    }

    /// Takes the turn: the previous writer is fenced, and its writes are read.
    ///
    /// # Errors
    /// The brokers do not answer, or too many turns are lost in a row.
    pub fn take_turn(&mut self) -> Result<(), DeskError> {
        match self.lost_by.take() {
            // Retrying would not help.
            Some(cause) if cause.is_denied() => return Err(cause.into()),
            cause if self.lost > MOST_LOST => {
                let cause = cause.unwrap_or_else(|| ClientError::text("writing", "records were refused again and again"));
                return Err(DeskError::Crowded { turns: self.lost, cause });
            }
            _ => {}
        }
        if self.lost > 0 {
            std::thread::sleep(self.backoff.pause());
        }
        self.producer.rebuild();
        self.producer.connect().map_err(|error| error.cause().clone())?;
        self.turn = Some(self.producer.times_made());
        // To the very end, committed or not: after an open transaction of someone else there may be records of an earlier turn. Any
        // transaction under this transactional.id has ended by now.
        let ends = self.feed.ends_of(self.producer.topic_name(self.state))?;
        self.feed.catch_up(&ends, None, |_| {})?;
        Ok(())
    }

    /// Refuses if another redriver holds the lease, unless told to take over.
    ///
    /// # Errors
    /// [`DeskError::Leased`].
    pub fn heed_lease(&self, take_over: bool) -> Result<(), DeskError> {
        let now = self.now();
        match self.index().lease()? {
            Some(lease) if !take_over && lease.keeps_out(&self.owner, now) => {
                let ago = (now.as_millis() - lease.heard) / 1_000;
                Err(DeskError::Leased { lease, ago })
            }
            _ => Ok(()),
        }
    }

    /// Writes records and state entries in one transaction.
    pub fn write(&mut self, sendings: Vec<Sending>, entries: &[StateEntry]) -> WriteOutcome {
        match self.try_write(sendings, entries) {
            Ok(faults) if faults.is_empty() => {
                self.lost = 0;
                self.backoff.reset();
                WriteOutcome::Committed
            }
            Ok(faults) => WriteOutcome::Refused(faults),
            Err(error) => {
                self.lose_turn();
                self.producer.rebuild();
                tracing::info!(%error, "turn lost");
                self.lost_by = Some(error.cause().clone());
                WriteOutcome::TurnLost
            }
        }
    }

    fn try_write(&mut self, sendings: Vec<Sending>, entries: &[StateEntry]) -> Result<Vec<(usize, WriteFault)>, TxnError> {
        let mut transaction = Transaction::begin(&mut self.producer)?;
        if self.turn != Some(transaction.writer().times_made()) {
            return Err(made_anew());
        }
        let count = sendings.len();
        for (tag, sending) in sendings.into_iter().enumerate() {
            let out = Outgoing { key: sending.body.key(), value: sending.body.value() };
            transaction.send((sending.topic, sending.partition), out, sending.headers, tag);
        }
        for (tag, (key, value)) in (count..).zip(entries) {
            let out = Outgoing { key: Some(key.as_bytes()), value: value.as_ref().map(String::as_bytes) };
            transaction.send((self.state, 0), out, NativeHeaders::new(), tag);
        }
        let TransactionRefusal { faults, denied, .. } = match transaction.commit(None)? {
            Ended::Committed(_) => return Ok(Vec::new()),
            Ended::Refused(refusal) => refusal,
        };
        // The topic is not known: the client fails everything that it had to send.
        if denied && !faults.iter().any(|(_, fault)| *fault == WriteFault::Denied) {
            let doing = "writing to where the letters are sent, or to the state topic".to_owned();
            return Err(TxnError::Abort(ClientError::fault(doing, WriteFault::Denied)));
        }
        // A timeout concerns the transaction, not the record; it may have waited for a refused one.
        let has_lasting = faults.iter().any(|(_, fault)| fault.lasts());
        if let Some((_, fault)) = faults.iter().find(|(_, fault)| fault.is_passing() && !has_lasting) {
            return Err(TxnError::Abort(ClientError::fault("writing".to_owned(), *fault)));
        }
        if self.has_turn() { Ok(faults) } else { Err(made_anew()) }
    }

    /// The records that each transaction of a job also writes: the job and the lease. A job that stops releases both, so that it can
    /// be resumed at once.
    pub fn beside(&self, job: &mut Job, leaves: bool) -> Vec<StateEntry> {
        let now = self.now();
        job.heard = if leaves { 0 } else { now.as_millis() };
        let holds = if leaves || job.status.is_over() { None } else { Some(job.id.as_str()) };
        let lease = Lease::new(&self.owner, holds, now);
        vec![(job.to_key(), Some(to_value(job))), (LEASE_KEY.to_owned(), Some(to_value(&lease)))]
    }

    /// Writes only a job's state: the latest known one, as changed by `set`. For jobs without a lease.
    ///
    /// # Errors
    /// The state cannot be written.
    pub fn note(&mut self, job: Job, set: impl Fn(&mut Job)) -> Result<Job, DeskError> {
        loop {
            self.take_turn()?;
            let mut job = self.index().job(&job.id)?.unwrap_or_else(|| job.clone());
            set(&mut job);
            job.heard = self.now().as_millis();
            match self.write(Vec::new(), &[(job.to_key(), Some(to_value(&job)))]) {
                WriteOutcome::Committed => return Ok(job),
                WriteOutcome::Refused(faults) => return Err(self.refused(&faults)),
                WriteOutcome::TurnLost => {}
            }
        }
    }

    /// The state topic refuses records.
    fn refused(&self, faults: &[(usize, WriteFault)]) -> DeskError {
        let fault = faults.first().map_or(WriteFault::Passing("refused"), |(_, fault)| *fault);
        ClientError::fault(format!("writing to the state of {}", self.queue().name), fault).into()
    }

    /// Removes the states of deleted letters. Must be called within a turn.
    ///
    /// # Errors
    /// The index fails, or writing fails.
    pub fn forget_gone(&mut self) -> Result<(), DeskError> {
        let lows: Vec<(i32, i64)> = (0..).zip(self.feed.lows().iter().copied()).collect();
        let since = self.now().as_millis().saturating_sub(SENT_REMEMBERED);
        let gone = self.index().fates_below(&lows, since, MOST_FORGOTTEN)?;
        if gone.is_empty() {
            return Ok(());
        }
        let prefix = self.queue().prefix.clone();
        let mut entries = Vec::new();
        for (letter, fate) in gone {
            entries.push((letter.to_key(&prefix), None));
            // A younger letter of the same record may still need it.
            if let Some(id) = fate.id
                && !self.index().has_letter_of(&id)?
            {
                entries.push((RedriveOutcome::key_of(&id), None));
            }
        }
        if let WriteOutcome::Refused(faults) = self.write(Vec::new(), &entries) {
            tracing::warn!(fault = ?faults.first(), "states of deleted letters cannot be removed");
        }
        Ok(())
    }

    /// Sets the state of letters without sending anything: resolved, discarded, or open again. Letters whose current state does not
    /// allow it are skipped. Returns the finished job.
    ///
    /// # Errors
    /// The state cannot be written.
    pub fn mark(
        &mut self,
        mut job: Job,
        state: LetterState,
        choose: impl Fn(&Index, &Job) -> Result<Vec<LetterKey>, DeskError>,
        mut tell: impl FnMut(&Job),
    ) -> Result<Job, DeskError> {
        let prefix = self.queue().prefix.clone();
        loop {
            self.take_turn()?;
            // Letters changed in an earlier turn are counted, and not selected again: their state has
            // changed.
            job = self.index().job(&job.id)?.unwrap_or(job);
            let chosen = choose(self.index(), &job)?;
            job.total = job.done + u64::try_from(chosen.len()).unwrap_or(u64::MAX);
            let mut lost = false;
            for letters in chosen.chunks(MOST_FATES) {
                let mut next = job.clone();
                next.done += u64::try_from(letters.len()).unwrap_or(0);
                if next.done == next.total {
                    next.status = JobStatus::Done;
                }
                let fate = Fate { note: job.note.clone(), ..Fate::new(state, &job.by, self.now(), &job.id) };
                let mut entries: Vec<_> = letters.iter().map(|letter| (letter.to_key(&prefix), Some(to_value(&fate)))).collect();
                next.heard = self.now().as_millis();
                entries.push((next.to_key(), Some(to_value(&next))));
                match self.write(Vec::new(), &entries) {
                    WriteOutcome::Committed => job = next,
                    WriteOutcome::Refused(faults) => return Err(self.refused(&faults)),
                    WriteOutcome::TurnLost => {
                        lost = true;
                        break;
                    }
                }
                tell(&job);
            }
            if !lost {
                self.forget_gone()?;
                return Ok(job);
            }
        }
    }
}

fn made_anew() -> TxnError {
    TxnError::Abort(ClientError::text("writing", "the client was recreated"))
}

//! Where what becomes of dead letters is written: in turns, by one at a time.
//!
//! A record that is sent back and the record that says so are one transaction, so none is lost or doubled by a crash between them. Two
//! who send back at once would each be atomic, and still do it twice. So all who write take turns under one transactional.id: to begin
//! a turn fences whoever had it (what they had open is aborted, and they find out at their next call), then the state topic is read
//! to its very end, and only what is open *then* is touched. Whatever goes wrong in a transaction ends the turn: also an unknown
//! outcome, since the next turn's reading tells it, and a client that was made anew behind one's back.
//!
//! The lease is for people. Nothing rests on it; it makes a second redrive ask before it begins, and ends the first when the second
//! was told to take over.

use std::time::Duration;

use thiserror::Error;

use crate::config::KafkaConfig;
use crate::core::dead_letter::{Fate, Job, JobStatus, LEASE_KEY, Lease, LetterKey, LetterState, Outcome, to_value};
use crate::core::time::Timestamp;
use crate::dlq::content::Body;
use crate::dlq::feed::{Feed, FeedError, Progress};
use crate::dlq::index::Index;
use crate::dlq::queue::Queue;
use crate::kafka::NativeHeaders;
use crate::kafka::admin::KafkaCluster;
use crate::kafka::clock::Clock;
use crate::kafka::error::{ClientError, TxnError, WriteFault};
use crate::kafka::producer::{HopProducer, Outgoing, TopicId};
use crate::kafka::transaction::{Ended, Refusal, Transaction};

/// A transaction writes at most so many state records.
const MOST_FATES: usize = 2_000;

/// Fates of letters that retention has taken are forgotten so many at a time.
const MOST_FORGOTTEN: usize = 1_000;

/// That a letter was sent back is remembered for so long, in milliseconds, also when the letter itself has gone: a file that it was
/// exported to before must not send it once more. 30 days.
const SENT_REMEMBERED: i64 = 30 * 86_400_000;

/// At most half the smallest `max.message.bytes` that a topic of the ladder has, by default 1 MiB.
const LARGEST_BATCH: usize = 500_000;

/// How long a turn that was lost at once is waited for, growing up to the last.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(50), Duration::from_millis(200), Duration::from_millis(700), Duration::from_secs(2)];

/// No more turns are lost one after the other.
const MOST_LOST: usize = 30;

/// Why nothing was written.
#[derive(Debug, Error)]
pub enum DeskError {
    /// The topics or the index cannot be read.
    #[error(transparent)]
    Feed(#[from] FeedError),
    /// Nothing can be written.
    #[error("writing what becomes of dead letters: {0}")]
    Client(#[from] ClientError),
    /// Nothing is known of where to write.
    #[error(
        "{topic} can only be looked at: what is done with its letters has no place to be written to; give it a section [dlq.NAME] in \
         the configuration and run `kladder setup`"
    )]
    ReadOnly {
        /// The topic.
        topic: String,
    },
    /// Somebody else is at work.
    #[error("{} redrives here ({}, last heard {ago} s ago); wait for it, or pause or cancel it, or add --take-over", .lease.owner, .lease.job.as_deref().unwrap_or("no job"))]
    Leased {
        /// Who.
        lease: Lease,
        /// How long ago they were heard, in seconds.
        ago: i64,
    },
    /// Turns are lost one after the other.
    #[error(
        "{turns} turns were lost one after the other, the last by this: {cause}; if others write here all the time, `kladder dlq jobs` \
         names them; what was sent is known, so the same command goes on from there"
    )]
    Crowded {
        /// How many.
        turns: usize,
        /// Why the last one was.
        cause: ClientError,
    },
}

impl From<crate::dlq::index::IndexError> for DeskError {
    fn from(error: crate::dlq::index::IndexError) -> Self {
        Self::Feed(error.into())
    }
}

/// What the state topic is to say of a key; `None` takes it out.
pub type StateEntry = (String, Option<String>);

/// A record to be sent.
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

/// How a transaction ended.
#[derive(Debug)]
pub enum WriteOutcome {
    /// All of it is written.
    Committed,
    /// Nothing is, because of these records (their indices).
    Refused(Vec<(usize, WriteFault)>),
    /// It is not known, and not one's own turn any more.
    TurnLost(ClientError),
}

/// Writes what becomes of the letters of one queue.
pub struct Desk {
    feed: Feed,
    producer: HopProducer,
    state: TopicId,
    turn: Option<u64>,
    lost: usize,
    lost_by: Option<ClientError>,
    clock: Clock,
    owner: String,
}

impl Desk {
    /// Sits down: nothing is written yet.
    ///
    /// # Errors
    /// When the queue can only be looked at, or its topics cannot be read.
    pub fn open(kafka: &KafkaConfig, cluster: KafkaCluster, queue: &Queue, index: Index, owner: &str) -> Result<Self, DeskError> {
        let Some(state) = &queue.state_topic else { return Err(DeskError::ReadOnly { topic: queue.topic.clone() }) };
        let clock = Clock::system();
        let mut producer = HopProducer::new(kafka, Some(queue.transactional_id()), LARGEST_BATCH, clock.clone());
        let state = producer.topic(state);
        let feed = Feed::open(kafka, cluster, queue, index)?;
        Ok(Self { feed, producer, state, turn: None, lost: 0, lost_by: None, clock, owner: owner.to_owned() })
    }

    /// The index and what feeds it.
    #[must_use]
    pub fn feed(&mut self) -> &mut Feed {
        &mut self.feed
    }

    /// What is known.
    #[must_use]
    pub fn index(&self) -> &Index {
        self.feed.index()
    }

    /// Whose letters they are.
    #[must_use]
    pub fn queue(&self) -> &Queue {
        self.feed.queue()
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now().timestamp()
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.clock.clone()
    }

    /// A topic to send to.
    pub fn topic(&mut self, name: &str) -> TopicId {
        self.producer.topic(name)
    }

    /// How many partitions a topic has.
    ///
    /// # Errors
    /// When it does not exist, or the brokers do not answer.
    pub fn partition_count(&mut self, name: &str) -> Result<i32, DeskError> {
        Ok(self.producer.partition_count(name)?)
    }

    /// Whether the turn is one's own, as far as one knows.
    #[must_use]
    pub fn has_turn(&self) -> bool {
        self.turn == Some(self.producer.times_made())
    }

    /// Another turn is needed before anything more is written.
    pub fn give_turn_up(&mut self) {
        self.turn = None;
        self.lost += 1;
    }

    /// Reads both topics to their ends as of now, committed or not.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn catch_up(&mut self, tell: impl FnMut(Progress)) -> Result<(), DeskError> {
        let ends = self.feed.ends()?;
        self.feed.catch_up(&ends, None, tell)?;
        Ok(())
    }

    /// Takes the turn: whoever had it has it no more, and what they have done is known.
    ///
    /// # Errors
    /// When the brokers do not answer, or turns are lost all the time.
    pub fn take_turn(&mut self) -> Result<(), DeskError> {
        match self.lost_by.take() {
            // It does not pass by itself.
            Some(cause) if cause.is_denied() => return Err(cause.into()),
            cause if self.lost > MOST_LOST => {
                let cause = cause.unwrap_or_else(|| ClientError::text("writing", "records were refused again and again"));
                return Err(DeskError::Crowded { turns: self.lost, cause });
            }
            _ => {}
        }
        if self.lost > 0 {
            std::thread::sleep(PAUSES[(self.lost - 1).min(PAUSES.len() - 1)]);
        }
        self.producer.rebuild();
        self.producer.connect().map_err(|error| error.cause().clone())?;
        self.turn = Some(self.producer.times_made());
        // To its end, committed or not: behind what somebody else has open there may be what was written in an earlier turn. What was
        // open under this transactional.id is ended by now.
        let ends = self.feed.ends_of(self.producer.topic_name(self.state))?;
        self.feed.catch_up(&ends, None, |_| {})?;
        Ok(())
    }

    /// Refuses where somebody else redrives, unless one was told to take over.
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

    /// Writes records and state records in one transaction.
    pub fn write(&mut self, sendings: Vec<Sending>, entries: &[StateEntry]) -> WriteOutcome {
        match self.try_write(sendings, entries) {
            Ok(faults) if faults.is_empty() => {
                self.lost = 0;
                WriteOutcome::Committed
            }
            Ok(faults) => WriteOutcome::Refused(faults),
            Err(error) => {
                self.turn = None;
                self.lost += 1;
                self.producer.rebuild();
                tracing::info!(%error, "turn lost");
                self.lost_by = Some(error.cause().clone());
                WriteOutcome::TurnLost(error.cause().clone())
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
        let Refusal { faults, denied, .. } = match transaction.commit(None)? {
            Ended::Committed(_) => return Ok(Vec::new()),
            Ended::Refused(refusal) => refusal,
        };
        // Of which topic is not told: the client gives up all that it had to send.
        if denied && !faults.iter().any(|(_, fault)| *fault == WriteFault::Denied) {
            let doing = "writing to where the letters are sent, or to the state topic".to_owned();
            return Err(TxnError::Abort(ClientError::fault(doing, WriteFault::Denied)));
        }
        // A time-out is the transaction's, not the record's.
        if let Some((_, fault)) = faults.iter().find(|(_, fault)| fault.is_passing()) {
            return Err(TxnError::Abort(ClientError::fault("writing".to_owned(), *fault)));
        }
        if self.has_turn() { Ok(faults) } else { Err(made_anew()) }
    }

    /// What a transaction of a job writes besides: the job and the lease. Whoever leaves gives both back, so that the job can be taken
    /// up at once.
    pub fn beside(&self, job: &mut Job, leaves: bool) -> Vec<StateEntry> {
        let now = self.now();
        job.heard = if leaves { 0 } else { now.as_millis() };
        let holds = if leaves || job.status.is_over() { None } else { Some(job.id.as_str()) };
        let lease = Lease::new(&self.owner, holds, now);
        vec![(job.to_key(), Some(to_value(job))), (LEASE_KEY.to_owned(), Some(to_value(&lease)))]
    }

    /// Writes how a job stands, and nothing else: what is known of it, as `set` changes it. For jobs without a lease.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub fn note(&mut self, job: Job, set: impl Fn(&mut Job)) -> Result<Job, DeskError> {
        loop {
            self.take_turn()?;
            let mut job = self.index().job(&job.id)?.unwrap_or_else(|| job.clone());
            set(&mut job);
            job.heard = self.now().as_millis();
            match self.write(Vec::new(), &[(job.to_key(), Some(to_value(&job)))]) {
                WriteOutcome::Committed => return Ok(job),
                WriteOutcome::Refused(faults) => return Err(self.refused(&faults)),
                WriteOutcome::TurnLost(_) => {}
            }
        }
    }

    /// The state topic takes nothing.
    fn refused(&self, faults: &[(usize, WriteFault)]) -> DeskError {
        let fault = faults.first().map_or(WriteFault::Passing("refused"), |(_, fault)| *fault);
        ClientError::fault(format!("writing to the state of {}", self.queue().name), fault).into()
    }

    /// Forgets what became of letters that retention has taken. To be called in one's turn.
    ///
    /// # Errors
    /// When the index fails, or nothing can be written.
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
                entries.push((Outcome::key_of(&id), None));
            }
        }
        if let WriteOutcome::Refused(faults) = self.write(Vec::new(), &entries) {
            tracing::warn!(fault = ?faults.first(), "what became of old letters cannot be forgotten");
        }
        Ok(())
    }

    /// Gives letters a fate without sending anything: resolved, discarded, or open again. Those that have one already that does not
    /// allow it are passed over. The job as it ended is returned.
    ///
    /// # Errors
    /// When the state cannot be written.
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
            // What was done in an earlier turn is counted, and not chosen again: its state has changed.
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
                    WriteOutcome::TurnLost(_) => {
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
    TxnError::Abort(ClientError::text("writing", "the client was made anew"))
}

//! Sends dead letters back, each in one transaction with the record that says so.
//!
//! A redrive is a job in the state topic: what it was asked, how far it is, whether it is to pause. Each of its transactions carries
//! some letters, what became of them, and the job as it is then. So one that was killed is taken up where it was left: what was sent
//! is not open any more, and what is open below the offsets that were previewed is what is left. The same happens after each turn that
//! was lost.
//!
//! Transactions are short, since a consumer of the target sees nothing of what others write behind them until they end.

mod ahead;
mod change;
mod outgoing;
mod pace;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::config::KafkaConfig;
use crate::core::dead_letter::{Asked, Fate, Job, JobStatus, LetterKey, LetterState, Terms};
use crate::core::leader_clock::LocalTime;
use crate::dlq::desk::{Desk, DeskError, WriteOutcome};
use crate::dlq::feed::FeedError;
use crate::dlq::filter::{Filter, Match, Term};
use crate::dlq::index::Index;
use crate::dlq::queue::Queue;
use crate::dlq::redrive::ahead::{Ahead, Fetched};
pub use crate::dlq::redrive::change::{Change, Changed};
pub use crate::dlq::redrive::outgoing::Target;
use crate::dlq::redrive::outgoing::{Outgoings, Places};
use crate::dlq::redrive::pace::Pace;
use crate::dlq::redrive::watch::WishWatch;
use crate::kafka::error::{ClientError, WriteFault};

/// A transaction carries at most so many letters, and of these about so many bytes.
const MOST_LETTERS: usize = 10_000;
const MOST_BYTES: usize = 16 << 20;

/// How many are made ready at a time, while the last transaction is written.
const SOME: usize = 1_000;

/// How long it is waited for those before it is looked whether that is over.
const MOMENT: Duration = Duration::from_millis(2);

/// How long letters are gathered for a transaction.
const BEAT: Duration = Duration::from_millis(200);

/// How often it is looked what became of those that were sent.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How often a job that waits says that it is there.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Before so many have ended, their share says nothing.
const FEWEST_ENDED: u64 = 10;

/// Why a redrive ended with its letters untouched, but for those that its job counts as done.
#[derive(Debug, Error)]
pub enum RedriveError {
    /// Nothing can be read or written.
    #[error(transparent)]
    Desk(#[from] DeskError),
    /// The letters cannot be read.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Somebody else has taken over.
    #[error("{by} has taken over; of this job {done} were sent, and the rest is untouched: `kladder dlq jobs resume {job}`")]
    TakenOver {
        /// Who.
        by: String,
        /// The job.
        job: String,
        /// How many it had sent.
        done: u64,
    },
    /// The target may not be written to, or does not exist.
    #[error("{topic} takes nothing: {fault}")]
    Target {
        /// The topic.
        topic: String,
        /// Why.
        fault: WriteFault,
    },
}

impl From<FeedError> for RedriveError {
    fn from(error: FeedError) -> Self {
        Self::Desk(error.into())
    }
}

impl From<crate::dlq::index::IndexError> for RedriveError {
    fn from(error: crate::dlq::index::IndexError) -> Self {
        Self::Desk(error.into())
    }
}

/// How a job stands, for whoever looks on.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// The job.
    pub job: Job,
    /// How many of those that were sent have succeeded.
    pub succeeded: u64,
    /// How many have failed again.
    pub failed_again: u64,
    /// Why letters were passed over, and how many for each reason.
    pub passed_over: BTreeMap<String, u64>,
}

/// Which letters a job is for that are left: open ones, below its offsets, for which its filter holds. Parked ones only when forced.
///
/// # Errors
/// When the index fails, or the filter of the job cannot be read.
pub fn left(index: &Index, job: &Job) -> Result<Vec<LetterKey>, DeskError> {
    let filter = Filter::parse(&job.filter)
        .map_err(|error| ClientError::text(format!("reading the filter of job {}", job.id), error.to_string()))?;
    let forced = job.terms.as_ref().is_some_and(|terms| terms.force);
    let filter = filter.and_in(LetterState::may_be_sent(forced));
    let at = crate::core::time::Timestamp::from_millis(job.at);
    Ok(index.select(&filter, &job.below, at)?)
}

/// Runs a job to its end, or until somebody pauses or ends it, and returns how it stands then.
pub struct Redrive<'a> {
    desk: &'a mut Desk,
    target: Target,
    change: Change,
    kafka: KafkaConfig,
    wishes: WishWatch,
    pace: Pace,
    job: Job,
    terms: Terms,
    /// What is left of it.
    ahead: Ahead,
    /// What was made ready while the last transaction was written.
    ready: Option<Outgoings>,
    queue: Arc<Queue>,
    places: Places,
    passed_over: BTreeMap<String, u64>,
    /// Not to be chosen again.
    refused: std::collections::BTreeSet<LetterKey>,
    /// So many are sent one at a time, to find out which is too large.
    alone: usize,
    succeeded: u64,
    failed_again: u64,
    looked: Option<LocalTime>,
    /// It stops when the process is told to.
    stop: &'a dyn Fn() -> bool,
}

impl<'a> Redrive<'a> {
    /// Prepares a job.
    ///
    /// # Errors
    /// When the topics cannot be read.
    pub fn new(
        desk: &'a mut Desk,
        kafka: &KafkaConfig,
        job: Job,
        target: Target,
        change: Change,
        stop: &'a dyn Fn() -> bool,
    ) -> Result<Self, RedriveError> {
        let terms = job.terms.clone().unwrap_or_else(|| Terms::at_once(false));
        let places = Places::look_up(&target, desk)?;
        let queue = Arc::new(desk.queue().clone());
        let state = queue.state_topic.clone().unwrap_or_default();
        let wishes = WishWatch::open(kafka, &state, &job.id)?;
        let pace = Pace::new(terms.rate, Duration::from_millis(terms.ramp), desk.clock().now());
        Ok(Self {
            desk,
            target,
            change,
            kafka: kafka.clone(),
            wishes,
            pace,
            job,
            terms,
            ahead: Ahead::default(),
            ready: None,
            queue,
            places,
            passed_over: BTreeMap::new(),
            refused: std::collections::BTreeSet::new(),
            alone: 0,
            succeeded: 0,
            failed_again: 0,
            looked: None,
            stop,
        })
    }

    /// Runs it. `tell` hears of each step.
    ///
    /// # Errors
    /// See [`RedriveError`].
    pub fn run(mut self, take_over: bool, mut tell: impl FnMut(&Standing)) -> Result<Standing, RedriveError> {
        self.begin_turn(take_over)?;
        loop {
            tell(&self.standing());
            if self.job.status.is_over() {
                return Ok(self.standing());
            }
            if (self.stop)() {
                // Whoever takes it up finds it paused, and not as one that has died.
                self.settle(JobStatus::Paused, Some("its process was told to end"), true)?;
                return Ok(self.standing());
            }
            if !self.desk.has_turn() {
                self.begin_turn(false)?;
                continue;
            }
            if let Some(asked) = self.wishes.poll()? {
                match asked.asked {
                    Asked::Cancel => {
                        self.settle_as(JobStatus::Cancelled, Some(&format!("by {}", asked.by)))?;
                        continue;
                    }
                    Asked::Pause if self.job.status != JobStatus::Paused => {
                        self.settle_as(JobStatus::Paused, Some(&format!("by {}", asked.by)))?;
                    }
                    Asked::Resume if self.job.status == JobStatus::Paused => {
                        self.pace.begin_again(self.desk.clock().now());
                        self.settle_as(JobStatus::Running, None)?;
                    }
                    _ => {}
                }
            }
            if self.job.status == JobStatus::Paused {
                self.wait_a_little()?;
                continue;
            }
            if let Some(why) = self.look()? {
                self.settle_as(JobStatus::Stopped, Some(&why))?;
                continue;
            }
            if self.awaits_canary() {
                if self.job.status != JobStatus::Canary {
                    self.settle_as(JobStatus::Canary, None)?;
                }
                self.wait_a_little()?;
                continue;
            }
            if self.left() == 0 || self.is_at_limit() {
                let why = (self.left() > 0).then(|| format!("--max: {} of {} were sent", self.job.done, self.job.total));
                let end = if why.is_some() { JobStatus::Stopped } else { JobStatus::Done };
                self.settle_as(end, why.as_deref())?;
                continue;
            }
            self.send_some()?;
        }
    }

    fn standing(&self) -> Standing {
        let (job, passed_over) = (self.job.clone(), self.passed_over.clone());
        Standing { job, succeeded: self.succeeded, failed_again: self.failed_again, passed_over }
    }

    /// Takes the turn, and finds out what is left to do.
    fn begin_turn(&mut self, take_over: bool) -> Result<(), RedriveError> {
        self.desk.take_turn()?;
        match self.desk.heed_lease(take_over) {
            Err(DeskError::Leased { lease, .. }) if self.job.done > 0 => {
                return Err(RedriveError::TakenOver { by: lease.owner, job: self.job.id.clone(), done: self.job.done });
            }
            other => other?,
        }
        // What an earlier turn has done, and one with an unknown end, is there to be read.
        if let Some(known) = self.desk.index().job(&self.job.id)? {
            let status = if known.status == JobStatus::Paused && self.job.status == JobStatus::Running {
                JobStatus::Running
            } else {
                known.status
            };
            // What this process has passed over since it wrote last, it passes over still.
            let skipped = known.skipped.max(self.job.skipped);
            self.job = Job { status, skipped, ..known };
        }
        let mut left = match self.change.only() {
            Some(letters) => letters_open(self.desk.index(), letters, self.terms.force)?,
            None => left(self.desk.index(), &self.job)?,
        };
        left.retain(|letter| !self.refused.contains(letter));
        if self.job.done == 0 && self.job.skipped == 0 {
            self.job.total = u64::try_from(left.len()).unwrap_or(u64::MAX);
        } else {
            // Others may have changed some of them meanwhile.
            let there = self.job.done + self.job.skipped + u64::try_from(left.len()).unwrap_or(0);
            if there < self.job.total {
                self.pass_over("changed by somebody else meanwhile", self.job.total - there);
            }
        }
        let topic = self.desk.queue().topic.clone();
        // Files and editors bring what they bring in any order.
        left.sort_unstable();
        self.ready = None;
        self.ahead = Ahead::start(&self.kafka, &topic, left, |letter| self.change.brings(letter))?;
        self.desk.forget_gone()?;
        Ok(())
    }

    /// How many letters are still to be sent.
    fn left(&self) -> usize {
        self.ahead.left() + self.ready.as_ref().map_or(0, |ready| ready.sendings.len())
    }

    fn pass_over(&mut self, why: &str, count: u64) {
        *self.passed_over.entry(why.to_owned()).or_default() += count;
        self.job.skipped += count;
    }

    /// Writes how the job stands, and nothing else.
    fn settle_as(&mut self, status: JobStatus, why: Option<&str>) -> Result<(), RedriveError> {
        self.settle(status, why, false)
    }

    fn settle(&mut self, status: JobStatus, why: Option<&str>, leaves: bool) -> Result<(), RedriveError> {
        loop {
            let mut job = Job { status, why: why.map(str::to_owned), ..self.job.clone() };
            if self.desk.has_turn() {
                let entries = self.desk.beside(&mut job, leaves);
                match self.desk.write(Vec::new(), &entries) {
                    WriteOutcome::Committed => {
                        self.job = job;
                        return Ok(());
                    }
                    WriteOutcome::Refused(faults) => return Err(self.state_refused(&faults)),
                    WriteOutcome::TurnLost(_) => {}
                }
            }
            self.begin_turn(false)?;
        }
    }

    fn state_refused(&self, faults: &[(usize, WriteFault)]) -> RedriveError {
        let topic = self.desk.queue().state_topic.clone().unwrap_or_default();
        let fault = faults.first().map_or(WriteFault::Passing("refused"), |(_, fault)| *fault);
        RedriveError::Target { topic, fault }
    }

    fn wait_a_little(&mut self) -> Result<(), RedriveError> {
        self.be_heard()?;
        self.desk.feed().poll(BEAT)?;
        Ok(())
    }

    /// Writes how the job stands, if that is long ago: whoever is silent is taken for dead.
    fn be_heard(&mut self) -> Result<(), RedriveError> {
        let now = self.desk.now().as_millis();
        if now - self.job.heard >= i64::try_from(HEARTBEAT.as_millis()).unwrap_or(5_000) {
            let (status, why) = (self.job.status, self.job.why.clone());
            self.settle_as(status, why.as_deref())?;
        }
        Ok(())
    }

    fn is_at_limit(&self) -> bool {
        self.terms.max.is_some_and(|max| self.job.done >= max)
    }

    /// What became of those that were sent; a reason to stop, if too many have failed again.
    fn look(&mut self) -> Result<Option<String>, RedriveError> {
        let now = self.desk.clock().now();
        let interval = if self.terms.rate.is_some() { LOOK_INTERVAL } else { LOOK_INTERVAL * 5 };
        if self.job.done == 0 || self.looked.is_some_and(|looked| now.since(looked) < interval) {
            return Ok(None);
        }
        self.looked = Some(now);
        if self.terms.stop_at >= 1.0 && self.terms.canary == 0 {
            return Ok(None);
        }
        // As fast as it goes there is more to read than time: its own records come back to it too.
        while self.desk.feed().poll(Duration::ZERO)? > 0 && self.terms.rate.is_some() {}
        self.count_ended()?;
        let ended = self.succeeded + self.failed_again;
        #[expect(clippy::cast_precision_loss, reason = "a share")]
        let share = self.failed_again as f64 / ended.max(1) as f64;
        let fewest = FEWEST_ENDED.min(self.job.total).min(if self.terms.canary > 0 { self.terms.canary } else { u64::MAX });
        if ended >= fewest && share > self.terms.stop_at {
            return Ok(Some(format!("{} of {ended} failed again", self.failed_again)));
        }
        Ok(None)
    }

    fn count_ended(&mut self) -> Result<(), RedriveError> {
        let of = |state: LetterState| {
            let job = Filter::Term(Term::Job(Match::Any(vec![self.job.id.clone()])));
            job.and_in(&[state])
        };
        let now = self.desk.now();
        let index = self.desk.index();
        let counts = (index.count(&of(LetterState::Succeeded), now)?, index.count(&of(LetterState::FailedAgain), now)?);
        (self.succeeded, self.failed_again) = counts;
        Ok(())
    }

    /// Whether the first ones are sent and their verdicts are not all there.
    fn awaits_canary(&mut self) -> bool {
        let canary = self.terms.canary.min(self.job.total);
        let waits = canary > 0 && self.job.done >= canary && self.succeeded + self.failed_again < canary && self.left() > 0;
        if self.job.status == JobStatus::Canary && !waits {
            self.job.status = JobStatus::Running;
            self.pace.begin_again(self.desk.clock().now());
        }
        waits
    }

    /// How many may go now: by the rate, and by every limit that there is.
    fn allowance(&mut self) -> usize {
        let mut most = MOST_LETTERS.min(self.left());
        let done = self.job.done;
        let canary = self.terms.canary.min(self.job.total);
        if self.alone > 0 {
            most = most.min(1);
        }
        let limits = [self.terms.max, (done < canary).then_some(canary)];
        for limit in limits.into_iter().flatten() {
            most = most.min(usize::try_from(limit.saturating_sub(done)).unwrap_or(usize::MAX));
        }
        self.pace.allow(most, self.desk.clock().now())
    }

    fn send_some(&mut self) -> Result<(), RedriveError> {
        let most = self.allowance();
        if most == 0 {
            std::thread::sleep(self.pace.wait(self.desk.clock().now()).min(BEAT));
            return self.be_heard();
        }
        let mut prepared = if let Some(mut ready) = self.ready.take() {
            ready.sent_at(self.desk.now().as_millis());
            ready
        } else {
            let fetched = self.ahead.take(most, BEAT)?;
            let fate = self.fate();
            let mut preparing = Preparing::new(&mut self.change, &self.target, &self.queue, &self.places, fate);
            preparing.add(fetched);
            let (made, passed) = preparing.end();
            self.pass_over_all(passed);
            made
        };
        if prepared.letters.is_empty() {
            return Ok(());
        }
        let count = prepared.sendings.len();
        let (ended, passed) = self.commit(&mut prepared)?;
        match ended {
            WriteOutcome::Committed => {
                self.pace.took(count);
                self.alone = self.alone.saturating_sub(count);
            }
            // What is left is found out anew, in the next turn.
            WriteOutcome::TurnLost(_) => {}
            WriteOutcome::Refused(faults) => self.refuse(&prepared, &faults)?,
        }
        self.pass_over_all(passed);
        Ok(())
    }

    /// Letters that their target does not take are passed over; the others are sent without them, in the next turn.
    fn refuse(&mut self, prepared: &Outgoings, faults: &[(usize, WriteFault)]) -> Result<(), RedriveError> {
        let of_letters: Vec<(usize, WriteFault)> =
            faults.iter().copied().filter(|(tag, _)| *tag < prepared.letters.len()).collect();
        if of_letters.is_empty() {
            return Err(self.state_refused(faults));
        }
        if let Some((tag, fault)) = of_letters.iter().find(|(_, fault)| matches!(fault, WriteFault::Denied)) {
            return Err(RedriveError::Target { topic: prepared.topics[*tag].clone(), fault: *fault });
        }
        // A broker refuses a batch that is larger than what the topic takes, whatever is in it: which of them is too large by itself shows
        // when each is sent alone.
        let are_together = prepared.letters.len() > 1;
        let is_unclear = |fault: &WriteFault| are_together && *fault == WriteFault::TooLarge;
        if of_letters.iter().any(|(_, fault)| is_unclear(fault)) {
            self.alone = prepared.letters.len();
        }
        for (tag, fault) in of_letters.iter().filter(|(_, fault)| fault.lasts() && !is_unclear(fault)) {
            self.alone = self.alone.saturating_sub(1);
            if self.refused.insert(prepared.letters[*tag]) {
                self.pass_over(&format!("{}: {fault}", prepared.topics[*tag]), 1);
            }
        }
        self.desk.give_turn_up();
        Ok(())
    }

    fn pass_over_all(&mut self, passed: Vec<(LetterKey, String)>) {
        for (letter, why) in passed {
            self.refused.insert(letter);
            self.pass_over(&why, 1);
        }
    }

    /// Writes a transaction. Where nothing but speed decides when the next one goes, that is made ready meanwhile; which letters are
    /// passed over by that is returned.
    fn commit(&mut self, prepared: &mut Outgoings) -> Result<(WriteOutcome, Passed), RedriveError> {
        let sendings = std::mem::take(&mut prepared.sendings);
        let mut job = self.job.clone();
        job.done += u64::try_from(sendings.len()).unwrap_or(0);
        job.status = JobStatus::Running;
        job.why = None;
        let mut entries = self.desk.beside(&mut job, false);
        entries.append(&mut prepared.states);
        let goes_on = self.terms.rate.is_none() && self.terms.max.is_none() && job.done >= self.terms.canary && self.alone == 0;
        let fate = self.fate();
        let (desk, ahead) = (&mut *self.desk, &mut self.ahead);
        let mut preparing = Preparing::new(&mut self.change, &self.target, &self.queue, &self.places, fate);
        let (ended, read) = std::thread::scope(|scope| {
            let writing = scope.spawn(move || desk.write(sendings, &entries));
            let mut read = Ok(());
            while goes_on && ahead.left() > 0 && !preparing.is_full() {
                match ahead.take(SOME, MOMENT) {
                    Ok(fetched) => preparing.add(fetched),
                    Err(error) => {
                        read = Err(error);
                        break;
                    }
                }
                if writing.is_finished() {
                    break;
                }
            }
            (writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), read)
        });
        if matches!(ended, WriteOutcome::Committed) {
            self.job = job;
        }
        read?;
        let (ready, passed) = preparing.end();
        self.ready = Some(ready).filter(|ready| !ready.sendings.is_empty());
        Ok((ended, passed))
    }

    /// What is written of a letter that is sent, but for what is its own.
    fn fate(&self) -> Fate {
        let fate = Fate::new(LetterState::Redriven, &self.job.by, self.desk.now(), &self.job.id);
        Fate { note: self.job.note.clone(), ..fate }
    }
}

/// Letters that are not sent, and why.
type Passed = Vec<(LetterKey, String)>;

/// Makes what will be sent of letters, and what will be written of them.
struct Preparing<'a> {
    change: &'a mut Change,
    target: &'a Target,
    queue: &'a Queue,
    places: &'a Places,
    fate: Fate,
    ready: Outgoings,
    passed: Passed,
}

impl<'a> Preparing<'a> {
    fn new(change: &'a mut Change, target: &'a Target, queue: &'a Queue, places: &'a Places, fate: Fate) -> Self {
        let ready = Outgoings::at(fate.at);
        Self { change, target, queue, places, fate, ready, passed: Passed::new() }
    }

    /// Whether a transaction carries no more.
    fn is_full(&self) -> bool {
        self.ready.letters.len() >= MOST_LETTERS || self.ready.bytes >= MOST_BYTES
    }

    fn add(&mut self, fetched: Vec<Fetched>) {
        for (letter, record) in fetched {
            let body = self.change.body(letter, record);
            match body.and_then(|body| self.target.address(self.queue, self.places, letter, body)) {
                Ok(addressed) => self.ready.push(letter, addressed, &self.queue.prefix, &mut self.fate),
                Err(why) => self.passed.push((letter, why)),
            }
        }
    }

    fn end(self) -> (Outgoings, Passed) {
        (self.ready, self.passed)
    }
}

/// Those of these letters that are open, whether the index knows them or not: letters of a file may be gone from the topic.
fn letters_open(index: &Index, letters: &[LetterKey], force: bool) -> Result<Vec<LetterKey>, DeskError> {
    let mut open = Vec::new();
    for letter in letters {
        let state = match index.letter(letter.partition, letter.offset)?.filter(|row| row.at.appended == letter.appended) {
            Some(row) => row.state,
            None => index.fate(*letter)?.map_or(LetterState::Open, |fate| fate.state),
        };
        if LetterState::may_be_sent(force).contains(&state) {
            open.push(*letter);
        }
    }
    Ok(open)
}

//! Runs a redrive: turns, requests to it, its canary and its limits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::config::KafkaConfig;
use crate::core::dead_letter::{Asked, Job, JobStatus, LetterKey, LetterState, Terms};
use crate::core::halving::Halving;
use crate::core::leader_clock::LocalTime;
use crate::dlq::desk::{Desk, DeskError, WriteOutcome};
use crate::dlq::filter::{Filter, Match, Term};
use crate::dlq::queue::Queue;
use crate::dlq::redrive::ahead::Ahead;
use crate::dlq::redrive::change::LetterChange;
use crate::dlq::redrive::error::RedriveError;
use crate::dlq::redrive::outgoing::{Outgoings, Places, Target};
use crate::dlq::redrive::pace::Pace;
use crate::dlq::redrive::plan;
use crate::dlq::redrive::watch::WishWatch;
use crate::kafka::budget::Budget;
use crate::kafka::error::WriteFault;

/// Time over which letters are collected for a transaction.
pub(super) const BEAT: Duration = Duration::from_millis(200);

/// Interval of checking the outcome of sent letters.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Interval of a waiting job's heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Minimum number of finished letters for their share of failures to count.
const FEWEST_ENDED: u64 = 10;

/// The state of a job, for observers.
#[derive(Debug, Clone, PartialEq)]
pub struct RedriveProgress {
    /// The job.
    pub job: Job,
    /// Number of sent letters that have succeeded.
    pub succeeded: u64,
    /// Number of sent letters that have failed again.
    pub failed_again: u64,
    /// Skipped letters by reason.
    pub passed_over: PassedOver,
    /// Number of letters that another user has changed meanwhile.
    pub changed: u64,
}

/// Letters that could not be sent, by reason.
pub type PassedOver = BTreeMap<String, Vec<LetterKey>>;

/// Runs a job until it ends or is paused or cancelled, and returns its state.
pub struct Redrive<'a> {
    pub(super) desk: &'a mut Desk,
    pub(super) target: Target,
    pub(super) change: LetterChange,
    pub(super) kafka: KafkaConfig,
    pub(super) wishes: WishWatch,
    pub(super) pace: Pace,
    pub(super) job: Job,
    pub(super) terms: Terms,
    /// The remaining letters.
    pub(super) ahead: Ahead,
    /// Letters prepared while the last transaction was written.
    pub(super) ready: Option<Outgoings>,
    pub(super) queue: Arc<Queue>,
    pub(super) places: Places,
    pub(super) passed_over: PassedOver,
    /// Letters not to be selected again.
    pub(super) refused: BTreeSet<LetterKey>,
    pub(super) changed: u64,
    /// Finds the letter that the target refuses by sending ever smaller halves.
    pub(super) halving: Halving,
    /// Limits the bytes per transaction, so that it ends well before the coordinator would abort it.
    pub(super) budget: Budget,
    pub(super) succeeded: u64,
    pub(super) failed_again: u64,
    pub(super) looked: Option<LocalTime>,
    /// Whether the process is to stop.
    pub(super) stop: &'a dyn Fn() -> bool,
}

impl<'a> Redrive<'a> {
    /// Prepares a job.
    ///
    /// # Errors
    /// The topics cannot be read.
    pub fn new(
        desk: &'a mut Desk,
        kafka: &KafkaConfig,
        job: Job,
        target: Target,
        change: LetterChange,
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
            passed_over: PassedOver::new(),
            refused: BTreeSet::new(),
            changed: 0,
            halving: Halving::default(),
            budget: Budget::new(),
            succeeded: 0,
            failed_again: 0,
            looked: None,
            stop,
        })
    }

    /// Runs it. `tell` is called after each step.
    ///
    /// # Errors
    /// See [`RedriveError`].
    pub fn run(mut self, take_over: bool, mut tell: impl FnMut(&RedriveProgress)) -> Result<RedriveProgress, RedriveError> {
        self.begin_turn(take_over)?;
        loop {
            tell(&self.standing());
            if self.job.status.is_over() {
                return Ok(self.standing());
            }
            if (self.stop)() {
                // It can then be resumed as paused, not as one whose process died.
                self.settle(JobStatus::Paused, Some("its process was stopped"), true)?;
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

    fn standing(&self) -> RedriveProgress {
        let (job, passed_over) = (self.job.clone(), self.passed_over.clone());
        RedriveProgress { job, succeeded: self.succeeded, failed_again: self.failed_again, passed_over, changed: self.changed }
    }

    /// Takes the turn, and determines the remaining letters.
    fn begin_turn(&mut self, take_over: bool) -> Result<(), RedriveError> {
        self.desk.take_turn()?;
        match self.desk.heed_lease(take_over) {
            Err(DeskError::Leased { lease, .. }) if self.job.done > 0 => {
                return Err(RedriveError::TakenOver { by: lease.owner, job: self.job.id.clone(), done: self.job.done });
            }
            other => other?,
        }
        // Letters sent in an earlier turn, even one with an unknown outcome, can be read from the
        // state.
        if let Some(known) = self.desk.index().job(&self.job.id)? {
            let status = if known.status == JobStatus::Paused && self.job.status == JobStatus::Running {
                JobStatus::Running
            } else {
                known.status
            };
            // Letters skipped by this process since its last write are still skipped.
            let skipped = known.skipped.max(self.job.skipped);
            self.job = Job { status, skipped, ..known };
        }
        let mut left = match self.change.only() {
            Some(letters) => plan::letters_open(self.desk.index(), letters, self.terms.force)?,
            None => plan::left(self.desk.index(), &self.job)?,
        };
        left.retain(|letter| !self.refused.contains(letter));
        if self.job.done == 0 && self.job.skipped == 0 {
            self.job.total = u64::try_from(left.len()).unwrap_or(u64::MAX);
        } else {
            // Others may have changed some of them meanwhile.
            let there = self.job.done + self.job.skipped + u64::try_from(left.len()).unwrap_or(0);
            if there < self.job.total {
                self.changed += self.job.total - there;
                self.job.skipped += self.job.total - there;
            }
        }
        let topic = self.desk.queue().topic.clone();
        // Files and editors give letters in any order.
        left.sort_unstable();
        self.ready = None;
        self.ahead = Ahead::start(&self.kafka, &topic, left, |letter| self.change.brings(letter))?;
        self.desk.forget_gone()?;
        Ok(())
    }

    /// Number of letters still to be sent.
    pub(super) fn left(&self) -> usize {
        self.ahead.left() + self.ready.as_ref().map_or(0, |ready| ready.sendings.len())
    }

    pub(super) fn pass_over(&mut self, letter: LetterKey, why: String) {
        if self.refused.insert(letter) {
            self.passed_over.entry(why).or_default().push(letter);
            self.job.skipped += 1;
        }
    }

    /// Writes only the job's state.
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
                    WriteOutcome::TurnLost => {}
                }
            }
            self.begin_turn(false)?;
        }
    }

    pub(super) fn state_refused(&self, faults: &[(usize, WriteFault)]) -> RedriveError {
        let topic = self.desk.queue().state_topic.clone().unwrap_or_default();
        let fault = faults.first().map_or(WriteFault::Passing("refused"), |(_, fault)| *fault);
        RedriveError::Target { topic, fault }
    }

    fn wait_a_little(&mut self) -> Result<(), RedriveError> {
        self.be_heard()?;
        self.desk.feed().poll(BEAT)?;
        Ok(())
    }

    /// Writes a heartbeat if the last write is long ago: a silent job counts as dead.
    pub(super) fn be_heard(&mut self) -> Result<(), RedriveError> {
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

    /// Reads the outcome of sent letters; returns a reason to stop if too many have failed again.
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
        // Without a rate limit the backlog grows faster than it is read: the job reads its own
        // records too.
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

    /// Whether the canary letters are sent and some outcomes are still missing.
    fn awaits_canary(&mut self) -> bool {
        let canary = self.terms.canary.min(self.job.total);
        let waits = canary > 0 && self.job.done >= canary && self.succeeded + self.failed_again < canary && self.left() > 0;
        if self.job.status == JobStatus::Canary && !waits {
            self.job.status = JobStatus::Running;
            self.pace.begin_again(self.desk.clock().now());
        }
        waits
    }
}

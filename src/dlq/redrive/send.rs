//! Sends letters: one transaction after the other, the next one prepared while the last one is written.

use std::time::Duration;

use crate::core::dead_letter::{Fate, JobStatus, LetterKey, LetterState};
use crate::dlq::desk::WriteOutcome;
use crate::dlq::queue::Queue;
use crate::dlq::redrive::ahead::Fetched;
use crate::dlq::redrive::change::LetterChange;
use crate::dlq::redrive::error::RedriveError;
use crate::dlq::redrive::outgoing::{Outgoings, Places, Target};
use crate::dlq::redrive::run::{BEAT, Redrive};
use crate::kafka::error::WriteFault;

/// Limits of a transaction: number of letters, and approximate number of bytes.
const MOST_LETTERS: usize = 10_000;
const MOST_BYTES: usize = 16 << 20;

/// Number of letters prepared at a time while the last transaction is written.
const SOME: usize = 1_000;

/// Wait between two checks for the end of that transaction.
const MOMENT: Duration = Duration::from_millis(2);

impl Redrive<'_> {
    /// How many letters may be sent now, by the rate and all other limits.
    fn allowance(&mut self) -> usize {
        let mut most = MOST_LETTERS.min(self.left());
        let done = self.job.done;
        let canary = self.terms.canary.min(self.job.total);
        most = most.min(self.halving.limit().unwrap_or(usize::MAX));
        let limits = [self.terms.max, (done < canary).then_some(canary)];
        for limit in limits.into_iter().flatten() {
            most = most.min(usize::try_from(limit.saturating_sub(done)).unwrap_or(usize::MAX));
        }
        self.pace.allow(most, self.desk.clock().now())
    }

    /// Limit of a transaction in bytes; a single larger letter is sent nevertheless.
    fn most_bytes(&self) -> usize {
        MOST_BYTES.min(self.budget.bytes())
    }

    pub(super) fn send_some(&mut self) -> Result<(), RedriveError> {
        let most = self.allowance();
        if most == 0 {
            std::thread::sleep(self.pace.wait(self.desk.clock().now()).min(BEAT));
            return self.be_heard();
        }
        let mut prepared = if let Some(mut ready) = self.ready.take() {
            ready.sent_at(self.desk.now().as_millis());
            ready
        } else {
            let fetched = self.ahead.take(most, self.most_bytes(), BEAT)?;
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
                self.halving.written();
            }
            // The next turn determines the remaining letters again.
            WriteOutcome::TurnLost => {}
            WriteOutcome::Refused(faults) => self.refuse(&prepared, &faults)?,
        }
        self.pass_over_all(passed);
        Ok(())
    }

    /// Letters refused by their target are skipped; the others are sent without them in the next turn.
    fn refuse(&mut self, prepared: &Outgoings, faults: &[(usize, WriteFault)]) -> Result<(), RedriveError> {
        let of_letters: Vec<(usize, WriteFault)> =
            faults.iter().copied().filter(|(tag, _)| *tag < prepared.letters.len()).collect();
        if of_letters.is_empty() {
            return Err(self.state_refused(faults));
        }
        if let Some((tag, fault)) = of_letters.iter().find(|(_, fault)| matches!(fault, WriteFault::Denied)) {
            return Err(RedriveError::Target { topic: prepared.topics[*tag].clone(), fault: *fault });
        }
        // A broker refuses a batch because of one record, or because it is too large; either way the client reports the error for every
        // record.
        match of_letters.iter().find(|(_, fault)| fault.lasts()) {
            Some((tag, fault)) if prepared.letters.len() == 1 => {
                self.halving.found();
                self.pass_over(prepared.letters[*tag], format!("{}: {fault} ({})", prepared.topics[*tag], fault.remedy()));
                self.desk.give_turn_up();
            }
            Some(_) => {
                self.halving.refused(prepared.letters.len());
                self.desk.give_turn_up();
            }
            // The cause is unknown, and retries must not go on for ever.
            None => self.desk.lose_turn(),
        }
        Ok(())
    }

    fn pass_over_all(&mut self, passed: Vec<(LetterKey, String)>) {
        for (letter, why) in passed {
            self.pass_over(letter, why);
        }
    }

    /// Writes a transaction. If only the rate limits the next one, that is prepared meanwhile; letters skipped in doing so are
    /// returned.
    fn commit(&mut self, prepared: &mut Outgoings) -> Result<(WriteOutcome, Passed), RedriveError> {
        let sendings = std::mem::take(&mut prepared.sendings);
        let mut job = self.job.clone();
        job.done += u64::try_from(sendings.len()).unwrap_or(0);
        job.status = JobStatus::Running;
        job.why = None;
        let mut entries = self.desk.beside(&mut job, false);
        entries.append(&mut prepared.states);
        let goes_on = self.terms.rate.is_none()
            && self.terms.max.is_none()
            && job.done >= self.terms.canary
            && self.halving.limit().is_none();
        let fate = self.fate();
        let (clock, bytes, most_bytes) = (self.desk.clock(), prepared.bytes, self.most_bytes());
        let began = clock.now();
        let (desk, ahead) = (&mut *self.desk, &mut self.ahead);
        let mut preparing = Preparing::new(&mut self.change, &self.target, &self.queue, &self.places, fate);
        let (ended, read) = std::thread::scope(|scope| {
            let writing = scope.spawn(move || desk.write(sendings, &entries));
            let mut read = Ok(());
            while goes_on && ahead.left() > 0 && !preparing.is_full(most_bytes) {
                match ahead.take(SOME, most_bytes - preparing.ready.bytes, MOMENT) {
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
        match ended {
            WriteOutcome::Committed => {
                self.job = job;
                self.budget.committed(bytes, began, clock.now());
            }
            WriteOutcome::Refused(_) | WriteOutcome::TurnLost => self.budget.failed(bytes, began, clock.now()),
        }
        read?;
        let (ready, passed) = preparing.end();
        self.ready = Some(ready).filter(|ready| !ready.sendings.is_empty());
        Ok((ended, passed))
    }

    /// The state record of a sent letter, without its individual fields.
    fn fate(&self) -> Fate {
        let fate = Fate::new(LetterState::Redriven, &self.job.by, self.desk.now(), &self.job.id);
        Fate { note: self.job.note.clone(), ..fate }
    }
}

/// Letters that are not sent, and why.
type Passed = Vec<(LetterKey, String)>;

/// Prepares letters and their state records.
struct Preparing<'a> {
    change: &'a mut LetterChange,
    target: &'a Target,
    queue: &'a Queue,
    places: &'a Places,
    fate: Fate,
    ready: Outgoings,
    passed: Passed,
}

impl<'a> Preparing<'a> {
    fn new(change: &'a mut LetterChange, target: &'a Target, queue: &'a Queue, places: &'a Places, fate: Fate) -> Self {
        let ready = Outgoings::at(fate.at);
        Self { change, target, queue, places, fate, ready, passed: Passed::new() }
    }

    /// Whether the transaction is full.
    fn is_full(&self, most_bytes: usize) -> bool {
        self.ready.letters.len() >= MOST_LETTERS || self.ready.bytes >= most_bytes
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

//! Puts calls together into batches, and carries out what became of each record.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::core::batch::{BatchLimits, Forming, is_of_all};
use crate::core::dispatch::{Begun, CallId, CallOutcome, Kind};
use crate::core::failure::{Failure, Verdict, VerdictKind};
use crate::worker::deliverer::caller::Caller;
use crate::worker::deliverer::places::{HandlerPlaces, Job};
use crate::worker::delivery::Delivery;
use crate::worker::handler::{self, Handler};

type Call = Begun<Job>;

/// The requests that are with the handler: by kind, so that hanging redeliveries do not take those of fresh records, and by partition.
#[derive(Default)]
struct Requests {
    kinds: [usize; 2],
    lanes: BTreeMap<u64, usize>,
}

/// Counts a request until it has ended.
struct Request {
    running: Arc<Mutex<Requests>>,
    kind: Kind,
    lane: u64,
}

impl Drop for Request {
    fn drop(&mut self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.kinds[self.kind as usize] -= 1;
        if let Some(requests) = running.lanes.get_mut(&self.lane) {
            *requests -= 1;
            if *requests == 0 {
                running.lanes.remove(&self.lane);
            }
        }
    }
}

/// Calls that were admitted and wait for their batch.
struct Batches<H: Handler> {
    caller: Arc<Caller<H>>,
    limits: BatchLimits,
    /// By partition, with the time at which the batch is sent however small it is.
    forming: BTreeMap<u64, (Forming<Call>, Instant)>,
    /// Those that wait for a request to end.
    ready: VecDeque<Vec<Call>>,
    running: Arc<Mutex<Requests>>,
    /// Maximum number of requests, of each kind, and of one partition while others wait.
    requests: usize,
    most: [usize; 2],
    most_of_lane: usize,
    /// Number of partitions revoked when that was last looked at.
    revocations: usize,
}

/// Begins all calls that may begin, in batches, and waits for a change; at most `requests` batches are with the handler.
pub(super) async fn keep<H: Handler>(caller: Arc<Caller<H>>, limits: BatchLimits, requests: usize) {
    let (most, most_of_lane) = (caller.places.most_requests(requests), (requests / 2).max(1));
    let mut batches = Batches {
        caller,
        limits,
        forming: BTreeMap::new(),
        ready: VecDeque::new(),
        running: Arc::default(),
        requests,
        most,
        most_of_lane,
        revocations: 0,
    };
    loop {
        if !batches.caller.may_begin() {
            batches.give_back(|_| true);
        }
        let revocations = batches.caller.places.revocations();
        if std::mem::replace(&mut batches.revocations, revocations) != revocations {
            let places = batches.caller.places.clone();
            batches.give_back(|call| !places.is_open(call.job.id.token));
        }
        batches.caller.hold.released().await;
        batches.caller.quiet.over().await;
        while let Some(begun) = batches.caller.next() {
            batches.add(begun);
        }
        let next = batches.send_due();
        if batches.caller.may_begin() {
            batches.wait(next).await;
        }
    }
}

impl<H: Handler> Batches<H> {
    fn add(&mut self, begun: Call) {
        // It may kill the handler, and is to be alone with it.
        if begun.is_alone {
            self.ready.push_back(vec![begun]);
            return;
        }
        let key = if self.limits.across { 0 } else { begun.job.id.token };
        let (bytes, company) = (begun.job.delivery.size(), begun.job.company);
        match self.forming.remove(&key) {
            Some((mut forming, until)) if forming.takes(bytes, company, &self.limits) => {
                forming.add(begun, bytes, company);
                self.keep_forming(key, forming, until);
            }
            full => {
                self.ready.extend(full.map(|(forming, _)| forming.into_jobs()));
                let forming = Forming::of(begun, bytes, company, &self.limits);
                self.keep_forming(key, forming, Instant::now() + self.limits.wait);
            }
        }
    }

    fn keep_forming(&mut self, key: u64, forming: Forming<Call>, until: Instant) {
        if forming.is_full(&self.limits) {
            self.ready.push_back(forming.into_jobs());
        } else {
            self.forming.insert(key, (forming, until));
        }
    }

    /// Sends what is complete or has waited long enough. Returns when to look again.
    fn send_due(&mut self) -> Option<Instant> {
        let now = Instant::now();
        self.complete(|_, until| until <= now);
        while let Some(batch) = self.next_ready() {
            self.send(batch);
        }
        self.forming.values().map(|(_, until)| *until).min()
    }

    /// Completes forming batches, however small they are.
    fn complete(&mut self, is_complete: impl Fn(&Forming<Call>, Instant) -> bool) {
        for (key, (forming, until)) in std::mem::take(&mut self.forming) {
            if is_complete(&forming, until) {
                self.ready.push_back(forming.into_jobs());
            } else {
                self.forming.insert(key, (forming, until));
            }
        }
    }

    /// The batch that has waited longest, of those whose kind and partition have not their share of the requests.
    fn next_ready(&mut self) -> Option<Vec<Call>> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.kinds.iter().sum::<usize>() >= self.requests {
            return None;
        }
        let of_kind = |batch: &Vec<Call>| running.kinds[batch[0].kind as usize] < self.most[batch[0].kind as usize];
        let of_lane =
            |batch: &Vec<Call>| running.lanes.get(&batch[0].job.id.token).is_none_or(|requests| *requests < self.most_of_lane);
        let fair = self.ready.iter().position(|batch| of_kind(batch) && of_lane(batch));
        let found = fair.or_else(|| self.ready.iter().position(of_kind))?;
        drop(running);
        self.ready.remove(found)
    }

    fn send(&self, batch: Vec<Call>) {
        let (kind, lane) = (batch[0].kind, batch[0].job.id.token);
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.kinds[kind as usize] += 1;
        *running.lanes.entry(lane).or_default() += 1;
        drop(running);
        let request = Request { running: self.running.clone(), kind, lane };
        let caller = self.caller.clone();
        tokio::spawn(async move {
            deliver(&caller, batch).await;
            drop(request);
            caller.places.look();
        });
    }

    /// Waits until a call may begin, a batch is to be sent, or a request has ended.
    async fn wait(&self, next: Option<Instant>) {
        let changed = self.caller.places.changed();
        match next {
            Some(next) => {
                let _ = tokio::time::timeout_at(next, changed).await;
            }
            None => changed.await,
        }
    }

    /// Gives back batches that wait here and contain such a call: deliveries are stopped, or a partition is revoked, whose release must not
    /// wait for requests of others.
    fn give_back(&mut self, is_meant: impl Fn(&Call) -> bool) {
        self.complete(|forming, _| forming.jobs().iter().any(&is_meant));
        let batches = std::mem::take(&mut self.ready).into_iter();
        let (back, ready): (VecDeque<_>, VecDeque<_>) = batches.partition(|batch| batch.iter().any(&is_meant));
        self.ready = ready;
        // Each goes back to the head of its queue, so the last comes first.
        for batch in back.into_iter().rev() {
            drop(AdmittedCalls::new(&self.caller.places, batch));
        }
    }
}

impl<H: Handler> Drop for Batches<H> {
    fn drop(&mut self) {
        self.give_back(|_| true);
    }
}

/// Makes a batch's call, and reports what became of each record.
pub(super) async fn deliver<H: Handler>(caller: &Caller<H>, batch: Vec<Call>) {
    let mut admitted = AdmittedCalls::new(&caller.places, batch);
    let under_way: Vec<_> = admitted.calls.iter().map_while(|_| caller.quiet.begin()).collect();
    // Hold or quiesce may have been requested meanwhile.
    if under_way.len() < admitted.calls.len() || caller.hold.is_held() {
        return;
    }
    let deliveries: Vec<Delivery> = admitted.calls.iter().map(|(_, job)| job.delivery.clone()).collect();
    for (_, job) in &mut admitted.calls {
        caller.note_redelivered(job);
    }
    let began = caller.clock.now();
    let verdict = handler::call_batch(caller.handler.as_ref(), deliveries).await;
    let took = caller.clock.now().since(began);
    caller.metrics.batch_delivered();
    let outcomes = match verdict {
        Ok(failures) => {
            caller.note_reachable();
            admitted.by_record(caller, failures, took)
        }
        Err(failure) => admitted.as_a_whole(caller, failure, took),
    };
    admitted.end(outcomes);
}

/// Admitted calls, which must be ended in any case.
struct AdmittedCalls<'a> {
    places: &'a Arc<HandlerPlaces>,
    calls: Vec<(CallId, Job)>,
    /// Those of them that retry a failed attempt in place.
    repeats: Vec<bool>,
}

impl<'a> AdmittedCalls<'a> {
    fn new(places: &'a Arc<HandlerPlaces>, batch: Vec<Call>) -> Self {
        let repeats = batch.iter().map(|begun| begun.is_repeat).collect();
        Self { places, calls: batch.into_iter().map(|begun| (begun.call, begun.job)).collect(), repeats }
    }

    /// Each has a verdict of its own.
    fn judged<H: Handler>(
        &mut self,
        caller: &Caller<H>,
        took: Duration,
        mut verdict: impl FnMut(usize) -> Verdict,
    ) -> Vec<CallOutcome> {
        let calls = self.calls.iter_mut().zip(&self.repeats).enumerate();
        calls.map(|(number, ((_, job), is_repeat))| caller.judge(job, *is_repeat, verdict(number), took)).collect()
    }

    /// The answer says what became of each.
    fn by_record<H: Handler>(&mut self, caller: &Caller<H>, failures: Vec<(usize, Failure)>, took: Duration) -> Vec<CallOutcome> {
        let mut failed: BTreeMap<usize, Failure> = failures.into_iter().collect();
        self.judged(caller, took, |number| failed.remove(&number).map_or(Ok(()), Err))
    }

    /// The whole batch has failed.
    fn as_a_whole<H: Handler>(&mut self, caller: &Caller<H>, failure: Failure, took: Duration) -> Vec<CallOutcome> {
        let records = self.calls.len();
        if records == 1 || failure.is_unsent() || is_of_all(&failure) {
            return self.judged(caller, took, |_| Err(failure.clone()));
        }
        caller.note_reachable();
        tracing::debug!(
            ladder = caller.ladder.name(),
            records,
            class = failure.error().class,
            "batch failed as a whole: delivered again, in smaller batches if it has failed before"
        );
        // What it says about the handler is said once.
        let trouble = std::iter::once(failure.trouble()).chain(std::iter::repeat(None));
        let calls = self.calls.iter_mut().zip(trouble);
        calls
            .map(|((_, job), trouble)| {
                job.company = job.company.after_failure(records);
                caller.metrics.delivered(VerdictKind::of(&Err(failure.clone())), took);
                CallOutcome::InCompany(trouble)
            })
            .collect()
    }

    fn end(mut self, outcomes: Vec<CallOutcome>) {
        self.end_all(outcomes);
    }

    fn end_all(&mut self, outcomes: impl IntoIterator<Item = CallOutcome>) {
        let calls = std::mem::take(&mut self.calls);
        let mut ended: Vec<(CallId, Job, CallOutcome)> =
            calls.into_iter().zip(outcomes).map(|((call, job), outcome)| (call, job, outcome)).collect();
        for (_, job, _) in &mut ended {
            job.survived();
        }
        self.places.all_ended(ended);
    }
}

/// They were not made.
impl Drop for AdmittedCalls<'_> {
    fn drop(&mut self) {
        if !self.calls.is_empty() {
            self.end_all(std::iter::repeat(CallOutcome::NotMade));
        }
    }
}

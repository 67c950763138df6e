//! `hold` and `resume`: what every worker of a ladder must obey, wherever it runs.
//!
//! The last word stands in the ladder's state topic, so one command stops all sidecars, and a worker that is started later obeys
//! it too. A [`HoldWatch`] reads the state topics of all ladders of a process, by one thread and one client; workers have a
//! [`Hold`], which costs them one look at a flag.
//!
//! - No worker begins before its ladder's state was read to the end ([`Hold::ready`]).
//! - An outage changes nothing: what was known last counts until something else is read.
//! - Whose the ladder is stands in the same topic. A worker of another group does not begin, and one that runs while the ladder is
//!   taken over is held.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::Notify;

use crate::config::KafkaConfig;
use crate::core::ladder::Ladder;
use crate::core::leader_clock::LocalTime;
use crate::core::state::{Entry, LadderState};
use crate::core::time::Timestamp;
use crate::kafka::clock::Clock;
use crate::kafka::error::ClientError;
use crate::kafka::isolation::Isolation;
use crate::kafka::tail::{Ends, TailFrom, TopicTail};
use crate::telemetry::events::HoldMetrics;
use crate::worker::error::WorkError;
use crate::worker::stop::Stop;
use crate::worker::wait_until;

/// How long the watch waits for something to be read before it looks after everything else.
const TICK: Duration = Duration::from_millis(100);

/// How often a state topic is tried that cannot be read.
const TRY_INTERVAL: Duration = Duration::from_secs(1);

/// How long a question about a topic that is tried may take: others must be heard meanwhile, if there are any already.
const TRY_ALONE_WITHIN: Duration = Duration::from_secs(3);
const TRY_BESIDE_WITHIN: Duration = Duration::from_secs(1);

/// Whether a ladder is held; cheap to ask and to clone.
#[derive(Clone)]
pub struct Hold(Option<Arc<Watched>>);

/// One ladder under watch.
struct Watched {
    ladder: String,
    group: String,
    topic: String,
    held: AtomicBool,
    /// Dead letters are held until then, in milliseconds of the epoch.
    dead_letters_until: AtomicI64,
    /// And accepted until then, however many there are.
    dead_letters_accepted_until: AtomicI64,
    /// Goes up with each word on that.
    dead_letter_words: AtomicU64,
    /// What was told of that last.
    dead_letters_held: AtomicBool,
    /// Told when the ladder is released.
    released: Notify,
    metrics: HoldMetrics,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    state: LadderState,
    /// The offset of the last record that was read.
    last_offset: Option<i64>,
    /// It is read again from its beginning: what was known last counts until the end is reached.
    rereading: bool,
    known: Known,
}

/// What is known of the state.
#[derive(Default)]
enum Known {
    #[default]
    NotYet,
    /// It may not be read, or there is none.
    Refused(ClientError),
    /// It was read to the end.
    Yes,
}

impl Hold {
    /// Of a ladder without a state topic: never held.
    #[must_use]
    pub fn none() -> Self {
        Self(None)
    }

    /// Whether nothing may be begun now.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.0.as_ref().is_some_and(|watched| watched.held.load(Ordering::Acquire))
    }

    /// Whether what would be a dead letter is held now.
    #[must_use]
    pub fn holds_dead_letters(&self, now: Timestamp) -> bool {
        self.0.as_ref().is_some_and(|watched| now.as_millis() < watched.dead_letters_until.load(Ordering::Acquire))
    }

    /// Whether somebody has said that dead letters are as they should be.
    #[must_use]
    pub fn accepts_dead_letters(&self, now: Timestamp) -> bool {
        self.0.as_ref().is_some_and(|watched| now.as_millis() < watched.dead_letters_accepted_until.load(Ordering::Acquire))
    }

    /// A number that is another one after each word on whether dead letters are held.
    pub(super) fn dead_letter_words(&self) -> u64 {
        self.0.as_ref().map_or(0, |watched| watched.dead_letter_words.load(Ordering::Acquire))
    }

    /// Holds dead letters in this process, until then or until the state says otherwise.
    pub(super) fn hold_dead_letters(&self, until: Timestamp) {
        if let Some(watched) = &self.0 {
            watched.dead_letters_until.fetch_max(until.as_millis(), Ordering::AcqRel);
        }
    }

    /// What people should know of dead letters that are held; nothing where none are.
    #[must_use]
    pub fn dead_letters_notice(&self, now: Timestamp) -> Option<String> {
        let watched = self.0.as_ref().filter(|_| self.holds_dead_letters(now))?;
        let told =
            watched.lock().state.dead_letters_held_until(now).map(|(until, record)| format!(" {}", record.told(until, now)));
        Some(format!("DLQ breaker of {} open: dead letters wait in the largest tier{}", watched.ladder, told.unwrap_or_default()))
    }

    /// The workers that have told that their handler is down.
    #[must_use]
    pub fn handlers_down(&self) -> BTreeSet<String> {
        self.0.as_ref().map(|watched| watched.lock().state.handlers_down.keys().cloned().collect()).unwrap_or_default()
    }

    /// Comes back when the ladder is not held: at once, where it is not.
    pub async fn released(&self) {
        let Some(watched) = &self.0 else { return };
        wait_until::told(&watched.released, || !watched.held.load(Ordering::Acquire)).await;
    }

    /// Waits until the state was read to its end, before which no worker may begin. `false` when told to stop meanwhile.
    ///
    /// # Errors
    /// When the state may not be read or the ladder belongs to another group.
    pub fn ready(&self, stop: &Stop) -> Result<bool, WorkError> {
        let Some(watched) = &self.0 else { return Ok(true) };
        while !stop.is_set() {
            {
                let inner = watched.lock();
                match &inner.known {
                    Known::NotYet => {}
                    Known::Refused(error) => return Err(error.clone().into()),
                    Known::Yes => return watched.not_anothers(&inner).map(|()| true),
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(false)
    }
}

impl Inner {
    /// By whom the ladder is held and why; `None` where it is not.
    fn because(&self, group: &str) -> Option<String> {
        if let Some(owner) = self.state.other_owner(group) {
            return Some(format!("by group {owner}, which has taken the ladder over: stop these workers"));
        }
        match &self.state.hold {
            Entry::Read(hold) if hold.held => Some(hold.to_string()),
            Entry::Unreadable(error) => Some(format!(
                "by a record that cannot be read ({error}): if it should not be held, `kladder resume` overwrites it"
            )),
            Entry::Read(_) | Entry::Absent => None,
        }
    }
}

impl Watched {
    fn new(ladder: &Ladder) -> Self {
        Self {
            ladder: ladder.name().to_owned(),
            group: ladder.group().to_owned(),
            topic: ladder.state_topic(),
            held: AtomicBool::new(false),
            dead_letters_until: AtomicI64::new(0),
            dead_letters_accepted_until: AtomicI64::new(0),
            dead_letter_words: AtomicU64::new(0),
            dead_letters_held: AtomicBool::new(false),
            released: Notify::new(),
            metrics: HoldMetrics::new(ladder),
            inner: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn not_anothers(&self, inner: &Inner) -> Result<(), WorkError> {
        let other = |owner: &str| {
            let (ladder, group) = (self.ladder.clone(), self.group.clone());
            WorkError::OtherOwner { ladder, owner: owner.to_owned(), group }
        };
        inner.state.other_owner(&self.group).map_or(Ok(()), |owner| Err(other(owner)))
    }

    fn read(&self, offset: i64, key: Option<&[u8]>, value: Option<&[u8]>) {
        let mut inner = self.lock();
        // Offsets only go back where the topic was made anew: then nothing of the old one counts.
        let anew = inner.last_offset.is_some_and(|last| offset <= last);
        if anew {
            tracing::warn!(
                topic = self.topic,
                "state topic begins anew: what stood in the old one is forgotten once it is read to its end"
            );
            inner.state = LadderState::default();
            inner.rereading = true;
        }
        inner.last_offset = Some(offset);
        if inner.state.apply(key, value) {
            self.act(&inner);
        }
    }

    fn know(&self) {
        let mut inner = self.lock();
        inner.known = Known::Yes;
        inner.rereading = false;
        self.act(&inner);
    }

    fn refuse(&self, error: ClientError) {
        self.lock().known = Known::Refused(error);
    }

    /// Makes what is read so, as soon as it was read to the end: what is on the way there is the past.
    fn act(&self, inner: &Inner) {
        if !matches!(inner.known, Known::Yes) || inner.rereading {
            return;
        }
        self.act_on_dead_letters(inner);
        let because = inner.because(&self.group);
        let was_held = self.held.swap(because.is_some(), Ordering::AcqRel);
        self.metrics.held(because.is_some());
        let ladder = &self.ladder;
        match (&because, &inner.state.hold) {
            (Some(because), Entry::Unreadable(_)) => tracing::error!(ladder, "ladder is held {because}"),
            (Some(because), _) if inner.state.other_owner(&self.group).is_some() => {
                tracing::error!(ladder, "ladder is held {because}");
            }
            (Some(because), _) if !was_held => {
                tracing::info!(ladder, "ladder is held {because}; nothing is moved and no delivery begun until it is resumed");
            }
            (None, Entry::Read(hold)) if was_held => tracing::info!(ladder, "ladder is resumed {hold}"),
            (None, _) if was_held => tracing::info!(ladder, "ladder is held no more"),
            _ => {}
        }
        if because.is_none() {
            self.released.notify_waiters();
        }
    }
}

impl Watched {
    fn act_on_dead_letters(&self, inner: &Inner) {
        let (until, accepted) = match &inner.state.dlq_breaker {
            Entry::Read(record) => (record.until, record.accepted_until),
            Entry::Absent => (None, None),
            Entry::Unreadable(error) => {
                tracing::error!(ladder = self.ladder, %error, "what the state says of dead letters cannot be read: none are held");
                (None, None)
            }
        };
        let millis = |time: Option<Timestamp>| time.map_or(0, Timestamp::as_millis);
        self.dead_letters_accepted_until.store(millis(accepted), Ordering::Release);
        if self.dead_letters_until.swap(millis(until), Ordering::AcqRel) != millis(until) {
            self.dead_letter_words.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Tells that dead letters are held, or are no more.
    fn tell_of_dead_letters(&self, now: Timestamp) {
        let until = Timestamp::from_millis(self.dead_letters_until.load(Ordering::Acquire));
        let are_held = now < until;
        if self.dead_letters_held.swap(are_held, Ordering::AcqRel) == are_held {
            return;
        }
        self.metrics.dead_letters_held(are_held);
        let (ladder, inner) = (&self.ladder, self.lock());
        match &inner.state.dlq_breaker {
            Entry::Read(record) if are_held => tracing::warn!(ladder, "dead letters are held {}", record.told(until, now)),
            _ if are_held => tracing::warn!(ladder, "dead letters are held"),
            Entry::Read(record) if record.until.is_none() => {
                tracing::info!(
                    ladder,
                    by = record.by,
                    "dead letters are let go: what was held is redelivered once more when it is due"
                );
            }
            _ => tracing::info!(ladder, "dead letters are held no more: what was is redelivered once more when it is due"),
        }
    }
}

/// Reads the state topics of all ladders of a process.
pub struct HoldWatch {
    ladders: Vec<Arc<Watched>>,
    end: Stop,
    thread: Option<JoinHandle<()>>,
}

impl HoldWatch {
    /// Begins to read, on a thread of its own, until it is dropped.
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub fn start<'a>(kafka: &KafkaConfig, ladders: impl IntoIterator<Item = &'a Ladder>) -> std::io::Result<Self> {
        let ladders: Vec<Arc<Watched>> = ladders.into_iter().map(|ladder| Arc::new(Watched::new(ladder))).collect();
        let end = Stop::new();
        let watching = Watching {
            kafka: kafka.clone(),
            clock: Clock::system(),
            ladders: ladders
                .iter()
                .map(|watched| Reading { watched: watched.clone(), goal: None, deaf: false, try_at: LocalTime::from_micros(0) })
                .collect(),
            end: end.clone(),
            told_outage: false,
        };
        let thread = std::thread::Builder::new().name("state".to_owned()).spawn(move || watching.run())?;
        Ok(Self { ladders, end, thread: Some(thread) })
    }

    /// Of one of the ladders.
    ///
    /// # Panics
    /// When the ladder is none of those that are watched.
    #[must_use]
    pub fn hold(&self, ladder: &str) -> Hold {
        let watched = self.ladders.iter().find(|watched| watched.ladder == ladder);
        Hold(Some(watched.expect("a ladder under watch").clone()))
    }
}

impl Drop for HoldWatch {
    fn drop(&mut self) {
        self.end.set();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The thread of a [`HoldWatch`].
struct Watching {
    kafka: KafkaConfig,
    clock: Clock,
    ladders: Vec<Reading>,
    end: Stop,
    told_outage: bool,
}

/// How far the reading of one ladder's state is.
struct Reading {
    watched: Arc<Watched>,
    /// Where its topic ended when it was asked for.
    goal: Option<Goal>,
    /// It was read, and may not be read any more.
    deaf: bool,
    try_at: LocalTime,
}

enum Goal {
    Ahead(Ends),
    Reached,
}

impl Watching {
    fn run(mut self) {
        let mut tail = None;
        while !self.end.is_set() {
            match &mut tail {
                Some(tail) => self.turn(tail),
                None => match TopicTail::new(&self.kafka, TailFrom::Beginning, Isolation::Uncommitted) {
                    Ok(made) => tail = Some(made),
                    Err(error) => {
                        self.ladders.iter().for_each(|reading| reading.watched.refuse(error.clone()));
                        std::thread::sleep(TICK);
                    }
                },
            }
        }
    }

    fn turn(&mut self, tail: &mut TopicTail) {
        self.begin_others(tail);
        let ladders = &self.ladders;
        // Which of them may not be read is asked for one by one.
        let _ = tail.poll(TICK, |tp, record| {
            if let Some(reading) = ladders.iter().find(|reading| *reading.watched.topic == *tp.topic) {
                reading.watched.read(record.offset(), record.key(), record.value());
            }
        });
        let now = self.clock.now().timestamp();
        for reading in &mut self.ladders {
            reading.note(tail);
            reading.watched.tell_of_dead_letters(now);
        }
    }

    /// Tries the state topics that are not read yet.
    fn begin_others(&mut self, tail: &mut TopicTail) {
        let beside = self.ladders.iter().any(|reading| matches!(reading.goal, Some(Goal::Reached)));
        let within = if beside { TRY_BESIDE_WITHIN } else { TRY_ALONE_WITHIN };
        for reading in self.ladders.iter_mut().filter(|reading| reading.goal.is_none()) {
            if self.end.is_set() || self.clock.now() < reading.try_at {
                continue;
            }
            let topic = &reading.watched.topic;
            match tail.add(topic, within).and_then(|()| tail.ends(&[topic], within)) {
                Ok(ends) => {
                    reading.goal = Some(Goal::Ahead(ends));
                    self.told_outage = false;
                }
                Err(error) if error.is_outage() => {
                    if !std::mem::replace(&mut self.told_outage, true) {
                        tracing::info!(%error, "brokers do not answer: no worker begins before it is known whether its ladder is held");
                    }
                    reading.try_at = self.clock.now().later(TRY_INTERVAL);
                }
                Err(error) => {
                    reading.watched.refuse(error);
                    reading.try_at = self.clock.now().later(TRY_INTERVAL);
                }
            }
        }
    }
}

impl Reading {
    fn note(&mut self, tail: &TopicTail) {
        let denied = tail.denied(&self.watched.topic);
        match &self.goal {
            None => {}
            Some(Goal::Ahead(ends)) => match denied {
                Some(error) => self.watched.refuse(error.clone()),
                None if tail.has_reached(ends) => {
                    self.goal = Some(Goal::Reached);
                    self.watched.know();
                }
                None => {}
            },
            Some(Goal::Reached) if self.watched.lock().rereading => self.goal = None,
            Some(Goal::Reached) => {
                let was_deaf = std::mem::replace(&mut self.deaf, denied.is_some());
                let ladder = &self.watched.ladder;
                match denied {
                    Some(error) if !was_deaf => {
                        tracing::error!(ladder, %error, "ladder's state can be read no more: neither hold nor resume is heard, and it stays as it is");
                    }
                    None if was_deaf => tracing::info!(ladder, "ladder's state is read again"),
                    _ => {}
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "hold_tests.rs"]
mod tests;

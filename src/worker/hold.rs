//! `hold` and `resume`, which every worker of a ladder obeys, wherever it runs.
//!
//! The current state is in the ladder's state topic, so one command stops all sidecars, and a worker that starts later obeys it
//! too. A [`HoldWatch`] reads the state topics of all ladders of a process, with one thread and one client; workers have a
//! [`Hold`], which costs them the check of a flag.
//!
//! - No worker begins before its ladder's state was read to the end ([`Hold::ready`]).
//! - An outage changes nothing: the last known state counts until something else is read.
//! - The owner of the ladder is in the same topic. A worker of another group does not begin, and one that runs while the ladder is
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
use crate::core::state::{DlqBreakerRecord, LadderState, StateValue};
use crate::core::time::Timestamp;
use crate::kafka::clock::Clock;
use crate::kafka::error::ClientError;
use crate::kafka::isolation::Isolation;
use crate::kafka::tail::{Ends, TailFrom, TopicTail};
use crate::telemetry::events::HoldMetrics;
use crate::worker::error::WorkError;
use crate::worker::stop::Stop;
use crate::worker::wait_until;

/// How long the watch waits for a record before it does everything else.
const TICK: Duration = Duration::from_millis(100);

/// Interval of retrying a state topic that cannot be read.
const TRY_INTERVAL: Duration = Duration::from_secs(1);

/// Time limit of a request about such a topic: others must be read meanwhile.
const TRY_ALONE_WITHIN: Duration = Duration::from_secs(3);
const TRY_BESIDE_WITHIN: Duration = Duration::from_secs(1);

/// Whether a ladder is held; cheap to check and to clone.
#[derive(Clone)]
pub struct Hold(Option<Arc<HoldState>>);

/// A watched ladder.
struct HoldState {
    ladder: String,
    group: String,
    topic: String,
    held: AtomicBool,
    /// Until when dead letters are held, in epoch milliseconds.
    dead_letters_until: AtomicI64,
    /// Until when they are accepted, however many there are.
    dead_letters_accepted_until: AtomicI64,
    /// Increases with each record about that.
    dead_letter_words: AtomicU64,
    /// The last state that was logged.
    dead_letters_held: AtomicBool,
    /// Notified when the ladder is resumed.
    released: Notify,
    metrics: HoldMetrics,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    state: LadderState,
    /// The offset of the last record read.
    last_offset: Option<i64>,
    /// Whether it is being read again from its beginning: the last known state counts until the end
    /// is reached.
    rereading: bool,
    read: StateRead,
}

/// How far the state was read.
#[derive(Default)]
enum StateRead {
    #[default]
    NotYet,
    /// It may not be read, or does not exist.
    Refused(ClientError),
    /// To its end.
    ToEnd,
}

impl Hold {
    /// For a ladder without a state topic: never held.
    #[must_use]
    pub fn none() -> Self {
        Self(None)
    }

    /// Whether nothing may begin now.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.0.as_ref().is_some_and(|watched| watched.held.load(Ordering::Acquire))
    }

    /// Whether dead letters are held now.
    #[must_use]
    pub fn holds_dead_letters(&self, now: Timestamp) -> bool {
        self.0.as_ref().is_some_and(|watched| watched.holds_dead_letters(now))
    }

    /// Whether a user accepts dead letters now.
    #[must_use]
    pub fn accepts_dead_letters(&self, now: Timestamp) -> bool {
        self.0.as_ref().is_some_and(|watched| watched.accepts_dead_letters(now))
    }

    /// A number that changes with each record about held dead letters.
    pub(super) fn dead_letter_words(&self) -> u64 {
        self.0.as_ref().map_or(0, |watched| watched.dead_letter_words.load(Ordering::Acquire))
    }

    /// Holds dead letters in this process, until then or until the state says otherwise.
    pub(super) fn hold_dead_letters(&self, until: Timestamp) {
        if let Some(watched) = &self.0 {
            watched.dead_letters_until.fetch_max(until.as_millis(), Ordering::AcqRel);
        }
    }

    /// A message about held dead letters; `None` if there are none.
    #[must_use]
    pub fn dead_letters_notice(&self, now: Timestamp) -> Option<String> {
        let watched = self.0.as_ref().filter(|_| self.holds_dead_letters(now))?;
        let told =
            watched.lock().state.dead_letters_held_until(now).map(|(until, record)| format!(" {}", record.text(until, now)));
        Some(format!("DLQ breaker of {} open: dead letters wait in the largest tier{}", watched.ladder, told.unwrap_or_default()))
    }

    /// The workers that report their handler as down.
    #[must_use]
    pub fn handlers_down(&self) -> BTreeSet<String> {
        self.0.as_ref().map(|watched| watched.lock().state.handlers_down.keys().cloned().collect()).unwrap_or_default()
    }

    /// Waits until the ladder is not held.
    pub async fn released(&self) {
        let Some(watched) = &self.0 else { return };
        wait_until::notified(&watched.released, || !watched.held.load(Ordering::Acquire)).await;
    }

    /// Waits until the state was read to its end, before which no worker may begin. `false` if stopped meanwhile.
    ///
    /// # Errors
    /// The state may not be read, or the ladder belongs to another group.
    pub fn ready(&self, stop: &Stop) -> Result<bool, WorkError> {
        let Some(watched) = &self.0 else { return Ok(true) };
        while !stop.is_set() {
            {
                let inner = watched.lock();
                match &inner.read {
                    StateRead::NotYet => {}
                    StateRead::Refused(error) => return Err(error.clone().into()),
                    StateRead::ToEnd => return watched.not_anothers(&inner).map(|()| true),
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(false)
    }
}

impl Inner {
    /// By whom the ladder is held and why; `None` if it is not.
    fn because(&self, group: &str) -> Option<String> {
        if let Some(owner) = self.state.other_owner(group) {
            return Some(format!("by group {owner}, which has taken the ladder over: stop these workers"));
        }
        match &self.state.hold {
            StateValue::Read(hold) if hold.held => Some(hold.to_string()),
            StateValue::Unreadable(error) => Some(format!("by an unreadable record ({error}): `kladder resume` overwrites it")),
            StateValue::Read(_) | StateValue::Absent => None,
        }
    }
}

impl HoldState {
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
        // Offsets go back only if the topic was recreated: then its previous content does not
        // count.
        let anew = inner.last_offset.is_some_and(|last| offset <= last);
        if anew {
            tracing::warn!(
                topic = self.topic,
                "state topic was recreated: its previous content is dropped once it is read to the end"
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
        inner.read = StateRead::ToEnd;
        inner.rereading = false;
        self.act(&inner);
    }

    fn refuse(&self, error: ClientError) {
        self.lock().read = StateRead::Refused(error);
    }

    /// Puts the state into effect once the topic was read to the end: earlier records are history.
    fn act(&self, inner: &Inner) {
        if !matches!(inner.read, StateRead::ToEnd) || inner.rereading {
            return;
        }
        self.act_on_dead_letters(inner);
        let because = inner.because(&self.group);
        let was_held = self.held.swap(because.is_some(), Ordering::AcqRel);
        self.metrics.held(because.is_some());
        let ladder = &self.ladder;
        match (&because, &inner.state.hold) {
            (Some(because), StateValue::Unreadable(_)) => tracing::error!(ladder, "ladder is held {because}"),
            (Some(because), _) if inner.state.other_owner(&self.group).is_some() => {
                tracing::error!(ladder, "ladder is held {because}");
            }
            (Some(because), _) if !was_held => {
                tracing::info!(ladder, "ladder is held {because}; no record is moved or delivered until it is resumed");
            }
            (None, StateValue::Read(hold)) if was_held => tracing::info!(ladder, "ladder is resumed {hold}"),
            (None, _) if was_held => tracing::info!(ladder, "ladder is no longer held"),
            _ => {}
        }
        if because.is_none() {
            self.released.notify_waiters();
        }
    }
}

impl HoldState {
    fn holds_dead_letters(&self, now: Timestamp) -> bool {
        now.as_millis() < self.dead_letters_until.load(Ordering::Acquire) && !self.accepts_dead_letters(now)
    }

    fn accepts_dead_letters(&self, now: Timestamp) -> bool {
        now.as_millis() < self.dead_letters_accepted_until.load(Ordering::Acquire)
    }

    fn act_on_dead_letters(&self, inner: &Inner) {
        let until_of = |value: &StateValue<DlqBreakerRecord>| match value {
            StateValue::Read(record) => record.until,
            StateValue::Absent => None,
            StateValue::Unreadable(error) => {
                tracing::error!(
                    ladder = self.ladder, %error,
                    "the record about held or accepted dead letters is unreadable: none are held or accepted by it"
                );
                None
            }
        };
        let (until, accepted) = (until_of(&inner.state.dlq_breaker), until_of(&inner.state.dlq_accepted));
        let millis = |time: Option<Timestamp>| time.map_or(0, Timestamp::as_millis);
        self.dead_letters_accepted_until.store(millis(accepted), Ordering::Release);
        if self.dead_letters_until.swap(millis(until), Ordering::AcqRel) != millis(until) {
            self.dead_letter_words.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Logs that dead letters are held, or no longer.
    fn tell_of_dead_letters(&self, now: Timestamp) {
        let until = Timestamp::from_millis(self.dead_letters_until.load(Ordering::Acquire));
        let are_held = self.holds_dead_letters(now);
        if self.dead_letters_held.swap(are_held, Ordering::AcqRel) == are_held {
            return;
        }
        self.metrics.dead_letters_held(are_held);
        let (ladder, inner) = (&self.ladder, self.lock());
        match &inner.state.dlq_breaker {
            StateValue::Read(record) if are_held => tracing::warn!(ladder, "dead letters are held {}", record.text(until, now)),
            _ if are_held => tracing::warn!(ladder, "dead letters are held"),
            StateValue::Read(record) if record.until.is_none() => {
                tracing::info!(ladder, by = record.by, "dead letters are released: held ones are redelivered when they are due");
            }
            _ => tracing::info!(ladder, "dead letters are no longer held: held ones are redelivered when they are due"),
        }
    }
}

/// Reads the state topics of all ladders of a process.
pub struct HoldWatch {
    ladders: Vec<Arc<HoldState>>,
    end: Stop,
    thread: Option<JoinHandle<()>>,
}

impl HoldWatch {
    /// Starts reading, on its own thread, until it is dropped.
    ///
    /// # Errors
    /// The thread cannot be created.
    pub fn start<'a>(kafka: &KafkaConfig, ladders: impl IntoIterator<Item = &'a Ladder>) -> std::io::Result<Self> {
        let ladders: Vec<Arc<HoldState>> = ladders.into_iter().map(|ladder| Arc::new(HoldState::new(ladder))).collect();
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

    /// The hold of one of the ladders.
    ///
    /// # Panics
    /// The ladder is not watched.
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

/// The progress of reading one ladder's state.
struct Reading {
    watched: Arc<HoldState>,
    /// The end of its topic at the last request.
    goal: Option<Goal>,
    /// It was read before, but reading is no longer permitted.
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
        // Which of them may not be read is determined one by one.
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
                        tracing::info!(%error, "brokers do not answer: no worker starts until the state of its ladder is known");
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
                        tracing::error!(ladder, %error, "ladder's state can no longer be read: hold and resume have no effect, and it stays as it is");
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

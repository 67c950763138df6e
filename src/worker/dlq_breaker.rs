//! The breaker of a ladder's dead-letter topic, as used by the workers of a process.
//!
//! The hold of dead letters is recorded in the ladder's state topic, beside `hold`, so that all workers obey: a worker that finds too
//! many writes it there, movers keep held records waiting until it is over, and `kladder resume` ends it early. Nothing is lost in any
//! case: a record released by one worker and still held by another only waits in one more topic.
//!
//! It counts records that have ended since dead letters were last held: records done during a hold say nothing about
//! those that wait.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::KafkaConfig;
use crate::core::decide::Decision;
use crate::core::delay::format_duration;
use crate::core::dlq_breaker::{DlqBreakerSettings, Endings};
use crate::core::envelope::{Envelope, Reason};
use crate::core::ladder::Ladder;
use crate::core::state::{DLQ_BREAKER_KEY, DlqBreakerRecord};
use crate::core::time::Timestamp;
use crate::kafka::clock::Clock;
use crate::kafka::state::write_state;
use crate::worker::hold::Hold;

/// The breaker of one ladder's dead-letter topic in this process.
pub struct DlqBreaker {
    settings: DlqBreakerSettings,
    endings: Mutex<(Endings, u64)>,
    hold: Hold,
    kafka: KafkaConfig,
    ladder: Arc<Ladder>,
    instance: String,
    clock: Clock,
}

impl DlqBreaker {
    /// Closed, unless the ladder's state says otherwise.
    #[must_use]
    pub fn new(settings: DlqBreakerSettings, ladder: &Arc<Ladder>, kafka: &KafkaConfig, instance: &str, hold: Hold) -> Arc<Self> {
        Arc::new(Self {
            settings,
            endings: Mutex::new((Endings::new(settings), 0)),
            hold,
            kafka: kafka.clone(),
            ladder: ladder.clone(),
            instance: instance.to_owned(),
            clock: Clock::system(),
        })
    }

    /// Records known to be done without a decision.
    pub(super) fn done(&self, records: u64) {
        let now = self.clock.now();
        if records > 0 && !self.hold.holds_dead_letters(now.timestamp()) {
            self.endings().0.done(records, now);
        }
    }

    /// The records that have ended since dead letters were last held.
    fn endings(&self) -> MutexGuard<'_, (Endings, u64)> {
        let mut endings = self.endings.lock().unwrap_or_else(PoisonError::into_inner);
        let words = self.hold.dead_letter_words();
        if std::mem::replace(&mut endings.1, words) != words {
            endings.0.forget();
        }
        endings
    }

    /// Applies the breaker to a decision on a record with this envelope: dead letters are held while there are too many, except
    /// expired and poison records and those with no other place to go.
    pub(super) fn pass(&self, before: &Envelope, decision: Decision) -> Decision {
        match decision {
            Decision::Complete => {
                self.done(1);
                decision
            }
            Decision::DeadLetter { reason: Reason::Exhausted | Reason::Rejected, ref envelope, .. } if self.holds_one_more() => {
                self.ladder.held_back(before, envelope)
            }
            Decision::Hop { .. } | Decision::DeadLetter { .. } => decision,
        }
    }

    fn holds_one_more(&self) -> bool {
        let now = self.clock.now();
        if self.hold.holds_dead_letters(now.timestamp()) {
            return true;
        }
        let too_many = self.endings().0.dead(now) && !self.hold.accepts_dead_letters(now.timestamp());
        if too_many {
            self.open(now.timestamp());
        }
        too_many
    }

    fn open(&self, now: Timestamp) {
        let until = now + self.settings.hold_for;
        let DlqBreakerSettings { window, minimum, share, hold_for } = self.settings;
        let ladder = self.ladder.name();
        let why = format!(
            "at least {minimum} records and {} % of those that finished within {} would be dead letters",
            share * 100.0,
            format_duration(window)
        );
        tracing::warn!(
            ladder,
            hold_for = format_duration(hold_for),
            "DLQ breaker is open: {why}; they wait in the largest tier instead, and no attempt is counted. Fix the cause, then \
             `kladder resume`, or accept them with `kladder resume --accept-dead-letters 24h`; the breaker closes by itself after the time"
        );
        self.hold.hold_dead_letters(until);
        let record =
            DlqBreakerRecord { until: Some(until), by: format!("worker {} of {ladder}", self.instance), at: now, why: Some(why) };
        let (kafka, topic, ladder) = (self.kafka.clone(), self.ladder.state_topic(), self.ladder.clone());
        // The worker does not wait for it: until the others have read it, they decide for themselves.
        let write = move || {
            if let Err(error) = write_state(&kafka, &topic, DLQ_BREAKER_KEY, &record.to_value()) {
                tracing::error!(ladder = ladder.name(), %error, "cannot report held dead letters to other workers");
            }
        };
        if let Err(error) = std::thread::Builder::new().name("dlq-breaker".to_owned()).spawn(write) {
            tracing::error!(ladder = self.ladder.name(), %error, "cannot report held dead letters to other workers");
        }
    }
}

//! What was redelivered to the application and has not come back, read from the topics that it was redelivered to.
//!
//! Every router of a ladder reads all of it, since an application may put a record into any partition of the inbox.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::config::KafkaConfig;
use crate::core::envelope::{Coordinates, Envelope};
use crate::core::fingerprint::{DEFAULT_LIMIT, Fingerprint, Judgement, Memory};
use crate::core::ladder::Ladder;
use crate::core::leader_clock::LocalTime;
use crate::core::state::{HOLD_KEY, HoldRecord};
use crate::core::time::Timestamp;
use crate::core::topics;
use crate::kafka::clock::Clock;
use crate::kafka::consumer::{Record, TopicPartition};
use crate::kafka::error::ClientError;
use crate::kafka::group_offsets::GroupOffsets;
use crate::kafka::state::write_state;
use crate::kafka::tail::{TailFrom, TopicTail};
use crate::worker::hold::Hold;
use crate::worker::router::RouterSettings;

/// How far back a router reads when it starts, beyond `settle`: the clocks of brokers and worker may differ by that.
const SLACK: Duration = Duration::from_secs(60);

/// How long an arrival without headers waits for what was redelivered before it. (A transaction of the mover that was killed is
/// aborted after 10 s, and hides what stands behind it until then.)
const CATCH_UP_WITHIN: Duration = Duration::from_secs(30);

/// How often it is looked what the application has done.
const SETTLE_INTERVAL: Duration = Duration::from_secs(5);
const SETTLE_WITHIN: Duration = Duration::from_secs(2);

/// The records that are out, and how they come back.
pub(super) struct Redelivered {
    ladder: Arc<Ladder>,
    kafka: KafkaConfig,
    instance: String,
    clock: Clock,
    tail: TopicTail,
    memory: Memory,
    group: GroupOffsets,
    inbox_partitions: i32,
    settle_at: LocalTime,
    judged_from: Timestamp,
    /// Told once, not once a look.
    told: Told,
}

#[derive(Default)]
struct Told {
    unreadable: bool,
    unsettled: bool,
    hold: bool,
}

impl Redelivered {
    pub(super) fn open(settings: &RouterSettings, inbox_partitions: i32) -> Result<Self, ClientError> {
        let ladder = settings.ladder.clone();
        let clock = Clock::system();
        let from = clock.now().timestamp() - (ladder.settle() + SLACK);
        let mut redelivered = Self {
            tail: TopicTail::open(&settings.kafka, &ladder.back_topics(), TailFrom::Time(from))?,
            memory: Memory::new(ladder.name(), DEFAULT_LIMIT),
            group: GroupOffsets::new(&settings.kafka, ladder.group())?,
            kafka: settings.kafka.clone(),
            instance: settings.instance.clone(),
            ladder,
            settle_at: clock.now(),
            judged_from: Timestamp::from_millis(0),
            clock,
            inbox_partitions,
            told: Told::default(),
        };
        redelivered.catch_up()?;
        Ok(redelivered)
    }

    /// Reads what has been redelivered meanwhile, as far as it is there.
    pub(super) fn keep_up(&mut self) {
        let (ladder, memory) = (&self.ladder, &mut self.memory);
        let outcome = self.tail.poll(Duration::ZERO, |tp, record| note(ladder, memory, tp, record));
        let was_told = std::mem::replace(&mut self.told.unreadable, outcome.is_err());
        if let Err(error) = outcome
            && !was_told
        {
            tracing::error!(ladder = self.ladder.name(), %error, "router cannot read what is redelivered: arrivals without headers wait");
        }
    }

    /// Reads everything that has been redelivered until now.
    pub(super) fn catch_up(&mut self) -> Result<(), ClientError> {
        let (ladder, memory) = (&self.ladder, &mut self.memory);
        self.tail.catch_up(CATCH_UP_WITHIN, |tp, record| note(ladder, memory, tp, record))
    }

    /// A record came back with its headers.
    pub(super) fn returned(&mut self, envelope: &Envelope) {
        self.memory.returned(envelope);
    }

    /// The envelope of the record that came back without its headers, if it is one that is out.
    pub(super) fn without_headers(
        &mut self,
        print: Fingerprint,
        consumed: Option<&Coordinates>,
        at: &Coordinates,
    ) -> Option<Envelope> {
        self.memory.without_headers(print, consumed, at.partition, at.offset)
    }

    /// Judges the application by what arrives from this moment on: it is said to be mended.
    pub(super) fn judge_anew(&mut self, from: Timestamp) {
        self.memory.judge_anew();
        self.judged_from = from;
        self.told.hold = false;
    }

    /// A record came back at `at` without its headers. Where most of them do, the ladder is held: to go on would only burn attempts.
    pub(super) fn hold_where_advised(&mut self, at: &Coordinates, hold: &Hold) {
        if at.timestamp < self.judged_from {
            // From before the application was mended.
            self.memory.judge_anew();
        }
        let advised = self.memory.judgement() == Judgement::HoldAdvised;
        if !advised || hold.is_held() || std::mem::replace(&mut self.told.hold, true) {
            return;
        }
        let ladder = self.ladder.name();
        tracing::error!(
            ladder,
            "most records that come back to the inbox have lost their kladder headers, by which attempts are counted: the ladder is \
             held; let the application copy all headers of what it consumes, then `kladder resume`"
        );
        let record = HoldRecord::of_router(ladder, &self.instance, self.clock.now().timestamp());
        if let Err(error) = write_state(&self.kafka, &self.ladder.state_topic(), HOLD_KEY, &record.to_value()) {
            self.told.hold = false;
            tracing::error!(ladder, %error, "ladder could not be held");
        }
    }

    /// How many records are presumed done: the application's group has committed past them, and they have not come back.
    pub(super) fn presume_done(&mut self, now: Timestamp, owned: &[TopicPartition]) -> u64 {
        if self.memory.is_empty() || self.clock.now() < self.settle_at {
            return 0;
        }
        self.settle_at = self.clock.now().later(SETTLE_INTERVAL);
        let committed = match self.group.committed(&self.tail.partitions(), SETTLE_WITHIN) {
            Ok(committed) => committed,
            Err(error) => {
                if !std::mem::replace(&mut self.told.unsettled, true) {
                    tracing::warn!(ladder = self.ladder.name(), %error, "what the application has done cannot be told: no success is presumed");
                }
                return 0;
            }
        };
        self.told.unsettled = false;
        let by_place: BTreeMap<(&str, i32), i64> =
            committed.iter().map(|(tp, offset)| ((&*tp.topic, tp.partition), *offset)).collect();
        // Several routers see the same redeliveries; each counts those that would come back to its own partitions.
        let inbox_partitions = self.inbox_partitions;
        let ours = |_: &str, partition: i32| {
            let inbox = topics::target_partition(partition, inbox_partitions);
            owned.iter().any(|tp| tp.partition == inbox)
        };
        let committed = |topic: &str, partition: i32| by_place.get(&(topic, partition)).copied();
        self.memory.presume_done(now, self.ladder.settle(), committed, ours)
    }
}

fn note(ladder: &Ladder, memory: &mut Memory, tp: &TopicPartition, record: &Record) {
    let at = record.coordinates(tp);
    let reading = Envelope::read(ladder, &at, record.headers());
    if reading.was_present {
        memory.note(Fingerprint::of(record.key(), record.value()), &reading.envelope, &at);
    }
}

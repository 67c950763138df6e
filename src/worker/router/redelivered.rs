//! What was redelivered to the application and has not come back, read from the topics that it was redelivered to.
//!
//! Every router of a ladder reads all of it, since an application may put a record into any partition of the inbox.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::config::KafkaConfig;
use crate::core::coordinates::Coordinates;
use crate::core::dead_letter::{Outcome, to_value};
use crate::core::envelope::Envelope;
use crate::core::fingerprint::{DEFAULT_LIMIT, Fingerprint, Judgement, Memory, Presumed};
use crate::core::ladder::Ladder;
use crate::core::leader_clock::LocalTime;
use crate::core::state::{HOLD_KEY, HoldRecord};
use crate::core::time::Timestamp;
use crate::core::topics;
use crate::kafka::clock::Clock;
use crate::kafka::consumer::Record;
use crate::kafka::error::ClientError;
use crate::kafka::group_offsets::GroupOffsets;
use crate::kafka::partition::TopicPartition;
use crate::kafka::state::{write_state, write_states};
use crate::kafka::tail::{ASK_WITHIN, Ends, TailFrom, TopicTail};
use crate::worker::hold::Hold;
use crate::worker::router::RouterSettings;

/// How far back a router reads when it starts, beyond `settle`: the clocks of brokers and worker may differ by that.
const SLACK: Duration = Duration::from_secs(60);

/// How long it may take to learn where the topics end, while the group has to be served too.
const ENDS_WITHIN: Duration = Duration::from_secs(3);

/// How often it is looked what the application has done.
const SETTLE_INTERVAL: Duration = Duration::from_secs(5);
const SETTLE_WITHIN: Duration = Duration::from_secs(2);

/// How long after it could not be written that the ladder is held it is tried again.
const HOLD_AGAIN: Duration = Duration::from_secs(5);

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
    started_at: Timestamp,
    look_at: LocalTime,
    /// What the application had done when it was looked at.
    seen: Option<Seen>,
    /// Where the topics ended when they were last asked.
    goal: Option<Ends>,
    judged_from: Timestamp,
    /// The ladder is not held before then, since it could not be.
    hold_at: LocalTime,
    told: BTreeSet<Trouble>,
}

/// Where the partitions of the inbox end that are owned.
pub(super) type InboxEnds = Vec<(TopicPartition, i64)>;

struct Seen {
    committed: Vec<(TopicPartition, i64)>,
    inbox: InboxEnds,
}

/// What is told once, not once a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Trouble {
    Unreadable,
    Forgetful,
    Unsettled,
    Hold,
}

impl Redelivered {
    pub(super) fn open(settings: &RouterSettings, inbox_partitions: i32) -> Result<Self, ClientError> {
        let ladder = settings.ladder.clone();
        let clock = Clock::system();
        let group = GroupOffsets::new(&settings.kafka, ladder.group())?;
        let started_at = clock.now().timestamp();
        // What the application has not consumed yet may come back at any time.
        let out = match group.on_topics(&ladder.back_topics(), ASK_WITHIN) {
            Ok(committed) => committed,
            Err(error) if error.is_outage() => return Err(error),
            Err(error) => {
                tracing::warn!(
                    ladder = ladder.name(), %error,
                    "where the application stands cannot be told: of what was redelivered only the last minutes are known"
                );
                Vec::new()
            }
        };
        let from = TailFrom::Time(started_at - (ladder.settle() + SLACK), out);
        Ok(Self {
            tail: TopicTail::open(&settings.kafka, &ladder.back_topics(), from)?,
            memory: Memory::new(ladder.name(), DEFAULT_LIMIT),
            group,
            kafka: settings.kafka.clone(),
            instance: settings.instance.clone(),
            ladder,
            started_at,
            look_at: clock.now(),
            seen: None,
            goal: None,
            judged_from: Timestamp::from_millis(0),
            hold_at: clock.now(),
            clock,
            inbox_partitions,
            told: BTreeSet::new(),
        })
    }

    /// Reads what has been redelivered meanwhile, as far as it is there.
    pub(super) fn keep_up(&mut self) {
        let (ladder, memory) = (&self.ladder, &mut self.memory);
        let outcome = self.tail.poll(Duration::ZERO, |tp, record| note(ladder, memory, tp, record));
        if outcome.is_ok() {
            self.told.remove(&Trouble::Unreadable);
        }
        if let Err(error) = outcome
            && self.told.insert(Trouble::Unreadable)
        {
            tracing::error!(ladder = self.ladder.name(), %error, "router cannot read what is redelivered: arrivals without headers wait");
        }
        if self.memory.forgotten() > 0 && self.told.insert(Trouble::Forgetful) {
            tracing::warn!(
                ladder = self.ladder.name(),
                "more records are out than are remembered: those of an application that drops the headers may begin anew"
            );
        }
    }

    /// Asks where the topics end now: what came back until now was redelivered before. `false` where nobody answers.
    pub(super) fn mark(&mut self) -> bool {
        let topics = self.ladder.back_topics();
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        match self.tail.ends(&topics, ENDS_WITHIN) {
            Ok(ends) => self.goal = Some(ends),
            Err(error) => tracing::info!(ladder = self.ladder.name(), %error, "arrivals without headers wait"),
        }
        self.goal.is_some()
    }

    /// Whether everything before the last mark is known.
    pub(super) fn has_reached_mark(&self) -> bool {
        self.goal.as_ref().is_some_and(|goal| self.tail.has_reached(goal))
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
        self.told.remove(&Trouble::Hold);
    }

    /// A record came back at `at` without its headers. Where most of them do, the ladder is held: to go on would only burn attempts.
    pub(super) fn hold_where_advised(&mut self, at: &Coordinates, hold: &Hold) {
        if at.timestamp < self.judged_from {
            // From before the application was mended.
            self.memory.judge_anew();
        }
        let advised = self.memory.judgement() == Judgement::HoldAdvised;
        let waits = self.clock.now() < self.hold_at;
        if !advised || waits || hold.is_held() || !self.told.insert(Trouble::Hold) {
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
            self.told.remove(&Trouble::Hold);
            self.hold_at = self.clock.now().later(HOLD_AGAIN);
            tracing::error!(ladder, %error, retry_in = ?HOLD_AGAIN, "ladder could not be held");
        }
    }

    /// What is presumed done: the application's group has committed past them, and they have not come back.
    ///
    /// An application commits after the inbox has confirmed. So what it has committed is looked at first, then where the inbox ends,
    /// and only when all of that was read (`has_read`) those count that have not come back.
    pub(super) fn presume_done(
        &mut self,
        now: Timestamp,
        owned: &[TopicPartition],
        has_read: impl Fn(&InboxEnds) -> bool,
    ) -> Presumed {
        let Some(seen) = self.seen.take_if(|seen| has_read(&seen.inbox)) else {
            self.look(owned);
            return Presumed::default();
        };
        let by_place: BTreeMap<(&str, i32), i64> =
            seen.committed.iter().map(|(tp, offset)| ((&*tp.topic, tp.partition), *offset)).collect();
        // Several routers see the same redeliveries; each counts those of its own partitions. What came back before this one has
        // started, it does not know.
        let (inbox_partitions, started_at) = (self.inbox_partitions, self.started_at);
        let ours = |_: &str, partition: i32, redelivered_at: Timestamp| {
            let inbox = topics::target_partition(partition, inbox_partitions);
            redelivered_at >= started_at && owned.iter().any(|tp| tp.partition == inbox)
        };
        let committed = |topic: &str, partition: i32| by_place.get(&(topic, partition)).copied();
        self.memory.presume_done(now, self.ladder.settle(), committed, ours)
    }

    /// Tells whoever looks after dead letters that redriven records are done. The router does not wait for it: what is not told is
    /// looked for in vain, and nothing is lost.
    pub(super) fn tell_outcomes(&self, redriven: Vec<(String, u32)>) {
        let (kafka, topic, ladder) = (self.kafka.clone(), self.ladder.state_topic(), self.ladder.name().to_owned());
        let now = self.clock.now().timestamp();
        let entries: Vec<(String, String)> =
            redriven.iter().map(|(id, redrives)| (Outcome::key_of(id), to_value(&Outcome::new(*redrives, now)))).collect();
        let write = move || {
            if let Err(error) = write_states(&kafka, &topic, &entries) {
                tracing::warn!(ladder, %error, "that redriven records are done cannot be written");
            }
        };
        if let Err(error) = std::thread::Builder::new().name("outcomes".to_owned()).spawn(write) {
            tracing::warn!(ladder = self.ladder.name(), %error, "that redriven records are done cannot be written");
        }
    }

    fn look(&mut self, owned: &[TopicPartition]) {
        if self.seen.is_some() || self.memory.is_empty() || self.clock.now() < self.look_at {
            return;
        }
        self.look_at = self.clock.now().later(SETTLE_INTERVAL);
        let committed = self.group.committed(&self.tail.partitions(), SETTLE_WITHIN);
        match committed.and_then(|committed| Ok(Seen { committed, inbox: self.tail.ends_of(owned, SETTLE_WITHIN)? })) {
            Ok(seen) => {
                self.seen = Some(seen);
                self.told.remove(&Trouble::Unsettled);
            }
            Err(error) => {
                if self.told.insert(Trouble::Unsettled) {
                    tracing::warn!(ladder = self.ladder.name(), %error, "what the application has done cannot be told: no success is presumed");
                }
            }
        }
    }
}

fn note(ladder: &Ladder, memory: &mut Memory, tp: &TopicPartition, record: &Record) {
    let at = record.coordinates(tp);
    let reading = Envelope::read(ladder, &at, record.headers());
    if reading.was_present {
        memory.note(Fingerprint::of(record.key(), record.value()), &reading.envelope, &at);
    }
}

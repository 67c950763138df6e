//! Outstanding redelivered records, read from the topics that they were redelivered to.
//!
//! Every router of a ladder reads all of them, since an application may put a record into any partition of the
//! inbox.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::config::KafkaConfig;
use crate::core::coordinates::Coordinates;
use crate::core::dead_letter::{RedriveOutcome, to_value};
use crate::core::envelope::Envelope;
use crate::core::fingerprint::{DEFAULT_LIMIT, Fingerprint, HeaderJudgement, Memory, Presumed};
use crate::core::ladder::Ladder;
use crate::core::leader_clock::LocalTime;
use crate::core::state::{HOLD_KEY, HoldRecord};
use crate::core::time::Timestamp;
use crate::core::topics;
use crate::kafka::clock::Clock;
use crate::kafka::consumer::ConsumerRecord;
use crate::kafka::error::ClientError;
use crate::kafka::group_offsets::GroupOffsets;
use crate::kafka::partition::TopicPartition;
use crate::kafka::state::{write_state, write_states};
use crate::kafka::tail::{ASK_WITHIN, TailFrom, TopicTail};
use crate::worker::hold::Hold;
use crate::worker::router::RouterSettings;

/// How far back a router reads when it starts, in addition to `settle`: the clocks of brokers and worker may differ
/// by that.
const SLACK: Duration = Duration::from_secs(60);

/// Time limit of asking for the topics' ends, since the group must be served too.
const ENDS_WITHIN: Duration = Duration::from_secs(3);

/// Interval of checking the application's progress.
const SETTLE_INTERVAL: Duration = Duration::from_secs(5);
const SETTLE_WITHIN: Duration = Duration::from_secs(2);

/// Pause before holding the ladder is retried after a failed write.
const HOLD_AGAIN: Duration = Duration::from_secs(5);

/// The outstanding records and their returns.
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
    /// At the last check.
    progress: Option<ApplicationProgress>,
    /// The ends of the topics at the last request.
    goal: Option<BTreeMap<TopicPartition, i64>>,
    /// The partitions whose ends could not be determined, logged once.
    unmarked: BTreeSet<TopicPartition>,
    judged_from: Timestamp,
    /// When holding the ladder may be retried after a failure.
    hold_at: LocalTime,
    told: BTreeSet<LoggedOnce>,
}

/// The ends of the assigned partitions of the inbox.
pub(super) type InboxEnds = Vec<(TopicPartition, i64)>;

/// How far the application has come.
struct ApplicationProgress {
    committed: Vec<(TopicPartition, i64)>,
    inbox: InboxEnds,
}

/// Whether the redeliveries before an arrival were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum EarlierRedeliveries {
    AllRead,
    BeingRead,
    /// They cannot be read now.
    Unreadable,
}

/// What is logged once, not at each check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum LoggedOnce {
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
        // Records that the application has not consumed yet may come back at any time.
        let out = match group.on_topics(&ladder.back_topics(), ASK_WITHIN) {
            Ok(committed) => committed,
            Err(error) if error.is_outage() => return Err(error),
            Err(error) => {
                tracing::warn!(
                    ladder = ladder.name(), %error,
                    "cannot read the application's committed offsets: only redeliveries of the last minutes are known"
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
            progress: None,
            goal: None,
            unmarked: BTreeSet::new(),
            judged_from: Timestamp::from_millis(0),
            hold_at: clock.now(),
            clock,
            inbox_partitions,
            told: BTreeSet::new(),
        })
    }

    /// Reads the available redeliveries.
    pub(super) fn keep_up(&mut self) {
        let (ladder, memory) = (&self.ladder, &mut self.memory);
        let outcome = self.tail.poll(Duration::ZERO, |tp, record| note(ladder, memory, tp, record));
        if outcome.is_ok() {
            self.told.remove(&LoggedOnce::Unreadable);
        }
        if let Err(error) = outcome
            && self.told.insert(LoggedOnce::Unreadable)
        {
            tracing::error!(ladder = self.ladder.name(), %error, "router cannot read redeliveries: arrivals without headers wait");
        }
        if self.memory.forgotten() > 0 && self.told.insert(LoggedOnce::Forgetful) {
            tracing::warn!(
                ladder = self.ladder.name(),
                "more redelivered records are outstanding than are remembered: if the application drops headers, some may start again at attempt 1"
            );
        }
    }

    /// Asks for the current ends of the topics: anything that came back until now was redelivered before. `false` if
    /// nobody answers.
    pub(super) fn mark(&mut self) -> bool {
        match self.tail.ends_by_partition(ENDS_WITHIN) {
            Ok(ends) => {
                self.tell_unmarked(&ends);
                self.goal = Some(ends);
                true
            }
            Err(error) => {
                tracing::info!(ladder = self.ladder.name(), %error, "arrivals without headers wait");
                self.goal.is_some()
            }
        }
    }

    fn tell_unmarked(&mut self, ends: &BTreeMap<TopicPartition, i64>) {
        let ladder = self.ladder.name();
        for tp in self.tail.partitions() {
            if ends.contains_key(&tp) {
                if self.unmarked.remove(&tp) {
                    tracing::info!(ladder, partition = %tp, "reading redeliveries again");
                }
            } else if self.unmarked.insert(tp.clone()) {
                tracing::warn!(
                    ladder, partition = %tp,
                    "router cannot read redeliveries in this partition, whose leader does not answer: arrivals without headers \
                     that may have come back from there wait, and their partitions of the inbox stop; the others continue"
                );
            }
        }
    }

    /// Whether all redeliveries before an arrival are known, up to the last mark. An arrival that names its position comes from there
    /// only.
    pub(super) fn knows_before(&self, consumed: Option<&Coordinates>) -> EarlierRedeliveries {
        let Some(goal) = &self.goal else { return EarlierRedeliveries::BeingRead };
        let of = |tp: &TopicPartition| match goal.get(tp) {
            None => EarlierRedeliveries::Unreadable,
            // Before checking the permission: the client reports a restored one only with new records.
            Some(end) if self.tail.position(tp).is_some_and(|position| position >= *end) => EarlierRedeliveries::AllRead,
            Some(_) if self.tail.is_denied(tp) => EarlierRedeliveries::Unreadable,
            Some(_) => EarlierRedeliveries::BeingRead,
        };
        let all = self.tail.partitions();
        match consumed {
            // Nothing was redelivered to a topic that is not read here.
            Some(at) => all
                .iter()
                .find(|tp| *tp.topic == *at.topic && tp.partition == at.partition)
                .map_or(EarlierRedeliveries::AllRead, of),
            None => all.iter().map(of).max().unwrap_or(EarlierRedeliveries::AllRead),
        }
    }

    /// A record came back with its headers.
    pub(super) fn returned(&mut self, envelope: &Envelope) {
        self.memory.returned(envelope);
    }

    /// The envelope of a record that came back without its headers, if it is outstanding.
    pub(super) fn without_headers(
        &mut self,
        print: Fingerprint,
        consumed: Option<&Coordinates>,
        at: &Coordinates,
    ) -> Option<Envelope> {
        self.memory.without_headers(print, consumed, at.partition, at.offset)
    }

    /// Judges the application by arrivals from this moment on: it is supposed to be fixed.
    pub(super) fn restart_judgement(&mut self, from: Timestamp) {
        self.memory.restart_judgement();
        self.judged_from = from;
        self.told.remove(&LoggedOnce::Hold);
    }

    /// A record came back at `at` without its headers. If most of them do, the ladder is held: continuing would only use up
    /// attempts.
    pub(super) fn hold_where_advised(&mut self, at: &Coordinates, hold: &Hold) {
        if at.timestamp < self.judged_from {
            // From before the application was fixed.
            self.memory.restart_judgement();
        }
        let advised = self.memory.judgement() == HeaderJudgement::HoldAdvised;
        let waits = self.clock.now() < self.hold_at;
        if !advised || waits || hold.is_held() || !self.told.insert(LoggedOnce::Hold) {
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
            self.told.remove(&LoggedOnce::Hold);
            self.hold_at = self.clock.now().later(HOLD_AGAIN);
            tracing::error!(ladder, %error, retry_in = ?HOLD_AGAIN, "ladder could not be held");
        }
    }

    /// Removes records presumed done: the application's group has committed past them, and they have not
    /// come back.
    ///
    /// An application commits after the inbox has confirmed. So its committed offsets are read first, then the end of the inbox, and
    /// records that have not come back count only when everything up to there was read (`has_read`).
    pub(super) fn presume_done(
        &mut self,
        now: Timestamp,
        owned: &[TopicPartition],
        has_read: impl Fn(&InboxEnds) -> bool,
    ) -> Presumed {
        let Some(progress) = self.progress.take_if(|progress| has_read(&progress.inbox)) else {
            self.look(owned);
            return Presumed::default();
        };
        let by_place: BTreeMap<(&str, i32), i64> =
            progress.committed.iter().map(|(tp, offset)| ((&*tp.topic, tp.partition), *offset)).collect();
        // Several routers see the same redeliveries; each counts those of its own partitions. It does not know what came back
        // before it started.
        let (inbox_partitions, started_at) = (self.inbox_partitions, self.started_at);
        let ours = |_: &str, partition: i32, redelivered_at: Timestamp| {
            let inbox = topics::target_partition(partition, inbox_partitions);
            redelivered_at >= started_at && owned.iter().any(|tp| tp.partition == inbox)
        };
        let committed = |topic: &str, partition: i32| by_place.get(&(topic, partition)).copied();
        self.memory.presume_done(now, self.ladder.settle(), committed, ours)
    }

    /// Reports that redriven records are done. The router does not wait for it: a lost report only means that an outcome stays
    /// unknown.
    pub(super) fn tell_outcomes(&self, redriven: Vec<(String, u32)>) {
        let (kafka, topic, ladder) = (self.kafka.clone(), self.ladder.state_topic(), self.ladder.name().to_owned());
        let now = self.clock.now().timestamp();
        let entries: Vec<(String, String)> = redriven
            .iter()
            .map(|(id, redrives)| (RedriveOutcome::key_of(id), to_value(&RedriveOutcome::new(*redrives, now))))
            .collect();
        let write = move || {
            if let Err(error) = write_states(&kafka, &topic, &entries) {
                tracing::warn!(ladder, %error, "cannot report that redriven records are done");
            }
        };
        if let Err(error) = std::thread::Builder::new().name("outcomes".to_owned()).spawn(write) {
            tracing::warn!(ladder = self.ladder.name(), %error, "cannot report that redriven records are done");
        }
    }

    fn look(&mut self, owned: &[TopicPartition]) {
        if self.progress.is_some() || self.memory.is_empty() || self.clock.now() < self.look_at {
            return;
        }
        self.look_at = self.clock.now().later(SETTLE_INTERVAL);
        let committed = self.group.committed(&self.tail.partitions(), SETTLE_WITHIN);
        match committed
            .and_then(|committed| Ok(ApplicationProgress { committed, inbox: self.tail.ends_of(owned, SETTLE_WITHIN)? }))
        {
            Ok(progress) => {
                self.progress = Some(progress);
                self.told.remove(&LoggedOnce::Unsettled);
            }
            Err(error) => {
                if self.told.insert(LoggedOnce::Unsettled) {
                    tracing::warn!(ladder = self.ladder.name(), %error, "cannot read the application's committed offsets: no success is presumed");
                }
            }
        }
    }
}

fn note(ladder: &Ladder, memory: &mut Memory, tp: &TopicPartition, record: &ConsumerRecord) {
    let at = record.coordinates(tp);
    let reading = Envelope::read(ladder, &at, record.headers());
    if reading.was_present {
        memory.note(Fingerprint::of(record.key(), record.value()), &reading.envelope, &at);
    }
}

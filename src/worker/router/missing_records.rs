//! Dead letters of a share group that came without their records: KIP-1191 copies a record only if the group is configured to. A null
//! value and a missing one look the same, so the record is read where it was consumed.
//!
//! One client on a separate thread reads them, so that the router keeps serving its group, however many there are and whether they can be
//! read or not. Arrivals whose records cannot be read wait, and their partition of the inbox takes no new ones meanwhile; the others
//! continue.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TryRecvError, channel, sync_channel};
use std::time::Duration;

use crate::config::KafkaConfig;
use crate::core::backoff::Backoff;
use crate::core::dialect::PartialCoordinates;
use crate::core::ladder::Ladder;
use crate::core::leader_clock::LocalTime;
use crate::kafka::clock::Clock;
use crate::kafka::error::ClientError;
use crate::kafka::partition::TopicPartition;
use crate::kafka::pick::{Picked, Picker};
use crate::worker::error::WorkError;
use crate::worker::hop::content::{Content, RecordId};
use crate::worker::router::PendingArrival;

/// Maximum number of read records waiting to be taken, and of bytes taken at a time (the last record may exceed it).
const MOST_READY: usize = 64;
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// Pause before unreadable records are tried again, first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

const POLL: Duration = Duration::from_millis(50);

/// Interval of serving the client's own events while nothing is requested: tokens must be renewed.
const SERVE_INTERVAL: Duration = Duration::from_secs(1);

/// Where the record of an arrival is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Whereabouts {
    /// In the arrival.
    Here,
    /// Missing, and its position is unknown.
    Nowhere,
    /// Missing; it was consumed there.
    At(TopicPartition, i64),
}

impl Whereabouts {
    /// For an arrival without a value. Records are read from the ladder's sources only: a letter that names another topic must not make
    /// this worker read it.
    pub(super) fn locate(ladder: &Ladder, place: PartialCoordinates) -> Self {
        match (place.topic, place.partition, place.offset) {
            (Some(topic), Some(partition), Some(offset))
                if partition >= 0 && offset >= 0 && ladder.sources().contains(&topic) =>
            {
                Self::At(TopicPartition { topic: topic.into(), partition }, offset)
            }
            _ => Self::Nowhere,
        }
    }
}

/// The arrivals whose records are being read.
pub(super) struct MissingRecords {
    ladder: String,
    kafka: KafkaConfig,
    clock: Clock,
    reader: Option<Reader>,
    unread: BTreeMap<RecordId, Unread>,
    /// Partitions from which records could not be read.
    barred: BTreeMap<TopicPartition, Backoff>,
}

struct Unread {
    taken: PendingArrival,
    at: (TopicPartition, i64),
    /// Whether the reader has a request that is not answered.
    is_asked: bool,
}

/// The reading thread. It ends when this is dropped.
struct Reader {
    asks: Sender<Ask>,
    answers: Receiver<Answer>,
}

struct Ask {
    id: RecordId,
    at: (TopicPartition, i64),
}

struct Answer {
    id: RecordId,
    /// The record, if it exists.
    found: Result<Option<Content>, ClientError>,
}

impl MissingRecords {
    pub(super) fn new(ladder: &Ladder, kafka: &KafkaConfig, clock: &Clock) -> Self {
        let (kafka, clock) = (kafka.clone(), clock.clone());
        Self { ladder: ladder.name().to_owned(), kafka, clock, reader: None, unread: BTreeMap::new(), barred: BTreeMap::new() }
    }

    /// Starts reading the record of an arrival.
    pub(super) fn read(&mut self, taken: PendingArrival, at: (TopicPartition, i64)) {
        self.unread.insert(taken.id, Unread { taken, at, is_asked: false });
    }

    /// Whether no arrival waits for its record.
    pub(super) fn is_empty(&self) -> bool {
        self.unread.is_empty()
    }

    /// Whether any of them is being read now.
    pub(super) fn is_reading(&self) -> bool {
        self.unread.values().any(|unread| unread.is_asked)
    }

    /// Number of waiting arrivals of an assignment.
    pub(super) fn waiting_of(&self, token: u64) -> usize {
        self.of(token).count()
    }

    /// Whether any of them waits for an operator.
    pub(super) fn is_held_up(&self, token: u64) -> bool {
        !self.barred.is_empty() && self.of(token).any(|unread| self.barred.contains_key(&unread.at.0))
    }

    fn of(&self, token: u64) -> impl Iterator<Item = &Unread> {
        let id = |offset| RecordId { token, offset };
        self.unread.range(id(i64::MIN)..=id(i64::MAX)).map(|(_, unread)| unread)
    }

    /// Drops the arrivals of revoked assignments: their next owner reads their records.
    pub(super) fn forget(&mut self, stays: impl Fn(u64) -> bool) {
        self.unread.retain(|id, _| stays(id.token));
        self.drop_idle_bars();
    }

    /// Sends new requests and retries, and returns what has been read: the arrival, and its record if it exists.
    ///
    /// # Errors
    /// The thread cannot be created or has died.
    pub(super) fn take_read(&mut self) -> Result<Vec<(PendingArrival, Option<Content>)>, WorkError> {
        if self.unread.is_empty() {
            return Ok(Vec::new());
        }
        let reader = match self.reader.take() {
            Some(reader) => reader,
            None => Reader::start(&self.kafka)?,
        };
        let now = self.clock.now();
        for (id, unread) in self.unread.iter_mut().filter(|(_, unread)| !unread.is_asked) {
            if self.barred.get(&unread.at.0).is_none_or(|bar| bar.until() <= now) {
                unread.is_asked = true;
                // A dead thread is reported below.
                let _ = reader.asks.send(Ask { id: *id, at: unread.at.clone() });
            }
        }
        let (mut read, mut bytes) = (Vec::new(), 0);
        while bytes < MOST_BYTES {
            match reader.answers.try_recv() {
                Ok(Answer { id, found: Ok(content) }) => {
                    bytes += content.as_ref().map_or(0, Content::size);
                    let Some(unread) = self.unread.remove(&id) else { continue };
                    if self.barred.remove(&unread.at.0).is_some() {
                        tracing::info!(ladder = self.ladder, partition = %unread.at.0, "records of dead letters are read again");
                    }
                    read.push((unread.taken, content));
                }
                Ok(Answer { id, found: Err(error) }) => {
                    let Some(unread) = self.unread.get_mut(&id) else { continue };
                    unread.is_asked = false;
                    let tp = unread.at.0.clone();
                    self.bar(tp, &error, now);
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    return Err(ClientError::text("reading records of dead letters", "the reading thread has died").into());
                }
            }
        }
        self.reader = Some(reader);
        Ok(read)
    }

    fn bar(&mut self, tp: TopicPartition, error: &ClientError, now: LocalTime) {
        let bar = self.barred.entry(tp.clone()).or_insert_with(|| Backoff::new(FIRST_PAUSE, LONGEST_PAUSE));
        if bar.until() > now {
            // Requested together with the one that failed.
            return;
        }
        bar.failed(now);
        if !bar.is_to_be_told() {
            return;
        }
        let ladder = &self.ladder;
        if error.is_denied() {
            tracing::error!(
                ladder, partition = %tp, %error,
                "dead letters came without their records, which the router is not authorised to read: the inbox partitions of \
                 these letters stop, the others continue; grant Read on the topic (`kladder generate acls --role router` prints \
                 the rules), and they will continue"
            );
        } else {
            tracing::warn!(
                ladder, partition = %tp, %error,
                "dead letters came without their records, which cannot be read now: the inbox partitions of these letters stop \
                 until they can, the others continue; make sure that the partition has a leader"
            );
        }
    }

    /// Nobody waits for them any more, so nobody would notice that they can be read again.
    fn drop_idle_bars(&mut self) {
        let wanted: BTreeSet<&TopicPartition> = self.unread.values().map(|unread| &unread.at.0).collect();
        self.barred.retain(|tp, _| wanted.contains(tp));
    }
}

impl Reader {
    fn start(kafka: &KafkaConfig) -> Result<Self, ClientError> {
        let (asks, asked) = channel();
        let (answer, answers) = sync_channel(MOST_READY);
        let mut picker = Picker::new(kafka)?;
        let work = move || serve(&mut picker, &asked, &answer);
        let thread = std::thread::Builder::new().name("missing-records".to_owned()).spawn(work);
        thread.map_err(|error| ClientError::text("starting a thread", error.to_string()))?;
        Ok(Self { asks, answers })
    }
}

/// Reads until the channels are closed.
fn serve(picker: &mut Picker, asked: &Receiver<Ask>, answers: &SyncSender<Answer>) {
    // Several letters may name one record.
    let mut waiting: BTreeMap<(TopicPartition, i64), Vec<RecordId>> = BTreeMap::new();
    let mut doubled = Vec::new();
    loop {
        let mut next = if waiting.is_empty() { asked.recv_timeout(SERVE_INTERVAL) } else { asked.try_recv().map_err(of_try) };
        while let Ok(Ask { id, at }) = next {
            picker.want(&at.0, at.1);
            waiting.entry(at).or_default().push(id);
            next = asked.try_recv().map_err(of_try);
        }
        if next.is_err_and(|error| error == RecvTimeoutError::Disconnected) {
            return;
        }
        let mut has_listener = true;
        picker.poll(if waiting.is_empty() { Duration::ZERO } else { POLL }, |tp, offset, picked| {
            let at = (tp.clone(), offset);
            let mut ids = waiting.remove(&at).unwrap_or_default();
            let found = match picked {
                Picked::Found(record) => {
                    // It is returned once, and read again for the others.
                    let rest = ids.split_off(ids.len().min(1));
                    if !rest.is_empty() {
                        doubled.push((at, rest));
                    }
                    Ok(Some(Content::of(&record)))
                }
                Picked::Gone => Ok(None),
                Picked::Unread(error) => Err(error),
            };
            match found {
                Ok(Some(content)) => {
                    if let Some(id) = ids.pop() {
                        has_listener &= answers.send(Answer { id, found: Ok(Some(content)) }).is_ok();
                    }
                }
                Ok(None) => ids.into_iter().for_each(|id| has_listener &= answers.send(Answer { id, found: Ok(None) }).is_ok()),
                Err(error) => ids.into_iter().for_each(|id| {
                    has_listener &= answers.send(Answer { id, found: Err(error.clone()) }).is_ok();
                }),
            }
        });
        for (at, ids) in doubled.drain(..) {
            picker.want(&at.0, at.1);
            waiting.entry(at).or_default().extend(ids);
        }
        if !has_listener {
            return;
        }
    }
}

fn of_try(error: TryRecvError) -> RecvTimeoutError {
    match error {
        TryRecvError::Empty => RecvTimeoutError::Timeout,
        TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_zero_or_no_source_is_nowhere() {
        let ladder = Ladder::builder("billing", "billing").source("orders").tiers(["1s"]).build();
        let ladder = ladder.expect("a ladder");
        let told = |topic: &str, partition, offset| {
            Whereabouts::locate(&ladder, PartialCoordinates { topic: Some(topic.to_owned()), partition, offset, timestamp: None })
        };
        assert_eq!(told("orders", Some(1), Some(0)), Whereabouts::At(TopicPartition { topic: "orders".into(), partition: 1 }, 0));
        for (topic, partition, offset) in [
            ("orders", Some(0), Some(-5)),
            ("orders", Some(0), Some(-1)),
            ("orders", Some(-1), Some(5)),
            ("orders", None, Some(5)),
            ("orders", Some(0), None),
            ("payments", Some(0), Some(5)),
            ("", Some(0), Some(5)),
        ] {
            assert_eq!(told(topic, partition, offset), Whereabouts::Nowhere, "{topic} {partition:?} {offset:?}");
        }
    }
}

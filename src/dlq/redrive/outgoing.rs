//! Where letters are sent, and with which headers.
//!
//! On the ladder's redeliver topic a letter starts again at attempt 1. On a topic that others read, the record is sent without headers
//! that would control another framework; kladder's own stay, so that a letter that dies again is recognised by its id. (On a source,
//! workers of a ladder ignore all of them.)

use std::collections::BTreeMap;

use crate::core::coordinates::Coordinates;
use crate::core::dead_letter::{Fate, LetterKey, to_value};
use crate::core::dialect::{Dialect, is_foreign_control};
use crate::core::envelope::{Envelope, Trim, is_own};
use crate::core::ladder::Redelivery;
use crate::dlq::content::Body;
use crate::dlq::desk::{Desk, DeskError, Sending, StateEntry};
use crate::dlq::letter::foreign;
use crate::dlq::queue::Queue;
use crate::kafka::outgoing::TopicId;

/// The target of letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The ladder's redeliver topic, which only the group whose handler failed reads.
    Redeliver(String),
    /// Each letter's origin topic, which every group may read.
    Origin,
    /// A topic named in the configuration.
    Topic(String),
}

/// Keywords of the first two.
const REDELIVER: &str = "redeliver";
const ORIGIN: &str = "origin";

impl Target {
    /// Parses a target. Only topics named in the configuration are allowed.
    ///
    /// # Errors
    /// There is no such target.
    pub fn of(queue: &Queue, asked: Option<&str>) -> Result<Self, String> {
        let topics = || match queue.targets.len() {
            0 => "the configuration names no target topics".to_owned(),
            _ => format!("allowed targets: {}", queue.targets.join(", ")),
        };
        match (asked, &queue.ladder) {
            // With redelivery to the origins, nobody reads a redeliver topic.
            (None, Some(ladder)) if ladder.redelivery() == Redelivery::Origin => Ok(Self::Origin),
            (Some(REDELIVER), Some(ladder)) if ladder.redelivery() == Redelivery::Origin => {
                Err(format!("ladder {} redelivers to the origins: use --to origin", ladder.name()))
            }
            (None | Some(REDELIVER), Some(ladder)) => Ok(Self::Redeliver(ladder.redeliver_topic())),
            (None, None) => Err(format!("set a target with --to origin or --to TOPIC: {}", topics())),
            (Some(REDELIVER), None) => Err(format!("{} belongs to no ladder and has no redeliver topic", queue.topic)),
            (Some(ORIGIN), _) if queue.targets.is_empty() => Err(format!("sending to the origin is not allowed: {}", topics())),
            (Some(ORIGIN), _) => Ok(Self::Origin),
            (Some(topic), _) if queue.targets.iter().any(|target| target == topic) => Ok(Self::Topic(topic.to_owned())),
            (Some(topic), _) => Err(format!("{topic} is not an allowed target: {}", topics())),
        }
    }

    /// As stored in a job.
    #[must_use]
    pub fn to_stored(&self) -> String {
        match self {
            Self::Redeliver(_) => REDELIVER.to_owned(),
            Self::Origin => ORIGIN.to_owned(),
            Self::Topic(topic) => topic.clone(),
        }
    }

    /// Whether the success of letters sent there is reported: only a ladder's workers do that, for records that its application
    /// gets from the ladder.
    #[must_use]
    pub fn has_verdicts(&self, queue: &Queue) -> bool {
        let Some(ladder) = &queue.ladder else { return false };
        match self {
            Self::Redeliver(_) => true,
            Self::Origin => ladder.redelivery() == Redelivery::Origin,
            Self::Topic(_) => false,
        }
    }

    /// The topic for a letter of this origin.
    #[must_use]
    pub fn topic_for<'a>(&'a self, origin: Option<&'a str>) -> Option<&'a str> {
        match self {
            Self::Redeliver(topic) | Self::Topic(topic) => Some(topic),
            Self::Origin => origin,
        }
    }

    /// Prepares the record of a letter.
    pub(super) fn address(&self, queue: &Queue, places: &Places, letter: LetterKey, mut body: Body) -> Result<Addressed, String> {
        let at = Coordinates {
            topic: queue.topic.clone(),
            partition: letter.partition,
            offset: letter.offset,
            timestamp: letter.appended,
        };
        let mut headers = body.take_headers();
        let told = foreign(&|| headers.iter(), queue.dialect);
        // A share group may omit the original value; forwarding the null would be a deletion on a compacted topic.
        if body.value().is_none() && told.as_ref().is_some_and(|(dialect, _)| *dialect == Dialect::ShareGroup) {
            return Err("its share group did not copy the record into the dead letter".to_owned());
        }
        let name = queue.ladder.as_ref().map_or(queue.name.as_str(), |ladder| ladder.name());
        let envelope = if let Some(envelope) = Envelope::read_dead(&at, headers.iter()) {
            // The workers of this ladder ignore another ladder's headers.
            Envelope { ladder: name.to_owned(), ..envelope }
        } else {
            let place = told.map(|(_, told)| told.place).unwrap_or_default();
            let origin = Coordinates {
                topic: place.topic.unwrap_or_else(|| at.topic.clone()),
                partition: place.partition.unwrap_or(at.partition),
                offset: place.offset.unwrap_or(at.offset),
                timestamp: place.timestamp.unwrap_or(at.timestamp),
            };
            Envelope::fresh(name, &origin)
        };
        let topic = match self {
            Self::Redeliver(topic) | Self::Topic(topic) => topic.clone(),
            Self::Origin if envelope.origin.topic == at.topic => return Err("its origin is unknown".to_owned()),
            Self::Origin if !queue.targets.contains(&envelope.origin.topic) => {
                return Err(format!("its origin {} is not an allowed target", envelope.origin.topic));
            }
            Self::Origin => envelope.origin.topic.clone(),
        };
        let strips_foreign = !matches!(self, Self::Redeliver(_));
        let envelope = envelope.redriven();
        if strips_foreign {
            headers.remove_if(is_foreign_control);
        }
        headers.replace(is_own, &envelope.headers(Trim::Nothing));
        let (id, count) = places.0.get(&topic).copied().ok_or_else(|| format!("its target {topic} does not exist"))?;
        let partition = envelope.origin.partition.rem_euclid(count.max(1));
        let diff = body.take_diff();
        Ok(Addressed { sending: Sending { topic: id, partition, body, headers }, topic, id: envelope.id, diff })
    }
}

/// The target topics and their numbers of partitions.
#[derive(Default)]
pub(super) struct Places(BTreeMap<String, (TopicId, i32)>);

impl Places {
    /// Looks them up. A missing origin is reported per letter.
    ///
    /// # Errors
    /// The only target topic does not exist, or the brokers do not answer.
    pub fn look_up(target: &Target, desk: &mut Desk) -> Result<Self, DeskError> {
        let topics = match target {
            Target::Redeliver(topic) | Target::Topic(topic) => vec![topic.clone()],
            Target::Origin => desk.queue().targets.clone(),
        };
        let mut places = BTreeMap::new();
        for topic in topics {
            match desk.partition_count(&topic) {
                Ok(count) => places.insert(topic.clone(), (desk.topic(&topic), count)),
                Err(error) if *target != Target::Origin => return Err(error),
                Err(_) => None,
            };
        }
        Ok(Self(places))
    }
}

/// A prepared record, and its state fields.
pub(super) struct Addressed {
    sending: Sending,
    topic: String,
    id: String,
    diff: Option<String>,
}

/// The content of one transaction.
#[derive(Default)]
pub(super) struct Outgoings {
    /// The time in the state records, in epoch milliseconds.
    at: i64,
    /// Size of all keys and values.
    pub bytes: usize,
    pub letters: Vec<LetterKey>,
    pub sendings: Vec<Sending>,
    pub topics: Vec<String>,
    /// The state record of each letter.
    pub states: Vec<StateEntry>,
}

/// Maximum time between preparation and sending for the prepared time to be kept.
const SAME_MOMENT_MILLIS: i64 = 1_000;

impl Outgoings {
    /// Empty, with this time.
    pub fn at(at: i64) -> Self {
        Self { at, ..Self::default() }
    }

    /// Sets the time of sending, for letters that waited for a canary or a pause.
    pub fn sent_at(&mut self, now: i64) {
        if now - self.at <= SAME_MOMENT_MILLIS {
            return;
        }
        self.at = now;
        for (_, value) in &mut self.states {
            let fate = value.as_deref().and_then(|text| serde_json::from_str::<Fate>(text).ok());
            *value = fate.map(|fate| to_value(&Fate { at: now, ..fate })).or_else(|| value.take());
        }
    }

    /// Adds a letter. `fate` holds the fields that all letters share.
    pub fn push(&mut self, letter: LetterKey, addressed: Addressed, prefix: &str, fate: &mut Fate) {
        fate.target = Some(addressed.topic);
        fate.id = Some(addressed.id);
        fate.diff = addressed.diff;
        self.states.push((letter.to_key(prefix), Some(to_value(fate))));
        self.bytes += addressed.sending.body.bytes();
        self.letters.push(letter);
        self.sendings.push(addressed.sending);
        self.topics.extend(fate.target.take());
    }
}

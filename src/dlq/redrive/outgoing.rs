//! Where letters go, and with which headers.
//!
//! On the ladder's redeliver topic a letter begins its attempts anew. A topic that others read gets the record without the headers that
//! would drive another framework; kladder's own stay, so that a letter that is dead again is recognised by its id. (On a source,
//! workers of a ladder look at none of them.)

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
use crate::kafka::producer::TopicId;

/// Where letters are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The ladder's redeliver topic: only the group whose handler failed sees them.
    Redeliver(String),
    /// The topic that each came from: every group that reads it sees them.
    Origin,
    /// A topic that the configuration names.
    Topic(String),
}

/// The words for the first two.
const REDELIVER: &str = "redeliver";
const ORIGIN: &str = "origin";

impl Target {
    /// Reads what was asked for. Only what the configuration names is a target.
    ///
    /// # Errors
    /// When there is no such target.
    pub fn of(queue: &Queue, asked: Option<&str>) -> Result<Self, String> {
        let topics = || match queue.targets.len() {
            0 => "no topic is named as a target in the configuration".to_owned(),
            _ => format!("the configuration names {}", queue.targets.join(", ")),
        };
        match (asked, &queue.ladder) {
            // Nobody reads a redeliver topic where records come back in their origins.
            (None, Some(ladder)) if ladder.redelivery() == Redelivery::Origin => Ok(Self::Origin),
            (Some(REDELIVER), Some(ladder)) if ladder.redelivery() == Redelivery::Origin => {
                Err(format!("ladder {} redelivers to the origins: use --to origin", ladder.name()))
            }
            (None | Some(REDELIVER), Some(ladder)) => Ok(Self::Redeliver(ladder.redeliver_topic())),
            (None, None) => Err(format!("say where to with --to origin or --to TOPIC: {}", topics())),
            (Some(REDELIVER), None) => Err(format!("{} belongs to no ladder and has no redeliver topic", queue.topic)),
            (Some(ORIGIN), _) if queue.targets.is_empty() => Err(format!("no origin is allowed: {}", topics())),
            (Some(ORIGIN), _) => Ok(Self::Origin),
            (Some(topic), _) if queue.targets.iter().any(|target| target == topic) => Ok(Self::Topic(topic.to_owned())),
            (Some(topic), _) => Err(format!("{topic} is no target: {}", topics())),
        }
    }

    /// As a job has it.
    #[must_use]
    pub fn told(&self) -> String {
        match self {
            Self::Redeliver(_) => REDELIVER.to_owned(),
            Self::Origin => ORIGIN.to_owned(),
            Self::Topic(topic) => topic.clone(),
        }
    }

    /// Whether it will be told of those that are sent there that they have succeeded: only the workers of a ladder do, of what its
    /// application gets from the ladder.
    #[must_use]
    pub fn has_verdicts(&self, queue: &Queue) -> bool {
        let Some(ladder) = &queue.ladder else { return false };
        match self {
            Self::Redeliver(_) => true,
            Self::Origin => ladder.redelivery() == Redelivery::Origin,
            Self::Topic(_) => false,
        }
    }

    /// The topic that a letter of this origin goes to.
    #[must_use]
    pub fn topic_for<'a>(&'a self, origin: Option<&'a str>) -> Option<&'a str> {
        match self {
            Self::Redeliver(topic) | Self::Topic(topic) => Some(topic),
            Self::Origin => origin,
        }
    }

    /// Makes what is sent of a letter.
    pub(super) fn address(&self, queue: &Queue, places: &Places, letter: LetterKey, mut body: Body) -> Result<Addressed, String> {
        let at = Coordinates {
            topic: queue.topic.clone(),
            partition: letter.partition,
            offset: letter.offset,
            timestamp: letter.appended,
        };
        let mut headers = body.take_headers();
        let told = foreign(&|| headers.iter(), queue.dialect);
        // A share group may leave out what it was about; a null that is sent on would delete where the topic is compacted.
        if body.value().is_none() && told.as_ref().is_some_and(|(dialect, _)| *dialect == Dialect::ShareGroup) {
            return Err("its share group left the record out of its dead letter".to_owned());
        }
        let name = queue.ladder.as_ref().map_or(queue.name.as_str(), |ladder| ladder.name());
        let envelope = if let Some(envelope) = Envelope::read_dead(&at, headers.iter()) {
            // Another ladder's would not be read by the workers of this one.
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
            Self::Origin if envelope.origin.topic == at.topic => return Err("it does not tell where it came from".to_owned()),
            Self::Origin if !queue.targets.contains(&envelope.origin.topic) => {
                return Err(format!("its origin {} is no target in the configuration", envelope.origin.topic));
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

/// The topics that letters may go to, and how many partitions each has.
#[derive(Default)]
pub(super) struct Places(BTreeMap<String, (TopicId, i32)>);

impl Places {
    /// Looks them up. An origin that does not exist is told letter by letter.
    ///
    /// # Errors
    /// When the one topic that is the target does not exist, or the brokers do not answer.
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

/// What is sent of a letter, and what is noted of it.
pub(super) struct Addressed {
    sending: Sending,
    topic: String,
    id: String,
    diff: Option<String>,
}

/// What one transaction sends.
#[derive(Default)]
pub(super) struct Outgoings {
    /// What the states say of when, in epoch milliseconds.
    at: i64,
    /// Of all keys and values together.
    pub bytes: usize,
    pub letters: Vec<LetterKey>,
    pub sendings: Vec<Sending>,
    pub topics: Vec<String>,
    /// What is written of each in the state topic.
    pub states: Vec<StateEntry>,
}

/// Made ready so long before they are sent, letters say that they were sent then.
const SAME_MOMENT_MILLIS: i64 = 1_000;

impl Outgoings {
    /// Nothing yet, at this moment.
    pub fn at(at: i64) -> Self {
        Self { at, ..Self::default() }
    }

    /// They are sent now: what waited for a canary or a pause to end says so.
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

    /// Adds a letter. `fate` is what is written of each, but for what is this one's own.
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

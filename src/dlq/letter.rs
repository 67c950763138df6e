//! A dead letter as indexed: what its headers say, whichever framework wrote them.
//!
//! kladder's own envelope is read first. Without one, the headers of another framework are read, in the given dialect or the first
//! one that yields an origin. Malformed headers yield nothing: the letter is still listed, with its key, time and headers.

use crate::core::coordinates::Coordinates;
use crate::core::dead_letter::LetterKey;
use crate::core::dialect::{Dialect, is_foreign_control};
use crate::core::envelope::{self, Envelope, Reason, is_own};
use crate::core::time::Timestamp;
use crate::kafka::consumer::ConsumerRecord;
use crate::kafka::partition::TopicPartition;

/// Maximum size of a message in the index, in bytes; the record itself has all of it.
const MESSAGE_LIMIT: usize = 1024;

/// A dead letter without its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Its position.
    pub at: LetterKey,
    /// Its key; null and empty are different.
    pub key: Option<Vec<u8>>,
    /// Its reason, from kladder; other frameworks have none.
    pub reason: Option<&'static str>,
    /// Class of the last error.
    pub class: Option<String>,
    /// Message of the last error, cut to 1 KiB.
    pub message: Option<String>,
    /// HTTP status of the last error.
    pub status: Option<u16>,
    /// Attempts made.
    pub attempts: Option<u32>,
    /// Number of earlier redrives.
    pub redrives: u32,
    /// The tier of its last wait.
    pub tier: Option<u32>,
    /// Its origin, as far as known.
    pub origin: Origin,
    /// Its idempotency key, if it has been on a ladder.
    pub id: Option<String>,
    /// Time of its first failed attempt.
    pub first_failed: Option<Timestamp>,
    /// Headers other than kladder's and other frameworks'.
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// Size of its value in bytes; `None` for null.
    pub bytes: Option<usize>,
}

/// The origin of a record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The topic.
    pub topic: Option<String>,
    /// The partition.
    pub partition: Option<i32>,
    /// The offset.
    pub offset: Option<i64>,
}

impl Letter {
    /// Parses a record of a dead-letter topic.
    #[must_use]
    pub fn of(tp: &TopicPartition, record: &ConsumerRecord, dialect: Option<Dialect>) -> Self {
        let at = record.coordinates(tp);
        let headers = || record.headers();
        let mut letter = Self {
            at: LetterKey { partition: at.partition, offset: at.offset, appended: at.timestamp },
            key: record.key().map(<[u8]>::to_vec),
            reason: None,
            class: None,
            message: None,
            status: None,
            attempts: None,
            redrives: 0,
            tier: None,
            origin: Origin::default(),
            id: None,
            first_failed: None,
            headers: headers()
                .filter(|(name, _)| !is_own(name) && !is_foreign_control(name))
                .map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec)))
                .collect(),
            bytes: record.value().map(<[u8]>::len),
        };
        let envelope = Envelope::read_dead(&at, headers());
        // A kladder envelope without a reason belongs to a letter that was sent back to its origin and has
        // died elsewhere since.
        let died_here = envelope.as_ref().is_some_and(|envelope| envelope.reason.is_some());
        if !died_here {
            letter.take_foreign(&at, headers(), dialect);
        }
        if let Some(envelope) = envelope {
            letter.take(envelope, died_here);
        }
        letter
    }

    fn take(&mut self, envelope: Envelope, died_here: bool) {
        self.redrives = envelope.redrives;
        let Coordinates { topic, partition, offset, .. } = envelope.origin;
        self.origin = Origin { topic: Some(topic), partition: Some(partition), offset: Some(offset) };
        self.id = Some(envelope.id);
        if !died_here {
            return;
        }
        self.reason = envelope.reason.map(Reason::as_str);
        self.attempts = Some(envelope.attempts);
        self.tier = envelope.tier;
        self.first_failed = envelope.first_failed_at;
        if let Some(error) = envelope.error {
            self.class = Some(error.class).filter(|class| !class.is_empty());
            self.message = error.message.map(|text| envelope::cut(&text, MESSAGE_LIMIT).to_owned());
            self.status = error.status;
        }
        // Its cause of death is the refusal of its origin, not the earlier failure of the handler.
        if let Some(refusal) = envelope.refusal {
            self.message = Some(envelope::cut(&refusal, MESSAGE_LIMIT).to_owned());
        }
    }

    fn take_foreign<'a>(
        &mut self,
        at: &Coordinates,
        headers: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + Clone,
        dialect: Option<Dialect>,
    ) {
        let Some((_, told)) = foreign(&|| headers.clone(), dialect) else { return };
        self.attempts = told.attempts;
        self.class = told.class;
        self.message = told.message.map(|text| envelope::cut(&text, MESSAGE_LIMIT).to_owned());
        if let Some(id) = foreign_id(at, &told.place) {
            self.id = Some(id);
        }
        self.origin = Origin { topic: told.place.topic, partition: told.place.partition, offset: told.place.offset };
    }
}

/// The origin and error in a record's foreign headers: in the given dialect, or the first one that yields an origin.
pub fn foreign<'a, I: Iterator<Item = (&'a [u8], Option<&'a [u8]>)>>(
    headers: &impl Fn() -> I,
    dialect: Option<Dialect>,
) -> Option<(Dialect, crate::core::dialect::ForeignHeaders)> {
    if !headers().any(|(name, _)| is_foreign_control(name)) {
        return None;
    }
    let candidates = Dialect::NAMES.iter().map(|(_, candidate)| *candidate).filter(|c| dialect.is_none_or(|d| d == *c));
    candidates
        .map(|candidate| (candidate, candidate.read(headers())))
        .find(|(_, told)| told.place.topic.is_some() || told.class.is_some() || told.message.is_some())
}

/// The id of a foreign letter, by which it is recognised when it dies again: its origin, which its framework keeps.
fn foreign_id(at: &Coordinates, place: &crate::core::dialect::PartialCoordinates) -> Option<String> {
    let (topic, partition, offset) = (place.topic.as_deref()?, place.partition?, place.offset?);
    Some(format!("{}/{topic}/{partition}/{offset}", at.topic))
}

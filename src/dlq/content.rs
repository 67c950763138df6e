//! The content of a dead letter: its record as fetched, or a replacement.

use crate::core::dead_letter::LetterKey;
use crate::core::time::Timestamp;
use crate::kafka::NativeHeaders;
use crate::kafka::consumer::ConsumerRecord;
use crate::kafka::error::ClientError;
use crate::kafka::fetch::Fetcher;
use crate::kafka::headers::HeaderFault;
use crate::kafka::partition::TopicPartition;

/// A record without its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// When the broker appended it.
    pub appended: Timestamp,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// All its headers.
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// Why some of the record's headers are missing here.
    pub fault: Option<HeaderFault>,
    /// The diff, if it was changed.
    pub diff: Option<String>,
}

impl Content {
    /// A copy of a record.
    #[must_use]
    pub fn of(record: &ConsumerRecord) -> Self {
        Self {
            appended: record.timestamp(),
            key: record.key().map(<[u8]>::to_vec),
            value: record.value().map(<[u8]>::to_vec),
            headers: record.headers().map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec))).collect(),
            fault: record.header_fault(),
            diff: None,
        }
    }

    /// Reads the record of a letter; `None` if it no longer exists.
    ///
    /// # Errors
    /// The topic cannot be read.
    pub fn fetch(fetcher: &mut Fetcher, topic: &str, letter: LetterKey) -> Result<Option<Self>, ClientError> {
        let tp = TopicPartition { topic: topic.into(), partition: letter.partition };
        let mut found = None;
        fetcher.fetch(&tp, &[letter.offset], |record| found = Some(Self::of(&record)))?;
        Ok(found)
    }
}

/// What is sent. A fetched record is sent from the memory that it was fetched into: copying each one, header by header, took more
/// time than everything else about sending it.
pub enum Body {
    /// The record itself.
    Fetched(ConsumerRecord),
    /// Replacement content.
    Made(Content),
}

impl Body {
    /// The key; null and empty are different.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        match self {
            Self::Fetched(record) => record.key(),
            Self::Made(content) => content.key.as_deref(),
        }
    }

    /// The value; null and empty are different.
    #[must_use]
    pub fn value(&self) -> Option<&[u8]> {
        match self {
            Self::Fetched(record) => record.value(),
            Self::Made(content) => content.value.as_deref(),
        }
    }

    /// The headers from the dead-letter topic, or the new ones; leaves none behind.
    #[must_use]
    pub fn take_headers(&mut self) -> NativeHeaders {
        match self {
            Self::Fetched(record) => record.take_headers(),
            Self::Made(content) => {
                let mut headers = NativeHeaders::new();
                for (name, value) in content.headers.drain(..) {
                    headers.push(&name, value.as_deref());
                }
                headers
            }
        }
    }

    /// Takes the diff, if it was changed.
    #[must_use]
    pub fn take_diff(&mut self) -> Option<String> {
        match self {
            Self::Fetched(_) => None,
            Self::Made(content) => content.diff.take(),
        }
    }

    /// Size of key and value in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.key().map_or(0, <[u8]>::len) + self.value().map_or(0, <[u8]>::len)
    }
}

//! What a dead letter carries: its record as it was fetched, or as somebody has made it.

use crate::core::time::Timestamp;
use crate::kafka::NativeHeaders;
use crate::kafka::consumer::Record;

/// A record without its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// When the broker appended it.
    pub appended: Timestamp,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its headers, all of them.
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// What was changed, as a diff.
    pub diff: Option<String>,
}

impl Content {
    /// A copy of a record.
    #[must_use]
    pub fn of(record: &Record) -> Self {
        Self {
            appended: record.timestamp(),
            key: record.key().map(<[u8]>::to_vec),
            value: record.value().map(<[u8]>::to_vec),
            headers: record.headers().map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec))).collect(),
            diff: None,
        }
    }
}

/// What is to be sent. A record goes from the memory that it was fetched into: to copy each first, header by header, took more time
/// than all the rest of sending it.
pub enum Body {
    /// The record itself.
    Fetched(Record),
    /// Something else in its place.
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

    /// The headers that it had in the dead-letter topic, or was given; none are left here.
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

    /// What was changed, as a diff, which is not kept here.
    #[must_use]
    pub fn take_diff(&mut self) -> Option<String> {
        match self {
            Self::Fetched(_) => None,
            Self::Made(content) => content.diff.take(),
        }
    }

    /// How long key and value are together, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.key().map_or(0, <[u8]>::len) + self.value().map_or(0, <[u8]>::len)
    }
}

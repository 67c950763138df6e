//! A record that is worked on, and what of it goes along unchanged.

use crate::kafka::NativeHeaders;
use crate::worker::hop::ports::SourceRecord;

/// A record that is worked on: the assignment of its partition, and its offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::worker) struct RecordId {
    pub(in crate::worker) token: u64,
    pub(in crate::worker) offset: i64,
}

/// What of a record goes along unchanged.
pub(in crate::worker) struct Content {
    pub(in crate::worker) key: Option<bytes::Bytes>,
    pub(in crate::worker) value: Option<bytes::Bytes>,
    pub(in crate::worker) headers: NativeHeaders,
}

impl Content {
    /// Copies a record out of the memory that it was fetched into.
    pub(in crate::worker) fn of(record: &impl SourceRecord) -> Self {
        let copy = |bytes: Option<&[u8]>| bytes.map(bytes::Bytes::copy_from_slice);
        Self { key: copy(record.key()), value: copy(record.value()), headers: record.copy_headers() }
    }

    /// The bytes of key and value.
    pub(in crate::worker) fn size(&self) -> usize {
        self.key.as_ref().map_or(0, bytes::Bytes::len) + self.value.as_ref().map_or(0, bytes::Bytes::len)
    }
}

//! A record in progress, and its content that is passed on unchanged.

use crate::core::headers::is_own;
use crate::kafka::NativeHeaders;
use crate::kafka::headers::{HeaderFault, MOST_HEADERS};
use crate::kafka::partition::TopicPartition;
use crate::worker::hop::held::{HEADER_BYTES, Held, HeldBytes};
use crate::worker::hop::ports::SourceRecord;

/// Identifies a record in progress: the assignment of its partition, and its offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::worker) struct RecordId {
    pub(in crate::worker) token: u64,
    pub(in crate::worker) offset: i64,
}

/// The content of a record that is passed on unchanged.
pub(in crate::worker) struct Content {
    pub(in crate::worker) key: Option<bytes::Bytes>,
    pub(in crate::worker) value: Option<bytes::Bytes>,
    pub(in crate::worker) headers: NativeHeaders,
    /// Why some headers of the record are missing here.
    pub(in crate::worker) fault: Option<HeaderFault>,
    /// Counts as held until it is dropped.
    pub(in crate::worker) held: Held,
}

impl Content {
    /// Copies a record out of its fetch buffer.
    pub(in crate::worker) fn of(record: &impl SourceRecord) -> Self {
        let copy = |bytes: Option<&[u8]>| bytes.map(bytes::Bytes::copy_from_slice);
        let fault = record.header_fault();
        let mut headers = record.copy_headers();
        if fault.is_some() {
            keep_readable(&mut headers);
        }
        Self { key: copy(record.key()), value: copy(record.value()), headers, fault, held: Held::default() }
    }

    /// The same, counted in these bytes.
    pub(in crate::worker) fn held_by(mut self, bytes: &HeldBytes) -> Self {
        let length = |(name, value): (&[u8], Option<&[u8]>)| name.len() + value.map_or(0, <[u8]>::len) + HEADER_BYTES;
        self.held = bytes.hold(self.size() + self.headers.iter().map(length).sum::<usize>());
        self
    }

    /// Size of key and value in bytes.
    pub(in crate::worker) fn size(&self) -> usize {
        self.key.as_ref().map_or(0, bytes::Bytes::len) + self.value.as_ref().map_or(0, bytes::Bytes::len)
    }
}

/// Of too many headers, keeps as many as can be read again together with kladder's own.
pub(in crate::worker) fn keep_readable(headers: &mut NativeHeaders) {
    headers.keep_first(MOST_HEADERS, |name| !is_own(name));
}

/// Logs that a record cannot be moved with all its headers. That is rare, and the missing ones exist only in the original record.
pub(in crate::worker) fn tell_unfit(tp: &TopicPartition, offset: i64, fault: HeaderFault) {
    tracing::error!(
        partition = %tp, offset, %fault,
        "record goes to the DLQ with reason poison and without all its headers; read the original before retention deletes it"
    );
}

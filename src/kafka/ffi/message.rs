//! Consumed messages, and the other events of a partition's queue.

use std::marker::PhantomData;
use std::ptr::{self, NonNull};

use rdkafka::bindings as sys;
use rdkafka::types::RDKafkaErrorCode;

use super::{HeaderIter, KeepAlive, NativeHeaders, slice_or_none};

/// A consumed message, a partition EOF, or a partition error.
pub(crate) struct RawMessage {
    pub(super) message: NonNull<sys::rd_kafka_message_t>,
    pub(super) _client: KeepAlive,
}

// SAFETY: the message is owned; librdkafka lets any thread read and destroy it.
unsafe impl Send for RawMessage {}

/// An event of a partition's queue.
pub(crate) enum Polled {
    Message(RawMessage),
    /// The end was reached; the offset is the next one to be fetched.
    End(i64),
    Error(RDKafkaErrorCode),
}

impl Polled {
    pub(super) fn of(raw: RawMessage) -> Self {
        match raw.native().err {
            sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Self::Message(raw),
            sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__PARTITION_EOF => Self::End(raw.offset()),
            other => Self::Error(other.into()),
        }
    }
}

impl RawMessage {
    pub(super) fn native(&self) -> &sys::rd_kafka_message_t {
        // SAFETY: owned and alive.
        unsafe { self.message.as_ref() }
    }

    pub(crate) fn offset(&self) -> i64 {
        self.native().offset
    }

    pub(crate) fn key(&self) -> Option<&[u8]> {
        // SAFETY: null or valid for the length, as long as the message.
        unsafe { slice_or_none(self.native().key, self.native().key_len) }
    }

    pub(crate) fn value(&self) -> Option<&[u8]> {
        // SAFETY: null or valid for the length, as long as the message.
        unsafe { slice_or_none(self.native().payload, self.native().len) }
    }

    /// Epoch milliseconds; −1 if there is none.
    pub(crate) fn timestamp(&self) -> i64 {
        self.timestamp_and_kind().0
    }

    pub(crate) fn has_append_time(&self) -> bool {
        self.timestamp_and_kind().1 == sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME
    }

    fn timestamp_and_kind(&self) -> (i64, sys::rd_kafka_timestamp_type_t) {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: reads a live message.
        let timestamp = unsafe { sys::rd_kafka_message_timestamp(self.message.as_ptr(), &raw mut kind) };
        (timestamp, kind)
    }

    /// The broker that it was fetched from.
    pub(crate) fn broker(&self) -> i32 {
        // SAFETY: reads a live message.
        unsafe { sys::rd_kafka_message_broker_id(self.message.as_ptr()) }
    }

    pub(crate) fn headers(&self) -> HeaderIter<'_> {
        HeaderIter { list: self.header_list(), index: 0, life: PhantomData }
    }

    /// Whether the client can read them: it reads none if there are too many.
    pub(crate) fn are_headers_readable(&self) -> bool {
        use sys::rd_kafka_resp_err_t::{RD_KAFKA_RESP_ERR__NOENT, RD_KAFKA_RESP_ERR_NO_ERROR};
        let mut list = ptr::null_mut();
        // SAFETY: the message keeps the list; on an error (none, or unreadable) it stays null.
        let read = unsafe { sys::rd_kafka_message_headers(self.message.as_ptr(), &raw mut list) };
        matches!(read, RD_KAFKA_RESP_ERR_NO_ERROR | RD_KAFKA_RESP_ERR__NOENT)
    }

    pub(crate) fn header_count(&self) -> usize {
        let list = self.header_list();
        // SAFETY: a live list of the message.
        if list.is_null() { 0 } else { unsafe { sys::rd_kafka_header_cnt(list) } }
    }

    pub(crate) fn copy_headers(&self) -> NativeHeaders {
        let list = self.header_list();
        if list.is_null() {
            return NativeHeaders::new();
        }
        // SAFETY: copies a live list.
        let copy = unsafe { sys::rd_kafka_headers_copy(list) };
        NativeHeaders(NonNull::new(copy).expect("librdkafka allocates or aborts"))
    }

    /// Takes the headers out of the message without a copy; leaves none behind.
    pub(crate) fn take_headers(&mut self) -> NativeHeaders {
        let mut list = ptr::null_mut();
        // SAFETY: the message is owned, and gives the list away; on an error (none, or unreadable) it stays null.
        unsafe { sys::rd_kafka_message_detach_headers(self.message.as_ptr(), &raw mut list) };
        NonNull::new(list).map_or_else(NativeHeaders::new, NativeHeaders)
    }

    fn header_list(&self) -> *mut sys::rd_kafka_headers_t {
        let mut list = ptr::null_mut();
        // SAFETY: the message keeps the list; on an error (none, or unreadable) it stays null.
        unsafe { sys::rd_kafka_message_headers(self.message.as_ptr(), &raw mut list) };
        list
    }
}

impl Drop for RawMessage {
    fn drop(&mut self) {
        // SAFETY: owned; the client is still alive.
        unsafe { sys::rd_kafka_message_destroy(self.message.as_ptr()) };
    }
}

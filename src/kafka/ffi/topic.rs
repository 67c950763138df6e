//! Handles of topics.

use std::ffi::CString;
use std::ptr::{self, NonNull};

use rdkafka::bindings as sys;
use rdkafka::types::RDKafka;

use super::KeepAlive;

/// A topic to produce to.
pub(crate) struct RawTopic {
    pub(super) topic: NonNull<sys::rd_kafka_topic_t>,
    pub(super) name: String,
    _client: KeepAlive,
}

// SAFETY: topic handles are counted by librdkafka and usable from any thread.
unsafe impl Send for RawTopic {}

impl RawTopic {
    /// `client` must own `rk`.
    pub(crate) fn new(rk: *mut RDKafka, client: KeepAlive, name: &str) -> Option<Self> {
        let written = CString::new(name).ok()?;
        // SAFETY: the client lives; null configuration means its defaults.
        let topic = NonNull::new(unsafe { sys::rd_kafka_topic_new(rk, written.as_ptr(), ptr::null_mut()) })?;
        Some(Self { topic, name: name.to_owned(), _client: client })
    }
}

impl Drop for RawTopic {
    fn drop(&mut self) {
        // SAFETY: owned; the client is still alive.
        unsafe { sys::rd_kafka_topic_destroy(self.topic.as_ptr()) };
    }
}

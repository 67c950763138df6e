//! Partitions read without a group.

use std::ffi::{CStr, c_int};
use std::ptr::NonNull;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::types::{RDKafka, RDKafkaErrorCode};

use super::{KeepAlive, Polled, RawMessage, RawTopic};

/// Partitions read without a group, all through one queue.
///
/// This is the older of librdkafka's consumer APIs. The newer one accepts an assignment only with a group.id, for which it then
/// looks up a coordinator twice a second: that requires a permission that a reader does not need, and without it each lookup is
/// logged by the broker as denied.
pub(crate) struct RawReader {
    queue: NonNull<sys::rd_kafka_queue_t>,
    started: Vec<(RawTopic, i32)>,
    client: KeepAlive,
}

// SAFETY: queues are made to be polled from any thread, one at a time.
unsafe impl Send for RawReader {}

impl RawReader {
    /// `client` must own `rk`, a consumer without group.id.
    pub(crate) fn new(rk: *mut RDKafka, client: KeepAlive) -> Self {
        // SAFETY: the client lives; the call returns an owned queue.
        let queue = unsafe { sys::rd_kafka_queue_new(rk) };
        Self { queue: NonNull::new(queue).expect("librdkafka allocates or aborts"), started: Vec::new(), client }
    }

    /// Starts reading a partition at an offset. `rk` as for [`RawReader::new`].
    pub(crate) fn start(&mut self, rk: *mut RDKafka, topic: &str, partition: i32, offset: i64) -> Result<(), RDKafkaErrorCode> {
        let topic = RawTopic::new(rk, self.client.clone(), topic).ok_or(RDKafkaErrorCode::InvalidTopic)?;
        // SAFETY: topic and queue are alive, and stay so until `Drop` has stopped the partition.
        let outcome = unsafe { sys::rd_kafka_consume_start_queue(topic.topic.as_ptr(), partition, offset, self.queue.as_ptr()) };
        if outcome != 0 {
            // SAFETY: reads a number that the call has left for this thread.
            return Err(unsafe { sys::rd_kafka_last_error() }.into());
        }
        self.started.push((topic, partition));
        Ok(())
    }

    /// Stops reading a partition. Fetched records that were not passed on are discarded.
    pub(crate) fn stop(&mut self, topic: &str, partition: i32) {
        let Some(index) = self.started.iter().position(|(known, p)| *p == partition && known.name == topic) else { return };
        let (topic, partition) = self.started.swap_remove(index);
        // SAFETY: it was started, and its handle lives until the call has returned.
        unsafe { sys::rd_kafka_consume_stop(topic.topic.as_ptr(), partition) };
    }

    /// Waits for the next event of any partition and passes it on with its topic and partition. `false` after the
    /// timeout.
    pub(crate) fn poll(&self, timeout: Duration, handle: impl FnOnce(&str, i32, Polled)) -> bool {
        let millis = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
        // SAFETY: returns an owned message or null.
        let Some(message) = NonNull::new(unsafe { sys::rd_kafka_consume_queue(self.queue.as_ptr(), millis) }) else {
            return false;
        };
        let raw = RawMessage { message, _client: self.client.clone() };
        let (topic, partition) = (raw.native().rkt, raw.native().partition);
        // SAFETY: null, or a topic whose handle `started` holds, and its name with it; names end by a zero byte.
        let name =
            if topic.is_null() { "" } else { unsafe { CStr::from_ptr(sys::rd_kafka_topic_name(topic)) }.to_str().unwrap_or("") };
        handle(name, partition, Polled::of(raw));
        true
    }
}

impl Drop for RawReader {
    fn drop(&mut self) {
        // SAFETY: what was started is stopped before its topic's handle and the queue go; the queue is owned.
        unsafe {
            for (topic, partition) in &self.started {
                sys::rd_kafka_consume_stop(topic.topic.as_ptr(), *partition);
            }
            sys::rd_kafka_queue_destroy(self.queue.as_ptr());
        }
    }
}

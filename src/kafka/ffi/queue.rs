//! The queue of one partition of a group's member.

use std::ffi::{CString, c_void};
use std::ptr::{self, NonNull};

use rdkafka::bindings as sys;
use rdkafka::types::RDKafka;

use super::{KeepAlive, Polled, RawMessage};

type WakeFn = Box<dyn Fn() + Send + Sync>;

/// The queue of one partition, split from the consumer's.
pub(crate) struct RawPartitionQueue {
    queue: NonNull<sys::rd_kafka_queue_t>,
    /// Boxed twice: a thin pointer to it is held by librdkafka until `Drop` takes it back.
    wake: Option<Box<WakeFn>>,
    client: KeepAlive,
}

// SAFETY: queues are made to be polled from any thread, one at a time.
unsafe impl Send for RawPartitionQueue {}

impl RawPartitionQueue {
    /// Splits a partition's queue from the consumer's. Must be done before the assignment takes effect: then no event of
    /// the partition arrives on the consumer's queue.
    ///
    /// `client` must own `rk`.
    pub(crate) fn split(rk: *mut RDKafka, client: KeepAlive, topic: &str, partition: i32, wake: Option<WakeFn>) -> Option<Self> {
        let topic = CString::new(topic).ok()?;
        // SAFETY: the client lives (the caller holds it); the call returns an owned queue or null.
        let queue = NonNull::new(unsafe { sys::rd_kafka_queue_get_partition(rk, topic.as_ptr(), partition) })?;
        // SAFETY: no destination means: stop forwarding.
        unsafe { sys::rd_kafka_queue_forward(queue.as_ptr(), ptr::null_mut()) };
        let wake = wake.map(Box::new);
        if let Some(wake) = &wake {
            // SAFETY: the pointer stays valid until `Drop` has disabled the callback.
            unsafe {
                sys::rd_kafka_queue_cb_event_enable(
                    queue.as_ptr(),
                    Some(wake_callback),
                    ptr::from_ref::<WakeFn>(wake).cast_mut().cast(),
                );
            }
        }
        Some(Self { queue, wake, client })
    }

    /// The next event of the partition, if there is one now.
    pub(crate) fn poll(&self) -> Option<Polled> {
        // SAFETY: returns an owned message or null.
        let message = NonNull::new(unsafe { sys::rd_kafka_consume_queue(self.queue.as_ptr(), 0) })?;
        Some(Polled::of(RawMessage { message, _client: self.client.clone() }))
    }
}

impl Drop for RawPartitionQueue {
    fn drop(&mut self) {
        // SAFETY: disabled under the queue's lock before the closure is freed; the queue is owned.
        unsafe {
            if self.wake.is_some() {
                sys::rd_kafka_queue_cb_event_enable(self.queue.as_ptr(), None, ptr::null_mut());
            }
            sys::rd_kafka_queue_destroy(self.queue.as_ptr());
        }
    }
}

unsafe extern "C" fn wake_callback(_: *mut RDKafka, opaque: *mut c_void) {
    // SAFETY: set by `split` to a `WakeFn` that outlives the callback.
    let wake = unsafe { &*opaque.cast::<WakeFn>() };
    wake();
}

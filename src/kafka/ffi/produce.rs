//! Records to a producer, and its events: delivery reports, errors, logs, statistics.

use std::ffi::{CStr, c_int, c_void};
use std::ptr::{self, NonNull};
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::types::{RDKafka, RDKafkaErrorCode};

use super::{KeepAlive, NativeHeaders, RawTopic, bytes_or_null, owned_text};

/// Hands a record to the producer, which copies key and value and takes the headers. The delivery report has this
/// `tag`.
pub(crate) fn produce(
    rk: *mut RDKafka,
    topic: &RawTopic,
    partition: i32,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: NativeHeaders,
    tag: usize,
) -> Result<(), (RDKafkaErrorCode, NativeHeaders)> {
    let (key, key_len) = bytes_or_null(key);
    let (value, value_len) = bytes_or_null(value);
    // SAFETY: the arguments are pairs of a type tag and what it asks for, closed by END, as rdkafka.h says of
    // rd_kafka_producev; key and value are copied before it returns, and it owns the headers if and only if it succeeds.
    let err = unsafe {
        sys::rd_kafka_producev(
            rk,
            sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_RKT,
            topic.topic.as_ptr(),
            sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_PARTITION,
            partition,
            sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_MSGFLAGS,
            sys::RD_KAFKA_MSG_F_COPY as c_int,
            sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_VALUE,
            value.cast_mut(),
            value_len,
            sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_KEY,
            key.cast_mut(),
            key_len,
            sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_OPAQUE,
            ptr::without_provenance_mut::<c_void>(tag),
            sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_HEADERS,
            headers.0.as_ptr(),
            sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_END,
        )
    };
    if err == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        std::mem::forget(headers);
        Ok(())
    } else {
        Err((err.into(), headers))
    }
}

/// The delivery report of a record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DeliveryReport {
    pub(crate) tag: usize,
    pub(crate) error: Option<RDKafkaErrorCode>,
    /// Epoch milliseconds; only if the broker has set it (`LogAppendTime`).
    pub(crate) append_time: Option<i64>,
    pub(crate) broker: i32,
    /// Size of key and value.
    pub(crate) bytes: usize,
}

/// An event of a producer's queue.
pub(crate) enum Event<'a> {
    Report(DeliveryReport),
    /// Statistics of the client, as JSON.
    Statistics(&'a [u8]),
    Error {
        code: RDKafkaErrorCode,
        text: String,
        is_fatal: bool,
    },
    Log {
        level: RDKafkaLogLevel,
        facility: String,
        text: String,
    },
}

/// The producer's queue of delivery reports and errors.
pub(crate) struct RawEventQueue {
    queue: NonNull<sys::rd_kafka_queue_t>,
    _client: KeepAlive,
}

// SAFETY: queues are made to be polled from any thread.
unsafe impl Send for RawEventQueue {}

impl RawEventQueue {
    /// `client` must own `rk`.
    pub(crate) fn main(rk: *mut RDKafka, client: KeepAlive) -> Self {
        // SAFETY: returns an owned reference to the main queue.
        let queue = unsafe { sys::rd_kafka_queue_get_main(rk) };
        Self { queue: NonNull::new(queue).expect("every client has a main queue"), _client: client }
    }

    /// Waits for one event and passes it on. Returns after the first; `false` after the timeout.
    pub(crate) fn serve(&self, timeout: Duration, mut handle: impl FnMut(Event<'_>)) -> bool {
        let millis = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
        // SAFETY: the event is owned; its messages and texts live until it is destroyed at the end.
        unsafe {
            let event = sys::rd_kafka_queue_poll(self.queue.as_ptr(), millis);
            if event.is_null() {
                return false;
            }
            match sys::rd_kafka_event_type(event) {
                sys::RD_KAFKA_EVENT_DR => loop {
                    let message = sys::rd_kafka_event_message_next(event);
                    let Some(report) = message.as_ref() else { break };
                    handle(Event::Report(read_report(message, report)));
                },
                sys::RD_KAFKA_EVENT_STATS => {
                    let text = sys::rd_kafka_event_stats(event);
                    if !text.is_null() {
                        handle(Event::Statistics(CStr::from_ptr(text).to_bytes()));
                    }
                }
                sys::RD_KAFKA_EVENT_ERROR => handle(Event::Error {
                    code: sys::rd_kafka_event_error(event).into(),
                    text: owned_text(sys::rd_kafka_event_error_string(event)),
                    is_fatal: sys::rd_kafka_event_error_is_fatal(event) != 0,
                }),
                sys::RD_KAFKA_EVENT_LOG => {
                    let (mut facility, mut text, mut level) = (ptr::null(), ptr::null(), 0);
                    if sys::rd_kafka_event_log(event, &raw mut facility, &raw mut text, &raw mut level) == 0 {
                        let level = match level {
                            ..=2 => RDKafkaLogLevel::Critical,
                            3..=5 => RDKafkaLogLevel::Warning,
                            _ => RDKafkaLogLevel::Debug,
                        };
                        handle(Event::Log { level, facility: owned_text(facility), text: owned_text(text) });
                    }
                }
                _ => {}
            }
            sys::rd_kafka_event_destroy(event);
        }
        true
    }
}

/// # Safety
/// `message` is alive, and `fields` are its own.
unsafe fn read_report(message: *const sys::rd_kafka_message_t, fields: &sys::rd_kafka_message_t) -> DeliveryReport {
    let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
    // SAFETY: reads a live message.
    let (timestamp, broker) =
        unsafe { (sys::rd_kafka_message_timestamp(message, &raw mut kind), sys::rd_kafka_message_broker_id(message)) };
    let failed = fields.err != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
    let by_broker = kind == sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME;
    DeliveryReport {
        tag: fields._private.addr(),
        error: failed.then(|| fields.err.into()),
        append_time: by_broker.then_some(timestamp),
        broker,
        bytes: fields.len + fields.key_len,
    }
}

impl Drop for RawEventQueue {
    fn drop(&mut self) {
        // SAFETY: an owned reference.
        unsafe { sys::rd_kafka_queue_destroy(self.queue.as_ptr()) };
    }
}

//! Administrative requests whose answers keep the broker's message.
//!
//! The safe crate keeps only the error code of a topic's result. The setting, name or limit that a cluster refuses is in the message
//! ("Config min.insync.replicas cannot be set on this cluster"), so the code alone is not enough for an operator.

use std::collections::BTreeMap;
use std::ffi::{CString, c_char, c_int};
use std::ptr;
use std::slice;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::types::{RDKafka, RDKafkaErrorCode};

use super::owned_text;

/// A refusal, of a whole request or of one topic in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Denial {
    pub(crate) code: RDKafkaErrorCode,
    /// The broker's message; the client library's if the broker has none.
    pub(crate) words: String,
}

/// A topic to create.
pub(crate) struct TopicToMake<'a> {
    pub(crate) name: &'a str,
    pub(crate) partitions: i32,
    pub(crate) replication_factor: i32,
    pub(crate) settings: &'a BTreeMap<String, String>,
}

/// Whether a request is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Earnest {
    Do,
    /// Dry run: the broker only validates.
    OnlyValidate,
}

/// Refusals by topic.
type Denials = Vec<(String, Denial)>;

/// The settings of a topic by name, or why they may not be read.
pub(crate) type Described = Result<BTreeMap<String, String>, Denial>;

/// Creates topics, and returns those that were refused. `rk` must be alive, as for all functions
/// below.
///
/// # Errors
/// The request as a whole was refused, or not answered in time.
pub(crate) fn create_topics(
    rk: *mut RDKafka,
    topics: &[TopicToMake<'_>],
    earnest: Earnest,
    within: Duration,
) -> Result<Denials, Denial> {
    let mut new = Vec::with_capacity(topics.len());
    let mut denials = Denials::new();
    for topic in topics {
        match native_topic(topic) {
            Ok(native) => new.push(native),
            Err(denial) => denials.push((topic.name.to_owned(), denial)),
        }
    }
    if new.is_empty() {
        return Ok(denials);
    }
    // SAFETY: the topics are owned, copied by the call, and destroyed here; the event is read while it lives.
    let answer = unsafe {
        let answer = ask(rk, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_CREATETOPICS, earnest, within, |options, queue| {
            sys::rd_kafka_CreateTopics(rk, new.as_mut_ptr(), new.len(), options, queue);
        });
        sys::rd_kafka_NewTopic_destroy_array(new.as_mut_ptr(), new.len());
        answer.map(|event| {
            let mut count = 0;
            let result = sys::rd_kafka_event_CreateTopics_result(event.0);
            read_topics(sys::rd_kafka_CreateTopics_result_topics(result, &raw mut count), count)
        })
    }?;
    denials.extend(answer);
    Ok(denials)
}

/// Sets the total number of a topic's partitions; `Some` if that was refused.
///
/// # Errors
/// The request as a whole was refused, or not answered in time.
pub(crate) fn create_partitions(
    rk: *mut RDKafka,
    topic: &str,
    total: usize,
    earnest: Earnest,
    within: Duration,
) -> Result<Option<Denial>, Denial> {
    let name = c_text(topic)?;
    let mut reason = [0; REASON];
    // SAFETY: objects created here are destroyed here, and copied by the call; the event is read while it
    // lives.
    let mut answer = unsafe {
        let new = sys::rd_kafka_NewPartitions_new(name.as_ptr(), total, reason.as_mut_ptr(), reason.len());
        if new.is_null() {
            return Err(local(&reason));
        }
        let mut all = [new];
        let answer = ask(rk, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_CREATEPARTITIONS, earnest, within, |options, queue| {
            sys::rd_kafka_CreatePartitions(rk, all.as_mut_ptr(), all.len(), options, queue);
        });
        sys::rd_kafka_NewPartitions_destroy(new);
        answer.map(|event| {
            let mut count = 0;
            let result = sys::rd_kafka_event_CreatePartitions_result(event.0);
            read_topics(sys::rd_kafka_CreatePartitions_result_topics(result, &raw mut count), count)
        })
    }?;
    Ok(answer.pop().map(|(_, denial)| denial))
}

/// Whether the broker would set one setting of a topic, leaving its others unchanged: `Some` is why not. Nothing is
/// altered.
///
/// # Errors
/// The request as a whole was refused, or not answered in time.
pub(crate) fn validate_setting(
    rk: *mut RDKafka,
    topic: &str,
    name: &str,
    value: &str,
    within: Duration,
) -> Result<Option<Denial>, Denial> {
    let (topic, name, value) = (c_text(topic)?, c_text(name)?, c_text(value)?);
    // SAFETY: objects created here are destroyed here, and copied by the call; the event is read while it
    // lives.
    unsafe {
        let resource = sys::rd_kafka_ConfigResource_new(sys::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC, topic.as_ptr());
        let set = sys::rd_kafka_AlterConfigOpType_t::RD_KAFKA_ALTER_CONFIG_OP_TYPE_SET;
        let error = sys::rd_kafka_ConfigResource_add_incremental_config(resource, name.as_ptr(), set, value.as_ptr());
        if !error.is_null() {
            let denial =
                Denial { code: sys::rd_kafka_error_code(error).into(), words: owned_text(sys::rd_kafka_error_string(error)) };
            sys::rd_kafka_error_destroy(error);
            sys::rd_kafka_ConfigResource_destroy(resource);
            return Err(denial);
        }
        let mut all = [resource];
        let op = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_INCREMENTALALTERCONFIGS;
        let answer = ask(rk, op, Earnest::OnlyValidate, within, |options, queue| {
            sys::rd_kafka_IncrementalAlterConfigs(rk, all.as_mut_ptr(), all.len(), options, queue);
        });
        sys::rd_kafka_ConfigResource_destroy(resource);
        let event = answer?;
        let mut count = 0;
        let result = sys::rd_kafka_event_IncrementalAlterConfigs_result(event.0);
        let resources = sys::rd_kafka_IncrementalAlterConfigs_result_resources(result, &raw mut count);
        Ok(pointers(resources, count).iter().find_map(|resource| denial_of(*resource)))
    }
}

/// The settings of topics, including the broker's defaults.
///
/// # Errors
/// The request as a whole was refused, or not answered in time.
pub(crate) fn describe_topics(rk: *mut RDKafka, topics: &[&str], within: Duration) -> Result<Vec<(String, Described)>, Denial> {
    let names: Vec<CString> = topics.iter().map(|topic| c_text(topic)).collect::<Result<_, _>>()?;
    // SAFETY: objects created here are destroyed here, and copied by the call; all data read belongs to the event, which lives
    // meanwhile.
    unsafe {
        let resource = |name: &CString| {
            sys::rd_kafka_ConfigResource_new(sys::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC, name.as_ptr())
        };
        let mut all: Vec<_> = names.iter().map(resource).collect();
        let op = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS;
        let answer = ask(rk, op, Earnest::Do, within, |options, queue| {
            sys::rd_kafka_DescribeConfigs(rk, all.as_mut_ptr(), all.len(), options, queue);
        });
        sys::rd_kafka_ConfigResource_destroy_array(all.as_mut_ptr(), all.len());
        let event = answer?;
        let mut count = 0;
        let result = sys::rd_kafka_event_DescribeConfigs_result(event.0);
        let resources = sys::rd_kafka_DescribeConfigs_result_resources(result, &raw mut count);
        let read = pointers(resources, count).iter().map(|resource| {
            let name = owned_text(sys::rd_kafka_ConfigResource_name(*resource));
            (name, denial_of(*resource).map_or_else(|| Ok(entries(*resource)), Err))
        });
        Ok(read.collect())
    }
}

/// Buffer size for librdkafka's own error messages.
const REASON: usize = 512;

/// An answer, destroyed on drop.
struct Answer(*mut sys::rd_kafka_event_t);

impl Drop for Answer {
    fn drop(&mut self) {
        // SAFETY: owned.
        unsafe { sys::rd_kafka_event_destroy(self.0) };
    }
}

/// Sends a request and waits for its answer.
///
/// # Safety
/// `rk` is alive; `send` hands the request over to the queue and keeps neither of its arguments.
unsafe fn ask(
    rk: *mut RDKafka,
    op: sys::rd_kafka_admin_op_t,
    earnest: Earnest,
    within: Duration,
    send: impl FnOnce(*const sys::rd_kafka_AdminOptions_t, *mut sys::rd_kafka_queue_t),
) -> Result<Answer, Denial> {
    use sys::rd_kafka_admin_op_t as Op;
    let millis = c_int::try_from(within.as_millis()).unwrap_or(c_int::MAX);
    let mut reason = [0; REASON];
    // SAFETY: options and queue are owned and destroyed here; an answer that comes too late is thrown away by whoever brings it.
    unsafe {
        let options = sys::rd_kafka_AdminOptions_new(rk, op);
        sys::rd_kafka_AdminOptions_set_request_timeout(options, millis, reason.as_mut_ptr(), reason.len());
        if matches!(op, Op::RD_KAFKA_ADMIN_OP_CREATETOPICS | Op::RD_KAFKA_ADMIN_OP_CREATEPARTITIONS) {
            // Unset, the broker would answer before anything exists.
            sys::rd_kafka_AdminOptions_set_operation_timeout(options, millis, reason.as_mut_ptr(), reason.len());
        }
        let mut set = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
        if earnest == Earnest::OnlyValidate {
            set = sys::rd_kafka_AdminOptions_set_validate_only(options, 1, reason.as_mut_ptr(), reason.len());
        }
        if set != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            // Never carried out instead of validated.
            sys::rd_kafka_AdminOptions_destroy(options);
            return Err(local(&reason));
        }
        let queue = sys::rd_kafka_queue_new(rk);
        send(options, queue);
        // The request has its own timeout; this one is for a client that is no longer served.
        let event = sys::rd_kafka_queue_poll(queue, millis.saturating_add(1_000));
        sys::rd_kafka_queue_destroy(queue);
        sys::rd_kafka_AdminOptions_destroy(options);
        if event.is_null() {
            let code = RDKafkaErrorCode::OperationTimedOut;
            return Err(Denial { code, words: code.to_string() });
        }
        let event = Answer(event);
        let code = sys::rd_kafka_event_error(event.0);
        if code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            Ok(event)
        } else {
            Err(Denial { code: code.into(), words: owned_text(sys::rd_kafka_event_error_string(event.0)) })
        }
    }
}

fn native_topic(topic: &TopicToMake<'_>) -> Result<*mut sys::rd_kafka_NewTopic_t, Denial> {
    let name = c_text(topic.name)?;
    let mut settings = Vec::with_capacity(topic.settings.len());
    for (name, value) in topic.settings {
        settings.push((c_text(name)?, c_text(value)?));
    }
    let mut reason = [0; REASON];
    // SAFETY: all texts are copied; the topic is the caller's to destroy.
    unsafe {
        let native = sys::rd_kafka_NewTopic_new(
            name.as_ptr(),
            topic.partitions,
            topic.replication_factor,
            reason.as_mut_ptr(),
            reason.len(),
        );
        if native.is_null() {
            return Err(local(&reason));
        }
        for (name, value) in &settings {
            sys::rd_kafka_NewTopic_set_config(native, name.as_ptr(), value.as_ptr());
        }
        Ok(native)
    }
}

/// # Safety
/// `results` is null or an array of so many results of one living event.
unsafe fn read_topics(results: *mut *const sys::rd_kafka_topic_result_t, count: usize) -> Denials {
    // SAFETY: as above.
    unsafe {
        let of = |result: &*const sys::rd_kafka_topic_result_t| {
            let code = sys::rd_kafka_topic_result_error(*result);
            let failed = code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
            failed.then(|| {
                let words = owned_text(sys::rd_kafka_topic_result_error_string(*result));
                (owned_text(sys::rd_kafka_topic_result_name(*result)), Denial { code: code.into(), words })
            })
        };
        pointers(results, count).iter().filter_map(of).collect()
    }
}

/// # Safety
/// `resource` belongs to a living event.
unsafe fn denial_of(resource: *const sys::rd_kafka_ConfigResource_t) -> Option<Denial> {
    // SAFETY: as above.
    unsafe {
        let code = sys::rd_kafka_ConfigResource_error(resource);
        let failed = code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
        failed.then(|| {
            let words = owned_text(sys::rd_kafka_ConfigResource_error_string(resource));
            let code = RDKafkaErrorCode::from(code);
            Denial { code, words: if words.is_empty() { code.to_string() } else { words } }
        })
    }
}

/// # Safety
/// `resource` belongs to a living event.
unsafe fn entries(resource: *const sys::rd_kafka_ConfigResource_t) -> BTreeMap<String, String> {
    let mut count = 0;
    // SAFETY: as above; a value is null where it may not be seen.
    unsafe {
        let entries = sys::rd_kafka_ConfigResource_configs(resource, &raw mut count);
        let read = pointers(entries, count).iter().filter_map(|entry| {
            let value = sys::rd_kafka_ConfigEntry_value(*entry);
            (!value.is_null()).then(|| (owned_text(sys::rd_kafka_ConfigEntry_name(*entry)), owned_text(value)))
        });
        read.collect()
    }
}

/// # Safety
/// `array` is null or holds so many pointers, as long as the slice is in use.
unsafe fn pointers<'a, T>(array: *mut *const T, count: usize) -> &'a [*const T] {
    // SAFETY: as above.
    if array.is_null() { &[] } else { unsafe { slice::from_raw_parts(array.cast_const(), count) } }
}

fn c_text(text: &str) -> Result<CString, Denial> {
    CString::new(text)
        .map_err(|_| Denial { code: RDKafkaErrorCode::InvalidArgument, words: format!("{text:?} holds a zero byte") })
}

/// What librdkafka itself refuses.
fn local(reason: &[c_char; REASON]) -> Denial {
    // SAFETY: librdkafka ends what it writes by a zero byte, and the array began as zeros.
    let words = unsafe { owned_text(ptr::from_ref(reason).cast()) };
    Denial { code: RDKafkaErrorCode::InvalidArgument, words }
}

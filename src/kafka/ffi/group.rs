//! A member of a group: its commits with a timeout, its generation and id, and the other members.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CString, c_int};
use std::ptr::{self, NonNull};
use std::slice;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::{RDKafka, RDKafkaErrorCode};

use super::{KeepAlive, owned_text};
use crate::topology::GroupMember;

/// A commit of offsets that was sent, and its answer, which may take time.
pub(crate) struct CommitOnItsWay {
    queue: NonNull<sys::rd_kafka_queue_t>,
    _client: KeepAlive,
}

// SAFETY: queues are made to be polled from any thread, one at a time.
unsafe impl Send for CommitOnItsWay {}

impl CommitOnItsWay {
    /// Sends it. `client` must own `rk`.
    ///
    /// # Errors
    /// The client has no group.
    pub(crate) fn send(rk: *mut RDKafka, client: KeepAlive, offsets: &TopicPartitionList) -> Result<Self, RDKafkaErrorCode> {
        // SAFETY: the client lives (the caller holds it); the call returns an owned queue.
        let queue = NonNull::new(unsafe { sys::rd_kafka_queue_new(rk) }).expect("librdkafka allocates or aborts");
        let sent = Self { queue, _client: client };
        // SAFETY: the offsets are copied; the request keeps the queue for as long as it needs it.
        let code = unsafe { sys::rd_kafka_commit_queue(rk, offsets.ptr(), queue.as_ptr(), None, ptr::null_mut()) };
        if code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR { Ok(sent) } else { Err(code.into()) }
    }

    /// Its answer, if there is one within this time; once only.
    pub(crate) fn answer(&self, within: Duration) -> Option<Result<(), RDKafkaErrorCode>> {
        let millis = c_int::try_from(within.as_millis()).unwrap_or(c_int::MAX);
        // SAFETY: returns an owned event or null.
        let event = NonNull::new(unsafe { sys::rd_kafka_queue_poll(self.queue.as_ptr(), millis) })?;
        // SAFETY: reads a live event, which is owned and destroyed here.
        let code = unsafe {
            let code = sys::rd_kafka_event_error(event.as_ptr());
            sys::rd_kafka_event_destroy(event.as_ptr());
            code
        };
        Some(if code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR { Ok(()) } else { Err(code.into()) })
    }
}

impl Drop for CommitOnItsWay {
    fn drop(&mut self) {
        // SAFETY: owned; an answer that comes later is thrown away by whoever brings it.
        unsafe { sys::rd_kafka_queue_destroy(self.queue.as_ptr()) };
    }
}

/// The generation of the consumer's membership; negative if it is not a member now.
///
/// The broker does not fence an offset commit with a negative generation, so none must ever be sent with one.
pub(crate) fn generation(rk: *mut RDKafka) -> i32 {
    // SAFETY: the caller holds the client; the metadata is owned and destroyed here.
    unsafe {
        let metadata = sys::rd_kafka_consumer_group_metadata(rk);
        if metadata.is_null() {
            return -1;
        }
        let generation = sys::rd_kafka_consumer_group_metadata_generation_id(metadata);
        sys::rd_kafka_consumer_group_metadata_destroy(metadata);
        generation
    }
}

/// The consumer's own member id from its coordinator; `None` if it has none now.
pub(crate) fn member_id(rk: *mut RDKafka) -> Option<String> {
    // SAFETY: the caller holds the client; the text is owned and freed here by the library that made it.
    unsafe {
        let text = sys::rd_kafka_memberid(rk);
        let id = owned_text(text);
        if !text.is_null() {
            sys::rd_kafka_mem_free(rk, text.cast());
        }
        (!id.is_empty()).then_some(id)
    }
}

/// The members of a group, as described by its coordinator; none if the group does not exist.
///
/// # Errors
/// The coordinator's refusal, or no answer in time.
pub(crate) fn group_members(rk: *mut RDKafka, group: &str, timeout: Duration) -> Result<Vec<GroupMember>, RDKafkaErrorCode> {
    let group = CString::new(group).map_err(|_| RDKafkaErrorCode::InvalidGroupId)?;
    let millis = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
    let mut reason = [0; 256];
    // SAFETY: the caller holds the client; options, queue and event are owned and destroyed here, after all that was read of them.
    unsafe {
        let options = sys::rd_kafka_AdminOptions_new(rk, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS);
        sys::rd_kafka_AdminOptions_set_request_timeout(options, millis, reason.as_mut_ptr(), reason.len());
        let queue = sys::rd_kafka_queue_new(rk);
        let mut names = [group.as_ptr()];
        sys::rd_kafka_DescribeConsumerGroups(rk, names.as_mut_ptr(), names.len(), options, queue);
        // The request has its own timeout; this one is for a client that is no longer served.
        let event = sys::rd_kafka_queue_poll(queue, millis.saturating_add(1_000));
        let members = if event.is_null() { Err(RDKafkaErrorCode::OperationTimedOut) } else { read_members(event) };
        if !event.is_null() {
            sys::rd_kafka_event_destroy(event);
        }
        sys::rd_kafka_queue_destroy(queue);
        sys::rd_kafka_AdminOptions_destroy(options);
        members
    }
}

/// # Safety
/// `event` is alive, and the answer to one described group.
unsafe fn read_members(event: *mut sys::rd_kafka_event_t) -> Result<Vec<GroupMember>, RDKafkaErrorCode> {
    let none = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
    // SAFETY: all that is read belongs to the event, and only what is not null is followed.
    unsafe {
        let failed = sys::rd_kafka_event_error(event);
        if failed != none {
            return Err(failed.into());
        }
        let mut count = 0;
        let result = sys::rd_kafka_event_DescribeConsumerGroups_result(event);
        let groups = sys::rd_kafka_DescribeConsumerGroups_result_groups(result, &raw mut count);
        if groups.is_null() || count == 0 {
            return Ok(Vec::new());
        }
        let group = *groups;
        let refusal = sys::rd_kafka_ConsumerGroupDescription_error(group);
        if !refusal.is_null() {
            let code = sys::rd_kafka_error_code(refusal);
            if code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_GROUP_ID_NOT_FOUND {
                return Ok(Vec::new());
            }
            if code != none {
                return Err(code.into());
            }
        }
        let members = 0..sys::rd_kafka_ConsumerGroupDescription_member_count(group);
        let read = members.map(|index| {
            let member = sys::rd_kafka_ConsumerGroupDescription_member(group, index);
            let instance = owned_text(sys::rd_kafka_MemberDescription_group_instance_id(member));
            GroupMember {
                id: owned_text(sys::rd_kafka_MemberDescription_consumer_id(member)),
                instance: (!instance.is_empty()).then_some(instance),
                client_id: owned_text(sys::rd_kafka_MemberDescription_client_id(member)),
                host: owned_text(sys::rd_kafka_MemberDescription_host(member)),
                topics: assigned(member),
            }
        });
        Ok(read.collect())
    }
}

/// # Safety
/// `member` is alive.
unsafe fn assigned(member: *const sys::rd_kafka_MemberDescription_t) -> BTreeMap<String, BTreeSet<i32>> {
    let mut partitions: BTreeMap<String, BTreeSet<i32>> = BTreeMap::new();
    // SAFETY: all that is read belongs to the member, and only what is not null is followed.
    unsafe {
        let assignment = sys::rd_kafka_MemberDescription_assignment(member);
        if assignment.is_null() {
            return partitions;
        }
        let Some(list) = sys::rd_kafka_MemberAssignment_partitions(assignment).as_ref() else { return partitions };
        if list.elems.is_null() {
            return partitions;
        }
        for element in slice::from_raw_parts(list.elems, usize::try_from(list.cnt).unwrap_or(0)) {
            partitions.entry(owned_text(element.topic)).or_default().insert(element.partition);
        }
    }
    partitions
}

/// The end of a partition from the last fetch, without asking the broker; `None` before the first fetch.
pub(crate) fn known_end(rk: *mut RDKafka, topic: &str, partition: i32) -> Option<i64> {
    let topic = CString::new(topic).ok()?;
    let (mut low, mut high) = (0, 0);
    // SAFETY: the caller holds the client; both are filled on success.
    let err = unsafe { sys::rd_kafka_get_watermark_offsets(rk, topic.as_ptr(), partition, &raw mut low, &raw mut high) };
    (err == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0).then_some(high)
}

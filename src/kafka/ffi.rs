//! The only unsafe code: what rust-rdkafka 0.39 does not give.
//!
//! - Header names as bytes: its reader panics on a name that is not UTF-8, so one such record would crash every worker again and
//!   again; its writer takes UTF-8 names only.
//! - The offset of a partition-end event, which carries the transaction markers that an end offset counts.
//! - Reading partitions without a group.
//! - The generation of a group membership, without which offsets must never be sent; the member's own id, and who else is in its
//!   group: by either group protocol, and with the names of static members.
//! - The answer of a commit, waited for no longer than one wants to: its own call waits for ever.
//! - Delivery reports without its `poll`, which blocks for the whole timeout even when reports are there, and spins in the last
//!   millisecond of any timeout.
//! - A word to the allocator when what was fetched has been thrown away.
//!
//! Every pointer here has one owner that destroys it, and whatever comes from a client holds that client alive.

#![expect(unsafe_code, reason = "the one reviewed file of calls to librdkafka that the safe crate lacks")]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::{RDKafka, RDKafkaErrorCode};

use crate::topology::GroupMember;

/// What keeps a native client alive for as long as something that came from it is in use.
pub(crate) type KeepAlive = Arc<dyn Send + Sync>;

/// More names than kladder's own are a flood.
const MANY_NAMES: usize = 64;

/// Native headers: the exact bytes of a record's headers, names with zero bytes and all.
pub struct NativeHeaders(NonNull<sys::rd_kafka_headers_t>);

// SAFETY: the list is owned, and librdkafka ties it to no thread.
unsafe impl Send for NativeHeaders {}

impl NativeHeaders {
    /// No headers.
    #[must_use]
    pub fn new() -> Self {
        // SAFETY: allocates, room for headers only when the first one comes; librdkafka aborts rather than return null.
        let list = unsafe { sys::rd_kafka_headers_new(0) };
        Self(NonNull::new(list).expect("librdkafka allocates or aborts"))
    }

    /// Adds one at the end.
    pub fn push(&mut self, name: &[u8], value: Option<&[u8]>) {
        let (value, len) = bytes_or_null(value);
        // SAFETY: copies both; the lengths are those of the slices.
        unsafe {
            sys::rd_kafka_header_add(self.0.as_ptr(), name.as_ptr().cast(), name.len().cast_signed(), value, len.cast_signed());
        }
    }

    /// All of them, in order. A name that holds a zero byte is seen up to it (and yet copied whole).
    pub fn iter(&self) -> HeaderIter<'_> {
        HeaderIter { list: self.0.as_ptr(), index: 0, life: PhantomData }
    }

    /// Drops every header whose name fulfils the condition.
    pub fn remove_if(&mut self, condition: impl Fn(&[u8]) -> bool) {
        let names: Vec<CString> =
            self.iter().filter(|(name, _)| condition(name)).filter_map(|(name, _)| CString::new(name).ok()).collect();
        self.remove(names);
    }

    /// librdkafka looks through all headers for each name. Of many names all others are therefore copied instead, each name up to its first
    /// zero byte.
    fn remove(&mut self, mut names: Vec<CString>) {
        names.sort_unstable();
        names.dedup();
        if names.len() > MANY_NAMES {
            let mut left = Self::new();
            for (name, value) in &*self {
                if names.binary_search_by(|gone| gone.as_bytes().cmp(name)).is_err() {
                    left.push(name, value);
                }
            }
            *self = left;
            return;
        }
        for name in names {
            // SAFETY: compares the name and frees what matches.
            unsafe { sys::rd_kafka_header_remove(self.0.as_ptr(), name.as_ptr()) };
        }
    }

    /// Makes these the only headers whose names fulfil the condition, each once. What is there already as it is wanted stays where it
    /// is, which costs less than to make it anew; what is missing comes at the end.
    pub fn replace(&mut self, condition: impl Fn(&[u8]) -> bool, wanted: &[(&str, String)]) {
        let mut missing = vec![true; wanted.len()];
        let mut unwanted = Vec::new();
        for (name, value) in self.iter().filter(|(name, _)| condition(name)) {
            let place = wanted.iter().position(|(known, _)| known.as_bytes() == name);
            match place.filter(|at| missing[*at] && value == Some(wanted[*at].1.as_bytes())) {
                Some(at) => missing[at] = false,
                None => unwanted.extend(CString::new(name)),
            }
        }
        for (missing, (name, _)) in missing.iter_mut().zip(wanted) {
            // It goes by its name, however often it is there.
            *missing |= unwanted.iter().any(|unwanted| unwanted.as_bytes() == name.as_bytes());
        }
        self.remove(unwanted);
        for (_, (name, value)) in missing.iter().zip(wanted).filter(|(missing, _)| **missing) {
            self.push(name.as_bytes(), Some(value.as_bytes()));
        }
    }
}

impl<'a> IntoIterator for &'a NativeHeaders {
    type Item = (&'a [u8], Option<&'a [u8]>);
    type IntoIter = HeaderIter<'a>;

    fn into_iter(self) -> HeaderIter<'a> {
        self.iter()
    }
}

impl Default for NativeHeaders {
    fn default() -> Self {
        Self::new()
    }
}

impl Clone for NativeHeaders {
    fn clone(&self) -> Self {
        // SAFETY: copies a live list.
        let copy = unsafe { sys::rd_kafka_headers_copy(self.0.as_ptr()) };
        Self(NonNull::new(copy).expect("librdkafka allocates or aborts"))
    }
}

impl Drop for NativeHeaders {
    fn drop(&mut self) {
        // SAFETY: owned, and given away only by `into_raw`.
        unsafe { sys::rd_kafka_headers_destroy(self.0.as_ptr()) };
    }
}

/// Iterates over native headers.
#[derive(Clone)]
pub struct HeaderIter<'a> {
    list: *const sys::rd_kafka_headers_t,
    index: usize,
    life: PhantomData<&'a ()>,
}

impl<'a> Iterator for HeaderIter<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.list.is_null() {
            return None;
        }
        let (mut name, mut value, mut len) = (ptr::null(), ptr::null(), 0);
        // SAFETY: the list lives for 'a; the call fills the three, or says that there is no such index.
        let found = unsafe { sys::rd_kafka_header_get_all(self.list, self.index, &raw mut name, &raw mut value, &raw mut len) };
        if found != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return None;
        }
        self.index += 1;
        // SAFETY: librdkafka ends names by a zero byte and keeps both as long as the list.
        unsafe { Some((CStr::from_ptr(name).to_bytes(), slice_or_none(value, len))) }
    }
}

/// A consumed message, or a partition's end, or a partition's error.
pub(crate) struct RawMessage {
    message: NonNull<sys::rd_kafka_message_t>,
    _client: KeepAlive,
}

// SAFETY: the message is owned; librdkafka lets any thread read and destroy it.
unsafe impl Send for RawMessage {}

/// What a partition's queue holds.
pub(crate) enum Polled {
    Message(RawMessage),
    /// The end was reached; the offset is the next that will be fetched.
    End(i64),
    Error(RDKafkaErrorCode),
}

impl Polled {
    fn of(raw: RawMessage) -> Self {
        match raw.native().err {
            sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Self::Message(raw),
            sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__PARTITION_EOF => Self::End(raw.offset()),
            other => Self::Error(other.into()),
        }
    }
}

impl RawMessage {
    fn native(&self) -> &sys::rd_kafka_message_t {
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

    /// Epoch milliseconds; −1 when there is none.
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

    pub(crate) fn copy_headers(&self) -> NativeHeaders {
        let list = self.header_list();
        if list.is_null() {
            return NativeHeaders::new();
        }
        // SAFETY: copies a live list.
        let copy = unsafe { sys::rd_kafka_headers_copy(list) };
        NativeHeaders(NonNull::new(copy).expect("librdkafka allocates or aborts"))
    }

    /// Takes the headers out of the message, without a copy; it has none from then on.
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
    /// Splits a partition's queue from the consumer's. To be done before the assignment takes effect: then nothing of the
    /// partition arrives on the consumer's queue.
    ///
    /// `client` must be what owns `rk`.
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

    /// The next of the partition, if there is one now.
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

/// A commit of offsets that was sent, and its answer, which may take its time.
pub(crate) struct CommitOnItsWay {
    queue: NonNull<sys::rd_kafka_queue_t>,
    _client: KeepAlive,
}

// SAFETY: queues are made to be polled from any thread, one at a time.
unsafe impl Send for CommitOnItsWay {}

impl CommitOnItsWay {
    /// Sends it. `client` must be what owns `rk`.
    ///
    /// # Errors
    /// When the client has no group.
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

/// Partitions that are read without any group, all of them by one queue.
///
/// It is the older of librdkafka's consumers. The newer one takes an assignment only with a group.id, for which it then looks for
/// a coordinator twice a second: a right that a mere reader has no use for, and a denial in the broker's log each time where it
/// was not given.
pub(crate) struct RawReader {
    queue: NonNull<sys::rd_kafka_queue_t>,
    started: Vec<(RawTopic, i32)>,
    client: KeepAlive,
}

// SAFETY: queues are made to be polled from any thread, one at a time.
unsafe impl Send for RawReader {}

impl RawReader {
    /// `client` must be what owns `rk`, a consumer without group.id.
    pub(crate) fn new(rk: *mut RDKafka, client: KeepAlive) -> Self {
        // SAFETY: the client lives; the call returns an owned queue.
        let queue = unsafe { sys::rd_kafka_queue_new(rk) };
        Self { queue: NonNull::new(queue).expect("librdkafka allocates or aborts"), started: Vec::new(), client }
    }

    /// Reads a partition from an offset on. `rk` as for [`RawReader::new`].
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

    /// Reads a partition no more. What was fetched of it and not handed over is thrown away.
    pub(crate) fn stop(&mut self, topic: &str, partition: i32) {
        let Some(index) = self.started.iter().position(|(known, p)| *p == partition && known.name == topic) else { return };
        let (topic, partition) = self.started.swap_remove(index);
        // SAFETY: it was started, and its handle lives until the call has returned.
        unsafe { sys::rd_kafka_consume_stop(topic.topic.as_ptr(), partition) };
    }

    /// Waits for the next of any partition and hands it on with its topic and partition. `false` when the time ran out.
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

static PURGE: OnceLock<fn()> = OnceLock::new();

/// Says how this process's allocator hands back what was freed, where it is not that of the platform.
pub(crate) fn memory_is_handed_back_by(purge: fn()) {
    let _ = PURGE.set(purge);
}

/// Hands memory that was freed back to the system, as far as whole pages of it are free. That may walk through all of the heap, a few
/// milliseconds for a hundred megabytes; only for when a lot was freed and little will be needed for a while.
///
/// Allocators keep what the client fetched and threw away for the next time: measured with glibc's, 31 MiB with a million waiting records
/// and 17 with a thousand (`mallopt(3)`, "dynamic mmap threshold"). To tell glibc to give every block back at once costs a drain half of
/// its speed in page faults. Without glibc, and nobody who said how, this does nothing.
pub(crate) fn hand_freed_memory_back() {
    if let Some(purge) = PURGE.get() {
        return purge();
    }
    // SAFETY: takes the allocator's own locks, and touches nothing that is in use.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The generation of the consumer's membership; below 0 when it is no member now.
///
/// The broker does not fence an offset commit that carries a negative generation, so none must ever be sent with one.
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

/// The consumer's own member id, as its coordinator gave it; `None` when it has none now.
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

/// The members of a group, as its coordinator describes them; none where there is no such group.
///
/// # Errors
/// The coordinator's refusal, or that it did not answer in time.
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
        // The request itself ends by its own limit; this one is for a client that serves nobody any more.
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

/// The end of a partition as the last fetch told it, without asking the broker; `None` before the first fetch.
pub(crate) fn known_end(rk: *mut RDKafka, topic: &str, partition: i32) -> Option<i64> {
    let topic = CString::new(topic).ok()?;
    let (mut low, mut high) = (0, 0);
    // SAFETY: the caller holds the client; both are filled on success.
    let err = unsafe { sys::rd_kafka_get_watermark_offsets(rk, topic.as_ptr(), partition, &raw mut low, &raw mut high) };
    (err == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0).then_some(high)
}

/// A topic to produce to.
pub(crate) struct RawTopic {
    topic: NonNull<sys::rd_kafka_topic_t>,
    name: String,
    _client: KeepAlive,
}

// SAFETY: topic handles are counted by librdkafka and usable from any thread.
unsafe impl Send for RawTopic {}

impl RawTopic {
    /// `client` must be what owns `rk`.
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

/// Hands a record to the producer, which copies key and value and takes the headers. The delivery report bears `tag`.
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

/// What became of one produced record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Report {
    pub(crate) tag: usize,
    pub(crate) error: Option<RDKafkaErrorCode>,
    /// Epoch milliseconds; only where the broker has set it (`LogAppendTime`).
    pub(crate) append_time: Option<i64>,
    pub(crate) broker: i32,
    /// Of key and value.
    pub(crate) bytes: usize,
}

/// What a producer's queue holds.
pub(crate) enum Event<'a> {
    Report(Report),
    /// What the client tells of itself, as JSON.
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
    /// `client` must be what owns `rk`.
    pub(crate) fn main(rk: *mut RDKafka, client: KeepAlive) -> Self {
        // SAFETY: returns an owned reference to the main queue.
        let queue = unsafe { sys::rd_kafka_queue_get_main(rk) };
        Self { queue: NonNull::new(queue).expect("every client has a main queue"), _client: client }
    }

    /// Waits for one event and hands it on. Returns as soon as there is one; `false` when the time ran out.
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
unsafe fn read_report(message: *const sys::rd_kafka_message_t, fields: &sys::rd_kafka_message_t) -> Report {
    let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
    // SAFETY: reads a live message.
    let (timestamp, broker) =
        unsafe { (sys::rd_kafka_message_timestamp(message, &raw mut kind), sys::rd_kafka_message_broker_id(message)) };
    let failed = fields.err != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
    let by_broker = kind == sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME;
    Report {
        tag: fields._private.addr(),
        error: failed.then(|| fields.err.into()),
        append_time: by_broker.then_some(timestamp),
        broker,
        bytes: fields.len + fields.key_len,
    }
}

/// # Safety
/// `text` is null or ends by a zero byte.
unsafe fn owned_text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: as above.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

impl Drop for RawEventQueue {
    fn drop(&mut self) {
        // SAFETY: an owned reference.
        unsafe { sys::rd_kafka_queue_destroy(self.queue.as_ptr()) };
    }
}

fn bytes_or_null(bytes: Option<&[u8]>) -> (*const c_void, usize) {
    // An empty slice has a pointer that is not null: that is how librdkafka tells empty from null.
    bytes.map_or((ptr::null(), 0), |b| (b.as_ptr().cast(), b.len()))
}

/// # Safety
/// `data` is null or valid for `len` bytes during 'a.
unsafe fn slice_or_none<'a>(data: *const c_void, len: usize) -> Option<&'a [u8]> {
    let data = data.cast::<u8>();
    // SAFETY: as above.
    (!data.is_null()).then(|| unsafe { slice::from_raw_parts(data, len) })
}

const _: () = assert!(size_of::<c_char>() == 1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_keep_bytes_order_duplicates_and_nulls() {
        let mut headers = NativeHeaders::new();
        let all: [(&[u8], Option<&[u8]>); 5] =
            [(b"a", Some(b"1")), (b"\xff\xfe", Some(b"\0")), (b"a", None), (b"kladder-x", Some(b"y")), (b"a", Some(b""))];
        for (name, value) in all {
            headers.push(name, value);
        }
        assert_eq!(headers.clone().iter().collect::<Vec<_>>(), all);
        headers.remove_if(|name| name.starts_with(b"kladder-"));
        let left: Vec<_> = headers.iter().collect();
        assert_eq!(left, [all[0], all[1], all[2], all[4]]);
    }

    #[test]
    fn replaced_headers_are_there_once_each_and_the_others_stay() {
        let is_own = |name: &[u8]| name.starts_with(b"k-");
        let wanted =
            [("k-same", "1".to_owned()), ("k-other", "new".to_owned()), ("k-twice", "2".to_owned()), ("k-new", "3".to_owned())];
        let mut headers = NativeHeaders::new();
        let before: [(&[u8], Option<&[u8]>); 9] = [
            (b"user", Some(b"x")),
            (b"k-same", Some(b"1")),
            (b"k-other", Some(b"old")),
            (b"k-twice", Some(b"2")),
            (b"user", None),
            (b"k-gone", Some(b"9")),
            (b"k-twice", Some(b"2")),
            (b"k-null", None),
            (b"\xff", Some(b"\0")),
        ];
        for (name, value) in before {
            headers.push(name, value);
        }
        headers.replace(is_own, &wanted);
        let mut own: Vec<_> = headers.iter().filter(|(name, _)| is_own(name)).collect();
        own.sort_unstable();
        let after: [(&[u8], Option<&[u8]>); 4] =
            [(b"k-new", Some(b"3")), (b"k-other", Some(b"new")), (b"k-same", Some(b"1")), (b"k-twice", Some(b"2"))];
        assert_eq!(own, after);
        let others: Vec<_> = headers.iter().filter(|(name, _)| !is_own(name)).collect();
        assert_eq!(others, [before[0], before[4], before[8]]);
    }
}

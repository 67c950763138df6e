//! The only unsafe code: what rust-rdkafka 0.39 does not provide.
//!
//! - Header names as bytes: its reader panics on a name that is not UTF-8, so one such record would crash every worker
//!   repeatedly; its writer accepts UTF-8 names only.
//! - The offset of a partition EOF event, which includes the transaction markers that an end offset
//!   counts.
//! - Reading partitions without a group.
//! - The generation of a group membership, without which offsets must never be sent; the member's own id, and the other members
//!   of its group: in either group protocol, with the names of static members.
//! - The answer to a commit with a timeout: its own call waits for ever.
//! - Delivery reports without its `poll`, which blocks for the whole timeout even when reports are there, and spins in the last
//!   millisecond of any timeout.
//! - A hint to the allocator when fetched records have been discarded.
//! - A broker's message about a topic that it refuses to create or to alter, in [`admin`].
//!
//! Every pointer here has one owner that destroys it, and everything obtained from a client keeps that client
//! alive.

#![expect(unsafe_code, reason = "the only reviewed module of librdkafka calls that the safe crate lacks")]

use std::ffi::{CStr, c_char, c_void};
use std::ptr;
use std::slice;
use std::sync::Arc;

pub(crate) mod admin;
mod group;
mod headers;
mod memory;
mod message;
mod produce;
mod queue;
mod reader;
mod topic;

pub(crate) use group::{CommitOnItsWay, generation, group_members, known_end, member_id};
pub use headers::{HeaderIter, NativeHeaders};
pub(crate) use memory::hand_freed_memory_back;
#[cfg(feature = "cli")]
pub(crate) use memory::memory_is_handed_back_by;
pub(crate) use message::{Polled, RawMessage};
pub(crate) use produce::{DeliveryReport, Event, RawEventQueue, produce};
pub(crate) use queue::RawPartitionQueue;
pub(crate) use reader::RawReader;
pub(crate) use topic::RawTopic;

/// Keeps a native client alive as long as something obtained from it is in use.
pub(crate) type KeepAlive = Arc<dyn Send + Sync>;

/// # Safety
/// `text` is null or ends by a zero byte.
unsafe fn owned_text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: as above.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
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

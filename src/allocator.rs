//! The binary's allocator, for all of its code, including librdkafka.
//!
//! Memory allocated by librdkafka's consumer threads is freed by worker threads, for which glibc's threads wait for each other's
//! arenas. Measured side by side (2 cores, `scripts/bench`): 200,000 dead letters sent back at 92,900 per second with glibc's
//! allocator and 148,000 with this one (10.5 s of processor time per million instead of 17), a drain at 0.78 and 0.90 of its ceiling,
//! an at-least-once one at 0.87 and 0.97. mimalloc is in between.
//!
//! Its page size is that of the build machine, and must not be smaller than that of the machine that runs it: on aarch64 build for other
//! machines with `JEMALLOC_SYS_WITH_LG_PAGE=16` (<https://github.com/tikv/jemallocator/issues/80>).

#![expect(unsafe_code, reason = "the one call to the allocator that its safe crate lacks")]

use std::ptr;

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Returns all free pages of all arenas to the system; `arena.<i>.purge` of jemalloc(3), with the number for all arenas.
pub fn purge() {
    const ALL: &std::ffi::CStr = c"arena.4096.purge";
    // SAFETY: the name is a C string, and this call reads and writes nothing through its arguments.
    unsafe {
        tikv_jemalloc_sys::mallctl(ALL.as_ptr(), ptr::null_mut(), ptr::null_mut(), ptr::null_mut(), 0);
    }
}

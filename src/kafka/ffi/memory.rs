//! Freed memory, back to the system.

use std::sync::OnceLock;

static PURGE: OnceLock<fn()> = OnceLock::new();

/// Sets how this process's allocator returns freed memory, if it is not the platform's.
#[cfg(feature = "cli")]
pub(crate) fn memory_is_handed_back_by(purge: fn()) {
    let _ = PURGE.set(purge);
}

/// Returns freed memory to the system, as far as whole pages of it are free. That may scan the whole heap, a few milliseconds for a
/// hundred megabytes; only for when a lot was freed and little will be needed for a while.
///
/// Allocators keep freed fetch buffers for reuse: measured with glibc's, 31 MiB with a million waiting records and 17 with a thousand
/// (`mallopt(3)`, "dynamic mmap threshold"). Making glibc return every block at once costs a drain half of its speed in page faults.
/// Without glibc, and without a function set, this does nothing.
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

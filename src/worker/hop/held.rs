//! Counts the bytes of records that a worker holds: taken, and neither done nor written elsewhere.
//!
//! Slots limit the number of records, which says little about memory: a thousand records are a megabyte, or a gigabyte.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Number of held bytes above which a worker takes no more records. Every partition may hold one record beyond that, up to twice as many
/// bytes: hanging or stopped partitions must not block the others.
pub(in crate::worker) const MOST_BYTES: usize = 64 * 1024 * 1024;

/// Memory used by a header besides its name and value, in the client and in a delivery.
pub(in crate::worker) const HEADER_BYTES: usize = 200;

/// The number of held bytes.
#[derive(Debug, Clone, Default)]
pub(in crate::worker) struct HeldBytes(Arc<AtomicUsize>);

impl HeldBytes {
    /// Counts this many bytes until the result is dropped.
    pub(in crate::worker) fn hold(&self, bytes: usize) -> Held {
        self.0.fetch_add(bytes, Ordering::Relaxed);
        Held { of: Some(self.clone()), bytes }
    }

    /// The current number.
    pub(in crate::worker) fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Whether one more record may be taken; `is_first` if its partition holds no other one.
    pub(in crate::worker) fn has_room(&self, is_first: bool) -> bool {
        let held = self.bytes();
        held < MOST_BYTES || is_first && held < 2 * MOST_BYTES
    }
}

/// Bytes that count as held until this is dropped.
#[derive(Debug, Default)]
pub(in crate::worker) struct Held {
    of: Option<HeldBytes>,
    bytes: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(of) = &self.of {
            of.0.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_counts_until_it_is_let_go() {
        let held = HeldBytes::default();
        assert!(held.has_room(false), "a single record is taken, however large");
        let large = held.hold(MOST_BYTES);
        assert!(!held.has_room(false) && held.has_room(true), "a partition that has none is not kept from moving");
        let more = held.hold(MOST_BYTES);
        assert!(!held.has_room(true));
        drop(large);
        assert!(!held.has_room(false) && held.has_room(true));
        drop(more);
        assert!(held.has_room(false));
        drop(Held::default());
    }
}

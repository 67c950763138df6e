//! Tests that need most of the machine run one at a time, beside any light ones.

use std::sync::{Mutex, MutexGuard, PoisonError};

static TURN: Mutex<()> = Mutex::new(());

/// Waits until no other heavy test runs; the turn ends when the value is dropped. A failed test blocks no other.
pub fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Tests that need most of the machine take turns: one at a time, beside whatever light ones run.

use std::sync::{Mutex, MutexGuard, PoisonError};

static TURN: Mutex<()> = Mutex::new(());

/// Waits until no other heavy test runs; it is this one's turn until the value goes. One that failed holds nobody up.
pub fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

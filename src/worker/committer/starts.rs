//! A record on which the worker itself dies, found by what the group's offsets say of it.
//!
//! Before the first record of a partition is worked on, its offset is committed once more, with how often it has been the first. A
//! worker that ends in good order takes that back, and a record that is finished leaves it behind; so what counts up are deaths. The
//! count follows the partition to whoever takes it over.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::kafka::consumer::TopicPartition;

/// From so many starts on a partition is under suspicion: one record at a time is worked on, of all partitions and of this before the
/// others, so that the one on which the worker dies is the first.
pub(super) const ALONE_FROM: u32 = 3;

/// From so many starts on the first record is not worked on any more.
pub(super) const POISON_FROM: u32 = 6;

/// What this process has counted, whoever of its workers did: one that is made anew after an error has not died.
#[derive(Clone, Default)]
pub struct Starts(Arc<Mutex<HashMap<TopicPartition, i64>>>);

impl Starts {
    /// Notes that a record was counted, and tells whether it had been before.
    pub(super) fn note(&self, tp: &TopicPartition, offset: i64) -> bool {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counted.insert(tp.clone(), offset) == Some(offset)
    }
}

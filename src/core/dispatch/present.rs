//! The partitions and keys that have records: failures of a part of them say less than failures of
//! all.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use crate::core::dispatch::standing::Trouble;
use crate::core::leader_clock::LocalTime;

/// The identity of a call's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Witness {
    /// The record.
    pub record: u64,
    /// Its key, for example a customer; without one, the record itself.
    pub key: u64,
    /// Its origin partition.
    pub partition: u64,
    /// How its last attempt failed.
    pub failed_before: Option<Trouble>,
}

/// A partition counts as present while a record of it was answered well within this time.
const LATELY: Duration = Duration::from_secs(10);

/// The number of records per partition and key, and the partitions with recent good answers.
#[derive(Debug, Default)]
pub(super) struct Present {
    partitions: HashMap<u64, Partition>,
    keys: HashMap<u64, usize>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Partition {
    records: usize,
    good_at: Option<LocalTime>,
}

impl Partition {
    fn is_there(&self, now: LocalTime) -> bool {
        self.records > 0 || self.good_at.is_some_and(|at| now < at.later(LATELY))
    }
}

impl Present {
    pub fn arrives(&mut self, witness: &Witness) {
        self.partitions.entry(witness.partition).or_default().records += 1;
        *self.keys.entry(witness.key).or_default() += 1;
    }

    pub fn leaves(&mut self, witness: &Witness) {
        if let Some(partition) = self.partitions.get_mut(&witness.partition) {
            partition.records = partition.records.saturating_sub(1);
        }
        if let Some(records) = self.keys.get_mut(&witness.key) {
            *records -= 1;
            if *records == 0 {
                self.keys.remove(&witness.key);
            }
        }
    }

    pub fn answered_well(&mut self, partition: u64, now: LocalTime) {
        if let Some(partition) = self.partitions.get_mut(&partition) {
            partition.good_at = Some(now);
        }
    }

    /// Removes partitions that are no longer present.
    pub fn forget(&mut self, now: LocalTime) {
        self.partitions.retain(|_, partition| partition.is_there(now));
    }

    /// Whether all records belong to one partition.
    pub fn is_one_partition(&self) -> bool {
        self.partitions.values().filter(|partition| partition.records > 0).nth(1).is_none()
    }

    /// Whether these are several partitions, or all that there are.
    pub fn are_several(&self, partitions: &BTreeSet<u64>, now: LocalTime) -> bool {
        let is_among = |(name, partition): (&u64, &Partition)| partitions.contains(name) || !partition.is_there(now);
        partitions.len() > 1 || (!partitions.is_empty() && self.partitions.iter().all(is_among))
    }

    /// Whether these are several keys, or all that there are.
    pub fn are_several_keys(&self, keys: &HashSet<u64>) -> bool {
        keys.len() > 1 || self.keys.keys().all(|key| keys.contains(key))
    }
}

//! Looking for the record that no target takes.
//!
//! A broker that refuses a batch for one record refuses all of it, so which of them is at fault is not known. Those of one partition are sent
//! in transactions of their own then, half as many each time that they are refused, until one is alone; twice as many each time that they are
//! written.

use std::collections::BTreeMap;

/// When so many of a partition have been written at once, nobody is looked for any more.
const ENOUGH: usize = 128;

/// The partitions of which a record is looked for, by the tokens of their assignments, and how many of its records go at once.
#[derive(Debug, Default)]
pub(in crate::worker) struct Bisect(BTreeMap<u64, usize>);

impl Bisect {
    /// So many of a partition's records go at most, and with no others; not limited where no record of it is looked for.
    pub(in crate::worker) fn limit(&self, token: u64) -> Option<usize> {
        self.0.get(&token).copied()
    }

    /// Whether any record is looked for.
    pub(in crate::worker) fn is_under_way(&self) -> bool {
        !self.0.is_empty()
    }

    /// So many of a partition were refused together.
    pub(in crate::worker) fn refused(&mut self, token: u64, records: usize) {
        self.0.insert(token, (records / 2).max(1));
    }

    /// Some were written, or the one at fault has been found.
    pub(in crate::worker) fn written(&mut self, token: u64) {
        if let Some(limit) = self.0.get_mut(&token) {
            *limit *= 2;
            if *limit >= ENOUGH {
                self.0.remove(&token);
            }
        }
    }

    /// The record at fault was alone.
    pub(in crate::worker) fn found(&mut self, token: u64) {
        self.0.remove(&token);
    }

    /// Only these partitions are owned.
    pub(in crate::worker) fn retain(&mut self, is_owned: impl Fn(u64) -> bool) {
        self.0.retain(|token, _| is_owned(*token));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_partition_is_halved_down_to_one_and_comes_back_by_doubling() {
        let mut bisect = Bisect::default();
        let mut limits = Vec::new();
        let mut records = 300;
        for _ in 0..9 {
            bisect.refused(1, records);
            records = bisect.limit(1).unwrap();
            limits.push(records);
        }
        assert_eq!(limits, [150, 75, 37, 18, 9, 4, 2, 1, 1]);
        assert_eq!(bisect.limit(2), None, "others go on");
        for _ in 0..7 {
            bisect.written(1);
        }
        assert!(!bisect.is_under_way());
    }
}

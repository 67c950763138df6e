//! Searches for the record that its target refuses.
//!
//! The records of its partition are sent in transactions of their own, fewer after each refusal ([`Halving`]).

use std::collections::BTreeMap;

use crate::core::halving::Halving;

/// The partitions with a search, by the tokens of their assignments, and the current batch size.
#[derive(Debug, Default)]
pub(in crate::worker) struct Bisect(BTreeMap<u64, Halving>);

impl Bisect {
    /// Maximum number of a partition's records to send, with no others; `None` without a search.
    pub(in crate::worker) fn limit(&self, token: u64) -> Option<usize> {
        self.0.get(&token).and_then(|halving| halving.limit())
    }

    /// Whether there is a search.
    pub(in crate::worker) fn is_under_way(&self) -> bool {
        !self.0.is_empty()
    }

    /// This many records of a partition were refused together.
    pub(in crate::worker) fn refused(&mut self, token: u64, records: usize) {
        self.0.entry(token).or_default().refused(records);
    }

    /// Some were written.
    pub(in crate::worker) fn written(&mut self, token: u64) {
        if let Some(halving) = self.0.get_mut(&token) {
            halving.written();
            if halving.limit().is_none() {
                self.0.remove(&token);
            }
        }
    }

    /// The faulty record was sent alone.
    pub(in crate::worker) fn found(&mut self, token: u64) {
        self.0.entry(token).or_default().found();
    }

    /// Keeps only the assigned partitions.
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

    #[test]
    fn who_was_alone_is_found_and_the_next_one_goes_alone_too() {
        let mut bisect = Bisect::default();
        bisect.found(1);
        assert_eq!(bisect.limit(1), Some(1));
        bisect.written(1);
        assert_eq!(bisect.limit(1), Some(2));
        bisect.retain(|token| token != 1);
        assert!(!bisect.is_under_way());
    }
}

//! Limits the size of batches during the search for a record that its target refuses.
//!
//! A broker that refuses a batch because of one record refuses all of it, so the faulty record is unknown. After each refusal half as many
//! are sent, until a single record is refused: that is the faulty one. After each success twice as many are sent; the next record may be
//! faulty as well.

/// Batch size from which the search ends.
const ENOUGH: usize = 128;

/// The current limit; none while there is no search.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Halving(Option<usize>);

impl Halving {
    /// Maximum number of records to send, with no others.
    #[must_use]
    pub fn limit(self) -> Option<usize> {
        self.0
    }

    /// This many records (one or more) were refused together.
    pub fn refused(&mut self, records: usize) {
        self.0 = Some((records / 2).max(1));
    }

    /// As many records as allowed were written.
    pub fn written(&mut self) {
        self.0 = self.0.map(|limit| limit.saturating_mul(2)).filter(|limit| *limit < ENOUGH);
    }

    /// The faulty record was sent alone.
    pub fn found(&mut self) {
        self.0 = Some(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends records of which some are faulty; returns those found, and the number of batches.
    fn find(count: usize, bad: impl Fn(usize) -> bool) -> (Vec<usize>, usize) {
        let (mut halving, mut at, mut found, mut tries) = (Halving::default(), 0, Vec::new(), 0);
        while at < count {
            tries += 1;
            let most = halving.limit().unwrap_or(count).min(count - at);
            if !(at..at + most).any(&bad) {
                halving.written();
                at += most;
            } else if most == 1 {
                halving.found();
                found.push(at);
                at += 1;
            } else {
                halving.refused(most);
            }
        }
        (found, tries)
    }

    #[test]
    fn exactly_those_at_fault_are_found_however_many_there_are() {
        let (found, tries) = find(10_000, |record| record == 7_777);
        assert_eq!(found, [7_777]);
        assert!(tries < 200, "{tries}");
        assert_eq!(find(1_000, |record| record % 3 == 0).0.len(), 334);
        let (found, tries) = find(100, |_| true);
        assert_eq!(found, (0..100).collect::<Vec<_>>());
        assert!(tries < 120, "{tries}: the next one goes alone at once");
        assert_eq!(find(50, |_| false), (vec![], 1));
    }
}

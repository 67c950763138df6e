//! Batches: which records are delivered together, and what becomes of them when a batch fails as a whole.
//!
//! A batch that fails as a whole says nothing about most of its records. It is delivered once more as it is, since the failure may have
//! been a passing one; then it is split in halves, and each half that fails again too, until the record at fault is alone. Only then, or
//! when an answer names it, does a failure count as an attempt of a record: so a record at fault costs the others no attempt.

use std::time::Duration;

use crate::core::failure::{Disposition, Failure};

/// How records are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Maximum number of records in a batch (1 to 10,000); default 100.
    pub max: usize,
    /// Maximum size of their keys and values in bytes (1 KiB to 64 MiB); default 1 MiB. A larger record is delivered alone.
    pub bytes: usize,
    /// How long an incomplete batch waits for more records (at most 10 s); default 20 ms.
    pub wait: Duration,
    /// Whether a batch may contain records of several partitions; default false: it has records of one partition, in order.
    pub across: bool,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self { max: 100, bytes: 1024 * 1024, wait: Duration::from_millis(20), across: false }
    }
}

impl BatchLimits {
    /// Maximum number of records in flight, if so many requests are.
    #[must_use]
    pub fn records_of(batch: Option<Self>, requests: usize) -> usize {
        requests * batch.map_or(1, |limits| limits.max)
    }

    /// Whether every value is in its range.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        (1..=10_000).contains(&self.max)
            && (1024..=64 * 1024 * 1024).contains(&self.bytes)
            && self.wait <= Duration::from_secs(10)
    }
}

/// The body of a batch over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BatchFormat {
    /// The JSON batch format of CloudEvents.
    #[default]
    CloudEvents,
    /// One JSON object a line.
    Ndjson,
    /// One part a record, as in a single delivery.
    Multipart,
}

/// The failed records of a batch by their number in it, each with its failure; or the failure of the batch as a whole.
pub type BatchVerdict = Result<Vec<(usize, Failure)>, Failure>;

/// With how many others a record may be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Company {
    most: usize,
    has_failed: bool,
}

impl Default for Company {
    fn default() -> Self {
        Self { most: usize::MAX, has_failed: false }
    }
}

impl Company {
    /// Its batch of this many records has failed as a whole.
    #[must_use]
    pub fn after_failure(self, records: usize) -> Self {
        let most = if self.has_failed { records.div_ceil(2) } else { records };
        Self { most: most.max(1), has_failed: true }
    }
}

/// Whether the failure of a batch counts for each of its records at once: the handler asks for time, which splitting would not give it.
#[must_use]
pub fn is_of_all(failure: &Failure) -> bool {
    matches!(failure.disposition(), Disposition::Retry { after: Some(_) }) || failure.error().status == Some(429)
}

/// A batch to which records are added.
#[derive(Debug)]
pub struct Forming<J> {
    jobs: Vec<J>,
    bytes: usize,
    most: usize,
}

impl<J> Forming<J> {
    /// A batch of one record.
    #[must_use]
    pub fn of(job: J, bytes: usize, company: Company, limits: &BatchLimits) -> Self {
        Self { jobs: vec![job], bytes, most: limits.max.min(company.most) }
    }

    /// Whether a record may be added.
    #[must_use]
    pub fn takes(&self, bytes: usize, company: Company, limits: &BatchLimits) -> bool {
        self.jobs.len() < self.most.min(company.most) && self.bytes + bytes <= limits.bytes
    }

    /// Adds a record.
    pub fn add(&mut self, job: J, bytes: usize, company: Company) {
        self.jobs.push(job);
        self.bytes += bytes;
        self.most = self.most.min(company.most);
    }

    /// Whether no record can be added.
    #[must_use]
    pub fn is_full(&self, limits: &BatchLimits) -> bool {
        self.jobs.len() >= self.most || self.bytes >= limits.bytes
    }

    /// Its records so far.
    #[must_use]
    pub fn jobs(&self) -> &[J] {
        &self.jobs
    }

    /// Its records, in order.
    #[must_use]
    pub fn into_jobs(self) -> Vec<J> {
        self.jobs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Delivers records in batches until each has succeeded or failed alone; a batch fails if it contains one of `at_fault`. Returns the
    /// number of calls, and the records that failed alone.
    fn deliver(records: usize, at_fault: &[usize]) -> (usize, Vec<usize>) {
        let limits = BatchLimits::default();
        let mut waiting: Vec<(usize, Company)> = (0..records).map(|record| (record, Company::default())).collect();
        let (mut calls, mut alone) = (0, Vec::new());
        while !waiting.is_empty() {
            let (record, company) = waiting.remove(0);
            let mut forming = Forming::of((record, company), 1, company, &limits);
            while waiting.first().is_some_and(|(_, company)| forming.takes(1, *company, &limits)) {
                let (record, company) = waiting.remove(0);
                forming.add((record, company), 1, company);
            }
            calls += 1;
            assert!(calls < 10_000, "it never ends");
            let batch = forming.into_jobs();
            if batch.iter().all(|(record, _)| !at_fault.contains(record)) {
                continue;
            }
            let size = batch.len();
            if size == 1 {
                alone.push(batch[0].0);
                continue;
            }
            for (record, company) in batch.into_iter().rev() {
                waiting.insert(0, (record, company.after_failure(size)));
            }
        }
        (calls, alone)
    }

    #[test]
    fn a_record_at_fault_is_found_alone_and_no_other_is_blamed() {
        for records in [1, 2, 3, 99, 100, 101, 250] {
            for at_fault in [0, records / 2, records - 1] {
                let (calls, alone) = deliver(records, &[at_fault]);
                assert_eq!(alone, [at_fault], "of {records}");
                assert!(calls <= records.div_ceil(100) + 20, "{calls} calls for {records} records");
            }
        }
    }

    #[test]
    fn several_at_fault_are_all_found() {
        let (_, alone) = deliver(100, &[3, 4, 77]);
        assert_eq!(alone, [3, 4, 77]);
        let all: Vec<usize> = (0..100).collect();
        let (calls, alone) = deliver(100, &all);
        assert_eq!(alone, all);
        assert!(calls <= 250, "{calls} calls");
    }

    #[test]
    fn a_batch_is_bounded_by_records_and_bytes() {
        let limits = BatchLimits { max: 3, bytes: 1024, ..BatchLimits::default() };
        let mut forming = Forming::of(0, 500, Company::default(), &limits);
        assert!(forming.takes(524, Company::default(), &limits) && !forming.takes(525, Company::default(), &limits));
        forming.add(1, 100, Company::default());
        assert!(!forming.is_full(&limits));
        // One that may have no company ends it.
        assert!(!forming.takes(1, Company::default().after_failure(2), &limits));
        forming.add(2, 1, Company::default());
        assert!(forming.is_full(&limits) && !forming.takes(0, Company::default(), &limits));
        assert_eq!(forming.into_jobs(), [0, 1, 2]);
        assert!(Forming::of(0, 5_000, Company::default(), &limits).is_full(&limits), "a large record goes alone");
    }
}

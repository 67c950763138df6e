//! A handler that takes records in batches.

use std::future::Future;

use crate::core::batch::{BatchLimits, BatchVerdict};
use crate::core::failure::{Failure, Verdict};
use crate::worker::delivery::Delivery;
use crate::worker::handler::Handler;

/// Handles several deliveries at a time and says what became of each; see [`Worker::in_batches`](crate::Worker::in_batches).
///
/// An error is the failure of the batch as a whole: it is delivered once more, and then in halves, until the record at fault is alone;
/// only then does an attempt count. A failure with a delay ([`Failure::after`]) counts for every record of the batch at once. Otherwise the
/// same holds as for a [`Handler`].
///
/// ```
/// use kladder::{BatchHandler, BatchReport, Delivery, Failure};
///
/// struct Store;
///
/// impl BatchHandler for Store {
///     async fn handle(&self, batch: &[Delivery]) -> Result<BatchReport, Failure> {
///         let mut report = BatchReport::all_done();
///         for delivery in batch {
///             if delivery.value().is_none() {
///                 report.failed(delivery, Failure::retry("Empty", "nothing in it").reject());
///             }
///         }
///         Ok(report)
///     }
/// }
/// ```
pub trait BatchHandler: Send + Sync + 'static {
    /// Handles the deliveries, which are in the order of their partition. The future is dropped if a worker must stop and its deadline has
    /// passed.
    fn handle(&self, batch: &[Delivery]) -> impl Future<Output = Result<BatchReport, Failure>> + Send;

    /// See [`Handler::is_reachable`].
    fn is_reachable(&self) -> impl Future<Output = bool> + Send {
        async { false }
    }
}

/// What became of the deliveries of a batch: all that are not named as failed are done.
#[derive(Debug, Clone, Default)]
pub struct BatchReport {
    failures: Vec<(String, Failure)>,
}

impl BatchReport {
    /// All are done.
    #[must_use]
    pub fn all_done() -> Self {
        Self::default()
    }

    /// This delivery has failed. If it was named before, the first failure counts.
    pub fn failed(&mut self, delivery: &Delivery, failure: impl Into<Failure>) {
        self.failures.push((delivery.id().to_owned(), failure.into()));
    }
}

/// A batch handler as the handler of a worker.
pub struct InBatches<B> {
    handler: B,
    limits: BatchLimits,
}

impl<B> InBatches<B> {
    pub(crate) fn new(handler: B, limits: BatchLimits) -> Self {
        Self { handler, limits }
    }
}

impl<B: BatchHandler> Handler for InBatches<B> {
    async fn handle(&self, delivery: Delivery) -> Verdict {
        let mut failures = self.handle_batch(vec![delivery]).await?;
        failures.pop().map_or(Ok(()), |(_, failure)| Err(failure))
    }

    async fn is_reachable(&self) -> bool {
        self.handler.is_reachable().await
    }

    fn batch_limits(&self) -> Option<BatchLimits> {
        Some(self.limits)
    }

    async fn handle_batch(&self, batch: Vec<Delivery>) -> BatchVerdict {
        let report = self.handler.handle(&batch).await?;
        let failure = |(number, delivery): (usize, &Delivery)| {
            let named = report.failures.iter().find(|(id, _)| id == delivery.id())?;
            Some((number, named.1.clone()))
        };
        Ok(batch.iter().enumerate().filter_map(failure).collect())
    }
}

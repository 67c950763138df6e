//! The handler: called by a deliverer, in process or over HTTP.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use crate::core::batch::{BatchLimits, BatchVerdict};
use crate::core::failure::{Failure, Verdict};
use crate::worker::delivery::Delivery;

/// Handles deliveries and returns their outcome.
///
/// Deliveries of different records run concurrently. A record may be delivered again although it was done (the worker died
/// before it could commit that), so a handler with side effects should check [`Delivery::id`]. Any error becomes a retry with
/// `?`; see [`Failure`] for the rest. A handler that panics has failed the attempt, with the class `panic`.
///
/// Closures are handlers too:
///
/// ```
/// use kladder::{Delivery, Failure, Handler};
///
/// fn handler() -> impl Handler {
///     |delivery: Delivery| async move {
///         let text = std::str::from_utf8(delivery.value().unwrap_or_default())?;
///         if text.is_empty() {
///             return Err(Failure::retry("Empty", "nothing in it").reject());
///         }
///         Ok(())
///     }
/// }
/// ```
pub trait Handler: Send + Sync + 'static {
    /// Handles one delivery. The future is dropped if a worker must stop and its deadline has passed.
    fn handle(&self, delivery: Delivery) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Whether the handler is reachable; called from time to time while it is down and this worker has left its partitions to others:
    /// if it is, the worker returns sooner. An in-process handler cannot tell, and returns false by default.
    fn is_reachable(&self) -> impl Future<Output = bool> + Send {
        async { false }
    }

    /// How deliveries are put together for `handle_batch`; `None` if each is handled on its own.
    #[doc(hidden)]
    fn batch_limits(&self) -> Option<BatchLimits> {
        None
    }

    /// Handles deliveries together: see [`BatchHandler`](crate::BatchHandler).
    #[doc(hidden)]
    fn handle_batch(&self, _batch: Vec<Delivery>) -> impl Future<Output = BatchVerdict> + Send {
        async { Err(Failure::retry("no batches", "this handler takes one delivery at a time")) }
    }
}

impl<F, Fut> Handler for F
where
    F: Fn(Delivery) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), Failure>> + Send,
{
    fn handle(&self, delivery: Delivery) -> impl Future<Output = Result<(), Failure>> + Send {
        self(delivery)
    }
}

/// Calls the handler. If it panics, the attempt has failed like any other: its own state is its own responsibility, and the next
/// record must not suffer for it.
pub(crate) async fn call<H: Handler>(handler: &H, delivery: Delivery) -> Verdict {
    // The part before the first await of a handler runs when it is called, so it is included.
    unless_it_panics(async { handler.handle(delivery).await }).await
}

/// The same for a batch.
pub(crate) async fn call_batch<H: Handler>(handler: &H, batch: Vec<Delivery>) -> BatchVerdict {
    unless_it_panics(async { handler.handle_batch(batch).await }).await
}

async fn unless_it_panics<T>(called: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let mut called = pin!(called);
    poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| called.as_mut().poll(context)));
        polled.unwrap_or_else(|panic| Poll::Ready(Err(panicked(panic.as_ref()))))
    })
    .await
}

fn panicked(panic: &(dyn Any + Send)) -> Failure {
    let said = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let message = said.map_or_else(|| "the handler panicked".to_owned(), |said| format!("the handler panicked: {said}"));
    Failure::retry("panic", message)
}

//! The handler: what a deliverer calls, in process or over the wire.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use crate::core::failure::{Failure, Verdict};
use crate::worker::delivery::Delivery;

/// Takes deliveries and says what became of them.
///
/// Deliveries of different records run at the same time. A record may be delivered again although it was done (the worker died
/// before it could note that), so a handler with effects looks at [`Delivery::id`]. Any error becomes a retry by `?`; see
/// [`Failure`] for the rest. A handler that panics has failed the attempt, with the class `panic`.
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
    /// Handles one delivery. The future is dropped where a worker must stop and its deadline has passed.
    fn handle(&self, delivery: Delivery) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Whether the handler can be reached, asked from time to time while it is down and this worker has left its partitions to others:
    /// where it can, the worker comes back sooner. A handler in process cannot tell, and is not asked by default.
    fn is_reachable(&self) -> impl Future<Output = bool> + Send {
        async { false }
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

/// Calls the handler. One that panics has failed the attempt like any other: whatever of its own it left half done is its own to
/// mend, and the next record must not suffer for it.
pub(crate) async fn call<H: Handler>(handler: &H, delivery: Delivery) -> Verdict {
    // What comes before the first await of a handler runs when it is called, so that is within too.
    let mut called = pin!(async { handler.handle(delivery).await });
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

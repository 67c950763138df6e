//! The handler: what a deliverer calls, in process or over the wire.

use std::future::Future;

use crate::core::failure::Failure;
use crate::worker::delivery::Delivery;

/// Takes deliveries and says what became of them.
///
/// Deliveries of different records run at the same time. A record may be delivered again although it was done (the worker died
/// before it could note that), so a handler with effects looks at [`Delivery::id`]. Any error becomes a retry by `?`; see
/// [`Failure`] for the rest.
///
/// Closures are handlers too:
///
/// ```
/// use kladder::core::failure::Failure;
/// use kladder::worker::{delivery::Delivery, handler::Handler};
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

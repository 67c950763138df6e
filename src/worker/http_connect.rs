//! Connecting to a handler: plain or TLS, with a deadline of its own.

use std::error::Error;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use thiserror::Error;
use tower_service::Service;

use crate::core::failure::Failure;

type BoxError = Box<dyn Error + Send + Sync>;

#[cfg(feature = "tls")]
type Transport = hyper_tls::HttpsConnector<HttpConnector>;
#[cfg(not(feature = "tls"))]
type Transport = HttpConnector;

/// How long connecting may take at most: DNS, TCP and TLS together.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Connects within a deadline.
///
/// The deadline lies well before that of the delivery: a connection that does not come about has carried nothing to the handler,
/// so it must not look like a handler that was too slow and burn an attempt.
#[derive(Clone)]
pub(super) struct Connector {
    transport: Transport,
    limit: Duration,
}

#[derive(Debug, Error)]
#[error("no connection within {}", crate::core::delay::format_duration(*.0))]
struct ConnectTimeout(Duration);

impl Connector {
    pub(super) fn new(timeout: Duration) -> Self {
        let mut tcp = HttpConnector::new();
        // Requests are written at once; Nagle's algorithm would hold back the body until the head is acknowledged.
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        #[cfg(feature = "tls")]
        let tcp = hyper_tls::HttpsConnector::new_with_connector(tcp);
        Self { transport: tcp, limit: CONNECT_LIMIT.min(timeout / 2) }
    }
}

impl Service<Uri> for Connector {
    type Response = <Transport as Service<Uri>>::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.transport.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.transport.call(uri);
        let limit = self.limit;
        Box::pin(async move {
            let connected = tokio::time::timeout(limit, connecting).await.map_err(|_| ConnectTimeout(limit))??;
            Ok(connected)
        })
    }
}

/// The failure of a delivery for which no connection came about.
pub(super) fn not_connected(address: &str, error: &(dyn Error + 'static)) -> Failure {
    let class = if any(error, <dyn Error>::is::<ConnectTimeout>) {
        "connect timeout"
    } else if any(error, is_refused) {
        "connection refused"
    } else if any(error, |e| e.to_string() == "dns error") {
        "dns"
    } else if any(error, |e| e.to_string() == "tcp connect error") {
        "connection failed"
    } else if cfg!(feature = "tls") {
        // What is left of a connector that got past DNS and TCP.
        "tls"
    } else {
        "connection failed"
    };
    Failure::unsent(class, format!("{address}: {}", chain(error)))
}

fn is_refused(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::ConnectionRefused)
}

/// Whether an error or one that caused it fulfils the condition.
pub(super) fn any(error: &(dyn Error + 'static), condition: impl Fn(&(dyn Error + 'static)) -> bool) -> bool {
    causes(error).any(condition)
}

/// An error with its causes, in one line.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let parts: Vec<String> = causes(error).map(ToString::to_string).collect();
    parts.join(": ")
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&e| e.source())
}

//! Connections to a handler: plain or TLS, with their own timeout, and a record of the answers on each.

use std::error::Error;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Uri;
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::HttpConnector;
use thiserror::Error;
use tower_service::Service;

use crate::core::failure::Failure;

pub(super) type BoxError = Box<dyn Error + Send + Sync>;

#[cfg(feature = "tls-system")]
type Transport = hyper_tls::HttpsConnector<HttpConnector>;
#[cfg(not(feature = "tls-system"))]
type Transport = HttpConnector;

/// A connection.
pub(super) type Stream = TrackedStream<<Transport as Service<Uri>>::Response>;

/// Maximum time for connecting: DNS, TCP and TLS together.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Bytes of an answer that are read at a time.
const READ_BYTES: usize = 4 * 1024;

/// Connects within a timeout.
///
/// It is well below the timeout of the delivery: a failed connection has sent nothing to the handler, so it must not look like a
/// handler that was too slow, which would cost an attempt.
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
        // Requests are written at once; Nagle's algorithm would delay the body until the head is acknowledged.
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        #[cfg(feature = "tls-system")]
        let tcp = hyper_tls::HttpsConnector::new_with_connector(tcp);
        Self { transport: tcp, limit: CONNECT_LIMIT.min(timeout / 2) }
    }
}

impl Service<Uri> for Connector {
    type Response = Stream;
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
            Ok(TrackedStream { stream: connected, buffer: Box::new([0; READ_BYTES]), answers: Answers::default() })
        })
    }
}

/// The state of requests and answers on a connection.
#[derive(Clone, Default)]
pub(super) struct Answers(Arc<AtomicU8>);

impl Answers {
    /// No answer was read.
    const NONE: u8 = 0;
    /// The last event was that a part of an answer was read.
    const READ: u8 = 1;
    /// An answer was read before, and since then only a request was written.
    const WRITTEN_AFTER: u8 = 2;

    fn note_read(&self) {
        self.0.store(Self::READ, Ordering::Relaxed);
    }

    fn note_written(&self) {
        if self.0.load(Ordering::Relaxed) != Self::NONE {
            self.0.store(Self::WRITTEN_AFTER, Ordering::Relaxed);
        }
    }

    /// Whether a request followed an answer, and no part of another answer was read: the handler may have closed the connection after its
    /// last answer, and never have seen the request.
    pub(super) fn may_have_been_closed(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::WRITTEN_AFTER
    }

    /// Whether this error of a request is a reset of its connection without any part of an answer. A system does that when a process ends
    /// that had not read, or not even accepted, what was sent to it (RFC 1122, 4.2.2.13); if it had read everything, the connection is
    /// closed normally.
    pub(super) fn were_reset(&self, error: &hyper::Error) -> bool {
        let is_reset = |e: &io::Error| matches!(e.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe);
        self.0.load(Ordering::Relaxed) != Self::READ && any(error, |e| e.downcast_ref().is_some_and(is_reset))
    }
}

/// A connection that knows whether a request followed an answer.
pub(super) struct TrackedStream<T> {
    stream: T,
    /// hyper's own buffer does not show how much was read, so answers are read to here first: they are short.
    buffer: Box<[u8; READ_BYTES]>,
    answers: Answers,
}

impl<T> TrackedStream<T> {
    /// What was read and written so far.
    pub(super) fn answers(&self) -> Answers {
        self.answers.clone()
    }
}

impl<T: Read + Unpin> Read for TrackedStream<T> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, mut to: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let Self { stream, buffer, answers } = self.get_mut();
        let most = to.remaining().min(READ_BYTES);
        let mut read = ReadBuf::new(&mut buffer[..most]);
        ready!(Pin::new(stream).poll_read(context, read.unfilled()))?;
        if !read.filled().is_empty() {
            answers.note_read();
            to.put_slice(read.filled());
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: Write + Unpin> Write for TrackedStream<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.answers.note_written();
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.answers.note_written();
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }
}

/// The failure of a delivery without a connection.
pub(super) fn not_connected(address: &str, error: &(dyn Error + 'static)) -> Failure {
    let class = if any(error, <dyn Error>::is::<ConnectTimeout>) {
        "connect timeout"
    } else if any(error, is_refused) {
        "connection refused"
    } else if any(error, |e| e.to_string() == "dns error") {
        "dns"
    } else if any(error, |e| e.to_string() == "tcp connect error") {
        "connection failed"
    } else if cfg!(feature = "tls-system") {
        // Remaining errors of a connector after DNS and TCP.
        "tls"
    } else {
        "connection failed"
    };
    Failure::unsent(class, format!("{address}: {}", chain(error)))
}

fn is_refused(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::ConnectionRefused)
}

/// Whether an error or one of its causes matches the condition.
pub(super) fn any(error: &(dyn Error + 'static), condition: impl Fn(&(dyn Error + 'static)) -> bool) -> bool {
    causes(error).any(condition)
}

/// An error with its causes, on one line.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let parts: Vec<String> = causes(error).map(ToString::to_string).collect();
    parts.join(": ")
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&e| e.source())
}

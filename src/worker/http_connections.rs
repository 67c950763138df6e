//! Connections to a handler, each used by one delivery at a time and then kept for the next.
//!
//! hyper speaks HTTP/1.1 over them. Its pool of connections is not used: it moves each connection to a task of its own, so that a delivery
//! costs two more switches between tasks, and its layers are most of what a delivery costs the processor besides the system calls. Here
//! the task of the delivery drives the connection itself.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use thiserror::Error;
use tokio::time::Instant;
use tower_service::Service;

use crate::worker::http_connect::{Answers, BoxError, Connector, Stream};

/// Maximum idle time of a connection. Shorter than the servers' (Node closes after 5 s, others after a minute): the sender
/// must be the first to close a connection, or it writes a request to one that is being closed.
const IDLE: Duration = Duration::from_secs(4);

/// The connections to a handler that are not in use; more are opened as they are needed.
pub(super) struct Connections {
    connector: Connector,
    uri: Uri,
    idle: Arc<Idle>,
}

/// Those used last are at the end.
#[derive(Default)]
struct Idle(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    connections: Vec<(Connection, Instant)>,
    /// Whether a task closes those that are idle for long.
    is_watched: bool,
}

/// One connection, driven by the task that uses it. Boxed: it is large, and handed on often.
pub(super) struct Connection(Box<Driven>);

struct Driven {
    sender: SendRequest<Full<Bytes>>,
    /// `None` once it is closed.
    driver: Option<http1::Connection<Stream, Full<Bytes>>>,
    answers: Answers,
}

/// No connection.
#[derive(Debug, Error)]
#[error(transparent)]
pub(super) struct NotConnected(pub(super) BoxError);

impl Connections {
    pub(super) fn new(connector: Connector, uri: Uri) -> Self {
        Self { connector, uri, idle: Arc::default() }
    }

    /// One that is open and was used before, as far as that can be seen.
    pub(super) async fn idle(&self) -> Option<Connection> {
        loop {
            let (mut connection, since) = self.idle.lock().connections.pop()?;
            // All others have been idle for longer.
            if since.elapsed() >= IDLE {
                self.idle.lock().connections.clear();
                return None;
            }
            if connection.is_ready().await {
                return Some(connection);
            }
        }
    }

    /// A new one.
    pub(super) async fn open(&self) -> Result<Connection, NotConnected> {
        let stream = self.connector.clone().call(self.uri.clone()).await.map_err(NotConnected)?;
        let answers = stream.answers();
        let (sender, driver) = http1::handshake(stream).await.map_err(|error| NotConnected(error.into()))?;
        Ok(Connection(Box::new(Driven { sender, driver: Some(driver), answers })))
    }

    /// Keeps a connection, whose last answer was read to its end, for the next delivery.
    pub(super) async fn keep(&self, mut connection: Connection) {
        // Closed now if the answer said so.
        if !connection.is_ready().await {
            return;
        }
        let mut idle = self.idle.lock();
        idle.connections.push((connection, Instant::now()));
        if !std::mem::replace(&mut idle.is_watched, true) {
            tokio::spawn(close_idle(Arc::downgrade(&self.idle)));
        }
    }

    /// Whether a connection can be opened.
    pub(super) async fn is_reachable(&self) -> bool {
        self.connector.clone().call(self.uri.clone()).await.is_ok()
    }
}

impl Idle {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes connections that have been idle for long, until there is none.
async fn close_idle(idle: Weak<Idle>) {
    loop {
        tokio::time::sleep(IDLE / 4).await;
        let Some(idle) = idle.upgrade() else { return };
        let mut idle = idle.lock();
        let first = idle.connections.iter().position(|(_, since)| since.elapsed() < IDLE);
        let first = first.unwrap_or(idle.connections.len());
        idle.connections.drain(..first);
        if idle.connections.is_empty() {
            idle.is_watched = false;
            return;
        }
    }
}

impl Connection {
    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        let answer = self.0.sender.send_request(request);
        self.drive(answer).await
    }

    /// Waits for something that comes over this connection.
    pub(super) async fn drive<F: Future>(&mut self, awaited: F) -> F::Output {
        let mut awaited = pin!(awaited);
        poll_fn(|context| {
            self.0.poll(context);
            awaited.as_mut().poll(context)
        })
        .await
    }

    /// What was read and written so far.
    pub(super) fn answers(&self) -> &Answers {
        &self.0.answers
    }

    /// Whether it takes another request now: the last answer is complete, and the handler has not closed it.
    async fn is_ready(&mut self) -> bool {
        poll_fn(|context| {
            self.0.poll(context);
            Poll::Ready(matches!(self.0.sender.poll_ready(context), Poll::Ready(Ok(()))))
        })
        .await
    }
}

impl Driven {
    /// Reads and writes as far as possible. Its errors are those of the request, which is told them.
    fn poll(&mut self, context: &mut Context<'_>) {
        if self.driver.as_mut().is_some_and(|driver| Pin::new(driver).poll(context).is_ready()) {
            self.driver = None;
        }
    }
}

//! The demo's handler: answers over HTTP as the story says, and records each call for the summary.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt;

use crate::admin::listener::{Bounds, Listener};
use crate::cli::demo::ledger::{Call, RecordPosition};
use crate::cli::demo::story::{DemoAnswer, Story};
use crate::cli::stub::StubRequest;
use crate::core::leader_clock::LocalTime;
use crate::core::time::Timestamp;
use crate::kafka::clock::Clock;

/// Processing time of an order.
const WORK: Duration = Duration::from_millis(3);

/// The handler; clones share one state.
#[derive(Clone)]
pub struct DemoHandler(Arc<Inner>);

struct Inner {
    story: Story,
    clock: Clock,
    began: OnceLock<LocalTime>,
    calls: Mutex<Vec<Call>>,
    done: Mutex<HashSet<RecordPosition>>,
}

impl DemoHandler {
    /// Before the first order.
    pub fn new(story: Story) -> Self {
        Self(Arc::new(Inner {
            story,
            clock: Clock::system(),
            began: OnceLock::new(),
            calls: Mutex::default(),
            done: Mutex::default(),
        }))
    }

    /// Starts the story's clock: the first order is about to be sent.
    pub fn begin(&self) {
        let _ = self.0.began.set(self.0.clock.now());
    }

    /// Time since the first order; zero before it.
    pub fn elapsed(&self) -> Duration {
        self.0.began.get().map_or(Duration::ZERO, |began| self.0.clock.now().since(*began))
    }

    /// The wall-clock time `after` the first order; `None` before it.
    pub fn moment(&self, after: Duration) -> Option<Timestamp> {
        self.0.began.get().map(|began| began.later(after).timestamp())
    }

    /// All calls so far, in the order in which they ended.
    pub fn calls(&self) -> MutexGuard<'_, Vec<Call>> {
        locked(&self.0.calls)
    }

    /// Number of orders that are done.
    pub fn done(&self) -> u64 {
        u64::try_from(locked(&self.0.done).len()).unwrap_or(u64::MAX)
    }

    /// Listens on a free port. Connections are answered until the runtime ends.
    pub async fn serve(&self) -> anyhow::Result<SocketAddr> {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = Listener::bind(any, Bounds::HANDLER).await.context("cannot listen on 127.0.0.1 for the demo's handler")?;
        let address = listener.address();
        let router = Router::new().fallback(answer).with_state(self.clone());
        tokio::spawn(listener.serve(router, std::future::pending()));
        Ok(address)
    }
}

async fn answer(State(handler): State<DemoHandler>, request: Request<Body>) -> (StatusCode, &'static str) {
    let came = handler.0.clock.now().timestamp();
    let (head, mut body) = request.into_parts();
    // Read to the end; otherwise the connection could not be reused.
    while let Some(Ok(_)) = body.frame().await {}
    let seen = StubRequest::from(&head.headers);
    let (Some(partition), Some(offset), Some(order)) = (seen.partition, seen.offset, order(seen.key.as_deref())) else {
        return (StatusCode::BAD_REQUEST, "not an order of the demo\n");
    };
    tokio::time::sleep(WORK).await;
    let answer = handler.0.story.answer(order, seen.attempt, handler.elapsed());
    // Recorded before the answer is sent, so that its effects cannot appear in a topic earlier.
    let place = RecordPosition { partition, offset };
    handler.calls().push(Call { place, attempt: seen.attempt, at: came, answer });
    if answer == DemoAnswer::Done {
        locked(&handler.0.done).insert(place);
    }
    match answer {
        DemoAnswer::Done => (StatusCode::OK, ""),
        DemoAnswer::Fails => (StatusCode::INTERNAL_SERVER_ERROR, "order cannot be booked\n"),
        DemoAnswer::Down => (StatusCode::SERVICE_UNAVAILABLE, "database is down\n"),
        DemoAnswer::Rejected => (StatusCode::UNPROCESSABLE_ENTITY, "unknown field: discount\n"),
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The order number in a key made by the stream.
fn order(key: Option<&str>) -> Option<u64> {
    key?.strip_prefix("order-")?.parse().ok()
}

//! The demo's handler: answers over HTTP as the story says, and puts each call down for the reckoning.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt;
use tokio::net::TcpListener;

use crate::cli::demo::ledger::{Call, Place};
use crate::cli::demo::story::{Answer, Story};
use crate::cli::stub::Seen;
use crate::core::leader_clock::LocalTime;
use crate::core::time::Timestamp;
use crate::kafka::clock::Clock;

/// How long an order takes.
const WORK: Duration = Duration::from_millis(3);

/// What the handler knows; clones are of one and the same.
#[derive(Clone)]
pub struct DemoHandler(Arc<Inner>);

struct Inner {
    story: Story,
    clock: Clock,
    began: OnceLock<LocalTime>,
    calls: Mutex<Vec<Call>>,
    done: Mutex<HashSet<Place>>,
}

impl DemoHandler {
    /// The story has not begun yet.
    pub fn new(story: Story) -> Self {
        Self(Arc::new(Inner {
            story,
            clock: Clock::system(),
            began: OnceLock::new(),
            calls: Mutex::default(),
            done: Mutex::default(),
        }))
    }

    /// The first order is about to be sent.
    pub fn begin(&self) {
        let _ = self.0.began.set(self.0.clock.now());
    }

    /// How long ago that was; nothing before.
    pub fn elapsed(&self) -> Duration {
        self.0.began.get().map_or(Duration::ZERO, |began| self.0.clock.now().since(*began))
    }

    /// The moment so long after the first order, by the wall clock; `None` before.
    pub fn moment(&self, after: Duration) -> Option<Timestamp> {
        self.0.began.get().map(|began| began.later(after).timestamp())
    }

    /// All calls so far, in the order of their ends.
    pub fn calls(&self) -> MutexGuard<'_, Vec<Call>> {
        locked(&self.0.calls)
    }

    /// How many orders are done.
    pub fn done(&self) -> u64 {
        u64::try_from(locked(&self.0.done).len()).unwrap_or(u64::MAX)
    }

    /// Takes a free port. Connections are answered once the router is served, which it is until the runtime ends.
    pub async fn serve(&self) -> anyhow::Result<SocketAddr> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("cannot listen on 127.0.0.1 for the demo's handler")?;
        let address = listener.local_addr()?;
        let router = Router::new().fallback(answer).with_state(self.clone());
        tokio::spawn(axum::serve(listener, router).into_future());
        Ok(address)
    }
}

async fn answer(State(handler): State<DemoHandler>, request: Request<Body>) -> (StatusCode, &'static str) {
    let came = handler.0.clock.now().timestamp();
    let (head, mut body) = request.into_parts();
    // Read to its end, or the connection could not be used again.
    while let Some(Ok(_)) = body.frame().await {}
    let seen = Seen::from(&head.headers);
    let (Some(partition), Some(offset), Some(order)) = (seen.partition, seen.offset, order(seen.key.as_deref())) else {
        return (StatusCode::BAD_REQUEST, "no order of the demo\n");
    };
    tokio::time::sleep(WORK).await;
    let answer = handler.0.story.answer(order, seen.attempt, handler.elapsed());
    // Put down before the answer leaves: what kladder does about it cannot be read from a topic earlier.
    let place = Place { partition, offset };
    handler.calls().push(Call { place, attempt: seen.attempt, at: came, answer });
    if answer == Answer::Done {
        locked(&handler.0.done).insert(place);
    }
    match answer {
        Answer::Done => (StatusCode::OK, ""),
        Answer::Fails => (StatusCode::INTERNAL_SERVER_ERROR, "order cannot be booked\n"),
        Answer::Down => (StatusCode::SERVICE_UNAVAILABLE, "database is away\n"),
        Answer::Rejected => (StatusCode::UNPROCESSABLE_ENTITY, "unknown field: discount\n"),
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The number in a key as the stream makes them.
fn order(key: Option<&str>) -> Option<u64> {
    key?.strip_prefix("order-")?.parse().ok()
}

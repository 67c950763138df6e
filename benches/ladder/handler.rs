//! HTTP handlers that answer at once: one notes when it was called, the other counts, and fails if asked to.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use tokio::runtime::{Builder, Runtime};

use crate::clock::epoch_micros;
use crate::load::number_of;
use crate::observer::Seen;

/// Notes when it was called for which record.
pub struct Handler {
    pub address: SocketAddr,
    calls: Arc<Mutex<Seen>>,
    _runtime: Runtime,
}

impl Handler {
    pub fn start() -> Self {
        let calls: Arc<Mutex<Seen>> = Arc::default();
        let noted = calls.clone();
        let (address, runtime) = serve(1, move |body| {
            let now = epoch_micros();
            if let Some(number) = number_of(body) {
                noted.lock().unwrap_or_else(PoisonError::into_inner).push((number, now));
            }
            StatusCode::OK
        });
        Self { address, calls, _runtime: runtime }
    }

    pub fn count(&self) -> usize {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub fn calls(&self) -> Seen {
        std::mem::take(&mut self.calls.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Counts what is done, whoever calls: it knows a record by its value, not by a header.
pub struct CountingHandler {
    pub address: SocketAddr,
    tally: Arc<Tally>,
    _runtime: Runtime,
}

/// Which records fail at their first call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failing {
    None,
    AFifth,
}

struct Tally {
    failing: Failing,
    /// Calls of each record.
    calls: Vec<AtomicU8>,
    all: AtomicUsize,
    done: AtomicUsize,
    again: AtomicUsize,
}

impl Tally {
    fn call(&self, number: usize) -> StatusCode {
        let Some(calls) = self.calls.get(number) else { return StatusCode::OK };
        let before = calls.fetch_add(1, Ordering::Relaxed);
        self.all.fetch_add(1, Ordering::Relaxed);
        let fails = self.failing == Failing::AFifth && mix(number).is_multiple_of(5);
        match before.cmp(&u8::from(fails)) {
            std::cmp::Ordering::Less => return StatusCode::SERVICE_UNAVAILABLE,
            std::cmp::Ordering::Equal => self.done.fetch_add(1, Ordering::Relaxed),
            std::cmp::Ordering::Greater => self.again.fetch_add(1, Ordering::Relaxed),
        };
        StatusCode::OK
    }
}

/// So that the failing records are not at regular distances.
fn mix(number: usize) -> u64 {
    let mut x = (number as u64).wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

impl CountingHandler {
    pub fn start(records: usize, failing: Failing) -> Self {
        let tally = Arc::new(Tally {
            failing,
            calls: (0..records).map(|_| AtomicU8::new(0)).collect(),
            all: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            again: AtomicUsize::new(0),
        });
        let counted = tally.clone();
        let (address, runtime) = serve(2, move |body| number_of(body).map_or(StatusCode::OK, |number| counted.call(number)));
        Self { address, tally, _runtime: runtime }
    }

    /// Calls so far.
    pub fn calls(&self) -> usize {
        self.tally.all.load(Ordering::Relaxed)
    }

    /// Records that are done.
    pub fn done(&self) -> usize {
        self.tally.done.load(Ordering::Relaxed)
    }

    /// Calls for records that were done already.
    pub fn again(&self) -> usize {
        self.tally.again.load(Ordering::Relaxed)
    }
}

fn serve(threads: usize, answer: impl Fn(&[u8]) -> StatusCode + Clone + Send + Sync + 'static) -> (SocketAddr, Runtime) {
    let runtime = Builder::new_multi_thread().worker_threads(threads).enable_all().build().expect("a runtime");
    let router = Router::new().route("/", post(move |body: Bytes| std::future::ready(answer(&body))));
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
    let address = listener.local_addr().expect("an address");
    runtime.spawn(async move { axum::serve(listener, router).await });
    (address, runtime)
}

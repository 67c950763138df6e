//! An HTTP handler that answers 200 at once and notes when it was called.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;

use crate::clock::epoch_micros;
use crate::load::number_of;
use crate::observer::Seen;

pub struct Handler {
    pub address: SocketAddr,
    calls: Arc<Mutex<Seen>>,
    _runtime: tokio::runtime::Runtime,
}

impl Handler {
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let calls: Arc<Mutex<Seen>> = Arc::default();
        let noted = calls.clone();
        let router = Router::new().route(
            "/",
            post(move |body: Bytes| {
                let now = epoch_micros();
                if let Some(number) = number_of(&body) {
                    noted.lock().unwrap_or_else(PoisonError::into_inner).push((number, now));
                }
                std::future::ready(())
            }),
        );
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("an address");
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { address, calls, _runtime: runtime }
    }

    pub fn count(&self) -> usize {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub fn calls(&self) -> Seen {
        std::mem::take(&mut self.calls.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

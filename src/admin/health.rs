//! Probes and metrics: no payloads, no authentication, reachable by the pod's IP.
//!
//! `/livez` answers as long as the process makes progress. It never depends on Kafka or the handler, since restarting a worker
//! would fix neither. `/readyz` says whether the workers have started and joined their groups; after that, it does not fail because
//! Kafka or the handler are down (a sidecar that is not ready takes its pod out of service, so their outage would become the
//! application's). It fails while the process drains.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use thiserror::Error;

use crate::admin::listener::{Bounds, Listener};
use crate::core::role::Role;
use crate::telemetry::exporter::Exporter;

/// Returns a message for operators, if there is one.
type Notice = Box<dyn Fn() -> Option<String> + Send + Sync>;

/// The state behind the probes; clones share it.
#[derive(Clone, Default)]
pub struct HealthState(Arc<Inner>);

#[derive(Default)]
struct Inner {
    workers: Mutex<Vec<Expected>>,
    notices: Mutex<Vec<Notice>>,
    started: AtomicBool,
    draining: AtomicBool,
}

#[derive(Debug)]
struct Expected {
    ladder: String,
    role: Role,
    joined: Joined,
}

/// Set by a worker when it has first joined its group.
#[derive(Debug, Clone, Default)]
pub struct Joined(Arc<AtomicBool>);

impl Joined {
    /// The worker has joined; repeated calls have no effect, and it cannot be undone.
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl HealthState {
    /// Before anything has started.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a worker, which must call [`Joined::set`].
    #[must_use]
    pub fn expect(&self, ladder: &str, role: Role) -> Joined {
        let joined = Joined::default();
        let expected = Expected { ladder: ladder.to_owned(), role, joined: joined.clone() };
        self.workers().push(expected);
        joined
    }

    /// Adds a message to `/readyz`, one line each, which does not affect readiness.
    pub fn notice(&self, says: impl Fn() -> Option<String> + Send + Sync + 'static) {
        self.0.notices.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(says));
    }

    fn notices(&self) -> String {
        let notices = self.0.notices.lock().unwrap_or_else(PoisonError::into_inner);
        notices.iter().filter_map(|says| says()).flat_map(|line| [line, "\n".to_owned()]).collect()
    }

    /// All workers are registered: from now on only they are waited for.
    pub fn started(&self) {
        self.0.started.store(true, Ordering::Release);
    }

    /// The process is shutting down.
    pub fn draining(&self) {
        self.0.draining.store(true, Ordering::Release);
    }

    /// Whether the process is ready.
    ///
    /// # Errors
    /// Why it is not.
    pub fn readiness(&self) -> Result<(), String> {
        if self.0.draining.load(Ordering::Acquire) {
            return Err("draining".to_owned());
        }
        if !self.0.started.load(Ordering::Acquire) {
            return Err("starting".to_owned());
        }
        let missing: Vec<String> = self
            .workers()
            .iter()
            .filter(|worker| !worker.joined.is_set())
            .map(|worker| format!("{} of {}", worker.role.as_str(), worker.ladder))
            .collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("not joined yet: {}", missing.join(", "))) }
    }

    fn workers(&self) -> std::sync::MutexGuard<'_, Vec<Expected>> {
        self.0.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The probes cannot be served.
#[derive(Debug, Error)]
pub enum HealthError {
    /// The address is in use.
    #[error("{0} is in use by another process: stop it, or change `listen` of [health]")]
    InUse(SocketAddr),
    /// The address cannot be listened on.
    #[error("cannot listen on {0} for the probes: change `listen` of [health]")]
    Listen(SocketAddr, #[source] io::Error),
}

/// Serves `/livez`, `/readyz` and `/metrics`.
pub struct HealthServer {
    listener: Listener,
    router: Router,
}

impl HealthServer {
    /// Binds the address; connections are answered once [`HealthServer::serve`] runs.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn bind(listen: SocketAddr, state: HealthState, exporter: Exporter) -> Result<Self, HealthError> {
        let listener = Listener::bind(listen, Bounds::SMALL).await.map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => HealthError::InUse(listen),
            _ => HealthError::Listen(listen, error),
        })?;
        let router = Router::new()
            .route("/livez", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .route("/metrics", get(move || std::future::ready(metrics(&exporter))))
            .with_state(state);
        Ok(Self { listener, router })
    }

    /// The listen address, with the actual port if 0 was requested.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Serves until `stop`; it should stop last, since `/readyz` must report that the process drains.
    pub async fn serve(self, stop: impl Future<Output = ()> + Send) {
        // Requests in flight are not waited for: a scraper that keeps its connection open would block the
        // shutdown.
        tokio::select! {
            () = self.listener.serve(self.router, std::future::pending()) => {}
            () = stop => {}
        }
    }
}

async fn readyz(State(state): State<HealthState>) -> (StatusCode, String) {
    let notices = state.notices();
    match state.readiness() {
        Ok(()) => (StatusCode::OK, format!("ok\n{notices}")),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n{notices}")),
    }
}

fn metrics(exporter: &Exporter) -> impl IntoResponse + use<> {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], exporter.render())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;
    use crate::telemetry::exporter;

    fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    async fn asked(address: SocketAddr, path: &'static str) -> String {
        tokio::task::spawn_blocking(move || get(address, path)).await.unwrap()
    }

    #[tokio::test]
    async fn probes_follow_the_workers() {
        let state = HealthState::new();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = HealthServer::bind(any, state.clone(), exporter::install()).await.unwrap();
        let address = server.address();
        let serving = tokio::spawn(server.serve(async { stopped.await.unwrap_or_default() }));

        assert!(asked(address, "/livez").await.starts_with("HTTP/1.1 200"));
        assert!(asked(address, "/readyz").await.ends_with("\r\n\r\nstarting\n"));
        let (mover, deliverer) = (state.expect("billing", Role::Mover), state.expect("billing", Role::Deliverer));
        state.started();
        mover.set();
        let waiting = asked(address, "/readyz").await;
        assert!(waiting.starts_with("HTTP/1.1 503") && waiting.contains("not joined yet: deliverer of billing"), "{waiting}");
        deliverer.set();
        assert!(asked(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        let metrics = asked(address, "/metrics").await;
        assert!(metrics.contains("content-type: text/plain; version=0.0.4"), "{metrics}");
        assert!(metrics.contains("kladder_build_info{"), "{metrics}");
        state.notice(|| Some("handler breaker of billing open".to_owned()));
        state.notice(|| None);
        assert!(asked(address, "/readyz").await.ends_with("\r\n\r\nok\nhandler breaker of billing open\n"));
        state.draining();
        assert!(asked(address, "/readyz").await.contains("\r\n\r\ndraining\n"));
        assert!(asked(address, "/livez").await.starts_with("HTTP/1.1 200"));
        assert!(asked(address, "/").await.starts_with("HTTP/1.1 404"));

        let _idle = TcpStream::connect(address).unwrap();
        stop.send(()).unwrap();
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn a_port_in_use_is_named_with_its_setting() {
        let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let error = HealthServer::bind(address, HealthState::new(), exporter::install()).await.err().unwrap();
        let expected = format!("{address} is in use by another process: stop it, or change `listen` of [health]");
        assert_eq!(error.to_string(), expected);
    }
}

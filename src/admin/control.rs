//! Requests that act on this process, for programs on the same machine (in Kubernetes: in the same
//! pod).
//!
//! - `POST /quiesce` stops starting deliveries and answers when those in flight have ended: `200`, or `504` with the number left when
//!   the drain deadline has passed (`?wait=5s` sets another one). So an application can stop without a delivery being interrupted, which
//!   would cost its attempt. `GET` returns the state, `DELETE` resumes deliveries. Movers and routers continue: what they write waits in
//!   Kafka.
//! - `GET /log` returns the log filter, `PUT /log` sets another until the process ends.
//!
//! It listens on loopback, without authentication: whoever can reach it could also stop the process. But a browser there can be made to
//! send requests by any page; so a request that comes from a page (`Origin`), or whose host name is not `localhost` (DNS rebinding), is
//! refused.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::admin::health::HealthState;
use crate::admin::listener::{Bounds, Listener};
use crate::telemetry::logging;
use crate::worker::quiet::Quiet;

/// The user's name, for the log and `/readyz`; optional.
pub const BY: &str = "kladder-by";

/// Maximum wait for quiet that a request may ask for.
pub const LONGEST_WAIT: Duration = Duration::from_secs(3_600);

/// Longer names are cut.
const LONGEST_BY: usize = 200;

/// Serves requests that act on the process.
pub struct ControlServer {
    listener: Listener,
    router: Router,
}

#[derive(Clone)]
struct Controlled {
    quiet: Quiet,
    drain: Duration,
    by: Arc<Mutex<String>>,
}

impl ControlServer {
    /// Binds the address. Requests wait for quiet at most `drain`, unless they ask for another time.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn bind(listen: SocketAddr, quiet: Quiet, drain: Duration, health: &HealthState) -> io::Result<Self> {
        let listener = Listener::bind(listen, Bounds::SMALL).await?;
        let by = Arc::<Mutex<String>>::default();
        let (notice, named) = (quiet.clone(), by.clone());
        let notice = move || {
            let by = named.lock().unwrap_or_else(PoisonError::into_inner);
            notice.is_asked().then(|| format!("quiesced: {} (by {by})", in_flight_text(notice.under_way())))
        };
        health.notice(notice);
        let router = Router::new()
            .route("/quiesce", get(standing).post(quiesce).delete(release))
            .route("/log", get(|| async { format!("{}\n", logging::filter_in_force()) }).put(set_filter))
            .layer(middleware::from_fn(refuse_pages))
            .with_state(Controlled { quiet, drain, by });
        Ok(Self { listener, router })
    }

    /// The listen address, with the actual port if 0 was requested.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Serves until it is dropped.
    pub async fn serve(self) {
        self.listener.serve(self.router, std::future::pending()).await;
    }
}

async fn refuse_pages(headers: HeaderMap, request: Request, next: Next) -> Response {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    if headers.contains_key(header::ORIGIN) || host.is_some_and(|host| !is_local(host)) {
        let why = "refused: only programs on this machine may send this, to localhost or its address, not web pages\n";
        return (StatusCode::FORBIDDEN, why).into_response();
    }
    next.run(request).await
}

/// Whether a `Host` header is an address or `localhost`; see RFC 9112, 3.2.
fn is_local(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && (!name.contains(':') || name.ends_with(']')) => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

async fn standing(State(controlled): State<Controlled>) -> String {
    let quiet = &controlled.quiet;
    let asked = if quiet.is_asked() { "quiesced" } else { "delivering" };
    format!("{asked}: {}\n", in_flight_text(quiet.under_way()))
}

async fn quiesce(State(controlled): State<Controlled>, uri: Uri, headers: HeaderMap) -> (StatusCode, String) {
    let wait = uri.query().and_then(|query| query.split('&').find_map(|part| part.strip_prefix("wait=")));
    let within = match wait.map(humantime::parse_duration) {
        None => controlled.drain,
        Some(Ok(within)) if within <= LONGEST_WAIT => within,
        Some(Ok(_)) => return (StatusCode::BAD_REQUEST, "wait: at most 1h\n".to_owned()),
        Some(Err(error)) => return (StatusCode::BAD_REQUEST, format!("wait: {error}; write it as 5s or 1m\n")),
    };
    {
        // The name is set before the quiet: `/readyz` reports both.
        let mut named = controlled.by.lock().unwrap_or_else(PoisonError::into_inner);
        if !controlled.quiet.is_asked() {
            *named = by(&headers);
        }
        if controlled.quiet.ask() {
            tracing::info!(
                by = *named,
                under_way = controlled.quiet.under_way(),
                "quiesced on request: starting no more deliveries"
            );
        }
    }
    match controlled.quiet.silence(within).await {
        0 => (StatusCode::OK, "quiet\n".to_owned()),
        left => (StatusCode::GATEWAY_TIMEOUT, format!("{}\n", in_flight_text(left))),
    }
}

async fn release(State(controlled): State<Controlled>, headers: HeaderMap) -> &'static str {
    if controlled.quiet.release() {
        tracing::info!(by = by(&headers), "resumed on request: starting deliveries again");
    }
    "delivering\n"
}

async fn set_filter(headers: HeaderMap, body: Bytes) -> (StatusCode, String) {
    let Ok(text) = std::str::from_utf8(&body) else { return (StatusCode::BAD_REQUEST, "not text\n".to_owned()) };
    match logging::set_filter(text.trim()) {
        Ok(()) => {
            tracing::info!(by = by(&headers), filter = text.trim(), "log filter set on request");
            (StatusCode::OK, format!("{}\n", logging::filter_in_force()))
        }
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")),
    }
}

/// The user's name, if given.
fn by(headers: &HeaderMap) -> String {
    let by = headers.get(BY).and_then(|by| by.to_str().ok()).map(str::trim).filter(|by| !by.is_empty());
    by.unwrap_or("somebody").chars().take(LONGEST_BY).collect()
}

fn in_flight_text(under_way: usize) -> String {
    match under_way {
        0 => "no delivery is in flight".to_owned(),
        1 => "1 delivery is in flight".to_owned(),
        many => format!("{many} deliveries are in flight"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_localhost_are_local() {
        for host in
            ["localhost", "localhost:9647", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:9647", "[::1]", "[::1]:9647", "10.0.0.7:80"]
        {
            assert!(is_local(host), "{host}");
        }
        for host in ["evil.example", "evil.example:9647", "localhost.evil.example", "", "127.0.0.1.evil.example", "[::1].evil:1"]
        {
            assert!(!is_local(host), "{host}");
        }
    }
}

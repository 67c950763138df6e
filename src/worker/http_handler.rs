//! The handler behind HTTP: one `POST` a delivery.
//!
//! What was never sent is told from what may have arrived, because only the latter burns an attempt: a delivery is unsent if no
//! connection came about, or if the connection closed before the client took the request up. Everything later is a retry, even if
//! the handler may have done the work: it knows the record by its `Idempotency-Key`.
//!
//! A connection that the handler has closed since its last answer is no exception worth an attempt: where a request fails at once on a
//! connection that was used before, and nothing of an answer was read, it is repeated on a fresh one (RFC 9112, section 9.3.1; the
//! `Idempotency-Key` makes the request one that may be repeated).
//!
//! Redirects are not followed: where deliveries go is said by the configuration alone.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{HeaderMap, RETRY_AFTER};
use http::uri::Scheme;
use http::{Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use thiserror::Error;
use tower_service::Service;

use crate::config::types::HandlerConfig;
use crate::core::classify::{Answer, Oddity, classify_answer};
use crate::core::delay::format_duration;
use crate::core::failure::{Failure, Verdict};
use crate::kafka::clock::Clock;
use crate::telemetry::events::HttpMetrics;
use crate::worker::delivery::Delivery;
use crate::worker::handler::Handler;
use crate::worker::http_connect::{Connector, any, chain, may_have_been_closed, not_connected, was_reset};
use crate::worker::http_request;

/// How long a connection may lie idle. Shorter than servers wait (Node closes after 5 s, others after a minute): the side that
/// sends must be the first to give a connection up, or it writes a request into one that is being closed.
const IDLE: Duration = Duration::from_secs(4);
/// A handler that has closed a connection says so at once to whoever writes to it. What fails later may have been worked on.
const AT_ONCE: Duration = Duration::from_millis(50);
/// How much of an answer becomes the error message.
const MESSAGE_BYTES: usize = 1024;
/// How much of an answer is read so that its connection can be used again; a new connection costs less than more than this.
const DRAIN_BYTES: usize = 64 * 1024;

/// Calls a handler over HTTP.
pub struct HttpHandler {
    client: Client<Connector, Full<Bytes>>,
    connector: Connector,
    /// Makes a connection for each request.
    fresh: Client<Connector, Full<Bytes>>,
    uri: Uri,
    timeout: Duration,
    metrics: HttpMetrics,
    clock: Clock,
}

/// A handler's URL that cannot be used. The URL itself is not repeated: it may hold a secret.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HandlerUrlError {
    /// Not a URL.
    #[error("the handler's url is no URL: write it as `http://127.0.0.1:3000/orders`")]
    NotAUrl,
    /// Another scheme.
    #[error("the handler's url has scheme `{0}`: use `http` or `https`")]
    Scheme(String),
    /// TLS is not built in.
    #[error("the handler's url is https, and this kladder was built without TLS: build it with the feature `tls`")]
    NoTls,
    /// User and password.
    #[error("the handler's url holds a user name or password, which would not be sent: take them out")]
    Credentials,
}

impl HttpHandler {
    /// Makes the client; connections come with the first deliveries.
    ///
    /// # Errors
    /// When the URL cannot be used.
    pub fn new(config: &HandlerConfig, metrics: HttpMetrics) -> Result<Self, HandlerUrlError> {
        Self::with_clock(config, metrics, Clock::system())
    }

    /// The same with another clock, for tests.
    ///
    /// # Errors
    /// When the URL cannot be used.
    pub fn with_clock(config: &HandlerConfig, metrics: HttpMetrics, clock: Clock) -> Result<Self, HandlerUrlError> {
        let uri = check(&config.url)?;
        let connector = Connector::new(config.timeout);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(config.max_in_flight)
            // A connection from the pool that proves closed before it took the request: another one is tried.
            .retry_canceled_requests(true)
            .build(connector.clone());
        let fresh = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector.clone());
        Ok(Self { client, connector, fresh, uri, timeout: config.timeout, metrics, clock })
    }

    async fn exchange(&self, delivery: &Delivery) -> Verdict {
        let response = self.ask(delivery).await?;
        let (answer, body) = self.read_head(response);
        let wanted = !(200..300).contains(&answer.status) || answer.verdict.is_some();
        let message = match read_body(body, wanted).await {
            Ok(message) => message,
            Err(error) => return Err(self.unreadable(&error)),
        };
        let (verdict, oddity) = classify_answer(&Answer { message, ..answer });
        if oddity != Oddity::None {
            self.metrics.odd_answer();
        }
        verdict
    }

    async fn ask(&self, delivery: &Delivery) -> Result<Response<Incoming>, Failure> {
        let began = self.clock.now();
        let error = match self.client.request(http_request::build(delivery, &self.uri)).await {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        if !may_have_been_closed(&error) || self.clock.now().since(began) > AT_ONCE {
            return Err(self.no_answer(&error));
        }
        // Where no other connection comes about it is the handler that is gone, perhaps over this record: the first one was lost.
        self.fresh
            .request(http_request::build(delivery, &self.uri))
            .await
            .map_err(|again| if again.is_connect() { self.no_answer(&error) } else { self.no_answer(&again) })
    }

    fn read_head(&self, response: Response<Incoming>) -> (Answer, Incoming) {
        let (head, body) = response.into_parts();
        let headers = &head.headers;
        let answer = Answer {
            status: head.status.as_u16(),
            verdict: text(headers, "kladder-verdict"),
            error_class: text(headers, "kladder-error-class").filter(|class| !class.is_empty()),
            retry_after: headers.get(RETRY_AFTER).and_then(|v| retry_after(v.to_str().ok()?, || self.clock.wall())),
            message: None,
        };
        (answer, body)
    }

    fn no_answer(&self, error: &legacy::Error) -> Failure {
        if error.is_connect() {
            let address = self.uri.authority().map_or("", |a| a.as_str());
            return not_connected(address, std::error::Error::source(error).unwrap_or(error));
        }
        // hyper gives a request back, as cancelled, only if it has not begun to write it.
        if any(error, |e| e.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled)) {
            return Failure::unsent("connection closed", chain(error));
        }
        if was_reset(error) {
            return Failure::connection_reset(chain(error));
        }
        match std::error::Error::source(error).and_then(|e| e.downcast_ref::<hyper::Error>()) {
            Some(error) => self.unreadable(error),
            None => Failure::connection_lost(chain(error)),
        }
    }

    fn unreadable(&self, error: &hyper::Error) -> Failure {
        if error.is_parse() {
            self.metrics.odd_answer();
            return Failure::retry("unreadable answer", chain(error));
        }
        Failure::connection_lost(chain(error))
    }
}

impl Handler for HttpHandler {
    async fn is_reachable(&self) -> bool {
        self.connector.clone().call(self.uri.clone()).await.is_ok()
    }

    async fn handle(&self, delivery: Delivery) -> Result<(), Failure> {
        match tokio::time::timeout(self.timeout, self.exchange(&delivery)).await {
            Ok(verdict) => verdict,
            Err(_) => Err(Failure::timed_out(format!("no complete answer within {}", format_duration(self.timeout)))),
        }
    }
}

fn check(url: &str) -> Result<Uri, HandlerUrlError> {
    let uri: Uri = url.trim().parse().map_err(|_| HandlerUrlError::NotAUrl)?;
    let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else { return Err(HandlerUrlError::NotAUrl) };
    if authority.as_str().contains('@') {
        return Err(HandlerUrlError::Credentials);
    }
    if authority.host().is_empty() {
        return Err(HandlerUrlError::NotAUrl);
    }
    if *scheme == Scheme::HTTPS && cfg!(not(feature = "tls")) {
        return Err(HandlerUrlError::NoTls);
    }
    if *scheme != Scheme::HTTP && *scheme != Scheme::HTTPS {
        return Err(HandlerUrlError::Scheme(scheme.to_string()));
    }
    Ok(uri)
}

fn text(headers: &HeaderMap, name: &'static str) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// Seconds from now or an HTTP date; one that has passed means at once. Anything else counts as absent.
fn retry_after(value: &str, now: impl Fn() -> SystemTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now()).unwrap_or(Duration::ZERO))
}

/// Reads an answer to its end so that the connection can be used again, and keeps its beginning where it is wanted.
///
/// An answer counts once it is complete: a 200 whose body breaks off comes from a handler that died over it. One that is too long
/// to be worth reading is the exception; dropping it closes the connection.
async fn read_body(mut body: Incoming, wanted: bool) -> Result<Option<String>, hyper::Error> {
    let mut kept = Vec::new();
    let mut read = 0;
    // Asked first: most answers have no body, and need no further turn of the runtime.
    while !body.is_end_stream() {
        let Some(frame) = body.frame().await else { break };
        let Ok(data) = frame?.into_data() else { continue };
        read += data.len();
        if wanted && kept.len() < MESSAGE_BYTES {
            kept.extend_from_slice(&data[..data.len().min(MESSAGE_BYTES - kept.len())]);
        }
        if read > DRAIN_BYTES {
            break;
        }
    }
    let message = String::from_utf8_lossy(&kept);
    let message = message.trim();
    Ok((!message.is_empty()).then(|| message.to_owned()))
}

#[cfg(test)]
#[path = "http_handler_tests.rs"]
mod tests;

//! The handler over HTTP: one `POST` per delivery.
//!
//! Deliveries that were never sent are distinguished from those that may have arrived, because only the latter cost an attempt: a
//! delivery is unsent if no connection was established, or if the connection was closed before the client began to write the
//! request. Everything later is a retry, even if the handler may have done the work: it knows the record by its
//! `Idempotency-Key`.
//!
//! A connection closed by the handler after its last answer should not cost an attempt: if a request fails at once on a connection
//! that was used before, and no part of an answer was read, it is repeated on a new one (RFC 9112, section 9.3.1; the
//! `Idempotency-Key` makes the request repeatable).
//!
//! Redirects are not followed: the target of deliveries comes from the configuration alone. The redirect's
//! target is reported.

use std::future::Future;
use std::pin::{Pin, pin};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, HeaderMap, LOCATION, RETRY_AFTER};
use http::uri::Scheme;
use http::{HeaderName, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use thiserror::Error;

use crate::config::redact;
use crate::config::types::HandlerConfig;
use crate::core::batch::{BatchFormat, BatchLimits, BatchVerdict};
use crate::core::classify::{HttpAnswer, Oddity, classify_answer};
use crate::core::delay::format_duration;
use crate::core::failure::{Failure, Verdict};
use crate::kafka::clock::Clock;
use crate::telemetry::events::HttpMetrics;
use crate::worker::delivery::Delivery;
use crate::worker::handler::Handler;
use crate::worker::http_batch;
use crate::worker::http_connect::{Connector, chain, not_connected};
use crate::worker::http_connections::{Connection, Connections, NotConnected};
use crate::worker::http_request::RequestLine;

/// A closed connection causes an error at once. A request that fails later may have been processed.
const AT_ONCE: Duration = Duration::from_millis(50);
/// Maximum size of the part of an answer that becomes the error message.
const MESSAGE_BYTES: usize = 1024;
/// Maximum size of the rest of an answer that is read to reuse its connection; beyond that a new connection is cheaper.
const DRAIN_BYTES: usize = 64 * 1024;

/// Calls a handler over HTTP.
pub struct HttpHandler {
    connections: Connections,
    request: RequestLine,
    batch: Option<(BatchLimits, BatchFormat)>,
    timeout: Duration,
    metrics: HttpMetrics,
    clock: Clock,
}

/// An invalid handler URL. The URL itself is not repeated: it may contain a secret.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HandlerUrlError {
    /// Not a URL.
    #[error("the handler's url is not a URL: write it as `http://127.0.0.1:3000/orders`")]
    NotAUrl,
    /// Another scheme.
    #[error("the handler's url has scheme `{0}`: use `http` or `https`")]
    Scheme(String),
    /// TLS is not built in.
    #[error("the handler's url is https, and this kladder was built without TLS: build it with the feature `tls`")]
    NoTls,
    /// User and password.
    #[error("the handler's url contains a user name or password, which would not be sent: remove them")]
    Credentials,
}

impl HttpHandler {
    /// Creates the client; connections are opened with the first deliveries.
    ///
    /// # Errors
    /// The URL is invalid.
    pub fn new(config: &HandlerConfig, metrics: HttpMetrics) -> Result<Self, HandlerUrlError> {
        Self::with_clock(config, metrics, Clock::system())
    }

    /// The same with another clock, for tests.
    ///
    /// # Errors
    /// The URL is invalid.
    pub fn with_clock(config: &HandlerConfig, metrics: HttpMetrics, clock: Clock) -> Result<Self, HandlerUrlError> {
        let uri = check(&config.url)?;
        let connections = Connections::new(Connector::new(config.timeout), uri.clone());
        Ok(Self { connections, request: RequestLine::new(&uri), batch: config.batch, timeout: config.timeout, metrics, clock })
    }

    async fn exchange(&self, delivery: &Delivery) -> Verdict {
        let (response, mut connection) = self.ask(&|| self.request.of(delivery)).await?;
        let (answer, body) = self.read_head(response);
        let wanted = !(200..300).contains(&answer.status) || answer.verdict.is_some();
        let most = if wanted && answer.message.is_none() { MESSAGE_BYTES } else { 0 };
        let (said, is_complete) = read_body(&mut connection, body, most, DRAIN_BYTES).await.map_err(|e| self.unreadable(&e))?;
        if is_complete {
            self.connections.keep(connection).await;
        }
        self.classify(answer, &said)
    }

    async fn exchange_batch(&self, batch: &[Delivery], format: BatchFormat) -> BatchVerdict {
        let body = http_batch::body(format, batch);
        let (response, mut connection) = self.ask(&|| self.request.of_batch(body.clone(), batch.len())).await?;
        let (answer, body) = self.read_head(response);
        let most = http_batch::ANSWER_BYTES;
        let (said, is_complete) = read_body(&mut connection, body, most, most).await.map_err(|e| self.unreadable(&e))?;
        if !is_complete {
            return Err(self.odd(format!("the answer is longer than {most} bytes")));
        }
        self.connections.keep(connection).await;
        let (has_verdict, unreadable) = (answer.verdict.is_some(), answer.message.clone());
        self.classify(answer, &said[..said.len().min(MESSAGE_BYTES)])?;
        if has_verdict {
            return Ok(Vec::new());
        }
        let failures = match unreadable {
            // It may name failures.
            Some(message) if !said.is_empty() => Err(message),
            _ => http_batch::failures(&said, batch),
        };
        failures.map_err(|message| self.odd(message))
    }

    /// Takes the exchange where it stands, since a future is large, and moving it costs as much as some system calls.
    async fn in_time<T>(&self, exchange: Pin<&mut impl Future<Output = Result<T, Failure>>>) -> Result<T, Failure> {
        match tokio::time::timeout(self.timeout, exchange).await {
            Ok(verdict) => verdict,
            Err(_) => Err(Failure::timed_out(format!("no complete answer within {}", format_duration(self.timeout)))),
        }
    }

    fn classify(&self, answer: HttpAnswer, said: &[u8]) -> Verdict {
        let said = String::from_utf8_lossy(said);
        let said = said.trim();
        let message = answer.message.clone().or_else(|| (!said.is_empty()).then(|| said.to_owned()));
        let (verdict, oddity) = classify_answer(&HttpAnswer { message, ..answer });
        if oddity != Oddity::None {
            self.metrics.odd_answer();
        }
        verdict
    }

    async fn ask(
        &self,
        request: &(dyn Fn() -> Request<Full<Bytes>> + Sync),
    ) -> Result<(Response<Incoming>, Connection), Failure> {
        while let Some(mut used) = self.connections.idle().await {
            let began = self.clock.now();
            let error = match used.send(request()).await {
                Ok(response) => return Ok((response, used)),
                // Closed before it took the request.
                Err(error) if error.is_canceled() => continue,
                Err(error) => error,
            };
            if !used.answers().may_have_been_closed() || self.clock.now().since(began) > AT_ONCE {
                return Err(self.no_answer(&error, &used));
            }
            // If no new connection can be opened, the handler is gone, perhaps because of this record: the first one was lost.
            let again = self.connections.open().await.map_err(|_| self.no_answer(&error, &used))?;
            return self.ask_over(again, request).await;
        }
        let new =
            self.connections.open().await.map_err(|NotConnected(error)| not_connected(self.request.address(), error.as_ref()))?;
        self.ask_over(new, request).await
    }

    async fn ask_over(
        &self,
        mut new: Connection,
        request: &(dyn Fn() -> Request<Full<Bytes>> + Sync),
    ) -> Result<(Response<Incoming>, Connection), Failure> {
        match new.send(request()).await {
            Ok(response) => Ok((response, new)),
            Err(error) => Err(self.no_answer(&error, &new)),
        }
    }

    fn read_head(&self, response: Response<Incoming>) -> (HttpAnswer, Incoming) {
        let (head, body) = response.into_parts();
        let headers = &head.headers;
        let answer = HttpAnswer {
            status: head.status.as_u16(),
            verdict: text(headers, "kladder-verdict"),
            error_class: text(headers, "kladder-error-class").filter(|class| !class.is_empty()),
            retry_after: headers.get(RETRY_AFTER).and_then(|v| retry_after(v.to_str().ok()?, || self.clock.wall())),
            message: instead_of_body(head.status, headers),
        };
        (answer, body)
    }

    fn no_answer(&self, error: &hyper::Error, connection: &Connection) -> Failure {
        // hyper returns a request as cancelled only if it has not begun to write it.
        if error.is_canceled() {
            return Failure::unsent("connection closed", chain(error));
        }
        if connection.answers().were_reset(error) {
            return Failure::connection_reset(chain(error));
        }
        self.unreadable(error)
    }

    /// An answer that cannot be understood.
    fn odd(&self, message: String) -> Failure {
        self.metrics.odd_answer();
        Failure::retry("unreadable answer", message)
    }

    fn unreadable(&self, error: &hyper::Error) -> Failure {
        if error.is_parse() {
            return self.odd(chain(error));
        }
        Failure::connection_lost(chain(error))
    }
}

impl Handler for HttpHandler {
    async fn is_reachable(&self) -> bool {
        self.connections.is_reachable().await
    }

    async fn handle(&self, delivery: Delivery) -> Result<(), Failure> {
        let exchange = pin!(self.exchange(&delivery));
        self.in_time(exchange).await
    }

    fn batch_limits(&self) -> Option<BatchLimits> {
        self.batch.map(|(limits, _)| limits)
    }

    async fn handle_batch(&self, batch: Vec<Delivery>) -> BatchVerdict {
        let format = self.batch.map(|(_, format)| format).unwrap_or_default();
        let exchange = pin!(self.exchange_batch(&batch, format));
        self.in_time(exchange).await
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
    if *scheme == Scheme::HTTPS && cfg!(not(feature = "tls-system")) {
        return Err(HandlerUrlError::NoTls);
    }
    if *scheme != Scheme::HTTP && *scheme != Scheme::HTTPS {
        return Err(HandlerUrlError::Scheme(scheme.to_string()));
    }
    Ok(uri)
}

/// The message in place of an unreadable or redirecting answer's body: its encoding, or the redirect's target.
fn instead_of_body(status: StatusCode, headers: &HeaderMap) -> Option<String> {
    let value = |name: HeaderName| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    if let Some(location) = value(LOCATION).filter(|_| status.is_redirection()) {
        // Queries of login pages are long, and may contain secrets; the URL to configure has none.
        let leads = redact::hide_in_urls(location.split(['?', '#']).next().unwrap_or_default());
        return Some(format!("redirected to {leads}, which is not followed: set `url` of the handler to the right address"));
    }
    let coding = value(CONTENT_ENCODING).filter(|coding| !coding.trim().eq_ignore_ascii_case("identity"))?;
    Some(format!("the answer is not readable: its content-encoding is {coding}, although identity was asked for"))
}

fn text(headers: &HeaderMap, name: &'static str) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// Seconds from now or an HTTP date; a past one means at once. Anything else counts as absent.
fn retry_after(value: &str, now: impl Fn() -> SystemTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now()).unwrap_or(Duration::ZERO))
}

/// Reads an answer to its end so that the connection can be reused, but not much more than `most` bytes, and keeps its beginning, of
/// `wanted` bytes.
///
/// An answer counts once it is complete: a 200 with a truncated body comes from a handler that died while sending it. An answer
/// too long to be worth reading is the exception; dropping it closes the connection. Returns whether it was read to its end.
async fn read_body(
    connection: &mut Connection,
    mut body: Incoming,
    wanted: usize,
    most: usize,
) -> Result<(Vec<u8>, bool), hyper::Error> {
    let mut kept = Vec::new();
    let mut read = 0;
    // Checked first: most answers have no body, and need no further turn of the runtime.
    while !body.is_end_stream() {
        let Some(frame) = connection.drive(body.frame()).await else { break };
        let Ok(data) = frame?.into_data() else { continue };
        read += data.len();
        kept.extend_from_slice(&data[..data.len().min(wanted.saturating_sub(kept.len()))]);
        if read > most {
            break;
        }
    }
    Ok((kept, read <= most))
}

#[cfg(test)]
#[path = "http_handler_tests.rs"]
mod tests;

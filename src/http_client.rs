//! HTTP requests that a command waits for: to a worker's listeners and to a schema registry.
//!
//! Each request uses a new connection: requests are few, and no connection goes stale. Redirects are not followed. Calls block: not
//! for use in a runtime.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use thiserror::Error;
use tokio::runtime::Runtime;

#[cfg(feature = "tls-system")]
type Connector = hyper_tls::HttpsConnector<HttpConnector>;
#[cfg(not(feature = "tls-system"))]
type Connector = HttpConnector;

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum HttpError {
    /// The client or the request could not be created.
    #[error("cannot create the HTTP client: {0}")]
    Client(#[source] Box<dyn Error + Send + Sync>),
    /// Connection failed or broken; with all causes.
    #[error("{0}")]
    Away(String),
    /// It took too long.
    #[error("timed out waiting for an answer")]
    TooSlow,
    /// The body broke off, or is larger than allowed.
    #[error("{0}")]
    Body(String),
}

/// Sends requests one after the other.
pub struct HttpClient {
    client: Client<Connector, Full<Bytes>>,
    runtime: Runtime,
    largest: usize,
}

impl HttpClient {
    /// Creates a client, without a request. Answers above `largest` bytes are refused.
    ///
    /// # Errors
    /// The runtime cannot be created.
    pub fn new(largest: usize) -> Result<Self, HttpError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| HttpError::Client(error.into()))?;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        #[cfg(feature = "tls-system")]
        let tcp = hyper_tls::HttpsConnector::new_with_connector(tcp);
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(tcp);
        Ok(Self { client, runtime, largest })
    }

    /// Sends a request and waits for the whole answer, whatever its status; connecting included, at most `within`.
    ///
    /// # Errors
    /// There is no answer in time, or it cannot be read.
    pub fn send(&self, request: Request<Full<Bytes>>, within: Duration) -> Result<Response<Bytes>, HttpError> {
        let exchange = async {
            let response = self.client.request(request).await.map_err(|error| HttpError::Away(chain(&error)))?;
            let (head, body) = response.into_parts();
            let body = match Limited::new(body, self.largest).collect().await {
                Ok(body) => body.to_bytes(),
                // A refusal is one, whatever comes with it.
                Err(_) if !head.status.is_success() => Bytes::new(),
                Err(error) => return Err(HttpError::Body(error.to_string())),
            };
            Ok(Response::from_parts(head, body))
        };
        self.runtime.block_on(async { tokio::time::timeout(within, exchange).await.map_err(|_| HttpError::TooSlow)? })
    }
}

impl std::fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpClient").field("largest", &self.largest).finish_non_exhaustive()
    }
}

/// An error with its causes, on one line.
fn chain(error: &(dyn Error + 'static)) -> String {
    let causes: Vec<String> = std::iter::successors(Some(error), |&e| e.source()).map(ToString::to_string).collect();
    causes.join(": ")
}

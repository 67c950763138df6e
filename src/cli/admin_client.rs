//! HTTP client for the admin interface of the worker on this machine.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;

use crate::admin::control::BY;
use crate::cli::who::who;
use crate::http_client::HttpClient;

/// How long a worker may take to answer, on top of the wait that the request asks for.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Limit on the answer's size; no answer comes near it.
const LARGEST_ANSWER: usize = 64 * 1024;

/// Sends a request in the user's name and returns status and body; the status may be a refusal.
pub fn ask(
    admin: SocketAddr,
    method: Method,
    path_and_query: &str,
    body: &str,
    wait: Duration,
) -> anyhow::Result<(StatusCode, String)> {
    if admin.port() == 0 {
        bail!("[admin] listen has port 0, so the system chooses the port: set `listen` to the address in the worker's log");
    }
    // A user name may contain characters that a header may not.
    let by: String = who().chars().map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect();
    let request = Request::builder()
        .method(method)
        .uri(format!("http://{admin}{path_and_query}"))
        .header(BY, by)
        .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))?;
    let answered = HttpClient::new(LARGEST_ANSWER).and_then(|client| client.send(request, wait + ANSWER_WITHIN));
    let answer = answered.with_context(|| {
        format!(
            "cannot reach a worker at {admin}, the address of [admin]: is one running on this machine with this configuration?"
        )
    })?;
    Ok((answer.status(), String::from_utf8_lossy(answer.body()).into_owned()))
}

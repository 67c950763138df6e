//! Asks the admin interface of a worker on this machine.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

use crate::admin::control::BY;
use crate::cli::who::who;

/// How long a worker may take to answer, beyond what it was told to wait.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// More than it has to say.
const LARGEST_ANSWER: usize = 64 * 1024;

/// Asks for something in the name of who is at the keyboard, and gives what was answered, which may be a refusal.
pub fn ask(
    admin: SocketAddr,
    method: Method,
    path_and_query: &str,
    body: &str,
    wait: Duration,
) -> anyhow::Result<(StatusCode, String)> {
    if admin.port() == 0 {
        bail!("the file lets the system choose the port of [admin]: write the one that the worker's log names into `listen`");
    }
    // A name of a person may hold what a header may not.
    let by: String = who().chars().map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect();
    let request = Request::builder()
        .method(method)
        .uri(format!("http://{admin}{path_and_query}"))
        .header(BY, by)
        .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))?;
    let asked = async {
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let response = client.request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await.map_err(anyhow::Error::from_boxed)?;
        anyhow::Ok((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answered = runtime.block_on(async { tokio::time::timeout(wait + ANSWER_WITHIN, asked).await });
    answered
        .context("no answer in time")
        .and_then(|answered| answered)
        .with_context(|| format!("no worker can be asked at {admin}, the address of [admin]: does one run here, with this file?"))
}

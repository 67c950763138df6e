//! `kladder stub`: a handler that fails on request.
//!
//! It keeps no state: the outcome of a delivery follows from the record's `Idempotency-Key`, the seed and `Kladder-Attempt` alone.
//! So it can be killed, restarted and run several times over, and a script can predict which records end in the DLQ.

use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Request, StatusCode};
use clap::Args;
use http_body_util::BodyExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use crate::admin::listener::{Bounds, Listener};
use crate::cli::descriptors;
use crate::cli::exit::Exit;
use crate::cli::output::{self, PrintError, tell};
use crate::core::fnv::{OFFSET, fnv};
use crate::dlq::private;
use crate::kafka::clock::Clock;

/// How long shutdown waits for requests in flight.
const DRAIN: Duration = Duration::from_secs(5);

/// Run a flaky handler for tests
///
/// The Idempotency-Key and the seed decide which records fail, the Kladder-Attempt header decides when they stop failing: the
/// same record has the same outcome in every run. Requests without an Idempotency-Key succeed.
#[derive(Debug, Args)]
pub struct StubArgs {
    /// Listen address; port 0 takes a free port
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
    /// Share of records that fail: a third of them once, a third twice, a third always
    #[arg(long, value_name = "SHARE", default_value = "0.3", value_parser = share)]
    fail_rate: f64,
    /// Number of times that a failing record fails before it succeeds, instead of once, twice or
    /// always
    #[arg(long, value_name = "N")]
    fail_times: Option<u32>,
    /// Share of records that are rejected at once (422)
    #[arg(long, value_name = "SHARE", default_value = "0.0", value_parser = share)]
    reject_rate: f64,
    /// Status of a failure
    #[arg(long, value_name = "STATUS", default_value = "503", value_parser = status)]
    status: StatusCode,
    /// Time to wait before each answer, such as 250ms
    #[arg(long, value_name = "DURATION", default_value = "0ms", value_parser = humantime::parse_duration)]
    delay: Duration,
    /// Seed that selects the failing records
    #[arg(long, value_name = "N", default_value = "0")]
    seed: u64,
    /// Append a JSON line per request to this file before answering
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Print nothing per request
    #[arg(long, short)]
    quiet: bool,
}

pub fn run(args: StubArgs) -> anyhow::Result<Exit> {
    if args.fail_rate + args.reject_rate > 1.0 {
        tell!("error: --fail-rate and --reject-rate are shares of all records: their sum must be at most 1");
        return Ok(Exit::Usage);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(serve(args))
}

async fn serve(args: StubArgs) -> anyhow::Result<Exit> {
    let record = args.record.as_ref().map(|path| {
        // The file contains keys of records.
        let file = private::append_to_file(path);
        file.with_context(|| format!("cannot write to {}", path.display()))
    });
    descriptors::raise_limit();
    let listener = Listener::bind(args.listen, Bounds::HANDLER).await;
    let listener = listener.with_context(|| format!("cannot listen on {}: choose another --listen", args.listen))?;
    let address = listener.address();
    let stub = Arc::new(Stub {
        plan: StubPlan::from(&args),
        delay: args.delay,
        quiet: args.quiet,
        record: record.transpose()?.map(Mutex::new),
        clock: Clock::system(),
        counts: StubCounts::default(),
        stop: Notify::new(),
        unprintable: OnceLock::new(),
    });
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tell!("listening on http://{address}");

    let router = Router::new().fallback(answer).with_state(stub.clone());
    let draining = Arc::new(Notify::new());
    let drain = draining.clone();
    let mut serving = std::pin::pin!(listener.serve(router, async move { drain.notified().await }));
    tokio::select! {
        () = &mut serving => {}
        () = stub.stop.notified() => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    draining.notify_one();
    tokio::select! {
        () = &mut serving => {}
        () = tokio::time::sleep(DRAIN) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tell!("{}", stub.counts.summary());
    if let Some(error) = stub.unprintable.get() {
        tell!("error: {error}: {}", error.0);
        return Ok(Exit::Failed);
    }
    Ok(Exit::Done)
}

struct Stub {
    plan: StubPlan,
    delay: Duration,
    quiet: bool,
    record: Option<Mutex<File>>,
    clock: Clock,
    counts: StubCounts,
    /// stdout is closed: nobody reads any more.
    stop: Notify,
    /// Why printing failed.
    unprintable: OnceLock<PrintError>,
}

#[derive(Debug, Default)]
struct StubCounts {
    done: AtomicU64,
    failed: AtomicU64,
    rejected: AtomicU64,
}

impl StubCounts {
    fn count(&self, outcome: StubOutcome) {
        let counter = match outcome {
            StubOutcome::Done => &self.done,
            StubOutcome::Fail => &self.failed,
            StubOutcome::Reject => &self.rejected,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn summary(&self) -> String {
        let [done, failed, rejected] = [&self.done, &self.failed, &self.rejected].map(|c| c.load(Ordering::Relaxed));
        let all = done + failed + rejected;
        format!("{all} request{}: {done} done, {failed} failed, {rejected} rejected", if all == 1 { "" } else { "s" })
    }
}

/// Which records fail, and how often.
#[derive(Debug, Clone, Copy)]
struct StubPlan {
    fail_rate: f64,
    fail_times: Option<u32>,
    reject_rate: f64,
    status: StatusCode,
    seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StubOutcome {
    Done,
    Fail,
    Reject,
}

impl From<&StubArgs> for StubPlan {
    fn from(args: &StubArgs) -> Self {
        let StubArgs { fail_rate, fail_times, reject_rate, status, seed, .. } = *args;
        Self { fail_rate, fail_times, reject_rate, status, seed }
    }
}

impl StubPlan {
    fn outcome(&self, id: &str, attempt: u32) -> StubOutcome {
        if id.is_empty() {
            return StubOutcome::Done;
        }
        let hash = hash(id, self.seed);
        let place = unit(hash);
        if place < self.reject_rate {
            return StubOutcome::Reject;
        }
        if place >= self.reject_rate + self.fail_rate {
            return StubOutcome::Done;
        }
        // Other bits than those that selected the record.
        let times = self.fail_times.unwrap_or(match mix(hash) % 3 {
            0 => 1,
            1 => 2,
            _ => u32::MAX,
        });
        if attempt <= times { StubOutcome::Fail } else { StubOutcome::Done }
    }

    fn status(&self, outcome: StubOutcome) -> StatusCode {
        match outcome {
            StubOutcome::Done => StatusCode::OK,
            StubOutcome::Fail => self.status,
            StubOutcome::Reject => StatusCode::UNPROCESSABLE_ENTITY,
        }
    }
}

async fn answer(State(stub): State<Arc<Stub>>, request: Request<Body>) -> (StatusCode, &'static str) {
    let (head, mut body) = request.into_parts();
    // Read to the end; otherwise the connection could not be reused.
    while let Some(Ok(_)) = body.frame().await {}
    let seen = StubRequest::from(&head.headers);
    let outcome = stub.plan.outcome(&seen.id, seen.attempt);
    let status = stub.plan.status(outcome);
    if !stub.delay.is_zero() {
        tokio::time::sleep(stub.delay).await;
    }
    if let Some(file) = &stub.record {
        let line = seen.json(status, stub.clock.now().timestamp().as_millis());
        // One write, no buffer: the line is in the file before the answer is sent, so that a script can rely on it.
        let written = file.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes());
        if let Err(error) = written {
            tell!("error: cannot record a request: {error}");
            return (StatusCode::INTERNAL_SERVER_ERROR, "cannot record\n");
        }
    }
    stub.counts.count(outcome);
    if !stub.quiet {
        match output::print_one_more(&seen.line(status)) {
            Ok(true) => {}
            Ok(false) => stub.stop.notify_one(),
            Err(error) => {
                let _ = stub.unprintable.set(error);
                stub.stop.notify_one();
            }
        }
    }
    (status, if outcome == StubOutcome::Done { "" } else { "the stub fails as configured\n" })
}

/// What a request says about its record.
pub(super) struct StubRequest {
    pub id: String,
    pub attempt: u32,
    topic: String,
    pub partition: Option<i32>,
    pub offset: Option<i64>,
    pub key: Option<String>,
    key_encoding: Option<String>,
}

impl From<&HeaderMap> for StubRequest {
    fn from(headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
        Self {
            id: text("idempotency-key").map(unquoted).unwrap_or_default(),
            attempt: text("kladder-attempt").and_then(|a| a.parse().ok()).unwrap_or(1),
            topic: text("kladder-topic").unwrap_or_default().to_owned(),
            partition: text("kladder-partition").and_then(|p| p.parse().ok()),
            offset: text("kladder-offset").and_then(|o| o.parse().ok()),
            key: text("kladder-key").map(str::to_owned),
            key_encoding: text("kladder-key-encoding").map(str::to_owned),
        }
    }
}

impl StubRequest {
    fn json(&self, status: StatusCode, time: i64) -> String {
        let mut line = serde_json::json!({
            "id": self.id, "attempt": self.attempt, "status": status.as_u16(), "time": time,
            "topic": self.topic, "partition": self.partition, "offset": self.offset, "key": self.key,
        });
        if let Some(encoding) = &self.key_encoding {
            line["key_encoding"] = encoding.as_str().into();
        }
        format!("{line}\n")
    }

    fn line(&self, status: StatusCode) -> String {
        let Self { attempt, topic, .. } = self;
        match (self.partition, self.offset) {
            (Some(partition), Some(offset)) => {
                format!("attempt {attempt}  {topic}/{partition}@{offset}  {}\n", status.as_u16())
            }
            _ => format!("attempt {attempt}  -  {}\n", status.as_u16()),
        }
    }
}

/// The content of a quoted string; text that is not quoted is taken as it is.
fn unquoted(text: &str) -> String {
    let Some(inner) = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')) else { return text.to_owned() };
    let mut out = String::with_capacity(inner.len());
    let mut escaped = false;
    for c in inner.chars() {
        if c == '\\' && !escaped {
            escaped = true;
        } else {
            escaped = false;
            out.push(c);
        }
    }
    out
}

/// FNV-1a with a final mix. Own code instead of the standard library's hasher, which may change with a release and would change
/// every outcome.
fn hash(id: &str, seed: u64) -> u64 {
    mix(fnv(OFFSET, id.as_bytes()) ^ mix(seed))
}

/// The finaliser of splitmix64.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// From 0 to below 1.
#[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
fn unit(hash: u64) -> f64 {
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("a share must be from 0 to 1".to_owned()),
    }
}

fn status(text: &str) -> Result<StatusCode, String> {
    let status = text.parse().ok().filter(|s: &StatusCode| (300..=999).contains(&s.as_u16()));
    status.ok_or_else(|| "the status of a failure must be from 300 to 999".to_owned())
}

#[cfg(test)]
#[path = "stub_tests.rs"]
mod tests;

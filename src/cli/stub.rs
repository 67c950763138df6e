//! `kladder stub`: a handler that fails as it is told to.
//!
//! It keeps nothing: what becomes of a delivery follows from the record's `Idempotency-Key`, the seed and `Kladder-Attempt` alone,
//! so it may be killed, restarted and run several times over, and a script can know beforehand which records end in the DLQ.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::serve::ListenerExt;
use clap::Args;
use http_body_util::BodyExt;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use crate::cli::exit::Exit;
use crate::core::fnv::{OFFSET, fnv};
use crate::kafka::clock::Clock;

/// How long deliveries in flight are waited for at the end.
const DRAIN: Duration = Duration::from_secs(5);

/// A flaky handler to try against
///
/// Which records fail is decided by their Idempotency-Key and the seed, how often by the Kladder-Attempt header: the same record
/// fares the same in every run. Requests without an Idempotency-Key succeed.
#[derive(Debug, Args)]
pub struct StubArgs {
    /// Where to listen; port 0 takes any that is free
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
    /// Share of the records that fail: a third of them once, a third twice, a third always
    #[arg(long, value_name = "SHARE", default_value = "0.3", value_parser = share)]
    fail_rate: f64,
    /// How often a failing record fails before it succeeds, instead of once, twice or always
    #[arg(long, value_name = "N")]
    fail_times: Option<u32>,
    /// Share of the records that are rejected at once (422)
    #[arg(long, value_name = "SHARE", default_value = "0.0", value_parser = share)]
    reject_rate: f64,
    /// Status of a failure
    #[arg(long, value_name = "STATUS", default_value = "503", value_parser = status)]
    status: StatusCode,
    /// How long each answer takes, such as 250ms
    #[arg(long, value_name = "DURATION", default_value = "0ms", value_parser = humantime::parse_duration)]
    delay: Duration,
    /// Another seed lets other records fail
    #[arg(long, value_name = "N", default_value = "0")]
    seed: u64,
    /// Append a JSON line per request to this file, before the request is answered
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Print nothing per request
    #[arg(long, short)]
    quiet: bool,
}

pub fn run(args: StubArgs) -> anyhow::Result<Exit> {
    if args.fail_rate + args.reject_rate > 1.0 {
        eprintln!("error: --fail-rate and --reject-rate are shares of all records and together at most 1");
        return Ok(Exit::Usage);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(serve(args))
}

async fn serve(args: StubArgs) -> anyhow::Result<Exit> {
    let record = args.record.as_ref().map(|path| {
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.with_context(|| format!("cannot write to {}", path.display()))
    });
    let listener = TcpListener::bind(args.listen).await;
    let listener = listener.with_context(|| format!("cannot listen on {}: choose another --listen", args.listen))?;
    let address = listener.local_addr()?;
    let stub = Arc::new(Stub {
        plan: Plan::from(&args),
        delay: args.delay,
        quiet: args.quiet,
        record: record.transpose()?.map(Mutex::new),
        clock: Clock::system(),
        counts: Counts::default(),
        stop: Notify::new(),
    });
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    eprintln!("listening on http://{address}");

    let router = Router::new().fallback(answer).with_state(stub.clone());
    // Answers are small: they leave at once.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    let draining = Arc::new(Notify::new());
    let drain = draining.clone();
    let serving = axum::serve(listener, router).with_graceful_shutdown(async move { drain.notified().await });
    let mut serving = std::pin::pin!(serving.into_future());
    tokio::select! {
        result = &mut serving => result?,
        () = stub.stop.notified() => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    draining.notify_one();
    tokio::select! {
        result = &mut serving => result?,
        () = tokio::time::sleep(DRAIN) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    eprintln!("{}", stub.counts.summary());
    Ok(Exit::Done)
}

struct Stub {
    plan: Plan,
    delay: Duration,
    quiet: bool,
    record: Option<Mutex<File>>,
    clock: Clock,
    counts: Counts,
    /// Stdout is closed: nobody watches any more.
    stop: Notify,
}

#[derive(Debug, Default)]
struct Counts {
    done: AtomicU64,
    failed: AtomicU64,
    rejected: AtomicU64,
}

impl Counts {
    fn count(&self, outcome: Outcome) {
        let counter = match outcome {
            Outcome::Done => &self.done,
            Outcome::Fail => &self.failed,
            Outcome::Reject => &self.rejected,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn summary(&self) -> String {
        let [done, failed, rejected] = [&self.done, &self.failed, &self.rejected].map(|c| c.load(Ordering::Relaxed));
        format!("{} requests: {done} done, {failed} failed, {rejected} rejected", done + failed + rejected)
    }
}

/// Which records fail, and how.
#[derive(Debug, Clone, Copy)]
struct Plan {
    fail_rate: f64,
    fail_times: Option<u32>,
    reject_rate: f64,
    status: StatusCode,
    seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    Fail,
    Reject,
}

impl From<&StubArgs> for Plan {
    fn from(args: &StubArgs) -> Self {
        let StubArgs { fail_rate, fail_times, reject_rate, status, seed, .. } = *args;
        Self { fail_rate, fail_times, reject_rate, status, seed }
    }
}

impl Plan {
    fn outcome(&self, id: &str, attempt: u32) -> Outcome {
        if id.is_empty() {
            return Outcome::Done;
        }
        let hash = hash(id, self.seed);
        let place = unit(hash);
        if place < self.reject_rate {
            return Outcome::Reject;
        }
        if place >= self.reject_rate + self.fail_rate {
            return Outcome::Done;
        }
        // Other bits than those that made the place.
        let times = self.fail_times.unwrap_or(match mix(hash) % 3 {
            0 => 1,
            1 => 2,
            _ => u32::MAX,
        });
        if attempt <= times { Outcome::Fail } else { Outcome::Done }
    }

    fn status(&self, outcome: Outcome) -> StatusCode {
        match outcome {
            Outcome::Done => StatusCode::OK,
            Outcome::Fail => self.status,
            Outcome::Reject => StatusCode::UNPROCESSABLE_ENTITY,
        }
    }
}

async fn answer(State(stub): State<Arc<Stub>>, request: Request<Body>) -> (StatusCode, &'static str) {
    let (head, mut body) = request.into_parts();
    // Read to its end, or the connection could not be used again.
    while let Some(Ok(_)) = body.frame().await {}
    let seen = Seen::from(&head.headers);
    let outcome = stub.plan.outcome(&seen.id, seen.attempt);
    let status = stub.plan.status(outcome);
    if !stub.delay.is_zero() {
        tokio::time::sleep(stub.delay).await;
    }
    if let Some(file) = &stub.record {
        let line = seen.json(status, stub.clock.now().timestamp().as_millis());
        // One write, no buffer: the line is in the file before the answer leaves, so that a script can reckon with it.
        let written = file.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes());
        if let Err(error) = written {
            eprintln!("error: cannot record a request: {error}");
            return (StatusCode::INTERNAL_SERVER_ERROR, "cannot record\n");
        }
    }
    stub.counts.count(outcome);
    if !stub.quiet && io::stdout().lock().write_all(seen.line(status).as_bytes()).is_err() {
        stub.stop.notify_one();
    }
    (status, if outcome == Outcome::Done { "" } else { "the stub fails as it was told to\n" })
}

/// What a request tells of its record.
pub(super) struct Seen {
    pub id: String,
    pub attempt: u32,
    topic: String,
    pub partition: Option<i32>,
    pub offset: Option<i64>,
    pub key: Option<String>,
    key_encoding: Option<String>,
}

impl From<&HeaderMap> for Seen {
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

impl Seen {
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

/// FNV-1a, stirred. Own code and not the standard library's hasher: that one may change with a release, and with it every verdict.
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
        _ => Err("a share lies between 0 and 1".to_owned()),
    }
}

fn status(text: &str) -> Result<StatusCode, String> {
    let status = text.parse().ok().filter(|s: &StatusCode| (300..=999).contains(&s.as_u16()));
    status.ok_or_else(|| "the status of a failure is a number from 300 to 999".to_owned())
}

#[cfg(test)]
#[path = "stub_tests.rs"]
mod tests;

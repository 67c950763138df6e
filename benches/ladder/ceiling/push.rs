//! The ceiling of a push: the simplest loop that posts records to a handler, from the same consumer as kladder's and by the same HTTP
//! library, with one connection for each place.
//!
//! It does only what any deliverer must do: take a record, send it with the headers that tell what it is, and read the answer. It
//! ignores what the answer says, waits for nothing else, and commits once, at the end. It runs in a process of its own, as kladder
//! does, so that the processor time of both is measured alike; on one thread, since that is the cheapest, and a second one would
//! find no processor that is free.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Body;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::worker;

const AGENT: HeaderValue = HeaderValue::from_static(concat!("kladder/", env!("CARGO_PKG_VERSION")));
const IDENTITY: HeaderValue = HeaderValue::from_static("identity");
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const TOPIC: HeaderName = HeaderName::from_static("kladder-topic");
const PARTITION: HeaderName = HeaderName::from_static("kladder-partition");
const OFFSET: HeaderName = HeaderName::from_static("kladder-offset");
const TIMESTAMP: HeaderName = HeaderName::from_static("kladder-timestamp");
const ATTEMPT: HeaderName = HeaderName::from_static("kladder-attempt");
const ATTEMPTS_LEFT: HeaderName = HeaderName::from_static("kladder-attempts-left");
const KEY: HeaderName = HeaderName::from_static("kladder-key");

/// The first argument of the process.
pub const COMMAND: &str = "ceiling-of-a-push";

/// What the loop is told.
#[derive(Serialize, Deserialize)]
pub struct Work {
    pub servers: String,
    pub ladder: String,
    pub topic: String,
    pub partitions: i32,
    pub records: usize,
    pub handler: SocketAddr,
    pub in_flight: usize,
}

/// The cost of the deliveries.
#[derive(Serialize, Deserialize)]
pub struct Pushed {
    /// From the assignment until everything is answered and committed.
    pub time: Duration,
    /// CPU time, in seconds.
    pub cpu: f64,
}

/// Runs the loop in a process of its own.
pub fn push(work: &Work) -> Pushed {
    let mut command = Command::new(std::env::current_exe().expect("the benchmark's own path"));
    command.arg(COMMAND).arg(serde_json::to_string(work).expect("JSON")).stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output().expect("a process");
    assert!(output.status.success(), "the ceiling of a push failed");
    serde_json::from_slice(&output.stdout).expect("what it measured")
}

/// The loop, in that process.
pub fn run(work: &str) {
    let work: Work = serde_json::from_str(work).expect("what to do");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let source = Arc::new(Source::new(&work));
    let (began, cpu) = (Instant::now(), worker::cpu_of("self"));
    runtime.block_on(async {
        let mut places = JoinSet::new();
        for _ in 0..work.in_flight {
            places.spawn(place(source.clone(), work.handler));
        }
        while let Some(ended) = places.join_next().await {
            ended.expect("a place that ends well");
        }
    });
    source.commit();
    let pushed = Pushed { time: began.elapsed(), cpu: worker::cpu_of("self") - cpu };
    println!("{}", serde_json::to_string(&pushed).expect("JSON"));
}

/// One delivery at a time on a connection of its own.
async fn place(source: Arc<Source>, handler: SocketAddr) {
    let stream = TcpStream::connect(handler).await.expect("a handler that listens");
    stream.set_nodelay(true).expect("a connection");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("a connection");
    let mut connection = pin!(connection);
    while let Some(request) = source.next().await {
        beside(connection.as_mut(), sender.ready()).await.expect("a connection that stays open");
        let answer = beside(connection.as_mut(), sender.send_request(request)).await.expect("an answer");
        let mut body = answer.into_body();
        while !body.is_end_stream() {
            let Some(frame) = beside(connection.as_mut(), body.frame()).await else { break };
            frame.expect("a complete answer");
        }
    }
}

/// Drives the connection within the task that waits for it, which saves a second one and its wake-ups.
async fn beside<T>(mut connection: Pin<&mut impl Future>, wanted: impl Future<Output = T>) -> T {
    let mut wanted = pin!(wanted);
    poll_fn(|context| {
        if let Poll::Ready(value) = wanted.as_mut().poll(context) {
            return Poll::Ready(value);
        }
        assert!(connection.as_mut().poll(context).is_pending(), "the handler closed a connection");
        wanted.as_mut().poll(context)
    })
    .await
}

/// The records, and what is the same for all of them.
struct Source {
    consumer: BaseConsumer,
    left: AtomicUsize,
    ladder: String,
    host: HeaderValue,
    topic: HeaderValue,
}

impl Source {
    fn new(work: &Work) -> Self {
        // As kladder's deliverer configures its consumers; the limit of what is fetched ahead is that of all its partitions together.
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &work.servers)
            .set("group.id", format!("{}.ceiling", work.ladder))
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("queued.max.messages.kbytes", "32768")
            .set("fetch.message.max.bytes", "524288")
            .set("fetch.queue.backoff.ms", "10")
            .set("socket.nagle.disable", "true")
            .create()
            .expect("a consumer");
        // Connected before the time counts, as a worker is that has its assignment.
        consumer.fetch_metadata(Some(&work.topic), Duration::from_secs(10)).expect("the topic");
        let mut all = TopicPartitionList::new();
        for partition in 0..work.partitions {
            all.add_partition_offset(&work.topic, partition, Offset::Beginning).expect("a partition");
        }
        consumer.assign(&all).expect("an assignment");
        let text = |text: &str| HeaderValue::from_str(text).expect("printable ASCII");
        Self {
            consumer,
            left: AtomicUsize::new(work.records),
            ladder: work.ladder.clone(),
            host: text(&work.handler.to_string()),
            topic: text(&work.topic),
        }
    }

    async fn next(&self) -> Option<Request<Full<Bytes>>> {
        loop {
            let left = self.left.load(Ordering::Relaxed);
            if left == 0 {
                return None;
            }
            if let Some(polled) = self.consumer.poll(Duration::ZERO) {
                self.left.store(left - 1, Ordering::Relaxed);
                return Some(self.request(&polled.expect("a record")));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// What kladder sends for a first delivery.
    fn request(&self, record: &BorrowedMessage<'_>) -> Request<Full<Bytes>> {
        let (partition, offset) = (record.partition(), record.offset());
        let timestamp = record.timestamp().to_millis().unwrap_or(0);
        let id = format!("\"{}/{}/{partition}/{offset}/{timestamp}\"", self.ladder, record.topic());
        let text = |bytes: Bytes| HeaderValue::from_maybe_shared(bytes).expect("printable ASCII");
        let value = Bytes::copy_from_slice(record.payload().unwrap_or_default());
        let mut headers = HeaderMap::with_capacity(16);
        headers.insert(HOST, self.host.clone());
        headers.insert(USER_AGENT, AGENT);
        headers.insert(ACCEPT_ENCODING, IDENTITY);
        headers.insert(IDEMPOTENCY_KEY, text(Bytes::from(id)));
        headers.insert(TOPIC, self.topic.clone());
        headers.insert(PARTITION, partition.into());
        headers.insert(OFFSET, offset.into());
        headers.insert(TIMESTAMP, timestamp.into());
        headers.insert(ATTEMPT, 1.into());
        headers.insert(ATTEMPTS_LEFT, 1.into());
        if let Some(key) = record.key() {
            headers.insert(KEY, text(Bytes::copy_from_slice(key)));
        }
        headers.insert(CONTENT_TYPE, OCTETS);
        headers.insert(CONTENT_LENGTH, value.len().into());
        let mut request = Request::new(Full::new(value));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static("/");
        *request.headers_mut() = headers;
        request
    }

    fn commit(&self) {
        let places = self.consumer.position().expect("places");
        self.consumer.commit(&places, CommitMode::Sync).expect("a commit");
    }
}

//! Records as a hop writes them into a tier: about 1 KB of JSON, with the headers of a first failed attempt.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kladder::internals::Trim;
use kladder::{Coordinates, Envelope, ErrorInfo, Timestamp};
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};

use crate::progress::Progress;
use crate::report::count;

/// Bytes of a value.
pub const VALUE_BYTES: usize = 1_024;

/// The position of the record number in a value.
const NUMBER_AT: usize = 6;
const NUMBER_DIGITS: usize = 10;

/// When the broker appended each record of a load, in epoch milliseconds; 0 until it is known.
pub struct Appended(Vec<AtomicI64>);

impl Appended {
    pub fn of(records: usize) -> Arc<Self> {
        Arc::new(Self((0..records).map(|_| AtomicI64::new(0)).collect()))
    }

    pub fn get(&self, number: usize) -> Option<i64> {
        self.0.get(number).map(|at| at.load(Ordering::Acquire)).filter(|at| *at > 0)
    }
}

struct Reports {
    appended: Arc<Appended>,
    failed: AtomicUsize,
}

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<usize>;

    fn delivery(&self, result: &DeliveryResult<'_>, number: Box<usize>) {
        match result {
            Ok(message) => {
                let at = message.timestamp().to_millis().unwrap_or(0);
                if let Some(cell) = self.appended.0.get(*number) {
                    cell.store(at, Ordering::Release);
                }
            }
            Err(_) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Writes records and records when the broker appended them.
pub struct Load {
    producer: ThreadedProducer<Reports>,
    appended: Arc<Appended>,
    text: Vec<u8>,
    headers: Vec<(&'static str, String)>,
}

impl Load {
    /// `linger`: how long the client collects records before it sends them.
    pub fn new(brokers: &str, ladder: &str, records: usize, linger: Duration) -> Self {
        let appended = Appended::of(records);
        let producer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("linger.ms", linger.as_millis().to_string())
            .set("batch.num.messages", "10000")
            .set("compression.type", "zstd")
            .set("queue.buffering.max.messages", "200000")
            .set("enable.idempotence", "true")
            .create_with_context(Reports { appended: appended.clone(), failed: AtomicUsize::new(0) })
            .expect("a producer");
        let origin = Coordinates { topic: "orders".into(), partition: 3, offset: 1_234_567, timestamp: now() };
        let message = Some("the handler answered 503 Service Unavailable".to_owned());
        let error = ErrorInfo { class: "HTTP 503".into(), message, status: Some(503), stack: None };
        let mut envelope = Envelope::fresh(ladder, &origin).failed(&error, now());
        envelope.tier = Some(1);
        Self { producer, appended, text: text(), headers: envelope.headers(Trim::Nothing) }
    }

    pub fn appended(&self) -> Arc<Appended> {
        self.appended.clone()
    }

    /// Writes one record; without headers it is like an application's record on a source.
    pub fn write(&mut self, topic: &str, partition: i32, number: usize, with_headers: bool) {
        let digits = format!("{number:0NUMBER_DIGITS$}");
        self.text[NUMBER_AT..NUMBER_AT + NUMBER_DIGITS].copy_from_slice(digits.as_bytes());
        scramble(&mut self.text[NUMBER_AT + NUMBER_DIGITS + 1..], number);
        let key = format!("device-{}", number % 5_000);
        let mut record = BaseRecord::with_opaque_to(topic, Box::new(number)).partition(partition).key(&key).payload(&self.text);
        if with_headers {
            let mut headers = OwnedHeaders::new_with_capacity(self.headers.len());
            for (name, value) in &self.headers {
                headers = headers.insert(Header { key: name, value: Some(value) });
            }
            record = record.headers(headers);
        }
        while let Err((error, back)) = self.producer.send(record) {
            let full = matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
            assert!(full, "a record of the load was refused: {error}");
            std::thread::sleep(Duration::from_millis(2));
            record = back;
        }
    }

    /// Writes records from this number on as fast as they are accepted, to the partitions in turn.
    pub fn pour(
        &mut self,
        topic: &str,
        partitions: i32,
        numbers: std::ops::Range<usize>,
        with_headers: bool,
        progress: &Progress,
    ) {
        let total = numbers.len();
        for (done, number) in numbers.enumerate() {
            let partition = i32::try_from(number).expect("a count") % partitions;
            self.write(topic, partition, number, with_headers);
            if done % 10_000 == 0 {
                progress.at(&format!("writing {done} of {total} records"));
            }
        }
        self.flush();
    }

    /// Writes this many records a second into each topic, evenly, to the partitions in turn.
    pub fn pace(&mut self, topics: &[String], partitions: i32, per_second: f64, first: usize, records: usize) {
        let began = Instant::now();
        let every = Duration::from_secs_f64(1.0 / per_second / count(topics.len()));
        for index in 0..records {
            let at = began + every.mul_f64(count(index));
            let now = Instant::now();
            if at > now {
                std::thread::sleep(at - now);
            }
            let number = first + index;
            let partition = partition_of(index, topics.len(), partitions);
            self.write(&topics[index % topics.len()], partition, number, true);
        }
        self.flush();
    }

    /// Waits until everything is written.
    pub fn flush(&self) {
        self.producer.flush(Duration::from_secs(120)).expect("the load was written");
        assert_eq!(self.producer.context().failed.load(Ordering::Relaxed), 0, "records of the load could not be written");
    }
}

/// The partition of the record with this index, when this many topics are written to in turn.
pub fn partition_of(index: usize, topics: usize, partitions: i32) -> i32 {
    i32::try_from(index / topics).expect("a count") % partitions
}

/// The number in a value.
pub fn number_of(value: &[u8]) -> Option<usize> {
    let digits = value.get(NUMBER_AT..NUMBER_AT + NUMBER_DIGITS)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn text() -> Vec<u8> {
    let mut text = format!("{{\"n\":\"{:0NUMBER_DIGITS$}\",\"readings\":[", 0).into_bytes();
    while text.len() < VALUE_BYTES - 2 {
        text.extend_from_slice(b"{\"sensor\":\"t0000\",\"value\":00.000},");
    }
    text.truncate(VALUE_BYTES - 2);
    text.extend_from_slice(b"]}");
    text
}

/// Different digits in each record, so that it compresses as such records do (about 4 to 1), and not to
/// nothing.
fn scramble(text: &mut [u8], seed: usize) {
    let mut state = (seed as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    for byte in text.iter_mut().filter(|byte| byte.is_ascii_digit()) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = b'0' + u8::try_from(state % 10).expect("a digit");
    }
}

fn now() -> Timestamp {
    Timestamp::from_millis(crate::clock::epoch_micros() / 1_000)
}

//! The ceiling of a drain: the simplest loop that copies records, from consumer to idempotent producer, without transactions, offsets
//! or waiting.
//!
//! It does only what any mover must do: take a record, and pass it to the producer with key and headers. Its producer lingers
//! longer and uses larger batches than kladder's, with the same compression, since the format is the broker's choice and not
//! the mover's work.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

use crate::broker::reader;
use crate::worker;

#[derive(Default)]
struct Confirmed(AtomicUsize);

impl ClientContext for Confirmed {}

impl ProducerContext for Confirmed {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        assert!(result.is_ok(), "a copy was refused");
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// The cost of a copy.
pub struct Copied {
    /// From the first record taken to the last one acknowledged.
    pub time: Duration,
    /// CPU time, in seconds.
    pub cpu: f64,
}

/// Copies this many records from one topic to another, partition by partition.
pub fn copy(servers: &str, from: &str, to: &str, partitions: i32, records: usize) -> Copied {
    let cpu = worker::cpu_of("self");
    let all: Vec<(String, i32, Offset)> = (0..partitions).map(|p| (from.to_owned(), p, Offset::Beginning)).collect();
    let producer: BaseProducer<Confirmed> = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("enable.idempotence", "true")
        .set("compression.type", "zstd")
        .set("linger.ms", "5")
        .set("batch.num.messages", "10000")
        .set("queue.buffering.max.messages", "500000")
        .create_with_context(Confirmed::default())
        .expect("a producer");
    let consumer = reader(servers, &all);
    let mut began = None;
    let mut taken = 0;
    while taken < records {
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
        began.get_or_insert_with(Instant::now);
        let mut record = BaseRecord::to(to).partition(message.partition());
        if let Some(key) = message.key() {
            record = record.key(key);
        }
        if let Some(value) = message.payload() {
            record = record.payload(value);
        }
        if let Some(headers) = message.headers() {
            record = record.headers(headers.detach());
        }
        while let Err((_, back)) = producer.send(record) {
            producer.poll(Duration::from_millis(1));
            record = back;
        }
        taken += 1;
        if taken % 1_000 == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    while producer.in_flight_count() > 0 {
        producer.poll(Duration::ZERO);
        std::thread::sleep(Duration::from_micros(300));
    }
    let time = began.map_or(Duration::ZERO, |began| began.elapsed());
    Copied { time, cpu: worker::cpu_of("self") - cpu }
}

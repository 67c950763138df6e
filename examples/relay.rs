//! An application that consumes its source with its own client and passes only failed records to the ladder (relay).
//! `cargo run --example relay -- localhost:9092 orders billing`
//!
//! It reads the source and the ladder's redeliver topic, handles each record, and writes failed ones to the ladder's inbox *before*
//! it commits the offset: so no record is lost, even when it is killed. Orders that are not text fail, empty ones are rejected. The
//! ladder's mover and router run in the same process.

use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kladder::{Consumed, Failure, Headers, KafkaConfig, Ladder, Mode, Record, Start, Timestamp};
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, DeliveryResult, Header, Headers as _, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

/// Any error means retry; a record that can never succeed is rejected.
fn handle(consumed: &Consumed) -> Result<(), Failure> {
    let order = std::str::from_utf8(consumed.value.as_deref().unwrap_or_default())?;
    if order.is_empty() {
        return Err(Failure::retry("Empty", "there is nothing in the order").reject());
    }
    println!("order {order} is done");
    Ok(())
}

/// The whole record. The headers must be kept, since they hold the number of attempts.
fn consumed(message: &BorrowedMessage<'_>) -> Consumed {
    let mut headers = Headers::new();
    for header in message.headers().iter().flat_map(|headers| headers.iter()) {
        headers.push(header.key, header.value);
    }
    let timestamp = Timestamp::from_millis(message.timestamp().to_millis().unwrap_or(-1));
    Consumed {
        key: message.key().map(Into::into),
        value: message.payload().map(Into::into),
        headers,
        ..Consumed::at(message.topic(), message.partition(), message.offset(), timestamp)
    }
}

/// Keeps the records that could not be produced.
#[derive(Default)]
struct Reports(Mutex<Option<KafkaError>>);

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let (Err((error, _)), Ok(mut failed)) = (result, self.0.lock()) {
            *failed = Some(error.clone());
        }
    }
}

/// Produces a record and waits for the acknowledgement.
fn produce(producer: &BaseProducer<Reports>, record: &Record) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
    for (name, value) in record.headers.iter() {
        headers = headers.insert(Header { key: std::str::from_utf8(name)?, value });
    }
    let mut outgoing: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&record.topic).headers(headers);
    (outgoing.key, outgoing.payload) = (record.key.as_deref(), record.value.as_deref());
    producer.send(outgoing).map_err(|(error, _)| error)?;
    producer.flush(Duration::from_secs(30))?;
    let failed = producer.context().0.lock().ok().and_then(|mut failed| failed.take());
    failed.map_or(Ok(()), |error| Err(error.into()))
}

fn consume(ladder: &Ladder, brokers: &str, stop: &AtomicBool) -> Result<(), Box<dyn Error + Send + Sync>> {
    let client = || ClientConfig::new().set("bootstrap.servers", brokers).clone();
    let consumer: BaseConsumer = client()
        .set("group.id", ladder.group())
        .set("enable.auto.commit", "false")
        // kladder sets no offsets for the application's group: where none is committed yet, no record may be skipped.
        .set("auto.offset.reset", "earliest")
        // Hops are transactions: aborted records must not be read.
        .set("isolation.level", "read_committed")
        .create()?;
    let producer: BaseProducer<Reports> = client().set("enable.idempotence", "true").create_with_context(Reports::default())?;
    let redelivered = ladder.redeliver_topic();
    let topics: Vec<&str> = ladder.sources().iter().map(String::as_str).chain([redelivered.as_str()]).collect();
    consumer.subscribe(&topics)?;
    while !stop.load(Ordering::Relaxed) {
        let message = match consumer.poll(Duration::from_millis(200)) {
            None => continue,
            Some(Ok(message)) => message,
            Some(Err(error)) => {
                // The client retries by itself.
                eprintln!("{error}");
                continue;
            }
        };
        let consumed = consumed(&message);
        if let Err(failure) = handle(&consumed) {
            println!("{} {}/{} failed: {}", consumed.at.topic, consumed.at.partition, consumed.at.offset, failure.error().class);
            produce(&producer, &ladder.relay(consumed, &failure))?;
        }
        consumer.commit_message(&message, CommitMode::Sync)?;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut arguments = std::env::args().skip(1);
    let brokers = arguments.next().unwrap_or_else(|| "localhost:9092".to_owned());
    let source = arguments.next().unwrap_or_else(|| "orders".to_owned());
    let group = arguments.next().unwrap_or_else(|| "billing".to_owned());

    let builder = Ladder::builder(group.clone(), group).mode(Mode::Relay).source(source);
    let ladder = builder.tiers(["1s", "2s", "4s"]).build()?;
    kladder::set_up(&ladder, &KafkaConfig::new(brokers.clone()), Start::Earliest).await?;

    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    tokio::spawn(async move {
        let _ = tokio::signal::ctrl_c().await;
        stopped.store(true, Ordering::Relaxed);
    });
    tokio::task::spawn_blocking(move || consume(&ladder, &brokers, &stop)).await?
}

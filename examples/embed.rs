//! A Rust application with an embedded retry ladder: creates the ladder's topics, handles orders, and stops on Ctrl-C.
//! `cargo run --example embed -- localhost:9092 orders billing`
//!
//! The source topic must exist. Records that are not numbers are rejected, odd numbers fail until the third attempt, 13 always.

use kladder::{Delivery, Failure, KafkaConfig, Ladder, OrReject, Start, Worker};

async fn handle(delivery: Delivery) -> Result<(), Failure> {
    let order = std::str::from_utf8(delivery.value().unwrap_or_default()).or_reject()?;
    let number: u64 = order.trim().parse().or_reject()?;
    if number == 13 || (number % 2 == 1 && delivery.attempt() < 3) {
        return Err(Failure::retry("Busy", format!("order {number} cannot be billed now")));
    }
    println!("order {number} is done, attempt {}", delivery.attempt());
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let brokers = arguments.next().unwrap_or_else(|| "localhost:9092".to_owned());
    let source = arguments.next().unwrap_or_else(|| "orders".to_owned());
    let group = arguments.next().unwrap_or_else(|| "billing".to_owned());

    let ladder = Ladder::builder(group.clone(), group).source(source).tiers(["1s", "2s", "4s"]).build()?;
    let kafka = KafkaConfig::new(brokers);
    kladder::set_up(&ladder, &kafka, Start::Earliest).await?;

    let worker = Worker::new(ladder, kafka, handle);
    let report = worker.run_until(async { tokio::signal::ctrl_c().await.unwrap_or(()) }).await?;
    println!("{report}");
    Ok(())
}

//! Prints how a record would climb a ladder, without Kafka and without waiting:
//! `cargo run --example climb -- 5s 1m 10m`

use std::time::Duration;

use kladder::{Decision, Delivery, Failure, Ladder, Record, testing};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut tiers: Vec<String> = std::env::args().skip(1).collect();
    if tiers.is_empty() {
        tiers = ["5s", "1m", "10m"].map(String::from).to_vec();
    }
    let ladder = Ladder::builder("billing-orders", "billing").source("orders").tiers(tiers).build()?;

    // The bank always fails; once it says when to retry.
    let handler = |delivery: Delivery| async move {
        let failure = Failure::retry("Timeout", "no answer from the bank");
        Err(if delivery.attempt() == 2 { failure.after(Duration::from_secs(25 * 60)) } else { failure })
    };

    for step in testing::climb(&ladder, &handler, Record::to("orders").key("order-1").value("{}")).await {
        let next = match &step.decision {
            Some(Decision::Complete) => "done".to_owned(),
            Some(Decision::Hop { tier, .. }) => format!("waits in tier {tier}"),
            Some(Decision::DeadLetter { reason, .. }) => format!("dead: {}", reason.as_str()),
            None => "is tried again in place".to_owned(),
        };
        println!("attempt {} after {:>5} s, from {:?}: {next}", step.attempt, step.at.as_secs(), step.waited_in);
    }
    Ok(())
}

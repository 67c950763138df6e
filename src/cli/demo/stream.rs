//! The simulated orders: produced at a steady rate on their own thread, each confirmed by the broker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::cli::demo::demo_config::{PARTITIONS, source};
use crate::config::KafkaConfig;
use crate::core::ladder::Ladder;
use crate::kafka::NativeHeaders;
use crate::kafka::clock::Clock;
use crate::kafka::outgoing::{Outgoing, TopicId};
use crate::kafka::producer::HopProducer;
use crate::kafka::transaction::{Ended, Transaction};

/// Interval between batches of orders.
const BEAT: Duration = Duration::from_millis(40);
const LARGEST_BATCH: usize = 100_000;

/// The running stream.
pub struct Stream {
    confirmed: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl Stream {
    /// Sends `rate` orders a second to the ladder's source; `began` is called before the first one.
    pub fn start(
        kafka: &KafkaConfig,
        ladder: &Ladder,
        rate: u32,
        length: Duration,
        began: impl FnOnce() + Send + 'static,
    ) -> anyhow::Result<Self> {
        let (confirmed, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (kafka, ladder) = (kafka.clone(), ladder.clone());
        let (count, stopping) = (confirmed.clone(), stop.clone());
        let thread = std::thread::Builder::new().name("demo-orders".to_owned());
        let work = move || {
            let mut orders = Orders::connect(&kafka, &ladder)?;
            began();
            orders.send(rate, length, &count, &stopping)
        };
        let thread = thread.spawn(work).context("cannot start a thread")?;
        Ok(Self { confirmed, stop, thread })
    }

    /// Number of orders that the broker has confirmed.
    pub fn confirmed(&self) -> u64 {
        self.confirmed.load(Ordering::Acquire)
    }

    /// Whether all orders were sent.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Stops sending, and returns the number of confirmed orders.
    pub fn end(self) -> anyhow::Result<u64> {
        self.stop.store(true, Ordering::Release);
        match self.thread.join() {
            Ok(sent) => sent.map(|()| self.confirmed.load(Ordering::Acquire)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// The producer of the orders.
struct Orders {
    producer: HopProducer,
    topic: TopicId,
    clock: Clock,
}

impl Orders {
    /// Connects, and writes once to the state topic, as the mover does to read a broker's clock: the first write waits for the
    /// connection, which must not delay an order.
    fn connect(kafka: &KafkaConfig, ladder: &Ladder) -> anyhow::Result<Self> {
        let clock = Clock::system();
        let mut producer = HopProducer::new(kafka, None, LARGEST_BATCH, clock.clone());
        let (topic, state) = (producer.topic(&source(ladder.name())), producer.topic(&ladder.state_topic()));
        let mut writing = Transaction::new(&mut producer);
        writing.send((state, 0), Outgoing { key: Some(b"clock/demo-orders"), value: Some(b"0") }, NativeHeaders::new(), 0);
        if let Ended::Refused(refusal) = writing.commit(None).map_err(|error| error.cause().clone())? {
            bail!("cannot write to the demo's topics: {}", refusal.fault());
        }
        Ok(Self { producer, topic, clock })
    }

    fn send(&mut self, rate: u32, length: Duration, confirmed: &AtomicU64, stop: &AtomicBool) -> anyhow::Result<()> {
        let began = self.clock.now();
        let mut orders = 0;
        while !stop.load(Ordering::Acquire) {
            let elapsed = self.clock.now().since(began);
            let due = (elapsed.min(length).as_secs_f64() * f64::from(rate)).floor();
            let mut handed_over = 0;
            let mut writing = Transaction::new(&mut self.producer);
            while f64::from(orders) < due {
                orders += 1;
                let (key, value) = order(orders);
                let record = Outgoing { key: Some(key.as_bytes()), value: Some(value.as_bytes()) };
                writing.send((self.topic, i32::try_from(orders).unwrap_or(0) % PARTITIONS), record, NativeHeaders::new(), 0);
                handed_over += 1;
            }
            if let Ended::Refused(refusal) = writing.commit(None).map_err(|error| error.cause().clone())? {
                bail!("the broker refused an order: {}", refusal.fault());
            }
            confirmed.fetch_add(handed_over, Ordering::AcqRel);
            if elapsed >= length {
                break;
            }
            std::thread::sleep(BEAT);
        }
        Ok(())
    }
}

fn order(number: u32) -> (String, String) {
    let (articles, cents) = (number % 5 + 1, number % 90 * 100 + 995);
    let value = format!(r#"{{"order":{number},"customer":"c{}","articles":{articles},"cents":{cents}}}"#, number % 37);
    (format!("order-{number:06}"), value)
}

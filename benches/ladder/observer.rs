//! An independent reader: when does a record really come back? It reads committed, and knows of the worker nothing but its topic.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::consumer::Consumer;
use rdkafka::message::Message;

use crate::broker::reader;
use crate::clock::epoch_micros;
use crate::load::number_of;

/// What was seen: the number of a record, and when, in epoch microseconds.
pub type Seen = Vec<(usize, i64)>;

/// So many partitions can be watched without being in the way.
const MOST_WATCHED: i32 = 20;

pub struct Observer {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    thread: JoinHandle<Seen>,
}

/// Of so many partitions, those that stand for all: a reader that asks for each record of hundreds of partitions at once is itself
/// what keeps the broker busy, since every fetch names all of them (librdkafka has no incremental fetch, KIP-227).
pub fn sample(partitions: i32) -> Vec<i32> {
    let step = (partitions + MOST_WATCHED - 1) / MOST_WATCHED;
    (0..partitions).step_by(usize::try_from(step).expect("a small number")).collect()
}

impl Observer {
    /// Reads these topics, all partitions, from their beginning.
    pub fn start(servers: &str, topics: &[String], partitions: i32) -> Self {
        Self::of(servers, topics, &(0..partitions).collect::<Vec<_>>())
    }

    /// Reads these partitions of these topics, from their beginning.
    pub fn of(servers: &str, topics: &[String], partitions: &[i32]) -> Self {
        let all = topics.iter().flat_map(|topic| partitions.iter().map(move |p| (topic.clone(), *p, Offset::Beginning)));
        let consumer = reader(servers, &all.collect::<Vec<_>>());
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, counted) = (stop.clone(), count.clone());
        let thread = std::thread::spawn(move || {
            let mut seen = Seen::new();
            while !stopped.load(Ordering::Relaxed) {
                let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
                let now = epoch_micros();
                if let Some(number) = message.payload().and_then(number_of) {
                    seen.push((number, now));
                    counted.store(seen.len(), Ordering::Relaxed);
                }
            }
            consumer.unassign().expect("a reader that ends");
            seen
        });
        Self { stop, count, thread }
    }

    /// Waits until so many records came, or patience ends.
    pub fn wait_for(&self, records: usize, patience: Duration) {
        let began = Instant::now();
        while self.count.load(Ordering::Relaxed) < records && began.elapsed() < patience {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    pub fn end(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the reader ended well")
    }
}

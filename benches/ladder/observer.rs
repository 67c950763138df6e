//! An independent reader that measures when a record really comes back. It reads committed records, and knows only the worker's
//! topic.

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

/// An observation: the number of a record, and the time in epoch microseconds.
pub type Seen = Vec<(usize, i64)>;

/// The most partitions that can be watched without disturbing the measurement.
const MOST_WATCHED: i32 = 20;

pub struct Observer {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    thread: JoinHandle<Seen>,
}

/// A sample of this many partitions: a reader that fetches each record of hundreds of partitions at once would itself keep the
/// broker busy, since every fetch names all of them (librdkafka has no incremental fetch, KIP-227).
pub fn sample(partitions: i32) -> Vec<i32> {
    let step = (partitions + MOST_WATCHED - 1) / MOST_WATCHED;
    (0..partitions).step_by(usize::try_from(step).expect("a small number")).collect()
}

impl Observer {
    /// Reads these topics, all partitions, from the beginning.
    pub fn start(servers: &str, topics: &[String], partitions: i32) -> Self {
        Self::of(servers, topics, &(0..partitions).collect::<Vec<_>>())
    }

    /// Reads these partitions of these topics, from the beginning.
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

    /// Waits until this many records have come, or the deadline has passed.
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

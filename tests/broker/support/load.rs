//! Records that keep coming while something happens to the workers.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::clock;
use super::handler::Call;
use super::raw::RawProducer;
use super::records;
use super::scene::Scene;

/// Writes plain records to the source, round its partitions in order, one to each of them every so often, for as long as the
/// closure runs. Gives what the closure gives, and how many records were written.
pub fn under_load<T>(scene: &Scene, partitions: i32, every: Duration, during: impl FnOnce() -> T) -> (T, usize) {
    under_load_of(scene, partitions, &Load { rounds: 1, every, at_least: 0 }, during)
}

/// How records keep coming.
pub struct Load {
    /// How many records each partition gets at a time.
    pub rounds: usize,
    pub every: Duration,
    /// What is missing of so many when the closure has run is written then, without a pause.
    pub at_least: usize,
}

/// The same, at a pace of one's own and with a number of records to reach.
pub fn under_load_of<T>(scene: &Scene, partitions: i32, load: &Load, during: impl FnOnce() -> T) -> (T, usize) {
    let (stop, failed, sent) = (AtomicBool::new(false), AtomicBool::new(false), AtomicUsize::new(0));
    let round = load.rounds * usize::try_from(partitions).expect("a count");
    let result = std::thread::scope(|scope| {
        scope.spawn(|| {
            let producer = RawProducer::new(&scene.brokers);
            loop {
                let next = sent.load(Ordering::SeqCst);
                let stopped = stop.load(Ordering::SeqCst);
                // A test that failed needs no more records.
                if stopped && (next >= load.at_least || failed.load(Ordering::SeqCst)) {
                    break;
                }
                let batch: Vec<_> = (next..next + round).map(|n| records::plain(n, partitions)).collect();
                producer.write(&scene.source, &batch);
                sent.store(next + round, Ordering::SeqCst);
                if !stopped {
                    clock::pause(load.every);
                }
            }
        });
        // A panic below must stop the producer too, or the scope would wait for it for ever.
        let _stopped = OnDrop(|| {
            failed.store(std::thread::panicking(), Ordering::SeqCst);
            stop.store(true, Ordering::SeqCst);
        });
        during()
    });
    (result, sent.into_inner())
}

/// The number of the record that a call is about: records go round the partitions in order.
pub fn number_of(call: &Call, partitions: i32) -> usize {
    let place = call.offset * i64::from(partitions) + i64::from(call.partition);
    usize::try_from(place).unwrap_or_default()
}

/// Does something when it goes, after a panic too.
pub struct OnDrop<F: FnMut()>(pub F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

//! A continuous load of records while something happens to the workers.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::clock;
use super::handler::Call;
use super::raw::RawProducer;
use super::records;
use super::scene::Scene;

/// Writes plain records to the source, one to each partition in turn at intervals, for as long as the closure runs. Returns
/// the closure's result and the number of records written.
pub fn under_load<T>(scene: &Scene, partitions: i32, every: Duration, during: impl FnOnce() -> T) -> (T, usize) {
    under_load_of(scene, partitions, &Load { rounds: 1, every, at_least: 0 }, during)
}

/// The shape of the load.
pub struct Load {
    /// Records for each partition at a time.
    pub rounds: usize,
    pub every: Duration,
    /// If fewer than this many are written when the closure has ended, the rest is written then,
    /// without a pause.
    pub at_least: usize,
}

/// The same with a chosen pace and a minimum number of records.
pub fn under_load_of<T>(scene: &Scene, partitions: i32, load: &Load, during: impl FnOnce() -> T) -> (T, usize) {
    let (stop, failed, sent) = (AtomicBool::new(false), AtomicBool::new(false), AtomicUsize::new(0));
    let round = load.rounds * usize::try_from(partitions).expect("a count");
    let result = std::thread::scope(|scope| {
        scope.spawn(|| {
            let producer = RawProducer::new(&scene.brokers);
            loop {
                let next = sent.load(Ordering::SeqCst);
                let stopped = stop.load(Ordering::SeqCst);
                // A failed test needs no more records.
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

/// The record number of a call: records are written to the partitions in turn.
pub fn number_of(call: &Call, partitions: i32) -> usize {
    let place = call.offset * i64::from(partitions) + i64::from(call.partition);
    usize::try_from(place).unwrap_or_default()
}

/// Runs a closure when dropped, after a panic too.
pub struct OnDrop<F: FnMut()>(pub F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

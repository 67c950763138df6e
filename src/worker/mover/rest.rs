//! Pauses partitions whose heads wait for long, so that they hold no memory, and resumes them before the
//! heads are due.
//!
//! Pausing discards the records fetched after the head, which is kept separately; after resuming, the client continues after the
//! last record taken. A pause loses nothing and makes nothing early: a head is moved by its due time alone, repeated records are
//! skipped by their offset, and only offsets of moved records are committed.
//!
//! The only danger is a partition that is never resumed, so all partitions are checked every second, whatever happened in
//! between:
//! - a partition without a head is never left paused,
//! - a resumed partition is resumed again until it yields something, which costs nothing if all is well,
//! - a released partition is resumed first ([`crate::kafka::consumer::GroupConsumer::release`]), so that it is not paused when it
//!   comes back.
//!
//! The client drops a resume that overtakes its pause (it checks whether the partition is paused yet); calls that wait for the
//! client, one after the other, cannot overtake.

use std::time::Duration;

use crate::core::leader_clock::LocalTime;
use crate::kafka;
use crate::kafka::partition::TopicPartition;
use crate::worker::error::WorkError;
use crate::worker::hop::ports::{RecordSource, TierSource};
use crate::worker::mover::lane::{Flow, TakeOutcome};
use crate::worker::mover::{Mover, Ports};

/// Maximum interval of checking which partitions to pause and resume.
const INTERVAL: Duration = Duration::from_secs(1);

/// Fetching again is worth it only if the head waits longer than this: the cost is at most the prefetch budget per such
/// time.
const LONG_WAIT: Duration = Duration::from_secs(20);

/// Time before its head is due at which a partition is fetched again.
const EARLIER: Duration = Duration::from_secs(3);

/// Interval of asking for the ends of paused partitions, which are otherwise known from fetching.
const ENDS_INTERVAL: Duration = Duration::from_secs(15);

/// The same after a request that was not answered.
const ENDS_INTERVAL_UNANSWERED: Duration = Duration::from_secs(60);

/// Minimum interval of returning the memory of discarded records to the system: an embedding application may have a large
/// heap, all of which is scanned.
const MEMORY_INTERVAL: Duration = Duration::from_secs(60);

/// No record is moved during that request, so it must be short.
const ENDS_TIMEOUT: Duration = Duration::from_millis(250);

/// Times of the next checks.
pub(super) struct RestTimes {
    look_at: LocalTime,
    ends_at: LocalTime,
    memory_at: LocalTime,
    /// Whether partitions were paused since memory was last returned.
    has_freed: bool,
}

impl Default for RestTimes {
    fn default() -> Self {
        let zero = LocalTime::from_micros(0);
        Self { look_at: zero, ends_at: zero, memory_at: zero, has_freed: false }
    }
}

impl RestTimes {
    /// A head was taken that waits for this many microseconds: if that is long, the records fetched after it need not stay for
    /// another second.
    pub(super) fn has_to_wait(&mut self, wait: i64) {
        if wait > micros(LONG_WAIT) {
            self.look_at = LocalTime::from_micros(0);
        }
    }
}

impl<P: Ports> Mover<P> {
    /// Pauses and resumes partitions, if it is time to check.
    ///
    /// # Errors
    /// The broker has lost the next offset of one of them.
    pub(super) fn rest(&mut self) -> Result<(), WorkError> {
        let now = self.clock.now();
        if now < self.tiers.rest.look_at {
            return Ok(());
        }
        self.tiers.rest.look_at = now.later(INTERVAL);
        let (mut tired, mut needed) = (Vec::new(), Vec::new());
        for (index, lane) in self.tiers.lanes.iter().enumerate() {
            let wait = lane.wait(&self.engine.cluster.leaders, now);
            match lane.flow {
                Flow::Open | Flow::Resumed if wait.is_some_and(|wait| wait > micros(LONG_WAIT)) => tired.push(index),
                Flow::Paused if wait.is_none_or(|wait| wait <= micros(EARLIER)) => needed.push(index),
                Flow::Resumed => needed.push(index),
                Flow::Open | Flow::Paused => {}
            }
        }
        self.pause(&tired);
        self.resume(&needed);
        // Each time, since a fetch response may have been queued after the pause.
        for lane in self.tiers.lanes.iter_mut().filter(|lane| lane.flow == Flow::Paused) {
            if lane.drop_fetched() == TakeOutcome::OffsetLost {
                return Err(WorkError::offset_lost(lane.tp(), &self.tiers.group));
            }
        }
        self.ask_ends(now);
        self.hand_memory_back(now, !tired.is_empty());
        Ok(())
    }

    /// After the last of them were paused: their fetched records are gone then, and little is fetched for a while.
    fn hand_memory_back(&mut self, now: LocalTime, more: bool) {
        self.tiers.rest.has_freed |= more;
        if more || !self.tiers.rest.has_freed || now < self.tiers.rest.memory_at {
            return;
        }
        kafka::hand_freed_memory_back();
        self.tiers.rest.has_freed = false;
        self.tiers.rest.memory_at = now.later(MEMORY_INTERVAL);
    }

    fn pause(&mut self, lanes: &[usize]) {
        if lanes.is_empty() {
            return;
        }
        tracing::debug!(
            ladder = self.ladder.name(),
            partitions = lanes.len(),
            "partitions paused, since their heads wait for long"
        );
        if let Err(error) = self.consumer.pause(&self.partitions_of(lanes)) {
            tracing::info!(ladder = self.ladder.name(), %error, "partitions could not be paused");
        }
        // Paused or not, they are resumed in time.
        for index in lanes {
            self.tiers.lanes[*index].flow = Flow::Paused;
        }
    }

    fn resume(&mut self, lanes: &[usize]) {
        if lanes.is_empty() {
            return;
        }
        match self.consumer.resume(&self.partitions_of(lanes)) {
            Ok(()) => lanes.iter().for_each(|index| self.tiers.lanes[*index].flow = Flow::Resumed),
            Err(error) => tracing::info!(ladder = self.ladder.name(), %error, "cannot resume partitions; retrying in a second"),
        }
    }

    fn partitions_of(&self, lanes: &[usize]) -> Vec<TopicPartition> {
        lanes.iter().map(|index| self.tiers.lanes[*index].tp().clone()).collect()
    }

    /// Records that arrive in a paused partition are not seen, but count as waiting.
    fn ask_ends(&mut self, now: LocalTime) {
        if now < self.tiers.rest.ends_at {
            return;
        }
        let paused = self.tiers.lanes.iter().filter(|lane| lane.flow == Flow::Paused);
        let partitions: Vec<TopicPartition> = paused.map(|lane| lane.tp().clone()).collect();
        if partitions.is_empty() {
            return;
        }
        let answer = self.consumer.ends(&partitions, ENDS_TIMEOUT);
        self.tiers.rest.ends_at = now.later(if answer.is_ok() { ENDS_INTERVAL } else { ENDS_INTERVAL_UNANSWERED });
        match answer {
            // In the order of the lanes.
            Ok(ends) => {
                let mut ends = ends.into_iter().peekable();
                for lane in &mut self.tiers.lanes {
                    if let Some((_, end)) = ends.next_if(|(tp, _)| tp == lane.tp()) {
                        lane.ends_at(end);
                    }
                }
            }
            Err(error) => tracing::debug!(ladder = self.ladder.name(), %error, "cannot count waiting records; retrying later"),
        }
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

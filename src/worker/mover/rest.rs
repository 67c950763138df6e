//! Partitions whose heads wait for long hold no memory: they are paused, and come back before they are due.
//!
//! Pausing throws away what was fetched behind the head, which is held apart from it; after resuming the client goes on behind the
//! last record that was taken. Nothing is lost or early by a pause: a head is moved by its due time alone, what comes again is
//! passed over by its offset, and offsets are committed only of what was moved.
//!
//! The one danger is a partition that does not come back, so all partitions are looked at every second, whatever happened in
//! between:
//! - one without a head is never left paused,
//! - one that was resumed is resumed again until something comes of it, which costs nothing where nothing is wrong,
//! - one that is given away is resumed first ([`crate::kafka::consumer::GroupConsumer::release`]), so that it starts unpaused when it
//!   comes back.
//!
//! The client gives up a resume that overtakes its pause (it looks whether the partition is paused yet); calls that wait for the
//! client, one after the other, cannot overtake.

use std::time::Duration;

use crate::core::leader_clock::LocalTime;
use crate::kafka;
use crate::kafka::partition::TopicPartition;
use crate::worker::hop::ports::{RecordSource, TierSource};
use crate::worker::mover::lane::{Flow, Lane};
use crate::worker::mover::{Mover, Ports};

/// How often is looked, at least, who may rest and who has to come back.
const INTERVAL: Duration = Duration::from_secs(1);

/// Only a head that waits longer is worth to fetch again what is behind it: at worst the prefetch budget in each such time.
const LONG_WAIT: Duration = Duration::from_secs(20);

/// So long before its head is due a partition is fetched again.
const EARLIER: Duration = Duration::from_secs(3);

/// How often it is asked where paused partitions end, which fetching told otherwise.
const ENDS_INTERVAL: Duration = Duration::from_secs(15);

/// The same after a question that was not answered.
const ENDS_INTERVAL_UNANSWERED: Duration = Duration::from_secs(60);

/// What paused partitions had fetched is freed memory, which is handed back no more often than that: a program that kladder is
/// embedded in may have a large heap, all of which is walked through.
const MEMORY_INTERVAL: Duration = Duration::from_secs(60);

/// Nothing is moved during that question, so it must not last.
const ENDS_TIMEOUT: Duration = Duration::from_millis(250);

/// When is looked next.
pub(super) struct RestTimes {
    look_at: LocalTime,
    ends_at: LocalTime,
    memory_at: LocalTime,
    /// Partitions were paused since memory was last handed back.
    has_freed: bool,
}

impl Default for RestTimes {
    fn default() -> Self {
        let zero = LocalTime::from_micros(0);
        Self { look_at: zero, ends_at: zero, memory_at: zero, has_freed: false }
    }
}

impl RestTimes {
    /// A head was taken that waits for so many microseconds: if that is long, what was fetched behind it need not be there for
    /// another second.
    pub(super) fn has_to_wait(&mut self, wait: i64) {
        if wait > micros(LONG_WAIT) {
            self.look_at = LocalTime::from_micros(0);
        }
    }
}

impl<P: Ports> Mover<P> {
    /// Pauses and resumes partitions, where it is time to look at them.
    pub(super) fn rest(&mut self) {
        let now = self.clock.now();
        if now < self.tiers.rest.look_at {
            return;
        }
        self.tiers.rest.look_at = now.later(INTERVAL);
        let (mut tired, mut needed) = (Vec::new(), Vec::new());
        for (index, lane) in self.tiers.lanes.iter().enumerate() {
            let wait = lane.wait(&self.engine.known.leaders, now);
            match lane.flow {
                Flow::Open | Flow::Resumed if wait.is_some_and(|wait| wait > micros(LONG_WAIT)) => tired.push(index),
                Flow::Paused if wait.is_none_or(|wait| wait <= micros(EARLIER)) => needed.push(index),
                Flow::Resumed => needed.push(index),
                Flow::Open | Flow::Paused => {}
            }
        }
        self.pause(&tired);
        self.resume(&needed);
        // Each time, since an answer that was on its way may have been queued after the pause.
        self.tiers.lanes.iter_mut().filter(|lane| lane.flow == Flow::Paused).for_each(Lane::drop_fetched);
        self.ask_ends(now);
        self.hand_memory_back(now, !tired.is_empty());
    }

    /// After the last of them were paused: what each had fetched is gone then, and nothing much is fetched for a while.
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
            "partitions rest, since their heads wait for long"
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
            Err(error) => tracing::info!(ladder = self.ladder.name(), %error, "partitions are resumed in a second"),
        }
    }

    fn partitions_of(&self, lanes: &[usize]) -> Vec<TopicPartition> {
        lanes.iter().map(|index| self.tiers.lanes[*index].tp().clone()).collect()
    }

    /// What arrives in a paused partition is not seen, and yet it waits.
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
            // They are in the lanes' order.
            Ok(ends) => {
                let mut ends = ends.into_iter().peekable();
                for lane in &mut self.tiers.lanes {
                    if let Some((_, end)) = ends.next_if(|(tp, _)| tp == lane.tp()) {
                        lane.ends_at(end);
                    }
                }
            }
            Err(error) => tracing::debug!(ladder = self.ladder.name(), %error, "how many wait is counted later"),
        }
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

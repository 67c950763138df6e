//! Targets that are not written to for a while.
//!
//! - A topic may be denied. A transaction that has one such topic among its targets fails as a whole, and which of them it was is not told.
//!   So the topics of such a transaction are suspected: until each has gone through, or has failed, in a transaction of its own. One that has
//!   failed alone is barred.
//! - A partition may take nothing at the moment: it has no leader, or too few replicas. It is barred by itself.
//!
//! What would go to a barred target waits, and what comes behind it in its partition; everything else is written as ever. When it is tried
//! again, longer after each time, it goes in a transaction of its own, since others would fail along with it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::core::leader_clock::LocalTime;
use crate::kafka::producer::TopicId;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What takes nothing at the moment most often does so again in a moment.
const FIRST_PASSING_PAUSE: Duration = Duration::from_millis(250);

/// The targets that are suspected or barred.
#[derive(Debug, Default)]
pub(in crate::worker) struct BarredTargets {
    topics: BTreeMap<TopicId, Option<Bar>>,
    partitions: BTreeMap<(TopicId, i32), Bar>,
}

#[derive(Debug, Clone, Copy)]
struct Bar {
    until: LocalTime,
    pause: Duration,
}

impl Bar {
    fn after(before: Option<&Self>, first: Duration, now: LocalTime) -> Self {
        let pause = before.map_or(first, |bar| (bar.pause * 2).min(LONGEST_PAUSE));
        Self { until: now.later(pause), pause }
    }
}

/// With which others a record may be in one transaction: with those of the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum Company {
    /// With all whose targets are not suspected or barred.
    Any,
    /// With those that go to this topic.
    Topic(TopicId),
    /// With those that go to this partition.
    Partition(TopicId, i32),
}

impl BarredTargets {
    /// Whether no target is suspected or barred.
    pub(in crate::worker) fn is_empty(&self) -> bool {
        self.topics.is_empty() && self.partitions.is_empty()
    }

    /// With which others a record may go that goes there.
    pub(in crate::worker) fn company(&self, target: (TopicId, i32)) -> Company {
        if self.partitions.contains_key(&target) {
            Company::Partition(target.0, target.1)
        } else if self.topics.contains_key(&target.0) {
            Company::Topic(target.0)
        } else {
            Company::Any
        }
    }

    /// Whether a target could not be written to and has not been since.
    pub(in crate::worker) fn is_barred(&self, target: (TopicId, i32)) -> bool {
        self.is_denied(target.0) || self.partitions.contains_key(&target)
    }

    /// Whether a topic was denied and has not been written to since.
    pub(in crate::worker) fn is_denied(&self, topic: TopicId) -> bool {
        matches!(self.topics.get(&topic), Some(Some(_)))
    }

    /// Until when a target is left alone, if it is.
    pub(in crate::worker) fn until(&self, target: (TopicId, i32)) -> Option<LocalTime> {
        let topic = self.topics.get(&target.0).and_then(Option::as_ref);
        topic.into_iter().chain(self.partitions.get(&target)).map(|bar| bar.until).max()
    }

    /// Whether it is too early to try a target again.
    pub(in crate::worker) fn rests(&self, target: (TopicId, i32), now: LocalTime) -> bool {
        self.until(target).is_some_and(|until| until > now)
    }

    /// The topics of what has rested for long enough.
    pub(in crate::worker) fn rested(&self, now: LocalTime) -> Vec<TopicId> {
        let topics = self.topics.iter().filter(|(_, bar)| bar.is_some_and(|bar| bar.until <= now)).map(|(topic, _)| *topic);
        let partitions = self.partitions.iter().filter(|(_, bar)| bar.until <= now).map(|((topic, _), _)| *topic);
        let mut all: Vec<TopicId> = topics.chain(partitions).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Notes that a topic is one of some of which at least one is denied.
    pub(in crate::worker) fn suspect(&mut self, topic: TopicId) {
        self.topics.entry(topic).or_default();
    }

    /// Notes that a topic is denied, and gives how long it is left alone.
    pub(in crate::worker) fn deny(&mut self, topic: TopicId, now: LocalTime) -> Duration {
        let bar = Bar::after(self.topics.get(&topic).and_then(Option::as_ref), FIRST_PAUSE, now);
        self.topics.insert(topic, Some(bar));
        bar.pause
    }

    /// Notes that a partition takes nothing at the moment, and gives how long it is left alone.
    pub(in crate::worker) fn pass_over(&mut self, target: (TopicId, i32), now: LocalTime) -> Duration {
        let bar = Bar::after(self.partitions.get(&target), FIRST_PASSING_PAUSE, now);
        self.partitions.insert(target, bar);
        bar.pause
    }

    /// Notes that a target was written to, and gives whether its topic was denied before.
    pub(in crate::worker) fn written(&mut self, target: (TopicId, i32)) -> bool {
        self.partitions.remove(&target);
        self.topics.remove(&target.0).flatten().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_that_takes_nothing_rests_by_itself_and_for_longer_each_time() {
        let mut barred = BarredTargets::default();
        let topic = TopicId::numbered(3);
        let mut now = LocalTime::from_micros(0);
        let mut pauses = Vec::new();
        for _ in 0..10 {
            let pause = barred.pass_over((topic, 1), now);
            assert!(barred.rests((topic, 1), now) && !barred.rests((topic, 0), now));
            now = now.later(pause);
            assert!(!barred.rests((topic, 1), now) && barred.is_barred((topic, 1)));
            pauses.push(pause.as_millis());
        }
        assert_eq!(pauses, [250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
        assert_eq!(barred.company((topic, 1)), Company::Partition(topic, 1));
        assert_eq!((barred.company((topic, 0)), barred.rested(now)), (Company::Any, vec![topic]));
        assert!(!barred.written((topic, 1)) && !barred.is_barred((topic, 1)));
    }

    #[test]
    fn a_denied_topic_rests_as_a_whole() {
        let mut barred = BarredTargets::default();
        let topic = TopicId::numbered(3);
        barred.suspect(topic);
        assert!(!barred.is_barred((topic, 0)));
        assert_eq!(barred.company((topic, 0)), Company::Topic(topic));
        barred.deny(topic, LocalTime::from_micros(0));
        assert!(barred.rests((topic, 7), LocalTime::from_micros(0)) && barred.is_denied(topic));
        assert!(barred.written((topic, 0)));
        assert_eq!(barred.company((topic, 0)), Company::Any);
    }
}

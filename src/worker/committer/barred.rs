//! Topics that may not be written to.
//!
//! A transaction that has one denied topic among its targets fails as a whole, and which of them it was is not told. So the topics
//! of such a transaction are suspected: until each has gone through, or has failed, in a transaction of its own. One that has failed
//! alone is barred: its records wait, and their partitions with them; the other topics are written to as ever.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::core::leader_clock::LocalTime;
use crate::kafka::producer::TopicId;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The topics that are suspected or barred.
#[derive(Default)]
pub(super) struct BarredTopics(BTreeMap<TopicId, Option<Bar>>);

struct Bar {
    until: LocalTime,
    pause: Duration,
}

impl BarredTopics {
    /// Whether a topic has to be written to in transactions of its own.
    pub(super) fn goes_alone(&self, topic: TopicId) -> bool {
        self.0.contains_key(&topic)
    }

    /// Whether a topic was denied and has not been written to since.
    pub(super) fn is_barred(&self, topic: TopicId) -> bool {
        matches!(self.0.get(&topic), Some(Some(_)))
    }

    /// Whether it is too early to try a topic again.
    pub(super) fn rests(&self, topic: TopicId, now: LocalTime) -> bool {
        self.0.get(&topic).and_then(Option::as_ref).is_some_and(|bar| bar.until > now)
    }

    /// Notes that a topic is one of some of which at least one is denied.
    pub(super) fn suspect(&mut self, topic: TopicId) {
        self.0.entry(topic).or_default();
    }

    /// Notes that a topic is denied, and gives how long it is left alone.
    pub(super) fn bar(&mut self, topic: TopicId, now: LocalTime) -> Duration {
        let before = self.0.get(&topic).and_then(Option::as_ref);
        let pause = before.map_or(FIRST_PAUSE, |bar| (bar.pause * 2).min(LONGEST_PAUSE));
        self.0.insert(topic, Some(Bar { until: now.later(pause), pause }));
        pause
    }

    /// Notes that a topic was written to, and gives whether it was barred.
    pub(super) fn written(&mut self, topic: TopicId) -> bool {
        self.0.remove(&topic).flatten().is_some()
    }
}

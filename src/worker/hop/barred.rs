//! Targets that are not written to for a while.
//!
//! - A topic may be denied. A transaction with a denied target fails as a whole, without naming the topic. So the topics of such a
//!   transaction are suspected until each has succeeded, or failed, in a transaction of its own. A topic that has failed alone is barred.
//! - A partition may be unavailable at the moment: it has no leader, or too few replicas. It is barred
//!   individually.
//!
//! Records for a barred target wait, and those after them in their partition; everything else is written as usual. A barred target is
//! tried again after ever longer pauses, in a transaction of its own, since other records would fail too. A partition that is seen to have
//! recovered is tried at once.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::core::backoff::Backoff;
use crate::core::leader_clock::LocalTime;
use crate::kafka::outgoing::TopicId;
use crate::kafka::producer::PartitionLook;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// An unavailable partition is usually available again after a moment.
const FIRST_PASSING_PAUSE: Duration = Duration::from_millis(250);

/// Number of checks of a partition that lacks in-sync replicas before it is written to nevertheless: whether there are too few is
/// unknown (`min.insync.replicas` is a topic setting), and each failing write delays all others for seconds.
const LOOKS: u32 = 5;

/// Interval of checking whether barred partitions have recovered.
const RECOVERY_INTERVAL: Duration = Duration::from_secs(2);

/// The suspected and barred targets.
#[derive(Debug, Default)]
pub(in crate::worker) struct BarredTargets {
    topics: BTreeMap<TopicId, Option<Backoff>>,
    partitions: BTreeMap<(TopicId, i32), Bar>,
    /// When to check for recoveries again.
    check_at: Option<LocalTime>,
}

#[derive(Debug)]
struct Bar {
    backoff: Backoff,
    /// The state of the partition at the first check since the last write, and how often it was found unchanged.
    seen: Option<(PartitionLook, u32)>,
    /// Its state at the last check.
    last: Option<PartitionLook>,
}

/// Which other records may be in one transaction with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum TransactionScope {
    /// All whose targets are neither suspected nor barred.
    Any,
    /// Those with this target topic.
    Topic(TopicId),
    /// Those with this target partition.
    Partition(TopicId, i32),
}

impl BarredTargets {
    /// Whether no target is suspected or barred.
    pub(in crate::worker) fn is_empty(&self) -> bool {
        self.topics.is_empty() && self.partitions.is_empty()
    }

    /// Which other records may be in one transaction with a record for this target.
    pub(in crate::worker) fn scope(&self, target: (TopicId, i32)) -> TransactionScope {
        if self.partitions.contains_key(&target) {
            TransactionScope::Partition(target.0, target.1)
        } else if self.topics.contains_key(&target.0) {
            TransactionScope::Topic(target.0)
        } else {
            TransactionScope::Any
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

    /// Until when a target is barred, if it is.
    pub(in crate::worker) fn until(&self, target: (TopicId, i32)) -> Option<LocalTime> {
        let topic = self.topics.get(&target.0).and_then(Option::as_ref);
        let partition = self.partitions.get(&target).map(|bar| &bar.backoff);
        topic.into_iter().chain(partition).map(Backoff::until).max()
    }

    /// Whether it is too early to try a target again.
    pub(in crate::worker) fn rests(&self, target: (TopicId, i32), now: LocalTime) -> bool {
        self.until(target).is_some_and(|until| until > now)
    }

    /// The topics to look up: of targets whose pause is over, and now and then those of all barred partitions.
    pub(in crate::worker) fn next_lookups(&mut self, now: LocalTime) -> Vec<TopicId> {
        let checks = !self.partitions.is_empty() && self.check_at.is_none_or(|at| at <= now);
        if checks {
            self.check_at = Some(now.later(RECOVERY_INTERVAL));
        }
        let topics = self.topics.iter().filter(|(_, bar)| bar.is_some_and(|bar| bar.until() <= now)).map(|(topic, _)| *topic);
        let partitions =
            self.partitions.iter().filter(|(_, bar)| checks || bar.backoff.until() <= now).map(|((topic, _), _)| *topic);
        let mut all: Vec<TopicId> = topics.chain(partitions).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Marks a topic as one of several of which at least one is denied.
    pub(in crate::worker) fn suspect(&mut self, topic: TopicId) {
        self.topics.entry(topic).or_default();
    }

    /// Marks a topic as denied, and returns the pause.
    pub(in crate::worker) fn deny(&mut self, topic: TopicId, now: LocalTime) -> Duration {
        let bar = self.topics.entry(topic).or_default();
        bar.get_or_insert_with(|| Backoff::new(FIRST_PAUSE, LONGEST_PAUSE)).failed(now)
    }

    /// Marks a partition as unavailable, and returns the pause.
    pub(in crate::worker) fn pass_over(&mut self, target: (TopicId, i32), now: LocalTime) -> Duration {
        let fresh = || Bar { backoff: Backoff::new(FIRST_PASSING_PAUSE, LONGEST_PAUSE), seen: None, last: None };
        self.partitions.entry(target).or_insert_with(fresh).backoff.failed(now)
    }

    /// Ends the pause of a partition that has a leader and all its replicas again; returns whether it did.
    pub(in crate::worker) fn recovered(&mut self, target: (TopicId, i32), look: PartitionLook, now: LocalTime) -> bool {
        let Some(bar) = self.partitions.get_mut(&target) else { return false };
        let has_changed = bar.last.replace(look).is_some_and(|before| before != look);
        let is_well = look.leader.is_some() && look.in_sync >= look.replicas;
        if has_changed && is_well {
            bar.backoff.end_pause(now);
        }
        has_changed && is_well
    }

    /// Whether a barred partition should not be tried in this state: it has no leader, or lacks replicas as before.
    pub(in crate::worker) fn is_hopeless(&mut self, target: (TopicId, i32), look: PartitionLook) -> bool {
        let Some(bar) = self.partitions.get_mut(&target) else { return false };
        if look.leader.is_none() {
            return true;
        }
        let times = match bar.seen {
            Some((before, times)) if before == look => times + 1,
            Some(_) => LOOKS,
            None => 1,
        };
        let is_hopeless = look.in_sync < look.replicas && times < LOOKS;
        bar.seen = Some((look, if is_hopeless { times } else { 0 }));
        is_hopeless
    }

    /// Marks a target as written to, and returns whether its topic was denied before.
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
        assert_eq!(barred.scope((topic, 1)), TransactionScope::Partition(topic, 1));
        assert_eq!((barred.scope((topic, 0)), barred.next_lookups(now)), (TransactionScope::Any, vec![topic]));
        assert!(!barred.written((topic, 1)) && !barred.is_barred((topic, 1)));
    }

    #[test]
    fn what_lacks_replicas_is_written_to_when_that_has_changed_or_after_some_looks() {
        let mut barred = BarredTargets::default();
        let target = (TopicId::numbered(3), 1);
        let look = |leader, in_sync| PartitionLook { partition: 1, leader, replicas: 3, in_sync };
        assert!(!barred.is_hopeless(target, look(None, 0)), "it is not barred");
        barred.pass_over(target, LocalTime::from_micros(0));
        assert!((0..20).all(|_| barred.is_hopeless(target, look(None, 0))));
        let tries = |barred: &mut BarredTargets, in_sync: usize, looks: usize| {
            (0..looks).filter(|_| !barred.is_hopeless(target, look(Some(2), in_sync))).count()
        };
        assert_eq!(tries(&mut barred, 2, 4), 0);
        assert_eq!(tries(&mut barred, 2, 1), 1);
        // It has failed again.
        barred.pass_over(target, LocalTime::from_micros(0));
        assert_eq!(tries(&mut barred, 2, 9), 1);
        assert_eq!(tries(&mut barred, 1, 1), 1, "something has changed");
        assert_eq!(tries(&mut barred, 3, 3), 3, "nothing is missing");
    }

    #[test]
    fn a_partition_that_has_recovered_is_tried_at_once() {
        let mut barred = BarredTargets::default();
        let (target, topic) = ((TopicId::numbered(3), 1), TopicId::numbered(3));
        let look = |leader, in_sync| PartitionLook { partition: 1, leader, replicas: 3, in_sync };
        let mut now = LocalTime::from_micros(0);
        for _ in 0..9 {
            barred.pass_over(target, now);
        }
        assert_eq!(barred.next_lookups(now), [topic]);
        assert!(barred.next_lookups(now).is_empty(), "it was just looked up");
        assert!(!barred.recovered(target, look(Some(2), 3), now), "nothing is known of it yet");
        for state in [look(None, 0), look(Some(2), 2)] {
            now = now.later(RECOVERY_INTERVAL);
            assert_eq!(barred.next_lookups(now), [topic]);
            assert!(!barred.recovered(target, state, now) && barred.rests(target, now));
        }
        assert!(barred.recovered(target, look(Some(2), 3), now) && !barred.rests(target, now));
        assert!(!barred.recovered(target, look(Some(2), 3), now), "only once");
    }

    #[test]
    fn a_denied_topic_rests_as_a_whole() {
        let mut barred = BarredTargets::default();
        let topic = TopicId::numbered(3);
        barred.suspect(topic);
        assert!(!barred.is_barred((topic, 0)));
        assert_eq!(barred.scope((topic, 0)), TransactionScope::Topic(topic));
        barred.deny(topic, LocalTime::from_micros(0));
        assert!(barred.rests((topic, 7), LocalTime::from_micros(0)) && barred.is_denied(topic));
        assert!(barred.written((topic, 0)));
        assert_eq!(barred.scope((topic, 0)), TransactionScope::Any);
    }
}

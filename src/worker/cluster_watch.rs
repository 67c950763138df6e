//! Observes the cluster periodically, beyond what the workers see: whether an open transaction blocks read-committed consumers, and
//! whether the cluster still matches the configuration.
//!
//! One thread for all ladders of a process. Nothing depends on it: it reports nothing about what it cannot
//! see.

use std::collections::HashMap;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::config::{KafkaConfig, LadderConfig};
use crate::core::ladder::Mode;
use crate::core::leader_clock::LocalTime;
use crate::core::role::Role;
use crate::kafka::clock::Clock;
use crate::kafka::error::ClientError;
use crate::kafka::partition::TopicPartition;
use crate::kafka::stable::{StableOffsets, TwoEnds};
use crate::telemetry::standing::ClusterMetrics;
use crate::worker::set_up;
use crate::worker::stop::Stop;

/// Interval of looking up partition ends, and time limit of a request.
const ENDS_INTERVAL: Duration = Duration::from_secs(15);
const ASK_WITHIN: Duration = Duration::from_secs(10);

/// Interval of checking the topology, and of retrying after a failure.
const TOPOLOGY_INTERVAL: Duration = Duration::from_secs(600);
const TOPOLOGY_INTERVAL_FAILED: Duration = Duration::from_secs(60);

/// Interval of checking for the end, and maximum wait for the thread then: it may be waiting for brokers that do not answer.
const TICK: Duration = Duration::from_millis(100);
const END_LOOKS: u32 = 10;

/// Observes until it is dropped.
pub struct ClusterWatch {
    end: Stop,
    thread: Option<JoinHandle<()>>,
}

impl ClusterWatch {
    /// Starts the thread, for the topics that these roles read.
    ///
    /// # Errors
    /// The thread cannot be created.
    pub fn start(kafka: &KafkaConfig, ladders: &[&LadderConfig], roles: &[Role]) -> std::io::Result<Self> {
        let end = Stop::new();
        let ladders = ladders.iter().map(|config| WatchedLadder {
            config: (*config).clone(),
            metrics: ClusterMetrics::new(&config.ladder),
            topics: topics(config, roles),
            partitions: Vec::new(),
            stalls: Stalls::default(),
        });
        let watching = Watching {
            kafka: kafka.clone(),
            clock: Clock::system(),
            ladders: ladders.collect(),
            end: end.clone(),
            offsets: None,
        };
        let thread = std::thread::Builder::new().name("cluster".to_owned()).spawn(move || watching.run())?;
        Ok(Self { end, thread: Some(thread) })
    }
}

impl Drop for ClusterWatch {
    fn drop(&mut self) {
        self.end.set();
        let Some(thread) = self.thread.take() else { return };
        for _ in 0..END_LOOKS {
            if thread.is_finished() {
                return;
            }
            std::thread::sleep(TICK);
        }
    }
}

/// The topics of a ladder that these roles read.
fn topics(config: &LadderConfig, roles: &[Role]) -> Vec<String> {
    let ladder = &config.ladder;
    let mut topics = Vec::new();
    for role in roles {
        match role {
            Role::Mover => topics.extend(ladder.tiers().iter().map(|tier| tier.topic().to_owned())),
            Role::Deliverer if ladder.mode() == Mode::Push => {
                topics.extend(ladder.sources().iter().cloned());
                topics.push(ladder.redeliver_topic());
            }
            Role::Router if ladder.mode() == Mode::Relay => topics.push(ladder.inbox_topic()),
            Role::Deliverer | Role::Router | Role::Index => {}
        }
    }
    topics
}

struct Watching {
    kafka: KafkaConfig,
    clock: Clock,
    ladders: Vec<WatchedLadder>,
    end: Stop,
    offsets: Option<StableOffsets>,
}

struct WatchedLadder {
    config: LadderConfig,
    metrics: ClusterMetrics,
    topics: Vec<String>,
    partitions: Vec<TopicPartition>,
    stalls: Stalls,
}

impl Watching {
    fn run(mut self) {
        let (mut ends_at, mut topology_at) = (self.clock.now(), self.clock.now());
        while !self.end.is_set() {
            let now = self.clock.now();
            if now >= topology_at {
                let pause = if self.look_at_topology() { TOPOLOGY_INTERVAL } else { TOPOLOGY_INTERVAL_FAILED };
                topology_at = self.clock.now().later(pause);
            }
            if now >= ends_at {
                if let Err(error) = self.look_at_ends() {
                    tracing::debug!(%error, "cannot check for blocked transactions; retrying later");
                }
                ends_at = self.clock.now().later(ENDS_INTERVAL);
            }
            std::thread::sleep(TICK);
        }
    }

    /// Returns whether it could be read.
    fn look_at_topology(&mut self) -> bool {
        let ladders: Vec<&LadderConfig> = self.ladders.iter().map(|watched| &watched.config).collect();
        let found = set_up::differences(&self.kafka, &ladders)
            .inspect_err(|error| tracing::debug!(%error, "cannot compare the cluster with the configuration"))
            .ok();
        for watched in &mut self.ladders {
            watched.metrics.differs(found.as_ref().and_then(|found| found.get(watched.config.ladder.name()).copied()));
            // Partitions may have been added: they are counted again.
            watched.partitions.clear();
        }
        found.is_some()
    }

    fn look_at_ends(&mut self) -> Result<(), ClientError> {
        let offsets = match &self.offsets {
            Some(offsets) => offsets,
            None => self.offsets.insert(StableOffsets::new(&self.kafka)?),
        };
        for watched in &mut self.ladders {
            if self.end.is_set() {
                return Ok(());
            }
            if watched.partitions.is_empty() {
                let counted = watched.topics.iter().map(|topic| offsets.partitions(topic, ASK_WITHIN));
                watched.partitions = counted.collect::<Result<Vec<_>, _>>()?.concat();
            }
            let ends = offsets.look(&watched.partitions, ASK_WITHIN)?;
            let longest = watched.stalls.look(self.clock.now(), ends);
            watched.metrics.stalled(longest);
        }
        Ok(())
    }
}

/// Since when each last stable offset has not moved although there are more records.
#[derive(Default)]
struct Stalls(HashMap<TopicPartition, (i64, LocalTime)>);

impl Stalls {
    /// How long the longest of them has not moved. One seen for the first time may have just begun.
    fn look(&mut self, now: LocalTime, seen: Vec<TwoEnds>) -> Duration {
        let before = std::mem::take(&mut self.0);
        let standing = seen.into_iter().filter(|ends| ends.stable < ends.end);
        self.0 = standing
            .map(|ends| {
                let since = before.get(&ends.tp).filter(|(stable, _)| *stable == ends.stable).map_or(now, |(_, since)| *since);
                (ends.tp, (ends.stable, since))
            })
            .collect();
        self.0.values().map(|(_, since)| now.since(*since)).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(partition: i32, stable: i64, end: i64) -> TwoEnds {
        TwoEnds { tp: TopicPartition { topic: "t".into(), partition }, stable, end }
    }

    fn at(seconds: i64) -> LocalTime {
        LocalTime::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn only_an_offset_that_does_not_move_below_its_end_has_stalled() {
        let mut stalls = Stalls::default();
        assert_eq!(stalls.look(at(0), vec![ends(0, 5, 9), ends(1, 3, 3)]), Duration::ZERO);
        assert_eq!(stalls.look(at(15), vec![ends(0, 5, 12), ends(1, 3, 4)]), Duration::from_secs(15));
        // One moves on, the other has not moved since it was first seen below its end.
        assert_eq!(stalls.look(at(30), vec![ends(0, 8, 12), ends(1, 3, 4)]), Duration::from_secs(15));
        assert_eq!(stalls.look(at(45), vec![ends(0, 12, 12), ends(1, 4, 4)]), Duration::ZERO);
        // A new stall starts from zero.
        assert_eq!(stalls.look(at(60), vec![ends(0, 12, 13)]), Duration::ZERO);
    }
}

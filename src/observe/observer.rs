//! Reads the cluster.

use std::time::Duration;

use crate::config::{KafkaConfig, LadderConfig};
use crate::core::delay::Delay;
use crate::core::ladder::{Mode, Redelivery};
use crate::core::role::Role;
use crate::core::state::LadderState;
use crate::core::time::Timestamp;
use crate::core::topics::{delay_of_tier_topic, mover_group, router_group, tier_topic};
use crate::kafka::admin::KafkaCluster;
use crate::kafka::clock::Clock;
use crate::kafka::onlooker::Onlooker;
use crate::observe::facts::{GroupSeen, LadderFacts, Lateness, Observation, Part, QueueFacts, TierFacts, Unseen};
use crate::observe::handler::HandlerSeen;
use crate::observe::scrape::Samples;
use crate::telemetry::names;
use crate::topology::{ClusterError, Observed, PartitionTail, Scope, tail_totals};

/// How much is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depth {
    /// Count the waiting records by reading them, except those of the sources.
    pub exact: bool,
    /// Describe the groups.
    pub members: bool,
    /// Read tiers that are no longer in the configuration, too.
    pub former_tiers: bool,
}

/// Observes some ladders, once or repeatedly.
pub struct Observer {
    onlooker: Onlooker,
    ladders: Vec<LadderConfig>,
    scope: Scope,
    clock: Clock,
}

impl Observer {
    /// Connects.
    ///
    /// # Errors
    /// The cluster cannot be reached.
    pub fn connect(kafka: &KafkaConfig, ladders: &[&LadderConfig]) -> Result<Self, ClusterError> {
        Ok(Self {
            onlooker: Onlooker::new(KafkaCluster::connect(kafka)?)?,
            ladders: ladders.iter().map(|ladder| (*ladder).clone()).collect(),
            scope: Scope::of(ladders),
            clock: Clock::system(),
        })
    }

    /// The observed cluster.
    #[must_use]
    pub fn cluster(&self) -> &KafkaCluster {
        self.onlooker.cluster()
    }

    /// The observed ladders.
    #[must_use]
    pub fn ladders(&self) -> &[LadderConfig] {
        &self.ladders
    }

    /// All topics and groups of the ladders.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The current content of a state topic.
    ///
    /// # Errors
    /// It does not exist or may not be read, or the cluster does not answer.
    pub fn state(&mut self, topic: &str) -> Result<LadderState, ClusterError> {
        self.onlooker.state(topic).cloned()
    }

    /// One observation. `samples` are the metrics of a worker.
    ///
    /// # Errors
    /// The cluster does not answer. Parts that can fail alone are in [`LadderFacts::unseen`].
    pub fn look(&mut self, samples: Option<&Samples>, depth: Depth) -> Result<Observation, ClusterError> {
        let standing = self.onlooker.standing(&self.scope)?;
        let now = self.clock.now().timestamp();
        let mut look = Look { onlooker: &mut self.onlooker, standing: &standing, samples, depth, now };
        let ladders = self.ladders.iter().map(|ladder| look.ladder(ladder)).collect::<Result<_, _>>()?;
        Ok(Observation { at: now, standing, ladders })
    }
}

struct Look<'a> {
    onlooker: &'a mut Onlooker,
    standing: &'a Observed,
    samples: Option<&'a Samples>,
    depth: Depth,
    now: Timestamp,
}

impl Look<'_> {
    fn ladder(&mut self, config: &LadderConfig) -> Result<LadderFacts, ClusterError> {
        let ladder = &config.ladder;
        let name = ladder.name();
        let mut facts = LadderFacts {
            handler: self.samples.and_then(|samples| HandlerSeen::of(samples, name)),
            open_dead_letters: self.gauge(names::DLQ_OPEN, name),
            headers_missing: self.gauge(names::RELAY_HEADERS_MISSING, name),
            ..LadderFacts::default()
        };
        for topic in ladder.sources() {
            facts.sources.extend(self.queue(ladder.group(), topic, false)?);
        }
        if ladder.mode() == Mode::Relay {
            facts.inbox = self.queue(&router_group(name), &ladder.inbox_topic(), self.depth.exact)?;
        }
        if ladder.redelivery() == Redelivery::Topic {
            facts.redeliver = self.queue(ladder.group(), &ladder.redeliver_topic(), self.depth.exact)?;
        }
        for tier in ladder.tiers() {
            let found = self.tier(name, tier.delay(), &mut facts.unseen)?;
            facts.tiers.extend(found);
        }
        if self.depth.former_tiers {
            let delays = self.standing.topics.keys().filter_map(|topic| delay_of_tier_topic(name, topic));
            for delay in delays.filter(|delay| ladder.tiers().iter().all(|tier| tier.delay() != *delay)).collect::<Vec<_>>() {
                let found = self.tier(name, delay, &mut facts.unseen)?;
                facts.former_tiers.extend(found);
            }
        }
        for topic in ladder.dlq_topics() {
            // No group commits there, so the whole topic counts as unread.
            facts.dead_letters.extend(self.queue("", &topic, self.depth.exact)?);
        }
        if self.standing.topics.contains_key(&ladder.state_topic()) {
            match self.onlooker.state(&ladder.state_topic()) {
                Ok(state) => facts.state = Some(state.clone()),
                Err(error) => facts.unseen.push(Unseen { part: Part::State, error }),
            }
        }
        if self.depth.members {
            self.members(config, &mut facts);
        }
        Ok(facts)
    }

    fn gauge(&self, metric: names::Metric, ladder: &str) -> Option<f64> {
        self.samples.and_then(|samples| samples.sum(metric.name, &[(names::LADDER, ladder)]))
    }

    /// The offsets of a topic; `None` if it does not exist.
    fn queue(&self, group: &str, topic: &str, exact: bool) -> Result<Option<QueueFacts>, ClusterError> {
        if !self.standing.topics.contains_key(topic) {
            return Ok(None);
        }
        let tails = self.onlooker.cluster().tails(self.standing, group, topic, None)?;
        let mut queue = queue_of(group, topic, &tails);
        if exact && queue.waiting > 0 {
            // The group only gives the reader a name.
            let reader = if group.is_empty() { topic } else { group };
            let counted = self.onlooker.cluster().count(reader, topic, &tails, Timestamp::from_millis(0))?;
            queue.waiting = signed(counted.records);
        }
        Ok(Some(queue))
    }

    /// A tier; `None` if its topic does not exist.
    fn tier(&mut self, ladder: &str, delay: Delay, unseen: &mut Vec<Unseen>) -> Result<Option<TierFacts>, ClusterError> {
        let (topic, group, time) = (tier_topic(ladder, delay), mover_group(ladder), delay.duration());
        if !self.standing.topics.contains_key(&topic) {
            return Ok(None);
        }
        let ahead = self.leaders_ahead(ladder);
        let leaders_now = Timestamp::from_millis(self.now.as_millis().saturating_add(ahead));
        let tails = self.onlooker.cluster().tails(self.standing, &group, &topic, Some(leaders_now - time))?;
        let mut queue = queue_of(&group, &topic, &tails);
        let mut due = tail_totals(&tails).due;
        let oldest = if self.depth.exact {
            let counted = self.onlooker.cluster().count(&group, &topic, &tails, leaders_now - time)?;
            (queue.waiting, due) = (signed(counted.records), signed(counted.due));
            counted.oldest
        } else {
            match self.onlooker.oldest(&topic, &tails) {
                // If the lookup finds no record there is none, only transaction markers.
                Ok(None) => {
                    (queue.waiting, due) = (0, 0);
                    None
                }
                // How many are due is looked up by time, which not every broker supports, and at a slightly different moment: the
                // oldest record decides whether any is due.
                Ok(Some(at)) => {
                    due = if at + time > leaders_now { 0 } else { due.max(1) };
                    Some(at)
                }
                Err(error) => {
                    unseen.push(Unseen { part: Part::Oldest(topic), error });
                    None
                }
            }
        };
        let label = delay.to_string();
        let labels = [(names::LADDER, ladder), (names::TIER, label.as_str())];
        let quantile = |q: f64| {
            let seconds = self.samples?.quantile(names::LATENESS.name, &labels, q)?;
            Duration::try_from_secs_f64(seconds).ok()
        };
        // From the clock of the partition leaders, by which records are appended and due, to this one.
        let here = |at: Timestamp| Timestamp::from_millis((at + time).as_millis().saturating_sub(ahead));
        Ok(Some(TierFacts {
            queue,
            delay,
            due,
            oldest,
            next_due: oldest.map(here),
            lateness: quantile(0.5).zip(quantile(0.99)).map(|(p50, p99)| Lateness { p50, p99 }),
            hops: self.samples.and_then(|samples| hops_into(samples, ladder, delay)),
        }))
    }

    /// How many milliseconds the leaders' clocks are ahead of the worker's, whose clock is assumed to equal this
    /// machine's.
    fn leaders_ahead(&self, ladder: &str) -> i64 {
        let seconds = self.gauge(names::CLOCK_OFFSET, ladder).unwrap_or(0.0);
        let millis = Duration::try_from_secs_f64(seconds.abs()).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(0));
        if seconds < 0.0 { -millis } else { millis }
    }

    fn members(&self, config: &LadderConfig, facts: &mut LadderFacts) {
        let ladder = &config.ladder;
        let owner = (ladder.mode() == Mode::Push).then_some(Role::Deliverer);
        let mut groups = vec![(ladder.group().to_owned(), owner), (mover_group(ladder.name()), Some(Role::Mover))];
        if ladder.mode() == Mode::Relay {
            groups.push((router_group(ladder.name()), Some(Role::Router)));
        }
        for (group, role) in groups {
            match self.onlooker.cluster().members_of(&group) {
                Ok(members) => facts.members.push(GroupSeen { group, role, members }),
                Err(error) => facts.unseen.push(Unseen { part: Part::Members(group), error }),
            }
        }
    }
}

/// Number of hops into the tier of this delay, by a worker's metrics.
#[must_use]
pub fn hops_into(samples: &Samples, ladder: &str, delay: Delay) -> Option<f64> {
    samples.sum(names::HOPS.name, &[(names::LADDER, ladder), (names::TIER, &delay.to_string())])
}

fn queue_of(group: &str, topic: &str, tails: &[PartitionTail]) -> QueueFacts {
    let totals = tail_totals(tails);
    QueueFacts {
        topic: topic.to_owned(),
        group: group.to_owned(),
        waiting: totals.waiting,
        ends: tails.iter().map(|tail| tail.high).sum(),
        done: tails.iter().map(PartitionTail::position).sum(),
        without_offset: totals.without_offset,
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

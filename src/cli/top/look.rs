//! Looks at the ladders, on a thread of its own: a cluster that does not answer must not stop the picture.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::cli::handler_seen::HandlerSeen;
use crate::cli::hold::Word;
use crate::cli::metrics_scrape::{Samples, reachable, scrape_once};
use crate::cli::status::held_text;
use crate::cli::top::observation::{DeadLetters, Hold, LadderSeen, Lateness, Member, Observation, Queue, TierSeen};
use crate::cli::who::who;
use crate::config::{Config, LadderConfig};
use crate::core::ladder::{Mode, Redelivery, Tier};
use crate::core::state::LadderState;
use crate::core::time::Timestamp;
use crate::core::topics::{mover_group, router_group, worker_of_member};
use crate::kafka::admin::KafkaCluster;
use crate::kafka::clock::Clock;
use crate::kafka::onlooker::Onlooker;
use crate::telemetry::names;
use crate::topology::{ClusterError, Observed, PartitionTail, Scope, tail_totals};

/// What the looker has to tell.
pub(super) enum News {
    /// What was seen.
    Seen(Box<Observation>),
    /// Why nothing was seen this time.
    Unseen(String),
    /// What came of a command.
    Told(String),
}

/// To hold or to resume the ladder of that number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Command {
    pub chosen: usize,
    pub held: bool,
}

/// Looks at some ladders of a configuration.
pub(super) struct Looker {
    onlooker: Onlooker,
    ladders: Vec<LadderConfig>,
    scope: Scope,
    worker: SocketAddr,
    clock: Clock,
}

impl Looker {
    /// Connects.
    ///
    /// # Errors
    /// When the cluster cannot be reached.
    pub fn connect(config: &Config, ladders: &[&LadderConfig]) -> Result<Self, ClusterError> {
        let onlooker = Onlooker::new(KafkaCluster::connect(&config.kafka)?)?;
        Ok(Self {
            onlooker,
            ladders: ladders.iter().map(|ladder| (*ladder).clone()).collect(),
            scope: Scope::of(ladders),
            worker: reachable(config.health.listen),
            clock: Clock::system(),
        })
    }

    /// Looks at once, then each time that so long has passed, and does what is asked in between, until nobody asks or listens any more.
    pub fn keep_looking(mut self, every: Duration, commands: &Receiver<Command>, tell: impl Fn(News) -> bool) {
        loop {
            let news = match self.look() {
                Ok(seen) => News::Seen(Box::new(seen)),
                Err(error) => News::Unseen(error.to_string()),
            };
            if !tell(news) {
                return;
            }
            match commands.recv_timeout(every) {
                Ok(command) => {
                    if !tell(News::Told(self.obey(command))) {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Does what `kladder hold` and `kladder resume` do.
    fn obey(&mut self, command: Command) -> String {
        let Some(ladder) = self.ladders.get(command.chosen) else { return "there is no such ladder".to_owned() };
        let mut said = Vec::new();
        let who = who();
        let outcome = self.onlooker.state(&ladder.ladder.state_topic()).cloned().and_then(|state| {
            let word = Word { held: command.held, who: &who, why: None, accept: None, now: self.clock.now().timestamp() };
            word.give(self.onlooker.cluster(), ladder, &state, &mut |line| said.push(line))
        });
        match outcome {
            Ok(_) => said.join("; "),
            Err(error) => format!("not {}: {error}", if command.held { "held" } else { "resumed" }),
        }
    }

    /// One look.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub fn look(&mut self) -> Result<Observation, ClusterError> {
        // The worker first: asking it takes no time, or, where it hangs, some that the offsets must not be older by.
        let samples = scrape_once(self.worker).ok();
        let standing = self.onlooker.standing(&self.scope)?;
        let at = self.clock.now().timestamp();
        let ladders = self.ladders.clone();
        let mut look = Look { onlooker: &mut self.onlooker, standing: &standing, samples: samples.as_ref(), now: at };
        let ladders = ladders.iter().map(|ladder| look.ladder(ladder)).collect::<Result<_, _>>()?;
        Ok(Observation { at, ladders, worker: samples.is_some().then(|| self.worker.to_string()) })
    }
}

struct Look<'a> {
    onlooker: &'a mut Onlooker,
    standing: &'a Observed,
    samples: Option<&'a Samples>,
    now: Timestamp,
}

impl Look<'_> {
    fn ladder(&mut self, config: &LadderConfig) -> Result<LadderSeen, ClusterError> {
        let ladder = &config.ladder;
        let name = ladder.name();
        let mut notes = Vec::new();
        let all = ladder.sources().iter().cloned().chain(ladder.tiers().iter().map(|tier| tier.topic().to_owned()));
        let missing = all.chain([ladder.state_topic()]).filter(|topic| !self.standing.topics.contains_key(topic));
        let missing = missing.collect::<Vec<_>>();
        if !missing.is_empty() {
            notes.push(format!("{} does not exist, or may not be described: run kladder setup", missing.join(", ")));
        }
        let mut sources = Vec::new();
        for topic in ladder.sources() {
            sources.extend(self.queue(ladder.group(), topic)?);
        }
        let inbox = match ladder.mode() {
            Mode::Relay => self.queue(&router_group(name), &ladder.inbox_topic())?,
            Mode::Push => None,
        };
        let redeliver = match ladder.redelivery() {
            Redelivery::Topic => self.queue(ladder.group(), &ladder.redeliver_topic())?,
            Redelivery::Origin => None,
        };
        let mut tiers = Vec::new();
        for tier in ladder.tiers() {
            tiers.extend(self.tier(name, tier, &mut notes)?);
        }
        let state = self.state(&ladder.state_topic(), &mut notes)?;
        let hold = state.as_ref().map_or(Hold::Unknown, |state| held_text(state, self.now).map_or(Hold::Running, hold_of));
        let dead_letters_held = state.as_ref().and_then(|state| state.dead_letters_held_until(self.now));
        Ok(LadderSeen {
            name: name.to_owned(),
            mode: ladder.mode(),
            group: ladder.group().to_owned(),
            hold,
            dead_letters_held: dead_letters_held.map(|(until, record)| record.told(until, self.now)),
            handler: self.samples.and_then(|samples| HandlerSeen::of(samples, name)),
            handlers_down: state.as_ref().map(handlers_down).unwrap_or_default(),
            sources,
            inbox,
            tiers,
            redeliver,
            dead_letters: self.dead_letters(name, &ladder.dlq_topics())?,
            members: self.members(config, &mut notes),
            notes,
        })
    }

    fn gauge(&self, metric: &str, ladder: &str) -> Option<f64> {
        self.samples.and_then(|samples| samples.sum(metric, &[(names::LADDER, ladder)]))
    }

    /// Where the topic stands; `None` where it does not exist.
    fn queue(&self, group: &str, topic: &str) -> Result<Option<Queue>, ClusterError> {
        if !self.standing.topics.contains_key(topic) {
            return Ok(None);
        }
        Ok(Some(queue_of(topic, &self.onlooker.cluster().tails(self.standing, group, topic, None)?)))
    }

    fn tier(&mut self, ladder: &str, tier: &Tier, notes: &mut Vec<String>) -> Result<Option<TierSeen>, ClusterError> {
        let (topic, delay) = (tier.topic(), tier.delay().duration());
        if !self.standing.topics.contains_key(topic) {
            return Ok(None);
        }
        let ahead = self.leaders_ahead(ladder);
        let leaders_now = Timestamp::from_millis(self.now.as_millis().saturating_add(ahead));
        let tails = self.onlooker.cluster().tails(self.standing, &mover_group(ladder), topic, Some(leaders_now - delay))?;
        let mut queue = queue_of(topic, &tails);
        let mut due = tail_totals(&tails).due;
        let oldest = match self.onlooker.oldest(topic, &tails) {
            // Where no record answers there is none: only markers of transactions.
            Ok(None) => {
                (queue.waiting, due) = (0, 0);
                None
            }
            Ok(oldest) => oldest,
            Err(error) => {
                note_denied(error, "when the next record is due is unknown", notes)?;
                None
            }
        };
        // What is due is looked up by time, which not every broker can, and a moment before.
        if oldest.is_some_and(|oldest| oldest + delay > leaders_now) {
            due = 0;
        }
        let label = tier.delay().to_string();
        let labels = [(names::LADDER, ladder), (names::TIER, label.as_str())];
        let quantile = |q: f64| {
            let seconds = self.samples?.quantile(names::LATENESS.name, &labels, q)?;
            Duration::try_from_secs_f64(seconds).ok()
        };
        let lateness = quantile(0.5).zip(quantile(0.99)).map(|(p50, p99)| Lateness { p50, p99 });
        // From the leaders' clock, by which records are appended and due, to this one.
        let here = |at: Timestamp| Timestamp::from_millis((at + delay).as_millis().saturating_sub(ahead));
        Ok(Some(TierSeen { queue, delay, due, next_due: oldest.map(here), lateness }))
    }

    /// By how many milliseconds the leaders' clocks are ahead of the worker's, which is taken for this machine's.
    fn leaders_ahead(&self, ladder: &str) -> i64 {
        let seconds = self.gauge(names::CLOCK_OFFSET.name, ladder).unwrap_or(0.0);
        let millis = Duration::try_from_secs_f64(seconds.abs()).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(0));
        if seconds < 0.0 { -millis } else { millis }
    }

    fn dead_letters(&self, ladder: &str, topics: &[String]) -> Result<Option<DeadLetters>, ClusterError> {
        let mut letters = DeadLetters { open: self.gauge(names::DLQ_OPEN.name, ladder).map(count_of), ..DeadLetters::default() };
        let mut exists = false;
        for topic in topics {
            // Nobody commits there, so all of it is what no group has read.
            if let Some(queue) = self.queue("", topic)? {
                exists = true;
                letters.records += queue.waiting;
                letters.ends += queue.ends;
            }
        }
        Ok(exists.then_some(letters))
    }

    fn state(&mut self, topic: &str, notes: &mut Vec<String>) -> Result<Option<LadderState>, ClusterError> {
        if !self.standing.topics.contains_key(topic) {
            return Ok(None);
        }
        match self.onlooker.state(topic) {
            Ok(state) => Ok(Some(state.clone())),
            Err(error) => note_denied(error, "whether the ladder is held is unknown", notes).map(|()| None),
        }
    }

    fn members(&self, config: &LadderConfig, notes: &mut Vec<String>) -> Option<Vec<Member>> {
        let ladder = &config.ladder;
        let owner = if ladder.mode() == Mode::Push { "deliverer" } else { "application" };
        let mut groups = vec![(ladder.group().to_owned(), owner), (mover_group(ladder.name()), "mover")];
        if ladder.mode() == Mode::Relay {
            groups.push((router_group(ladder.name()), "router"));
        }
        let mut members = Vec::new();
        for (group, role) in groups {
            let found = match self.onlooker.cluster().members_of(&group) {
                Ok(found) => found,
                // Not every broker tells this, and what else was asked has been answered: it hides nothing else.
                Err(ClusterError::Unsupported { .. }) => {
                    notes.push("this broker does not tell who is in its groups".to_owned());
                    return None;
                }
                Err(error) => {
                    notes.push(format!("the workers cannot be seen: {error}"));
                    return None;
                }
            };
            let consumed = ladder.consumed_topics();
            for member in found {
                let name = member.instance.as_deref().map(|name| worker_of_member(name, &consumed).to_owned());
                let (worker, partitions) = (name.unwrap_or(member.client_id), member.topics);
                // A deliverer has a member for each topic.
                let is_same = |known: &&mut Member| known.role == role && known.worker == worker && known.host == member.host;
                match members.iter_mut().find(is_same) {
                    Some(known) => known.partitions.extend(partitions),
                    None => members.push(Member { worker, host: member.host, role, partitions }),
                }
            }
        }
        Some(members)
    }
}

/// What may not be seen is told and hides nothing else; any other error is one of the whole look.
fn note_denied(error: ClusterError, what: &str, notes: &mut Vec<String>) -> Result<(), ClusterError> {
    match error {
        ClusterError::NotAuthorised { .. } => {
            notes.push(format!("{what}: {error}"));
            Ok(())
        }
        error => Err(error),
    }
}

fn queue_of(topic: &str, tails: &[PartitionTail]) -> Queue {
    Queue {
        topic: topic.to_owned(),
        waiting: tail_totals(tails).waiting,
        ends: tails.iter().map(|tail| tail.high).sum(),
        done: tails.iter().map(PartitionTail::position).sum(),
    }
}

/// `HELD since …` without the word, which the picture writes itself.
fn hold_of(told: String) -> Hold {
    Hold::Held(told.strip_prefix("HELD ").map(str::to_owned).unwrap_or(told))
}

/// The workers that have told that their handler is down.
fn handlers_down(state: &LadderState) -> Vec<String> {
    state.handlers_down.keys().cloned().collect()
}

/// A gauge that counts.
fn count_of(gauge: f64) -> i64 {
    // Whole numbers are written without a point, and no topic holds as many that a float would round them.
    format!("{gauge:.0}").parse().unwrap_or(0)
}

//! Finds the dead-letter topic of a command, and opens its index.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use crate::cli::dlq::UsageError;
use crate::cli::dlq::progress::Line;
use crate::cli::output::tell;
use crate::cli::{ConfigArg, config_file};
use crate::config::types::DEFAULT_PARK_AFTER;
use crate::config::{Config, KafkaConfig, LadderConfig, QueueConfig, RegistryConfig};
use crate::core::dialect::Dialect;
use crate::core::time::Timestamp;
use crate::core::topics::own_dlq_topic;
use crate::dlq::desk::Desk;
use crate::dlq::feed::{Feed, Progress};
use crate::dlq::index::Index;
use crate::dlq::payload::{Decoder, Registry};
use crate::dlq::queue::Queue;
use crate::kafka::admin::KafkaCluster;
use crate::kafka::clock::Clock;

/// The dead-letter topic.
#[derive(Debug, Args)]
pub struct QueueArgs {
    #[command(flatten)]
    config: ConfigArg,

    /// Ladder or [dlq.NAME] section; may be omitted if the configuration has only one
    #[arg(long, value_name = "NAME", conflicts_with = "topic")]
    ladder: Option<String>,

    /// Separate dead-letter topic of a rule of the ladder
    #[arg(long, value_name = "NAME", conflicts_with = "topic")]
    dlq: Option<String>,

    /// Bootstrap brokers, to work without a configuration; needs --topic
    #[arg(short, long, value_name = "BROKERS", requires = "topic")]
    brokers: Option<String>,

    /// Any dead-letter topic; one that is not in the configuration is read-only, and all its letters are shown as open
    #[arg(short, long, value_name = "TOPIC")]
    topic: Option<String>,

    /// Dialect of its headers, if detection fails: spring, connect, streams, smallrye, share-group
    #[arg(long, value_name = "NAME", requires = "topic", value_parser = dialect)]
    dialect: Option<Dialect>,

    /// Directory of the index
    #[arg(
        long,
        value_name = "FOLDER",
        help = "Directory of the index [default: as configured, $STATE_DIRECTORY, or $XDG_STATE_HOME/kladder]"
    )]
    state_dir: Option<PathBuf>,

    /// Maximum wait for the index to catch up; after that, results come with a note of how far it is
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "10m")]
    within: Duration,
}

fn dialect(name: &str) -> Result<Dialect, String> {
    let found = Dialect::NAMES.iter().find(|(known, _)| *known == name).map(|(_, dialect)| *dialect);
    found.ok_or_else(|| format!("known: {}", Dialect::NAMES.map(|(name, _)| name).join(", ")))
}

/// The queue of a command.
pub struct Opened {
    /// How to reach Kafka.
    pub kafka: KafkaConfig,
    /// The queue.
    pub queue: Queue,
    registry: Option<RegistryConfig>,
    state_dir: PathBuf,
    within: Duration,
}

impl QueueArgs {
    /// Finds the queue.
    ///
    /// # Errors
    /// No queue matches, or several.
    pub fn find(&self) -> anyhow::Result<Opened> {
        let within = self.within;
        if let (Some(brokers), Some(topic)) = (&self.brokers, &self.topic) {
            let queue = Queue::of_topic(topic, self.dialect, DEFAULT_PARK_AFTER);
            let state_dir = self.state_dir.clone().unwrap_or_else(config_file::state_dir_of_surroundings);
            return Ok(Opened { kafka: KafkaConfig::new(brokers), queue, registry: None, state_dir, within });
        }
        let file = config_file::load(&self.config)?;
        let state_dir = self.state_dir.clone().unwrap_or_else(|| file.state_dir());
        let kafka = file.config.kafka.clone();
        let registry = file.config.schema_registry.clone();
        if let Some(topic) = &self.topic {
            let queue = known(&file.config, topic).unwrap_or_else(|| Queue::of_topic(topic, self.dialect, DEFAULT_PARK_AFTER));
            return Ok(Opened { kafka, queue, registry, state_dir, within });
        }
        let names: Vec<&str> = file
            .config
            .ladders
            .iter()
            .map(|l| l.ladder.name())
            .chain(file.config.queues.iter().map(|q| q.name.as_str()))
            .collect();
        let chosen = match &self.ladder {
            Some(name) if names.contains(&name.as_str()) => name.as_str(),
            Some(name) => {
                return Err(UsageError(format!(
                    "no ladder or [dlq] section `{name}`: the configuration has {}",
                    names.join(", ")
                ))
                .into());
            }
            None if names.len() == 1 => names[0],
            None => {
                return Err(UsageError(format!("name one with --ladder NAME: the configuration has {}", names.join(", "))).into());
            }
        };
        if let Some(section) = file.config.queues.iter().find(|queue| queue.name == chosen) {
            if self.dlq.is_some() {
                return Err(UsageError(format!("[dlq.{chosen}] has no rules, and so no other dead-letter topic")).into());
            }
            let queue = of_section(section);
            return Ok(Opened { kafka, queue, registry, state_dir, within });
        }
        let ladder = file.config.ladders.iter().find(|l| l.ladder.name() == chosen).context("no such ladder")?;
        let topics = ladder.ladder.dlq_topics();
        if let Some(name) = self.dlq.as_deref().filter(|name| !topics.contains(&own_dlq_topic(chosen, name))) {
            let has = topics.join(", ");
            return Err(UsageError(format!("no rule of ladder {chosen} has a dead-letter topic `{name}`: it has {has}")).into());
        }
        let queue = of_ladder(ladder, self.dlq.as_deref());
        Ok(Opened { kafka, queue, registry, state_dir, within })
    }
}

/// The queue of a topic, if it is in the configuration.
fn known(config: &Config, topic: &str) -> Option<Queue> {
    if let Some(section) = config.queues.iter().find(|section| section.topic == topic) {
        return Some(of_section(section));
    }
    let ladder = config.ladders.iter().find(|ladder| ladder.ladder.dlq_topics().iter().any(|own| own == topic))?;
    let name = ladder.ladder.name();
    Some(of_ladder(ladder, topic.strip_prefix(&own_dlq_topic(name, ""))))
}

fn of_section(section: &QueueConfig) -> Queue {
    Queue::of_section(&section.name, &section.topic, section.dialect, &section.targets, section.park_after)
}

fn of_ladder(ladder: &LadderConfig, dlq: Option<&str>) -> Queue {
    Queue::of_ladder(&ladder.ladder, dlq, &ladder.redrive.targets, ladder.redrive.park_after)
}

impl Opened {
    /// The decoder of payloads, with the schema registry if one is configured.
    ///
    /// # Errors
    /// The registry's client cannot be created.
    pub fn decoder(&self) -> anyhow::Result<Decoder> {
        Ok(Decoder::new(self.registry.as_ref().map(Registry::new).transpose()?))
    }

    fn index(&self, cluster: &KafkaCluster) -> anyhow::Result<Index> {
        let path = self.queue.index_path(&self.state_dir, &cluster.cluster_id());
        match Index::open(&path, self.queue.park_after) {
            Ok(index) => Ok(index),
            // A user without write access to the directory can still read.
            Err(error) => {
                tell!("note: {error}; the index is built in memory this time (--state-dir sets another directory)");
                Ok(Index::in_memory(self.queue.park_after)?)
            }
        }
    }

    /// Opens the index and brings it up to date.
    ///
    /// # Errors
    /// The topic cannot be read.
    pub fn read(&self) -> anyhow::Result<Feed> {
        let cluster = KafkaCluster::connect(&self.kafka)?;
        let index = self.index(&cluster)?;
        let mut feed = Feed::open(&self.kafka, cluster, &self.queue, index)?;
        let ends = feed.ends()?;
        let mut line = Line::new();
        let reached = feed.catch_up(&ends, Some(self.within), |progress| tell(&mut line, progress))?;
        line.end();
        if !reached.is_complete() {
            tell!(
                "note: the index is behind: it has read {} of {} offsets ({} %); results cover only those",
                reached.read,
                reached.of,
                percent(reached)
            );
        }
        tell_open(&feed)?;
        Ok(feed)
    }

    /// The same, for a command that writes.
    ///
    /// # Errors
    /// The topic cannot be read to its end, or is read-only here.
    pub fn write(&self, owner: &str) -> anyhow::Result<Desk> {
        let cluster = KafkaCluster::connect(&self.kafka)?;
        let index = self.index(&cluster)?;
        let mut desk = Desk::open(&self.kafka, cluster, &self.queue, index, owner)?;
        let mut line = Line::new();
        desk.catch_up(|progress| tell(&mut line, progress))?;
        line.end();
        tell_open(desk.feed())?;
        Ok(desk)
    }
}

/// A worker's transactions are open for a moment only; their timeout is 10 s.
const LONG_OPEN: Duration = Duration::from_secs(15);

fn tell_open(feed: &Feed) -> anyhow::Result<()> {
    for open in feed.open_transactions(LONG_OPEN)? {
        tell!("note: {open}");
    }
    Ok(())
}

fn tell(line: &mut Line, progress: Progress) {
    if !progress.is_complete() {
        line.tell(&format!("reading dead letters: {} of {} offsets ({} %)", progress.read, progress.of, percent(progress)));
    }
}

fn percent(progress: Progress) -> u64 {
    (progress.read * 100).checked_div(progress.of).unwrap_or(100)
}

/// The time now.
pub fn now() -> Timestamp {
    Clock::system().now().timestamp()
}

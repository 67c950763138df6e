//! `kladder demo`: a ladder at work, with nothing installed but this binary.
//!
//! The workers are those of `kladder run`, with a configuration made in memory. The demo adds the broker (unless one is given),
//! the orders, the handler, and the summary, which reads the topics itself.

mod demo_config;
mod handler;
mod ledger;
mod progress;
mod reckoning;
mod story;
mod stream;
mod watcher;

use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::demo::demo_config::DemoSettings;
use crate::cli::demo::handler::DemoHandler;
use crate::cli::demo::ledger::Ledger;
use crate::cli::demo::progress::Snapshot;
use crate::cli::demo::reckoning::{ReckoningInput, reckon};
use crate::cli::demo::story::{SHORTEST, Story};
use crate::cli::demo::stream::Stream;
use crate::cli::demo::watcher::Watcher;
use crate::cli::exit::Exit;
use crate::cli::output::{self, tell_line};
use crate::cli::run::{self, Probes, Running};
use crate::cli::top::{self, Beside, End};
use crate::cli::{Output, config_file};
use crate::config::{Config, HealthConfig, LadderConfig};
use crate::core::dispatch::BreakerState;
use crate::core::time::Timestamp;
use crate::core::topics::mover_group;
use crate::kafka::admin::KafkaCluster;
use crate::kafka::clock::Clock;
use crate::kafka::embedded::EmbeddedBroker;
use crate::telemetry::logging::{self, LogFormat};
use crate::topology::{Change, Cluster};
use crate::worker::hop::leaders::BrokersClock;
use crate::worker::set_up;

const NAME: &str = "kladder-demo";

/// Limit on the length: everything is kept in memory.
const LONGEST: Duration = Duration::from_secs(60 * 60);
/// How often the demo's state is checked.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often the picture of the ladder is redrawn.
const PICTURE_EVERY: Duration = Duration::from_millis(500);

const AT_LEAST_ONCE: &str = "the embedded broker's hops are at-least-once, since its transactions are not atomic; hops on a real \
                             cluster (--brokers) are exactly-once";

/// What the story is, and the fields of `-o json`.
const AFTER_HELP: &str = "\
The story, for --for 60s; another length scales all times, but never lengthens the tiers:
  0:00  orders come in; some fail once or twice, a few always (poison) and end in the dead-letter topic as exhausted
  0:15  an outage: the handler answers 503 until 0:25. The breaker opens; deliveries wait and no attempt is counted
  0:30  a bad deployment: until 0:36 every third order is rejected, and goes to the dead-letter topic at once
  0:44  no more orders; the remaining ones pass the tiers. The demo ends when nothing waits, at 1:00 at the latest

On a terminal the demo shows the screen of kladder top, with its keys. Elsewhere, with --plain or with KLADDER_LOG set (info adds
the workers' log) it prints lines of progress.

Exit codes:
  0  in order: sent = done + dead-lettered + waiting, and none lost, doubled or early
  1  not in order, or something failed

Fields of -o json (times in milliseconds):
  sent, done, dead_lettered, waiting          orders; reasons{} has the dead-lettered by reason
  lost, doubled, early                        0 unless something is wrong
  lateness_ms.p50, p99, max                   from the due time to the redeliver topic; null if nothing was redelivered
  longest_stall_ms.handler_up, outage         how long a partition of the source stood still with orders on it
  calls, repeated_calls, hops[]               handler calls, repeated ones among them; records moved into each tier
  in_order, faults[]                          whether all checks passed, and what is wrong in words";

/// Show a ladder at work in this process: simulated orders, a flaky handler, an outage, and a
/// summary
///
/// Starts an embedded broker, sets up a ladder, runs its workers with a handler that follows a story, and prints a summary
/// computed from the topics. Ctrl-C ends it early, in order. Nothing is left behind, except on a cluster named by --brokers.
#[derive(Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct DemoArgs {
    /// Length of the stream and its story, draining included; 10s to 1h
    #[arg(long = "for", value_name = "DURATION", default_value = "60s", value_parser = length)]
    length: Duration,
    /// Run on this cluster, with new topics and groups named kladder-demo-…, instead of the embedded broker
    #[arg(long, value_name = "ADDRESSES")]
    brokers: Option<String>,
    /// Orders per second
    #[arg(long, value_name = "N", default_value = "25", value_parser = clap::value_parser!(u32).range(1..=200))]
    rate: u32,
    /// Listen address of /metrics, /livez and /readyz; port 0 takes a free port
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Print the workers' configuration for a real cluster, as a starting point, and exit
    #[arg(long)]
    print_config: bool,
    /// Print lines of progress on a terminal too, instead of the live picture
    #[arg(long)]
    plain: bool,
    /// Output format of the summary
    #[arg(short, long, value_enum, default_value = "text", value_name = "FORMAT")]
    output: Output,
}

pub fn run(args: DemoArgs) -> anyhow::Result<Exit> {
    let story = Story::new(args.length);
    if args.print_config {
        let handler = SocketAddr::from(([127, 0, 0, 1], 3000));
        let brokers = args.brokers.as_deref().unwrap_or("localhost:9092");
        // A starting point for the user, so for a real cluster.
        let settings = DemoSettings { name: NAME, brokers, is_embedded: false, listen: args.listen, handler, story };
        output::print(&settings.text())?;
        return Ok(Exit::Done);
    }
    // Log lines between the progress lines only on request.
    let is_logged = ["KLADDER_LOG", "RUST_LOG"].iter().any(|name| std::env::var_os(name).is_some());
    if is_logged {
        logging::init(LogFormat::Text)?;
    }
    let is_live = !args.plain && !is_logged && io::stdin().is_terminal() && output::stdout_is_terminal();
    let embedded = args.brokers.is_none().then(EmbeddedBroker::start).transpose()?;
    let brokers = embedded.as_ref().map(EmbeddedBroker::brokers).or(args.brokers.clone()).unwrap_or_default();
    let name = if embedded.is_some() { NAME.to_owned() } else { unique_name() };

    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    let handler = DemoHandler::new(story);
    let address = runtime.block_on(handler.serve())?;
    let (is_embedded, listen) = (embedded.is_some(), args.listen);
    let settings = DemoSettings { name: &name, brokers: &brokers, is_embedded, listen, handler: address, story };
    let config = config_file::parse(&settings.text(), None).context("the demo's configuration")?;
    let [ladder] = config.ladders.as_slice() else { bail!("the demo's configuration must have one ladder") };

    if is_embedded {
        tell_line(&format!("starting a broker in this process at {brokers}\n{AT_LEAST_ONCE}"));
    } else {
        tell_line(&format!("setting {name} up at {brokers}, with exactly-once hops"));
    }
    set_up(&config, ladder, embedded.as_ref())?;
    let watcher = Watcher::start(&config.kafka, &ladder.ladder)?;
    let clock = if is_embedded { BrokersClock::Own } else { BrokersClock::Theirs };
    let demo = Demo { config: &config, ladder, story, handler, rate: args.rate, clock, is_live };
    let told = runtime.block_on(demo.play(&watcher));
    let exit = told.and_then(|played| demo.reckon(&watcher.end()?, &played, args.output));
    if is_embedded {
        tell_line(AT_LEAST_ONCE);
    } else {
        tell_line(&left_behind(&name, &brokers));
    }
    exit
}

/// Creates the source, which `setup` never does, and then does what `setup` does.
fn set_up(config: &Config, ladder: &LadderConfig, embedded: Option<&EmbeddedBroker>) -> anyhow::Result<()> {
    let sources = ladder.ladder.sources().iter().map(|source| Change::CreateTopic {
        topic: source.clone(),
        partitions: demo_config::PARTITIONS,
        // The cluster's default.
        replication_factor: -1,
        settings: [("message.timestamp.type".to_owned(), "LogAppendTime".to_owned())].into(),
    });
    let sources: Vec<Change> = sources.collect();
    let make = |cluster: &dyn Cluster| -> anyhow::Result<()> {
        cluster.create_topics(&sources.iter().collect::<Vec<_>>())?;
        let usable = ladder.ladder.sources().iter().map(|source| (source.clone(), demo_config::PARTITIONS));
        cluster.wait_usable(&usable.collect())?;
        Ok(set_up::apply(ladder, &config.kafka, cluster)?)
    };
    match embedded {
        Some(broker) => make(&broker.cluster(&config.kafka)?),
        None => make(&KafkaCluster::connect(&config.kafka)?),
    }
}

/// The result of a run.
struct Played {
    /// Number of orders that the broker has confirmed.
    confirmed: u64,
    /// When the workers were told to stop.
    ended: Timestamp,
}

/// Shared by all parts of a run.
struct Demo<'a> {
    config: &'a Config,
    ladder: &'a LadderConfig,
    story: Story,
    handler: DemoHandler,
    rate: u32,
    clock: BrokersClock,
    /// Whether to draw the live picture.
    is_live: bool,
}

impl Demo<'_> {
    /// Runs the workers until the story ends or a signal arrives.
    async fn play(&self, watcher: &Watcher) -> anyhow::Result<Played> {
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        // The terminal was closed.
        let mut hang_up = signal(SignalKind::hangup())?;
        let mut signalled = async || tokio::select! { _ = term.recv() => {}, _ = int.recv() => {}, _ = hang_up.recv() => {} };
        let probes = Probes::serve(self.config).await?;
        let running = run::begin(self.config, &[self.ladder], &self.config.worker.roles, self.clock, probes).await?;
        tell_line(&format!("metrics at http://{}/metrics", running.address));
        let mut sent = Ok(0);
        let mut shown = Ok(());
        let mut was_interrupted = tokio::select! { () = ready(&running) => false, () = signalled() => true };
        if !was_interrupted && !running.stop.is_set() {
            let (kafka, ladder, handler) = (&self.config.kafka, &self.ladder.ladder, self.handler.clone());
            let stream = Stream::start(kafka, ladder, self.rate, self.story.stream_ends(), move || handler.begin())?;
            let course = Course { demo: self, running: &running, stream: &stream, watcher };
            was_interrupted = if self.is_live {
                match tokio::task::block_in_place(|| course.show()) {
                    // The same signal arrives here too; the next one must count as the second.
                    Ok(End::Signal) => {
                        signalled().await;
                        true
                    }
                    Ok(end) => end != End::Over,
                    // A closed terminal must not end the workers.
                    Err(error) => {
                        shown = Err(error);
                        true
                    }
                }
            } else {
                tokio::select! { () = course.print_progress() => false, () = signalled() => true }
            };
            sent = stream.end();
        }
        if was_interrupted {
            tell_line("interrupted: draining; a second signal exits at once");
        }
        running.health.draining();
        running.stop.set();
        let ended = Clock::system().now().timestamp();
        tokio::select! {
            ended = running.ended() => ended??,
            () = signalled() => {
                tell_line("stopped without draining");
                Exit::Failed.at_once()
            }
        }
        shown?;
        Ok(Played { confirmed: sent?, ended })
    }

    /// Computes the summary and prints it.
    fn reckon(&self, ledger: &Ledger, played: &Played, output: Output) -> anyhow::Result<Exit> {
        let ladder = &self.ladder.ladder;
        let committed = watcher::committed(&self.config.kafka, ladder)?;
        let calls = self.handler.calls();
        let [from, to] = self.story.outage();
        // The breaker may have opened just before the end of the outage.
        let outage = [from, to + self.story.breaker_open()[1]].map(|after| self.handler.moment(after));
        let facts = ReckoningInput {
            confirmed: played.confirmed,
            ended: played.ended,
            calls: &calls,
            committed: &|topic, partition| committed.get(&(topic, partition)).copied().unwrap_or(0),
            attempts: ladder.attempts(),
            outage: outage[0].zip(outage[1]).map(|(from, to)| [from, to]),
        };
        let reckoning = reckon(ledger, &facts);
        match output {
            Output::Text => output::print(&format!("\n{}\n", reckoning.text()))?,
            Output::Json => output::print_json(&reckoning)?,
        }
        Ok(if reckoning.in_order { Exit::Done } else { Exit::Failed })
    }
}

/// A running story.
struct Course<'a> {
    demo: &'a Demo<'a>,
    running: &'a Running,
    stream: &'a Stream,
    watcher: &'a Watcher,
}

impl Course<'_> {
    /// Prints progress lines until it is over.
    async fn print_progress(&self) {
        let between = Duration::from_secs(if self.demo.story.length() < Duration::from_secs(30) { 1 } else { 2 });
        let mut next = Duration::ZERO;
        loop {
            let (snapshot, is_over) = self.look();
            if snapshot.elapsed >= next || is_over {
                progress::show(&snapshot);
                next = snapshot.elapsed + between;
            }
            if is_over {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Draws the ladder until the story is over or a key or signal ends it.
    fn show(&self) -> anyhow::Result<End> {
        // Where the probes and metrics are served.
        let health = HealthConfig { listen: self.running.address };
        let config = Config { health, ..self.demo.config.clone() };
        let beside = || {
            let (snapshot, is_over) = self.look();
            Beside { caption: Some(progress::caption(&snapshot)), is_over }
        };
        let end = top::show_one(&config, self.demo.ladder, PICTURE_EVERY, &beside)?;
        // For the terminal's scrollback.
        progress::show(&self.look().0);
        Ok(end)
    }

    /// The current state, and whether nothing is left to do, the time is over or a worker has failed.
    fn look(&self) -> (Snapshot, bool) {
        let Demo { ladder, story, handler, .. } = self.demo;
        // Before the counts: they include no order sent later.
        let (has_ended, sent) = (self.stream.has_ended(), self.stream.confirmed());
        let (elapsed, done) = (handler.elapsed(), handler.done());
        let ledger = self.watcher.ledger();
        let delays = ladder.ladder.tiers().iter().map(|tier| tier.delay().to_string());
        let snapshot = Snapshot {
            elapsed,
            scene: story.scene(elapsed),
            sent,
            done,
            waiting: delays.zip(ledger.waiting()).collect(),
            dead: u64::try_from(ledger.dead.len()).unwrap_or(u64::MAX),
            breaker: self.running.handlers.first().map_or(BreakerState::Closed, |handler| handler.standing().breaker()),
        };
        let is_done = has_ended && snapshot.done + snapshot.dead >= sent;
        let is_over = is_done || elapsed >= story.length() || self.running.stop.is_set();
        (snapshot, is_over)
    }
}

/// Waits until all workers have joined their groups, or one has failed.
async fn ready(running: &Running) {
    while running.health.readiness().is_err() && !running.stop.is_set() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// A name that no two runs share, so that they share no topic or group.
fn unique_name() -> String {
    let moment = Clock::system().now().as_micros();
    format!("{NAME}-{moment:x}")
}

fn left_behind(name: &str, brokers: &str) -> String {
    let mover = mover_group(name);
    format!(
        "left on {brokers}: the topics {name}-orders and {name}.*, the groups {name} and {mover}. To delete them:\n  \
         kafka-topics.sh --bootstrap-server {brokers} --delete --topic '{name}[-.].*'\n  \
         kafka-consumer-groups.sh --bootstrap-server {brokers} --delete --group {name} --group {mover}"
    )
}

fn length(text: &str) -> Result<Duration, String> {
    let length = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let is_sound = (SHORTEST..=LONGEST).contains(&length);
    if is_sound { Ok(length) } else { Err("must be from 10s to 1h".to_owned()) }
}

//! `kladder status`

use std::fmt::Write;
use std::time::Duration;

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::cli::exit::Exit;
use crate::cli::handler_seen::HandlerSeen;
use crate::cli::metrics_scrape::{Samples, reachable, scrape_twice};
use crate::cli::{ConfigArg, Output, chosen_ladders, config_file, stdout};
use crate::config::LadderConfig;
use crate::core::delay::format_duration;
use crate::core::ladder::{Mode, Redelivery, Tier};
use crate::core::state::{DlqBreakerRecord, Entry, LadderState, on_one_line};
use crate::core::time::Timestamp;
use crate::core::topics::{mover_group, router_group};
use crate::kafka::admin::KafkaCluster;
use crate::kafka::clock::Clock;
use crate::telemetry::names;
use crate::topology::{ClusterError, Observed, Scope, tail_totals};

/// A rate is taken over this long.
const RATE_OVER: Duration = Duration::from_secs(1);

/// The fields of `-o json`.
const JSON: &str = "\
Fields of -o json:
  exact                            whether the records were counted
  worker                           the address of the worker that answered, or null
  ladders[].ladder, mode, group    the name, push or relay, the consumer group
  ladders[].held                   whether it is held; null where that cannot be told
  ladders[].dead_letters_held      until when what would be dead letters waits in the largest tier (until, until_ms), by whom (by), when
                                   (at, at_ms), why; null where it does not
  ladders[].dead_letters_accepted  until when none are held, however many there are, by whom, when, why; null where that is not said
  ladders[].hold                   by whom (by), when (at, at_ms), why; null where it is not held, or the record cannot be read
  ladders[].handler                how the worker's handler is: health (up, degraded, in-doubt, down), deliveries_allowed at a time, trouble[]
                                   (kind, calls) since the last good answer, stands_aside (partitions left to others); null in relay,
                                   or where no worker answers
  ladders[].handlers_down[]        workers that have told the others that their handler is down: worker, at, at_ms, why
  ladders[].tiers[]                one for each tier whose topic exists
    tier, topic, delay_ms          its number from 1, its topic, its delay
    waiting, due                   records that wait, and those of them that are due
    oldest_due_ms                  since when the oldest is due; negative: not yet; null: none
    lateness_p99_seconds           due to redeliver, since the worker's start, or null
    rate_per_second                hops into the tier, or null
  ladders[].reads[]                redeliver, inbox (relay) and the sources
    topic, role, group             role is redeliver, inbox or source
    lag                            records that the group has not done
    partitions_without_offset      where the group has committed nothing
  ladders[].dlq.topic, records     the dead letters that retention has left, or null
  ladders[].own_dlqs[]             the same of the dead-letter topics that rules have of their own";

/// Show the ladders as they are now
///
/// What waits is read from Kafka, lateness and rate from the worker at health.listen. Waiting is an estimate (~) by offsets, and
/// transaction markers have offsets too; --exact reads and counts the records.
#[derive(Debug, Args)]
#[command(after_long_help = JSON)]
pub struct StatusArgs {
    #[command(flatten)]
    config: ConfigArg,

    /// How the status is printed
    #[arg(short, long, value_enum, default_value = "text", value_name = "FORMAT")]
    output: Output,

    /// Count the waiting records by reading them
    #[arg(long)]
    exact: bool,

    /// Only this ladder; may be repeated
    #[arg(long = "ladder", value_name = "NAME")]
    ladders: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Status {
    exact: bool,
    worker: Option<String>,
    ladders: Vec<LadderStatus>,
}

#[derive(Debug, Serialize)]
struct LadderStatus {
    ladder: String,
    mode: &'static str,
    group: String,
    held: Option<bool>,
    hold: Option<HoldStatus>,
    #[serde(skip)]
    held_text: Option<String>,
    dead_letters_held: Option<DeadLettersWord>,
    dead_letters_accepted: Option<DeadLettersWord>,
    #[serde(skip)]
    dead_letters_text: Option<String>,
    handler: Option<HandlerSeen>,
    handlers_down: Vec<HandlerDown>,
    tiers: Vec<TierStatus>,
    reads: Vec<ReadStatus>,
    dlq: Option<DlqStatus>,
    /// Those of rules.
    own_dlqs: Vec<DlqStatus>,
}

#[derive(Debug, Serialize)]
struct HandlerDown {
    worker: String,
    at: String,
    at_ms: i64,
    why: String,
}

#[derive(Debug, Serialize)]
struct DeadLettersWord {
    until: String,
    until_ms: i64,
    by: String,
    at: String,
    at_ms: i64,
    why: Option<String>,
}

#[derive(Debug, Serialize)]
struct HoldStatus {
    by: String,
    at: String,
    at_ms: i64,
    why: Option<String>,
}

#[derive(Debug, Serialize)]
struct TierStatus {
    tier: u32,
    topic: String,
    delay_ms: u64,
    waiting: i64,
    due: i64,
    oldest_due_ms: Option<i64>,
    lateness_p99_seconds: Option<f64>,
    rate_per_second: Option<f64>,
}

#[derive(Debug, Serialize)]
struct ReadStatus {
    topic: String,
    role: &'static str,
    group: String,
    lag: i64,
    partitions_without_offset: usize,
}

#[derive(Debug, Serialize)]
struct DlqStatus {
    topic: String,
    records: i64,
}

pub fn run(args: StatusArgs) -> anyhow::Result<Exit> {
    let config = config_file::load(&args.config)?.config;
    let ladders = chosen_ladders(&config, &args.ladders)?;
    let cluster = KafkaCluster::connect(&config.kafka)?;
    let worker = reachable(config.health.listen);
    let scrapes = match scrape_twice(worker, RATE_OVER) {
        Ok(scrapes) => Some(scrapes),
        Err(error) => {
            eprintln!("note: no worker answered at http://{worker}/metrics ({error:#}): lateness and rate are unknown");
            None
        }
    };
    let standing = cluster.standing(&Scope::of(&ladders))?;
    let look = Look { cluster: &cluster, standing: &standing, scrapes: scrapes.as_ref(), exact: args.exact };
    let ladders = ladders.into_iter().map(|l| look.ladder(l)).collect::<Result<_, _>>()?;
    let status = Status { exact: args.exact, worker: scrapes.is_some().then(|| worker.to_string()), ladders };
    stdout::print(&match args.output {
        Output::Text => render(&status),
        Output::Json => format!("{}\n", serde_json::to_string_pretty(&status)?),
    })?;
    Ok(Exit::Done)
}

struct Look<'a> {
    cluster: &'a KafkaCluster,
    standing: &'a Observed,
    scrapes: Option<&'a (Samples, Samples)>,
    exact: bool,
}

impl Look<'_> {
    fn ladder(&self, config: &LadderConfig) -> Result<LadderStatus, ClusterError> {
        let ladder = &config.ladder;
        let mut tiers = Vec::new();
        for tier in ladder.tiers() {
            if self.exists(tier.topic()) {
                tiers.push(self.tier(ladder.name(), tier)?);
            }
        }
        let mut read_by = Vec::new();
        if ladder.redelivery() == Redelivery::Topic {
            read_by.push(("redeliver", ladder.group().to_owned(), ladder.redeliver_topic()));
        }
        if ladder.mode() == Mode::Relay {
            read_by.push(("inbox", router_group(ladder.name()), ladder.inbox_topic()));
        }
        read_by.extend(ladder.sources().iter().map(|s| ("source", ladder.group().to_owned(), s.clone())));
        let mut reads = Vec::new();
        for (role, group, topic) in read_by {
            if self.exists(&topic) {
                reads.push(self.read(role, group, topic)?);
            }
        }
        let dlq = ladder.dlq_topic();
        let dlq = if self.exists(&dlq) { Some(self.dlq(dlq)?) } else { None };
        let mut own_dlqs = Vec::new();
        for topic in ladder.dlq_topics().into_iter().skip(1) {
            if self.exists(&topic) {
                own_dlqs.push(self.dlq(topic)?);
            }
        }
        let mode = if ladder.mode() == Mode::Push { "push" } else { "relay" };
        let state = self.state(&ladder.state_topic());
        let record = state.as_ref().and_then(|state| match &state.hold {
            Entry::Read(hold) if hold.held => Some(hold),
            _ => None,
        });
        let now = Clock::system().now().timestamp();
        let dead_letters = state.as_ref().and_then(|state| state.dead_letters_held_until(now));
        let accepted = state.as_ref().and_then(|state| state.dead_letters_accepted_until(now));
        Ok(LadderStatus {
            ladder: ladder.name().to_owned(),
            mode,
            group: ladder.group().to_owned(),
            held: state.as_ref().map(LadderState::is_held),
            hold: record.map(|r| HoldStatus {
                by: r.by.clone(),
                at: r.at.to_rfc3339(),
                at_ms: r.at.as_millis(),
                why: r.why.clone(),
            }),
            held_text: state.as_ref().and_then(|state| held_text(state, now)),
            dead_letters_held: dead_letters.map(|(until, r)| DeadLettersWord::of(until, r)),
            dead_letters_accepted: accepted.map(|(until, r)| DeadLettersWord::of(until, r)),
            dead_letters_text: dead_letters
                .map(|(until, r)| format!("DEAD LETTERS HELD {}; kladder resume lets them go", r.told(until, now)))
                .or_else(|| accepted.map(|(until, r)| format!("dead letters are accepted {}", r.told(until, now)))),
            handler: self.scrapes.and_then(|(_, last)| HandlerSeen::of(last, ladder.name())),
            handlers_down: state.as_ref().map(handlers_down).unwrap_or_default(),
            tiers,
            reads,
            dlq,
            own_dlqs,
        })
    }

    /// What stands in the state topic; `None` where that cannot be told, which must not hide the rest.
    fn state(&self, topic: &str) -> Option<LadderState> {
        if !self.exists(topic) {
            return None;
        }
        match self.cluster.states(&[topic.to_owned()]) {
            Ok(mut states) => states.remove(topic),
            Err(error) => {
                eprintln!("note: whether the ladder is held is unknown: {error}");
                None
            }
        }
    }

    fn exists(&self, topic: &str) -> bool {
        let exists = self.standing.topics.contains_key(topic);
        if !exists {
            eprintln!("note: {topic} does not exist, or may not be described: run kladder setup");
        }
        exists
    }

    fn tier(&self, ladder: &str, tier: &Tier) -> Result<TierStatus, ClusterError> {
        let (group, topic, delay) = (mover_group(ladder), tier.topic(), tier.delay().duration());
        let now = Clock::system().now().timestamp();
        let tails = self.cluster.tails(self.standing, &group, topic, Some(now - delay))?;
        let totals = tail_totals(&tails);
        let (waiting, due, oldest) = if self.exact {
            let counted = self.cluster.count(&group, topic, &tails, now - delay)?;
            (signed(counted.records), signed(counted.due), counted.oldest)
        } else {
            let oldest = self.cluster.oldest(&group, topic, &tails)?;
            // Where no record answers there is none: only markers of transactions.
            if oldest.is_some() { (totals.waiting, totals.due, oldest) } else { (0, 0, None) }
        };
        let delay_label = tier.delay().to_string();
        let labels = [(names::LADDER, ladder), (names::TIER, delay_label.as_str())];
        Ok(TierStatus {
            tier: tier.number(),
            topic: topic.to_owned(),
            delay_ms: tier.delay().as_millis(),
            waiting,
            due,
            oldest_due_ms: oldest.map(|appended| now.as_millis() - (appended + delay).as_millis()),
            lateness_p99_seconds: self.scrapes.and_then(|(_, last)| last.quantile(names::LATENESS.name, &labels, 0.99)),
            rate_per_second: self.scrapes.and_then(|(first, last)| {
                let hops = |samples: &Samples| samples.sum(names::HOPS.name, &labels);
                // A worker that was started in between counts from nothing.
                Some((hops(last)? - hops(first).unwrap_or(0.0)).max(0.0) / RATE_OVER.as_secs_f64())
            }),
        })
    }

    fn read(&self, role: &'static str, group: String, topic: String) -> Result<ReadStatus, ClusterError> {
        let tails = self.cluster.tails(self.standing, &group, &topic, None)?;
        let totals = tail_totals(&tails);
        let lag = if self.exact && totals.waiting > 0 && role != "source" {
            signed(self.cluster.count(&group, &topic, &tails, Timestamp::from_millis(0))?.records)
        } else {
            totals.waiting
        };
        Ok(ReadStatus { topic, role, group, lag, partitions_without_offset: totals.without_offset })
    }

    fn dlq(&self, topic: String) -> Result<DlqStatus, ClusterError> {
        // Nobody commits there, so all of it is what no group has read.
        let held = self.cluster.tails(self.standing, "", &topic, None)?;
        let records = if self.exact {
            // The group only gives the reader a name, that of the topic.
            signed(self.cluster.count(&topic, &topic, &held, Timestamp::from_millis(0))?.records)
        } else {
            tail_totals(&held).waiting
        };
        Ok(DlqStatus { topic, records })
    }
}

impl DeadLettersWord {
    fn of(until: Timestamp, record: &DlqBreakerRecord) -> Self {
        Self {
            until: until.to_rfc3339(),
            until_ms: until.as_millis(),
            by: record.by.clone(),
            at: record.at.to_rfc3339(),
            at_ms: record.at.as_millis(),
            why: record.why.clone(),
        }
    }
}

fn handlers_down(state: &LadderState) -> Vec<HandlerDown> {
    let told = state.handlers_down.iter().filter_map(|(worker, entry)| match entry {
        Entry::Read(record) => {
            let (at, at_ms, why) = (record.at.to_rfc3339(), record.at.as_millis(), record.why.clone());
            Some(HandlerDown { worker: worker.clone(), at, at_ms, why })
        }
        // A newer version has written it, and knows why.
        Entry::Unreadable(_) | Entry::Absent => None,
    });
    told.collect()
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn render(status: &Status) -> String {
    let mut text = String::new();
    for ladder in &status.ladders {
        let _ = writeln!(text, "ladder {} ({}, group {})", ladder.ladder, ladder.mode, ladder.group);
        if let Some(held) = &ladder.held_text {
            let _ = writeln!(text, "{held}");
        }
        if let Some(held) = &ladder.dead_letters_text {
            let _ = writeln!(text, "{held}");
        }
        if let (Some(handler), Some(worker)) = (&ladder.handler, &status.worker) {
            let _ = writeln!(text, "{} in the worker at {worker}", handler.told());
        }
        for HandlerDown { worker, at, why, .. } in &ladder.handlers_down {
            let _ = writeln!(text, "HANDLER DOWN at worker {}, told {at}: {}", on_one_line(worker), on_one_line(why));
        }
        let _ = writeln!(text, "{}", table(ladder, status.exact));
    }
    text
}

/// `HELD since 2026-01-31T12:00:00Z (5m ago) by anna@ops-1: the handler is being replaced`
pub fn held_text(state: &LadderState, now: Timestamp) -> Option<String> {
    match &state.hold {
        Entry::Read(hold) if hold.held => Some(format!("HELD {}", hold.since(now))),
        Entry::Unreadable(error) => Some(format!(
            "HELD by a record that cannot be read ({error}); if it should not be held, kladder resume overwrites it"
        )),
        Entry::Read(_) | Entry::Absent => None,
    }
}

fn table(ladder: &LadderStatus, exact: bool) -> String {
    let estimate = |number: i64| if exact || number == 0 { number.to_string() } else { format!("~{number}") };
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["topic", "waiting", "due now", "oldest due", "lateness p99", "rate in"]);
    let unknown = || "-".to_owned();
    for tier in &ladder.tiers {
        table.add_row([
            tier.topic.clone(),
            estimate(tier.waiting),
            estimate(tier.due),
            tier.oldest_due_ms.map_or_else(unknown, age),
            tier.lateness_p99_seconds.map_or_else(unknown, |s| format!("{:.0} ms", s * 1_000.0)),
            tier.rate_per_second.map_or_else(unknown, |r| format!("{r:.1}/s")),
        ]);
    }
    for read in &ladder.reads {
        // Others write the sources: mostly without transactions, but nobody knows.
        let lag = if read.role == "source" && read.lag > 0 { format!("~{}", read.lag) } else { estimate(read.lag) };
        let lag = match read.partitions_without_offset {
            0 => lag,
            without => format!("{lag} ({without} without offset)"),
        };
        table.add_row([format!("{} ({})", read.topic, read.role), lag]);
    }
    for dlq in ladder.dlq.iter().chain(&ladder.own_dlqs) {
        table.add_row([format!("{} (dead letters)", dlq.topic), estimate(dlq.records)]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{}\n", table.trim_fmt())
}

/// `2s ago`, `in 3s`
fn age(overdue_ms: i64) -> String {
    let duration = Duration::from_millis(overdue_ms.unsigned_abs());
    // Below ten seconds the milliseconds matter, above it they are noise.
    let shown = if duration < Duration::from_secs(10) { duration } else { Duration::from_secs(duration.as_secs()) };
    if overdue_ms >= 0 { format!("{} ago", format_duration(shown)) } else { format!("in {}", format_duration(shown)) }
}

//! `kladder status`

use std::fmt::Write;
use std::time::Duration;

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::cli::exit::Exit;
use crate::cli::output::{self, tell};
use crate::cli::{ConfigArg, Output, chosen_ladders, config_file};
use crate::core::delay::format_duration;
use crate::core::harmless::on_one_line;
use crate::core::ladder::{Ladder, Mode, Redelivery, Tier};
use crate::core::state::{DlqBreakerRecord, LadderState, StateValue};
use crate::core::time::Timestamp;
use crate::observe::{
    Depth, HandlerSeen, LadderFacts, Observation, Observer, Part, QueueFacts, Samples, ScrapeError, Scraper, TierFacts, Unseen,
    held_text, hops_into,
};
use crate::topology::ClusterError;

/// The time over which a rate is measured.
const RATE_OVER: Duration = Duration::from_secs(1);

/// The fields of `-o json`.
const JSON: &str = "\
Fields of -o json:
  exact                            whether the records were counted
  worker                           the address of the worker that answered, or null
  ladders[].ladder, mode, group    the name, push or relay, the consumer group
  ladders[].held                   whether it is held; null if unknown
  ladders[].dead_letters_held      until when dead letters wait in the largest tier (until, until_ms), by whom (by), since when
                                   (at, at_ms), why; null if they do not
  ladders[].dead_letters_accepted  dead letters accepted, however many: until when, by whom, when, why; null if not
  ladders[].hold                   by whom (by), when (at, at_ms), why; null if not held or the record cannot be read
  ladders[].handler                the worker's handler: health (up, degraded, in-doubt, down), deliveries_allowed (at a time), trouble[] (kind, calls:
                                   failures since the last good answer), stands_aside (partitions left to others); null in relay,
                                   or if no worker answers
  ladders[].handlers_down[]        workers that report their handler as down: worker, at, at_ms, why
  ladders[].tiers[]                one per tier whose topic exists
    tier, topic, delay_ms          number from 1, topic, delay
    waiting, due                   waiting records, and how many of them are due
    oldest_due_ms                  how long the oldest has been due; negative: not due yet; null: none waits
    lateness_p99_seconds           from the due time to redelivery, since the worker's start, or null
    rate_per_second                hops into the tier per second, or null
  ladders[].reads[]                redeliver, inbox (relay) and the sources
    topic, role, group             role is redeliver, inbox or source
    lag                            records that the group has not finished
    partitions_without_offset      partitions without a committed offset
  ladders[].dlq.topic, records     dead letters in the topic, or null
  ladders[].own_dlqs[]             the same for the dead-letter topics of rules";

/// Show the current state of the ladders
///
/// Waiting records are read from Kafka, lateness and rate from the worker at health.listen. Waiting is an estimate (~) by
/// offsets, which also count transaction markers; --exact reads and counts the records.
#[derive(Debug, Args)]
#[command(after_long_help = JSON)]
pub struct StatusArgs {
    #[command(flatten)]
    config: ConfigArg,

    /// Output format
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
    /// The dead-letter topics of rules.
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
    let mut observer = Observer::connect(&config.kafka, &ladders)?;
    let scraper = Scraper::new(config.health.listen)?;
    let worker = scraper.worker();
    let scrapes = match scrape_twice(&scraper) {
        Ok(scrapes) => Some(scrapes),
        Err(error) => {
            tell!("note: no worker answered at http://{worker}/metrics ({error}): lateness and rate are unknown");
            None
        }
    };
    let (first, last) = scrapes.unzip();
    let mut seen = observer.look(last.as_ref(), Depth { exact: args.exact, ..Depth::default() })?;
    let facts = std::mem::take(&mut seen.ladders);
    let reading = Reading { seen: &seen, first: first.as_ref() };
    let ladders = ladders.into_iter().zip(facts).map(|(config, facts)| reading.ladder(&config.ladder, facts));
    let ladders = ladders.collect::<Result<_, _>>()?;
    let status = Status { exact: args.exact, worker: last.is_some().then(|| worker.to_string()), ladders };
    match args.output {
        Output::Text => output::print(&render(&status))?,
        Output::Json => output::print_json(&status)?,
    }
    Ok(Exit::Done)
}

/// A rate needs two.
fn scrape_twice(scraper: &Scraper) -> Result<(Samples, Samples), ScrapeError> {
    let first = scraper.scrape()?;
    std::thread::sleep(RATE_OVER);
    Ok((first, scraper.scrape()?))
}

/// An observation, and what it is compared with.
struct Reading<'a> {
    seen: &'a Observation,
    /// The metrics of a moment before.
    first: Option<&'a Samples>,
}

impl Reading<'_> {
    fn ladder(&self, ladder: &Ladder, facts: LadderFacts) -> Result<LadderStatus, ClusterError> {
        let comes_back = (ladder.redelivery() == Redelivery::Topic).then(|| ladder.redeliver_topic());
        let inbox = (ladder.mode() == Mode::Relay).then(|| ladder.inbox_topic());
        let named = ladder.tiers().iter().map(|tier| tier.topic().to_owned()).chain(comes_back).chain(inbox);
        for topic in named.chain(ladder.sources().iter().cloned()).chain(ladder.dlq_topics()).chain([ladder.state_topic()]) {
            if !self.seen.has(&topic) {
                tell!("note: {topic} does not exist, or may not be described: run kladder setup");
            }
        }
        for Unseen { part, error } in facts.unseen {
            // An unreadable state must not hide the rest.
            if part != Part::State {
                return Err(error);
            }
            tell!("note: whether the ladder is held is unknown: {error}");
        }
        let (state, now) = (facts.state.as_ref(), self.seen.at);
        let record = state.and_then(|state| match &state.hold {
            StateValue::Read(hold) if hold.held => Some(hold),
            _ => None,
        });
        let dead_letters = state.and_then(|state| state.dead_letters_held_until(now));
        let accepted = state.and_then(|state| state.dead_letters_accepted_until(now));
        let mut reads: Vec<ReadStatus> = facts.redeliver.into_iter().map(|queue| read("redeliver", queue)).collect();
        reads.extend(facts.inbox.into_iter().map(|queue| read("inbox", queue)));
        reads.extend(facts.sources.into_iter().map(|queue| read("source", queue)));
        let dlq = |queue: QueueFacts| DlqStatus { topic: queue.topic, records: queue.waiting };
        let (own, of_rules) = facts.dead_letters.into_iter().map(dlq).partition(|dlq| dlq.topic == ladder.dlq_topic());
        let own: Vec<DlqStatus> = own;
        Ok(LadderStatus {
            ladder: ladder.name().to_owned(),
            mode: if ladder.mode() == Mode::Push { "push" } else { "relay" },
            group: ladder.group().to_owned(),
            held: state.map(LadderState::is_held),
            hold: record.map(|r| HoldStatus {
                by: r.by.clone(),
                at: r.at.to_rfc3339(),
                at_ms: r.at.as_millis(),
                why: r.why.clone(),
            }),
            held_text: state.and_then(|state| held_text(state, now)),
            dead_letters_held: dead_letters.map(|(until, r)| DeadLettersWord::of(until, r)),
            dead_letters_accepted: accepted.map(|(until, r)| DeadLettersWord::of(until, r)),
            dead_letters_text: dead_letters
                .map(|(until, r)| format!("DEAD LETTERS HELD {}; kladder resume releases them", r.text(until, now)))
                .or_else(|| accepted.map(|(until, r)| format!("dead letters are accepted {}", r.text(until, now)))),
            handler: facts.handler,
            handlers_down: state.map(handlers_down).unwrap_or_default(),
            tiers: facts.tiers.into_iter().map(|tier| self.tier(ladder, tier)).collect(),
            reads,
            dlq: own.into_iter().next(),
            own_dlqs: of_rules,
        })
    }

    fn tier(&self, ladder: &Ladder, tier: TierFacts) -> TierStatus {
        let number = ladder.tiers().iter().find(|known| known.delay() == tier.delay).map_or(0, Tier::number);
        let before = self.first.and_then(|samples| hops_into(samples, ladder.name(), tier.delay));
        TierStatus {
            tier: number,
            topic: tier.queue.topic,
            delay_ms: tier.delay.as_millis(),
            waiting: tier.queue.waiting,
            due: tier.due,
            oldest_due_ms: tier.next_due.map(|due| self.seen.at.as_millis() - due.as_millis()),
            lateness_p99_seconds: tier.lateness.map(|lateness| lateness.p99.as_secs_f64()),
            // A restarted worker counts from zero.
            rate_per_second: tier.hops.map(|hops| (hops - before.unwrap_or(0.0)).max(0.0) / RATE_OVER.as_secs_f64()),
        }
    }
}

fn read(role: &'static str, queue: QueueFacts) -> ReadStatus {
    let QueueFacts { topic, group, waiting, without_offset, .. } = queue;
    ReadStatus { topic, role, group, lag: waiting, partitions_without_offset: without_offset }
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
        StateValue::Read(record) => {
            let (at, at_ms, why) = (record.at.to_rfc3339(), record.at.as_millis(), record.why.clone());
            Some(HandlerDown { worker: worker.clone(), at, at_ms, why })
        }
        // Written by a newer version.
        StateValue::Unreadable(_) | StateValue::Absent => None,
    });
    told.collect()
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
            let _ = writeln!(text, "{} in the worker at {worker}", handler.text());
        }
        for HandlerDown { worker, at, why, .. } in &ladder.handlers_down {
            let _ = writeln!(text, "HANDLER DOWN at worker {}, reported {at}: {}", on_one_line(worker), on_one_line(why));
        }
        let _ = writeln!(text, "{}", table(ladder, status.exact));
    }
    text
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
        // Sources are written by others: mostly without transactions, but that is unknown here.
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

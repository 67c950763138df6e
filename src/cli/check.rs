//! `kladder check`

use std::fmt::Write as _;
use std::time::Duration;

use clap::Args;
use comfy_table::{Table, presets};
use serde_json::{Value, json};

use crate::cli::exit::Exit;
use crate::cli::output;
use crate::cli::{ConfigArg, Output, config_file};
use crate::config::{Config, LadderConfig, Start};
use crate::core::delay::{format_duration, whole_millis};
use crate::core::dialect::Dialect;
use crate::core::ladder::{Hops, Immediate, Ladder, Mode, Redelivery};
use crate::core::role::Role;
use crate::core::rules::Then;
use crate::core::topics;
use crate::kafka::trial;
use crate::topology::doctor::costly_wait;

/// Check a configuration file, without a broker
///
/// Prints the resolved configuration: ladders, topics, tiers, groups. All mistakes are reported at once, with exit code 2. The Kafka
/// clients are created too, without connecting, so missing files and features missing from this build are reported.
#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub fn run(args: CheckArgs) -> anyhow::Result<Exit> {
    let file = config_file::load(&args.config)?;
    trial::check(&file.config.kafka)?;
    let state_dir = file.state_dir().display().to_string();
    match args.output {
        Output::Text => output::print(&as_text(&file.config, &file.shown_path(), &state_dir))?,
        Output::Json => output::print_json(&as_json(&file.config, &state_dir))?,
    }
    Ok(Exit::Done)
}

/// The ladder's topics: purpose and name.
fn topics_of(config: &LadderConfig) -> Vec<(String, String, String)> {
    let ladder = &config.ladder;
    let row = |role: &str, topic: &str, note: String| (role.to_owned(), topic.to_owned(), note);
    let kept = |prefix: &str, time: Duration| format!("{prefix}{}", format_duration(time));
    let (of_source, comes_back) = match ladder.redelivery() {
        Redelivery::Topic => ("never touched", true),
        Redelivery::Origin => ("due records come back here, in every group that reads it", false),
    };
    let mut rows: Vec<_> = ladder.sources().iter().map(|topic| row("source", topic, of_source.to_owned())).collect();
    if ladder.mode() == Mode::Relay {
        let note = match ladder.dialect() {
            None => "the application puts failed records here".to_owned(),
            Some(dialect) => format!("dead letters as {} writes them; never touched", dialect.name()),
        };
        rows.push(row("inbox", &ladder.inbox_topic(), note));
    }
    for tier in ladder.tiers() {
        rows.push(row(&format!("tier {}", tier.number()), tier.topic(), format!("waits {}", tier.delay())));
    }
    if comes_back {
        rows.push(row("redeliver", &ladder.redeliver_topic(), "due records come back here".to_owned()));
    }
    rows.extend(ladder.dlq_topics().iter().map(|topic| row("dlq", topic, kept("kept ", config.topics.dlq_retention))));
    rows.push(row("state", &ladder.state_topic(), "compacted, 1 partition".to_owned()));
    rows
}

/// The workers with their groups and transactional.ids (none where hops are at-least-once).
fn workers_of(ladder: &Ladder, instance: &str) -> Vec<(Role, String, Option<String>)> {
    let transactional =
        |role: Role| (ladder.hops() == Hops::ExactlyOnce).then(|| topics::transactional_id(ladder.name(), role, instance));
    let name = ladder.name();
    let mut workers = match ladder.mode() {
        Mode::Push => vec![(Role::Deliverer, ladder.group().to_owned(), transactional(Role::Deliverer))],
        Mode::Relay => vec![(Role::Router, topics::router_group(name), transactional(Role::Router))],
    };
    workers.push((Role::Mover, topics::mover_group(name), transactional(Role::Mover)));
    workers
}

/// The tier delays that a record waits through if it fails every time.
fn climb(ladder: &Ladder) -> impl Iterator<Item = Duration> {
    (1..ladder.attempts()).map(|attempt| ladder.tier_after(attempt).delay().duration())
}

fn as_text(config: &Config, path: &str, state_dir: &str) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{path}: {} ladder{}, no mistakes",
        config.ladders.len(),
        if config.ladders.len() == 1 { "" } else { "s" }
    );
    let _ = writeln!(text, "brokers {}, instance {}, state in {state_dir}", config.kafka.brokers(), config.worker.instance);
    if let Some(registry) = &config.schema_registry {
        let user = registry.credentials.as_ref().map(|c| format!(", as {}", c.username)).unwrap_or_default();
        let _ = writeln!(text, "schema registry {}{user}", registry.url);
    }
    for config_of in &config.ladders {
        let ladder = &config_of.ladder;
        let total: Duration = climb(ladder).sum();
        let _ = writeln!(
            text,
            "\nladder {}: {}, {}, group {}\n{} attempts over {}, then the dead-letter topic",
            ladder.name(),
            mode(ladder.mode()),
            hops(ladder.hops()),
            ladder.group(),
            ladder.attempts(),
            format_duration(total),
        );
        if let Some(handler) = &config_of.handler {
            let at_a_time = match handler.batch {
                None => format!("{} in flight", handler.max_in_flight),
                Some((limits, _)) => format!("{} batches of at most {} in flight", handler.max_in_flight, limits.max),
            };
            let (url, timeout) = (handler.shown_url(), format_duration(handler.timeout));
            let _ = writeln!(text, "handler {url}, timeout {timeout}, {at_a_time}");
        }
        if ladder.mode() == Mode::Push {
            match &config_of.breaker {
                Some(b) => {
                    let _ = writeln!(
                        text,
                        "breaker opens after {} without a good answer, for {} to {}, and slows down at {} failures in a row",
                        format_duration(b.silence),
                        format_duration(b.open_for),
                        format_duration(b.open_most),
                        b.consecutive,
                    );
                }
                None => text.push_str("no breaker\n"),
            }
            let start = config_of.start.map_or("not set; required (`start`) while the group has no offsets", start);
            let _ = writeln!(text, "start {start}");
        } else {
            let settle = format_duration(ladder.settle());
            let back = match ladder.redelivery() {
                Redelivery::Topic => ladder.redeliver_topic(),
                Redelivery::Origin => "their origins".to_owned(),
            };
            let _ = writeln!(text, "due records come back in {back} and are presumed done after {settle}");
        }
        if let Some(age) = ladder.max_age() {
            let _ = writeln!(
                text,
                "a record that would come back later than {} after its first failure expires",
                format_duration(age)
            );
        }
        if let Some(rate) = ladder.max_rate() {
            let _ = writeln!(text, "redelivery rate of each tier: at most {rate}");
        }
        if let Some(Immediate { attempts, backoff }) = ladder.immediate() {
            let _ = writeln!(
                text,
                "a failed attempt is repeated in place {attempts} time{}, {} apart",
                if attempts == 1 { "" } else { "s" },
                format_duration(backoff)
            );
        }
        for (index, rule) in ladder.rules().iter().enumerate() {
            let _ = writeln!(text, "rule {}: {}, then {}", ladder.rule_name(index), rule.when, consequence(&rule.then));
        }
        if let Some((problem, remedy)) = costly_wait(ladder) {
            let _ = writeln!(text, "note: {problem}: {remedy}");
        }
        let mut table = table(&["", "topic", ""]);
        for (role, topic, note) in topics_of(config_of) {
            table.add_row([role, topic, note]);
        }
        let _ = writeln!(text, "\n{}", trimmed(&table));
        let mut table = self::table(&["worker", "group.id", "transactional.id"]);
        for (role, group, transactional) in workers_of(ladder, &config.worker.instance) {
            table.add_row([role.to_string(), group, transactional.unwrap_or_else(|| "-".to_owned())]);
        }
        let _ = writeln!(text, "\n{}", trimmed(&table));
    }
    text
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header.to_vec());
    table
}

/// Without the padding of the last column.
fn trimmed(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

fn as_json(config: &Config, state_dir: &str) -> Value {
    let ladders: Vec<Value> = config.ladders.iter().map(|ladder| ladder_json(ladder, &config.worker.instance)).collect();
    json!({
        "brokers": config.kafka.brokers(),
        "instance": config.worker.instance,
        "state_dir": state_dir,
        "health": config.health.listen,
        "admin": config.admin.listen,
        "schema_registry": config.schema_registry.as_ref().map(|registry| json!({
            "url": registry.url,
            "username": registry.credentials.as_ref().map(|credentials| &credentials.username),
        })),
        "ladders": ladders,
    })
}

fn ladder_json(config: &LadderConfig, instance: &str) -> Value {
    let ladder = &config.ladder;
    let tier =
        |t: &crate::core::ladder::Tier| json!({ "tier": t.number(), "delay_ms": t.delay().as_millis(), "topic": t.topic() });
    let worker = |(role, group, transactional): (Role, String, Option<String>)| json!({ "role": role.as_str(), "group": group, "transactional_id": transactional });
    json!({
        "name": ladder.name(),
        "group": ladder.group(),
        "mode": mode(ladder.mode()),
        "hops": hops(ladder.hops()),
        "start": config.start.map(start),
        "attempts": ladder.attempts(),
        "climb_ms": whole_millis(climb(ladder).sum::<Duration>()),
        "sources": ladder.sources(),
        "inbox": (ladder.mode() == Mode::Relay).then(|| ladder.inbox_topic()),
        "dialect": ladder.dialect().map(Dialect::name),
        "tiers": ladder.tiers().iter().map(tier).collect::<Vec<_>>(),
        "redelivery": redelivery(ladder.redelivery()),
        "redeliver": (ladder.redelivery() == Redelivery::Topic).then(|| ladder.redeliver_topic()),
        "settle_ms": (ladder.mode() == Mode::Relay).then(|| whole_millis(ladder.settle())),
        "max_age_ms": ladder.max_age().map(whole_millis),
        "max_rate": ladder.max_rate().map(|rate| rate.to_string()),
        "immediate": ladder.immediate().map(|immediate| json!({
            "attempts": immediate.attempts, "backoff_ms": whole_millis(immediate.backoff),
        })),
        "notes": costly_wait(ladder).iter().map(|(problem, remedy)| format!("{problem}: {remedy}")).collect::<Vec<_>>(),
        "rules": ladder.rules().iter().enumerate().map(|(index, rule)| json!({
            "name": ladder.rule_name(index), "when": rule.when.to_string(), "then": consequence(&rule.then),
        })).collect::<Vec<_>>(),
        "dlq": ladder.dlq_topic(),
        "dlqs": ladder.dlq_topics(),
        "state": ladder.state_topic(),
        "handler": config.handler.as_ref().map(|handler| json!({
            "url": handler.shown_url(),
            "timeout_ms": whole_millis(handler.timeout),
            "max_in_flight": handler.max_in_flight,
            "max_unsettled": handler.max_unsettled,
            "batch": handler.batch.map(|(limits, _)| limits.max),
        })),
        "breaker": config.breaker.map(|breaker| json!({
            "consecutive": breaker.consecutive,
            "silence_ms": whole_millis(breaker.silence),
            "probes": breaker.probes,
            "open_for_ms": whole_millis(breaker.open_for),
            "open_most_ms": whole_millis(breaker.open_most),
        })),
        "dlq_breaker": config.dlq_breaker.map(|breaker| json!({
            "window_ms": whole_millis(breaker.window),
            "minimum": breaker.minimum,
            "share": breaker.share,
            "hold_for_ms": whole_millis(breaker.hold_for),
        })),
        "workers": workers_of(ladder, instance).into_iter().map(worker).collect::<Vec<_>>(),
    })
}

fn consequence(then: &Then) -> String {
    match then {
        Then::Retry { from_tier, attempts } => {
            let from = if *from_tier > 1 { format!(" from tier {from_tier}") } else { String::new() };
            let limit = attempts
                .map(|attempts| format!(", {attempts} attempt{}", if attempts == 1 { "" } else { "s" }))
                .unwrap_or_default();
            format!("retry{from}{limit}")
        }
        Then::Reject { dlq: Some(name) } => format!("reject, into dlq-{name}"),
        Then::Reject { dlq: None } | Then::Done => then.as_str().to_owned(),
    }
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Push => "push",
        Mode::Relay => "relay",
    }
}

fn redelivery(redelivery: Redelivery) -> &'static str {
    match redelivery {
        Redelivery::Topic => "topic",
        Redelivery::Origin => "origin",
    }
}

fn hops(hops: Hops) -> &'static str {
    match hops {
        Hops::ExactlyOnce => "exactly-once",
        Hops::AtLeastOnce => "at-least-once",
    }
}

fn start(start: Start) -> &'static str {
    match start {
        Start::Earliest => "earliest",
        Start::Latest => "latest",
    }
}

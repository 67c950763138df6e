//! `kladder dlq groups`

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::dlq::list::open_unless_asked;
use crate::cli::dlq::open::{QueueArgs, now};
use crate::cli::dlq::table::{Table, ago, counted, cut, or_dash, thousands};
use crate::cli::dlq::{FilterArg, OutputFormat, pager};
use crate::cli::exit::Exit;
use crate::cli::output::{self, tell};
use crate::core::time::Timestamp;
use crate::dlq::filter::GRAMMAR;
use crate::dlq::index::LetterGroup;

/// Show dead letters grouped by class, reason and message, most frequent first
///
/// Messages that differ only in numbers, ids, hex and quoted values are one group. Only open letters are counted, unless the filter
/// selects states. TREND shows the letters over time, from the first letter until now, or over --span.
#[derive(Debug, Args)]
#[command(after_long_help = GRAMMAR)]
pub struct GroupsArgs {
    #[command(flatten)]
    filter: FilterArg,

    #[command(flatten)]
    queue: QueueArgs,

    /// Length of the trend: 1h, 7d
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    span: Option<Duration>,

    /// Output format
    #[arg(short, long, value_enum, default_value = "text", value_name = "FORMAT")]
    output: OutputFormat,
}

pub fn run(args: GroupsArgs) -> anyhow::Result<Exit> {
    let filter = open_unless_asked(args.filter.parse()?);
    let feed = args.queue.find()?.read()?;
    let now = now();
    let groups = feed.index().groups(&filter, now, args.span)?;
    match args.output {
        OutputFormat::Text => {
            pager::print(&text(&groups, now))?;
            let letters: u64 = groups.iter().map(|group| group.count).sum();
            tell!("{} of {} in {}", counted(letters, "dead letter"), feed.queue().topic, counted(groups.len() as u64, "group"));
            if let Some(group) = groups.first() {
                tell!(
                    "an example: kladder dlq show {}; all letters of a group: kladder dlq list group:{}",
                    group.sample,
                    group.id
                );
            }
        }
        OutputFormat::Json => {
            let groups: Vec<Value> = groups.iter().map(json_of).collect();
            output::print_json(&json!({ "groups": groups }))?;
        }
        OutputFormat::Jsonl => {
            output::print_json_lines(groups.iter().map(json_of))?;
        }
    }
    Ok(Exit::Done)
}

fn text(groups: &[LetterGroup], now: Timestamp) -> String {
    let mut table =
        Table::new(&["GROUP", "COUNT", "FIRST", "LAST", "TREND", "REASON", "ORIGIN", "TIERS", "CLASS", "MESSAGE"], &[1]);
    for group in groups {
        table.row(vec![
            group.id.clone(),
            thousands(group.count),
            ago(group.first, now),
            ago(group.last, now),
            bars(&group.trend),
            or_dash(group.reason.as_deref()),
            cut(&most(group.origins.iter().map(|(name, count)| (or_dash(Some(name)), *count))), 30),
            most(group.tiers.iter().map(|(tier, count)| (if *tier == 0 { "-".to_owned() } else { tier.to_string() }, *count))),
            cut(&or_dash(group.class.as_deref()), 40),
            or_dash(Some(&group.shape)),
        ]);
    }
    table.to_text()
}

/// The most frequent name, and the number of others: `orders +2`.
fn most(counts: impl Iterator<Item = (String, u64)>) -> String {
    let mut counts: Vec<_> = counts.collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    match counts.as_slice() {
        [] => "-".to_owned(),
        [(name, _)] => name.clone(),
        [(name, _), rest @ ..] => format!("{name} +{}", rest.len()),
    }
}

/// Counts as bars, relative to the highest.
fn bars(counts: &[u64]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let highest = counts.iter().max().copied().unwrap_or(0);
    let bar = |count: u64| match (count * 8).div_ceil(highest.max(1)) {
        0 => ' ',
        height => BARS[usize::try_from(height - 1).unwrap_or(0).min(7)],
    };
    counts.iter().map(|count| bar(*count)).collect()
}

fn json_of(group: &LetterGroup) -> Value {
    json!({
        "group": group.id,
        "count": group.count,
        "class": group.class,
        "reason": group.reason,
        "message": group.shape,
        "first": group.first.to_rfc3339(),
        "first_ms": group.first.as_millis(),
        "last": group.last.to_rfc3339(),
        "last_ms": group.last.as_millis(),
        "trend": group.trend,
        "states": group.states.iter().map(|(state, count)| (state.as_str(), *count)).collect::<std::collections::BTreeMap<_, _>>(),
        "tiers": group.tiers,
        "origins": group.origins,
        "sample": group.sample.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_stand_against_the_highest() {
        assert_eq!(bars(&[0, 1, 4, 8]), " ▁▄█");
        assert_eq!(bars(&[0, 0]), "  ");
    }

    #[test]
    fn the_most_frequent_one_stands_for_the_rest() {
        let of = |counts: &[(&str, u64)]| most(counts.iter().map(|(name, count)| ((*name).to_owned(), *count)));
        assert_eq!([of(&[]), of(&[("a", 1)]), of(&[("a", 1), ("b", 5), ("c", 2)])], ["-", "a", "b +2"]);
    }
}

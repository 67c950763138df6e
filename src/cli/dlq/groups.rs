//! `kladder dlq groups`

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::dlq::list::open_unless_asked;
use crate::cli::dlq::open::{QueueArgs, now};
use crate::cli::dlq::table::{Table, ago, cut, or_dash, thousands};
use crate::cli::dlq::{FilterArg, Format, lines, pager};
use crate::cli::exit::Exit;
use crate::cli::stdout;
use crate::core::time::Timestamp;
use crate::dlq::filter::GRAMMAR;
use crate::dlq::index::Group;

/// Show what happened: dead letters by class, reason and message, the most frequent first
///
/// Messages are one group if they differ by numbers, ids, hex and quoted values alone. Only open letters are counted, unless the filter
/// says something of states. TREND is their number over time, from the first letter until now, or over --span.
#[derive(Debug, Args)]
#[command(after_long_help = GRAMMAR)]
pub struct GroupsArgs {
    #[command(flatten)]
    filter: FilterArg,

    #[command(flatten)]
    queue: QueueArgs,

    /// The trend is of so long: 1h, 7d
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    span: Option<Duration>,

    /// How it is printed
    #[arg(short, long, value_enum, default_value = "text", value_name = "FORMAT")]
    output: Format,
}

pub fn run(args: GroupsArgs) -> anyhow::Result<Exit> {
    let filter = open_unless_asked(args.filter.parse()?);
    let feed = args.queue.find()?.read()?;
    let now = now();
    let groups = feed.index().groups(&filter, now, args.span)?;
    match args.output {
        Format::Text => {
            pager::print(&text(&groups, now))?;
            let letters: u64 = groups.iter().map(|group| group.count).sum();
            eprintln!("{} dead letters of {} in {} groups", thousands(letters), feed.queue().topic, groups.len());
            if let Some(group) = groups.first() {
                eprintln!("one of them: kladder dlq show {}; all of a group: kladder dlq list group:{}", group.sample, group.id);
            }
        }
        Format::Json => {
            let groups: Vec<Value> = groups.iter().map(json_of).collect();
            stdout::print(&format!("{}\n", serde_json::to_string_pretty(&json!({ "groups": groups }))?))?;
        }
        Format::Jsonl => {
            stdout::print(&lines(groups.iter().map(json_of)))?;
        }
    }
    Ok(Exit::Done)
}

fn text(groups: &[Group], now: Timestamp) -> String {
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

/// The most frequent one, and how many more there are: `orders +2`.
fn most(counts: impl Iterator<Item = (String, u64)>) -> String {
    let mut counts: Vec<_> = counts.collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    match counts.as_slice() {
        [] => "-".to_owned(),
        [(name, _)] => name.clone(),
        [(name, _), rest @ ..] => format!("{name} +{}", rest.len()),
    }
}

/// Counts as bars, each against the highest.
fn bars(counts: &[u64]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let highest = counts.iter().max().copied().unwrap_or(0);
    let bar = |count: u64| match (count * 8).div_ceil(highest.max(1)) {
        0 => ' ',
        height => BARS[usize::try_from(height - 1).unwrap_or(0).min(7)],
    };
    counts.iter().map(|count| bar(*count)).collect()
}

fn json_of(group: &Group) -> Value {
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

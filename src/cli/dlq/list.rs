//! `kladder dlq list`

use clap::Args;
use serde_json::{Value, json};

use crate::cli::dlq::open::{QueueArgs, now};
use crate::cli::dlq::table::{Table, ago, counted, or_dash, shown, thousands};
use crate::cli::dlq::{FilterArg, OutputFormat, pager};
use crate::cli::exit::Exit;
use crate::cli::output::{self, tell};
use crate::core::dead_letter::LetterState;
use crate::core::harmless::on_one_line;
use crate::core::time::Timestamp;
use crate::dlq::filter::{Filter, GRAMMAR};
use crate::dlq::index::{LetterRow, Order};

/// List dead letters, newest first
///
/// Lists only open ones (parked ones included) unless the filter selects states.
#[derive(Debug, Args)]
#[command(after_long_help = GRAMMAR)]
pub struct ListArgs {
    #[command(flatten)]
    filter: FilterArg,

    #[command(flatten)]
    queue: QueueArgs,

    /// Maximum number of letters to list; 0 for all
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 50)]
    limit: usize,

    /// List the oldest first
    #[arg(long)]
    oldest: bool,

    /// Print only the number of letters
    #[arg(long)]
    count: bool,

    /// Output format
    #[arg(short, long, value_enum, default_value = "text", value_name = "FORMAT")]
    output: OutputFormat,
}

/// Adds `state:open` unless the filter selects states.
pub fn open_unless_asked(filter: Filter) -> Filter {
    if filter.asks_for_state() {
        return filter;
    }
    filter.and_in(&LetterState::UNDONE)
}

pub fn run(args: ListArgs) -> anyhow::Result<Exit> {
    let asked = args.filter.parse()?;
    let filter = open_unless_asked(asked.clone());
    let feed = args.queue.find()?.read()?;
    let (index, now) = (feed.index(), now());
    if args.count {
        output::print(&format!("{}\n", index.count(&filter, now)?))?;
        return Ok(Exit::Done);
    }
    let order = if args.oldest { Order::Oldest } else { Order::Newest };
    let limit = if args.limit == 0 { usize::MAX } else { args.limit };
    let rows = index.list(&filter, now, order, limit)?;
    match args.output {
        OutputFormat::Text => {
            pager::print(&text(&rows, now))?;
            let (all, of) = (index.count(&filter, now)?, index.count(&Filter::All, now)?);
            let states = if asked.asks_for_state() { "" } else { " open" };
            let shown = u64::try_from(rows.len()).unwrap_or(u64::MAX);
            let less = if shown < all { format!(", {} shown (-n sets how many)", thousands(shown)) } else { String::new() };
            tell!("{}{states} of {} in {}{less}", thousands(all), counted(of, "dead letter"), feed.queue().topic);
        }
        OutputFormat::Json => {
            let rows: Vec<Value> = rows.iter().map(json_of).collect();
            output::print_json(&json!({ "letters": rows }))?;
        }
        OutputFormat::Jsonl => {
            output::print_json_lines(rows.iter().map(json_of))?;
        }
    }
    Ok(Exit::Done)
}

/// As a table.
pub fn text(rows: &[LetterRow], now: Timestamp) -> String {
    let mut table = Table::new(&["ID", "AGE", "STATE", "REASON", "TOPIC", "KEY", "ATT", "CLASS", "MESSAGE"], &[6]);
    for row in rows {
        table.row(vec![
            row.at.to_string(),
            ago(row.at.appended, now),
            row.state.to_string(),
            or_dash(row.reason.as_deref()),
            or_dash(row.origin_topic.as_deref()),
            super::table::cut(&on_one_line(&shown(row.key.as_deref())), 24),
            row.attempts.map_or_else(|| "-".to_owned(), |n| n.to_string()),
            super::table::cut(&or_dash(row.class.as_deref()), 40),
            or_dash(row.message.as_deref()),
        ]);
    }
    table.to_text()
}

/// As JSON.
pub fn json_of(row: &LetterRow) -> Value {
    json!({
        "id": row.at.to_string(),
        "partition": row.at.partition,
        "offset": row.at.offset,
        "timestamp": row.at.appended.to_rfc3339(),
        "timestamp_ms": row.at.appended.as_millis(),
        "state": row.state.as_str(),
        "reason": row.reason,
        "class": row.class,
        "message": row.message,
        "status": row.status,
        "attempts": row.attempts,
        "redrives": row.redrives,
        "tier": row.tier,
        "origin": { "topic": row.origin_topic, "partition": row.origin_partition, "offset": row.origin_offset },
        "key": row.key.as_deref().map(String::from_utf8_lossy),
        "group": row.group,
        "idempotency_key": row.id,
        "first_failed_ms": row.first_failed.map(Timestamp::as_millis),
        "bytes": row.bytes,
        "fate": row.fate,
    })
}

//! `kladder dlq show`

use std::fmt::Write as _;

use anyhow::bail;
use clap::Args;
use serde_json::{Value, json};

use crate::cli::dlq::decoded::{SHOWN, decode_by};
use crate::cli::dlq::export::bytes_json;
use crate::cli::dlq::list::json_of;
use crate::cli::dlq::open::{QueueArgs, now};
use crate::cli::dlq::table::{ago, or_dash, shown};
use crate::cli::dlq::{Format, UsageError, lines, pager};
use crate::cli::exit::Exit;
use crate::cli::stdout;
use crate::core::coordinates::Coordinates;
use crate::core::dead_letter::LetterKey;
use crate::core::envelope::Envelope;
use crate::core::state::on_one_line;
use crate::dlq::content::Content;
use crate::dlq::index::Row;
use crate::dlq::payload::Decoder;
use crate::kafka::fetch::Fetcher;
use crate::kafka::partition::TopicPartition;

/// Show a dead letter with all that is known of it: why, its attempts, its headers, its payload
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The letter, as `dlq list` prints it: PARTITION/OFFSET; may be repeated
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,

    #[command(flatten)]
    queue: QueueArgs,

    /// All of the payload, however long
    #[arg(long)]
    full: bool,

    /// Only the bytes of the value, as they are
    #[arg(long, conflicts_with = "output")]
    raw: bool,

    /// How it is printed
    #[arg(short, long, value_enum, default_value = "text", value_name = "FORMAT")]
    output: Format,
}

/// Reads `3/1042`.
pub fn place(text: &str) -> Result<(i32, i64), UsageError> {
    let wrong = || UsageError(format!("`{text}` is no letter: write PARTITION/OFFSET, as `kladder dlq list` prints it"));
    let (partition, offset) = text.split_once('/').ok_or_else(wrong)?;
    Ok((partition.parse().map_err(|_| wrong())?, offset.parse().map_err(|_| wrong())?))
}

pub fn run(args: ShowArgs) -> anyhow::Result<Exit> {
    let places = args.ids.iter().map(|id| place(id)).collect::<Result<Vec<_>, _>>()?;
    let opened = args.queue.find()?;
    let feed = opened.read()?;
    let mut fetcher = Fetcher::new(&opened.kafka)?;
    let mut decoder = opened.decoder()?;
    let mut documents = Vec::new();
    let mut text = String::new();
    for (partition, offset) in places {
        let topic = &opened.queue.topic;
        let Some(row) = feed.index().letter(partition, offset)? else {
            bail!("there is no letter {partition}/{offset} in {topic}: `kladder dlq list` shows those that there are");
        };
        let Some(content) = fetch(&mut fetcher, topic, row.at)? else {
            bail!("letter {partition}/{offset} is gone from {topic}: retention has taken it meanwhile");
        };
        if args.raw {
            use std::io::Write as _;
            std::io::stdout().lock().write_all(content.value.as_deref().unwrap_or_default())?;
            continue;
        }
        match args.output {
            Format::Text => {
                if !text.is_empty() {
                    text.push('\n');
                }
                describe(&mut text, topic, &row, &content, &mut decoder, if args.full { usize::MAX } else { SHOWN });
            }
            Format::Json | Format::Jsonl => documents.push(document(topic, &row, &content, &mut decoder)),
        }
    }
    match args.output {
        Format::Text => pager::print(&text)?,
        Format::Json => stdout::print(&format!("{}\n", serde_json::to_string_pretty(&json!({ "letters": documents }))?))?,
        Format::Jsonl => stdout::print(&lines(documents))?,
    }
    Ok(Exit::Done)
}

/// The record of a letter; `None` where it is gone.
pub fn fetch(fetcher: &mut Fetcher, topic: &str, letter: LetterKey) -> anyhow::Result<Option<Content>> {
    let tp = TopicPartition { topic: topic.into(), partition: letter.partition };
    let mut found = None;
    fetcher.fetch(&tp, &[letter.offset], |record| found = Some(Content::of(&record)))?;
    Ok(found)
}

fn envelope_of(topic: &str, row: &Row, content: &Content) -> Option<Envelope> {
    let (partition, offset, timestamp) = (row.at.partition, row.at.offset, row.at.appended);
    let at = Coordinates { topic: topic.to_owned(), partition, offset, timestamp };
    Envelope::read_dead(&at, content.headers.iter().map(|(name, value)| (name.as_slice(), value.as_deref())))
}

fn describe(out: &mut String, topic: &str, row: &Row, content: &Content, decoder: &mut Decoder, most: usize) {
    let now = now();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(out, "{name:<12} {value}");
    };
    line("letter", format!("{} of {topic}", row.at));
    line("dead since", format!("{} ({} ago)", row.at.appended.to_rfc3339(), ago(row.at.appended, now)));
    let mut state = row.state.to_string();
    if let Some(fate) = &row.fate {
        let _ = write!(
            state,
            ", by {} at {}",
            on_one_line(&fate.by),
            crate::core::time::Timestamp::from_millis(fate.at).to_rfc3339()
        );
        let _ = write!(state, ", job {}", on_one_line(&fate.job));
        if let Some(target) = &fate.target {
            let _ = write!(state, ", to {target}");
        }
        if let Some(note) = &fate.note {
            let _ = write!(state, ": {}", on_one_line(note));
        }
    }
    line("state", state);
    line("reason", or_dash(row.reason.as_deref()));
    let status = row.status.map(|status| format!(" (status {status})")).unwrap_or_default();
    line("error", format!("{}{status}", on_one_line(&or_dash(row.class.as_deref()))));
    line("message", on_one_line(&or_dash(row.message.as_deref())));
    line("group", row.group.clone());
    let number = |number: Option<i64>| number.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let origin = match &row.origin_topic {
        Some(topic) => {
            format!("{}[{}] at {}", on_one_line(topic), number(row.origin_partition.map(i64::from)), number(row.origin_offset))
        }
        None => "-".to_owned(),
    };
    line("origin", origin);
    line("attempts", format!("{}, redriven {} times before", number(row.attempts.map(i64::from)), row.redrives));
    if let Some(id) = &row.id {
        line("id", on_one_line(id));
    }
    let envelope = envelope_of(topic, row, content);
    if let Some(envelope) = &envelope
        && !envelope.history.is_empty()
    {
        out.push_str("timeline\n");
        let begun = u32::try_from(envelope.history.len()).unwrap_or(0);
        let first = envelope.attempts.max(begun) - begun + 1;
        for (attempt, entry) in (first..).zip(&envelope.history) {
            let waited = if entry.tier == 0 { "source".to_owned() } else { format!("tier {}", entry.tier) };
            let _ = writeln!(out, "  {attempt:>3}  {}  {waited:<8} {}", entry.at.to_rfc3339(), on_one_line(&entry.class));
        }
    }
    let _ = writeln!(out, "headers ({})", content.headers.len());
    for (name, value) in &content.headers {
        let value = value.as_deref().map_or_else(|| "(null)".to_owned(), |value| shown(Some(value)));
        let _ = writeln!(out, "  {}: {}", on_one_line(&String::from_utf8_lossy(name)), on_one_line(&value));
    }
    let (format, key) = decode_by(decoder, content.key.as_deref(), most);
    let _ = writeln!(out, "key ({format})\n{}", harmless(&key));
    let (format, value) = decode_by(decoder, content.value.as_deref(), most);
    let bytes = content.value.as_ref().map(|value| format!(", {} bytes", value.len())).unwrap_or_default();
    let _ = writeln!(out, "value ({format}{bytes})\n{}", harmless(&value));
    if let Some(diff) = row.fate.as_ref().and_then(|fate| fate.diff.as_ref()) {
        let _ = writeln!(out, "changed when it was sent back\n{}", harmless(diff));
    }
}

/// Lines stay, and nothing else that a terminal would obey.
fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { ' ' } else { c }).collect()
}

fn document(topic: &str, row: &Row, content: &Content, decoder: &mut Decoder) -> Value {
    let decoded = decoder.decode(content.value.as_deref());
    let mut document = json_of(row);
    let envelope = envelope_of(topic, row, content);
    let history: Vec<Value> = envelope
        .iter()
        .flat_map(|envelope| &envelope.history)
        .map(|entry| json!({ "at": entry.at.to_rfc3339(), "at_ms": entry.at.as_millis(), "tier": entry.tier, "class": entry.class }))
        .collect();
    let headers: Vec<Value> =
        content.headers.iter().map(|(name, value)| json!([bytes_json(Some(name)), bytes_json(value.as_deref())])).collect();
    let more = [
        ("topic", json!(topic)),
        ("timeline", json!(history)),
        ("headers", json!(headers)),
        ("key", bytes_json(content.key.as_deref())),
        ("value", bytes_json(content.value.as_deref())),
        ("format", json!(decoded.format.as_str())),
        ("schema", json!(decoded.schema.map(|schema| schema.to_string()))),
        ("json", json!(decoded.json)),
    ];
    if let Some(fields) = document.as_object_mut() {
        for (name, value) in more {
            fields.insert(name.to_owned(), value);
        }
    }
    document
}

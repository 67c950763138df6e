//! `kladder dlq show`

use std::fmt::Write as _;

use anyhow::bail;
use clap::Args;
use serde_json::{Value, json};

use crate::cli::dlq::decoded::{SHOWN, decode_by};
use crate::cli::dlq::export::bytes_json;
use crate::cli::dlq::list::json_of;
use crate::cli::dlq::open::{QueueArgs, now};
use crate::cli::dlq::table::{ago, counted, or_dash, shown};
use crate::cli::dlq::{OutputFormat, UsageError, pager};
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::core::coordinates::Coordinates;
use crate::core::envelope::Envelope;
use crate::core::harmless::{self, on_one_line};
use crate::dlq::content::Content;
use crate::dlq::index::LetterRow;
use crate::dlq::payload::{Decoder, PayloadPart, named};
use crate::kafka::fetch::Fetcher;

/// Show a dead letter in full: reason, attempts, headers, payload
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Letter, as printed by `dlq list`: PARTITION/OFFSET; may be repeated
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,

    #[command(flatten)]
    queue: QueueArgs,

    /// Show the whole payload, however long
    #[arg(long)]
    full: bool,

    /// Print only the bytes of the value, unchanged
    #[arg(long, conflicts_with = "output")]
    raw: bool,

    /// Output format
    #[arg(short, long, value_enum, default_value = "text", value_name = "FORMAT")]
    output: OutputFormat,
}

/// Parses `3/1042`.
pub fn place(text: &str) -> Result<(i32, i64), UsageError> {
    let wrong = || UsageError(format!("`{text}` is not a letter: write PARTITION/OFFSET, as printed by `kladder dlq list`"));
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
            bail!("no letter {partition}/{offset} in {topic}: `kladder dlq list` lists the letters");
        };
        let Some(content) = Content::fetch(&mut fetcher, topic, row.at)? else {
            bail!("letter {partition}/{offset} is no longer in {topic}: deleted by retention");
        };
        if args.raw {
            output::print_bytes(content.value.as_deref().unwrap_or_default())?;
            continue;
        }
        match args.output {
            OutputFormat::Text => {
                if !text.is_empty() {
                    text.push('\n');
                }
                describe(&mut text, topic, &row, &content, &mut decoder, if args.full { usize::MAX } else { SHOWN });
            }
            OutputFormat::Json | OutputFormat::Jsonl => documents.push(document(topic, &row, &content, &mut decoder)),
        }
    }
    match args.output {
        OutputFormat::Text => pager::print(&text)?,
        OutputFormat::Json => output::print_json(&json!({ "letters": documents }))?,
        OutputFormat::Jsonl => output::print_json_lines(documents)?,
    }
    Ok(Exit::Done)
}

fn envelope_of(topic: &str, row: &LetterRow, content: &Content) -> Option<Envelope> {
    let (partition, offset, timestamp) = (row.at.partition, row.at.offset, row.at.appended);
    let at = Coordinates { topic: topic.to_owned(), partition, offset, timestamp };
    Envelope::read_dead(&at, content.headers.iter().map(|(name, value)| (name.as_slice(), value.as_deref())))
}

fn describe(out: &mut String, topic: &str, row: &LetterRow, content: &Content, decoder: &mut Decoder, most: usize) {
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
            let _ = write!(state, ", to {}", on_one_line(target));
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
    line(
        "attempts",
        format!("{}, redriven {} before", number(row.attempts.map(i64::from)), counted(row.redrives.into(), "time")),
    );
    if let Some(id) = &row.id {
        line("id", on_one_line(id));
    }
    if let Some(fault) = content.fault {
        line("headers", fault.to_string());
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
        let value = value.as_deref().map_or_else(|| "(null)".to_owned(), header_value);
        let _ = writeln!(out, "  {}: {value}", on_one_line(&String::from_utf8_lossy(name)));
    }
    let (format, key) = decode_by(decoder, content.key.as_deref(), named(&content.headers, PayloadPart::Key).as_ref(), most);
    let _ = writeln!(out, "key ({format})\n{}", harmless::lines(&key));
    let (format, value) =
        decode_by(decoder, content.value.as_deref(), named(&content.headers, PayloadPart::Value).as_ref(), most);
    let bytes = content.value.as_ref().map(|value| format!(", {} bytes", value.len())).unwrap_or_default();
    let _ = writeln!(out, "value ({format}{bytes})\n{}", harmless::lines(&value));
    if let Some(diff) = row.fate.as_ref().and_then(|fate| fate.diff.as_ref()) {
        let _ = writeln!(out, "changes when it was sent back\n{}", harmless::lines(diff));
    }
}

/// Text as text, starting on the next line if it has several lines (such as a stack trace); other bytes in base64.
fn header_value(value: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(value) else { return shown(Some(value)) };
    let text = harmless::lines(text);
    if !text.contains('\n') {
        return text.into_owned();
    }
    let lines = text.strip_suffix('\n').unwrap_or(&text).split('\n');
    lines.fold(String::new(), |so_far, line| if line.is_empty() { so_far + "\n" } else { so_far + "\n      " + line })
}

fn document(topic: &str, row: &LetterRow, content: &Content, decoder: &mut Decoder) -> Value {
    let decoded = decoder.decode(content.value.as_deref(), named(&content.headers, PayloadPart::Value).as_ref());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_several_lines_are_text_below_their_name() {
        assert_eq!(header_value(b"eu"), "eu");
        assert_eq!(header_value("na\u{ef}ve\x1b[2J\u{9b}".as_bytes()), "na\u{ef}ve\\x1b[2J\\u{9b}");
        assert_eq!(
            header_value(b"java.lang.Error: x\r\n\tat a.B.c(B.java:1)\r\n\r\nCaused by: y\n"),
            "\n      java.lang.Error: x\n      \tat a.B.c(B.java:1)\n\n      Caused by: y"
        );
        assert_eq!(header_value(&[0xff, 0]), "base64:/wA=");
        assert_eq!(header_value(b""), "");
    }
}

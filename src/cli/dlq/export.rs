//! `kladder dlq export`, and the format of its file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cli::dlq::FilterArg;
use crate::cli::dlq::list::open_unless_asked;
use crate::cli::dlq::open::{QueueArgs, now};
use crate::cli::dlq::progress::Line;
use crate::cli::dlq::table::{counted, thousands};
use crate::cli::exit::Exit;
use crate::cli::output::{self, PrintError, tell};
use crate::core::dead_letter::LetterKey;
use crate::core::harmless;
use crate::core::time::Timestamp;
use crate::dlq::content::Content;
use crate::dlq::filter::GRAMMAR;
use crate::dlq::payload::json_text::BYTE_ORDER_MARK;
use crate::dlq::private;
use crate::kafka::fetch::Fetcher;
use crate::kafka::partition::TopicPartition;

/// Number of records fetched at a time.
const CHUNK: usize = 1_000;

/// Write dead letters to a file, one JSON document per line, byte for byte
///
/// Keys, values and headers are {"text": …} if they are UTF-8, {"base64": …} if not, and null if they are null; the order of headers
/// and duplicates are kept. `dlq redrive --from-file` takes such a file, edited or not.
#[derive(Debug, Args)]
#[command(after_long_help = GRAMMAR)]
pub struct ExportArgs {
    #[command(flatten)]
    filter: FilterArg,

    #[command(flatten)]
    queue: QueueArgs,

    /// File to write; stdout if not given
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
}

pub fn run(args: ExportArgs) -> anyhow::Result<Exit> {
    let filter = open_unless_asked(args.filter.parse()?);
    let opened = args.queue.find()?;
    let feed = opened.read()?;
    let letters = feed.index().select(&filter, &feed.letters_below()?, now())?;
    let mut fetcher = Fetcher::new(&opened.kafka)?;
    let mut out: Box<dyn Write> = match &args.file {
        Some(path) => {
            Box::new(BufWriter::new(private::make_file(path).with_context(|| format!("cannot write {}", path.display()))?))
        }
        None => Box::new(output::stdout()),
    };
    let failed = |error| match &args.file {
        Some(path) => anyhow::Error::from(error).context(format!("cannot write {}", path.display())),
        None => PrintError(error).into(),
    };
    let (mut line, mut written, mut faulty) = (Line::new(), 0_u64, Vec::new());
    for chunk in letters.chunk_by(|a, b| a.partition == b.partition).flat_map(|run| run.chunks(CHUNK)) {
        let tp = TopicPartition { topic: opened.queue.topic.as_str().into(), partition: chunk[0].partition };
        let offsets: Vec<i64> = chunk.iter().map(|letter| letter.offset).collect();
        let mut outcome = Ok(());
        fetcher.fetch(&tp, &offsets, |record| {
            let letter = LetterKey { partition: tp.partition, offset: record.offset(), appended: record.timestamp() };
            if let Some(fault) = record.header_fault() {
                faulty.push((letter, fault));
            } else if outcome.is_ok() {
                let document = document(&opened.queue.topic, letter, &Content::of(&record)).to_string();
                outcome = writeln!(out, "{}", harmless::json(&document));
                written += 1;
            }
        })?;
        match outcome {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(Exit::Done),
            other => other.map_err(&failed)?,
        }
        line.tell(&format!("exported {} of {}", thousands(written), thousands(letters.len() as u64)));
    }
    match out.flush() {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
        other => other.map_err(&failed)?,
    }
    line.end();
    // They would be exported as if they had no headers, and sent back like that.
    for (letter, fault) in &faulty {
        tell!("  letter {letter} is left out: {fault}");
    }
    let gone = (letters.len() - faulty.len()) as u64 - written;
    let gone = if gone > 0 {
        format!("; {} {} no longer in the topic", thousands(gone), if gone == 1 { "is" } else { "are" })
    } else {
        String::new()
    };
    tell!("{} exported{gone}", counted(written, "dead letter"));
    Ok(if faulty.is_empty() { Exit::Done } else { Exit::Failed })
}

/// Bytes as JSON, without loss.
pub fn bytes_json(bytes: Option<&[u8]>) -> Value {
    match bytes.map(|bytes| (std::str::from_utf8(bytes), bytes)) {
        None => Value::Null,
        Some((Ok(text), _)) => json!({ "text": text }),
        Some((Err(_), bytes)) => json!({ "base64": STANDARD.encode(bytes) }),
    }
}

fn document(topic: &str, letter: LetterKey, content: &Content) -> Value {
    let headers: Vec<Value> =
        content.headers.iter().map(|(name, value)| json!([bytes_json(Some(name)), bytes_json(value.as_deref())])).collect();
    json!({
        "topic": topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "timestamp_ms": letter.appended.as_millis(),
        "key": bytes_json(content.key.as_deref()),
        "value": bytes_json(content.value.as_deref()),
        "headers": headers,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLetter {
    topic: String,
    partition: i32,
    offset: i64,
    timestamp_ms: i64,
    key: Option<RawBytes>,
    value: Option<RawBytes>,
    headers: Vec<(RawBytes, Option<RawBytes>)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawBytes {
    Text(String),
    Base64(String),
}

impl RawBytes {
    fn bytes(self) -> Result<Vec<u8>, base64::DecodeError> {
        match self {
            Self::Text(text) => Ok(text.into_bytes()),
            Self::Base64(text) => STANDARD.decode(text),
        }
    }
}

/// Reads a file written by `dlq export`, for letters of this topic.
pub fn read(path: &Path, topic: &str) -> anyhow::Result<BTreeMap<LetterKey, Content>> {
    let file: Box<dyn BufRead> = if path == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(std::io::BufReader::new(File::open(path).with_context(|| format!("cannot read {}", path.display()))?))
    };
    let mut letters = BTreeMap::new();
    for (number, line) in (1..).zip(file.lines()) {
        let line = line?;
        let line = line.trim_start_matches(BYTE_ORDER_MARK);
        if line.trim().is_empty() {
            continue;
        }
        let place = || format!("{} line {number}", path.display());
        let raw: RawLetter = serde_json::from_str(line).with_context(place)?;
        if raw.topic != topic {
            bail!("{} is of topic {}, not of {topic}: name the dead-letter topic's ladder with --ladder", place(), raw.topic);
        }
        let appended = Timestamp::from_millis(raw.timestamp_ms);
        let letter = LetterKey { partition: raw.partition, offset: raw.offset, appended };
        let headers = raw.headers.into_iter().map(|(name, value)| Ok((name.bytes()?, value.map(RawBytes::bytes).transpose()?)));
        let content = Content {
            appended,
            key: raw.key.map(RawBytes::bytes).transpose().with_context(place)?,
            value: raw.value.map(RawBytes::bytes).transpose().with_context(place)?,
            headers: headers.collect::<Result<_, base64::DecodeError>>().with_context(place)?,
            fault: None,
            diff: None,
        };
        if letters.insert(letter, content).is_some() {
            bail!("{}: letter {letter} appears twice", place());
        }
    }
    Ok(letters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_exported_is_read_again_byte_for_byte() {
        let appended = Timestamp::from_millis(1_760_000_000_000);
        let letter = LetterKey { partition: 3, offset: 1_042, appended };
        let headers = vec![
            (b"a".to_vec(), None),
            (b"a".to_vec(), Some(Vec::new())),
            (vec![0xff], Some(vec![0, 0xfe])),
            (b"\"q\"".to_vec(), Some("ü".into())),
        ];
        let content =
            Content { appended, key: Some(Vec::new()), value: Some(vec![0xff, 0, 1]), headers, fault: None, diff: None };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letters.jsonl");
        std::fs::write(&path, format!("{}\n\n", document("billing.dlq", letter, &content))).unwrap();
        assert_eq!(read(&path, "billing.dlq").unwrap(), BTreeMap::from([(letter, content.clone())]));
        // Some editors save it like this.
        std::fs::write(&path, format!("\u{feff}{}\r\n", document("billing.dlq", letter, &content))).unwrap();
        assert_eq!(read(&path, "billing.dlq").unwrap(), BTreeMap::from([(letter, content)]));
        let error = read(&path, "other.dlq").unwrap_err().to_string();
        assert!(error.contains("line 1 is of topic billing.dlq"), "{error}");
    }
}

//! `kladder dlq edit`

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::cli::confirm::confirmed;
use crate::cli::dlq::decoded::decode;
use crate::cli::dlq::diff::diff;
use crate::cli::dlq::drive::drive;
use crate::cli::dlq::export::bytes_json;
use crate::cli::dlq::mark::job_id;
use crate::cli::dlq::open::{QueueArgs, now};
use crate::cli::dlq::show::place;
use crate::cli::dlq::{ActionArgs, UsageError};
use crate::cli::exit::Exit;
use crate::cli::output::{self, tell};
use crate::cli::who::who;
use crate::core::dead_letter::{Job, LetterKey, LetterState, Terms, Verb};
use crate::core::envelope::{self, is_own};
use crate::dlq::content::Content;
use crate::dlq::filter::{Filter, LetterPlace, Term};
use crate::dlq::payload::json_text::{self, BYTE_ORDER_MARK};
use crate::dlq::payload::{Decoded, Decoder, PayloadPart, named};
use crate::dlq::redrive::{LetterChange, Target};
use crate::kafka::fetch::Fetcher;

/// Maximum size of a diff in the state topic, in bytes.
const DIFF_LIMIT: usize = 8 * 1024;

/// Change a dead letter in an editor and send the changed record
///
/// $VISUAL or $EDITOR opens its key, value and headers as JSON: {"json": …}, {"text": "…"}, {"base64": "…"} or null. The original
/// stays in the dead-letter topic unchanged, and the diff is kept with the letter's state (`dlq show`). A file saved unchanged sends
/// nothing.
#[derive(Debug, Args)]
pub struct EditArgs {
    /// Letter, as printed by `dlq list`: PARTITION/OFFSET
    #[arg(value_name = "ID")]
    id: String,

    #[command(flatten)]
    queue: QueueArgs,

    /// Target: redeliver (default of a ladder), origin, or a topic named in the configuration
    #[arg(long, value_name = "TARGET")]
    to: Option<String>,

    /// Send even if parked
    #[arg(long)]
    force: bool,

    /// Take over from another redriver
    #[arg(long)]
    take_over: bool,

    #[command(flatten)]
    action: ActionArgs,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Edited<'a> {
    #[serde(borrow)]
    key: Option<EditedBytes<'a>>,
    #[serde(borrow)]
    headers: Vec<(EditedBytes<'a>, Option<EditedBytes<'a>>)>,
    #[serde(borrow)]
    value: Option<EditedBytes<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum EditedBytes<'a> {
    #[serde(borrow)]
    Json(&'a RawValue),
    Text(String),
    Base64(String),
}

impl EditedBytes<'_> {
    /// The edited bytes; the original bytes if they are equivalent.
    fn bytes(self, original: Option<&[u8]>) -> anyhow::Result<Vec<u8>> {
        Ok(match self {
            Self::Text(text) => text.into_bytes(),
            Self::Base64(text) => STANDARD.decode(text)?,
            Self::Json(value) => {
                let compact = compact(value.get());
                // A value that was not edited keeps its exact bytes.
                match original.and_then(|original| Some((original, json_text::read(original)?))) {
                    Some((original, shown)) if self::compact(&shown.pretty) == compact => original.to_vec(),
                    _ => compact.into_bytes(),
                }
            }
        })
    }
}

/// JSON without whitespace between tokens; numbers and strings stay as written.
fn compact(json: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    json.chars()
        .filter(|c| {
            let keep = in_string || !c.is_whitespace();
            (in_string, escaped) = match (in_string, *c) {
                (true, '"') if !escaped => (false, false),
                (true, c) => (true, !escaped && c == '\\'),
                (false, c) => (c == '"', false),
            };
            keep
        })
        .collect()
}

pub fn run(args: EditArgs) -> anyhow::Result<Exit> {
    let (partition, offset) = place(&args.id)?;
    let opened = args.queue.find()?;
    let target = Target::of(&opened.queue, args.to.as_deref()).map_err(UsageError)?;
    let (who, at) = (who(), now());
    let id = job_id(&who, at);
    let mut desk = opened.write(&format!("{who} (job {id})"))?;
    desk.heed_lease(args.take_over)?;
    let topic = opened.queue.topic.clone();
    let Some(row) = desk.index().letter(partition, offset)? else { bail!("no letter {} in {topic}", args.id) };
    if !LetterState::may_be_sent(args.force).contains(&row.state) {
        let remedy = match row.state {
            state if LetterState::may_be_sent(true).contains(&state) => "--force sends it anyway".to_owned(),
            _ => format!("reopen it with `kladder dlq restore id:{}`; --force applies to parked letters only", args.id),
        };
        bail!("letter {} is {}: {remedy}", args.id, row.state);
    }
    let mut fetcher = Fetcher::new(&opened.kafka)?;
    let Some(original) = Content::fetch(&mut fetcher, &topic, row.at)? else {
        bail!("letter {} is no longer in {topic}", args.id)
    };
    if let Some(fault) = original.fault {
        bail!("letter {} cannot be edited: {fault}", args.id);
    }
    let mut payloads = Payloads::of(opened.decoder()?, &original);
    let before = document(&original, &payloads);
    let Some((after, text)) = edited(&before, &original, &mut payloads, row.at)? else {
        tell!("no changes: nothing is sent");
        return Ok(Exit::Done);
    };
    let diff = diff(before.as_bytes(), text.as_bytes());
    output::tell_text(&diff);
    if !args.action.yes && !confirmed(&format!("send it to {}?", target.to_stored()), "add --yes")? {
        return Ok(Exit::Usage);
    }
    let filter = Filter::Term(Term::Id(vec![LetterPlace { partition, offset }]));
    let below = vec![(partition, offset + 1)];
    let mut job = Job::new(&id, Verb::Edit, &opened.queue.prefix, &filter.to_string(), below, &who, at);
    (job.note, job.target) = (args.action.note.clone(), Some(target.to_stored()));
    job.terms = Some(Terms::at_once(args.force));
    let mut kept = diff;
    if kept.len() > DIFF_LIMIT {
        kept.truncate(envelope::cut(&kept, DIFF_LIMIT).len());
        kept.push_str("\n… and more\n");
    }
    let change = LetterChange::brought(BTreeMap::from([(row.at, Content { diff: Some(kept), ..after })]));
    let outcome = drive(&mut desk, &opened, job, target, change, args.take_over, args.action.output);
    if !matches!(outcome, Ok(Exit::Done)) {
        let path = edited_path(row.at);
        match write_edited(&path, &text) {
            Ok(()) => tell!("not sent; your changes are kept in {}", path.display()),
            Err(error) => tell!("not sent, and your changes could not be saved: {error}"),
        }
    }
    outcome
}

/// A private file, since the payload may be confidential.
fn write_edited(path: &Path, text: &str) -> std::io::Result<()> {
    std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}

fn edited_path(letter: LetterKey) -> PathBuf {
    std::env::temp_dir().join(format!("kladder-{}-{}-{}.json", letter.partition, letter.offset, std::process::id()))
}

/// The document opened in the editor. kladder's own headers are left out.
fn document(content: &Content, payloads: &Payloads) -> String {
    let mut text = String::from("{\n");
    let bytes = |bytes: Option<&[u8]>| bytes_json(bytes).to_string();
    let key = framed(&payloads.key).unwrap_or_else(|| bytes(content.key.as_deref()));
    let _ = writeln!(text, "  \"key\": {key},");
    text.push_str("  \"headers\": [");
    let mut first = true;
    for (name, value) in content.headers.iter().filter(|(name, _)| !is_own(name)) {
        let _ = write!(text, "{}\n    [{}, {}]", if first { "" } else { "," }, bytes(Some(name)), bytes(value.as_deref()));
        first = false;
    }
    text.push_str(if first { "],\n" } else { "\n  ],\n" });
    let value = content.value.as_deref();
    let shown = if payloads.value.schema.is_some() {
        framed(&payloads.value)
    } else {
        let plain = decode(value, usize::MAX);
        (plain.format == "json").then(|| json_member(&plain.text))
    };
    let shown = shown.unwrap_or_else(|| bytes(value));
    let _ = writeln!(text, "  \"value\": {shown}\n}}");
    text
}

/// A payload that names a schema, as JSON.
fn framed(decoded: &Decoded) -> Option<String> {
    decoded.schema.as_ref()?;
    decoded.json.as_ref()?;
    Some(json_member(&decoded.text))
}

fn json_member(json: &str) -> String {
    format!("{{\"json\":\n{}\n  }}", json.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n"))
}

/// Key and value of a letter, decoded by the schema registry.
struct Payloads {
    decoder: Decoder,
    key: Decoded,
    value: Decoded,
}

impl Payloads {
    fn of(mut decoder: Decoder, content: &Content) -> Self {
        let mut decoded = |bytes: Option<&[u8]>, part| decoder.decode(bytes, named(&content.headers, part).as_ref());
        let (key, value) =
            (decoded(content.key.as_deref(), PayloadPart::Key), decoded(content.value.as_deref(), PayloadPart::Value));
        Self { decoder, key, value }
    }
}

/// Opens the editor until the result can be parsed or the user gives up. `None` if nothing was
/// changed.
fn edited(
    before: &str,
    original: &Content,
    payloads: &mut Payloads,
    letter: LetterKey,
) -> anyhow::Result<Option<(Content, String)>> {
    let file = Removed(edited_path(letter));
    write_edited(&file.0, before)?;
    let named = |name: &str| std::env::var(name).ok().filter(|editor| !editor.is_empty());
    let editor = named("VISUAL").or_else(|| named("EDITOR")).unwrap_or_else(|| "vi".to_owned());
    loop {
        // Through a shell, since $EDITOR may contain options.
        let status = Command::new("sh").arg("-c").arg(format!("{editor} \"$1\"")).arg("sh").arg(&file.0).status();
        if !status.with_context(|| format!("cannot start the editor `{editor}`: set $EDITOR"))?.success() {
            bail!("the editor `{editor}` failed: nothing is sent");
        }
        let text = std::fs::read_to_string(&file.0)?;
        if text == before {
            return Ok(None);
        }
        match read(&text, original, payloads) {
            Ok(content) if is_same(&content, original) => return Ok(None),
            Ok(content) => return Ok(Some((content, text))),
            Err(error) => {
                tell!("error: {error:#}");
                if !confirmed("edit it again?", "nothing is sent")? {
                    bail!("the edited file cannot be parsed: nothing is sent");
                }
            }
        }
    }
}

fn is_same(a: &Content, b: &Content) -> bool {
    (&a.key, &a.value, &a.headers) == (&b.key, &b.value, &b.headers)
}

fn read(text: &str, original: &Content, payloads: &mut Payloads) -> anyhow::Result<Content> {
    let raw: Edited<'_> =
        serde_json::from_str(text.trim_start_matches(BYTE_ORDER_MARK)).context("the document is not of the original form")?;
    let mut headers = Vec::new();
    for (name, value) in raw.headers {
        headers.push((name.bytes(None)?, value.map(|value| value.bytes(None)).transpose()?));
    }
    if headers.iter().any(|(name, _)| is_own(name)) {
        bail!("headers that begin with `kladder-` are reserved for kladder");
    }
    // The hidden headers keep their order and stand at the end, as kladder writes them.
    headers.extend(original.headers.iter().filter(|(name, _)| is_own(name)).cloned());
    let Payloads { decoder, key, value } = payloads;
    let mut bytes = |edited: Option<EditedBytes<'_>>, decoded: &Decoded, original: Option<&[u8]>| match edited {
        // Encoded under its original schema.
        Some(EditedBytes::Json(json)) if decoded.schema.is_some() => {
            Ok(Some(decoder.encode(decoded, &serde_json::from_str(json.get())?)?))
        }
        edited => edited.map(|edited| edited.bytes(original)).transpose(),
    };
    let key = bytes(raw.key, key, original.key.as_deref())?;
    let value = bytes(raw.value, value, original.value.as_deref())?;
    Ok(Content { appended: original.appended, key, value, headers, fault: None, diff: None })
}

/// A file that is deleted after the edit.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let path: &Path = &self.0;
        let _ = std::fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::time::Timestamp;

    fn content(value: &[u8]) -> Content {
        let headers =
            vec![(b"region".to_vec(), Some(b"eu".to_vec())), (vec![0xff], None), (b"kladder-id".to_vec(), Some(b"x".to_vec()))];
        Content {
            appended: Timestamp::from_millis(1),
            key: Some(b"42".to_vec()),
            value: Some(value.to_vec()),
            headers,
            fault: None,
            diff: None,
        }
    }

    fn plain(content: &Content) -> Payloads {
        Payloads::of(Decoder::new(None), content)
    }

    fn shown(content: &Content) -> String {
        document(content, &plain(content))
    }

    fn edit(content: &Content, change: impl Fn(String) -> String) -> Content {
        read(&change(shown(content)), content, &mut plain(content)).unwrap()
    }

    #[test]
    fn what_is_not_edited_stays_byte_for_byte() {
        for value in [&b"{ \"a\": 1.10,\n\"b\":12345678901234567890 }"[..], b"text", &[0xff, 0], b""] {
            let original = content(value);
            assert_eq!(edit(&original, |text| text), original, "{value:?}");
        }
    }

    #[test]
    fn an_edit_changes_what_was_edited() {
        let original = content(br#"{"amount":"1.10","n":12345678901234567890}"#);
        let text = shown(&original).replace("\"1.10\"", "1.10").replace("\"eu\"", "\"us\"");
        let edited = edit(&original, |_| text.clone());
        assert_eq!(edited.value.as_deref(), Some(&br#"{"amount":1.10,"n":12345678901234567890}"#[..]));
        assert_eq!(edited.headers[0].1.as_deref(), Some(&b"us"[..]));
        assert_eq!(edited.headers[1..], original.headers[1..]);
        let lines = diff(shown(&original).as_bytes(), text.as_bytes());
        assert!(lines.contains("-       \"amount\": \"1.10\",\n+       \"amount\": 1.10,"), "{lines}");
        assert!(read("{}", &original, &mut plain(&original)).is_err());
        let own = shown(&original).replace("region", "kladder-x");
        assert!(read(&own, &original, &mut plain(&original)).unwrap_err().to_string().contains("reserved for kladder"));
    }
}

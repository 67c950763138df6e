//! `kladder dlq redrive`

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use crate::cli::confirm::confirmed;
use crate::cli::dlq::decoded::decode_by;
use crate::cli::dlq::diff::diff;
use crate::cli::dlq::drive::drive;
use crate::cli::dlq::mark::{for_action, job_id};
use crate::cli::dlq::open::{Opened, QueueArgs, now};
use crate::cli::dlq::show::place;
use crate::cli::dlq::table::{counted, cut, thousands};
use crate::cli::dlq::{ActionArgs, FilterArg, UsageError, export};
use crate::cli::exit::Exit;
use crate::cli::output::{self, tell};
use crate::cli::who::who;
use crate::core::dead_letter::LetterKey;
use crate::core::delay::format_duration;
use crate::core::harmless::{OneLine, on_one_line};
use crate::dlq::content::Content;
use crate::dlq::filter::{Filter, GRAMMAR, LetterPlace};
use crate::dlq::payload::{Decoder, PayloadPart, named};
use crate::dlq::redrive::{
    DEFAULT_STOP_AT, LetterChange, NotPlanned, RedriveOptions, RedrivePlan, SAMPLE, Selection, Speed, Target, changed, share,
};
use crate::dlq::transform::Transform;
use crate::kafka::fetch::Fetcher;

/// Send dead letters back for another attempt
///
/// A preview comes first: how many letters, to which topics, and some of them. Only letters that are open now and were in the preview
/// are sent, each in one transaction with its state record: a redrive that is killed neither loses nor duplicates a letter, and `dlq
/// jobs resume` continues it. Attempts start again at 1.
///
/// The target is the ladder's redeliver topic, which only the group whose handler failed reads. With --to origin or --to TOPIC,
/// every group that reads that topic receives the records; only topics named in the configuration are allowed.
///
/// With --canary 10, ten letters are sent first, and the rest after their outcomes are known, which only the redeliver topic
/// reports. The redrive stops when more than --stop-at of the finished letters have failed again. Ctrl-C pauses it.
#[derive(Debug, Args)]
#[command(after_long_help = GRAMMAR)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub struct RedriveArgs {
    #[command(flatten)]
    filter: FilterArg,

    #[command(flatten)]
    queue: QueueArgs,

    /// All open letters, if no filter is given
    #[arg(long)]
    all: bool,

    /// Only the letters whose IDs are in this file, one per line; - for stdin
    #[arg(long, value_name = "FILE", conflicts_with_all = ["all", "from_file"])]
    ids: Option<PathBuf>,

    /// Letters from a file written by `dlq export`, with their content from the file; - for stdin
    #[arg(long, value_name = "FILE", conflicts_with_all = ["all", "transform"])]
    from_file: Option<PathBuf>,

    /// Target: redeliver (default of a ladder), origin, or a topic named in the configuration
    #[arg(long, value_name = "TARGET")]
    to: Option<String>,

    /// Rate: 100/s (default), 30/m, or max
    #[arg(long, value_name = "RATE", value_parser = str::parse::<Speed>)]
    rate: Option<Speed>,

    /// Time over which the rate rises from a tenth to its full value
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "0s")]
    ramp: Duration,

    /// Maximum number of letters to send
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    max: Option<u64>,

    /// Send N first and wait for their outcome
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    canary: u64,

    /// Stop when more than this share of the finished letters has failed again; 1 never stops
    #[arg(long, value_name = "SHARE", default_value_t = DEFAULT_STOP_AT, value_parser = share)]
    stop_at: f64,

    /// jq program applied to each value; `.` is the value, `$letter` the letter's metadata
    #[arg(long, value_name = "PROGRAM")]
    transform: Option<String>,

    /// Include parked letters, which were sent back too often
    #[arg(long)]
    force: bool,

    /// Take over from another redriver; letters that it has not sent stay open
    #[arg(long)]
    take_over: bool,

    /// Only show what would be sent, with --transform also the changed values
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    action: ActionArgs,
}

impl RedriveArgs {
    fn options(&self) -> RedriveOptions {
        RedriveOptions {
            speed: self.rate,
            ramp: self.ramp,
            max: self.max,
            canary: self.canary,
            stop_at: self.stop_at,
            force: self.force,
            transform: self.transform.clone(),
            note: self.action.note.clone(),
        }
    }
}

pub fn run(args: RedriveArgs) -> anyhow::Result<Exit> {
    let opened = args.queue.find()?;
    let target = Target::of(&opened.queue, args.to.as_deref()).map_err(UsageError)?;
    let options = args.options();
    options.check(&opened.queue, &target).map_err(|error| UsageError(error.to_string()))?;
    let transform =
        args.transform.as_deref().map(Transform::compile).transpose().map_err(|error| UsageError(error.to_string()))?;
    let selection = chosen(&args, &opened)?;
    let who = who();
    let at = now();
    let id = job_id(&who, at);
    let mut desk = opened.write(&format!("{who} (job {id})"))?;
    desk.heed_lease(args.take_over)?;
    let plan = match RedrivePlan::make(&mut desk, (&id, &who, at), &selection, &target, &options)? {
        Ok(plan) => plan,
        Err(nothing) => {
            nothing_to_do(nothing, selection.filter(), &opened);
            return Ok(Exit::Done);
        }
    };
    print_preview(&plan, options.canary, &opened);
    if let Some(transform) = &transform {
        before_and_after(&opened, &plan.letters, transform)?;
    }
    if args.dry_run {
        return Ok(Exit::Done);
    }
    if !args.action.yes && !confirmed("send them?", "add --yes, or --dry-run for a preview only")? {
        return Ok(Exit::Usage);
    }
    let change = match (selection.into_brought(), transform) {
        (Some(brought), _) => LetterChange::brought(brought),
        (None, Some(transform)) => LetterChange::by_program(transform, opened.decoder()?),
        (None, None) => LetterChange::nothing(),
    };
    drive(&mut desk, &opened, plan.job, target, change, args.take_over, args.action.output)
}

/// The letters selected by the arguments.
fn chosen(args: &RedriveArgs, opened: &Opened) -> anyhow::Result<Selection> {
    if let Some(path) = &args.from_file {
        if !matches!(args.filter.parse()?, Filter::All) {
            return Err(UsageError("--from-file sends all letters of the file: remove the filter".to_owned()).into());
        }
        return Ok(Selection::brought(export::read(path, &opened.queue.topic)?));
    }
    if let Some(path) = &args.ids {
        let text = if path.as_os_str() == "-" {
            std::io::read_to_string(std::io::stdin())?
        } else {
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
        };
        let words = text.split_whitespace().filter(|word| !word.is_empty());
        let places = words.map(|id| place(id).map(|(partition, offset)| LetterPlace { partition, offset }));
        let places = places.collect::<Result<Vec<_>, _>>()?;
        if places.is_empty() {
            return Err(UsageError(format!("{} contains no letter", path.display())).into());
        }
        let selection = Selection::of_places(places, args.filter.parse()?);
        return Ok(selection.map_err(|error| UsageError(error.to_string()))?);
    }
    Ok(Selection::of_filter(for_action(&args.filter, args.all)?))
}

fn are(count: u64) -> String {
    format!("{} {}", thousands(count), if count == 1 { "is" } else { "are" })
}

fn nothing_to_do(NotPlanned { any, parked }: NotPlanned, filter: &Filter, opened: &Opened) {
    if any == 0 {
        tell!("no letter for `{filter}` in {}", opened.queue.topic);
        return;
    }
    let remedy = if parked > 0 { format!("; {} parked (--force includes them)", are(parked)) } else { String::new() };
    let whole = if any == 1 { "the letter".to_owned() } else { format!("none of the {} letters", thousands(any)) };
    let not = if any == 1 { " not" } else { "" };
    tell!("{whole} for `{filter}` is{not} open{remedy}");
}

fn print_preview(plan: &RedrivePlan, canary: u64, opened: &Opened) {
    let preview = &plan.preview;
    tell!("{} of {} would be sent:", counted(plan.letters.len() as u64, "dead letter"), opened.queue.topic);
    for (topic, count) in &preview.targets {
        tell!("  {:>9}  to {}", thousands(*count), OneLine(topic));
    }
    if preview.parked > 0 {
        tell!("  {:>9}  parked and skipped (--force includes them)", thousands(preview.parked));
    }
    for sample in &preview.samples {
        let class = sample.class.as_deref().unwrap_or("-");
        let message = cut(sample.message.as_deref().unwrap_or("-"), 80);
        tell!("  {}  {}  {}", sample.at, on_one_line(class), on_one_line(&message));
    }
    let speed = match preview.pace {
        None => "as fast as possible".to_owned(),
        Some((rate, all)) => format!("{rate:.0} a second, {} in all", format_duration(all)),
    };
    let canary = if canary > 0 { format!(", {canary} of them first") } else { String::new() };
    tell!("at {speed}{canary}");
}

/// Shows the effect of a program on some letters.
fn before_and_after(opened: &Opened, letters: &[LetterKey], transform: &Transform) -> anyhow::Result<()> {
    let mut fetcher = Fetcher::new(&opened.kafka)?;
    let mut decoder = opened.decoder()?;
    for letter in letters.iter().rev().take(SAMPLE) {
        let Some(content) = Content::fetch(&mut fetcher, &opened.queue.topic, *letter)? else { continue };
        tell!("--- {letter}");
        match changed(transform, &mut decoder, &content) {
            Ok(after) => {
                let named = named(&content.headers, PayloadPart::Value);
                let shown = |decoder: &mut Decoder, bytes| decode_by(decoder, bytes, named.as_ref(), usize::MAX).1;
                let (before, after) = (shown(&mut decoder, content.value.as_deref()), shown(&mut decoder, Some(&after)));
                output::tell_text(&diff(before.as_bytes(), after.as_bytes()));
            }
            Err(error) => tell!("  would be skipped: {error}"),
        }
    }
    Ok(())
}

//! `kladder dlq redrive`

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use serde_json::json;

use crate::cli::confirm::confirmed;
use crate::cli::dlq::decoded::decode_by;
use crate::cli::dlq::mark::{for_action, job_id};
use crate::cli::dlq::open::{Opened, QueueArgs, now};
use crate::cli::dlq::progress::Line;
use crate::cli::dlq::show::{fetch, place};
use crate::cli::dlq::table::thousands;
use crate::cli::dlq::{ActionArgs, FilterArg, Format, UsageError, export};
use crate::cli::exit::Exit;
use crate::cli::stdout;
use crate::cli::who::who;
use crate::core::dead_letter::{Job, JobStatus, LetterKey, LetterState, Terms, Verb};
use crate::core::delay::format_duration;
use crate::core::rate::Rate;
use crate::core::state::on_one_line;
use crate::dlq::content::Content;
use crate::dlq::desk::Desk;
use crate::dlq::filter::{Filter, GRAMMAR, LetterPlace, Term};
use crate::dlq::payload::Decoder;
use crate::dlq::redrive::{Change, Redrive, Standing, Target, left};
use crate::dlq::transform::Transform;
use crate::kafka::clock::Clock;
use crate::kafka::fetch::Fetcher;

/// How many letters a second are sent, unless said otherwise.
const DEFAULT_RATE: f64 = 100.0;

/// It ends when more than this share of those that have ended failed again, unless said otherwise.
const DEFAULT_STOP_AT: f64 = 0.5;

/// So many letters are shown before it is asked.
const SAMPLE: usize = 3;

/// Send dead letters back for another go
///
/// What will be sent is shown first: how many, to which topics, and some of them. Only what is open now and was shown is sent, each in
/// one transaction with the record that says so: one that is killed half-way loses none and doubles none, and `dlq jobs resume` takes it
/// up where it was left. Attempts begin anew.
///
/// The target is the ladder's redeliver topic, so that only the group sees them whose handler failed. With --to origin or --to TOPIC
/// every group that reads that topic does; only topics that the configuration names are targets.
///
/// With --canary 10 ten are sent first, and the rest when their verdicts are there, which only the redeliver topic gives. It ends by
/// itself when more than --stop-at of those whose end is known have failed again. Ctrl-C pauses it.
#[derive(Debug, Args)]
#[command(after_long_help = GRAMMAR)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub struct RedriveArgs {
    #[command(flatten)]
    filter: FilterArg,

    #[command(flatten)]
    queue: QueueArgs,

    /// All open letters, where no filter is given
    #[arg(long)]
    all: bool,

    /// Only the letters whose IDs this file has, one a line; - for stdin
    #[arg(long, value_name = "FILE", conflicts_with_all = ["all", "from_file"])]
    ids: Option<PathBuf>,

    /// The letters of a file that `dlq export` has written, as they stand there; - for stdin
    #[arg(long, value_name = "FILE", conflicts_with_all = ["all", "transform"])]
    from_file: Option<PathBuf>,

    /// Where to: redeliver (the default of a ladder), origin, or a topic that the configuration names
    #[arg(long, value_name = "TARGET")]
    to: Option<String>,

    /// How many: 100/s (the default), 30/m, or max
    #[arg(long, value_name = "RATE", value_parser = rate)]
    rate: Option<Speed>,

    /// The rate rises to it for so long, from a tenth
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "0s")]
    ramp: Duration,

    /// No more than so many
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    max: Option<u64>,

    /// So many first, whose verdicts are awaited
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    canary: u64,

    /// End when more than this share of those that ended has failed again; 1 never does
    #[arg(long, value_name = "SHARE", default_value_t = DEFAULT_STOP_AT, value_parser = share)]
    stop_at: f64,

    /// A jq program that each value goes through; `.` is the value, `$letter` what is known of the letter
    #[arg(long, value_name = "PROGRAM")]
    transform: Option<String>,

    /// Parked letters too, which were sent back too often already
    #[arg(long)]
    force: bool,

    /// Although somebody else redrives here: they end, and what they have not sent stays open
    #[arg(long)]
    take_over: bool,

    /// Only show what would be sent, and with --transform what it would be
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    action: ActionArgs,
}

/// How fast.
#[derive(Debug, Clone, Copy)]
enum Speed {
    Max,
    PerSecond(f64),
}

fn rate(text: &str) -> Result<Speed, String> {
    if text == "max" {
        return Ok(Speed::Max);
    }
    // `100` is a hundred a second.
    let text = if text.contains('/') { text.to_owned() } else { format!("{text}/s") };
    let rate: Rate = text.parse().map_err(|error| format!("{error}"))?;
    Ok(Speed::PerSecond(rate.per_second()))
}

fn share(text: &str) -> Result<f64, String> {
    text.parse::<f64>().ok().filter(|share| *share > 0.0 && *share <= 1.0).ok_or_else(|| "above 0, at most 1".to_owned())
}

pub fn run(args: RedriveArgs) -> anyhow::Result<Exit> {
    let opened = args.queue.find()?;
    let target = Target::of(&opened.queue, args.to.as_deref()).map_err(UsageError)?;
    if args.canary > 0 && !target.has_verdicts(&opened.queue) {
        let remedy = "leave it out, and try a few with --max 10 before you send the rest";
        return Err(UsageError(format!(
            "--canary waits for verdicts, and of what is sent to {} none is told: {remedy}",
            target.told()
        ))
        .into());
    }
    let transform =
        args.transform.as_deref().map(Transform::compile).transpose().map_err(|error| UsageError(error.to_string()))?;
    let (filter, brought) = chosen(&args, &opened)?;
    let who = who();
    let at = now();
    let id = job_id(&who, at);
    let mut desk = opened.write(&format!("{who} (job {id})"))?;
    desk.heed_lease(args.take_over)?;

    let below = desk.feed().letters_below()?;
    let mut job = Job::new(&id, Verb::Redrive, &opened.queue.prefix, &filter.to_string(), below, &who, at);
    job.note.clone_from(&args.action.note);
    job.target = Some(target.told());
    let rate = match args.rate {
        None => Some(DEFAULT_RATE),
        Some(Speed::PerSecond(rate)) => Some(rate),
        Some(Speed::Max) => None,
    };
    let ramp = u64::try_from(args.ramp.as_millis()).unwrap_or(u64::MAX);
    let (max, canary, stop_at, force) = (args.max, args.canary, args.stop_at, args.force);
    let (transform_text, is_brought) = (args.transform.clone(), brought.is_some());
    job.terms = Some(Terms { rate, ramp, max, canary, stop_at, force, transform: transform_text, brought: is_brought });

    let letters = match &brought {
        Some(brought) => brought.keys().copied().collect(),
        None => left(desk.index(), &job)?,
    };
    if letters.is_empty() {
        nothing_to_do(&desk, &filter, &opened)?;
        return Ok(Exit::Done);
    }
    preview(&desk, &args, &opened, &job, &letters, &target, is_brought)?;
    if let Some(transform) = &transform {
        before_and_after(&opened, &letters, transform)?;
    }
    if args.dry_run {
        return Ok(Exit::Done);
    }
    if !args.action.yes && !confirmed("send them?", "add --yes, or --dry-run to look only")? {
        return Ok(Exit::Usage);
    }
    let change = match (brought, transform) {
        (Some(brought), _) => Change::brought(brought),
        (None, Some(transform)) => change_by(transform, opened.decoder()?),
        (None, None) => Change::nothing(),
    };
    drive(&mut desk, &opened, job, target, change, args.take_over, args.action.output)
}

/// A program as a change of letters.
pub fn change_by(transform: Transform, mut decoder: Decoder) -> Change {
    Change::transform(move |content| {
        let after = transformed(&transform, &mut decoder, content)?;
        let changed = content.value.as_deref() != Some(after.as_slice());
        Ok((Some(after), changed.then(|| format!("jq: {}", transform.program()))))
    })
}

/// What a program makes of a value; one that names a schema is changed as JSON, and encoded again under the same schema.
fn transformed(transform: &Transform, decoder: &mut Decoder, content: &Content) -> Result<Vec<u8>, String> {
    let value = content.value.as_deref();
    let apply = |value: Option<&[u8]>| transform.apply(value, &known(content)).map_err(|error| error.to_string());
    let decoded = decoder.decode(value);
    let (Some(_), Some(json)) = (&decoded.schema, &decoded.json) else { return apply(value) };
    let after = apply(Some(json.to_string().as_bytes()))?;
    let after = serde_json::from_slice(&after).map_err(|error| error.to_string())?;
    decoder.encode(&decoded, &after).map_err(|error| error.to_string())
}

/// What a program is told of a letter.
fn known(content: &Content) -> serde_json::Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers: serde_json::Map<String, serde_json::Value> =
        content.headers.iter().map(|(name, value)| (text(name), json!(value.as_deref().map(text)))).collect();
    json!({ "key": content.key.as_deref().map(text), "timestamp_ms": content.appended.as_millis(), "headers": headers })
}

/// Which letters were asked for, and those that a file brings along.
fn chosen(args: &RedriveArgs, opened: &Opened) -> anyhow::Result<(Filter, Option<BTreeMap<LetterKey, Content>>)> {
    if let Some(path) = &args.from_file {
        if !matches!(args.filter.parse()?, Filter::All) {
            return Err(UsageError("--from-file sends all letters of the file: leave the filter out".to_owned()).into());
        }
        let letters = export::read(path, &opened.queue.topic)?;
        let places = letters.keys().map(|letter| LetterPlace { partition: letter.partition, offset: letter.offset }).collect();
        return Ok((short(Filter::Term(Term::Id(places)), letters.len()), Some(letters)));
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
            return Err(UsageError(format!("{} holds no letter", path.display())).into());
        }
        if places.len() > MOST_IDS {
            let many = format!("{} letters are more than {MOST_IDS} at once: give a filter, or several files", places.len());
            return Err(UsageError(many).into());
        }
        return Ok((args.filter.parse()?.and(Filter::Term(Term::Id(places))), None));
    }
    Ok((for_action(&args.filter, args.all)?, None))
}

/// A job is one record, and its filter stands in it.
const MOST_IDS: usize = 20_000;

/// What a file has brought is not looked up by its filter, which is only told.
fn short(filter: Filter, count: usize) -> Filter {
    if count <= 100 {
        filter
    } else {
        Filter::Term(Term::Text(vec![format!("{count}"), "letters".to_owned(), "file".to_owned()]))
    }
}

fn nothing_to_do(desk: &Desk, filter: &Filter, opened: &Opened) -> anyhow::Result<()> {
    let any = desk.index().count(filter, now())?;
    if any == 0 {
        eprintln!("there is no letter for `{filter}` in {}", opened.queue.topic);
    } else {
        let parked = filter.clone().and_in(&[LetterState::Parked]);
        let parked = desk.index().count(&parked, now())?;
        let remedy =
            if parked > 0 { format!("; {} are parked, which --force sends too", thousands(parked)) } else { String::new() };
        eprintln!("none of the {} letters for `{filter}` is open{remedy}", thousands(any));
    }
    Ok(())
}

fn preview(
    desk: &Desk,
    args: &RedriveArgs,
    opened: &Opened,
    job: &Job,
    letters: &[LetterKey],
    target: &Target,
    brought: bool,
) -> anyhow::Result<()> {
    let mut targets: BTreeMap<String, u64> = BTreeMap::new();
    let mut parked = 0_u64;
    let index = desk.index();
    // One look at the groups tells the origins of all of them.
    let filter = Filter::parse(&job.filter).map_err(|error| UsageError(error.to_string()))?;
    if brought || letters.len() <= SAMPLE {
        for letter in letters {
            let row = index.letter(letter.partition, letter.offset)?;
            let origin = row.as_ref().and_then(|row| row.origin_topic.as_deref());
            *targets.entry(target.topic_for(origin).unwrap_or("(unknown origin)").to_owned()).or_default() += 1;
        }
    } else {
        let open = filter.clone().and_in(LetterState::may_be_sent(args.force));
        for group in index.groups(&open, crate::core::time::Timestamp::from_millis(job.at), None)? {
            for (origin, count) in group.origins {
                let origin = Some(origin.as_str()).filter(|origin| !origin.is_empty());
                *targets.entry(target.topic_for(origin).unwrap_or("(unknown origin)").to_owned()).or_default() += count;
            }
        }
        let all_parked = filter.and_in(&[LetterState::Parked]);
        parked = if args.force { 0 } else { index.count(&all_parked, now())? };
    }
    eprintln!("{} dead letters of {} would be sent:", thousands(letters.len() as u64), opened.queue.topic);
    for (topic, count) in &targets {
        eprintln!("  {:>9}  to {topic}", thousands(*count));
    }
    if parked > 0 {
        eprintln!("  {:>9}  are parked and left alone (--force)", thousands(parked));
    }
    for letter in letters.iter().rev().take(SAMPLE) {
        if let Some(row) = index.letter(letter.partition, letter.offset)? {
            let class = row.class.as_deref().unwrap_or("-");
            let message = super::table::cut(row.message.as_deref().unwrap_or("-"), 80);
            eprintln!("  {}  {}  {}", row.at, on_one_line(class), on_one_line(&message));
        }
    }
    let terms = job.terms.as_ref();
    let speed = match terms.and_then(|terms| terms.rate) {
        None => "as fast as it goes".to_owned(),
        Some(rate) => {
            #[expect(clippy::cast_precision_loss, reason = "a time for people")]
            let seconds = (letters.len() as f64 / rate.max(0.001)).ceil().min(1e9);
            format!("{rate:.0} a second, {} in all", format_duration(Duration::from_secs_f64(seconds)))
        }
    };
    let canary = if args.canary > 0 { format!(", {} of them first", args.canary) } else { String::new() };
    eprintln!("at {speed}{canary}");
    Ok(())
}

/// Shows what a program makes of some letters.
fn before_and_after(opened: &Opened, letters: &[LetterKey], transform: &Transform) -> anyhow::Result<()> {
    let mut fetcher = Fetcher::new(&opened.kafka)?;
    let mut decoder = opened.decoder()?;
    for letter in letters.iter().rev().take(SAMPLE) {
        let Some(content) = fetch(&mut fetcher, &opened.queue.topic, *letter)? else { continue };
        eprintln!("--- {letter}");
        match transformed(transform, &mut decoder, &content) {
            Ok(after) => {
                let shown = |decoder: &mut Decoder, bytes| decode_by(decoder, bytes, usize::MAX).1;
                let (before, after) = (shown(&mut decoder, content.value.as_deref()), shown(&mut decoder, Some(&after)));
                eprint!("{}", super::edit::diff(before.as_bytes(), after.as_bytes()));
            }
            Err(error) => eprintln!("  would be passed over: {error}"),
        }
    }
    Ok(())
}

/// Runs a job to its end, and tells of it.
pub fn drive(
    desk: &mut Desk,
    opened: &Opened,
    job: Job,
    target: Target,
    change: Change,
    take_over: bool,
    output: Format,
) -> anyhow::Result<Exit> {
    let stopped = stop_on_signal()?;
    let is_stopped = || stopped.load(Ordering::Acquire);
    eprintln!("job {}: kladder dlq jobs pause|resume|cancel {}", job.id, job.id);
    let clock = Clock::system();
    let (begun, before) = (clock.now(), job.done);
    let mut line = Line::new();
    let redrive = Redrive::new(desk, &opened.kafka, job, target, change, &is_stopped)?;
    let standing = redrive.run(take_over, |standing| line.tell(&told(standing, before, clock.now().since(begun))))?;
    line.end();
    let job = &standing.job;
    for (why, count) in &standing.passed_over {
        eprintln!("  {:>9}  passed over: {}", thousands(*count), on_one_line(why));
    }
    match output {
        Format::Text => {
            let why = job.why.as_deref().map(|why| format!(": {}", on_one_line(why))).unwrap_or_default();
            let left = job.total.saturating_sub(job.done + job.skipped);
            let left = if left > 0 { format!(", {} untouched", thousands(left)) } else { String::new() };
            eprintln!(
                "job {} is {}{why}: {} sent, {} passed over{left}",
                job.id,
                job.status.as_str(),
                thousands(job.done),
                thousands(job.skipped)
            );
            if job.status == JobStatus::Paused {
                eprintln!("to go on: kladder dlq jobs resume {}", job.id);
            } else if job.done > 0 {
                eprintln!("what became of them: kladder dlq groups job:{} state:redriven,succeeded,failed-again", job.id);
            }
        }
        Format::Json | Format::Jsonl => {
            let (succeeded, failed_again) = (standing.succeeded, standing.failed_again);
            let document =
                json!({ "job": job, "succeeded": succeeded, "failed_again": failed_again, "passed_over": standing.passed_over });
            stdout::print(&format!("{document}\n"))?;
        }
    }
    Ok(match job.status {
        // Somebody was quicker, or the target does not take it.
        JobStatus::Done if job.verb == Verb::Edit && job.done == 0 => Exit::Failed,
        JobStatus::Done => Exit::Done,
        // What was asked for is not done.
        _ if job.why.as_deref().is_some_and(|why| why.starts_with("--max")) => Exit::Done,
        _ => Exit::Failed,
    })
}

fn told(standing: &Standing, before: u64, since: Duration) -> String {
    let job = &standing.job;
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = (job.done - before.min(job.done)) as f64 / since.as_secs_f64().max(0.001);
    let share = ((job.done + job.skipped) * 100).checked_div(job.total).unwrap_or(100).min(100);
    let width = usize::try_from(share / 5).unwrap_or(0);
    let mut text = format!(
        "[{}{}] {share} %  {} of {}  {rate:.0}/s",
        "█".repeat(width),
        "·".repeat(20 - width),
        thousands(job.done),
        thousands(job.total)
    );
    let left = job.total.saturating_sub(job.done + job.skipped);
    if rate > 0.5 && left > 0 && job.status == JobStatus::Running {
        #[expect(clippy::cast_precision_loss, reason = "a time for people")]
        let seconds = (left as f64 / rate).min(1e9);
        let _ = write!(text, "  {} left", format_duration(Duration::from_secs_f64(seconds.ceil())));
    }
    if standing.succeeded + standing.failed_again > 0 {
        let (succeeded, failed) = (thousands(standing.succeeded), thousands(standing.failed_again));
        let _ = write!(text, "  {succeeded} done, {failed} failed again");
    }
    match job.status {
        JobStatus::Paused => text.push_str("  paused"),
        JobStatus::Canary => text.push_str("  waiting for the verdicts of the first ones"),
        _ => {}
    }
    text
}

/// The first signal pauses the job, the second ends the process: what is open then is aborted.
fn stop_on_signal() -> anyhow::Result<Arc<AtomicBool>> {
    use tokio::signal::unix::{SignalKind, signal};
    let stopped = Arc::new(AtomicBool::new(false));
    let on_signal = stopped.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut term, mut int) = {
        let _inside = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    let listen = move || {
        runtime.block_on(async move {
            for second in [false, true] {
                tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
                if second {
                    std::process::exit(1);
                }
                on_signal.store(true, Ordering::Release);
            }
        });
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(listen)
        .map_err(|error| anyhow!("starting a thread: {error}"))?;
    Ok(stopped)
}

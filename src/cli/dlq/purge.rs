//! `kladder dlq purge`

use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::cli::confirm::confirmed;
use crate::cli::dlq::mark::job_id;
use crate::cli::dlq::open::{QueueArgs, now};
use crate::cli::dlq::show::place;
use crate::cli::dlq::table::thousands;
use crate::cli::dlq::{ActionArgs, Format, UsageError};
use crate::cli::exit::Exit;
use crate::cli::stdout;
use crate::cli::who::who;
use crate::core::dead_letter::{Job, JobStatus, LetterState, Verb};
use crate::dlq::filter::{Compare, Filter, NumberField, Term};

/// Delete dead letters from the topic for good, the oldest of each partition
///
/// Kafka deletes nothing but the beginning of a partition: everything below an offset, or everything that is older than some time and
/// has nothing younger before it. It is shown first what would go. Open letters are deleted only with --force.
#[derive(Debug, Args)]
pub struct PurgeArgs {
    #[command(flatten)]
    queue: QueueArgs,

    /// Everything that is older than this: 30d
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, required_unless_present = "before")]
    older_than: Option<Duration>,

    /// Everything below this place: PARTITION/OFFSET; may be repeated
    #[arg(long, value_name = "ID", conflicts_with = "older_than")]
    before: Vec<String>,

    /// Open letters too
    #[arg(long)]
    force: bool,

    /// Only show what would go
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    action: ActionArgs,
}

pub fn run(args: PurgeArgs) -> anyhow::Result<Exit> {
    let who = who();
    let opened = args.queue.find()?;
    let mut desk = opened.write(&who)?;
    let at = now();
    let lows = desk.feed().lows().to_vec();
    let ends = desk.feed().letters_below()?;
    let mut below: Vec<(i32, i64)> = Vec::new();
    if let Some(age) = args.older_than {
        let then = at - age;
        for (partition, end) in &ends {
            // Up to the first that is young enough: the index has all of them.
            let young = Filter::Term(Term::Number(NumberField::Partition, Compare::Equal, i64::from(*partition)))
                .and(Filter::Term(Term::Since(then)));
            let first = desk.index().select(&young, &ends, at)?.first().map(|letter| letter.offset);
            below.push((*partition, first.unwrap_or(*end)));
        }
    }
    for text in &args.before {
        let (partition, offset) = place(text)?;
        let Some((_, end)) = ends.iter().find(|(p, _)| *p == partition) else {
            return Err(UsageError(format!("{} has no partition {partition}", opened.queue.topic)).into());
        };
        if offset > *end {
            return Err(UsageError(format!("{text} lies beyond the end of its partition, {partition}/{end}")).into());
        }
        below.push((partition, offset));
    }
    let low = |partition: i32| usize::try_from(partition).ok().and_then(|p| lows.get(p)).copied().unwrap_or(0);
    below.retain(|(partition, offset)| *offset > low(*partition));
    let letters = desk.index().select(&Filter::All, &below, at)?.len() as u64;
    let open = Filter::All.and_in(&LetterState::UNDONE);
    let open = desk.index().select(&open, &below, at)?.len() as u64;
    if letters == 0 {
        eprintln!("nothing in {} is that old: nothing is deleted", opened.queue.topic);
        return Ok(Exit::Done);
    }
    for (partition, offset) in &below {
        eprintln!("  partition {partition}: offsets {} to {}", low(*partition), offset - 1);
    }
    eprintln!(
        "{} dead letters of {} would be deleted for good, {} of them open",
        thousands(letters),
        opened.queue.topic,
        thousands(open)
    );
    if args.dry_run {
        return Ok(Exit::Done);
    }
    if open > 0 && !args.force {
        let remedy = "redrive, resolve or discard them first, or add --force";
        return Err(UsageError(format!("{} open letters are among them: {remedy}", thousands(open))).into());
    }
    if !args.action.yes && !confirmed("delete them?", "add --yes")? {
        return Ok(Exit::Usage);
    }
    let which = below.iter().map(|(partition, offset)| format!("below {partition}/{offset}")).collect::<Vec<_>>().join(", ");
    let mut job = Job::new(&job_id(&who, at), Verb::Purge, &opened.queue.prefix, &which, below.clone(), &who, at);
    (job.note, job.total) = (args.action.note.clone(), letters);
    // That it was asked for is written before, and that it is done after: what is gone is gone.
    let job = desk.note(job, |_| {})?;
    desk.feed().cluster().delete_below(&opened.queue.topic, &below)?;
    let job = desk.note(job, |job| (job.status, job.done) = (JobStatus::Done, letters))?;
    match args.action.output {
        Format::Text => eprintln!("{} dead letters are deleted (job {})", thousands(letters), job.id),
        Format::Json | Format::Jsonl => stdout::print(&format!("{}\n", json!({ "job": job })))?,
    }
    Ok(Exit::Done)
}

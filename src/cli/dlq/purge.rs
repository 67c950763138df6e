//! `kladder dlq purge`

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use serde_json::json;

use crate::cli::confirm::confirmed;
use crate::cli::dlq::mark::job_id;
use crate::cli::dlq::open::{QueueArgs, now};
use crate::cli::dlq::show::place;
use crate::cli::dlq::table::{counted, thousands};
use crate::cli::dlq::{ActionArgs, OutputFormat, UsageError};
use crate::cli::exit::Exit;
use crate::cli::output::{self, tell};
use crate::cli::who::who;
use crate::core::dead_letter::{Job, JobStatus, LetterState, Verb};
use crate::dlq::desk::Desk;
use crate::dlq::filter::{Compare, Filter, NumberField, Term};

/// Delete the oldest dead letters of each partition from the topic for good
///
/// Kafka can only delete the beginning of a partition: everything below an offset, or everything older than some time up to the first
/// younger record. A preview is shown first. Open letters are deleted only with --force.
#[derive(Debug, Args)]
pub struct PurgeArgs {
    #[command(flatten)]
    queue: QueueArgs,

    /// Delete everything older than this: 30d
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, required_unless_present = "before")]
    older_than: Option<Duration>,

    /// Delete everything below PARTITION/OFFSET; may be repeated
    #[arg(long, value_name = "ID", conflicts_with = "older_than")]
    before: Vec<String>,

    /// Delete open letters too
    #[arg(long)]
    force: bool,

    /// Only show what would be deleted
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
            // Up to the first one that is too young; the index has all of them.
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
            return Err(UsageError(format!("{text} is beyond the end of its partition, {partition}/{end}")).into());
        }
        below.push((partition, offset));
    }
    let low = |partition: i32| usize::try_from(partition).ok().and_then(|p| lows.get(p)).copied().unwrap_or(0);
    below.retain(|(partition, offset)| *offset > low(*partition));
    let letters = desk.index().select(&Filter::All, &below, at)?.len() as u64;
    let open = Filter::All.and_in(&LetterState::UNDONE);
    let open = desk.index().select(&open, &below, at)?.len() as u64;
    if letters == 0 {
        tell!("nothing in {} is that old: nothing is deleted", opened.queue.topic);
        return Ok(Exit::Done);
    }
    // Nothing is below the first offsets, so this request deletes nothing, but shows whether deletion is permitted.
    let nothing: Vec<(i32, i64)> = below.iter().map(|(partition, _)| (*partition, low(*partition))).collect();
    let cluster = desk.feed().cluster();
    if let Some((partition, why)) = cluster.delete_below(&opened.queue.topic, &nothing)?.into_iter().next() {
        bail!("nothing can be deleted from {}[{partition}]: {why}", opened.queue.topic);
    }
    for (partition, offset) in &below {
        tell!("  partition {partition}: offsets {} to {}", low(*partition), offset - 1);
    }
    tell!(
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
        return Err(UsageError(format!(
            "{} {} among them: {remedy}",
            counted(open, "open letter"),
            if open == 1 { "is" } else { "are" }
        ))
        .into());
    }
    if !args.action.yes && !confirmed("delete them?", "add --yes")? {
        return Ok(Exit::Usage);
    }
    let which = below.iter().map(|(partition, offset)| format!("below {partition}/{offset}")).collect::<Vec<_>>().join(", ");
    let mut job = Job::new(&job_id(&who, at), Verb::Purge, &opened.queue.prefix, &which, below.clone(), &who, at);
    (job.note, job.total) = (args.action.note.clone(), letters);
    // The job is recorded before deletion, and its result afterwards: deletion cannot be undone.
    let job = desk.note(job, |_| {})?;
    let by_partition = |desk: &Desk, partition: i32| -> anyhow::Result<u64> {
        let one: Vec<(i32, i64)> = below.iter().filter(|(p, _)| *p == partition).copied().collect();
        Ok(desk.index().select(&Filter::All, &one, at)?.len() as u64)
    };
    let (left, why) = match desk.feed().cluster().delete_below(&opened.queue.topic, &below) {
        Ok(failed) => {
            let left = failed
                .iter()
                .try_fold(0, |left, (partition, _)| Ok::<_, anyhow::Error>(left + by_partition(&desk, *partition)?))?;
            let whys: Vec<String> = failed.iter().map(|(partition, why)| format!("partition {partition}: {why}")).collect();
            (left, (!whys.is_empty()).then(|| whys.join("; ")))
        }
        Err(error) => (letters, Some(format!("{error}; it is unknown how many were deleted"))),
    };
    let status = if why.is_some() { JobStatus::Failed } else { JobStatus::Done };
    let job = desk.note(job, |job| (job.status, job.done, job.why) = (status, letters - left, why.clone()))?;
    if let Some(why) = why {
        bail!("{} of {} dead letters were not deleted (job {}): {why}", thousands(left), thousands(letters), job.id);
    }
    match args.action.output {
        OutputFormat::Text => {
            let are = if letters == 1 { "is" } else { "are" };
            tell!("{} {are} deleted (job {})", counted(letters, "dead letter"), job.id);
        }
        OutputFormat::Json | OutputFormat::Jsonl => output::print_json_lines([json!({ "job": job })])?,
    }
    Ok(Exit::Done)
}

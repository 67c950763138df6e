//! `kladder dlq jobs`

use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::json;

use crate::cli::dlq::open::{QueueArgs, now};
use crate::cli::dlq::redrive::{change_by, drive};
use crate::cli::dlq::table::{Table, ago, or_dash, thousands};
use crate::cli::dlq::{Format, lines, pager};
use crate::cli::exit::Exit;
use crate::cli::stdout;
use crate::cli::who::who;
use crate::core::dead_letter::{Asked, Job, JobStatus, Verb, Wish, to_value};
use crate::core::time::Timestamp;
use crate::dlq::redrive::{Change, Target};
use crate::dlq::transform::Transform;

/// Show redrives and what else was begun, and pause, resume or cancel them
///
/// What is asked of a job is obeyed by whoever runs it, wherever they are, within a second. A job whose process has died is taken up by
/// resume, here, where it was left: what was sent stays sent, what was not is still open.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct JobsArgs {
    #[command(subcommand)]
    verb: Option<JobsVerb>,

    #[command(flatten)]
    queue: QueueArgs,

    /// How it is printed
    #[arg(short, long, value_enum, default_value = "text", value_name = "FORMAT")]
    output: Format,
}

#[derive(Debug, Subcommand)]
enum JobsVerb {
    /// Let a redrive wait
    Pause(JobArgs),
    /// Let a redrive go on, or take up one whose process has died
    Resume(JobArgs),
    /// End a redrive: what it has not sent stays open
    Cancel(JobArgs),
}

/// Which job.
#[derive(Debug, Args)]
struct JobArgs {
    /// Its name
    #[arg(value_name = "JOB")]
    id: String,

    #[command(flatten)]
    queue: QueueArgs,

    /// Whoever runs it was just heard, and is dead for certain: resume takes it up at once
    #[arg(long)]
    take_over: bool,
}

pub fn run(args: JobsArgs) -> anyhow::Result<Exit> {
    match args.verb {
        None => list(&args),
        Some(JobsVerb::Pause(job)) => ask(&job, Asked::Pause),
        Some(JobsVerb::Resume(job)) => ask(&job, Asked::Resume),
        Some(JobsVerb::Cancel(job)) => ask(&job, Asked::Cancel),
    }
}

fn list(args: &JobsArgs) -> anyhow::Result<Exit> {
    let opened = args.queue.find()?;
    let feed = opened.read()?;
    let mut jobs = feed.index().jobs()?;
    jobs.retain(|job| job.queue == opened.queue.prefix && matches!(job.verb, Verb::Redrive | Verb::Edit));
    let now = now();
    match args.output {
        Format::Text => {
            let mut table = Table::new(&["JOB", "AGE", "STATUS", "SENT", "OF", "PASSED", "TO", "BY", "WHICH", "WHY"], &[3, 4, 5]);
            for job in &jobs {
                let status = if job.is_left(now) && job.status != JobStatus::Paused { "left" } else { job.status.as_str() };
                table.row(vec![
                    job.id.clone(),
                    ago(Timestamp::from_millis(job.at), now),
                    status.to_owned(),
                    thousands(job.done),
                    thousands(job.total),
                    thousands(job.skipped),
                    or_dash(job.target.as_deref()),
                    job.by.clone(),
                    or_dash(Some(&job.filter)),
                    or_dash(job.why.as_deref().or(job.note.as_deref())),
                ]);
            }
            pager::print(&table.to_text())?;
            if jobs.iter().any(|job| job.is_left(now)) {
                eprintln!("left: its process has ended; kladder dlq jobs resume JOB takes it up");
            }
        }
        Format::Json => stdout::print(&format!("{}\n", serde_json::to_string_pretty(&json!({ "jobs": jobs }))?))?,
        Format::Jsonl => stdout::print(&lines(jobs.iter().map(|job| json!(job))))?,
    }
    Ok(Exit::Done)
}

fn ask(args: &JobArgs, asked: Asked) -> anyhow::Result<Exit> {
    let opened = args.queue.find()?;
    let feed = opened.read()?;
    let Some(job) = feed.index().job(&args.id)?.filter(|job| job.queue == opened.queue.prefix) else {
        bail!("there is no job {} of {}: `kladder dlq jobs` shows those that there are", args.id, opened.queue.name);
    };
    if job.status.is_over() {
        bail!("job {} is {} already", job.id, job.status.as_str());
    }
    let (who, now) = (who(), now());
    if job.is_left(now) || args.take_over {
        drop(feed);
        return match asked {
            Asked::Pause => bail!("job {} is left already: its process has ended, and nothing is sent", job.id),
            Asked::Cancel => cancel_left(&opened, job, &who),
            Asked::Resume => take_up(&opened, job, &who, args.take_over),
        };
    }
    let Some(state) = &opened.queue.state_topic else { bail!("{} can only be looked at", opened.queue.topic) };
    feed.cluster().write_state(state, &Wish::key_of(&job.id), &to_value(&Wish::new(asked, &who, now)))?;
    let told = match asked {
        Asked::Pause => "pause",
        Asked::Resume => "go on",
        Asked::Cancel => "end",
    };
    eprintln!(
        "job {} was told to {told}: {} was heard a moment ago; should its process have ended since, nothing follows, and after 15 s \
         the same command does it",
        job.id, job.by
    );
    Ok(Exit::Done)
}

fn cancel_left(opened: &super::open::Opened, job: Job, who: &str) -> anyhow::Result<Exit> {
    let why = format!("by {who}");
    let job = opened.write(who)?.note(job, |job| (job.status, job.why) = (JobStatus::Cancelled, Some(why.clone())))?;
    eprintln!("job {} is cancelled: {} of {} were sent, the rest stays open", job.id, thousands(job.done), thousands(job.total));
    Ok(Exit::Done)
}

fn take_up(opened: &super::open::Opened, mut job: Job, who: &str, take_over: bool) -> anyhow::Result<Exit> {
    let transform = job.terms.as_ref().and_then(|terms| terms.transform.as_deref()).map(Transform::compile).transpose()?;
    // What a file or an editor brought along is not here.
    if job.verb == Verb::Edit || job.terms.as_ref().is_some_and(|terms| terms.brought) {
        bail!("job {} was of a file or an edit: give it once more, and what was sent already is passed over", job.id);
    }
    let target = Target::of(&opened.queue, job.target.as_deref()).map_err(super::UsageError)?;
    let change = match transform {
        Some(transform) => change_by(transform, opened.decoder()?),
        None => Change::nothing(),
    };
    let mut desk = opened.write(&format!("{who} (job {})", job.id))?;
    job.status = JobStatus::Running;
    eprintln!("taking up job {} of {}: {} of {} were sent", job.id, job.by, thousands(job.done), thousands(job.total));
    drive(&mut desk, opened, job, target, change, take_over, Format::Text)
}

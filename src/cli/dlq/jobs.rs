//! `kladder dlq jobs`

use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::json;

use crate::cli::dlq::drive::drive;
use crate::cli::dlq::open::{QueueArgs, now};
use crate::cli::dlq::table::{Table, ago, or_dash, thousands};
use crate::cli::dlq::{OutputFormat, pager};
use crate::cli::exit::Exit;
use crate::cli::output::{self, tell};
use crate::cli::who::who;
use crate::core::dead_letter::{Asked, Job, JobStatus, Verb, Wish, to_value};
use crate::core::time::Timestamp;
use crate::dlq::redrive::{LetterChange, Target};
use crate::dlq::transform::Transform;

/// Show redrives and purges, and pause, resume or cancel redrives
///
/// The process that runs a job obeys within a second, wherever it runs. If that process has died, resume continues the job here:
/// letters already sent stay sent, the others are still open.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct JobsArgs {
    #[command(subcommand)]
    verb: Option<JobsVerb>,

    #[command(flatten)]
    queue: QueueArgs,

    /// Output format
    #[arg(short, long, value_enum, default_value = "text", value_name = "FORMAT")]
    output: OutputFormat,
}

#[derive(Debug, Subcommand)]
enum JobsVerb {
    /// Pause a redrive
    Pause(JobArgs),
    /// Resume a paused redrive, or one whose process has died
    Resume(JobArgs),
    /// End a redrive: letters not sent stay open
    Cancel(JobArgs),
}

/// The job.
#[derive(Debug, Args)]
struct JobArgs {
    /// Name of the job
    #[arg(value_name = "JOB")]
    id: String,

    #[command(flatten)]
    queue: QueueArgs,

    /// Resume at once although its process was active a moment ago, because it has certainly died
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
    jobs.retain(|job| job.queue == opened.queue.prefix && (can_go_on(job) || job.verb == Verb::Purge));
    let now = now();
    match args.output {
        OutputFormat::Text => {
            let mut table = Table::new(&["JOB", "AGE", "STATUS", "DONE", "OF", "PASSED", "TO", "BY", "WHICH", "WHY"], &[3, 4, 5]);
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
            if jobs.iter().any(|job| can_go_on(job) && job.is_left(now)) {
                tell!("left: its process has ended; continue with kladder dlq jobs resume JOB");
            }
        }
        OutputFormat::Json => output::print_json(&json!({ "jobs": jobs }))?,
        OutputFormat::Jsonl => output::print_json_lines(jobs.iter().map(|job| json!(job)))?,
    }
    Ok(Exit::Done)
}

/// Whether it can be paused, resumed and cancelled; other actions are short, and never resumed.
fn can_go_on(job: &Job) -> bool {
    matches!(job.verb, Verb::Redrive | Verb::Edit)
}

fn ask(args: &JobArgs, asked: Asked) -> anyhow::Result<Exit> {
    let opened = args.queue.find()?;
    let feed = opened.read()?;
    let Some(job) = feed.index().job(&args.id)?.filter(|job| job.queue == opened.queue.prefix) else {
        bail!("no job {} of {}: `kladder dlq jobs` lists the jobs", args.id, opened.queue.name);
    };
    if !can_go_on(&job) {
        bail!("job {} is a {}: only redrives can be paused, resumed or cancelled", job.id, job.verb.as_str());
    }
    if job.status.is_over() {
        bail!("job {} is already {}", job.id, job.status.as_str());
    }
    let (who, now) = (who(), now());
    if job.is_left(now) || args.take_over {
        drop(feed);
        return match asked {
            Asked::Pause => bail!("job {} is already stopped: its process has ended, and nothing is sent", job.id),
            Asked::Cancel => cancel_left(&opened, job, &who),
            Asked::Resume => take_up(&opened, job, &who, args.take_over),
        };
    }
    let Some(state) = &opened.queue.state_topic else { bail!("{} is read-only here", opened.queue.topic) };
    feed.cluster().write_state(state, &Wish::key_of(&job.id), &to_value(&Wish::new(asked, &who, now)))?;
    let told = match asked {
        Asked::Pause => "pause",
        Asked::Resume => "resume",
        Asked::Cancel => "end",
    };
    tell!(
        "job {}: {told} requested; {} was active a moment ago; if its process has ended since, nothing happens: repeat the \
         command after 15 s",
        job.id,
        job.by
    );
    Ok(Exit::Done)
}

fn cancel_left(opened: &super::open::Opened, job: Job, who: &str) -> anyhow::Result<Exit> {
    let why = format!("by {who}");
    let job = opened.write(who)?.note(job, |job| (job.status, job.why) = (JobStatus::Cancelled, Some(why.clone())))?;
    tell!("job {} is cancelled: {} of {} were sent, the others stay open", job.id, thousands(job.done), thousands(job.total));
    Ok(Exit::Done)
}

fn take_up(opened: &super::open::Opened, mut job: Job, who: &str, take_over: bool) -> anyhow::Result<Exit> {
    let transform = job.terms.as_ref().and_then(|terms| terms.transform.as_deref()).map(Transform::compile).transpose()?;
    // The content of a file or an edit is not stored in the job.
    if job.verb == Verb::Edit || job.terms.as_ref().is_some_and(|terms| terms.brought) {
        bail!("job {} was of a file or an edit: run that command again; letters already sent are skipped", job.id);
    }
    let target = Target::of(&opened.queue, job.target.as_deref()).map_err(super::UsageError)?;
    let change = match transform {
        Some(transform) => LetterChange::by_program(transform, opened.decoder()?),
        None => LetterChange::nothing(),
    };
    let mut desk = opened.write(&format!("{who} (job {})", job.id))?;
    job.status = JobStatus::Running;
    tell!("continuing job {} of {}: {} of {} were sent", job.id, job.by, thousands(job.done), thousands(job.total));
    drive(&mut desk, opened, job, target, change, take_over, OutputFormat::Text)
}

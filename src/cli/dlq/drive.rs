//! Runs a redrive with a progress line, and reports its end.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::anyhow;
use serde_json::json;

use crate::cli::dlq::OutputFormat;
use crate::cli::dlq::open::Opened;
use crate::cli::dlq::progress::Line;
use crate::cli::dlq::table::thousands;
use crate::cli::exit::Exit;
use crate::cli::output::{self, tell};
use crate::core::dead_letter::{Job, JobStatus, LetterKey, Verb};
use crate::core::delay::format_duration;
use crate::core::harmless::on_one_line;
use crate::dlq::desk::Desk;
use crate::dlq::redrive::{LetterChange, Redrive, RedriveProgress, Target};
use crate::kafka::clock::Clock;

/// Runs a job to its end, with progress.
pub fn drive(
    desk: &mut Desk,
    opened: &Opened,
    job: Job,
    target: Target,
    change: LetterChange,
    take_over: bool,
    output: OutputFormat,
) -> anyhow::Result<Exit> {
    let stopped = stop_on_signal()?;
    let is_stopped = || stopped.load(Ordering::Acquire);
    tell!("job {}: kladder dlq jobs pause|resume|cancel {}", job.id, job.id);
    let clock = Clock::system();
    let (begun, before) = (clock.now(), job.done);
    let mut line = Line::new();
    let redrive = Redrive::new(desk, &opened.kafka, job, target, change, &is_stopped)?;
    let standing = redrive.run(take_over, |standing| line.tell(&progress_text(standing, before, clock.now().since(begun))))?;
    line.end();
    let job = &standing.job;
    for (why, letters) in &standing.passed_over {
        tell!("  {:>9}  skipped: {}: {}", thousands(letters.len() as u64), on_one_line(why), names_of(letters));
    }
    if standing.changed > 0 {
        tell!("  {:>9}  changed by another user meanwhile", thousands(standing.changed));
    }
    match output {
        OutputFormat::Text => {
            let why = job.why.as_deref().map(|why| format!(": {}", on_one_line(why))).unwrap_or_default();
            let left = job.total.saturating_sub(job.done + job.skipped);
            let left = if left > 0 { format!(", {} untouched", thousands(left)) } else { String::new() };
            tell!(
                "job {} is {}{why}: {} sent, {} skipped{left}",
                job.id,
                job.status.as_str(),
                thousands(job.done),
                thousands(job.skipped)
            );
            if job.status == JobStatus::Paused {
                tell!("to continue: kladder dlq jobs resume {}", job.id);
            } else if job.done > 0 {
                tell!("to see their outcome: kladder dlq groups job:{} state:redriven,succeeded,failed-again", job.id);
            }
        }
        OutputFormat::Json | OutputFormat::Jsonl => {
            let (succeeded, failed_again) = (standing.succeeded, standing.failed_again);
            let names = |letters: &Vec<LetterKey>| letters.iter().map(ToString::to_string).collect::<Vec<_>>();
            let passed_over: BTreeMap<_, _> = standing.passed_over.iter().map(|(why, letters)| (why, names(letters))).collect();
            let document = json!({
                "job": job,
                "succeeded": succeeded,
                "failed_again": failed_again,
                "passed_over": passed_over,
                "changed": standing.changed,
            });
            output::print_json_lines([document])?;
        }
    }
    Ok(match job.status {
        // Another user was quicker, or the target refuses the record.
        JobStatus::Done if job.verb == Verb::Edit && job.done == 0 => Exit::Failed,
        JobStatus::Done | JobStatus::Stopped if !standing.passed_over.is_empty() => Exit::Failed,
        JobStatus::Done => Exit::Done,
        // The request was carried out in full.
        _ if job.why.as_deref().is_some_and(|why| why.starts_with("--max")) => Exit::Done,
        _ => Exit::Failed,
    })
}

/// Maximum number of letters named on a line.
const MOST_NAMED: usize = 10;

/// The letters' names, or some of them if there are many.
fn names_of(letters: &[LetterKey]) -> String {
    let names: Vec<String> = letters.iter().take(MOST_NAMED).map(ToString::to_string).collect();
    match letters.len() - names.len() {
        0 => names.join(" "),
        more => format!("{} and {} more (all of them with -o json)", names.join(" "), thousands(more as u64)),
    }
}

fn progress_text(standing: &RedriveProgress, before: u64, since: Duration) -> String {
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
        JobStatus::Canary => text.push_str("  waiting for the outcome of the first ones"),
        _ => {}
    }
    text
}

/// The first signal pauses the job, the second ends the process: an open transaction is aborted.
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

//! `kladder dlq audit`

use clap::Args;
use serde_json::json;

use crate::cli::dlq::open::QueueArgs;
use crate::cli::dlq::table::{Table, or_dash, thousands};
use crate::cli::dlq::{Format, lines, pager};
use crate::cli::exit::Exit;
use crate::cli::stdout;
use crate::core::time::Timestamp;

/// Show what was done with dead letters: who, when, what, why
///
/// Each action is a record of the ladder's state topic. What was done with one letter last: `dlq show ID`.
#[derive(Debug, Args)]
pub struct AuditArgs {
    #[command(flatten)]
    queue: QueueArgs,

    /// How it is printed
    #[arg(short, long, value_enum, default_value = "text", value_name = "FORMAT")]
    output: Format,
}

pub fn run(args: AuditArgs) -> anyhow::Result<Exit> {
    let opened = args.queue.find()?;
    let feed = opened.read()?;
    let mut jobs = feed.index().jobs()?;
    jobs.retain(|job| job.queue == opened.queue.prefix);
    match args.output {
        Format::Text => {
            let mut table = Table::new(&["WHEN", "WHO", "WHAT", "DONE", "STATUS", "JOB", "WHICH", "WHY"], &[3]);
            for job in &jobs {
                let to = job.target.as_ref().map(|target| format!(" to {target}")).unwrap_or_default();
                table.row(vec![
                    Timestamp::from_millis(job.at).to_rfc3339(),
                    job.by.clone(),
                    format!("{}{to}", job.verb.as_str()),
                    thousands(job.done),
                    job.status.as_str().to_owned(),
                    job.id.clone(),
                    or_dash(Some(&job.filter)),
                    or_dash(job.note.as_deref().or(job.why.as_deref())),
                ]);
            }
            pager::print(&table.to_text())?;
        }
        Format::Json => stdout::print(&format!("{}\n", serde_json::to_string_pretty(&json!({ "actions": jobs }))?))?,
        Format::Jsonl => stdout::print(&lines(jobs.iter().map(|job| json!(job))))?,
    }
    Ok(Exit::Done)
}

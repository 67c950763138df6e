//! `kladder dlq audit`

use clap::Args;
use serde_json::json;

use crate::cli::dlq::open::QueueArgs;
use crate::cli::dlq::table::{Table, or_dash, thousands};
use crate::cli::dlq::{OutputFormat, pager};
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::core::dead_letter::JobStatus;
use crate::core::time::Timestamp;

/// Show the actions on dead letters: who, when, what, why
///
/// Each action is a record in the ladder's state topic. `dlq show ID` shows the last action on one letter.
#[derive(Debug, Args)]
pub struct AuditArgs {
    #[command(flatten)]
    queue: QueueArgs,

    /// Output format
    #[arg(short, long, value_enum, default_value = "text", value_name = "FORMAT")]
    output: OutputFormat,
}

pub fn run(args: AuditArgs) -> anyhow::Result<Exit> {
    let opened = args.queue.find()?;
    let feed = opened.read()?;
    let mut jobs = feed.index().jobs()?;
    jobs.retain(|job| job.queue == opened.queue.prefix);
    match args.output {
        OutputFormat::Text => {
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
                    or_dash(match (job.status, job.note.as_deref(), job.why.as_deref()) {
                        (JobStatus::Failed, _, Some(why)) | (_, None, Some(why)) => Some(why),
                        (_, note, _) => note,
                    }),
                ]);
            }
            pager::print(&table.to_text())?;
        }
        OutputFormat::Json => output::print_json(&json!({ "actions": jobs }))?,
        OutputFormat::Jsonl => output::print_json_lines(jobs.iter().map(|job| json!(job)))?,
    }
    Ok(Exit::Done)
}

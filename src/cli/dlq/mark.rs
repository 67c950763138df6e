//! `kladder dlq resolve`, `discard` and `restore`: set the state of letters; nothing is sent.

use clap::Args;
use serde_json::json;

use crate::cli::confirm::confirmed;
use crate::cli::dlq::open::{QueueArgs, now};
use crate::cli::dlq::progress::Line;
use crate::cli::dlq::table::{counted, thousands};
use crate::cli::dlq::{ActionArgs, FilterArg, OutputFormat, UsageError};
use crate::cli::exit::Exit;
use crate::cli::output::{self, tell};
use crate::cli::who::who;
use crate::core::dead_letter::{Job, LetterKey, LetterState, Verb};
use crate::core::time::Timestamp;
use crate::dlq::desk::DeskError;
use crate::dlq::filter::{Filter, GRAMMAR};
use crate::dlq::index::Index;

/// Mark dead letters as resolved: nothing more needs to be done
///
/// They stay in the topic until retention deletes them; `dlq restore` reopens them.
#[derive(Debug, Args)]
#[command(after_long_help = GRAMMAR)]
pub struct ResolveArgs {
    #[command(flatten)]
    mark: MarkArgs,
}

/// Mark dead letters as discarded: not needed any more
///
/// They stay in the topic until retention deletes them; `dlq restore` reopens them. `dlq purge` deletes letters for
/// good.
#[derive(Debug, Args)]
#[command(after_long_help = GRAMMAR)]
pub struct DiscardArgs {
    #[command(flatten)]
    mark: MarkArgs,
}

/// Reopen dead letters that were resolved, discarded or sent back
///
/// A letter that was sent back and has not finished yet would be handled twice if it were sent again:
/// reopening it needs --force.
#[derive(Debug, Args)]
#[command(after_long_help = GRAMMAR)]
pub struct RestoreArgs {
    #[command(flatten)]
    mark: MarkArgs,

    /// Include letters that were sent back, whatever became of them
    #[arg(long)]
    force: bool,
}

/// Which letters, and why.
#[derive(Debug, Args)]
pub struct MarkArgs {
    #[command(flatten)]
    filter: FilterArg,

    #[command(flatten)]
    queue: QueueArgs,

    /// All letters, if no filter is given
    #[arg(long)]
    all: bool,

    #[command(flatten)]
    action: ActionArgs,
}

pub fn resolve(args: ResolveArgs) -> anyhow::Result<Exit> {
    mark(&args.mark, Verb::Resolve, LetterState::Resolved, &LetterState::UNDONE)
}

pub fn discard(args: DiscardArgs) -> anyhow::Result<Exit> {
    mark(&args.mark, Verb::Discard, LetterState::Discarded, &LetterState::UNDONE)
}

pub fn restore(args: RestoreArgs) -> anyhow::Result<Exit> {
    let mut from = vec![LetterState::Resolved, LetterState::Discarded];
    if args.force {
        from.extend([LetterState::Redriven, LetterState::Succeeded, LetterState::FailedAgain]);
    }
    mark(&args.mark, Verb::Restore, LetterState::Open, &from)
}

/// A job name that no other job has: time and user.
pub fn job_id(who: &str, at: Timestamp) -> String {
    let salt = crate::dlq::groups::hash(format!("{who}\0{}\0{}", std::process::id(), at.as_millis()).as_bytes());
    format!("{:x}-{:04x}", at.as_millis() / 1_000, salt & 0xffff)
}

/// A filter for an action: an empty one is refused unless --all is given.
pub fn for_action(filter: &FilterArg, all: bool) -> Result<Filter, UsageError> {
    let parsed = filter.parse()?;
    match (parsed, all) {
        (Filter::All, false) => Err(UsageError("give a filter, or add --all".to_owned())),
        (Filter::All, true) => Ok(Filter::All),
        (_, true) => Err(UsageError("--all and a filter exclude each other".to_owned())),
        (filter, false) => Ok(filter),
    }
}

fn mark(args: &MarkArgs, verb: Verb, state: LetterState, from: &[LetterState]) -> anyhow::Result<Exit> {
    let filter = for_action(&args.filter, args.all)?.and_in(from);
    let who = who();
    let opened = args.queue.find()?;
    let mut desk = opened.write(&who)?;
    let (at, below) = (now(), desk.feed().letters_below()?);
    let chosen = desk.index().select(&filter, &below, at)?;
    if chosen.is_empty() {
        tell!("no letter to {} for `{filter}` in {}", verb.as_str(), opened.queue.topic);
        return Ok(Exit::Done);
    }
    if !args.action.yes {
        for row in desk.index().list(&filter, at, crate::dlq::index::Order::Newest, 3)? {
            tell!("  {}  {}", row.at, crate::core::harmless::on_one_line(row.message.as_deref().unwrap_or("-")));
        }
        let letters = counted(chosen.len() as u64, "dead letter");
        let question = format!("{} {letters} of {}?", verb.as_str(), opened.queue.topic);
        if !confirmed(&question, "add --yes")? {
            return Ok(Exit::Usage);
        }
    }
    let mut job = Job::new(&job_id(&who, at), verb, &opened.queue.prefix, &filter.to_string(), below, &who, at);
    job.note.clone_from(&args.action.note);
    let choose = |index: &Index, job: &Job| -> Result<Vec<LetterKey>, DeskError> { Ok(index.select(&filter, &job.below, at)?) };
    let mut line = Line::new();
    let job = desk.mark(job, state, choose, |job| {
        line.tell(&format!("{}: {} of {}", verb.as_str(), thousands(job.done), thousands(job.total)));
    })?;
    line.end();
    match args.action.output {
        OutputFormat::Text => {
            let are = if job.done == 1 { "is" } else { "are" };
            tell!("{} {are} {state} now (job {})", counted(job.done, "dead letter"), job.id);
        }
        OutputFormat::Json | OutputFormat::Jsonl => output::print_json_lines([json!({ "job": job })])?,
    }
    Ok(Exit::Done)
}

//! `kladder dlq`: dead letters, one file per command.

mod audit;
mod decoded;
mod diff;
mod drive;
mod edit;
mod export;
mod groups;
mod jobs;
mod list;
mod mark;
mod open;
mod pager;
mod progress;
mod purge;
mod redrive;
mod show;
mod table;

use clap::{Args, Subcommand, ValueEnum};
use thiserror::Error;

use crate::cli::exit::Exit;
use crate::dlq::filter::{Filter, FilterError};

/// List, search, group, fix and send back dead letters
///
/// Queries use an index in the state directory, which is built from the topic and brought up to date first. With -b and -t any
/// dead-letter topic can be read without a configuration or a worker; the headers of Spring Kafka, Kafka Connect, Kafka Streams,
/// Quarkus and share groups are understood.
///
/// Actions are recorded in the ladder's state topic, in one transaction with the records that are sent back.
#[derive(Debug, Args)]
pub struct DlqArgs {
    #[command(subcommand)]
    command: DlqCommand,
}

#[derive(Debug, Subcommand)]
enum DlqCommand {
    List(list::ListArgs),
    Show(show::ShowArgs),
    Groups(groups::GroupsArgs),
    Redrive(redrive::RedriveArgs),
    Resolve(mark::ResolveArgs),
    Discard(mark::DiscardArgs),
    Restore(mark::RestoreArgs),
    Edit(edit::EditArgs),
    Export(export::ExportArgs),
    Purge(purge::PurgeArgs),
    Jobs(jobs::JobsArgs),
    Audit(audit::AuditArgs),
}

/// Output format of data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// A table for people
    Text,
    /// One document
    Json,
    /// One document per line
    Jsonl,
}

/// Options of every command that acts on letters.
#[derive(Debug, Args)]
pub struct ActionArgs {
    /// Reason, kept with the letters
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,

    /// Do not ask for confirmation
    #[arg(short, long)]
    yes: bool,

    /// Output format of the result; text goes to stderr
    #[arg(short, long, value_enum, default_value = "text", value_name = "FORMAT")]
    output: OutputFormat,
}

/// Arguments that make no sense together.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct UsageError(pub String);

impl From<FilterError> for UsageError {
    fn from(error: FilterError) -> Self {
        Self(error.to_string())
    }
}

/// A filter.
#[derive(Debug, Args)]
pub struct FilterArg {
    /// Filter, see below
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,
}

impl FilterArg {
    fn text(&self) -> String {
        self.filter.join(" ")
    }

    fn parse(&self) -> Result<Filter, UsageError> {
        Ok(Filter::parse(&self.text())?)
    }
}

pub fn run(args: DlqArgs) -> anyhow::Result<Exit> {
    match args.command {
        DlqCommand::List(args) => list::run(args),
        DlqCommand::Show(args) => show::run(args),
        DlqCommand::Groups(args) => groups::run(args),
        DlqCommand::Redrive(args) => redrive::run(args),
        DlqCommand::Resolve(args) => mark::resolve(args),
        DlqCommand::Discard(args) => mark::discard(args),
        DlqCommand::Restore(args) => mark::restore(args),
        DlqCommand::Edit(args) => edit::run(args),
        DlqCommand::Export(args) => export::run(args),
        DlqCommand::Purge(args) => purge::run(args),
        DlqCommand::Jobs(args) => jobs::run(args),
        DlqCommand::Audit(args) => audit::run(args),
    }
}

//! `kladder dlq`: dead letters, one file a command.

mod audit;
mod decoded;
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

/// See, search, group, fix and send back dead letters
///
/// What is asked for is answered from an index in the state directory, which is made from the topic and brought up to date first.
/// With -b and -t any dead-letter topic can be looked at: no configuration and no worker is needed, and the headers of Spring Kafka,
/// Kafka Connect, Kafka Streams, Quarkus and share groups are understood.
///
/// What is done with letters is written to the ladder's state topic, in one transaction with the records that are sent back.
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

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table for people
    Text,
    /// One document
    Json,
    /// One document a line
    Jsonl,
}

/// What every command takes that does something with letters.
#[derive(Debug, Args)]
pub struct ActionArgs {
    /// Why, for whoever looks at it later
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,

    /// Do not ask
    #[arg(short, long)]
    yes: bool,

    /// How the outcome is printed; text goes to stderr
    #[arg(short, long, value_enum, default_value = "text", value_name = "FORMAT")]
    output: Format,
}

/// Documents, one a line.
fn lines(documents: impl IntoIterator<Item = serde_json::Value>) -> String {
    documents.into_iter().fold(String::new(), |text, document| text + &document.to_string() + "\n")
}

/// What was asked for makes no sense.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct UsageError(pub String);

impl From<FilterError> for UsageError {
    fn from(error: FilterError) -> Self {
        Self(error.to_string())
    }
}

/// Which letters.
#[derive(Debug, Args)]
pub struct FilterArg {
    /// Which letters, see below
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

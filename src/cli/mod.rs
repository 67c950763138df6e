//! The command line: one file per command.

pub mod config_file;
pub mod exit;
pub mod output;

mod admin_client;
mod check;
mod confirm;
mod demo;
mod descriptors;
mod dlq;
mod doctor;
mod explain;
mod generate;
mod hold;
mod init;
mod log;
mod panics;
mod quiesce;
mod resume;
mod run;
mod setup;
mod status;
mod stub;
mod top;
mod who;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use thiserror::Error;

use crate::cli::exit::Exit;
use crate::config::{Config, LadderConfig};
use crate::topology::ClusterError;

/// A retry-topic ladder for Apache Kafka.
///
/// Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 drift, 4 hazard, 101 internal error.
#[derive(Debug, Parser)]
#[command(name = "kladder", version, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::InitArgs),
    Check(check::CheckArgs),
    Setup(setup::SetupArgs),
    Doctor(doctor::DoctorArgs),
    Explain(explain::ExplainArgs),
    Run(run::RunArgs),
    Status(status::StatusArgs),
    Top(top::TopArgs),
    Hold(hold::HoldArgs),
    Resume(resume::ResumeArgs),
    Quiesce(quiesce::QuiesceArgs),
    Log(log::LogArgs),
    Dlq(dlq::DlqArgs),
    Generate(generate::GenerateArgs),
    Stub(stub::StubArgs),
    Demo(demo::DemoArgs),
}

/// The configuration file to load.
#[derive(Debug, Clone, Args)]
pub struct ConfigArg {
    /// The file named on the command line or in the environment, if any; `-` is stdin.
    #[arg(
        short = 'c',
        long = "config",
        value_name = "FILE",
        env = "KLADDER_CONFIG",
        help = "Configuration file, `-` for stdin [default: kladder.toml in ., $XDG_CONFIG_HOME/kladder or /etc/kladder]"
    )]
    pub config: Option<PathBuf>,
}

/// Output format of data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Text for people.
    Text,
    /// JSON.
    Json,
}

/// Parses the command line, runs the command and maps its exit code.
///
/// `purge` returns freed memory to the system, if the program uses another allocator than the platform's.
#[must_use]
pub fn main(purge: Option<fn()>) -> ExitCode {
    if let Some(purge) = purge {
        crate::kafka::memory_is_handed_back_by(purge);
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(said) => return print_parser_output(&said).into(),
    };
    let result = match cli.command {
        Command::Init(args) => init::run(args),
        Command::Check(args) => check::run(args),
        Command::Setup(args) => setup::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Run(args) => run::run(args),
        Command::Status(args) => status::run(args),
        Command::Top(args) => top::run(args),
        Command::Hold(args) => hold::run(args),
        Command::Resume(args) => resume::run(args),
        Command::Quiesce(args) => quiesce::run(args),
        Command::Log(args) => log::run(args),
        Command::Dlq(args) => dlq::run(args),
        Command::Generate(args) => generate::run(args),
        Command::Stub(args) => stub::run(args),
        Command::Demo(args) => demo::run(args),
    };
    match result {
        Ok(exit) => exit.into(),
        Err(error) => {
            output::tell_line(&format!("error: {error:#}"));
            let is_usage = error.is::<config_file::ConfigFileError>()
                || error.is::<UnknownLadder>()
                || error.is::<dlq::UsageError>()
                || error.is::<top::NoTerminal>()
                || matches!(error.downcast_ref(), Some(ClusterError::Settings { .. }));
            if is_usage { Exit::Usage } else { Exit::Failed }.into()
        }
    }
}

/// Help and version go to stdout, everything else from the parser to stderr.
fn print_parser_output(said: &clap::Error) -> Exit {
    let colours = if said.use_stderr() { output::stderr_is_terminal() } else { output::stdout_is_terminal() };
    let text = if colours { said.render().ansi().to_string() } else { said.render().to_string() };
    if said.use_stderr() {
        output::tell_coloured(&text);
        return Exit::Usage;
    }
    match output::print_coloured(&text) {
        Ok(()) => Exit::Done,
        Err(error) => {
            output::tell_line(&format!("error: {error}: {}", error.0));
            Exit::Failed
        }
    }
}

/// The named ladder is not in the configuration.
#[derive(Debug, Error)]
#[error("no ladder `{name}` in the configuration, which has: {known}")]
struct UnknownLadder {
    name: String,
    known: String,
}

/// The named ladders, or all if none is named.
fn chosen_ladders<'a>(config: &'a Config, names: &[String]) -> Result<Vec<&'a LadderConfig>, UnknownLadder> {
    let known = || config.ladders.iter().map(|l| l.ladder.name()).collect::<Vec<_>>().join(", ");
    match names.iter().find(|name| config.ladders.iter().all(|l| l.ladder.name() != *name)) {
        Some(unknown) => Err(UnknownLadder { name: unknown.clone(), known: known() }),
        None => Ok(config.ladders.iter().filter(|l| names.is_empty() || names.iter().any(|n| n == l.ladder.name())).collect()),
    }
}

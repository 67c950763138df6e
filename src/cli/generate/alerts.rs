//! `kladder generate alerts`

use clap::Args;

use crate::cli::exit::Exit;
use crate::cli::output;
use crate::cli::{ConfigArg, config_file};
use crate::telemetry::alerts;

/// Print alert rules for Prometheus
///
/// Prints a rule file (YAML) with one group per ladder. Thresholds follow the configuration: tier delays, breakers, retention of dead letters, and
/// [alerts]. Each alert has a severity (critical, warning, info), a summary and, if `runbook` of [alerts] is set, a link to its section there, as in docs/runbook.md.
/// List the file in `rule_files` of Prometheus, and generate it again after the configuration has changed.
#[derive(Debug, Args)]
pub struct AlertsArgs {
    #[command(flatten)]
    config: ConfigArg,
}

pub fn run(args: &AlertsArgs) -> anyhow::Result<Exit> {
    let config = config_file::load(&args.config)?.config;
    output::print(&alerts::rule_file(&config))?;
    Ok(Exit::Done)
}

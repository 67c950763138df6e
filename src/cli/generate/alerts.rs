//! `kladder generate alerts`

use clap::Args;

use crate::cli::exit::Exit;
use crate::cli::{ConfigArg, config_file, stdout};
use crate::telemetry::alerts;

/// Print alert rules for Prometheus
///
/// A rule file (YAML) with a group a ladder. Thresholds follow the configuration: the delays of the tiers, the breakers, the retention
/// of dead letters, and what stands in [alerts]. Each alert has a severity (critical, warning, info), a summary and the address of
/// what to do. Name the file in `rule_files` of Prometheus, and print it anew when the configuration has changed.
#[derive(Debug, Args)]
pub struct AlertsArgs {
    #[command(flatten)]
    config: ConfigArg,
}

pub fn run(args: &AlertsArgs) -> anyhow::Result<Exit> {
    let config = config_file::load(&args.config)?.config;
    stdout::print(&alerts::rule_file(&config))?;
    Ok(Exit::Done)
}

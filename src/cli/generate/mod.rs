//! `kladder generate`

mod acls;
mod alerts;
mod grafana;

use clap::{Args, Subcommand};

use crate::cli::exit::Exit;
use crate::cli::output;
use crate::telemetry::reference;

/// Generate dashboards, alert rules, ACL commands and the metrics reference
#[derive(Debug, Args)]
pub struct GenerateArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Acls(acls::AclsArgs),
    Alerts(alerts::AlertsArgs),
    Grafana(grafana::GrafanaArgs),
    /// Print the reference of all metrics in Markdown: names, types, labels and their values, buckets
    Metrics,
}

pub fn run(args: GenerateArgs) -> anyhow::Result<Exit> {
    match args.what {
        What::Acls(args) => acls::run(&args),
        What::Alerts(args) => alerts::run(&args),
        What::Grafana(args) => grafana::run(&args),
        What::Metrics => {
            output::print(&reference::markdown())?;
            Ok(Exit::Done)
        }
    }
}

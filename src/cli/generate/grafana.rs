//! `kladder generate grafana`

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::cli::exit::Exit;
use crate::cli::output::{self, tell};
use crate::cli::{ConfigArg, config_file};
use crate::telemetry::dashboards::Dashboard;

/// Print dashboards for Grafana
///
/// fleet shows all ladders, ladder shows one with a row per tier, dlq shows the dead letters. They work on any Prometheus that
/// scrapes /metrics of the workers, and find the ladders there; with -c the ladder dashboard opens with the first ladder of the
/// configuration.
///
/// To import: in Grafana, Dashboards, New, Import, then upload a file written by -d; or put the files into a directory that a
/// dashboard provider of Grafana's provisioning reads. Uids are fixed: importing again replaces.
///
/// Without -d, one dashboard is printed as an importable document, several as a JSON list.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct GrafanaArgs {
    #[command(flatten)]
    config: ConfigArg,

    /// Only this dashboard; may be repeated
    #[arg(long = "dashboard", value_name = "NAME")]
    dashboards: Vec<Dashboard>,

    /// Write one file per dashboard into this directory instead of printing
    #[arg(short = 'd', long = "directory", value_name = "DIR")]
    directory: Option<PathBuf>,
}

impl ValueEnum for Dashboard {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(self.name()))
    }
}

pub fn run(args: &GrafanaArgs) -> anyhow::Result<Exit> {
    // Dashboards work without a configuration, so only a file named explicitly is read.
    let config = args.config.config.is_some().then(|| config_file::load(&args.config)).transpose()?;
    let ladders: Vec<&str> = config.iter().flat_map(|file| &file.config.ladders).map(|ladder| ladder.ladder.name()).collect();
    let chosen: &[Dashboard] = if args.dashboards.is_empty() { &Dashboard::ALL } else { &args.dashboards };
    let Some(directory) = &args.directory else {
        let mut all: Vec<Value> = chosen.iter().map(|dashboard| dashboard.to_json(&ladders)).collect();
        let printed = if all.len() == 1 { all.remove(0) } else { Value::Array(all) };
        output::print_json(&printed)?;
        return Ok(Exit::Done);
    };
    fs::create_dir_all(directory).with_context(|| format!("cannot create the directory {}", directory.display()))?;
    for dashboard in chosen {
        let path = directory.join(format!("{}.json", dashboard.uid()));
        fs::write(&path, pretty(&dashboard.to_json(&ladders))?).with_context(|| format!("cannot write {}", path.display()))?;
        tell!("wrote {}", path.display());
    }
    Ok(Exit::Done)
}

fn pretty(value: &Value) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

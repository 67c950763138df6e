//! `kladder log`.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use http::Method;

use crate::cli::admin_client::ask;
use crate::cli::exit::Exit;
use crate::cli::{ConfigArg, config_file, stdout};

/// Show or change what the worker on this machine logs, while it runs
///
/// FILTER is a level (off, error, warn, info, debug, trace) or `target=level` pairs, comma-separated: `info,kladder::worker=debug`.
/// At debug each decision is logged; no key, value or header of a record is at any level. A worker that is started anew begins with
/// `KLADDER_LOG`, or info. Without FILTER it is shown.
///
/// It asks the worker at the address of [admin]: `PUT /log`.
#[derive(Debug, Args)]
pub struct LogArgs {
    #[command(flatten)]
    config: ConfigArg,

    /// What is to be logged from now on
    filter: Option<String>,
}

pub fn run(args: LogArgs) -> anyhow::Result<Exit> {
    let admin = config_file::load(&args.config)?.config.admin.listen;
    let method = if args.filter.is_some() { Method::PUT } else { Method::GET };
    let (status, body) = ask(admin, method, "/log", args.filter.as_deref().unwrap_or_default(), Duration::ZERO)?;
    if !status.is_success() {
        bail!("{}", body.trim());
    }
    stdout::print(&body)?;
    Ok(Exit::Done)
}

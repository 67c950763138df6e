//! `kladder log`.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use http::Method;

use crate::cli::admin_client::ask;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::cli::{ConfigArg, config_file};

/// Show or change the log filter of the worker on this machine
///
/// FILTER is a level (off, error, warn, info, debug, trace) or comma-separated `target=level` pairs: `info,kladder::worker=debug`.
/// At debug each decision is logged; keys, values and headers of records are never logged. A restarted worker begins with
/// `KLADDER_LOG`, or info. Without FILTER the current filter is printed.
///
/// Sends `PUT /log` to the worker at the address of [admin].
#[derive(Debug, Args)]
pub struct LogArgs {
    #[command(flatten)]
    config: ConfigArg,

    /// New log filter
    filter: Option<String>,
}

pub fn run(args: LogArgs) -> anyhow::Result<Exit> {
    let admin = config_file::load(&args.config)?.config.admin.listen;
    let method = if args.filter.is_some() { Method::PUT } else { Method::GET };
    let (status, body) = ask(admin, method, "/log", args.filter.as_deref().unwrap_or_default(), Duration::ZERO)?;
    if !status.is_success() {
        bail!("{}", body.trim());
    }
    output::print(&body)?;
    Ok(Exit::Done)
}

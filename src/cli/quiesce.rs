//! `kladder quiesce`.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use http::{Method, StatusCode};

use crate::admin::control::LONGEST_WAIT;
use crate::cli::admin_client::ask;
use crate::cli::exit::Exit;
use crate::cli::output::tell;
use crate::cli::{ConfigArg, config_file};

/// Exit codes.
const AFTER_HELP: &str = "\
Exit codes:
  0  quiet: the application may be stopped; with --lift: deliveries have resumed
  1  deliveries are still in flight, or no worker can be reached
  2  usage or configuration";

/// Quiesce the worker on this machine: stop starting deliveries, so that the application beside it can be stopped
///
/// Waits until no handler call is in flight. The worker stays up and ready: due records are still moved on time and wait in
/// redeliver, new records wait in the source, and no attempt is counted. `/readyz` reports that it is quiesced. A restarted
/// worker is not.
///
/// Sends `POST /quiesce` to the worker at the address of [admin], as an application's preStop hook
/// does.
#[derive(Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct QuiesceArgs {
    #[command(flatten)]
    config: ConfigArg,

    /// Maximum wait for deliveries in flight, at most 1h [default: `drain` of [worker]]
    #[arg(long, value_name = "TIME", value_parser = wait, conflicts_with = "lift")]
    wait: Option<Duration>,

    /// Resume deliveries
    #[arg(long)]
    lift: bool,
}

fn wait(text: &str) -> Result<Duration, String> {
    let wait = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if wait <= LONGEST_WAIT { Ok(wait) } else { Err("at most 1h".to_owned()) }
}

pub fn run(args: QuiesceArgs) -> anyhow::Result<Exit> {
    let config = config_file::load(&args.config)?.config;
    let wait = args.wait.unwrap_or(config.worker.drain);
    let (status, body) = if args.lift {
        ask(config.admin.listen, Method::DELETE, "/quiesce", "", Duration::ZERO)?
    } else {
        let path = format!("/quiesce?wait={}ms", wait.as_millis());
        ask(config.admin.listen, Method::POST, &path, "", wait)?
    };
    if status != StatusCode::OK && status != StatusCode::GATEWAY_TIMEOUT {
        bail!("the worker answered {status}: {}", body.trim());
    }
    tell!("{}", body.trim());
    Ok(if status == StatusCode::OK { Exit::Done } else { Exit::Failed })
}

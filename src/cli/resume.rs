//! `kladder resume`

use std::time::Duration;

use clap::Args;

use crate::cli::exit::Exit;
use crate::cli::hold::{self, AFTER_HELP, Which};

/// Resume held ladders, and release held dead letters
///
/// The workers continue where they stopped, within two seconds: records that came due meanwhile are moved, oldest first. Resuming a
/// ladder that is not held changes nothing; an unreadable hold record is overwritten. If the DLQ breaker holds dead letters, they are
/// released: each gets its last attempt again when it is due in the largest tier. If that many dead letters are expected (an application
/// that rejects much), --accept-dead-letters holds none for the given time.
///
/// Without --ladder, all ladders of the configuration are resumed; if there are several, that needs confirmation or
/// --yes.
#[derive(Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct ResumeArgs {
    #[command(flatten)]
    which: Which,

    /// Accept dead letters, however many there are, for this long (1s to 30d)
    #[arg(long, value_name = "TIME", value_parser = time)]
    accept_dead_letters: Option<Duration>,
}

fn time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| format!("{error}: write it as `24h`"))?;
    let sound = Duration::from_secs(1)..=Duration::from_secs(30 * 86_400);
    if sound.contains(&time) { Ok(time) } else { Err("must be from 1s to 30d".to_owned()) }
}

pub fn run(args: ResumeArgs) -> anyhow::Result<Exit> {
    hold::change(&args.which, false, args.accept_dead_letters)
}

//! `kladder resume`

use std::time::Duration;

use clap::Args;

use crate::cli::exit::Exit;
use crate::cli::hold::{self, AFTER_HELP, Which};

/// Resume ladders that are held, and let dead letters go that are
///
/// The workers go on where they were, within two seconds: what came due meanwhile is moved, oldest first. Resuming what is not held
/// changes nothing; a hold that cannot be read is overwritten. Where the DLQ breaker holds what would be dead letters, that ends too:
/// each gets its last attempt once more when it is due in the largest tier. Where they are as they should be (an application that rejects
/// much), --accept-dead-letters says so: for that time none are held.
///
/// With no --ladder all ladders of the file are meant; where there are several that is asked about, or needs --yes.
#[derive(Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct ResumeArgs {
    #[command(flatten)]
    which: Which,

    /// Dead letters are fine, however many there are: hold none for this long (1s to 30d)
    #[arg(long, value_name = "TIME", value_parser = time)]
    accept_dead_letters: Option<Duration>,
}

fn time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| format!("{error}: write it as `24h`"))?;
    let sound = Duration::from_secs(1)..=Duration::from_secs(30 * 86_400);
    if sound.contains(&time) { Ok(time) } else { Err("from 1s to 30d".to_owned()) }
}

pub fn run(args: ResumeArgs) -> anyhow::Result<Exit> {
    hold::change(&args.which, false, args.accept_dead_letters)
}

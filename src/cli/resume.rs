//! `kladder resume`

use clap::Args;

use crate::cli::exit::Exit;
use crate::cli::hold::{self, AFTER_HELP, Which};

/// Resume ladders that are held
///
/// The workers go on where they were, within two seconds: what came due meanwhile is moved, oldest first. Resuming what is not held
/// changes nothing; a hold that cannot be read is overwritten.
///
/// With no --ladder all ladders of the file are meant; where there are several that is asked about, or needs --yes.
#[derive(Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct ResumeArgs {
    #[command(flatten)]
    which: Which,
}

pub fn run(args: ResumeArgs) -> anyhow::Result<Exit> {
    hold::change(&args.which, false)
}

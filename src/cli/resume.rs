//! `kladder resume`

use clap::Args;

use crate::cli::exit::Exit;
use crate::cli::hold::{self, AFTER_HELP, Which};

/// Resume ladders that are held, and let dead letters go that are
///
/// The workers go on where they were, within two seconds: what came due meanwhile is moved, oldest first. Resuming what is not held
/// changes nothing; a hold that cannot be read is overwritten. Where the DLQ breaker holds what would be dead letters, that ends too:
/// each gets its last attempt once more when it is due in the largest tier.
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

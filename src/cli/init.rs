//! `kladder init`

use clap::Args;

use crate::cli::exit::Exit;

/// Print a starting configuration
#[derive(Debug, Args)]
pub struct InitArgs {}

pub fn run(_args: InitArgs) -> anyhow::Result<Exit> {
    anyhow::bail!("not built yet")
}

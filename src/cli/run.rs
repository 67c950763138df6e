//! `kladder run`

use clap::Args;

use crate::cli::exit::Exit;

/// Run the workers
#[derive(Debug, Args)]
pub struct RunArgs {}

pub fn run(_args: RunArgs) -> anyhow::Result<Exit> {
    anyhow::bail!("not built yet")
}

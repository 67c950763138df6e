//! `kladder status`

use clap::Args;

use crate::cli::exit::Exit;

/// Show the ladders as they are now
#[derive(Debug, Args)]
pub struct StatusArgs {}

pub fn run(_args: StatusArgs) -> anyhow::Result<Exit> {
    anyhow::bail!("not built yet")
}

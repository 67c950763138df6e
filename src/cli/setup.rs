//! `kladder setup`

use clap::Args;

use crate::cli::exit::Exit;

/// Create and check the topics of the ladders
#[derive(Debug, Args)]
pub struct SetupArgs {}

pub fn run(_args: SetupArgs) -> anyhow::Result<Exit> {
    anyhow::bail!("not built yet")
}

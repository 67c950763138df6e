//! `kladder check`

use clap::Args;

use crate::cli::exit::Exit;

/// Check a configuration file, without a broker
#[derive(Debug, Args)]
pub struct CheckArgs {}

pub fn run(_args: CheckArgs) -> anyhow::Result<Exit> {
    anyhow::bail!("not built yet")
}

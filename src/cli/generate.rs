//! `kladder generate`

use clap::Args;

use crate::cli::exit::Exit;

/// Generate files from the configuration
#[derive(Debug, Args)]
pub struct GenerateArgs {}

pub fn run(_args: GenerateArgs) -> anyhow::Result<Exit> {
    anyhow::bail!("not built yet")
}

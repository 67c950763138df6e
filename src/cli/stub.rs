//! `kladder stub`

use clap::Args;

use crate::cli::exit::Exit;

/// A flaky handler to try against
#[derive(Debug, Args)]
pub struct StubArgs {}

pub fn run(_args: StubArgs) -> anyhow::Result<Exit> {
    anyhow::bail!("not built yet")
}

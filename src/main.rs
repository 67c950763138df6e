//! The binary: parses, runs, maps the exit code.
#![deny(clippy::print_stderr, clippy::print_stdout)]

#[cfg(all(feature = "jemalloc", target_os = "linux"))]
mod allocator;

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(all(feature = "jemalloc", target_os = "linux"))]
    let purge = Some(allocator::purge as fn());
    #[cfg(not(all(feature = "jemalloc", target_os = "linux")))]
    let purge = None;
    kladder::run_program(purge)
}

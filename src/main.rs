//! The binary: parses, runs, maps the exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    kladder::cli::main()
}

//! The command line as seen by users: output, streams and exit codes.

#![cfg(feature = "cli")]
#![expect(clippy::unwrap_used, reason = "a test that cannot begin fails where it stands")]

mod check;
mod explain;
mod generate;
mod init;
mod limits;
#[path = "../broker/support/port.rs"]
mod port;
mod support;
